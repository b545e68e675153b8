//! The questions that tools ask of the catalogs, as they were recorded (`tests/questions`): each is put to a real PostgreSQL
//! with the same objects and to us. None may fail but those listed with their reason, and answers have the same columns.
//!
//! `${orders}` in a question stands for the object identifier of that relation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::lookaside::Lookaside;
use crate::support::postgres::PostgresServer;

const CATALOG: &str = r#"
[stream.orders]
comment = "what was sold"
type = "push"
[stream.orders.columns]
order_id = "bigint not null"
customer_id = "bigint"
amount = "numeric(12,2)"
placed_at = "timestamptz"
tags = "text[]"

[lookup.customers]
type = "simulated"
[lookup.customers.key]
id = "bigint"
[lookup.customers.columns]
name = "concat('customer ', id)"
tier = "'gold'"
"#;

const VIEW: &str = "CREATE VIEW big_orders AS SELECT order_id, amount FROM orders WHERE amount > 100";

const TABLES: &str = "\
CREATE TABLE orders (order_id bigint NOT NULL, customer_id bigint, amount numeric(12,2), placed_at timestamptz, tags text[]);
COMMENT ON TABLE orders IS 'what was sold';
CREATE TABLE customers (id bigint PRIMARY KEY, name text, tier text NOT NULL);";

/// Questions that we do not answer: whose they are, how they begin, and why.
const UNANSWERED: &[(&str, &str, &str)] = &[
    ("others", "SELECT set_config('jit', 'on', false)", "set_config() changes nothing; asked only of who has jit on"),
    ("others", "WITH Words AS ( SELECT regexp_split_to_table(", "DataFusion splits no text by a regular expression"),
];

/// The place in [`UNANSWERED`] that tells of a question.
fn unanswered(tool: &str, question: &str) -> Option<usize> {
    let words: Vec<&str> = question.split_whitespace().collect();
    let words = words.join(" ");
    UNANSWERED.iter().position(|(of_tool, start, _)| *of_tool == tool && words.starts_with(start))
}

/// Column names, and rows in the order of their text.
#[derive(Debug, PartialEq)]
struct Answer {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

async fn ask(client: &Client, question: &str) -> Result<Answer, String> {
    let messages = client.simple_query(question).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{}: {}", error.code().code(), error.message()),
        None => error.to_string(),
    })?;
    let mut answer = Answer { columns: vec![], rows: vec![] };
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.columns = columns.iter().map(|column| column.name().to_string()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                answer.rows.push((0..row.len()).map(|column| row.get(column).map(str::to_string)).collect());
            }
            _ => {}
        }
    }
    answer.rows.sort();
    Ok(answer)
}

async fn oids(client: &Client) -> BTreeMap<String, String> {
    let answer = ask(client, "SELECT relname, oid FROM pg_catalog.pg_class").await.unwrap();
    let pairs = answer.rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap()));
    pairs.collect()
}

fn fill_in(question: &str, oids: &BTreeMap<String, String>) -> String {
    ["orders", "customers", "big_orders"].iter().fold(question.to_string(), |question, relation| {
        question.replace(&format!("${{{relation}}}"), &oids[*relation])
    })
}

/// Each tool's questions, by its name.
fn questions() -> Vec<(String, Vec<String>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/questions");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let questions = text.split("\n;\n").map(|question| question.trim().to_string());
        let tool = path.file_stem().unwrap().to_string_lossy().into_owned();
        (tool, questions.filter(|question| !question.is_empty()).collect())
    };
    files.iter().map(read).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_of_tools_are_answered_and_have_the_columns_that_postgres_gives() {
    let server = Lookaside::start(CATALOG).await;
    let ours = server.connect().await;
    ours.batch_execute(VIEW).await.unwrap();
    // The columns of a lookup table are known once its store has been reached.
    ours.batch_execute("SELECT name FROM customers WHERE id = 1").await.unwrap();
    let postgres = PostgresServer::start();
    postgres.execute(TABLES).await;
    postgres.execute(VIEW).await;
    let (theirs, connection) = tokio_postgres::connect(&postgres.url(), tokio_postgres::NoTls).await.unwrap();
    let _connection = datafusion::common::runtime::SpawnedTask::spawn(connection);
    let (our_oids, their_oids) = (oids(&ours).await, oids(&theirs).await);
    let (mut count, mut same, mut faults) = (0, 0, vec![]);
    let mut still_unanswered = BTreeSet::new();
    for (tool, questions) in questions() {
        for question in questions {
            // What PostgreSQL 15 does not know, a newer one was asked.
            let Ok(expected) = ask(&theirs, &fill_in(&question, &their_oids)).await else { continue };
            count += 1;
            let listed = unanswered(&tool, &question);
            match ask(&ours, &fill_in(&question, &our_oids)).await {
                Err(_) if listed.is_some() => still_unanswered.extend(listed),
                Ok(answer) if answer == expected => same += 1,
                Ok(answer) if answer.columns == expected.columns => {
                    if std::env::var_os("SHOW_DIFFERENCES").is_some() {
                        println!("{tool}: {question}\n  PostgreSQL {:?}\n  we {:?}", expected.rows, answer.rows);
                    }
                }
                Ok(answer) => faults.push(format!("{tool}: columns {:?} of {question}", answer.columns)),
                Err(error) => faults.push(format!("{tool}: {error} of {question}")),
            }
        }
    }
    for (place, (tool, start, _)) in UNANSWERED.iter().enumerate() {
        if !still_unanswered.contains(&place) {
            faults.push(format!("{tool}: is answered now, or not asked, and still listed: {start}"));
        }
    }
    println!("{count} questions, {same} answers are PostgreSQL's to the letter");
    assert!(count > 200, "{count} questions");
    // Others differ by owners, object identifiers and PostgreSQL's own objects, which are more in newer versions.
    assert!(same > 120, "only {same} answers have PostgreSQL's rows");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
