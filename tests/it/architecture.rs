//! The shape of the code, held: imports point one way.

use std::path::{Path, PathBuf};

use crate::support::lookaside::project;

/// The modules, each of which may use those before it in the list (and those of its own line).
const LAYERS: [&[&str]; 15] = [
    &["error", "datafusion_error", "notice", "quantity", "sql_name", "telemetry"],
    &["pg_type"],
    &["expression"],
    &["format"],
    &["store"],
    &["lookup"],
    &["source"],
    &["catalog"],
    &["pg_catalog"],
    &["plan"],
    &["sql"],
    &["engine"],
    &["session"],
    &["server"],
    &["command"],
];

#[test]
fn imports_point_one_way() {
    let source = project().join("src");
    let mut wrong = vec![];
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let module = relative.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_string();
        if module == "lib" || module == "main" {
            continue;
        }
        let own =
            layer(&module).unwrap_or_else(|| panic!("module {module} stands in no layer: add it where it belongs"));
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if layer(&used).is_some_and(|used| used > own) {
                    wrong.push(format!("{}:{}: {module} uses {used}", relative.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_of_the_library_stands_in_a_layer() {
    let text = std::fs::read_to_string(project().join("src/lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")).map(|rest| rest.trim_end_matches(';'));
    let missing: Vec<_> = modules.filter(|module| layer(module).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
