//! What a client sends after COPY … FROM STDIN (FORMAT binary).

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;

use crate::error::{Code, Error, Result};
use crate::format::binary;
use crate::format::row::RowBuilder;
use crate::format::text::ValueError;
use crate::pg_type::PgType;

/// What every such COPY begins with.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Most bytes of one row.
const MAX_ROW_BYTES: usize = 64 << 20;

/// Reads rows out of bytes that come in pieces cut anywhere.
pub struct BinaryCopyDecoder {
    stream: String,
    buffer: Vec<u8>,
    stage: Stage,
    rows: RowBuilder,
    rows_read: u64,
    full: VecDeque<RecordBatch>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Rows,
    /// Behind the trailer.
    Trailed,
    /// An error was met: what follows is dropped.
    Failed,
}

impl BinaryCopyDecoder {
    /// `columns` and `names` are the column list of the COPY into `stream`.
    ///
    /// # Errors
    /// 0A000 for a column whose type cannot be held.
    pub fn try_new(columns: &[PgType], names: &[String], stream: String) -> Result<Self> {
        let fields: Vec<_> = columns.iter().zip(names).map(|(column, name)| column.field(name, true)).collect();
        Ok(BinaryCopyDecoder {
            stream,
            buffer: vec![],
            stage: Stage::Header,
            rows: RowBuilder::try_new(&Arc::new(Schema::new(fields)))?,
            rows_read: 0,
            full: VecDeque::new(),
        })
    }

