//! The keys of a stream whose rows come as messages: format, columns and metadata, the same for every source.

use super::columns::{DocumentsOf, named_texts, read_columns, read_document_columns};
use super::connection_section::Connections;
use super::definition::{
    ColumnDefinition, Deletes, EnvelopeField, MessageField, MetadataColumn, MetadataField, PayloadDefinition,
    PayloadFormat,
};
use super::problem::{Complaint, nearest};
use super::reading::Text;
use super::section::Section;
use crate::pg_type::PgType;

/// A format of messages, as the catalog names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageWord {
    Json,
    Csv,
    Debezium,
    Raw,
    Avro,
}

/// Who carries messages, and so what can be said of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Kafka,
    /// As lines.
    File,
}

/// `columns`, with what belongs to the format; `None` if it is too wrong to tell what messages would be.
pub(super) fn read_payload(
    section: &Section,
    word: Option<MessageWord>,
    connections: &Connections,
) -> Option<PayloadDefinition> {
    let deletes = section.choice("deletes", &[("skip", Deletes::Skip), ("before", Deletes::Before)]);
    let avro = read_avro_keys(section, word, connections);
    let word = word?;
    refuse_keys_of_others(section, word);
    let (columns, format) = match word {
        MessageWord::Json => (read_document_columns(section, DocumentsOf::Stream), PayloadFormat::Json),
        MessageWord::Csv => (read_columns(section), PayloadFormat::Csv),
        MessageWord::Raw => (read_raw_column(section), PayloadFormat::Raw),
        MessageWord::Debezium => {
            let deletes = deletes.unwrap_or(Deletes::Skip);
            (read_document_columns(section, DocumentsOf::Stream), PayloadFormat::Debezium { deletes })
        }
        MessageWord::Avro => {
            // Without columns all fields of the schema are.
            let has_columns = section.has("columns");
            let columns = if has_columns { read_document_columns(section, DocumentsOf::Stream) } else { vec![] };
            (columns, avro?)
        }
    };
    Some(PayloadDefinition { format, columns })
}

/// Where the schemas of Avro come from; `None`, with a complaint if the format is avro, if that is not said.
fn read_avro_keys(section: &Section, word: Option<MessageWord>, connections: &Connections) -> Option<PayloadFormat> {
    let (schema, subject) = (section.path("schema"), section.text("subject"));
    let registry = section.text("schema_registry");
    if let Some(registry) = &registry {
        check_registry(section, registry, connections);
    }
    let registry = registry.map(|registry| registry.value);
    match (registry, schema) {
        (Some(registry), schema) => {
            if schema.is_some() && subject.is_some() {
                let complaint = Complaint::new(format!("\"subject\" in {} does not go with \"schema\"", section.title));
                section.complain_of("subject", complaint.with_hint("Each says what the columns are."));
            }
            Some(PayloadFormat::AvroOfRegistry { registry, subject: subject.map(|subject| subject.value), schema })
        }
        (None, Some(schema)) => {
            if subject.is_some() {
                let complaint =
                    Complaint::new(format!("{} has \"subject\" without \"schema_registry\"", section.title));
                section.complain_of("subject", complaint);
            }
            Some(PayloadFormat::Avro { schema })
        }
        (None, None) => {
            if word == Some(MessageWord::Avro) && !section.has("schema") && !section.has("schema_registry") {
                let complaint = Complaint::new(format!("{} lacks \"schema\"", section.title));
                section.complain(complaint.with_hint(
                    "Write schema = \"FILE.avsc\", or schema_registry = \"…\" where messages name their schemas.",
                ));
            }
            None
        }
    }
}

/// A registry of schemas is an HTTP service.
fn check_registry(section: &Section, registry: &Text, connections: &Connections) {
    if let Some(of) = connections.type_of(section, registry).filter(|of| *of != "http") {
        let message = format!("connection \"{}\" is of type \"{of}\", and no registry of schemas", registry.shown);
        let hint = "Declare the registry as a connection of type \"http\".";
        section.reading.complain(&registry.origin, Complaint::new(message).with_hint(hint));
    }
}

fn refuse_keys_of_others(section: &Section, word: MessageWord) {
    let keys = [
        ("deletes", "debezium", MessageWord::Debezium),
        ("schema", "avro", MessageWord::Avro),
        ("schema_registry", "avro", MessageWord::Avro),
        ("subject", "avro", MessageWord::Avro),
    ];
    for (key, format, _) in keys.iter().filter(|(key, _, of)| *of != word && section.has(key)) {
        let message = format!("\"{key}\" in {} goes with format = \"{format}\" alone", section.title);
        section.complain_of(key, Complaint::new(message));
    }
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

/// `[stream.X.metadata]`: what the carrier and the format say of a message, as columns. Beside a payload that is too wrong
/// to tell what it would be, only the section's form is looked at.
pub(super) fn read_metadata(
    parent: &Section,
    carrier: Carrier,
    payload: Option<&PayloadDefinition>,
) -> Vec<MetadataColumn> {
    let Some(section) = parent.section("metadata", "metadata") else { return Vec::new() };
    let Some(payload) = payload else { return Vec::new() };
    let is_debezium = matches!(payload.format, PayloadFormat::Debezium { .. });
    let of_message =
        MessageField::ALL.map(|(word, field)| (word, MetadataField::Message(field), carrier == Carrier::Kafka));
    let of_envelope = EnvelopeField::ALL.map(|(word, field)| (word, MetadataField::Envelope(field), is_debezium));
    let mut metadata: Vec<MetadataColumn> = Vec::new();
    for (name, text) in named_texts(&section) {
        let complain = |complaint: Complaint| section.reading.complain(&text.origin, complaint);
        if payload.columns.iter().any(|column| column.name == name) {
            complain(Complaint::new(format!("\"{name}\" in {} is a column of the stream already", section.title)));
            continue;
        }
        let found = of_message.iter().chain(&of_envelope).find(|(word, ..)| *word == text.value);
        match found {
            Some((_, of, true)) => metadata.push(MetadataColumn { name, of: *of }),
            Some((_, MetadataField::Envelope(_), false)) => {
                complain(Complaint::new(format!("\"{}\" goes with format = \"debezium\" alone", text.shown)));
            }
            Some((_, MetadataField::Message(_), false)) => {
                complain(Complaint::new(format!("\"{}\" goes with a topic of Kafka alone", text.shown)));
            }
            None => {
                let offered = of_message.iter().chain(&of_envelope).filter(|(_, _, is_there)| *is_there);
                let words: Vec<&str> = offered.map(|(word, ..)| *word).collect();
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
