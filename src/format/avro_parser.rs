//! The JSON of Avro schemas.
//!
//! It is read here and not by the crate apache-avro, whose reader panics on attributes that it does not expect. Names may hold
//! any characters, and a logical type that does not fit its type is passed over, as the specification says.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

use crate::format::avro_schema::{
    AvroField, AvroRecord, AvroScalar, AvroType, Logical, Names, TypeId, Unit, Wire, short,
};
use crate::format::text::excerpt;

/// The most types of one schema, those that it refers to among them.
const MAX_TYPES: usize = 50_000;
/// The largest `fixed`; no message is as large.
const MAX_FIXED_BYTES: u64 = 1 << 30;

/// Types read so far, from one text or several.
#[derive(Default)]
pub(crate) struct AvroParser {
    types: Vec<AvroType>,
    names: HashMap<String, TypeId>,
}

impl AvroParser {
    /// # Errors
    /// What is wrong with the schema.
    pub(crate) fn parse(&mut self, text: &str) -> Result<TypeId, String> {
        // serde_json reads no deeper than 128 levels, so that nothing here goes deeper.
        let json = serde_json::from_str::<Json>(text).map_err(|error| format!("it is no JSON: {error}"))?;
        self.any(&json, "")
    }

    pub(crate) fn into_types(self) -> Vec<AvroType> {
        self.types
    }

    fn any(&mut self, json: &Json, namespace: &str) -> Result<TypeId, String> {
        match json {
            Json::String(name) => match primitive(name) {
                Some(primitive) => self.add(primitive),
                None => self.named(name, namespace),
            },
            Json::Array(branches) => self.union(branches, namespace),
            Json::Object(object) => self.object(object, namespace),
            other => Err(format!("{} is no type", excerpt(&other.to_string()))),
        }
    }

    fn add(&mut self, avro_type: AvroType) -> Result<TypeId, String> {
        if self.types.len() >= MAX_TYPES {
            return Err(format!("it has more than {MAX_TYPES} types"));
        }
        self.types.push(avro_type);
        Ok(self.types.len() - 1)
    }

    fn named(&self, name: &str, namespace: &str) -> Result<TypeId, String> {
        let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        known.copied().ok_or_else(|| format!("type \"{name}\" is used before it is declared"))
    }

    fn union(&mut self, branches: &[Json], namespace: &str) -> Result<TypeId, String> {
        if branches.is_empty() {
            return Err("a union has no branches".to_string());
        }
        let branches = branches.iter().map(|branch| self.any(branch, namespace)).collect::<Result<Vec<_>, _>>()?;
        if branches.iter().any(|&branch| matches!(self.types.get(branch), Some(AvroType::Union(_)))) {
            return Err("a union stands directly in a union".to_string());
        }
        self.add(AvroType::Union(branches))
    }

    fn object(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<TypeId, String> {
        let name = match object.get("type") {
            Some(Json::String(name)) => name.as_str(),
            Some(inner) => return self.any(inner, namespace),
            None => return Err("a type has no \"type\"".to_string()),
        };
        match name {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let names = names_of(object, namespace)?;
                let wire = symbols_of(object).map_err(|reason| format!("enum \"{}\" {reason}", names.full))?;
                self.declare(names, object, wire)
            }
            "fixed" => {
                let names = names_of(object, namespace)?;
                let size = object.get("size").and_then(Json::as_u64).filter(|size| *size <= MAX_FIXED_BYTES);
                let size = size.ok_or_else(|| format!("fixed \"{}\" has no size that can be read", names.full))?;
                self.declare(names, object, Wire::Fixed(size as usize))
            }
            "array" | "map" => {
                let within = if name == "array" { "items" } else { "values" };
                let inner = object.get(within).ok_or_else(|| format!("an {name} has no \"{within}\""))?;
                let inner = self.any(inner, namespace)?;
                self.add(if name == "array" { AvroType::Array(inner) } else { AvroType::Map(inner) })
            }
            _ => match primitive(name) {
                Some(AvroType::Scalar(scalar)) => {
                    let logical = logical_of(object, &scalar.wire);
                    self.add(AvroType::Scalar(AvroScalar { logical, ..scalar }))
                }
                Some(other) => self.add(other),
                None => self.named(name, namespace),
            },
        }
    }

    fn declare(&mut self, names: Names, object: &Map<String, Json>, wire: Wire) -> Result<TypeId, String> {
        let logical = logical_of(object, &wire);
        let full = names.full.clone();
        let id = self.add(AvroType::Scalar(AvroScalar { wire, logical, names: Some(names) }))?;
        self.register(full, id)?;
        Ok(id)
    }

    fn register(&mut self, name: String, id: TypeId) -> Result<(), String> {
        match self.names.insert(name.clone(), id) {
            None => Ok(()),
            Some(_) => Err(format!("type \"{name}\" is declared twice")),
        }
    }

