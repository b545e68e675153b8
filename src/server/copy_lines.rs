//! Rows of COPY as lines: values with a delimiter between them, escaped (text) or quoted (csv) where they need it.

use crate::error::Result;
use crate::format::copy_options::{CopyFormat, CopyOptions};
use crate::server::encode_rows::{Layout, Row};
use crate::server::encode_slot::SLOT_BYTES;

/// Values up to here may take twice their length at most; of longer ones it is counted.
const SHORT_BYTES: usize = 4 << 10;

/// The layout of COPY's text and csv forms.
pub(super) struct CopyLines<'a> {
    options: &'a CopyOptions,
    is_csv: bool,
    /// A line that is `\.` ends the data, so a value that is the only one of its line must not be that.
    is_single: bool,
    /// Whether a value without letters beyond numbers, dates and uuids can do without being looked at.
    plain_is_safe: bool,
}

impl<'a> CopyLines<'a> {
    pub(super) fn new(options: &'a CopyOptions, columns: u16) -> Self {
        let is_csv = options.format() == CopyFormat::Csv;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" +-.:".contains(&byte);
        let special = [options.delimiter(), options.quote()];
        let null = options.null();
        let plain_is_safe = !special.into_iter().any(is_plain) && (null.is_empty() || !null.bytes().all(is_plain));
        CopyLines { options, is_csv, is_single: columns == 1, plain_is_safe }
    }

    /// The message of one line of these values.
    ///
    /// # Errors
    /// 54000 for a line that no message can hold.
    pub(super) fn line<'n>(mut self, values: impl Iterator<Item = &'n str> + Clone) -> Result<Vec<u8>> {
        let bound = values.clone().map(|value| self.bound(value.as_bytes())).sum::<usize>();
        let mut bytes = vec![0; self.overhead(values.clone().count()) + bound];
        let mut row = Row::new(&mut bytes);
        self.begin(&mut row);
        for (column, value) in values.enumerate() {
            self.long(column, value.as_bytes(), &mut row);
        }
        self.end(0, &mut row)?;
        let end = row.end();
        bytes.truncate(end);
        Ok(bytes)
    }

    fn delimit(&self, column: usize, row: &mut Row<'_>) {
        if column > 0 {
            row.put(self.options.delimiter());
        }
    }

    fn needs_quotes(&self, value: &[u8]) -> bool {
        let (delimiter, quote) = (self.options.delimiter(), self.options.quote());
        // No early end: this is a loop over vectors.
        let has_special = value.iter().fold(false, |found, byte| {
            found | (*byte == delimiter) | (*byte == quote) | (*byte == b'\n') | (*byte == b'\r')
        });
        has_special || value == self.options.null().as_bytes() || (self.is_single && value == b"\\.")
    }

    fn put_quoted(&self, value: &[u8], row: &mut Row<'_>) {
        let (quote, escape) = (self.options.quote(), self.options.escape());
        row.put(quote);
        for byte in value {
            if *byte == quote || *byte == escape {
                row.put(escape);
            }
            row.put(*byte);
        }
        row.put(quote);
    }

    fn put_escaped(&self, value: &[u8], row: &mut Row<'_>) {
        let delimiter = self.options.delimiter();
        let may_need_it =
            value.iter().fold(false, |found, byte| found | (*byte < b' ') | (*byte == b'\\') | (*byte == delimiter));
        if !may_need_it {
            return row.put_slice(value);
        }
        for byte in value {
            match text_escape(*byte, delimiter) {
                Some(escaped) => row.put_array([b'\\', escaped]),
                None => row.put(*byte),
            }
        }
    }
}

/// What follows the backslash in text form, for bytes that take one.
fn text_escape(byte: u8, delimiter: u8) -> Option<u8> {
    match byte {
        0x08 => Some(b'b'),
        b'\t' => Some(b't'),
        b'\n' => Some(b'n'),
        0x0b => Some(b'v'),
        0x0c => Some(b'f'),
        b'\r' => Some(b'r'),
        b'\\' => Some(b'\\'),
        _ if byte == delimiter => Some(byte),
        _ => None,
    }
}

impl Layout for CopyLines<'_> {
    fn overhead(&self, columns: usize) -> usize {
        // The message's head, the line's end, and for each value a delimiter and quotes, or what stands for NULL.
        6 + columns * (3 + self.options.null().len())
    }

    fn bound(&self, value: &[u8]) -> usize {
        let (quote, escape, delimiter) = (self.options.quote(), self.options.escape(), self.options.delimiter());
        match (value.len() < SHORT_BYTES, self.is_csv) {
            (true, _) => 2 * value.len(),
            (false, true) => value.len() + value.iter().filter(|byte| **byte == quote || **byte == escape).count(),
            (false, false) => {
                value.len() + value.iter().filter(|byte| text_escape(**byte, delimiter).is_some()).count()
            }
        }
    }

    fn begin(&mut self, row: &mut Row<'_>) {
        row.put_array([b'd', 0, 0, 0, 0]);
    }

    fn null(&mut self, column: usize, row: &mut Row<'_>) {
        self.delimit(column, row);
        row.put_slice(self.options.null().as_bytes());
    }

    fn short(&mut self, column: usize, value: &[u8; SLOT_BYTES], length: usize, row: &mut Row<'_>) {
        if !self.plain_is_safe {
            return self.long(column, &value[..length], row);
        }
        self.delimit(column, row);
        row.put_slot(value, length);
    }

    fn long(&mut self, column: usize, value: &[u8], row: &mut Row<'_>) {
        self.delimit(column, row);
        match self.is_csv {
            true if self.needs_quotes(value) => self.put_quoted(value, row),
            true => row.put_slice(value),
            false => self.put_escaped(value, row),
        }
    }

    fn end(&mut self, start: usize, row: &mut Row<'_>) -> Result<()> {
        row.put(b'\n');
        row.put_length(start + 1)
    }
}
