//! Avro messages, one a row, as columns of a reader's schema.
//!
//! `avro_schema.rs` holds schemas, `avro_column.rs` says which columns they give, `avro_plan.rs` with `avro_resolve.rs` finds
//! once for each writer how its messages are read, and `avro_wire.rs`, `avro_value.rs` and `avro_json.rs` read them.
//! They read bytes straight into columns. The crate apache-avro takes a message that breaks off for one with NULLs,
//! follows a message as deep as it claims to go, and knows no aliases.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};
use crate::format::avro_column::{AvroColumn, check_widening};
use crate::format::avro_plan::{Plan, Target, Wanted};
use crate::format::avro_schema::AvroSchema;
use crate::format::avro_wire::{Cursor, malformed};
use crate::format::message::MessageFailure;
use crate::format::row::RowBuilder;
use crate::format::text::{Value, ValueError};

/// How many writers' schemas are kept at once.
const MAX_WRITERS: usize = 1000;

/// What stands around the values of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing: the reader's schema wrote it.
    Plain,
    /// The byte 0 and the number of the writer's schema in a registry, in four bytes, stand in front.
    Confluent,
}

/// Reads messages whose writers have other schemas than the reader, or earlier and later versions of it.
pub struct AvroDecoder {
    rows: RowBuilder,
    reader: Arc<AvroSchema>,
    framing: Framing,
    wanted: Wanted,
    targets: Vec<Target>,
    /// Of messages that the reader's schema wrote.
    own: Plan,
    /// By the numbers of their schemas; why, for those that the reader cannot read.
    writers: HashMap<u32, Result<Plan, ValueError>>,
}

impl AvroDecoder {
    /// `schema` has columns by the names of `columns`; one that is not among them is the reader's field of its name.
    ///
    /// # Errors
    /// 42703 for a column that leads nowhere, 42804 for one of a type that does not hold its values, 0A000 for one of
    /// a type that cannot be read.
    pub fn try_new(
        schema: &SchemaRef,
        reader: Arc<AvroSchema>,
        columns: &[AvroColumn],
        framing: Framing,
    ) -> Result<AvroDecoder> {
        let rows = RowBuilder::try_new(schema)?;
        let mut places = Vec::with_capacity(schema.fields().len());
        let mut targets = Vec::with_capacity(schema.fields().len());
        for (field, declared) in schema.fields().iter().zip(rows.types()) {
            let name = field.name();
            let place = match columns.iter().find(|column| column.name == *name) {
                Some(column) => reader.place_of(column)?,
                None => {
                    let (name, nullable) = (name.clone(), field.is_nullable());
                    reader.place_of(&AvroColumn { name, path: None, pg_type: None, nullable })?
                }
            };
            check_widening(name, &place.pg_type, declared)?;
            targets.push(Target { name: name.clone(), found: place.pg_type.clone(), declared: declared.clone() });
            places.push(place);
        }
        let wanted = Wanted::new(&places);
        let own = Plan::try_new(&reader, &reader, &wanted, &targets);
        let own = own.map_err(|reason| Error::internal(format!("a schema does not read itself: {reason}")))?;
        Ok(AvroDecoder { rows, reader, framing, wanted, targets, own, writers: HashMap::new() })
    }

    /// Messages with this number in front were written with this schema. One that the reader's schema does not resolve makes
    /// its messages malformed.
    pub fn add_writer(&mut self, id: u32, writer: &AvroSchema) {
        if self.writers.len() >= MAX_WRITERS {
            // Those that are still in use will be asked for again.
            self.writers.clear();
        }
        let plan = Plan::try_new(writer, &self.reader, &self.wanted, &self.targets).map_err(|reason| {
            malformed(format!(
                "schema {id} of \"{}\" cannot be read as \"{}\": {reason}",
                writer.name(),
                self.reader.name()
            ))
        });
        self.writers.insert(id, plan);
    }

    /// Appends the row that `message` holds.
    ///
    /// # Errors
    /// An unknown schema, or what is malformed, with the name of the column; nothing has been appended then.
    pub fn append(&mut self, message: &[u8]) -> Result<(), MessageFailure> {
        let (plan, datum) = match self.framing {
            Framing::Plain => (&self.own, message),
            Framing::Confluent => {
                let (id, datum) = unframed(message)?;
                let plan = self.writers.get(&id).ok_or(MessageFailure::UnknownSchema(id))?;
                (plan.as_ref().map_err(Clone::clone)?, datum)
            }
        };
        let mut cursor = Cursor::new(datum);
        let values = plan.read(&mut cursor, &self.targets)?;
        if cursor.left() > 0 {
            return Err(malformed(format!("{} bytes are left over behind the message's values", cursor.left())).into());
        }
        let bytes = input_bytes(&values, message.len());
        Ok(self.rows.append(values, bytes)?)
    }

    /// Appends the first of the rows that stand one behind the other in `rows`, written with the reader's schema. Where the
    /// next one begins is told for a malformed row as well, unless its end cannot be found.
    pub(crate) fn append_first(&mut self, rows: &[u8]) -> (Option<usize>, Result<(), ValueError>) {
        let mut cursor = Cursor::new(rows);
        match self.own.read(&mut cursor, &self.targets) {
            Ok(values) => {
                let bytes = input_bytes(&values, cursor.position());
                (Some(cursor.position()), self.rows.append(values, bytes))
            }
            Err(error) => {
                let mut cursor = Cursor::new(rows);
                let end = self.own.skip(&mut cursor).ok().map(|()| cursor.position());
                (end, Err(error))
            }
        }
    }

    /// Rows since the last [`AvroDecoder::finish`].
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the batch should be taken before more rows come: it holds 8192 rows, or 16 MiB of input.
    pub fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    /// The rows since the last call; the decoder can be used again.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        self.rows.finish()
    }
}

/// What a row counts of its batch: names of fields and defaults are in no message.
fn input_bytes(values: &[Option<Value<'_>>], message_bytes: usize) -> usize {
    let text = |value: &Value<'_>| if let Value::Text(text) = value { text.len() } else { 0 };
    values.iter().flatten().map(text).sum::<usize>().max(message_bytes)
}

/// The number of the writer's schema and what it wrote.
fn unframed(message: &[u8]) -> Result<(u32, &[u8]), ValueError> {
    match message {
        [0, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [0, ..] | [] => {
            Err(malformed(format!("a message of {} bytes has no number of a schema in front", message.len())))
        }
        [first, ..] => {
            Err(malformed(format!("a message begins with byte {first}, where 0 and the number of a schema should be")))
        }
    }
}

#[cfg(test)]
#[path = "avro_tests.rs"]
mod tests;
