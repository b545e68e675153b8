//! What `[connection.X]` of type files means, and `[lookup.X]` over it.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::columns::{read_columns, read_columns_of};
use super::definition::{FileFormat, FilesConfig, FilesTable};
use super::problem::Complaint;
use super::reading::Text;
use super::section::Section;
use super::stream_section::FILE_FORMATS;
use crate::store::files::{FilesLocation, FilesPattern, S3Options};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Keys and the places that they say something of, by the scheme of the url.
const KEYS_OF_SCHEMES: [(&str, &[&str]); 12] = [
    ("access_key_id", &["s3"]),
    ("secret_access_key", &["s3"]),
    ("session_token", &["s3"]),
    ("region", &["s3"]),
    ("endpoint", &["s3", "az"]),
    ("path_style", &["s3"]),
    ("service_account", &["gs"]),
    ("account", &["az"]),
    ("access_key", &["az"]),
    ("anonymous", &["s3", "gs", "az"]),
    ("allow_http", &["s3", "az"]),
    ("request_timeout", &["s3", "gs", "az", "https", "http"]),
];

pub(super) fn read_files_connection(section: &Section) -> Option<FilesConfig> {
    section.require("url");
    let s3 = S3Options {
        bucket: String::new(),
        region: section.text("region").map(|text| text.value),
        endpoint: section.text("endpoint").map(|text| text.value),
        path_style: section.flag("path_style").unwrap_or(section.has("endpoint")),
        credentials: read_credentials(section),
        session_token: section.text("session_token").map(|text| text.value),
        anonymous: section.flag("anonymous").unwrap_or(false),
    };
    let service_account = section.path("service_account");
    let account = section.text("account").map(|text| text.value);
    let access_key = section.text("access_key").map(|text| text.value);
    let allow_http = section.flag("allow_http").unwrap_or(false);
    let request_timeout = section.duration("request_timeout").unwrap_or(REQUEST_TIMEOUT);
    let text = section.text("url")?;
    let place = read_place(section, &text)?;
    refuse_keys_of_others(section, place.scheme);
    let location = match place.scheme {
        "s3" => FilesLocation::S3(S3Options { bucket: place.host, ..s3 }),
        "gs" => FilesLocation::Gcs { bucket: place.host, service_account, anonymous: s3.anonymous },
        "az" => {
            section.require("account");
            let (endpoint, anonymous) = (s3.endpoint, s3.anonymous);
            FilesLocation::Azure { container: place.host, account: account?, access_key, endpoint, anonymous }
        }
        "file" => FilesLocation::Folder(place.folder?),
        _ => FilesLocation::Web(place.host),
    };
    // A url of http says as much.
    let allow_http = allow_http || place.scheme == "http";
    Some(FilesConfig { location, prefix: place.prefix, request_timeout, allow_http })
}

/// `access_key_id` and `secret_access_key`, both or none.
fn read_credentials(section: &Section) -> Option<(String, String)> {
    let (id, secret) = (section.text("access_key_id"), section.text("secret_access_key"));
    for (one, other) in [("access_key_id", "secret_access_key"), ("secret_access_key", "access_key_id")] {
        if section.has(one) && !section.has(other) {
            section.complain_of(one, Complaint::new(format!("{} has \"{one}\" and lacks \"{other}\"", section.title)));
        }
    }
    if section.has("session_token") && !section.has("access_key_id") {
        let message = format!("\"session_token\" in {} goes with \"access_key_id\", which is not there", section.title);
        section.complain_of("session_token", Complaint::new(message));
    }
    Some((id?.value, secret?.value))
}

/// What a url says.
struct Place {
    scheme: &'static str,
    /// Bucket, container, or scheme, host and port of a web server.
    host: String,
    prefix: String,
    folder: Option<std::path::PathBuf>,
}

