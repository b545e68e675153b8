//! Where one record ends and the next begins, in bytes that come in pieces cut anywhere.

use crate::error::{Code, Error, Result};

/// The longest record.
const MAX_RECORD_BYTES: usize = 64 * 1024 * 1024;

/// What may hide a line's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Nothing.
    Lines,
    /// A backslash before it.
    Text,
    /// Quotes around it.
    Csv { quote: u8, escape: u8 },
}

/// Which bytes end a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnds {
    /// A newline, with or without a carriage return before it.
    Newline,
    /// Newline, carriage return or both, as the first line had it: PostgreSQL's rule for COPY.
    AsFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Newline,
    CarriageReturn,
    Both,
}

/// A record without its line's end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) bytes: &'a [u8],
    /// Counted from 1.
    pub(crate) first_line: u64,
    /// Greater where quotes hide line ends.
    pub(crate) last_line: u64,
}

pub(crate) struct RecordSplitter {
    syntax: Syntax,
    line_ends: LineEnds,
    /// What the first line ended with, under [`LineEnds::AsFirst`].
    first_line_end: Option<LineEnd>,
    buffer: Vec<u8>,
    /// Where the next record begins.
    start: usize,
    /// What lies before was looked at.
    scanned: usize,
    in_quotes: bool,
    after_escape: bool,
    /// Line ends before `start`, and those hidden since.
    lines_before: u64,
    hidden_lines: u64,
    is_finished: bool,
}

impl RecordSplitter {
    pub(crate) fn new(syntax: Syntax, line_ends: LineEnds) -> Self {
        RecordSplitter {
            syntax,
            line_ends,
            first_line_end: None,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            in_quotes: false,
            after_escape: false,
            lines_before: 0,
            hidden_lines: 0,
            is_finished: false,
        }
    }

    /// Takes more input. Records that were not asked for yet are kept.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// No more input comes: what remains is a record, even without a line's end.
    pub(crate) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// The line on which the next record begins.
    pub(crate) fn next_line(&self) -> u64 {
        self.lines_before + 1
    }

