//! Whatever keys and names are, PostgreSQL is sent nothing but our own prepared statements: its log is the witness.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringViewArray};
use lookaside::store::postgres::PostgresStore;
use lookaside::store::{SqlTable, Store};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::store_mysql_hostile::hostile_text;
use crate::store_postgres::{OPTIONS, connection, request, table, texts};
use crate::support::postgres::PostgresServer;

/// Begins each entry of the log.
const ENTRY: &str = "@entry@";

#[tokio::test]
async fn hostile_keys_and_names_reach_the_server_as_values() {
    const COUNT: usize = 10_000;
    let settings = format!("log_statement = 'all'\nlog_line_prefix = '{ENTRY}'\nlog_parameter_max_length = 0\n");
    let server = PostgresServer::start_with_settings(&settings);
    let mut random = StdRng::seed_from_u64(20_240_229);
    let keys = (0..COUNT).map(|n| hostile_text(&mut random, n)).collect::<Vec<_>>();
    let table_name = "\"we\"\"ird; DROP TABLE witness; -- '%{id} $1\"";
    let column_name = "na\"me' ; $1 --";
    let quoted_column = format!("\"{}\"", column_name.replace('"', "\"\""));
    let create = format!("CREATE TABLE witness (id int); CREATE TABLE {table_name} (id int, {quoted_column} text)");
    server.execute(&create).await;
    // Every second key has a row.
    for rows in keys.iter().enumerate().step_by(2).collect::<Vec<_>>().chunks(500) {
        let values = rows.iter().map(|(id, key)| format!("({id}, '{}')", key.replace('\'', "''")));
        let values = values.collect::<Vec<_>>().join(", ");
        server.execute(&format!("INSERT INTO {table_name} VALUES {values}")).await;
    }
    let hostile = SqlTable { table: table_name.to_string(), ..table("") };
    let store = PostgresStore::connect(connection(&server, OPTIONS), &hostile).await.unwrap();
    assert_eq!(store.schema().field(1).name(), column_name);
    let before = server.log_text().len();
    for (number, chunk) in keys.chunks(1000).enumerate() {
        let asked: ArrayRef = Arc::new(StringViewArray::from_iter_values(chunk));
        let answer = store.lookup(&request(&[1], &[0, 1], &[], vec![asked])).await.unwrap();
        let first = number * 1000;
        let found = (0..chunk.len()).step_by(2).map(|i| format!("{i}: {} | {}", first + i, chunk[i]));
        let mut expected = found.collect::<Vec<_>>();
        expected.sort();
        assert_eq!(texts(&answer), expected, "keys from {first}");
    }
    let log = server.log_text().split_off(before);
    let statements = log.split(ENTRY).filter_map(|entry| entry.split_once("LOG:  execute ")).map(|(_, text)| text);
    let statements = statements.map(|text| text.split_once(": ").unwrap().1.trim_end()).collect::<Vec<_>>();
    assert_eq!(statements.len(), COUNT / 1000, "{log}");
    assert_eq!(log.matches(ENTRY).count(), statements.len(), "nothing else is in the log: {log}");
    let expected = format!(
        "SELECT k.ordinality, t.\"id\"::integer, t.{quoted_column}::text FROM unnest($1::text[]) WITH ORDINALITY AS k(k1, \
         ordinality) JOIN \"public\".{table_name} AS t ON t.{quoted_column} = k.k1"
    );
    assert!(statements.iter().all(|statement| *statement == expected), "{statements:#?} instead of {expected}");
}
