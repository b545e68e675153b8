//! The options of COPY, checked as PostgreSQL checks them.

use datafusion::sql::sqlparser::ast::CopyOption;

use crate::error::{Code, Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// What stands between the parentheses of COPY's options, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    pub(super) format: CopyFormat,
    pub(super) header: bool,
    pub(super) delimiter: u8,
    pub(super) null: String,
    pub(super) quote: u8,
    pub(super) escape: u8,
}

/// Options as they were written, before the format's defaults fill in the others.
#[derive(Default)]
struct Given<'a> {
    format: Option<CopyFormat>,
    header: Option<bool>,
    delimiter: Option<&'a str>,
    null: Option<&'a str>,
    quote: Option<&'a str>,
    escape: Option<&'a str>,
    encoding: Option<()>,
}

impl CopyOptions {
    /// From the options as the parser has read them.
    ///
    /// # Errors
    /// As [`CopyOptions::try_new`].
    pub fn try_from_parsed(options: &[CopyOption]) -> Result<Self> {
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
        Self::try_new(pairs.iter().map(|(name, value)| (*name, value.as_deref())))
    }

    /// From pairs of a name and a value, `None` where an option stands alone, as in `(FORMAT csv, HEADER)`.
    ///
    /// # Errors
    /// As PostgreSQL's: 42601 for unknown or repeated options, 22023 and 0A000 for values; 0A000 for options that are not supported.
    pub fn try_new<'a>(options: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Result<Self> {
        let mut given = Given::default();
        for (name, value) in options {
            given.add(name, value)?;
        }
        let format = given.format.unwrap_or(CopyFormat::Text);
        if format == CopyFormat::Binary {
            given.check_binary()?;
        }
        if format != CopyFormat::Csv {
            given.check_not_csv()?;
        }
        let default_delimiter = if format == CopyFormat::Csv { "," } else { "\t" };
        let default_null = if format == CopyFormat::Csv { "" } else { "\\N" };
        let quote = single_byte("quote", given.quote.unwrap_or("\""))?;
        let options = CopyOptions {
            format,
            header: given.header.unwrap_or(false),
            delimiter: single_byte("delimiter", given.delimiter.unwrap_or(default_delimiter))?,
            null: given.null.unwrap_or(default_null).to_string(),
            quote,
            escape: given.escape.map_or(Ok(quote), |escape| single_byte("escape", escape))?,
        };
        options.check()?;
        Ok(options)
    }

    pub fn format(&self) -> CopyFormat {
        self.format
    }

    /// Whether the first line holds the columns' names.
    pub fn header(&self) -> bool {
        self.header
    }

    pub fn delimiter(&self) -> u8 {
        self.delimiter
    }

    /// What stands for NULL.
    pub fn null(&self) -> &str {
        &self.null
    }

    /// Of csv.
    pub fn quote(&self) -> u8 {
        self.quote
    }

    /// Of csv: what stands before a quote, and before itself, in a quoted value.
    pub fn escape(&self) -> u8 {
        self.escape
    }

    fn check(&self) -> Result<()> {
        let refused = |message: String| Err(Error::new(Code::InvalidParameterValue, message));
        let unsupported = |message: &str| Err(Error::unsupported(message));
        let delimiter = char::from(self.delimiter);
        if matches!(delimiter, '\n' | '\r') {
            return refused("COPY delimiter cannot be newline or carriage return".to_string());
        }
        if self.null.contains(['\n', '\r']) {
            return refused("COPY null representation cannot use newline or carriage return".to_string());
        }
        // In text, a backslash before one of these would mean something else.
        if self.format == CopyFormat::Text && matches!(delimiter, '\\' | '.' | 'a'..='z' | '0'..='9') {
            return refused(format!("COPY delimiter cannot be \"{delimiter}\""));
        }
        if self.format == CopyFormat::Csv && self.delimiter == self.quote {
            return refused("COPY delimiter and quote must be different".to_string());
        }
        if self.format != CopyFormat::Binary && self.null.contains(delimiter) {
            return unsupported("COPY delimiter must not appear in the NULL specification");
        }
        if self.format == CopyFormat::Csv && self.null.contains(char::from(self.quote)) {
            return unsupported("CSV quote character must not appear in the NULL specification");
        }
        Ok(())
    }
}

impl<'a> Given<'a> {
    fn add(&mut self, name: &str, value: Option<&'a str>) -> Result<()> {
        let name = name.to_ascii_lowercase();
        let required = || value.ok_or_else(|| Error::new(Code::SyntaxError, format!("{name} requires a parameter")));
        match name.as_str() {
            "format" => set(&mut self.format, copy_format(required()?)?),
            "header" => set(&mut self.header, header(value)?),
            "delimiter" => set(&mut self.delimiter, required()?),
            "null" => set(&mut self.null, required()?),
            "quote" => set(&mut self.quote, required()?),
            "escape" => set(&mut self.escape, required()?),
            "encoding" => set(&mut self.encoding, encoding(required()?)?),
            "freeze" | "force_quote" | "force_not_null" | "force_null" => {
                Err(Error::unsupported(format!("COPY option \"{name}\" is not supported")))
            }
            _ => Err(Error::new(Code::SyntaxError, format!("option \"{name}\" not recognized"))),
        }
    }

    fn check_binary(&self) -> Result<()> {
        let refused =
            |option: &str| Err(Error::new(Code::SyntaxError, format!("cannot specify {option} in BINARY mode")));
        if self.delimiter.is_some() {
            return refused("DELIMITER");
        }
        if self.null.is_some() {
            return refused("NULL");
        }
        match self.header {
            Some(true) => Err(Error::unsupported("cannot specify HEADER in BINARY mode")),
            _ => Ok(()),
        }
    }

    fn check_not_csv(&self) -> Result<()> {
        if self.quote.is_some() {
            return Err(Error::unsupported("COPY quote available only in CSV mode"));
        }
        match self.escape {
            Some(_) => Err(Error::unsupported("COPY escape available only in CSV mode")),
            None => Ok(()),
        }
    }
}

fn set<T>(option: &mut Option<T>, value: T) -> Result<()> {
    match option.replace(value) {
        Some(_) => Err(Error::new(Code::SyntaxError, "conflicting or redundant options")),
        None => Ok(()),
    }
}

fn copy_format(name: &str) -> Result<CopyFormat> {
    match name.to_ascii_lowercase().as_str() {
        "text" => Ok(CopyFormat::Text),
        "csv" => Ok(CopyFormat::Csv),
        "binary" => Ok(CopyFormat::Binary),
        _ => Err(Error::new(Code::InvalidParameterValue, format!("COPY format \"{name}\" not recognized"))),
    }
}

fn header(value: Option<&str>) -> Result<bool> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None | Some("true" | "on" | "1") => Ok(true),
        Some("false" | "off" | "0") => Ok(false),
        Some("match") => Err(Error::unsupported("COPY option \"header\" does not support \"match\"")),
        Some(_) => Err(Error::new(Code::SyntaxError, "header requires a Boolean value or \"match\"")),
    }
}

fn encoding(name: &str) -> Result<()> {
    if matches!(name.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode") {
        return Ok(());
    }
    Err(Error::unsupported(format!("COPY encoding \"{name}\" is not supported")).with_hint("Use UTF8."))
}

fn single_byte(option: &str, value: &str) -> Result<u8> {
    match value.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(Error::unsupported(format!("COPY {option} must be a single one-byte character"))),
    }
}
