//! The binary: what each subcommand prints, where to, and with which exit code.

use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_postgres::SimpleQueryMessage;

use crate::support::lookaside::{connect_to, project};
use crate::support::process::{Process, catalog_file, lookaside, run};

const CATALOG: &str = r#"
[stream.orders]
type = "generator"
rows_per_second = 0
[stream.orders.columns]
order_id = "n"
note = "CASE WHEN n % 2 = 0 THEN NULL ELSE 'odd, ' || n END"
"#;

fn command(arguments: &[&str]) -> Command {
    let mut command = lookaside();
    command.args(arguments);
    command
}

/// `lookaside query` over the catalog of these tests.
fn query(path: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = command(&["query", "--catalog"]);
    command.arg(path).args(arguments);
    command
}

#[tokio::test]
async fn version_is_the_packages() {
    let shown = run(command(&["--version"])).await;
    assert_eq!(shown.stdout, concat!("lookaside ", env!("CARGO_PKG_VERSION"), "\n"));
    assert_eq!(shown.status.code(), Some(0));
}

#[tokio::test]
async fn query_prints_each_format() {
    let (_folder, path) = catalog_file(CATALOG);
    let sql = "SELECT order_id, note FROM orders LIMIT 2";
    let formats = [
        ("csv", "order_id,note\n1,\"odd, 1\"\n2,\n"),
        ("json", "{\"order_id\":1,\"note\":\"odd, 1\"}\n{\"order_id\":2,\"note\":null}\n"),
    ];
    for (format, expected) in formats {
        let shown = run(query(&path, &["--format", format, sql])).await;
        assert_eq!((shown.stdout.as_str(), shown.stderr.as_str()), (expected, ""), "{format}");
        assert_eq!(shown.status.code(), Some(0));
    }
    let shown = run(query(&path, &[sql])).await;
    let lines: Vec<_> = shown.stdout.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["order_id", "note"], "{}", shown.stdout);
    assert!(lines.contains(&vec!["1", "odd, 1"]), "{}", shown.stdout);

    let file = path.with_file_name("query.sql");
    std::fs::write(&file, "-- two rows\nSELECT order_id FROM orders LIMIT 2;\n").unwrap();
    let shown = run(query(&path, &["--format", "csv", "-f", file.to_str().unwrap()])).await;
    assert_eq!(shown.stdout, "order_id\n1\n2\n");
}

#[tokio::test]
async fn query_that_fails_tells_stderr_and_exits_with_1() {
    let (_folder, path) = catalog_file(CATALOG);
    for (sql, told) in [
        ("SELECT * FROM nowhere", "(SQLSTATE 42P01)"),
        ("SELEKT", "(SQLSTATE 42601)"),
        ("SELECT 1 / (order_id - 1) FROM orders", "(SQLSTATE 22012)"),
        ("INSERT INTO orders VALUES (1)", "(SQLSTATE "),
    ] {
        let shown = run(query(&path, &["--format", "json", sql])).await;
        assert_eq!((shown.status.code(), shown.stdout.as_str()), (Some(1), ""), "{sql}: {}", shown.stderr);
        assert!(shown.stderr.starts_with("ERROR: ") && shown.stderr.contains(told), "{sql}: {}", shown.stderr);
    }
    let shown = run(query(&path, &["-f", "/nowhere.sql"])).await;
    assert_eq!(shown.status.code(), Some(1));
    assert!(shown.stderr.contains("/nowhere.sql"), "{}", shown.stderr);
}

#[tokio::test]
async fn closed_stdout_ends_a_query_quietly_and_ctrl_c_with_130() {
    let (_folder, path) = catalog_file(CATALOG);
    let mut endless = Process::start(query(&path, &["--format", "csv", "SELECT order_id FROM orders"]));
    assert_eq!(endless.line().await.as_deref(), Some("order_id"));
    endless.close_stdout();
    let ended = endless.finish().await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));

    let slow = CATALOG.replace("rows_per_second = 0", "rows_per_second = 0.001");
    let (_folder, path) = catalog_file(&slow);
    let mut waiting = Process::start(query(&path, &["--format", "csv", "SELECT order_id FROM orders"]));
    assert_eq!(waiting.line().await.as_deref(), Some("order_id"));
    assert_eq!(waiting.line().await.as_deref(), Some("1"));
    waiting.signal("INT");
    assert_eq!(waiting.finish().await.status.code(), Some(130));
}

#[tokio::test]
async fn check_tells_what_is_there_and_where_what_is_wrong() {
    let (_folder, path) = catalog_file(CATALOG);
    let mut good = command(&["check"]);
    good.arg(&path);
    let shown = run(good).await;
    assert_eq!(shown.stdout, "stream orders: generator, columns order_id bigint not null, note text\n");
    assert_eq!((shown.status.code(), shown.stderr.as_str()), (Some(0), ""));

    let (_folder, path) =
        catalog_file("[stream.orders]\ntype = \"push\"\nretain_row = 5\n[stream.orders.columns]\nid = \"bigin\"\n");
    let mut bad = command(&["check"]);
    bad.arg(&path);
    let shown = run(bad).await;
    assert_eq!(shown.status.code(), Some(1));
    for place in [":3:1: ", ":5:6: "] {
        let line = format!("{}{place}", path.display());
        assert!(shown.stderr.contains(&line), "{line} in {}", shown.stderr);
    }
    assert!(shown.stderr.contains("retain_rows"), "the nearest key: {}", shown.stderr);

    let views = path.with_file_name("views.sql");
    std::fs::write(&views, "CREATE VIEW ok AS SELECT 1 AS a;\nCREATE VIEW wrong AS SELECT nobody FROM orders;\n")
        .unwrap();
    let (_folder, path) = catalog_file(CATALOG);
    let mut bad = command(&["check", "--sql"]);
    bad.arg(&views).arg("--").arg(&path);
    let shown = run(bad).await;
    assert_eq!(shown.status.code(), Some(1));
    assert!(shown.stderr.contains("views.sql:2: column \"nobody\" does not exist"), "{}", shown.stderr);
}

