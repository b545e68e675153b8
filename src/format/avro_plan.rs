//! How a writer's messages become the columns of a reader: which of its fields are read, and into which column.

use std::collections::BTreeMap;

use crate::error::Code;
use crate::format::avro_column::Place;
use crate::format::avro_json::json_of;
use crate::format::avro_resolve::{MAX_DEPTH, Node, NodeId, Resolved, Resolver, check_depth, matched_fields};
use crate::format::avro_schema::{AvroRecord, AvroSchema, AvroType, TypeId};
use crate::format::avro_value::widened;
use crate::format::avro_wire::{Cursor, malformed};
use crate::format::json::in_column;
use crate::format::text::{Value, ValueError};
use crate::pg_type::PgType;

/// A column as the reader's schema has it and as it is declared.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) found: PgType,
    pub(crate) declared: PgType,
}

/// Which columns are wanted of a value, and of the fields within it by their names.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    columns: Vec<usize>,
    fields: BTreeMap<String, Wanted>,
}

impl Wanted {
    /// The columns in their order.
    pub(crate) fn new<'p>(places: impl IntoIterator<Item = &'p Place>) -> Wanted {
        let mut root = Wanted::default();
        for (column, place) in places.into_iter().enumerate() {
            let mut wanted = &mut root;
            for field in &place.fields {
                wanted = wanted.fields.entry(field.clone()).or_default();
            }
            wanted.columns.push(column);
        }
        root
    }
}

/// What is done with a value of the writer's.
#[derive(Debug)]
enum Step {
    Skip(NodeId),
    /// Read into a column.
    Column(NodeId, usize),
    /// Once for each, always from the same start.
    Again(Vec<Step>),
    /// For each of the writer's branches.
    Choice(Vec<Step>),
    /// For each of the writer's fields, and for each default.
    Fields(Vec<Step>),
    /// What the writer lacks: a column's value whatever the message says.
    Constant(usize, Value<'static>),
    /// NULL where a record would be: so is all that is wanted within it.
    Nothing,
    Unreadable(String),
}

/// How to read the messages of one writer.
#[derive(Debug)]
pub(crate) struct Plan {
    resolved: Resolved,
    root: Step,
    /// How to pass over a message.
    skip: NodeId,
}

impl Plan {
    /// # Errors
    /// Why the reader cannot read what the writer writes.
    pub(crate) fn try_new(
        writer: &AvroSchema,
        reader: &AvroSchema,
        wanted: &Wanted,
        targets: &[Target],
    ) -> Result<Plan, String> {
        let mut planner = Planner { resolver: Resolver::new(writer, reader), targets };
        let root = planner.step(writer.root(), reader.root(), wanted, 0)?;
        let skip = planner.resolver.skipped(writer.root(), 0)?;
        Ok(Plan { resolved: planner.resolver.finish(), root, skip })
    }

    /// Passes over a message, to where the next one begins.
    ///
    /// # Errors
    /// 22P02 if its end cannot be found.
    pub(crate) fn skip(&self, cursor: &mut Cursor<'_>) -> Result<(), ValueError> {
        self.resolved.skip(self.skip, cursor, 0)
    }