/// No complaint shows any part of the url, since it may hold a secret.
fn read_place(section: &Section, text: &Text) -> Option<Place> {
    let complain = |message: &str, hint: &str| {
        let message = format!("\"url\" in {} {message}", section.title);
        section.reading.complain(&text.origin, Complaint::new(message).with_hint(hint));
        None
    };
    let folder = |folder| Place { scheme: "file", host: String::new(), prefix: String::new(), folder: Some(folder) };
    if !text.value.contains("://") {
        return Some(folder(section.reading.resolve(&text.value)));
    }
    let hint = "Write file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/PATH, or a path.";
    let Ok(url) = text.value.parse::<Url>() else { return complain("cannot be read", hint) };
    if !url.username().is_empty() || url.password().is_some() {
        return complain("holds a user", "Write what opens the store as keys of their own.");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return complain("has a query", "Write scheme, host and path alone.");
    }
    if url.scheme() == "file" {
        return match url.to_file_path() {
            Ok(path) => Some(folder(path)),
            Err(()) => complain("names no folder of this machine", "Write file:///FOLDER, or a path."),
        };
    }
    let host = url.host_str().unwrap_or_default().to_string();
    let (scheme, host) = match url.scheme() {
        "s3" => ("s3", host),
        "gs" => ("gs", host),
        "az" => ("az", host),
        "http" => ("http", url.origin().ascii_serialization()),
        "https" => ("https", url.origin().ascii_serialization()),
        _ => return complain("is of no store of files", hint),
    };
    let prefix = percent_decode_str(url.path().trim_matches('/')).decode_utf8();
    match (host.is_empty(), prefix) {
        (true, _) => complain("names no bucket", hint),
        (false, Err(_)) => complain("has a path that is not UTF-8", hint),
        (false, Ok(prefix)) => Some(Place { scheme, host, prefix: prefix.into_owned(), folder: None }),
    }
}

fn refuse_keys_of_others(section: &Section, scheme: &str) {
    for (key, schemes) in KEYS_OF_SCHEMES.iter().filter(|(key, of)| section.has(key) && !of.contains(&scheme)) {
        let message = format!("\"{key}\" in {} has no effect with a url of {scheme}", section.title);
        let hint = format!("It goes with {}.", schemes.join(", "));
        section.complain_of(key, Complaint::new(message).with_hint(hint));
    }
}

/// A table over files.
pub(super) fn read_files_table(section: &Section) -> Option<FilesTable> {
    section.require("path");
    let pattern = section.text("path").and_then(|text| match text.value.parse::<FilesPattern>() {
        Ok(pattern) => Some(pattern),
        Err(reason) => {
            let reason =
                if text.is_substituted() { format!("\"{}\" is not a path of files", text.shown) } else { reason };
            let message = format!("\"path\" in {}: {reason}", section.title);
            let hint = "Write a path, a pattern with *, ?, [...] or **, or a folder with / behind it.";
            section.reading.complain(&text.origin, Complaint::new(message).with_hint(hint));
            None
        }
    });
    let format = match section.has("format") {
        true => section.choice("format", &FILE_FORMATS),
        false => pattern.as_ref().and_then(|pattern| format_of_ending(section, pattern)),
    };
    let partitions = match section.has("partitions") {
        true => read_columns_of(section, "partitions"),
        false => Vec::new(),
    };
    let columns = match format {
        Some(FileFormat::Json | FileFormat::Csv) => {
            if section.has("partitions") {
                let message = format!("\"partitions\" in {} goes with parquet and avro alone", section.title);
                let hint =
                    "Declare the column among the others: what a folder's name says goes before what a file has.";
                section.complain_of("partitions", Complaint::new(message).with_hint(hint));
            }
            read_columns(section)
        }
        Some(FileFormat::Parquet | FileFormat::Avro) if section.has("columns") => {
            let name = if format == Some(FileFormat::Avro) { "avro" } else { "parquet" };
            let message = format!("\"columns\" in {} does not go with {name}", section.title);
            section.complain_of(
                "columns",
                Complaint::new(message).with_hint("Its files name their columns: leave it out."),
            );
            Vec::new()
        }
        Some(FileFormat::Parquet | FileFormat::Avro) => Vec::new(),
        None => {
            // What is wrong with them can be told all the same.
            if section.has("columns") { read_columns(section) } else { Vec::new() }
        }
    };
    let columns = columns.into_iter().map(|column| (column.name, column.pg_type, column.nullable)).collect();
    let partitions = partitions.into_iter().map(|column| (column.name, column.pg_type)).collect();
    Some(FilesTable { pattern: pattern?, format: format?, columns, partitions })
}

fn format_of_ending(section: &Section, pattern: &FilesPattern) -> Option<FileFormat> {
    let path = pattern.to_string();
    match path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending) {
        Some("json" | "jsonl" | "ndjson") => Some(FileFormat::Json),
        Some("csv") => Some(FileFormat::Csv),
        Some("parquet") => Some(FileFormat::Parquet),
        Some("avro") => Some(FileFormat::Avro),
        Some(_) | None => {
            let complaint = Complaint::new(format!("{} lacks \"format\"", section.title));
            let hint = "The path ends with none of .json, .jsonl, .ndjson, .csv, .parquet, .avro.";
            section.complain(complaint.with_hint(hint));
            None
        }
    }
}

#[cfg(test)]
#[path = "files_section_tests.rs"]
mod tests;