    fn record(&mut self, object: &Map<String, Json>, namespace: &str) -> Result<TypeId, String> {
        let names = names_of(object, namespace)?;
        let full = names.full.clone();
        let fields = object.get("fields").and_then(Json::as_array);
        let fields = fields.ok_or_else(|| format!("record \"{full}\" has no \"fields\""))?;
        // Known before its fields are read: they may be of its own type.
        let id = self.add(AvroType::Record(AvroRecord { names, fields: Vec::new() }))?;
        self.register(full.clone(), id)?;
        let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let mut read = Vec::<AvroField>::with_capacity(fields.len());
        let mut seen = HashSet::new();
        for field in fields {
            let name = field.get("name").and_then(Json::as_str).filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| format!("a field of record \"{full}\" has no name"))?;
            let in_field = |reason: String| format!("field \"{name}\" of record \"{full}\": {reason}");
            if !seen.insert(name) {
                return Err(in_field("it is declared twice".to_string()));
            }
            let avro_type = field.get("type").ok_or_else(|| in_field("it has no type".to_string()))?;
            read.push(AvroField {
                name: name.to_string(),
                aliases: strings(field.get("aliases")),
                avro_type: self.any(avro_type, inner).map_err(in_field)?,
                default: field.get("default").cloned(),
            });
        }
        if let Some(AvroType::Record(record)) = self.types.get_mut(id) {
            record.fields = read;
        }
        Ok(id)
    }
}

fn primitive(name: &str) -> Option<AvroType> {
    let wire = match name {
        "null" => return Some(AvroType::Null),
        "boolean" => Wire::Boolean,
        "int" => Wire::Int,
        "long" => Wire::Long,
        "float" => Wire::Float,
        "double" => Wire::Double,
        "bytes" => Wire::Bytes,
        "string" => Wire::String,
        _ => return None,
    };
    Some(AvroType::Scalar(AvroScalar { wire, logical: None, names: None }))
}

fn names_of(object: &Map<String, Json>, namespace: &str) -> Result<Names, String> {
    let name = object.get("name").and_then(Json::as_str).filter(|name| !short(name).is_empty());
    let name = name.ok_or("a type has no name")?;
    let namespace = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
    let full = full_name(name, namespace);
    let own = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
    let aliases = strings(object.get("aliases")).iter().map(|alias| full_name(alias, own)).collect();
    Ok(Names { full, aliases })
}

/// A name with a point in it is whole.
fn full_name(name: &str, namespace: &str) -> String {
    match name.strip_prefix('.') {
        Some(name) => name.to_string(),
        None if name.contains('.') || namespace.is_empty() => name.to_string(),
        None => format!("{namespace}.{name}"),
    }
}

fn symbols_of(object: &Map<String, Json>) -> Result<Wire, String> {
    let symbols = object.get("symbols").and_then(Json::as_array).ok_or("has no \"symbols\"")?;
    let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_string)).collect::<Option<Vec<_>>>();
    let symbols = symbols.ok_or("has a symbol that is no text")?;
    let default = match object.get("default") {
        None | Some(Json::Null) => None,
        Some(default) => {
            let known = default.as_str().filter(|default| symbols.iter().any(|symbol| symbol == default));
            Some(known.ok_or("has a default that is none of its symbols")?.to_string())
        }
    };
    Ok(Wire::Enum { symbols, default })
}

fn strings(json: Option<&Json>) -> Vec<String> {
    let items = json.and_then(Json::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_string)).collect()
}

/// What the specification says of a logical type that does not fit its type: it is to be ignored.
fn logical_of(object: &Map<String, Json>, wire: &Wire) -> Option<Logical> {
    let logical = match (object.get("logicalType")?.as_str()?, wire) {
        ("decimal", Wire::Bytes | Wire::Fixed(_)) => {
            let precision = object.get("precision").and_then(Json::as_u64).filter(|precision| *precision > 0)?;
            let scale = object.get("scale").map_or(Some(0), Json::as_u64).filter(|scale| *scale <= precision)?;
            Logical::Decimal { precision, scale }
        }
        ("big-decimal", Wire::Bytes) => Logical::BigDecimal,
        ("uuid", Wire::String | Wire::Fixed(16)) => Logical::Uuid,
        ("date", Wire::Int) => Logical::Date,
        ("time-millis", Wire::Int) => Logical::Time(Unit::Millis),
        ("time-micros", Wire::Long) => Logical::Time(Unit::Micros),
        ("timestamp-millis", Wire::Long) => Logical::Timestamp(Unit::Millis),
        ("timestamp-micros", Wire::Long) => Logical::Timestamp(Unit::Micros),
        ("timestamp-nanos", Wire::Long) => Logical::Timestamp(Unit::Nanos),
        ("local-timestamp-millis", Wire::Long) => Logical::LocalTimestamp(Unit::Millis),
        ("local-timestamp-micros", Wire::Long) => Logical::LocalTimestamp(Unit::Micros),
        ("local-timestamp-nanos", Wire::Long) => Logical::LocalTimestamp(Unit::Nanos),
        ("duration", Wire::Fixed(12)) => Logical::Duration,
        _ => return None,
    };
    Some(logical)
}
