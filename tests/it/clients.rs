//! Clients of many kinds: each program in `tests/clients` checks itself against a server of its own.

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, pin_mut};
use tokio::process::Command;
use tokio_postgres::error::SqlState;

use crate::support::lookaside::{Lookaside, project};
use crate::support::postgres::find;
use crate::support::process::run;
use crate::support::raw::DEADLINE;

/// What the programs read and write.
pub fn catalog() -> String {
    std::fs::read_to_string(project().join("tests/clients/catalog.toml")).unwrap()
}

/// What tests/run has installed, by the variable that tells where.
fn installed(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: tests/run installs drivers and sets it"))
}

/// The command that runs a program, by the language it is in.
fn program(path: &Path) -> Command {
    let mut command = match path.extension().and_then(|extension| extension.to_str()) {
        Some("sh") => Command::new("bash"),
        Some("py") => {
            let mut command = Command::new(installed("LOOKASIDE_TEST_PYTHON"));
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        }
        Some("js") => {
            let mut command = Command::new("node");
            command.env("NODE_PATH", installed("LOOKASIDE_TEST_NODE_MODULES"));
            command
        }
        Some("java") => {
            let mut command = Command::new("java");
            command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", &installed("LOOKASIDE_TEST_JDBC")]);
            command
        }
        _ => panic!("nothing runs {}", path.display()),
    };
    command.arg(path);
    command
}

/// Runs a program against a server of its own: all of its `checks` pass.
async fn passes(file: &str, checks: usize) {
    let server = Lookaside::start(&catalog()).await;
    let mut command = program(&project().join("tests/clients").join(file));
    command.env("PGHOST", "127.0.0.1").env("PGPORT", server.port.to_string());
    command.env("PGUSER", "tests").env("PGDATABASE", "lookaside");
    let checked = run(command).await;
    assert!(checked.status.success(), "{}{}", checked.stdout, checked.stderr);
    let passed = checked.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(passed, checks, "{}", checked.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works() {
    passes("psycopg_client.py", 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncpg_works() {
    passes("asyncpg_client.py", 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pg8000_works() {
    passes("pg8000_client.py", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_works() {
    passes("sqlalchemy_client.py", 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_postgres_works() {
    passes("pg_client.js", 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_js_works() {
    passes("postgresjs_client.js", 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_works() {
    passes("JdbcClient.java", 10).await;
}

/// A statement that a program of PostgreSQL's may run again and again.
const ENRICH: &str =
    "SELECT c.name FROM (VALUES (CAST(:id AS bigint))) AS o (id) LOOKUP JOIN customers AS c ON o.id = c.id;\n";

async fn pgbench(server: &Lookaside, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("enrich.sql");
    std::fs::write(&script, format!("\\set id random(1, 1000)\n{ENRICH}")).unwrap();
    let mut command = Command::new(find("pgbench"));
    command.args(["-n", "-h", "127.0.0.1", "-U", "tests", "-p", &server.port.to_string(), "-f"]).arg(&script);
    command.args(arguments).arg("lookaside");
    let done = run(command).await;
    assert!(done.status.success(), "{}{}", done.stdout, done.stderr);
    assert!(done.stdout.contains("number of transactions actually processed: 100/100\n"), "{}", done.stdout);
    assert!(done.stdout.contains("number of failed transactions: 0 "), "{}", done.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_works_in_every_mode() {
    let server = Lookaside::start(&catalog()).await;
    for mode in ["simple", "extended", "prepared"] {
        pgbench(&server, &["-M", mode, "-c", "4", "-t", "25"]).await;
    }
    // With a connection for each transaction.
    pgbench(&server, &["-C", "-c", "4", "-t", "25"]).await;
}

#[tokio::test]
async fn tokio_postgres_reads_portals_in_parts_and_rows_as_they_come() {
    let server = Lookaside::start(&catalog()).await;
    let mut client = server.connect().await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT order_id FROM orders WHERE order_id > $1", &[&2_i64]).await.unwrap();
    for expected in [3_i64, 4, 5] {
        let rows = transaction.query_portal(&portal, 1).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [expected]);
    }
    drop(portal);
    transaction.rollback().await.unwrap();
    let rows = client.query_raw("SELECT order_id FROM orders", Vec::<i64>::new()).await.unwrap();
    pin_mut!(rows);
    for expected in [1_i64, 2, 3] {
        let row = tokio::time::timeout(DEADLINE, rows.try_next()).await.expect("a row in time").unwrap().unwrap();
        assert_eq!(row.get::<_, i64>(0), expected);
    }
}

#[tokio::test]
async fn tokio_postgres_cancels_and_goes_on() {
    let server = Lookaside::start(&catalog()).await;
    let client = server.connect().await;
    for sql in ["SELECT order_id FROM orders", "SELECT id FROM inbox", "SELECT n FROM numbers"] {
        let rows = client.query_raw(sql, Vec::<i64>::new()).await.unwrap();
        client.cancel_token().cancel_query(tokio_postgres::NoTls).await.unwrap();
        let end = tokio::time::timeout(DEADLINE, rows.try_for_each(|_| std::future::ready(Ok(()))));
        let error = end.await.expect("the cancel ends it").unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{sql}");
        assert_eq!(client.query_one("SELECT CAST(1 AS int)", &[]).await.unwrap().get::<_, i32>(0), 1);
    }
}

#[tokio::test]
async fn tokio_postgres_copies_in_and_out() {
    let server = Lookaside::start(&catalog()).await;
    let (reader, writer) = (server.connect().await, server.connect().await);
    let copied = reader.copy_out("COPY (SELECT id, note FROM inbox) TO STDOUT (FORMAT csv)").await.unwrap();
    pin_mut!(copied);
    let sink = writer.copy_in::<_, bytes::Bytes>("COPY inbox FROM STDIN (FORMAT csv)").await.unwrap();
    pin_mut!(sink);
    futures::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"1,one\n2,\n")).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    for expected in ["1,one\n", "2,\n"] {
        let line = tokio::time::timeout(DEADLINE, copied.next()).await.expect("a row in time").unwrap().unwrap();
        assert_eq!(line, expected.as_bytes());
    }
}

/// How long the checks beside the checkout may take all together.
const OUTSIDE_LIMIT: Duration = Duration::from_secs(240);
/// pg_dump is refused.
const REFUSED_OUTSIDE: &str = "FAIL psql pg_dump_schema: ";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "tests/run runs it alone, where there are checks beside the checkout: they look at the clock"]
async fn outside_checks_pass() {
    let folder = std::path::PathBuf::from(installed("LOOKASIDE_OUTSIDE_CHECKS"));
    let server = Lookaside::start(&catalog()).await;
    for file in ["psql_check.sh", "psycopg_check.py", "node_check.js"] {
        let mut command = program(&folder.join(file));
        command.args(["127.0.0.1", &server.port.to_string(), "tests", "lookaside"]);
        command.arg("SELECT CAST(order_id AS int), amount FROM orders");
        let checked = tokio::time::timeout(OUTSIDE_LIMIT, run(command)).await.expect("an end in time");
        let failed =
            checked.stdout.lines().filter(|line| line.starts_with("FAIL ") && !line.starts_with(REFUSED_OUTSIDE));
        assert_eq!(failed.collect::<Vec<_>>(), Vec::<&str>::new(), "{}", checked.stderr);
        assert!(checked.stdout.lines().any(|line| line.starts_with("PASS ")), "{file}: {}", checked.stderr);
    }
}
