//! The keys of a stream whose rows come as messages: format, columns and metadata, the same for every source.

use super::columns::{DocumentsOf, named_texts, read_columns, read_document_columns};
use super::definition::{ColumnDefinition, MetadataDefinition, MetadataKind, PayloadDefinition, PayloadFormat};
use super::problem::{Complaint, nearest};
use super::section::Section;
use crate::format::debezium::{Deletes, EnvelopeField};
use crate::pg_type::PgType;
use crate::source::kafka_rows::MessageField;

#[derive(Clone, Copy, PartialEq)]
enum Word {
    Json,
    Csv,
    Debezium,
    Raw,
}

/// `format` and `columns`, with what belongs to the format.
pub(super) fn read_message_format(section: &Section) -> Option<PayloadDefinition> {
    section.require("format");
    let deletes = section.choice("deletes", &[("skip", Deletes::Skip), ("before", Deletes::Before)]);
    let words = [("json", Word::Json), ("csv", Word::Csv), ("debezium", Word::Debezium), ("raw", Word::Raw)];
    let word = section.choice("format", &words)?;
    if word != Word::Debezium && section.has("deletes") {
        let message = format!("\"deletes\" in {} goes with format = \"debezium\" alone", section.title);
        section.complain_of("deletes", Complaint::new(message));
    }
    let (columns, format) = match word {
        Word::Json => (read_document_columns(section, DocumentsOf::Stream), PayloadFormat::Json),
        Word::Csv => (read_columns(section), PayloadFormat::Csv),
        Word::Raw => (read_raw_column(section), PayloadFormat::Raw),
        Word::Debezium => {
            let columns = read_document_columns(section, DocumentsOf::Stream);
            (columns, PayloadFormat::Debezium { deletes: deletes.unwrap_or(Deletes::Skip) })
        }
    };
    Some(PayloadDefinition { format, columns })
}

fn read_raw_column(section: &Section) -> Vec<ColumnDefinition> {
    let columns = read_columns(section);
    let is_one = matches!(columns.as_slice(), [column] if matches!(column.pg_type, PgType::Text | PgType::Bytea));
    if !is_one && !columns.is_empty() {
        let message = format!("{} with format = \"raw\" has one column, of type text or bytea", section.title);
        section.complain_of("columns", Complaint::new(message).with_hint("It is the whole message."));
    }
    columns
}

/// `[stream.X.metadata]`: what the source and the format say of a message, as columns.
/// Beside a payload that is too wrong to tell what it would be, only its form is looked at.
pub(super) fn read_metadata(parent: &Section, payload: Option<&PayloadDefinition>) -> Vec<MetadataDefinition> {
    let Some(section) = parent.section("metadata", "metadata") else { return Vec::new() };
    let Some(payload) = payload else { return Vec::new() };
    let is_debezium = matches!(payload.format, PayloadFormat::Debezium { .. });
    let of_message = MessageField::ALL.map(|(word, field)| (word, MetadataKind::Message(field)));
    let of_envelope = EnvelopeField::ALL.map(|(word, field)| (word, MetadataKind::Envelope(field)));
    let mut metadata: Vec<MetadataDefinition> = Vec::new();
    for (name, text) in named_texts(&section) {
        let complain = |complaint: Complaint| section.reading.complain(&text.origin, complaint);
        if payload.columns.iter().any(|column| column.name == name) {
            complain(Complaint::new(format!("\"{name}\" in {} is a column of the stream already", section.title)));
            continue;
        }
        let found = of_message.iter().chain(&of_envelope).find(|(word, _)| *word == text.value).map(|(_, kind)| *kind);
        match found {
            Some(MetadataKind::Envelope(_)) if !is_debezium => {
                complain(Complaint::new(format!("\"{}\" goes with format = \"debezium\" alone", text.shown)));
            }
            Some(kind) => metadata.push(MetadataDefinition { name, kind }),
            None => {
                let all = of_message.iter().chain(of_envelope.iter().filter(|_| is_debezium)).map(|(word, _)| *word);
                let words: Vec<&str> = all.collect();
                let hint = match nearest(&text.value, words.iter().copied()) {
                    Some(nearest) => format!("Perhaps you meant \"{nearest}\"."),
                    None => format!("There are {}.", words.join(", ")),
                };
                complain(Complaint::new(format!("no metadata is called \"{}\"", text.shown)).with_hint(hint));
            }
        }
    }
    metadata
}
