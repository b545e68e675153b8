//! The fuzzers' entry points with inputs made by chance, out of the corpus that fuzzing has left (`fuzz/run`).

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[path = "../../fuzz/entry.rs"]
mod entry;

/// A target's corpus, in the order of its files' names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Replays the corpus, then as many inputs as `cases`: any bytes, or two of the corpus cut, joined and changed.
fn hold(target: &str, cases: u32, entry: fn(&[u8])) {
    let corpus = corpus(target);
    assert!(corpus.len() > 4, "{target} has no corpus");
    for input in &corpus {
        entry(input);
    }
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let ends = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let of_corpus = (prop::sample::select(corpus.clone()), prop::sample::select(corpus), ends, changes).prop_map(
        |(mut first, second, ends, changes)| {
            first.truncate(ends.0.index(first.len() + 1));
            first.extend(&second[ends.1.index(second.len() + 1)..]);
            for (place, byte) in changes {
                if !first.is_empty() {
                    let place = place.index(first.len());
                    first[place] = byte;
                }
            }
            first
        },
    );
    let inputs = prop_oneof![1 => vec(any::<u8>(), 0..200), 4 => of_corpus];
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&inputs, |input| {
        entry(&input);
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{target}: {failure}"));
}

#[test]
fn any_first_bytes_end_in_an_answer() {
    hold("startup", 500, entry::startup);
}

#[test]
fn any_messages_end_in_an_answer() {
    hold("messages", 150, entry::messages);
}

#[test]
fn any_statement_is_planned_or_refused() {
    hold("sql", 150, entry::sql);
}

#[test]
fn any_catalog_is_read_or_complained_of() {
    hold("catalog", 300, entry::catalog);
}

#[test]
fn any_row_is_read_or_refused() {
    hold("decode", 3000, entry::decode);
}
