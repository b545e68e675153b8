//! The catalog inside the binary: `lookaside demo` needs no file and no service.

use std::path::Path;

use super::definition::CatalogDefinition;
use super::file::read_embedded;
use super::problem::Problem;

/// The query that `lookaside demo` runs.
pub const QUERY: &str = include_str!("../../sql/demo.sql");

const CATALOG: &str = include_str!("../../catalogs/demo.toml");
const DATA: [(&str, &str); 2] = [
    ("demo/customers.csv", include_str!("../../catalogs/demo/customers.csv")),
    ("demo/products.jsonl", include_str!("../../catalogs/demo/products.jsonl")),
];

/// The demo's catalog, with its lookup files embedded.
///
/// # Errors
/// Every mistake in it; a test sees that there is none.
pub fn read_demo() -> Result<CatalogDefinition, Vec<Problem>> {
    read_embedded(Path::new("demo.toml"), CATALOG, &DATA)
}
