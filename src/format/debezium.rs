//! Changes of tables as Debezium writes them: JSON envelopes with the row before and after, with or without a schema
//! around them.
//!
//! The form is that of Debezium's manual, "Change event values".

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use serde_json::value::RawValue;

use crate::error::Result;
use crate::format::json::JsonDecoder;
use crate::format::json_path::{JsonPath, Selection};
use crate::format::message::malformed;
use crate::format::row::RowBuilder;
use crate::format::text::{Value, ValueError, excerpt};
use crate::pg_type::PgType;

/// What becomes of a deleted row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// It makes no row.
    Skip,
    /// The row as it was before.
    Before,
}

/// What an envelope says beside the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeField {
    /// `c` create, `u` update, `d` delete, `r` read for a snapshot.
    Op,
    /// Where the change comes from: the position in the database's log, the table, the transaction.
    Source,
    /// When the change was made in the database.
    SourceTimestamp,
}

impl EnvelopeField {
    pub const ALL: [(&'static str, EnvelopeField); 3] = [
        ("op", EnvelopeField::Op),
        ("source", EnvelopeField::Source),
        ("source_timestamp", EnvelopeField::SourceTimestamp),
    ];

    /// The column for it.
    pub fn column(self, name: &str) -> Field {
        match self {
            EnvelopeField::Op => PgType::Text.field(name, false),
            EnvelopeField::Source => PgType::Jsonb.field(name, true),
            EnvelopeField::SourceTimestamp => PgType::Timestamptz.field(name, true),
        }
    }
}

/// Reads envelopes.
pub struct EnvelopeDecoder {
    image: JsonDecoder,
    fields: Vec<EnvelopeField>,
    /// A row for each row of `image`.
    beside: RowBuilder,
    schema: SchemaRef,
    deletes: Deletes,
    /// The members of an envelope, and of what may stand around it.
    members: Selection,
}

/// What [`EnvelopeDecoder::members`] selects, in its order.
const MEMBERS: [&str; 5] = ["payload", "op", "before", "after", "source"];

struct Envelope<'m> {
    op: &'m str,
    before: Option<&'m RawValue>,
    after: Option<&'m RawValue>,
    source: Option<&'m RawValue>,
}

impl EnvelopeDecoder {
    /// `schema` has the columns of the row's image, at `paths` in it, and behind them the envelope's fields.
    ///
    /// # Errors
    /// 0A000 for a column of an Arrow type that no type of PostgreSQL stands for.
    pub fn try_new(
        schema: &SchemaRef,
        paths: &[JsonPath],
        deletes: Deletes,
        envelope: &[EnvelopeField],
    ) -> Result<Self> {
        let (image, beside) = schema.fields().split_at(paths.len().min(schema.fields().len()));
        let image = JsonDecoder::with_paths(&Arc::new(Schema::new(image.to_vec())), paths)?;
        let beside = RowBuilder::try_new(&Arc::new(Schema::new(beside.to_vec())))?;
        let members = MEMBERS.map(JsonPath::member);
        let (schema, fields) = (Arc::clone(schema), envelope.to_vec());
        Ok(EnvelopeDecoder { image, fields, beside, schema, deletes, members: Selection::new(&members) })
    }

    /// Appends the row of a change; false if the change makes none.
    ///
    /// # Errors
    /// What is malformed; nothing has been appended then.
    pub fn append(&mut self, message: &str) -> Result<bool, ValueError> {
        let envelope = self.envelope(message)?;
        let image = match (envelope.op, self.deletes) {
            ("c" | "u" | "r", _) => envelope.after.ok_or_else(|| malformed("the change has no row in \"after\""))?,
            ("d", Deletes::Skip) => return Ok(false),
            ("d", Deletes::Before) => envelope.before.ok_or_else(|| {
                malformed("the delete has no row in \"before\": the table must tell it (REPLICA IDENTITY FULL)")
            })?,
            // A truncated table, and messages that are no changes of rows.
            ("t" | "m", _) => return Ok(false),
            (op, _) => return Err(malformed(format!("\"op\" is \"{}\", which is no change", excerpt(op)))),
        };
        let beside = self.fields.iter().map(|field| field_value(*field, &envelope)).collect::<Result<Vec<_>, _>>()?;
        self.image.append(image.get())?;
        self.beside.append(beside, 0)?;
        Ok(true)
    }

    pub fn len(&self) -> usize {
        self.image.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`JsonDecoder::is_full`].
    pub fn is_full(&self) -> bool {
        self.image.is_full()
    }

