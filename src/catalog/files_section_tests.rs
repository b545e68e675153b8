use std::path::PathBuf;
use std::time::Duration;

use super::super::definition::{CatalogDefinition, ConnectionKind, FileFormat, LookupKind};
use super::super::file::read_text;
use crate::lookup::policy::{CachePolicy, FullCache};
use crate::pg_type::PgType;
use crate::store::files::FilesLocation;

/// What is read, or the first complaint, without its place.
fn read(text: &str) -> Result<CatalogDefinition, String> {
    let file = (PathBuf::from("conf/a.toml"), text.to_string());
    read_text(&[file], &|_| None).map_err(|problems| problems[0].message.clone())
}

fn connection(lines: &str) -> Result<CatalogDefinition, String> {
    read(&format!("[connection.c]\ntype = \"files\"\n{lines}"))
}

fn table(lines: &str) -> Result<CatalogDefinition, String> {
    read(&format!("[connection.c]\ntype = \"files\"\nurl = \"lake\"\n[lookup.t]\nconnection = \"c\"\n{lines}"))
}

#[test]
fn a_url_says_where_files_are() {
    for (lines, location, prefix) in [
        ("url = \"lake/x\"", "conf/lake/x", ""),
        ("url = \"file:///data/lake\"", "/data/lake", ""),
        (
            "url = \"s3://bucket/a/b/\"\nregion = \"eu\"\nsession_token = \"t0k\"\naccess_key_id = \"k\"\nsecret_access_key = \"s3cret\"",
            "s3://bucket",
            "a/b",
        ),
        ("url = \"gs://bucket\"\nservice_account = \"key.json\"", "gs://bucket", ""),
        ("url = \"az://box/a%20b\"\naccount = \"acc\"\naccess_key = \"s3cret\"", "az://box of acc", "a b"),
        ("url = \"https://a.example:8443/x\"\nrequest_timeout = \"3s\"", "https://a.example:8443", "x"),
    ] {
        let catalog = connection(lines).unwrap();
        let ConnectionKind::Files(files) = &catalog.connections[0].kind else { panic!("{catalog:?}") };
        assert_eq!((files.location.to_string().as_str(), files.prefix.as_str()), (location, prefix));
        assert!(!format!("{catalog:?}").contains("s3cret") && !format!("{catalog:?}").contains("t0k"), "{catalog:?}");
    }
    let s3 = connection("url = \"s3://b\"\nendpoint = \"http://localhost:9000\"\nallow_http = true\nanonymous = true")
        .unwrap();
    let ConnectionKind::Files(files) = &s3.connections[0].kind else { panic!("{s3:?}") };
    let FilesLocation::S3(options) = &files.location else { panic!("{s3:?}") };
    assert!(options.path_style && options.anonymous && files.allow_http && options.credentials.is_none());
}

#[test]
fn every_option_of_a_table_of_files_is_kept() {
    let only = |lines: &str| match table(lines).unwrap().lookups.remove(0) {
        lookup if matches!(lookup.kind, LookupKind::Files(_)) => lookup,
        other => panic!("{other:?}"),
    };
    let lookup = only("path = \"a/**/*.parquet\"\npartitions = { year = \"int\" }");
    let LookupKind::Files(files) = lookup.kind else { panic!() };
    assert_eq!((files.format, files.partitions), (FileFormat::Parquet, vec![("year".to_string(), PgType::Int4)]));
    let LookupKind::Files(files) = only("path = \"a/*.avro\"").kind else { panic!() };
    assert_eq!((files.format, files.columns), (FileFormat::Avro, vec![]));
    let looked_at = FullCache { reload_every: Some(Duration::from_secs(30)), ..FullCache::default() };
    assert_eq!(lookup.policy.cache, CachePolicy::Full(looked_at));
    let lookup = only(
        "path = \"a/\"\nformat = \"csv\"\ncolumns = { id = \"int not null\" }\ncache = { mode = \"full\", reload_every = \"1s\" }",
    );
    let LookupKind::Files(files) = lookup.kind else { panic!() };
    assert_eq!((files.format, files.columns), (FileFormat::Csv, vec![("id".to_string(), PgType::Int4, false)]));
    let each_second = FullCache { reload_every: Some(Duration::from_secs(1)), ..FullCache::default() };
    assert_eq!(lookup.policy.cache, CachePolicy::Full(each_second));
}

#[test]
fn mistakes_are_told() {
    for (lines, complaint) in [
        ("", "[connection.c] lacks \"url\""),
        ("url = \"ftp://a/b\"", "\"url\" in [connection.c] is of no store of files"),
        ("url = \"s3:///b\"", "\"url\" in [connection.c] names no bucket"),
        ("url = \"https://me:s3cret@a/b\"", "\"url\" in [connection.c] holds a user"),
        ("url = \"s3://b?x=s3cret\"", "\"url\" in [connection.c] has a query"),
        ("url = \"s3://b\"\naccount = \"a\"", "\"account\" in [connection.c] has no effect with a url of s3"),
        ("url = \"lake\"\nregion = \"eu\"", "\"region\" in [connection.c] has no effect with a url of file"),
        ("url = \"az://b\"", "[connection.c] lacks \"account\""),
        (
            "url = \"s3://b\"\naccess_key_id = \"k\"",
            "[connection.c] has \"access_key_id\" and lacks \"secret_access_key\"",
        ),
        (
            "url = \"s3://b\"\nsession_token = \"k\"",
            "\"session_token\" in [connection.c] goes with \"access_key_id\", which is not there",
        ),
    ] {
        assert_eq!(connection(lines).map(|catalog| format!("{catalog:?}")), Err(complaint.to_string()));
    }
    for (lines, complaint) in [
        ("", "[lookup.t] lacks \"path\""),
        (
            "path = \"../x.csv\"\ncolumns = { a = \"int\" }",
            "\"path\" in [lookup.t]: \"../x.csv\" is not a path of files: a folder is empty, . or ..",
        ),
        ("path = \"x\"", "[lookup.t] lacks \"format\""),
        ("path = \"x.csv\"", "[lookup.t] declares no columns"),
        ("path = \"x.parquet\"\ncolumns = { a = \"int\" }", "\"columns\" in [lookup.t] does not go with parquet"),
        ("path = \"x.avro\"\ncolumns = { a = \"int\" }", "\"columns\" in [lookup.t] does not go with avro"),
        (
            "path = \"x.csv\"\npartitions = { a = \"int\" }\ncolumns = { b = \"int\" }",
            "\"partitions\" in [lookup.t] goes with parquet and avro alone",
        ),
        (
            "path = \"x.parquet\"\ncache = { mode = \"partial\" }",
            "unknown value \"partial\" for \"mode\" in [lookup.t.cache]",
        ),
    ] {
        assert_eq!(table(lines).map(|catalog| format!("{catalog:?}")), Err(complaint.to_string()));
    }
}
