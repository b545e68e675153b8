//! A writer's types as a reader has them: what is compared once, so that messages are only read.
//!
//! The rules are those of the specification's "schema resolution". Names of records count in unions alone, as for Java's reader;
//! logical types of one family are converted where nothing is lost, and those of two families do not resolve.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::avro_default::default_bytes;
use crate::format::avro_json::json_of;
use crate::format::avro_schema::{AvroField, AvroRecord, AvroSchema, AvroType, Names, TypeId};
use crate::format::avro_value::Leaf;
use crate::format::avro_wire::{Cursor, malformed};
use crate::format::text::ValueError;

/// How deep values may stand in values, and types in types.
pub(crate) const MAX_DEPTH: usize = 100;
/// How many pairs of types are compared before two schemas are given up.
const MAX_COMPARISONS: usize = 500_000;

/// A node's position among those of its [`Resolved`].
pub(crate) type NodeId = usize;

/// How bytes that a writer's type wrote are read. Nodes may form circles.
#[derive(Debug)]
pub(crate) enum Node {
    Null,
    Scalar(Leaf),
    Array(NodeId),
    Map(NodeId),
    /// For each of the writer's branches.
    Union(Vec<NodeId>),
    Record(RecordNode),
    /// What the reader cannot read; no failure until a message has it. Where a message may have another branch instead,
    /// what it has can still be passed over.
    Unreadable {
        reason: String,
        skip: Option<NodeId>,
    },
}

#[derive(Debug)]
pub(crate) struct RecordNode {
    /// The writer's fields, in its order.
    pub(crate) fields: Vec<FieldNode>,
    /// The reader's fields, in its order.
    pub(crate) members: Vec<Member>,
    /// Whether the writer's fields that are read come in the reader's order, and there are no others.
    pub(crate) is_in_order: bool,
}

#[derive(Debug)]
pub(crate) struct FieldNode {
    pub(crate) node: NodeId,
    /// The position of the reader's field; `None` for one that it lacks.
    pub(crate) member: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Member {
    /// Quoted, with a colon behind it.
    pub(crate) key: String,
    /// JSON, for what the writer lacks.
    pub(crate) default: Option<Arc<str>>,
}

/// The nodes that two schemas came to.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    nodes: Vec<Node>,
}

impl Resolved {
    pub(crate) fn get(&self, id: NodeId) -> &Node {
        // All numbers were given by the resolver, for nodes that it has.
        self.nodes.get(id).unwrap_or(&Node::Null)
    }

    /// Passes over a value.
    ///
    /// # Errors
    /// 22P02 if it is malformed.
    pub(crate) fn skip(&self, id: NodeId, cursor: &mut Cursor<'_>, depth: usize) -> Result<(), ValueError> {
        check_depth(depth)?;
        match self.get(id) {
            Node::Null => Ok(()),
            Node::Scalar(leaf) => leaf.skip(cursor),
            Node::Array(inner) => self.skip_items(*inner, false, cursor, depth),
            Node::Map(inner) => self.skip_items(*inner, true, cursor, depth),
            Node::Union(branches) => {
                let branch = branches[cursor.index(branches.len())?];
                self.skip(branch, cursor, depth + 1)
            }
            Node::Record(record) => {
                cursor.count_record()?;
                record.fields.iter().try_for_each(|field| self.skip(field.node, cursor, depth + 1))
            }
            Node::Unreadable { skip: Some(skip), .. } => self.skip(*skip, cursor, depth + 1),
            Node::Unreadable { reason, skip: None } => Err(malformed(reason)),
        }
    }

    fn skip_items(
        &self,
        inner: NodeId,
        has_keys: bool,
        cursor: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), ValueError> {
        while let Some(block) = cursor.block()? {
            if let Some(bytes) = block.bytes {
                cursor.take(bytes)?;
                continue;
            }
            for _ in 0..block.items {
                if has_keys {
                    cursor.text()?;
                }
                self.skip(inner, cursor, depth + 1)?;
                cursor.count_item()?;
            }
        }
        Ok(())
    }
}

/// # Errors
/// 22P02.
pub(crate) fn check_depth(depth: usize) -> Result<(), ValueError> {
    match depth > MAX_DEPTH {
        true => Err(malformed(format!("values stand more than {MAX_DEPTH} levels deep in one another"))),
        false => Ok(()),
    }
}

/// Finds the nodes for pairs of types, each pair once.
pub(crate) struct Resolver<'s> {
    pub(crate) writer: &'s AvroSchema,
    pub(crate) reader: &'s AvroSchema,
    resolved: Resolved,
    /// Of records, which alone can be in circles.
    records: HashMap<(TypeId, TypeId), Result<NodeId, String>>,
    skipped: HashMap<TypeId, NodeId>,
    comparisons_left: usize,
    /// The reader's types as the reader itself writes them, for defaults.
    own: Option<Box<Resolver<'s>>>,
}

