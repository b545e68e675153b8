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

/// Different for each `n`.
pub fn hostile_text(random: &mut StdRng, n: usize) -> String {
    let length = random.random_range(0..12);
    let mut text = String::new();
    for _ in 0..length {
        let pieces: &[&str] = if random.random_bool(0.8) { &PIECES } else { &LETTERS };
        text.push_str(pieces.choose(random).unwrap());
    }
    // One in a thousand is of 64 kB.
    if n % 1000 == 7 {
        text.push_str(&"'\\\"`%".repeat(13_107));
    }
    text.push_str(&n.to_string());
    text
}

/// The commands that the general log has, each with its text; a line begins with when and who, unless it goes on.
fn commands(log: &str) -> Vec<(&str, &str)> {
    let command = |line| {
        let line: &str = line;
        let (head, command) = line.split_at(line.find(|c: char| c.is_ascii_alphabetic())?);
        let is_head = head.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '\t' | ':')) && head.ends_with(' ');
        if is_head { command.split_once('\t') } else { None }
    };
    log.lines().filter_map(command).collect()
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
    let create = format!(
        "CREATE TABLE {quoted_table} (id int PRIMARY KEY, {quoted_column} mediumtext, KEY ({quoted_column}(50)))"
    );
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
    let log = String::from_utf8_lossy(&log);
    let commands = commands(&log);
    let of = |wanted: &str| {
        commands.iter().filter(|(command, _)| *command == wanted).map(|(_, text)| *text).collect::<Vec<_>>()
    };
    // A few sizes of keys, with and without a condition: each is prepared once, and has nothing of a key in it.
    let prepared = of("Prepare");
    assert!((1..=6).contains(&prepared.len()), "{prepared:#?}");
    for statement in &prepared {
        let rest = statement.strip_prefix("SELECT k.o, t.`id`").unwrap_or_else(|| panic!("{statement}"));
        let rest = rest.strip_prefix(&format!(", t.{quoted_column}")).unwrap_or(rest);
        assert!(rest.starts_with(" FROM JSON_TABLE(?, '$[*]' COLUMNS (o FOR ORDINALITY, k0 "), "{statement}");
        assert!(statement.contains(&format!(")) AS k STRAIGHT_JOIN `shop`.{quoted_table} AS t ON t.")), "{statement}");
    }
    assert_eq!(of("Execute").len(), COUNT / 1000 + COUNT / 400, "a statement for each request");
    let own = ["SET NAMES utf8mb4, time_zone = '+00:00'", "SELECT id FROM witness"];
    let others = commands.iter().filter(|(command, text)| match *command {
        "Prepare" | "Execute" | "Connect" | "Quit" | "Close stmt" => false,
        // The driver's own, when the test connects.
        "Query" => !own.contains(text) && !text.starts_with("SELECT @@"),
        _ => true,
    });
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&(&str, &str)>::new());
}
