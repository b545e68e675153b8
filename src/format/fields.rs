//! A record taken apart into its fields, as PostgreSQL's COPY does it.

use crate::error::Code;
use crate::format::text::ValueError;

/// How fields are written in CSV.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CsvDialect {
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
    pub(crate) escape: u8,
    /// What stands for NULL where it is not quoted.
    pub(crate) null: String,
}

impl Default for CsvDialect {
    /// RFC 4180, and an empty field without quotes is NULL.
    fn default() -> Self {
        CsvDialect { delimiter: b',', quote: b'"', escape: b'"', null: String::new() }
    }
}

/// The fields of one record. Kept between records, so that its memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`, and whether it is NULL.
    ends: Vec<(usize, bool)>,
}

impl Fields {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The field's text; `None` is NULL.
    ///
    /// # Errors
    /// 22P04 for bytes that are not UTF-8.
    pub(crate) fn get(&self, at: usize) -> Result<Option<&str>, ValueError> {
        let Some(&(end, is_null)) = self.ends.get(at) else {
            return Err(ValueError::new(Code::Internal, format!("field {at} of {} was asked for", self.len())));
        };
        if is_null {
            return Ok(None);
        }
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before].0);
        utf8(&self.bytes[start..end]).map(Some)
    }

    /// Reads a record of COPY's CSV format.
    ///
    /// # Errors
    /// 22P04 where a quote is not closed.
    pub(crate) fn read_csv(&mut self, record: &[u8], dialect: &CsvDialect) -> Result<(), ValueError> {
        self.clear();
        let mut rest = record;
        loop {
            let (after, is_last) = self.csv_field(rest, dialect)?;
            if is_last {
                return Ok(());
            }
            rest = after;
        }
    }

    /// Reads a record of COPY's text format.
    ///
    /// # Errors
    /// 22P04 for `\.`, which must stand alone on its line.
    pub(crate) fn read_text(&mut self, record: &[u8], delimiter: u8, null: &str) -> Result<(), ValueError> {
        self.clear();
        let mut rest = record;
        loop {
            let (field, after, is_last) = split_text_field(rest, delimiter);
            // What stands for NULL is compared before backslashes are taken away.
            let is_null = field == null.as_bytes();
            if !is_null {
                self.unescape(field)?;
            }
            self.ends.push((self.bytes.len(), is_null));
            if is_last {
                return Ok(());
            }
            rest = after;
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Reads one field; gives what follows its delimiter, and whether it was the last.
    fn csv_field<'r>(&mut self, record: &'r [u8], dialect: &CsvDialect) -> Result<(&'r [u8], bool), ValueError> {
        let mut rest = record;
        let mut was_quoted = false;
        let mut in_quotes = false;
        loop {
            let Some((&byte, tail)) = rest.split_first() else {
                if in_quotes {
                    return Err(ValueError::new(Code::BadCopyFormat, "unterminated CSV quoted field"));
                }
                self.end_csv_field(record, was_quoted, dialect);
                return Ok((rest, true));
            };
            let escaped = tail.first().filter(|next| **next == dialect.escape || **next == dialect.quote);
            match escaped {
                Some(next) if in_quotes && byte == dialect.escape => {
                    self.bytes.push(*next);
                    rest = &tail[1..];
                    continue;
                }
                _ => {}
            }
            if byte == dialect.quote {
                in_quotes = !in_quotes;
                was_quoted = true;
            } else if byte == dialect.delimiter && !in_quotes {
                self.end_csv_field(&record[..record.len() - rest.len()], was_quoted, dialect);
                return Ok((tail, false));
            } else {
                self.bytes.push(byte);
            }
            rest = tail;
        }
    }

    fn end_csv_field(&mut self, raw: &[u8], was_quoted: bool, dialect: &CsvDialect) {
        self.ends.push((self.bytes.len(), !was_quoted && raw == dialect.null.as_bytes()));
    }

    /// Takes the backslashes out of a field of the text format.
    fn unescape(&mut self, field: &[u8]) -> Result<(), ValueError> {
        let mut rest = field;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            self.bytes.extend_from_slice(&rest[..at]);
            let after = &rest[at + 1..];
            // A backslash that nothing follows stands for nothing, as in PostgreSQL.
            let Some((&escaped, tail)) = after.split_first() else { return Ok(()) };
            rest = tail;
            match escaped {
                b'.' => {
                    return Err(ValueError::new(Code::BadCopyFormat, "end-of-copy marker is not alone on its line"));
                }
                b'0'..=b'7' => self.bytes.push(number(after, 8, 3, &mut rest)),
                b'x' if tail.first().is_some_and(u8::is_ascii_hexdigit) => {
                    self.bytes.push(number(tail, 16, 2, &mut rest));
                }
                b'b' => self.bytes.push(0x08),
                b'f' => self.bytes.push(0x0c),
                b'n' => self.bytes.push(b'\n'),
                b'r' => self.bytes.push(b'\r'),
                b't' => self.bytes.push(b'\t'),
                b'v' => self.bytes.push(0x0b),
                other => self.bytes.push(other),
            }
        }
        self.bytes.extend_from_slice(rest);
        Ok(())
    }
}

/// # Errors
/// 22P04 with the first bytes that are not UTF-8.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let wrong = &bytes[error.valid_up_to()..];
        let wrong = &wrong[..error.error_len().unwrap_or(wrong.len())];
        let shown: Vec<_> = wrong.iter().map(|byte| format!("0x{byte:02x}")).collect();
        ValueError::new(
            Code::BadCopyFormat,
            format!("invalid byte sequence for encoding \"UTF8\": {}", shown.join(" ")),
        )
    })
}

/// The first field as it is written, what follows its delimiter, and whether it was the last.
fn split_text_field(record: &[u8], delimiter: u8) -> (&[u8], &[u8], bool) {
    let mut at = 0;
    while let Some(&byte) = record.get(at) {
        if byte == delimiter {
            return (&record[..at], &record[at + 1..], false);
        }
        at += if byte == b'\\' { 2 } else { 1 };
    }
    (record, &[], true)
}

/// The byte that up to `most` digits at the start of `text` say; `rest` is set to what follows them.
fn number<'a>(text: &'a [u8], base: u32, most: usize, rest: &mut &'a [u8]) -> u8 {
    let digits = text.iter().take(most).map_while(|byte| char::from(*byte).to_digit(base));
    let (value, length) = digits.fold((0, 0), |(value, length), digit| (value * base + digit, length + 1));
    *rest = &text[length..];
    // PostgreSQL, too, keeps the low eight bits of an octal number beyond 377.
    (value & 0xff) as u8
}