    /// The rows since the last call; the decoder can be used again.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let (image, beside) = (self.image.finish()?, self.beside.finish()?);
        let columns = image.columns().iter().chain(beside.columns()).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(image.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    fn envelope<'m>(&self, message: &'m str) -> Result<Envelope<'m>, ValueError> {
        let mut members = self.select(message)?;
        // With a schema, what counts stands in "payload".
        if let (Some(payload), None) = (members[0], members[1]) {
            members = self.select(payload.get())?;
        }
        let [_, op, before, after, source] = members[..] else {
            return Err(malformed("the envelope cannot be read"));
        };
        let op = op.and_then(|op| op.get().strip_prefix('"')?.strip_suffix('"'));
        let op = op.ok_or_else(|| malformed("the message is no change of Debezium's: it has no \"op\""))?;
        let there = |member: Option<&'m RawValue>| member.filter(|member| member.get() != "null");
        Ok(Envelope { op, before: there(before), after: there(after), source: there(source) })
    }

    fn select<'m>(&self, text: &'m str) -> Result<Vec<Option<&'m RawValue>>, ValueError> {
        if !text.trim_start().starts_with('{') {
            return Err(malformed(format!("expected a JSON object, found \"{}\"", excerpt(text.trim()))));
        }
        self.members.select(text).map_err(|error| malformed(format!("invalid JSON: {error}")))
    }
}

fn field_value<'m>(field: EnvelopeField, envelope: &Envelope<'m>) -> Result<Option<Value<'m>>, ValueError> {
    Ok(match (field, envelope.source) {
        (EnvelopeField::Op, _) => Some(Value::Text(envelope.op.into())),
        (_, None) => None,
        (EnvelopeField::Source, Some(source)) => Some(Value::Text(source.get().into())),
        (EnvelopeField::SourceTimestamp, Some(source)) => {
            let found = JsonPath::member("ts_ms").find(source.get());
            let milliseconds = found.ok().flatten().and_then(|text| text.get().parse::<i64>().ok());
            let microseconds = milliseconds.and_then(|milliseconds| milliseconds.checked_mul(1000));
            microseconds.map(Value::Timestamp)
        }
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;

    use super::*;

    fn decoder(deletes: Deletes) -> EnvelopeDecoder {
        let image = [PgType::Int8.field("id", false), PgType::Text.field("city", true)];
        let envelope = EnvelopeField::ALL.map(|(name, field)| field.column(name));
        let schema = Arc::new(Schema::new(image.into_iter().chain(envelope).collect::<Vec<_>>()));
        let paths = [JsonPath::member("id"), "$.address.city".parse().unwrap()];
        EnvelopeDecoder::try_new(&schema, &paths, deletes, &EnvelopeField::ALL.map(|(_, field)| field)).unwrap()
    }

    const CREATE: &str = r#"{"before": null, "after": {"id": 1, "address": {"city": "Bonn"}},
        "source": {"lsn": 24023128, "ts_ms": 1700000000123}, "op": "c", "ts_ms": 1700000000999}"#;
    const DELETE: &str = r#"{"op": "d", "before": {"id": 2}, "after": null}"#;

    #[test]
    fn a_change_is_the_row_after_it_with_what_the_envelope_says() {
        let mut decoder = decoder(Deletes::Before);
        for message in [CREATE, DELETE, &format!(r#"{{"schema": {{"type": "struct"}}, "payload": {CREATE}}}"#)] {
            assert_eq!(decoder.append(message), Ok(true), "{message}");
        }
        let shown = pretty_format_batches(&[decoder.finish().unwrap()]).unwrap().to_string();
        let row = r#"| 1  | Bonn | c  | {"lsn": 24023128, "ts_ms": 1700000000123} | 2023-11-14T22:13:20.123Z |"#;
        assert_eq!(shown.lines().filter(|line| *line == row).count(), 2, "{shown}");
        assert!(
            shown.contains("| 2  |      | d  |                                           |                          |"),
            "{shown}"
        );
    }

    #[test]
    fn deletes_and_what_changes_no_row_make_no_row_unless_asked_for() {
        let mut decoder = decoder(Deletes::Skip);
        for message in [DELETE, r#"{"op": "t", "source": {}}"#, r#"{"op": "m", "message": {}}"#] {
            assert_eq!(decoder.append(message), Ok(false), "{message}");
        }
        assert!(decoder.is_empty());
    }

    #[test]
    fn what_is_no_change_says_so_and_leaves_nothing() {
        let mut decoder = decoder(Deletes::Before);
        for (message, reason) in [
            ("[]", "expected a JSON object, found \"[]\""),
            (r#"{"id": 1}"#, "the message is no change of Debezium's: it has no \"op\""),
            (r#"{"payload": null}"#, "expected a JSON object, found \"null\""),
            (r#"{"op": "x"}"#, "\"op\" is \"x\", which is no change"),
            (r#"{"op": "c", "after": null}"#, "the change has no row in \"after\""),
            (
                r#"{"op": "d", "before": null}"#,
                "the delete has no row in \"before\": the table must tell it (REPLICA IDENTITY FULL)",
            ),
            (
                r#"{"op": "c", "after": {"id": "one"}}"#,
                "column \"id\": a JSON string cannot be read as type bigint: \"one\"",
            ),
            (r#"{"op": "c", "after": {}}"#, "null value in column \"id\" violates not-null constraint"),
        ] {
            assert_eq!(decoder.append(message).unwrap_err().message, reason, "{message}");
        }
        assert_eq!(decoder.append(CREATE), Ok(true));
        assert_eq!(decoder.finish().unwrap().num_rows(), 1);
    }
}
