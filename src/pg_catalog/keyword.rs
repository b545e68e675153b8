//! The words that SQL has for itself (`keywords.txt`, of version 15), which tools ask for to know what to quote.

use super::function::Call;
use crate::error::{Code, Error, Result};

/// A word, its category, and whether it may name a column without AS.
fn keywords() -> impl Iterator<Item = [&'static str; 3]> {
    include_str!("keywords.txt").lines().filter_map(|line| {
        let mut values = line.split(' ');
        Some([values.next()?, values.next()?, values.next()?])
    })
}

/// A column of `pg_get_keywords()` as an array.
pub(super) fn column(call: &Call) -> Result<Option<String>> {
    let name = call.text(0);
    let values: Result<Vec<String>> = keywords()
        .map(|[word, category, bare_label]| {
            let value = match name {
                "word" => word,
                "catcode" => category,
                "barelabel" => bare_label,
                "catdesc" => category_description(category),
                "baredesc" if bare_label == "t" => "can be bare label",
                "baredesc" => "requires AS",
                _ => return Err(Error::new(Code::UndefinedColumn, format!("column \"{name}\" does not exist"))),
            };
            Ok(format!("\"{value}\""))
        })
        .collect();
    Ok(Some(format!("{{{}}}", values?.join(","))))
}

fn category_description(category: &str) -> &'static str {
    match category {
        "U" => "unreserved",
        "C" => "unreserved (cannot be function or type name)",
        "T" => "reserved (can be function or type name)",
        _ => "reserved",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_word_with_its_category() {
        assert_eq!(keywords().count(), include_str!("keywords.txt").lines().count());
        assert!(keywords().all(|[_, category, bare_label]| "UCTR".contains(category) && "tf".contains(bare_label)));
        assert!(keywords().any(|keyword| keyword == ["select", "R", "t"]));
    }
}
