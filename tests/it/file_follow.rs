//! Files that are followed, through the server.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use futures::{StreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use crate::support::lookaside::Lookaside;
use crate::support::raw::DEADLINE;

fn append(path: &Path, text: &str) {
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

async fn server(path: &Path) -> Lookaside {
    let catalog = r#"
[stream.log]
type = "file"
path = "PATH"
format = "json"
follow = true
on_malformed = "skip"
columns = { id = "bigint not null" }

[lookup.names]
type = "simulated"
key = { id = "bigint" }
columns = { name = "concat('name ', id)" }
"#;
    Lookaside::start(&catalog.replace("PATH", &path.display().to_string())).await
}

#[tokio::test]
async fn lines_come_as_they_are_written_also_to_the_next_file_and_after_truncation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "{\"id\": 1}\n");
    let server = server(&path).await;
    let client = server.connect().await;
    let query = "SELECT l.id, n.name FROM log l LOOKUP JOIN names n ON l.id = n.id";
    let rows = client.query_raw(query, Vec::<&(dyn ToSql + Sync)>::new()).await.unwrap();
    pin_mut!(rows);
    let mut next = async || {
        let row = tokio::time::timeout(DEADLINE, rows.next()).await.expect("a row in time").unwrap().unwrap();
        assert_eq!(row.get::<_, String>(1), format!("name {}", row.get::<_, i64>(0)));
        row.get::<_, i64>(0)
    };
    assert_eq!(next().await, 1);
    append(&path, "oops\n{\"id\": 2}\n{\"id\"");
    assert_eq!(next().await, 2);
    append(&path, ": 3}\n");
    assert_eq!(next().await, 3);
    std::fs::rename(&path, folder.path().join("app.log.1")).unwrap();
    append(&path, "{\"id\": 4}\n");
    assert_eq!(next().await, 4);
    File::create(&path).unwrap();
    append(&path, "{\"id\": 5}\n");
    assert_eq!(next().await, 5);

    let other = server.connect().await;
    let told =
        "SELECT concat(type, ' ', state, ' ', rows_read, ' ', rows_skipped, ' ', readers) FROM lookaside.streams";
    let told: String = other.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(told, "file reading 5 1 1");
}

#[tokio::test]
async fn latest_is_what_comes_and_rows_of_a_file_that_grows_never_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "{\"id\": 1}\n");
    let server = server(&path).await;
    let client = server.connect().await;
    client.batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT id FROM log WITH (start = 'latest')").await.unwrap();
    append(&path, "{\"id\": 2}\n");
    assert_eq!(client.query_one("FETCH 1 FROM c", &[]).await.unwrap().get::<_, i64>(0), 2);
    let endless = server.connect().await.query("SELECT count(*) FROM log", &[]).await.unwrap_err();
    assert_eq!(endless.code().unwrap().code(), "0A000");
}
