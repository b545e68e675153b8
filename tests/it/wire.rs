//! The scripts of `tests/wire`, played against Lookaside and against a real PostgreSQL: what no line marks as
//! different must be the same for both.

use std::path::PathBuf;

use crate::support::lookaside::{Lookaside, project};
use crate::support::postgres::PostgresServer;
use crate::support::script::{Side, play};

/// The streams of the scripts; PostgreSQL has tables of the same names.
const CATALOG: &str = r#"
[stream.three]
type = "generator"
rows_per_second = 0
rows = 3
[stream.three.columns]
n = "n"
label = "concat('row ', n)"

[stream.clicks]
type = "generator"
rows_per_second = 0
[stream.clicks.columns]
n = "n"

[stream.inbox]
type = "push"
[stream.inbox.columns]
id = "bigint not null"
note = "text"
"#;

const TABLES: &str = "
DROP TABLE IF EXISTS three, inbox;
CREATE TABLE three AS SELECT n::bigint AS n, concat('row ', n) AS label FROM generate_series(1, 3) AS n;
CREATE TABLE inbox (id bigint NOT NULL, note text);";

fn scripts() -> Vec<(String, String)> {
    let folder = project().join("tests/wire");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    paths.sort();
    assert!(!paths.is_empty());
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

#[tokio::test]
async fn scripts_hold_against_lookaside() {
    for (name, script) in scripts() {
        let server = Lookaside::start(CATALOG).await;
        play(&name, &script, Side::Lookaside, server.port).await;
    }
}

#[tokio::test]
async fn scripts_hold_against_postgresql() {
    let server = PostgresServer::start();
    for (name, script) in scripts() {
        // The first line may say that there is nothing to compare.
        if script.starts_with("# Lookaside only") {
            continue;
        }
        server.execute(TABLES).await;
        play(&name, &script, Side::Postgres, server.port()).await;
    }
}
