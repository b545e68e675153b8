//! Whatever keys and names are, MariaDB is sent nothing but our own prepared statements: its general log is the witness.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringViewArray};
use lookaside::store::mysql::MysqlStore;
use lookaside::store::{SqlTable, Store};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::store_mysql::{connection, quoted};
use crate::store_postgres::{ints, request, table, texts};
use crate::support::mariadb::MariadbServer;

/// Of what texts are made that try to leave their place.
const PIECES: [&str; 30] = [
    "'",
    "\"",
    "`",
    "\\",
    ";",
    "--",
    " -- ",
    "#",
    "/*",
    "*/",
    "/*!",
    "\r\n",
    "\n",
    "\t",
    "\u{1}",
    "\u{1a}",
    "%",
    "_",
    "?",
    ":a",
    "${X}",
    "{id}",
    "{{",
    "}}",
    "' OR '1'='1",
    "'); DROP TABLE witness; --",
    "\u{feff}",
    "漢",
    "🦀",
    "\\u0000",
];
const LETTERS: [&str; 4] = ["a", "B", "7", "é"];

fn hostile_text(random: &mut StdRng, n: usize) -> String {
    let length = random.random_range(0..12);
    let mut text = String::new();
    for _ in 0..length {
        let pieces: &[&str] = if random.random_bool(0.8) { &PIECES } else { &LETTERS };
        text.push_str(pieces.choose(random).unwrap());
    }
    // Distinct, and one in a thousand is of 64 kB.
    if n % 1000 == 7 {
        text.push_str(&"'\\\"`%".repeat(13_107));
    }
    text.push_str(&n.to_string());
    text
}

/// The lines that the general log has of requests, without what it says of when and who.
fn statements(log: &[u8]) -> String {
    String::from_utf8_lossy(log).into_owned()
}

#[tokio::test]
async fn hostile_keys_and_names_reach_the_server_as_values() {
    const COUNT: usize = 10_000;
    let server = MariadbServer::start_with_log();
    let mut random = StdRng::seed_from_u64(20_240_229);
    let keys = (0..COUNT).map(|n| hostile_text(&mut random, n)).collect::<Vec<_>>();
    let table_name = "we`ird; DROP TABLE witness; -- '\"%{id} :a ?";
    let column_name = "na`me' \"?; :b --";
    let quoted_name = |name: &str| format!("`{}`", name.replace('`', "``"));
    let (quoted_table, quoted_column) = (quoted_name(table_name), quoted_name(column_name));
    let create = format!("CREATE TABLE {quoted_table} (id int, {quoted_column} mediumtext, KEY ({quoted_column}(50)))");
    server.execute(&["CREATE TABLE witness (id int)", "INSERT INTO witness VALUES (1)", &create]).await;
    // Every second key has a row.
    for rows in keys.iter().enumerate().step_by(2).collect::<Vec<_>>().chunks(500) {
        let values = rows.iter().map(|(id, key)| format!("({id}, {})", quoted(key))).collect::<Vec<_>>();
        server.execute(&[&format!("INSERT INTO {quoted_table} VALUES {}", values.join(", "))]).await;
    }
    let hostile = SqlTable { table: quoted_table.clone(), ..table("") };
    let store = MysqlStore::connect(connection(&server, 1), &hostile).await.unwrap();
    assert_eq!(store.schema().field(1).name(), column_name);
    let before = server.statements().len();
    for (number, chunk) in keys.chunks(1000).enumerate() {
        let asked: ArrayRef = Arc::new(StringViewArray::from_iter_values(chunk));
        let answer = store.lookup(&request(&[1], &[0, 1], &[], vec![asked])).await.unwrap();
        let first = number * 1000;
        let mut expected =
            (0..chunk.len()).step_by(2).map(|i| format!("{i}: {} | {}", first + i, chunk[i])).collect::<Vec<_>>();
        expected.sort();
        assert_eq!(texts(&answer), expected, "keys from {first}");
    }
    // As constants of conditions, which are parameters as well.
    for (id, key) in keys.iter().enumerate().step_by(400) {
        let filter = datafusion::logical_expr::Expr::Column(datafusion::common::Column::from_name(column_name))
            .eq(datafusion::logical_expr::lit(key.as_str()));
        assert!(store.can_filter(&filter));
        let id = i32::try_from(id).unwrap();
        let answer = store.lookup(&request(&[0], &[0], &[filter], vec![ints(&[id])])).await.unwrap();
        assert_eq!(texts(&answer), [format!("0: {id}")], "{key}");
    }
    assert_eq!(server.query("SELECT id FROM witness").await, [[Some("1".to_string())]], "the witness is unharmed");

    let log = server.statements().split_off(before);
    let log = statements(&log);
    let prepared =
        log.lines().filter(|line| line.contains("\tPrepare\t") || line.contains(" Prepare\t")).collect::<Vec<_>>();
    // A few sizes of keys with and without a condition, each prepared once.
    assert!((1..=6).contains(&prepared.len()), "{prepared:#?}");
    for statement in &prepared {
        assert!(
            statement.contains("SELECT k.o, ") && statement.contains(" FROM JSON_TABLE(?, '$[*]' COLUMNS ("),
            "{statement}"
        );
    }
    let others = log.lines().filter(|line| ["Query\t", "Init DB\t"].iter().any(|command| line.contains(command)));
    let others = others
        .filter(|line| !line.ends_with("SELECT id FROM witness") && !line.contains("SET NAMES utf8mb4, time_zone"));
    // The log shows executed statements with their parameters in them, quoted: lines of those that hold such words.
    let others = others.filter(|line| line.split_once("\tQuery\t").is_some()).collect::<Vec<_>>();
    assert!(others.is_empty(), "{others:#?}");
}
