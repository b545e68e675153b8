//! A lookup table of PostgreSQL that is held whole: loaded, loaded again, and served while PostgreSQL is gone.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::lookaside::Lookaside;
use crate::support::postgres::PostgresServer;
use crate::support::raw::DEADLINE;

const TABLE: &str = "CREATE TABLE full_customers (id bigint, name text, code char(4));
    INSERT INTO full_customers VALUES (1, 'Ann', 'a'), (2, 'Bob', 'b'), (2, 'Bea', 'b')";

/// The table with this cache, as `customers`.
fn catalog(postgres: &PostgresServer, cache: &str) -> String {
    format!(
        "[connection.shop]\ntype = \"postgres\"\nurl = \"{}\"\n\
         [lookup.customers]\nconnection = \"shop\"\ntable = \"full_customers\"\ncache = {{ mode = \"full\"{cache} }}\n",
        postgres.url()
    )
}

/// The rows of the last statement as text, or the error's SQLSTATE and message.
async fn ask(client: &Client, sql: &str) -> Result<Vec<String>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    })?;
    let text = |row: &tokio_postgres::SimpleQueryRow| {
        let values = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL").to_string());
        values.collect::<Vec<_>>().join("|")
    };
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(text(row)),
        _ => None,
    });
    Ok(rows.collect())
}

const JOIN: &str =
    "SELECT k.id, c.name FROM (VALUES (1), (2), (3)) AS k (id) LEFT LOOKUP JOIN customers AS c ON c.id = k.id";

/// Asks until the answer is another one.
async fn until_changed(client: &Client, sql: &str, old: &[&str]) -> Vec<String> {
    let changed = async {
        loop {
            let rows = ask(client, sql).await.unwrap();
            if rows != old {
                return rows;
            }
        }
    };
    tokio::time::timeout(DEADLINE, changed).await.expect("another answer in time")
}

#[tokio::test]
async fn rows_are_reloaded_and_the_old_ones_serve_while_the_store_is_gone() {
    let postgres = PostgresServer::start();
    postgres.execute(TABLE).await;
    let lookaside = Lookaside::start(&catalog(&postgres, ", reload_every = \"100ms\"")).await;
    let client = lookaside.connect().await;
    let loaded = ["1|Ann", "2|Bob", "2|Bea", "3|NULL"];
    assert_eq!(ask(&client, JOIN).await.unwrap(), loaded);
    postgres.execute("UPDATE full_customers SET name = 'Anna' WHERE id = 1").await;
    let reloaded = ["1|Anna", "2|Bob", "2|Bea", "3|NULL"];
    assert_eq!(until_changed(&client, JOIN, &loaded).await, reloaded);

    let seen = "SELECT name, last_error IS NULL, cached_rows FROM lookaside.lookups";
    assert_eq!(ask(&client, seen).await.unwrap(), ["customers|t|3"]);
    postgres.stop();
    assert_eq!(until_changed(&client, seen, &["customers|t|3"]).await, ["customers|f|3"]);
    assert_eq!(ask(&client, JOIN).await.unwrap(), reloaded);
    let error = &ask(&client, "SELECT last_error FROM lookaside.lookups").await.unwrap()[0];
    assert!(error.starts_with("store of lookup table \"customers\" is not available: "), "{error}");

    postgres.start_again();
    postgres.execute("INSERT INTO full_customers VALUES (3, 'Carl', 'c')").await;
    assert_eq!(until_changed(&client, JOIN, &reloaded).await, ["1|Anna", "2|Bob", "2|Bea", "3|Carl"]);
    assert_eq!(ask(&client, seen).await.unwrap(), ["customers|t|4"]);
    drop(client);
    lookaside.stop().await;
}

#[tokio::test]
async fn table_is_read_once_until_it_is_declared_invalid() {
    let postgres = PostgresServer::start();
    postgres.execute(TABLE).await;
    let lookaside = Lookaside::start(&catalog(&postgres, "")).await;
    let client = lookaside.connect().await;
    let bob = "SELECT name FROM customers WHERE id = 2";
    assert_eq!(ask(&client, bob).await.unwrap(), ["Bob", "Bea"]);
    postgres.execute("DELETE FROM full_customers WHERE name = 'Bob'").await;
    assert_eq!(ask(&client, bob).await.unwrap(), ["Bob", "Bea"]);
    assert_eq!(ask(&client, "SELECT name FROM customers WHERE id > 1").await.unwrap(), ["Bob", "Bea"]);
    assert_eq!(ask(&client, "SELECT lookaside.invalidate('customers')").await.unwrap(), ["3"]);
    assert_eq!(ask(&client, bob).await.unwrap(), ["Bea"]);
    postgres.execute("DELETE FROM full_customers").await;
    assert_eq!(ask(&client, "SELECT lookaside.invalidate('customers', 2)").await.unwrap(), ["2"]);
    assert!(ask(&client, bob).await.unwrap().is_empty());
    drop(client);
    lookaside.stop().await;
}

#[tokio::test]
async fn what_memory_cannot_do_as_the_store_does_is_refused() {
    let postgres = PostgresServer::start();
    postgres.execute(TABLE).await;
    let lookaside = Lookaside::start(&catalog(&postgres, ", max_rows = 2")).await;
    let client = lookaside.connect().await;
    let refused = [
        (JOIN.to_string(), "53200 lookup table \"customers\" exceeds max_rows (2) of its full cache"),
        (
            JOIN.replace("AS c ON c.id = k.id", "AS c ON c.code = 'a' AND k.id = 1"),
            "0A000 column \"code\" cannot be the key of a lookup: with cache mode \"full\" it would be compared here, \
             but its type character(4) has an equality of its own",
        ),
        (
            JOIN.replace("AS c ON", "AS c WITH (cache = 'bypass') ON"),
            "0A000 lookup table \"customers\" is held whole: its cache cannot be bypassed",
        ),
    ];
    for (sql, error) in refused {
        assert_eq!(ask(&client, &sql).await.unwrap_err(), error, "{sql}");
    }
    // A row that may do without a match does.
    let kept = JOIN.replace("AS c ON", "AS c WITH (on_failure = 'no_match') ON");
    assert_eq!(ask(&client, &kept).await.unwrap(), ["1|NULL", "2|NULL", "3|NULL"]);
    drop(client);
    lookaside.stop().await;
}