#[tokio::test]
async fn serve_stops_on_a_signal_with_a_streaming_client() {
    let (_folder, path) = catalog_file(CATALOG);
    for signal in ["TERM", "INT"] {
        let (server, port) = Process::serve(&path, &["--log-format", "json"]).await;
        let client = connect_to(port, "tests").await;
        let rows = client.simple_query_raw("SELECT order_id FROM orders").await.unwrap();
        pin_mut!(rows);
        let read = async {
            let mut seen = 0;
            loop {
                match rows.next().await.unwrap() {
                    Ok(SimpleQueryMessage::Row(_)) if seen == 0 => {
                        seen = 1;
                        server.signal(signal);
                    }
                    Ok(_) => {}
                    Err(error) => return error,
                }
            }
        };
        let asked = Instant::now();
        let error = read.await;
        assert_eq!(error.code().map(|code| code.code()), Some("57P01"));
        let ended = server.finish().await;
        assert_eq!(ended.status.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(5));
        assert_eq!(ended.stdout, "", "the address is all that is printed");
        for line in ended.stderr.lines() {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
            assert!(entry["level"].is_string() && entry["message"].is_string(), "{line}");
        }
        assert!(ended.stderr.contains("\"message\":\"stopping\""), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn serve_refuses_addresses_and_files_that_it_cannot_use() {
    let (_folder, path) = catalog_file(CATALOG);
    let cases = [
        (vec!["--http", "0.0.0.0:0"], "refusing to listen on 0.0.0.0:0, which other machines can reach"),
        (vec!["--http", "nonsense"], "cannot listen on \"nonsense\""),
        (vec!["--listen", "0.0.0.0:0"], "refusing to listen on 0.0.0.0:0, which other machines can reach"),
        (vec!["--listen", "nonsense"], "cannot listen on \"nonsense\""),
        (vec!["--sql", "/nowhere.sql"], "cannot read /nowhere.sql"),
    ];
    for (arguments, told) in cases {
        let mut serve = command(&["serve"]);
        serve.arg(&path).args(&arguments);
        let shown = run(serve).await;
        assert_eq!((shown.status.code(), shown.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(shown.stderr.contains(told), "{arguments:?}: {}", shown.stderr);
    }
}

#[tokio::test]
async fn serve_runs_statement_files_first() {
    let (_folder, path) = catalog_file(CATALOG);
    let views = path.with_file_name("views.sql");
    std::fs::write(&views, "CREATE VIEW first AS SELECT order_id FROM orders LIMIT 1;").unwrap();
    let (_server, port) = Process::serve(&path, &["--sql", views.to_str().unwrap()]).await;
    let row = connect_to(port, "tests").await.query_one("SELECT * FROM first", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn demo_prints_rows_until_it_is_interrupted() {
    let started = Instant::now();
    let mut demo = Process::start(command(&["demo", "--listen", "127.0.0.1:0"]));
    let mut lines = vec![];
    // The rows are whatever comes behind the header, which names the columns of the query.
    while lines.len() < 40 {
        lines.push(demo.line().await.expect("a row"));
        if lines.iter().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() >= 3 {
            break;
        }
    }
    let text = lines.join("\n");
    assert!(started.elapsed() < Duration::from_secs(15), "{text}");
    assert!(text.contains("    psql -h 127.0.0.1 -p "), "{text}");
    demo.signal("INT");
    let ended = demo.finish().await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{text}");
}

#[tokio::test]
async fn no_output_shows_a_secret() {
    const SECRET: &str = "hunter2-9f3a";
    let catalog = "[connection.shop]\ntype = \"postgres\"\nurl = \"postgres://me:${SHOP_PASSWORD}@127.0.0.1:1/shop\"\n\
        [lookup.customers]\nconnection = \"shop\"\ntable = \"public.customers\"\n";
    let (_folder, path) = catalog_file(catalog);
    let paths: [PathBuf; 2] = [path.clone(), project().join("Cargo.toml")];
    for (subcommand, arguments) in [
        ("check", vec![paths[0].to_str().unwrap()]),
        ("check", vec![paths[1].to_str().unwrap()]),
        ("query", vec!["--catalog", paths[0].to_str().unwrap(), "SELECT * FROM customers WHERE id = 1"]),
        ("query", vec!["--catalog", paths[0].to_str().unwrap(), "EXPLAIN SELECT * FROM customers WHERE id = 1"]),
    ] {
        let mut command = command(&[subcommand]);
        command.args(arguments).env("SHOP_PASSWORD", SECRET).env("LOOKASIDE_LOG", "trace");
        let shown = run(command).await;
        assert_eq!(shown.status.code(), Some(1), "{subcommand}: {}", shown.stderr);
        assert!(!shown.stdout.contains(SECRET) && !shown.stderr.contains(SECRET), "{}", shown.stderr);
    }
}
