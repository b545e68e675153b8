//! Types by number and by name, and what they are called.

use std::sync::LazyLock;

use super::declared::BUILTIN;

/// What the catalogs tell of a type beside what `pg_type` says.
#[derive(Debug)]
pub struct TypeFacts {
    pub oid: u32,
    /// `pg_type.typname`.
    pub name: &'static str,
    /// The type of an array's elements, else 0.
    pub element: u32,
    pub is_array: bool,
    pub length: &'static str,
    pub by_value: &'static str,
    pub align: &'static str,
    pub storage: &'static str,
    pub collation: &'static str,
}

static TYPES: LazyLock<Vec<TypeFacts>> = LazyLock::new(|| {
    let Some(table) = BUILTIN.get("pg_type") else { return vec![] };
    let position = |name: &str| table.columns.iter().position(|column| *column == name);
    let read = |row: &Vec<Option<&'static str>>| {
        let text = |name: &str| position(name).and_then(|position| row.get(position).copied().flatten());
        Some(TypeFacts {
            oid: text("oid")?.parse().ok()?,
            name: text("typname")?,
            element: text("typelem")?.parse().ok()?,
            is_array: text("typcategory")? == "A" && text("typlen")? == "-1",
            length: text("typlen")?,
            by_value: text("typbyval")?,
            align: text("typalign")?,
            storage: text("typstorage")?,
            collation: text("typcollation")?,
        })
    };
    table.rows.iter().filter_map(read).collect()
});

/// What PostgreSQL says of its own types, by their numbers.
pub fn type_descriptions() -> impl Iterator<Item = (u32, &'static str)> {
    include_str!("type_descriptions.txt").lines().filter_map(|line| {
        let (oid, description) = line.split_once(' ')?;
        Some((oid.parse().ok()?, description))
    })
}

pub fn type_by_oid(oid: u32) -> Option<&'static TypeFacts> {
    TYPES.iter().find(|known| known.oid == oid)
}

/// By the name in `pg_type`.
pub fn type_by_name(name: &str) -> Option<&'static TypeFacts> {
    TYPES.iter().find(|known| known.name == name)
}

/// By a name as a user writes it: `integer`, `int4`, `numeric(12,2)`, `pg_catalog.text`, `text[]`.
pub fn type_by_written_name(written: &str) -> Option<&'static TypeFacts> {
    let written = written.trim().to_ascii_lowercase();
    let written = written.strip_prefix("pg_catalog.").unwrap_or(&written);
    if let Some(element) = written.strip_suffix("[]") {
        let element = type_by_written_name(element)?;
        return TYPES.iter().find(|known| known.is_array && known.element == element.oid);
    }
    let (base, rest) = written.split_once('(').unwrap_or((written, ""));
    let rest = rest.split_once(')').map_or("", |(_, rest)| rest);
    let base = format!("{}{rest}", base.trim());
    let quoted = base.strip_prefix('"').and_then(|base| base.strip_suffix('"'));
    match quoted {
        Some(name) => type_by_name(name),
        None => TYPES
            .iter()
            .find(|known| base_name(known.name) == base)
            .or_else(|| type_by_name(&base).filter(|known| known.name != "char"))
            .or_else(|| type_by_alias(&base)),
    }
}

fn type_by_alias(written: &str) -> Option<&'static TypeFacts> {
    type_by_name(match written {
        "int" => "int4",
        "decimal" => "numeric",
        "float" => "float8",
        "char" => "bpchar",
        _ => return None,
    })
}

/// What PostgreSQL's `format_type` gives; `modifier` is -1 for none.
pub fn format_type(oid: u32, modifier: i32) -> String {
    if oid == 0 {
        return "-".to_string();
    }
    let Some(facts) = type_by_oid(oid) else { return "???".to_string() };
    // The two whose items always stand within a row keep their own names.
    if facts.is_array && facts.element != 0 && !facts.name.ends_with("vector") {
        return format!("{}[]", format_type(facts.element, modifier));
    }
    let name = base_name(facts.name);
    if modifier < 0 {
        return name.to_string();
    }
    match facts.name {
        "numeric" => {
            let packed = modifier - 4;
            format!("{name}({},{})", (packed >> 16) & 0xffff, packed & 0x7ff)
        }
        "varchar" | "bpchar" => format!("{name}({})", modifier - 4),
        "time" | "timestamp" => format!("{}({modifier}) without time zone", facts.name),
        "timestamptz" => format!("timestamp({modifier}) with time zone"),
        _ => name.to_string(),
    }
}

/// The SQL name of a type that is no array.
fn base_name(name: &'static str) -> &'static str {
    match name {
        "bool" => "boolean",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "float4" => "real",
        "float8" => "double precision",
        "bpchar" => "character",
        "varchar" => "character varying",
        "time" => "time without time zone",
        "timestamp" => "timestamp without time zone",
        "timestamptz" => "timestamp with time zone",
        "char" => "\"char\"",
        "any" => "\"any\"",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_as_postgres_calls_them() {
        for (oid, modifier, expected) in [
            (20, -1, "bigint"),
            (1700, 786_438, "numeric(12,2)"),
            (1231, 786_438, "numeric(12,2)[]"),
            (1184, -1, "timestamp with time zone"),
            (18, -1, "\"char\""),
            (1043, 14, "character varying(10)"),
            (22, -1, "int2vector"),
            (1007, -1, "integer[]"),
            (0, -1, "-"),
            (999_999, -1, "???"),
        ] {
            assert_eq!(format_type(oid, modifier), expected);
        }
    }

    #[test]
    fn every_description_is_of_a_type() {
        assert_eq!(type_descriptions().count(), include_str!("type_descriptions.txt").lines().count());
        assert!(type_descriptions().all(|(oid, _)| type_by_oid(oid).is_some()));
    }

    #[test]
    fn types_are_found_by_every_spelling() {
        for (written, oid) in [
            ("int", Some(23)),
            ("INTEGER", Some(23)),
            ("pg_catalog.text", Some(25)),
            ("numeric(12,2)", Some(1700)),
            ("text[]", Some(1009)),
            ("\"char\"", Some(18)),
            ("char(3)", Some(1042)),
            ("timestamp with time zone", Some(1184)),
            ("timestamp(3) with time zone", Some(1184)),
            ("trigger", Some(2279)),
            ("no_such", None),
        ] {
            assert_eq!(type_by_written_name(written).map(|found| found.oid), oid, "{written}");
        }
    }
}
