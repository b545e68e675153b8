//! What the functions over lookup tables share: their first argument names a table, each further one is a key.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::{ScalarFunctionArgs, Signature, Volatility};

use crate::catalog::{Catalog, Lookup, Viewer};
use crate::error::{Code, Error, Result};
use crate::format::settings::ValueSettings;
use crate::lookup::policy::CachePolicy;
use crate::pg_type::PgType;
use crate::sql::cast::cast_array;

/// A table's name and any number of keys of any type. Volatile: what such a function does is done once for each row,
/// and never while a statement is planned.
pub(super) fn signature() -> Signature {
    Signature::variadic_any(Volatility::Volatile)
}

/// # Errors
/// 42883 unless the first argument is text.
pub(super) fn check_types(function: &str, types: &[DataType]) -> Result<()> {
    match types.first() {
        Some(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null) => Ok(()),
        _ => Err(Error::new(Code::UndefinedFunction, format!("{function} needs the name of a lookup table"))
            .with_hint(format!("Write SELECT {function}('customers')."))),
    }
}

/// Who calls the function; it is for administrators.
///
/// # Errors
/// 42501 for anybody else.
pub(super) fn administrator<'a>(function: &str, args: &'a ScalarFunctionArgs) -> Result<&'a Viewer> {
    let viewer = Viewer::of(&args.config_options).ok_or_else(|| Error::internal("a call by nobody"))?;
    match viewer.rights.admin {
        true => Ok(viewer),
        false => Err(Error::new(Code::InsufficientPrivilege, format!("permission denied for function {function}"))),
    }
}

/// One call: a table's name and the keys.
pub(super) struct Call {
    /// `None` for NULL.
    pub table: Option<String>,
    /// Each of one row.
    pub keys: Vec<ArrayRef>,
}

/// The calls of a batch, one for each row.
pub(super) fn calls(args: &ScalarFunctionArgs) -> Result<Vec<Call>> {
    let mut columns = vec![];
    for value in &args.args {
        columns.push(value.to_array(args.number_rows)?);
    }
    let (names, keys) = columns.split_first().ok_or_else(|| Error::internal("a call without arguments"))?;
    let names = cast_array(names, &PgType::Text, ValueSettings::default())?;
    let names = names.as_string_view();
    let call = |row: usize| Call {
        table: names.is_valid(row).then(|| names.value(row).to_string()),
        keys: keys.iter().map(|column| column.slice(row, 1)).collect(),
    };
    Ok((0..args.number_rows).map(call).collect())
}

/// The lookup table with this name, if it has a cache.
///
/// # Errors
/// 42P01 when there is none, 55000 when it remembers nothing.
pub(super) fn cached_table<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Lookup> {
    let lookup = catalog.lookup(name)?;
    match lookup.definition().policy.cache {
        CachePolicy::Partial(_) | CachePolicy::Full(_) => Ok(lookup),
        CachePolicy::None => {
            let name = &lookup.definition().name;
            Err(Error::new(Code::ObjectNotReady, format!("lookup table \"{name}\" has no cache"))
                .with_hint(format!("Give it one in the catalog, in [lookup.{name}.cache].")))
        }
    }
}
