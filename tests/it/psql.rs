//! The real psql against the server: rows live in each way that psql has, Ctrl-C, COPY, errors.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::lookaside::Lookaside;
use crate::support::process::{Process, psql, run};

/// A stream that is there from the first moment on, and one that psql fills.
const CATALOG: &str = r#"
[stream.orders]
type = "generator"
rows_per_second = 20
[stream.orders.columns]
order_id = "n"
amount = "CAST(n + 0.5 AS numeric(12,2))"

[stream.inbox]
type = "push"
[stream.inbox.columns]
id = "bigint not null"
note = "text"
"#;

#[tokio::test]
async fn plain_select_with_a_limit_ends() {
    let server = Lookaside::start(CATALOG).await;
    let shown = run(psql(server.port, &["-At", "-c", "SELECT order_id, amount FROM orders LIMIT 2"])).await;
    assert!(shown.status.success());
    assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), ("1|1.50\n2|2.50\n", ""));
}

/// Reads three rows while the statement runs, presses Ctrl-C, and gives what psql says.
async fn interrupted(arguments: &[&str], rows: [&str; 3]) -> String {
    let server = Lookaside::start(CATALOG).await;
    let mut psql = Process::start(psql(server.port, arguments));
    for row in rows {
        assert_eq!(psql.line().await.as_deref(), Some(row), "{}", psql.stderr());
    }
    psql.signal("INT");
    let asked = Instant::now();
    let finished = psql.finish().await;
    assert!(asked.elapsed() < Duration::from_secs(2), "the interrupt took {:?}", asked.elapsed());
    assert!(finished.stderr.contains("ERROR:  canceling statement due to user request"), "{}", finished.stderr);
    finished.stderr
}

#[tokio::test]
async fn fetch_count_shows_rows_live_until_interrupted() {
    let stream = "SELECT order_id, amount FROM orders";
    interrupted(&["-At", "-v", "FETCH_COUNT=1", "-c", stream], ["1|1.50", "2|2.50", "3|3.50"]).await;
}

#[tokio::test]
async fn copy_shows_rows_live_until_interrupted() {
    let stream = "COPY (SELECT order_id, amount FROM orders) TO STDOUT";
    let said = interrupted(&["-c", stream], ["1\t1.50", "2\t2.50", "3\t3.50"]).await;
    assert!(!said.contains("NOTICE"), "nothing is wrong with COPY: {said}");
}

#[tokio::test]
async fn endless_plain_query_is_noticed_and_interrupted() {
    let server = Lookaside::start(CATALOG).await;
    let mut psql = psql(server.port, &["-At"]);
    psql.env("PGAPPNAME", "psql");
    let mut psql = Process::start(psql);
    psql.write("SELECT order_id FROM orders;\n").await;
    // psql shows no row, so its notice is all there is to wait for.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !psql.stderr().contains("HINT:") {
        assert!(Instant::now() < deadline, "no notice came: {}", psql.stderr());
        tokio::task::yield_now().await;
    }
    let notice = "NOTICE:  the rows of this query never end, and psql may show none of them\nHINT:  Type \\set FETCH_COUNT 1 first";
    assert!(psql.stderr().contains(notice), "{}", psql.stderr());
    psql.signal("INT");
    let finished = psql.finish().await;
    assert!(finished.stderr.contains("ERROR:  canceling statement due to user request"), "{}", finished.stderr);
}

#[tokio::test]
async fn rows_of_one_psql_are_seen_at_once_in_another() {
    let server = Lookaside::start(CATALOG).await;
    let writer = server.connect().await;
    writer.execute("INSERT INTO inbox VALUES (0, 'begin')", &[]).await.unwrap();
    // Not -A: with it psql ends a row's line when the next row comes.
    let mut reader = Process::start(psql(server.port, &["-t", "-v", "FETCH_COUNT=1"]));
    reader.write("SELECT id, note FROM inbox WITH (start = 'earliest');\n").await;
    assert_eq!(next_row(&mut reader).await, ["0", "begin"]);

    let inserted = run(psql(server.port, &["-c", "INSERT INTO inbox VALUES (1, 'héllo ✓')"])).await;
    assert_eq!(inserted.stdout, "INSERT 0 1\n");
    assert_eq!(next_row(&mut reader).await, ["1", "héllo ✓"]);

    let mut copy = Process::start(psql(server.port, &["-c", "\\copy inbox from stdin csv"]));
    copy.write("2,\"a, b\"\n3,\n").await;
    let copied = copy.finish().await;
    assert_eq!((copied.stdout.as_str(), copied.stderr.as_str()), ("COPY 2\n", ""));
    assert_eq!(next_row(&mut reader).await, ["2", "a, b"]);
    assert_eq!(next_row(&mut reader).await, ["3", ""]);
    reader.signal("INT");
    assert!(reader.finish().await.stderr.contains("canceling statement"));
}

/// The values of the next row that psql shows under each other.
async fn next_row(reader: &mut Process) -> Vec<String> {
    let line = reader.line().await.unwrap_or_else(|| panic!("no row: {}", reader.stderr()));
    line.split('|').map(|value| value.trim().to_string()).collect()
}

#[tokio::test]
async fn errors_point_at_their_place() {
    let server = Lookaside::start(CATALOG).await;
    let shown = run(psql(server.port, &["-c", "SELECT order_id,\n  nobody FROM orders"])).await;
    assert_eq!(shown.status.code(), Some(1));
    let expected = "ERROR:  column \"nobody\" does not exist\nLINE 2:   nobody FROM orders\n          ^\n";
    assert!(shown.stderr.starts_with(expected), "{}", shown.stderr);
    let shown = run(psql(server.port, &["-v", "VERBOSITY=sqlstate", "-c", "SELEKT 1"])).await;
    assert_eq!(shown.stderr, "ERROR:  42601\n");
}

#[tokio::test]
async fn closed_pipe_ends_psql_and_leaves_the_server() {
    let server = Lookaside::start(CATALOG).await;
    let mut psql =
        Process::start(psql(server.port, &["-At", "-v", "FETCH_COUNT=1", "-c", "SELECT order_id FROM orders"]));
    assert_eq!(psql.line().await.as_deref(), Some("1"));
    psql.close_stdout();
    psql.finish().await;
    assert_eq!(server.connect().await.query_one("SELECT 7", &[]).await.unwrap().len(), 1);
}