    /// The next record; `None` where more input is needed, or nothing is left.
    ///
    /// # Errors
    /// 54000 for a record of more than 64 MiB; 22P04 under [`LineEnds::AsFirst`] for a line's end of another kind.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record<'_>>> {
        let Some((end, next)) = self.find_end()? else {
            if self.buffer.len() - self.start > MAX_RECORD_BYTES {
                return Err(self.too_long());
            }
            return Ok(None);
        };
        if end - self.start > MAX_RECORD_BYTES {
            return Err(self.too_long());
        }
        let first_line = self.next_line();
        let last_line = first_line + self.hidden_lines;
        let bytes = self.start..end;
        self.lines_before = last_line;
        self.hidden_lines = 0;
        self.in_quotes = false;
        self.after_escape = false;
        self.start = next;
        self.scanned = next;
        Ok(Some(Record { bytes: &self.buffer[bytes], first_line, last_line }))
    }

    /// Where the record's bytes end and where the next record begins.
    fn find_end(&mut self) -> Result<Option<(usize, usize)>> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            if self.syntax == Syntax::Text && byte == b'\\' {
                if self.scanned + 1 == self.buffer.len() && !self.is_finished {
                    return Ok(None);
                }
                self.scanned = (self.scanned + 2).min(self.buffer.len());
                continue;
            }
            if let Syntax::Csv { quote, escape } = self.syntax {
                self.follow_quotes(byte, quote, escape);
            }
            if matches!(byte, b'\r' | b'\n') {
                if self.in_quotes {
                    let counted = if self.first_line_end == Some(LineEnd::CarriageReturn) { b'\r' } else { b'\n' };
                    self.hidden_lines += u64::from(byte == counted);
                } else if byte == b'\r' && self.scanned + 1 == self.buffer.len() && !self.is_finished {
                    // Whether a newline follows decides.
                    return Ok(None);
                } else if let Some(next) = self.line_end(byte)? {
                    return Ok(Some((self.scanned, next)));
                }
            }
            self.scanned += 1;
        }
        let remains = self.is_finished && self.start < self.buffer.len();
        Ok(remains.then_some((self.buffer.len(), self.buffer.len())))
    }

    /// As PostgreSQL does it: a quote anywhere begins quoting, and inside an escape takes the next one's meaning.
    fn follow_quotes(&mut self, byte: u8, quote: u8, escape: u8) {
        let escape = (escape != quote).then_some(escape);
        if self.in_quotes && Some(byte) == escape {
            self.after_escape = !self.after_escape;
        }
        if byte == quote && !self.after_escape {
            self.in_quotes = !self.in_quotes;
        }
        if Some(byte) != escape {
            self.after_escape = false;
        }
    }

    /// Where the next line begins, if this byte ends one.
    fn line_end(&mut self, byte: u8) -> Result<Option<usize>> {
        let is_pair = byte == b'\r' && self.buffer.get(self.scanned + 1) == Some(&b'\n');
        let length = if is_pair { 2 } else { 1 };
        if self.line_ends == LineEnds::Newline {
            return Ok((byte == b'\n' || is_pair).then_some(self.scanned + length));
        }
        let found = match byte {
            b'\n' => LineEnd::Newline,
            _ if is_pair && self.first_line_end != Some(LineEnd::CarriageReturn) => LineEnd::Both,
            _ => LineEnd::CarriageReturn,
        };
        let expected = *self.first_line_end.get_or_insert(found);
        if found != expected {
            return Err(self.unexpected_line_end(byte));
        }
        let length = if found == LineEnd::Both { 2 } else { 1 };
        Ok(Some(self.scanned + length))
    }

    fn unexpected_line_end(&self, byte: u8) -> Error {
        let is_csv = matches!(self.syntax, Syntax::Csv { .. });
        let (name, escape) = if byte == b'\n' { ("newline", "\\n") } else { ("carriage return", "\\r") };
        let how = if is_csv { "unquoted" } else { "literal" };
        let error = Error::new(Code::BadCopyFormat, format!("{how} {name} found in data"));
        if is_csv {
            error.with_hint(format!("Use quoted CSV field to represent {name}."))
        } else {
            error.with_hint(format!("Use \"{escape}\" to represent {name}."))
        }
    }

    fn too_long(&self) -> Error {
        Error::new(
            Code::ProgramLimitExceeded,
            format!("line {} has more than {MAX_RECORD_BYTES} bytes", self.next_line()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: Syntax = Syntax::Csv { quote: b'"', escape: b'"' };

    /// The records of `input` pushed in pieces of `size` bytes, each with its lines.
    fn split(syntax: Syntax, line_ends: LineEnds, input: &str, size: usize) -> Result<Vec<(String, u64, u64)>> {
        let mut splitter = RecordSplitter::new(syntax, line_ends);
        let mut records = Vec::new();
        let mut pieces = input.as_bytes().chunks(size);
        loop {
            match pieces.next() {
                Some(piece) => splitter.push(piece),
                None => splitter.finish(),
            }
            while let Some(record) = splitter.next_record()? {
                let text = String::from_utf8(record.bytes.to_vec()).unwrap();
                records.push((text, record.first_line, record.last_line));
            }
            if splitter.is_finished {
                return Ok(records);
            }
        }
    }

    fn assert_records(syntax: Syntax, line_ends: LineEnds, input: &str, expected: &[(&str, u64, u64)]) {
        for size in 1..=input.len() {
            let records = split(syntax, line_ends, input, size).unwrap();
            let records: Vec<_> = records.iter().map(|(text, first, last)| (text.as_str(), *first, *last)).collect();
            assert_eq!(records, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn records_do_not_depend_on_where_input_is_cut() {
        assert_records(Syntax::Lines, LineEnds::Newline, "a\r\n\nb\rc", &[("a", 1, 1), ("", 2, 2), ("b\rc", 3, 3)]);
        assert_records(Syntax::Text, LineEnds::AsFirst, "a\\\nb\nc\\\\\n", &[("a\\\nb", 1, 1), ("c\\\\", 2, 2)]);
        assert_records(Syntax::Text, LineEnds::AsFirst, "a\r\nb\r\n", &[("a", 1, 1), ("b", 2, 2)]);
        assert_records(Syntax::Text, LineEnds::AsFirst, "a\rb\r", &[("a", 1, 1), ("b", 2, 2)]);
        assert_records(CSV, LineEnds::Newline, "\"a\n\"\"\n\"\nb\n", &[("\"a\n\"\"\n\"", 1, 3), ("b", 4, 4)]);
        let escaped = Syntax::Csv { quote: b'\'', escape: b'\\' };
        assert_records(escaped, LineEnds::AsFirst, "'a\\'\n'\nb", &[("'a\\'\n'", 1, 2), ("b", 3, 3)]);
    }

    #[test]
    fn a_quote_left_open_takes_the_rest() {
        assert_records(CSV, LineEnds::Newline, "\"a\nb\n", &[("\"a\nb\n", 1, 3)]);
    }

    #[test]
    fn copy_wants_all_lines_to_end_alike() {
        for (syntax, input, message, hint) in [
            (
                Syntax::Text,
                "a\nb\r\n",
                "literal carriage return found in data",
                "Use \"\\r\" to represent carriage return.",
            ),
            (Syntax::Text, "a\r\nb\n", "literal newline found in data", "Use \"\\n\" to represent newline."),
            (
                CSV,
                "a\nb\rc\n",
                "unquoted carriage return found in data",
                "Use quoted CSV field to represent carriage return.",
            ),
            (CSV, "a\rb\nc\r", "unquoted newline found in data", "Use quoted CSV field to represent newline."),
        ] {
            let error = split(syntax, LineEnds::AsFirst, input, 1).unwrap_err();
            assert_eq!((error.sqlstate(), error.message(), error.hint()), ("22P04", message, Some(hint)));
        }
    }

    #[test]
    fn a_record_of_more_than_64_mib_is_refused_before_it_ends() {
        let mut splitter = RecordSplitter::new(Syntax::Lines, LineEnds::Newline);
        splitter.push(b"a\n");
        splitter.push(&vec![b'x'; MAX_RECORD_BYTES]);
        assert!(splitter.next_record().unwrap().is_some());
        assert_eq!(splitter.next_record(), Ok(None));
        splitter.push(b"x");
        let error = splitter.next_record().unwrap_err();
        assert_eq!((error.sqlstate(), error.message()), ("54000", "line 2 has more than 67108864 bytes"));
    }
}