impl<'s> Resolver<'s> {
    pub(crate) fn new(writer: &'s AvroSchema, reader: &'s AvroSchema) -> Self {
        Resolver {
            writer,
            reader,
            resolved: Resolved::default(),
            records: HashMap::new(),
            skipped: HashMap::new(),
            comparisons_left: MAX_COMPARISONS,
            own: None,
        }
    }

    pub(crate) fn finish(self) -> Resolved {
        self.resolved
    }

    fn add(&mut self, node: Node) -> NodeId {
        self.resolved.nodes.push(node);
        self.resolved.nodes.len() - 1
    }

    fn compare(&mut self, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("types stand more than {MAX_DEPTH} levels deep in one another"));
        }
        let left = self.comparisons_left.checked_sub(1);
        self.comparisons_left = left.ok_or("the writer's schema and the reader's are too large to be compared")?;
        Ok(())
    }

    fn set(&mut self, id: NodeId, node: Node) {
        if let Some(place) = self.resolved.nodes.get_mut(id) {
            *place = node;
        }
    }

    /// How the reader's type `read` reads what the writer's `written` wrote.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn resolve(&mut self, written: TypeId, read: TypeId, depth: usize) -> Result<NodeId, String> {
        self.compare(depth)?;
        let (writer, reader) = (self.writer, self.reader);
        match (writer.get(written), reader.get(read)) {
            (AvroType::Union(branches), _) => {
                let nodes = branches.iter().map(|&branch| self.branch(branch, read, depth));
                let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
                Ok(self.add(Node::Union(nodes)))
            }
            (_, AvroType::Union(branches)) => self.in_union(written, branches, depth),
            (AvroType::Null, AvroType::Null) => Ok(self.add(Node::Null)),
            (AvroType::Scalar(written), AvroType::Scalar(read)) => {
                let leaf = Leaf::resolve(written, read)?;
                Ok(self.add(Node::Scalar(leaf)))
            }
            (AvroType::Array(written), AvroType::Array(read)) => {
                let items = self.resolve(*written, *read, depth + 1)?;
                Ok(self.add(Node::Array(items)))
            }
            (AvroType::Map(written), AvroType::Map(read)) => {
                let values = self.resolve(*written, *read, depth + 1)?;
                Ok(self.add(Node::Map(values)))
            }
            (AvroType::Record(of_writer), AvroType::Record(of_reader)) => {
                self.record((written, read), of_writer, of_reader, depth)
            }
            _ => {
                let (written, read) = (writer.describe(written), reader.describe(read));
                Err(format!("a value written as {written} cannot be read as {read}"))
            }
        }
    }

    /// A branch that does not resolve fails the messages that have it.
    fn branch(&mut self, written: TypeId, read: TypeId, depth: usize) -> Result<NodeId, String> {
        match self.resolve(written, read, depth + 1) {
            Ok(node) => Ok(node),
            Err(reason) => {
                let skip = Some(self.skipped(written, depth + 1)?);
                Ok(self.add(Node::Unreadable { reason, skip }))
            }
        }
    }

    /// The first branch of the reader that reads the type; those that are of the same name or kind before the others.
    fn in_union(&mut self, written: TypeId, branches: &[TypeId], depth: usize) -> Result<NodeId, String> {
        let mut ordered = branches.to_vec();
        ordered.sort_by_key(|&branch| self.distance(written, branch));
        for branch in ordered.into_iter().take(self.comparisons_left) {
            if let Ok(node) = self.resolve(written, branch, depth + 1) {
                return Ok(node);
            }
        }
        let among = branches.iter().map(|&branch| self.reader.describe(branch)).collect::<Vec<_>>().join(", ");
        Err(format!("a value written as {} cannot be read as any of {among}", self.writer.describe(written)))
    }

    fn distance(&self, written: TypeId, read: TypeId) -> u8 {
        let by_names = |written: &Names, read: &Names| {
            if written.full == read.full || read.aliases.contains(&written.full) {
                return 0;
            }
            if written.short() == read.short() { 1 } else { 2 }
        };
        match (self.writer.get(written), self.reader.get(read)) {
            (AvroType::Record(written), AvroType::Record(read)) => by_names(&written.names, &read.names),
            (AvroType::Scalar(written), AvroType::Scalar(read)) => match (&written.names, &read.names) {
                (Some(written), Some(read)) => by_names(written, read),
                _ if written.wire != read.wire => 2,
                _ if written.logical == read.logical => 0,
                _ => 1,
            },
            _ => 2,
        }
    }

    fn record(
        &mut self,
        pair: (TypeId, TypeId),
        written: &AvroRecord,
        read: &AvroRecord,
        depth: usize,
    ) -> Result<NodeId, String> {
        if let Some(known) = self.records.get(&pair) {
            return known.clone();
        }
        // Known before its fields are resolved: they may lead back to it.
        let id = self.add(Node::Null);
        self.records.insert(pair, Ok(id));
        match self.record_node(written, read, depth) {
            Ok(node) => self.set(id, Node::Record(node)),
            Err(reason) => {
                self.set(id, Node::Unreadable { reason: reason.clone(), skip: None });
                self.records.insert(pair, Err(reason.clone()));
                return Err(reason);
            }
        }
        Ok(id)
    }

    fn record_node(&mut self, written: &AvroRecord, read: &AvroRecord, depth: usize) -> Result<RecordNode, String> {
        let positions = matched_fields(written, read);
        let mut fields = Vec::with_capacity(written.fields.len());
        for (field, member) in written.fields.iter().zip(&positions) {
            let node = match member.and_then(|member| read.fields.get(member)) {
                Some(into) => {
                    let node = self.resolve(field.avro_type, into.avro_type, depth + 1);
                    node.map_err(|reason| format!("field \"{}\": {reason}", into.name))?
                }
                None => self.skipped(field.avro_type, depth + 1)?,
            };
            fields.push(FieldNode { node, member: *member });
        }
        let mut members = Vec::with_capacity(read.fields.len());
        let mut is_written = vec![false; read.fields.len()];
        positions.iter().flatten().for_each(|&position| is_written[position] = true);
        for (field, is_written) in read.fields.iter().zip(is_written) {
            let key = format!("{}:", serde_json::Value::from(field.name.as_str()));
            let default = if is_written { None } else { Some(self.default_json(field, depth)?) };
            members.push(Member { key, default });
        }
        let is_in_order = positions.iter().flatten().copied().eq(0..read.fields.len());
        Ok(RecordNode { fields, members, is_in_order })
    }

    /// What a message of a writer without this field of the reader has there, as JSON.
    fn default_json(&mut self, field: &AvroField, depth: usize) -> Result<Arc<str>, String> {
        let bytes = self.default_bytes(field)?;
        let own = self.own.get_or_insert_with(|| Box::new(Resolver::new(self.reader, self.reader)));
        let node = own.resolve(field.avro_type, field.avro_type, depth + 1)?;
        let json = json_of(&own.resolved, node, &mut Cursor::new(&bytes));
        json.map(Arc::from).map_err(|error| of_default(field, &error.message))
    }

    /// # Errors
    /// If the field has no default, or none of its type.
    pub(crate) fn default_bytes(&self, field: &AvroField) -> Result<Vec<u8>, String> {
        let default = field.default.as_ref();
        let default =
            default.ok_or_else(|| format!("the writer has no field \"{}\", which has no default", field.name))?;
        default_bytes(self.reader, field.avro_type, default).map_err(|reason| of_default(field, &reason))
    }

    /// How to pass over what a writer's type wrote.
    ///
    /// # Errors
    /// For types too deep in one another.
    pub(crate) fn skipped(&mut self, written: TypeId, depth: usize) -> Result<NodeId, String> {
        if let Some(&known) = self.skipped.get(&written) {
            return Ok(known);
        }
        self.compare(depth)?;
        let id = self.add(Node::Null);
        self.skipped.insert(written, id);
        let writer = self.writer;
        let node = match writer.get(written) {
            AvroType::Null => Node::Null,
            AvroType::Scalar(scalar) => Node::Scalar(Leaf::resolve(scalar, scalar)?),
            AvroType::Array(items) => Node::Array(self.skipped(*items, depth + 1)?),
            AvroType::Map(values) => Node::Map(self.skipped(*values, depth + 1)?),
            AvroType::Union(branches) => {
                let nodes = branches.iter().map(|&branch| self.skipped(branch, depth + 1));
                Node::Union(nodes.collect::<Result<_, _>>()?)
            }
            AvroType::Record(record) => {
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push(FieldNode { node: self.skipped(field.avro_type, depth + 1)?, member: None });
                }
                Node::Record(RecordNode { fields, members: Vec::new(), is_in_order: true })
            }
        };
        self.set(id, node);
        Ok(id)
    }
}

fn of_default(field: &AvroField, reason: &str) -> String {
    format!("the default of field \"{}\" does not fit its type: {reason}", field.name)
}

/// For each of the writer's fields the position of the reader's that reads it: of its name, or with its name as an alias.
pub(crate) fn matched_fields(written: &AvroRecord, read: &AvroRecord) -> Vec<Option<usize>> {
    let written: HashMap<&str, usize> =
        written.fields.iter().enumerate().map(|(position, field)| (field.name.as_str(), position)).collect();
    let mut into = vec![None; written.len()];
    for (position, field) in read.fields.iter().enumerate() {
        let mut names = std::iter::once(&field.name).chain(&field.aliases);
        if let Some(&from) = names.find_map(|name| written.get(name.as_str())) {
            into[from] = into[from].or(Some(position));
        }
    }
    into
}
