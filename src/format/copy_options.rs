//! The options of COPY as the parser has read them, checked.

use datafusion::sql::sqlparser::ast::CopyOption;

use crate::error::Result;
use crate::server::encode_copy::CopyOptions;

/// # Errors
/// As [`CopyOptions::try_new`].
pub fn copy_options(options: &[CopyOption]) -> Result<CopyOptions> {
    let pairs: Vec<(&str, Option<String>)> = options
        .iter()
        .map(|option| match option {
            CopyOption::Format(name) => ("format", Some(name.value.clone())),
            CopyOption::Freeze(_) => ("freeze", None),
            CopyOption::Delimiter(character) => ("delimiter", Some(character.to_string())),
            CopyOption::Null(text) => ("null", Some(text.clone())),
            CopyOption::Header(on) => ("header", Some(on.to_string())),
            CopyOption::Quote(character) => ("quote", Some(character.to_string())),
            CopyOption::Escape(character) => ("escape", Some(character.to_string())),
            CopyOption::ForceQuote(_) => ("force_quote", None),
            CopyOption::ForceNotNull(_) => ("force_not_null", None),
            CopyOption::ForceNull(_) => ("force_null", None),
            CopyOption::Encoding(name) => ("encoding", Some(name.clone())),
        })
        .collect();
    CopyOptions::try_new(pairs.iter().map(|(name, value)| (*name, value.as_deref())))
}
