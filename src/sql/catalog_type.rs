//! Types that only PostgreSQL's catalogs have, as they stand in casts.

use datafusion::sql::sqlparser::ast::DataType;

use crate::pg_type::PgType;

/// A type whose values are numbers of objects, written and shown as their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    Class,
    Type,
    Procedure,
    Operator,
    Namespace,
    Role,
}

impl Registered {
    pub fn of_type(data_type: &DataType) -> Option<Registered> {
        Some(match bare_name(&data_type.to_string()).as_str() {
            "regclass" => Registered::Class,
            "regtype" => Registered::Type,
            "regproc" | "regprocedure" => Registered::Procedure,
            "regoper" | "regoperator" => Registered::Operator,
            "regnamespace" => Registered::Namespace,
            "regrole" => Registered::Role,
            _ => return None,
        })
    }

    /// Whose input or output this function is.
    pub fn of_function(name: &str) -> Option<Registered> {
        let all = [
            Registered::Class,
            Registered::Type,
            Registered::Procedure,
            Registered::Operator,
            Registered::Namespace,
            Registered::Role,
        ];
        all.into_iter().find(|registered| registered.input() == name || registered.output() == name)
    }

    pub fn type_name(self) -> &'static str {
        match self {
            Registered::Class => "regclass",
            Registered::Type => "regtype",
            Registered::Procedure => "regproc",
            Registered::Operator => "regoperator",
            Registered::Namespace => "regnamespace",
            Registered::Role => "regrole",
        }
    }

    /// The function from a name, or a number, to the number.
    pub fn input(self) -> &'static str {
        match self {
            Registered::Class => "regclassin",
            Registered::Type => "regtypein",
            Registered::Procedure => "regprocin",
            Registered::Operator => "regoperatorin",
            Registered::Namespace => "regnamespacein",
            Registered::Role => "regrolein",
        }
    }

    /// The function from a number, or a name, to the name.
    pub fn output(self) -> &'static str {
        match self {
            Registered::Class => "regclassout",
            Registered::Type => "regtypeout",
            Registered::Procedure => "regprocout",
            Registered::Operator => "regoperatorout",
            Registered::Namespace => "regnamespaceout",
            Registered::Role => "regroleout",
        }
    }
}

/// The nearest of our types for one that a cast names with its schema, or that only catalogs have; `None` for all
/// others, which need no translation.
pub fn catalog_type(written: &str) -> Option<PgType> {
    let name = bare_name(written);
    let is_qualified = name.len() != written.trim().len();
    if let Some(element) = name.strip_suffix("[]") {
        let element = catalog_type(element).or_else(|| is_qualified.then(|| PgType::parse(element).ok()).flatten())?;
        return Some(PgType::Array(Box::new(element)));
    }
    match name.as_str() {
        "oid" => Some(PgType::Oid),
        "xid" | "cid" => Some(PgType::Int8),
        "name" | "sql_identifier" => Some(PgType::Name),
        "\"char\"" => Some(PgType::Char),
        "cstring" | "unknown" | "pg_node_tree" | "bpchar" | "aclitem" | "character_data" | "yes_or_no" | "regclass"
        | "regtype" | "regproc" => Some(PgType::Text),
        "cardinal_number" => Some(PgType::Int4),
        "int2vector" => Some(PgType::Array(Box::new(PgType::Int2))),
        "oidvector" => Some(PgType::Array(Box::new(PgType::Oid))),
        other if is_qualified => PgType::parse(other).ok(),
        _ => None,
    }
}

/// In lower case and without the schema.
fn bare_name(written: &str) -> String {
    let name = written.trim().to_ascii_lowercase();
    let name = name.strip_prefix("pg_catalog.").or_else(|| name.strip_prefix("information_schema.")).unwrap_or(&name);
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_catalogs_have_one_of_ours_and_others_stay() {
        for (written, expected) in [
            ("pg_catalog.oid", Some("oid")),
            ("pg_catalog.text", Some("text")),
            ("pg_catalog.int4", Some("integer")),
            ("\"char\"[]", Some("\"char\"[]")),
            ("pg_catalog.int2[]", Some("smallint[]")),
            ("NAME", Some("name")),
            ("bigint", None),
            ("int4[]", None),
            ("no_such", None),
        ] {
            assert_eq!(catalog_type(written).map(|found| found.to_string()).as_deref(), expected, "{written}");
        }
    }
}
