//! From columns to rows: the values of a run of rows are written a column at a time, then put together row by row.

use std::ops::Range;

use bytes::BytesMut;
use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringViewArray};
use datafusion::arrow::datatypes::DataType;

use crate::error::{Code, Error, Result};
use crate::pg_type::PgType;
use crate::server::encode::Columns;
use crate::server::encode_column::ColumnWriter;
use crate::server::encode_short::fill_slots;
use crate::server::encode_slot::{FillSlots, SLOT_BYTES, Slots};

/// Rows that are put together at once: few enough for their values to stay in a processor's nearest cache.
const RUN_ROWS: usize = 256;
/// And their bytes, unless a single row has more.
const RUN_BYTES: usize = 1 << 20;

/// A batch's column, in the form in which its values are had fastest.
pub(super) enum Values<'a> {
    /// In slots that are filled for each run.
    Short(FillSlots<'a>),
    /// As they stand in the array.
    Text(&'a StringViewArray),
    /// Written one by one for each run.
    Long(ColumnWriter<'a>),
}

impl Columns {
    pub(super) fn values<'a>(&'a self, batch: &'a RecordBatch, rows: &Range<usize>) -> Result<Vec<Values<'a>>> {
        self.check(batch, rows)?;
        let columns = batch.columns().iter().zip(&self.types).zip(&self.formats);
        let values = columns.map(|((array, pg_type), format)| {
            if let Some(fill) = fill_slots(array.as_ref(), pg_type, *format, self.settings) {
                return Ok(Values::Short(fill));
            }
            match (pg_type, array.data_type()) {
                (PgType::Text | PgType::Json, DataType::Utf8View) => Ok(Values::Text(array.as_string_view())),
                _ => Ok(Values::Long(ColumnWriter::try_new(array.as_ref(), pg_type, *format, self.settings)?)),
            }
        });
        values.collect()
    }
}

/// How a row's values stand beside each other.
pub(super) trait Layout {
    /// Most bytes of a row beside its values.
    fn overhead(&self, columns: usize) -> usize;

    /// Most bytes that a value takes.
    fn bound(&self, value: &[u8]) -> usize;

    fn begin(&mut self, row: &mut Row<'_>);

    fn null(&mut self, column: usize, row: &mut Row<'_>);

    /// A value of `length` bytes with others behind it that do not matter.
    fn short(&mut self, column: usize, value: &[u8; SLOT_BYTES], length: usize, row: &mut Row<'_>);

    fn long(&mut self, column: usize, value: &[u8], row: &mut Row<'_>);

    /// Ends the row that began at `start`.
    ///
    /// # Errors
    /// 54000 for a row that no message can hold.
    fn end(&mut self, start: usize, row: &mut Row<'_>) -> Result<()>;
}

/// Where the next byte of a row goes. There is room for all that [`Layout`] has announced.
pub(super) struct Row<'a> {
    bytes: &'a mut [u8],
    end: usize,
}

impl<'a> Row<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Row { bytes, end: 0 }
    }

    /// The bytes that have been put.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    pub(super) fn put(&mut self, byte: u8) {
        self.bytes[self.end] = byte;
        self.end += 1;
    }

    pub(super) fn put_array<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.end..self.end + N].copy_from_slice(&bytes);
        self.end += N;
    }

    pub(super) fn put_slice(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Copies all of a slot, of which `length` bytes stay.
    pub(super) fn put_slot(&mut self, slot: &[u8; SLOT_BYTES], length: usize) {
        self.bytes[self.end..self.end + SLOT_BYTES].copy_from_slice(slot);
        self.end += length;
    }

    /// Writes the length of the message whose four bytes for it are at `at`.
    ///
    /// # Errors
    /// 54000 for a row that no message can hold.
    pub(super) fn put_length(&mut self, at: usize) -> Result<()> {
        let length = self.end - at;
        let length = i32::try_from(length)
            .map_err(|_| Error::new(Code::ProgramLimitExceeded, format!("a row of {length} bytes fits no message")))?;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

/// Puts rows together. What it needs for that is used again for every run.
#[derive(Clone, Debug, Default)]
pub(super) struct RowAssembler {
    columns: Vec<Room>,
    rows: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Room {
    slots: Slots,
    written: Written,
}

/// Values one behind the other, and where each of them is; `None` for NULL.
#[derive(Clone, Debug, Default)]
struct Written {
    bytes: BytesMut,
    places: Vec<Option<(usize, usize)>>,
}

/// One column's values for a run of rows.
enum Run<'a> {
    Short(&'a Slots),
    Text(&'a StringViewArray),
    Long(&'a Written),
}

impl RowAssembler {
    /// Appends rows from the first of `rows` on until `out` has `enough` bytes, and tells how many they were. After an
    /// error `out` ends with the last whole row.
    ///
    /// # Errors
    /// Of a value, or 54000 for a row that no message can hold.
    pub(super) fn assemble(
        &mut self,
        values: &[Values<'_>],
        rows: Range<usize>,
        layout: &mut impl Layout,
        enough: usize,
        out: &mut BytesMut,
    ) -> Result<usize> {
        self.columns.resize_with(values.len(), Room::default);
        let mut next = rows.start;
        while next < rows.end && out.len() < enough {
            next += self.assemble_run(values, next..rows.end.min(next + RUN_ROWS), layout, out)?;
        }
        Ok(next - rows.start)
    }

    /// One run: as many of `rows` as have few enough bytes, but one at least.
    fn assemble_run(
        &mut self,
        values: &[Values<'_>],
        rows: Range<usize>,
        layout: &mut impl Layout,
        out: &mut BytesMut,
    ) -> Result<usize> {
        let (mut count, mut failure) = (rows.len(), None);
        for (values, room) in values.iter().zip(&mut self.columns) {
            let rows = rows.start..rows.start + count;
            let (filled, error) = match values {
                Values::Short(fill) => fill(rows, &mut room.slots),
                Values::Text(_) => (count, None),
                Values::Long(writer) => room.written.fill(writer, rows),
            };
            if filled < count {
                (count, failure) = (filled, error);
            }
        }
        let columns: Vec<Run<'_>> = values.iter().zip(&self.columns).map(|(values, room)| room.run(values)).collect();
        let (fitting, bytes) = bound(&columns, rows.start..rows.start + count, layout);
        if fitting < count {
            (count, failure) = (fitting, None);
        }
        if bytes <= 2 * RUN_BYTES {
            self.rows.resize(self.rows.len().max(bytes), 0);
            let (written, failed) = put_rows(&columns, rows.start..rows.start + count, layout, &mut self.rows);
            out.extend_from_slice(&self.rows[..written]);
            failure = failed.or(failure);
        } else {
            let start = out.len();
            out.resize(start + bytes, 0);
            let (written, failed) = put_rows(&columns, rows.start..rows.start + count, layout, &mut out[start..]);
            out.truncate(start + written);
            failure = failed.or(failure);
        }
        failure.map_or(Ok(count), Err)
    }
}

impl Room {
    fn run<'a>(&'a self, values: &Values<'a>) -> Run<'a> {
        match values {
            Values::Short(_) => Run::Short(&self.slots),
            Values::Text(array) => Run::Text(array),
            Values::Long(_) => Run::Long(&self.written),
        }
    }
}

impl Written {
    /// Writes rows until there are enough bytes, or up to one whose value has no form, and why.
    fn fill(&mut self, writer: &ColumnWriter<'_>, rows: Range<usize>) -> (usize, Option<Error>) {
        if self.bytes.capacity() > 2 * RUN_BYTES {
            self.bytes = BytesMut::new();
        }
        self.bytes.clear();
        self.places.clear();
        for row in rows {
            let start = self.bytes.len();
            if start > RUN_BYTES {
                break;
            }
            if writer.is_null(row) {
                self.places.push(None);
                continue;
            }
            if let Err(error) = writer.write(row, &mut self.bytes) {
                return (self.places.len(), Some(error));
            }
            self.places.push(Some((start, self.bytes.len())));
        }
        (self.places.len(), None)
    }
}

impl Run<'_> {
    /// The value of the row `position`, which is the `index`th of the run, where it is not short.
    fn long(&self, index: usize, position: usize) -> Option<&[u8]> {
        match self {
            Run::Short(_) => None,
            Run::Text(array) => array.is_valid(position).then(|| array.value(position).as_bytes()),
            Run::Long(written) => written.places[index].map(|(start, end)| &written.bytes[start..end]),
        }
    }
}

/// How many of the rows go into one run, and the most bytes that they take.
fn bound(columns: &[Run<'_>], rows: Range<usize>, layout: &impl Layout) -> (usize, usize) {
    let short = columns.iter().filter(|column| matches!(column, Run::Short(_))).count();
    let fixed = layout.overhead(columns.len()) + short * SLOT_BYTES;
    // A slot is copied whole, the last one too.
    let mut bytes = SLOT_BYTES;
    for (index, position) in rows.clone().enumerate() {
        if index > 0 && bytes > RUN_BYTES {
            return (index, bytes);
        }
        let long = columns.iter().filter_map(|column| column.long(index, position));
        bytes += fixed + long.map(|value| layout.bound(value)).sum::<usize>();
    }
    (rows.len(), bytes)
}

/// Gives the bytes of the whole rows, and why there are not more of them.
fn put_rows(
    columns: &[Run<'_>],
    rows: Range<usize>,
    layout: &mut impl Layout,
    bytes: &mut [u8],
) -> (usize, Option<Error>) {
    let mut row = Row::new(bytes);
    for (index, position) in rows.enumerate() {
        let start = row.end;
        layout.begin(&mut row);
        for (column, run) in columns.iter().enumerate() {
            if let Run::Short(slots) = run {
                match slots.get(index) {
                    Some((value, length)) => layout.short(column, value, length, &mut row),
                    None => layout.null(column, &mut row),
                }
                continue;
            }
            match run.long(index, position) {
                Some(value) => layout.long(column, value, &mut row),
                None => layout.null(column, &mut row),
            }
        }
        if let Err(error) = layout.end(start, &mut row) {
            return (start, Some(error));
        }
    }
    (row.end, None)
}
