//! The list of what must hold names tests that there are.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::lookaside::project;

#[test]
fn every_test_that_the_list_names_exists() {
    let list = std::fs::read_to_string(project().join("tests/CONFORMANCE.md")).unwrap();
    let rows = list.lines().filter(|line| line.starts_with('|') && line.contains('`'));
    let named: Vec<String> = rows
        .filter_map(|row| row.rsplit('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_string)
        .collect();
    assert!(named.len() > 50, "{named:?}");
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests/it"] {
        collect_tests(&project().join(folder), &mut tests);
    }
    let missing: Vec<&String> = named.iter().filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

fn collect_tests(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_tests(&path, tests);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if is_test && let Some((_, name)) = line.split_once("fn ") {
                tests.insert(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
                is_test = false;
            }
        }
    }
}
