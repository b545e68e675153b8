//! A field's default, which schemas give as JSON, in the bytes that a writer would have written.

use serde_json::Value as Json;

use crate::format::avro_resolve::MAX_DEPTH;
use crate::format::avro_schema::{AvroScalar, AvroSchema, AvroType, TypeId, Wire};
use crate::format::text::excerpt;

/// The most bytes and values of a default, those that stand for it in records within it among them.
const MAX_DEFAULT_SIZE: usize = 1024 * 1024;

/// # Errors
/// Why the default is none of its type.
pub(crate) fn default_bytes(schema: &AvroSchema, avro_type: TypeId, default: &Json) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder { schema, bytes: Vec::new(), values_left: MAX_DEFAULT_SIZE };
    encoder.write(avro_type, default, 0)?;
    Ok(encoder.bytes)
}

struct Encoder<'s> {
    schema: &'s AvroSchema,
    bytes: Vec<u8>,
    values_left: usize,
}

impl Encoder<'_> {
    fn write(&mut self, avro_type: TypeId, json: &Json, depth: usize) -> Result<(), String> {
        self.values_left = self.values_left.saturating_sub(1);
        if depth > MAX_DEPTH || self.values_left == 0 || self.bytes.len() > MAX_DEFAULT_SIZE {
            return Err("it is too large".to_string());
        }
        let schema = self.schema;
        match (schema.get(avro_type), json) {
            (AvroType::Null, Json::Null) => Ok(()),
            (AvroType::Scalar(scalar), json) => self.scalar(scalar, json),
            (AvroType::Array(items), Json::Array(values)) => {
                self.count(values.len());
                values.iter().try_for_each(|value| self.write(*items, value, depth + 1))?;
                self.long(0);
                Ok(())
            }
            (AvroType::Map(inner), Json::Object(members)) => {
                self.count(members.len());
                for (key, value) in members {
                    self.text(key.as_bytes());
                    self.write(*inner, value, depth + 1)?;
                }
                self.long(0);
                Ok(())
            }
            (AvroType::Record(record), Json::Object(members)) => {
                for field in &record.fields {
                    let value = members.get(&field.name).or(field.default.as_ref());
                    let value = value.ok_or_else(|| format!("it lacks \"{}\"", field.name))?;
                    self.write(field.avro_type, value, depth + 1)?;
                }
                Ok(())
            }
            (AvroType::Union(branches), json) => self.union(branches, json, depth),
            (_, json) => Err(self.misfit(avro_type, json)),
        }
    }

    /// Of the first branch, as the specification had it first, or of another, as it has it since 1.12.
    fn union(&mut self, branches: &[TypeId], json: &Json, depth: usize) -> Result<(), String> {
        let start = self.bytes.len();
        let mut reason = None;
        for (position, &branch) in branches.iter().enumerate() {
            self.long(position as i64);
            match self.write(branch, json, depth + 1) {
                Ok(()) => return Ok(()),
                Err(error) => reason = reason.or(Some(error)),
            }
            self.bytes.truncate(start);
        }
        Err(reason.unwrap_or_else(|| "the union has no branches".to_string()))
    }

    fn scalar(&mut self, scalar: &AvroScalar, json: &Json) -> Result<(), String> {
        let misfit = || format!("{} is no {scalar}", excerpt(&json.to_string()));
        match (&scalar.wire, json) {
            (Wire::Boolean, Json::Bool(value)) => self.bytes.push(u8::from(*value)),
            (Wire::Int, Json::Number(number)) => {
                let int = number.as_i64().and_then(|number| i32::try_from(number).ok());
                self.long(int.ok_or_else(misfit)?.into());
            }
            (Wire::Long, Json::Number(number)) => self.long(number.as_i64().ok_or_else(misfit)?),
            (Wire::Float, json) => {
                self.bytes.extend((float(json).ok_or_else(misfit)? as f32).to_le_bytes());
            }
            (Wire::Double, json) => self.bytes.extend(float(json).ok_or_else(misfit)?.to_le_bytes()),
            (Wire::String, Json::String(text)) => self.text(text.as_bytes()),
            (Wire::Bytes, Json::String(text)) => self.text(&latin1(text).ok_or_else(misfit)?),
            (Wire::Fixed(size), Json::String(text)) => {
                let bytes = latin1(text).filter(|bytes| bytes.len() == *size);
                self.bytes.extend(bytes.ok_or_else(misfit)?);
            }
            (Wire::Enum { symbols, .. }, Json::String(text)) => {
                let position = symbols.iter().position(|symbol| symbol == text);
                self.long(position.ok_or_else(misfit)? as i64);
            }
            _ => return Err(misfit()),
        }
        Ok(())
    }

    fn misfit(&self, avro_type: TypeId, json: &Json) -> String {
        format!("{} is no {}", excerpt(&json.to_string()), self.schema.describe(avro_type))
    }

    fn long(&mut self, number: i64) {
        let mut bits = ((number << 1) ^ (number >> 63)) as u64;
        while bits >= 0x80 {
            self.bytes.push(bits as u8 | 0x80);
            bits >>= 7;
        }
        self.bytes.push(bits as u8);
    }

    fn text(&mut self, text: &[u8]) {
        self.long(text.len() as i64);
        self.bytes.extend(text);
    }

    fn count(&mut self, items: usize) {
        if items > 0 {
            self.long(items as i64);
        }
    }
}

/// JSON has no form of its own for what is no number.
fn float(json: &Json) -> Option<f64> {
    match json {
        Json::Number(number) => number.as_f64(),
        Json::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" | "INF" => Some(f64::INFINITY),
            "-Infinity" | "-INF" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// Each character stands for the byte of its number.
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}