    /// Reads a message's values, one for each column.
    ///
    /// # Errors
    /// As [`JsonDecoder::append`](crate::format::json::JsonDecoder::append), with the name of the column.
    pub(crate) fn read<'a>(
        &'a self,
        cursor: &mut Cursor<'a>,
        targets: &[Target],
    ) -> Result<Vec<Option<Value<'a>>>, ValueError> {
        let mut values = vec![None; targets.len()];
        self.take(&self.root, cursor, targets, &mut values)?;
        Ok(values)
    }

    fn take<'a>(
        &'a self,
        step: &'a Step,
        cursor: &mut Cursor<'a>,
        targets: &[Target],
        values: &mut [Option<Value<'a>>],
    ) -> Result<(), ValueError> {
        match step {
            Step::Skip(node) => self.resolved.skip(*node, cursor, 0),
            Step::Column(node, column) => {
                let target = &targets[*column];
                let value = self.value(*node, cursor, target, 0).map_err(|error| in_column(&target.name, error))?;
                values[*column] = value;
                Ok(())
            }
            Step::Again(steps) => {
                let start = cursor.clone();
                for step in steps {
                    *cursor = start.clone();
                    self.take(step, cursor, targets, values)?;
                }
                Ok(())
            }
            Step::Choice(branches) => {
                let branch = &branches[cursor.index(branches.len())?];
                self.take(branch, cursor, targets, values)
            }
            Step::Fields(steps) => steps.iter().try_for_each(|step| self.take(step, cursor, targets, values)),
            Step::Constant(column, value) => {
                values[*column] = Some(value.clone());
                Ok(())
            }
            Step::Nothing => Ok(()),
            Step::Unreadable(reason) => Err(malformed(reason)),
        }
    }

    fn value<'a>(
        &'a self,
        id: NodeId,
        cursor: &mut Cursor<'a>,
        target: &Target,
        depth: usize,
    ) -> Result<Option<Value<'a>>, ValueError> {
        check_depth(depth)?;
        match (self.resolved.get(id), &target.found) {
            (Node::Null, _) => Ok(None),
            (Node::Union(branches), _) => {
                let branch = branches[cursor.index(branches.len())?];
                self.value(branch, cursor, target, depth + 1)
            }
            (Node::Unreadable { reason, .. }, _) => Err(malformed(reason)),
            (_, PgType::Jsonb) => Ok(Some(Value::Text(json_of(&self.resolved, id, cursor)?.into()))),
            (Node::Scalar(leaf), _) => widened(leaf.read(cursor)?, &target.found, &target.declared).map(Some),
            (Node::Array(items), PgType::Array(_)) => {
                let items = Value::List(self.items(*items, cursor)?);
                widened(items, &target.found, &target.declared).map(Some)
            }
            (Node::Array(_) | Node::Map(_) | Node::Record(_), found) => {
                Err(ValueError::new(Code::Internal, format!("an Avro value with values within was to become {found}")))
            }
        }
    }

    fn items<'a>(&'a self, id: NodeId, cursor: &mut Cursor<'a>) -> Result<Vec<Option<Value<'a>>>, ValueError> {
        let mut items = Vec::new();
        while let Some(block) = cursor.block()? {
            for _ in 0..block.items {
                items.push(self.item(id, cursor)?);
                cursor.count_item()?;
            }
        }
        Ok(items)
    }

    fn item<'a>(&'a self, id: NodeId, cursor: &mut Cursor<'a>) -> Result<Option<Value<'a>>, ValueError> {
        match self.resolved.get(id) {
            Node::Null => Ok(None),
            Node::Scalar(leaf) => leaf.read(cursor).map(Some),
            Node::Union(branches) => {
                let branch = branches[cursor.index(branches.len())?];
                // A union's branch is no union.
                match self.resolved.get(branch) {
                    Node::Union(_) => Err(ValueError::new(Code::Internal, "a union stands directly in a union")),
                    _ => self.item(branch, cursor),
                }
            }
            Node::Unreadable { reason, .. } => Err(malformed(reason)),
            Node::Array(_) | Node::Map(_) | Node::Record(_) => {
                Err(ValueError::new(Code::Internal, "an array's item has items itself"))
            }
        }
    }
}

struct Planner<'s> {
    resolver: Resolver<'s>,
    targets: &'s [Target],
}