    /// Reads the rows that `bytes` complete.
    ///
    /// # Errors
    /// 22P04 for what is not the format, 22P03, 22003 or 22008 for a value; the rows before it can still be taken. 54000
    /// for a row of more than 64 MiB. What is pushed afterwards is dropped.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stage {
            Stage::Failed => return Ok(()),
            Stage::Trailed if !bytes.is_empty() => return self.fail("received copy data after EOF marker"),
            Stage::Header | Stage::Rows | Stage::Trailed => self.buffer.extend_from_slice(bytes),
        }
        self.read().inspect_err(|_| self.stage = Stage::Failed)
    }

    /// The end of what the client sends; the trailer may be missing, as in PostgreSQL.
    ///
    /// # Errors
    /// 22P04 in the middle of the header or of a row.
    pub fn finish(&mut self) -> Result<()> {
        match self.stage {
            Stage::Failed => Ok(()),
            Stage::Header => self.fail("COPY file signature not recognized"),
            _ if self.buffer.is_empty() => Ok(()),
            _ => self.fail("unexpected EOF in COPY data"),
        }
    }

    /// The next rows that are complete; `None` where there are none; to be called until then.
    ///
    /// # Errors
    /// XX000 if the rows do not make a batch.
    pub fn take_batch(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(batch) = self.full.pop_front() {
            return Ok(Some(batch));
        }
        if self.rows.len() == 0 {
            return Ok(None);
        }
        self.rows.finish().map(Some)
    }

    fn fail(&mut self, message: &str) -> Result<()> {
        self.stage = Stage::Failed;
        Err(self.in_row(ValueError::new(Code::BadCopyFormat, message), None))
    }

    fn in_row(&self, error: ValueError, column: Option<&str>) -> Error {
        let column = column.map(|name| format!(", column {name}")).unwrap_or_default();
        Error::from(error).with_detail(format!("COPY {}, row {}{column}.", self.stream, self.rows_read + 1))
    }

    fn read(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        if self.stage == Stage::Header {
            match header(rest).map_err(|error| self.in_row(error, None))? {
                Some(after) => rest = after,
                None => {
                    self.buffer = buffer;
                    return Ok(());
                }
            }
            self.stage = Stage::Rows;
        }
        while self.stage == Stage::Rows {
            match self.read_row(rest)? {
                Some(after) => rest = after,
                None => break,
            }
        }
        if self.stage == Stage::Trailed && !rest.is_empty() {
            return self.fail("received copy data after EOF marker");
        }
        if rest.len() > MAX_ROW_BYTES {
            return Err(Error::new(Code::ProgramLimitExceeded, "a row of COPY has more than 64 MiB"));
        }
        self.buffer = rest.to_vec();
        Ok(())
    }

    /// Reads one row and gives what follows it; `None` while it is not whole.
    fn read_row<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>> {
        let expected = self.rows.types().len();
        let Some((count, mut rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
        let count = i16::from_be_bytes(*count);
        if count == -1 {
            self.stage = Stage::Trailed;
            return Ok(Some(rest));
        }
        if usize::try_from(count) != Ok(expected) {
            let message = format!("row field count is {count}, expected {expected}");
            return Err(self.in_row(ValueError::new(Code::BadCopyFormat, message), None));
        }
        let mut fields = Vec::with_capacity(expected);
        for _ in 0..expected {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            match i32::from_be_bytes(*length) {
                -1 => {
                    fields.push(None);
                    rest = after;
                }
                length => {
                    let Ok(length) = usize::try_from(length) else {
                        return Err(self.in_row(ValueError::new(Code::BadCopyFormat, "invalid field size"), None));
                    };
                    let Some((field, after)) = after.split_at_checked(length) else { return Ok(None) };
                    fields.push(Some(field));
                    rest = after;
                }
            }
        }
        let mut values = Vec::with_capacity(expected);
        for (at, field) in fields.into_iter().enumerate() {
            let value = field.map(|bytes| binary::parse(&self.rows.types()[at], bytes)).transpose();
            values.push(value.map_err(|error| self.in_row(error, Some(self.rows.schema().field(at).name())))?);
        }
        self.rows.append(values, bytes.len() - rest.len()).map_err(|error| self.in_row(error, None))?;
        self.rows_read += 1;
        if self.rows.is_full() {
            self.full.push_back(self.rows.finish()?);
        }
        Ok(Some(rest))
    }
}

/// What follows the header; `None` while it is not whole.
fn header(bytes: &[u8]) -> Result<Option<&[u8]>, ValueError> {
    let refused = |message: &str| Err(ValueError::new(Code::BadCopyFormat, message));
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return refused("COPY file signature not recognized");
    }
    let Some((flags, rest)) = bytes.get(SIGNATURE.len()..).and_then(<[u8]>::split_first_chunk::<4>) else {
        return Ok(None);
    };
    let flags = u32::from_be_bytes(*flags);
    if flags & (1 << 16) != 0 {
        return refused("invalid COPY file header (WITH OIDS)");
    }
    // The upper half must be understood, the lower half need not be.
    if flags >> 16 != 0 {
        return refused("unrecognized critical flags in COPY file header");
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) => Ok(rest.get(length..)),
        Err(_) => refused("invalid COPY file header (missing length)"),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::AsArray;
    use datafusion::arrow::datatypes::{Decimal128Type, Int64Type};

    use super::*;

    fn decoder() -> BinaryCopyDecoder {
        let types = [PgType::Int8, PgType::Text, PgType::Numeric { precision: 10, scale: 2 }];
        let names = ["id", "note", "amount"].map(str::to_string);
        BinaryCopyDecoder::try_new(&types, &names, "inbox".to_string()).unwrap()
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = [SIGNATURE.as_slice(), &[0; 4], &[0, 0, 0, 2, 9, 9]].concat();
        // 7, NULL, -1234567.5
        bytes.extend([0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff]);
        bytes.extend([0, 0, 0, 14, 0, 3, 0, 1, 0x40, 0, 0, 1, 0, 123, 0x11, 0xd7, 0x13, 0x88]);
        bytes.extend([0xff, 0xff]);
        bytes
    }

    #[test]
    fn rows_are_read_from_pieces_cut_anywhere() {
        for piece in [1, 2, 5, 1000] {
            let mut decoder = decoder();
            for bytes in bytes().chunks(piece) {
                decoder.push(bytes).unwrap();
            }
            decoder.finish().unwrap();
            let batch = decoder.take_batch().unwrap().unwrap();
            assert_eq!(batch.num_rows(), 1);
            assert_eq!(batch.column(0).as_primitive::<Int64Type>().value(0), 7);
            assert!(batch.column(1).is_null(0));
            assert_eq!(batch.column(2).as_primitive::<Decimal128Type>().value(0), -123_456_750);
            assert!(decoder.take_batch().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_not_the_format_is_refused() {
        let refused = |bytes: &[u8]| {
            let mut decoder = decoder();
            let error = decoder.push(bytes).and_then(|()| decoder.finish()).unwrap_err();
            (error.sqlstate(), error.message().to_string())
        };
        assert_eq!(refused(b"1\tone\n"), ("22P04", "COPY file signature not recognized".to_string()));
        let good = bytes();
        assert_eq!(refused(&good[..good.len() - 4]).1, "unexpected EOF in COPY data");
        assert_eq!(refused(&[good.as_slice(), b"x"].concat()).1, "received copy data after EOF marker");
        let mut wrong = good.clone();
        wrong[22] = 2;
        assert_eq!(refused(&wrong).1, "row field count is 2, expected 3");
        let mut wrong = good.clone();
        wrong[47] = 0x77;
        assert_eq!(refused(&wrong).1, "incorrect binary data format");
        let mut flagged = good;
        flagged[12] = 2;
        assert_eq!(refused(&flagged).1, "unrecognized critical flags in COPY file header");
    }
}