impl Planner<'_> {
    fn step(&mut self, written: TypeId, read: TypeId, wanted: &Wanted, depth: usize) -> Result<Step, String> {
        if depth > MAX_DEPTH {
            return Err(format!("types stand more than {MAX_DEPTH} levels deep in one another"));
        }
        let mut steps = Vec::new();
        if !wanted.columns.is_empty() {
            let node = self.resolver.resolve(written, read, depth)?;
            steps.extend(wanted.columns.iter().map(|&column| Step::Column(node, column)));
        }
        if !wanted.fields.is_empty() {
            steps.push(self.within(written, read, wanted, depth)?);
        }
        match steps.len() {
            0 => Ok(Step::Skip(self.resolver.skipped(written, depth)?)),
            1 => Ok(steps.remove(0)),
            _ => Ok(Step::Again(steps)),
        }
    }

    /// Of the fields within a record, and not of the record as a whole.
    fn within(&mut self, written: TypeId, read: TypeId, wanted: &Wanted, depth: usize) -> Result<Step, String> {
        let (writer, reader) = (self.resolver.writer, self.resolver.reader);
        let (record, nullable) = reader.without_null(read);
        match (writer.get(written), reader.get(record)) {
            (AvroType::Union(branches), _) => {
                let mut steps = Vec::with_capacity(branches.len());
                for &branch in branches {
                    steps.push(self.within(branch, read, wanted, depth + 1).unwrap_or_else(Step::Unreadable));
                }
                Ok(Step::Choice(steps))
            }
            (AvroType::Null, _) if nullable => Ok(Step::Nothing),
            (AvroType::Record(of_writer), AvroType::Record(of_reader)) => {
                self.fields(of_writer, of_reader, wanted, depth)
            }
            _ => {
                let (written, read) = (writer.describe(written), reader.describe(record));
                Err(format!("a value written as {written} cannot be read as {read}"))
            }
        }
    }

    fn fields(
        &mut self,
        written: &AvroRecord,
        read: &AvroRecord,
        wanted: &Wanted,
        depth: usize,
    ) -> Result<Step, String> {
        let mut steps = Vec::with_capacity(written.fields.len());
        let mut is_written = vec![false; read.fields.len()];
        for (field, position) in written.fields.iter().zip(matched_fields(written, read)) {
            position.iter().for_each(|&position| is_written[position] = true);
            let into = position.and_then(|position| read.fields.get(position));
            let into = into.and_then(|into| Some((into, wanted.fields.get(&into.name)?)));
            steps.push(match into {
                Some((into, wanted)) => {
                    let step = self.step(field.avro_type, into.avro_type, wanted, depth + 1);
                    step.map_err(|reason| format!("field \"{}\": {reason}", into.name))?
                }
                None => Step::Skip(self.resolver.skipped(field.avro_type, depth + 1)?),
            });
        }
        for (field, _) in read.fields.iter().zip(is_written).filter(|(_, is_written)| !is_written) {
            let Some(wanted) = wanted.fields.get(&field.name) else { continue };
            let bytes = self.resolver.default_bytes(field)?;
            self.constants(field.avro_type, &bytes, wanted, &mut steps, depth)
                .map_err(|reason| format!("the default of field \"{}\" cannot be read: {reason}", field.name))?;
        }
        Ok(Step::Fields(steps))
    }

    /// What columns have of a default, which is the same for every message.
    fn constants(
        &mut self,
        avro_type: TypeId,
        bytes: &[u8],
        wanted: &Wanted,
        steps: &mut Vec<Step>,
        depth: usize,
    ) -> Result<(), String> {
        let reader = self.resolver.reader;
        let mut planner = Planner { resolver: Resolver::new(reader, reader), targets: self.targets };
        let root = planner.step(avro_type, avro_type, wanted, depth + 1)?;
        let skip = planner.resolver.skipped(avro_type, depth)?;
        let plan = Plan { resolved: planner.resolver.finish(), root, skip };
        let values = plan.read(&mut Cursor::new(bytes), self.targets).map_err(|error| error.message)?;
        for (column, value) in values.into_iter().enumerate() {
            if let Some(value) = value {
                steps.push(Step::Constant(column, value.into_owned()));
            }
        }
        Ok(())
    }
}
