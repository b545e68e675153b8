//! A cache that hears of changes in PostgreSQL: the trigger that the program prints, what it sends, and what becomes of
//! the cache.

use tokio_postgres::Client;

use crate::support::lookaside::Lookaside;
use crate::support::postgres::PostgresServer;
use crate::support::process::{catalog_file, lookaside, run};
use crate::support::raw::DEADLINE;

/// `table` as `customers`, cached for an hour.
pub fn catalog(postgres: &PostgresServer, table: &str) -> String {
    format!(
        r#"
[connection.shop]
type = "postgres"
url = "{}"
[lookup.customers]
connection = "shop"
table = "{table}"
[lookup.customers.cache]
mode = "partial"
expire_after_write = "1h"
expire_misses_after = "1h"
listen = "{table}_changed"
"#,
        postgres.url()
    )
}

/// Has the program print the trigger, and PostgreSQL run it.
pub async fn install_trigger(postgres: &PostgresServer, catalog: &str) {
    let (_folder, file) = catalog_file(catalog);
    let mut command = lookaside();
    command.arg("trigger").arg(&file).arg("customers");
    let printed = run(command).await;
    assert_eq!(printed.status.code(), Some(0), "{}", printed.stderr);
    // Twice: it may be run again.
    postgres.execute(&printed.stdout).await;
    postgres.execute(&printed.stdout).await;
}

/// A server whose cache of `table` listens.
async fn start(postgres: &PostgresServer, table: &str) -> (Lookaside, Client) {
    let catalog = catalog(postgres, table);
    install_trigger(postgres, &catalog).await;
    let server = Lookaside::start(&catalog).await;
    let client = server.connect().await;
    // The table's first use has it listen.
    find(&client, "1").await;
    until_it_listens(&client).await;
    (server, client)
}

pub async fn until_it_listens(client: &Client) {
    let listens = "SELECT hears_since IS NOT NULL FROM lookaside.lookups WHERE name = 'customers'";
    until(client, listens, "t").await;
}

async fn ask(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_string()),
        _ => None,
    });
    rows.collect::<Vec<_>>().join(",")
}

/// Asks until this is the answer.
async fn until(client: &Client, sql: &str, expected: &str) {
    let mut last = String::new();
    let asking = async {
        while last != expected {
            last = ask(client, sql).await;
        }
    };
    let ended = tokio::time::timeout(DEADLINE, asking).await;
    assert!(ended.is_ok(), "{sql}: {last} instead of {expected}");
}

/// The names of these ids, found through the lookup join.
async fn find(client: &Client, ids: &str) -> String {
    ask(client, &by_id(ids)).await
}

fn by_id(ids: &str) -> String {
    let rows = ids.split(',').map(|id| format!("({id})")).collect::<Vec<_>>().join(",");
    format!("SELECT c.name FROM (VALUES {rows}) AS k (id) LEFT LOOKUP JOIN customers AS c ON c.id = k.id")
}

async fn requests(client: &Client) -> String {
    ask(client, "SELECT requests FROM lookaside.lookups WHERE name = 'customers'").await
}

#[tokio::test]
async fn whatever_changes_a_row_is_seen_though_the_cache_would_keep_it_for_an_hour() {
    let postgres = PostgresServer::shared();
    postgres
        .execute(
            "CREATE TABLE heard (id bigint PRIMARY KEY, name text); INSERT INTO heard VALUES (1, 'Ann'), (2, 'Bob')",
        )
        .await;
    let (_server, client) = start(postgres, "heard").await;
    assert_eq!(find(&client, "1,2,3").await, "Ann,Bob,NULL");
    let asked = requests(&client).await;
    assert_eq!(find(&client, "1,2,3").await, "Ann,Bob,NULL");
    assert_eq!(requests(&client).await, asked, "it is cached");
    for (change, expected) in [
        ("UPDATE heard SET name = 'Anna' WHERE id = 1", "Anna,Bob,NULL"),
        ("INSERT INTO heard VALUES (3, 'Carl')", "Anna,Bob,Carl"),
        ("UPDATE heard SET id = 4 WHERE id = 3", "Anna,Bob,NULL"),
        ("DELETE FROM heard WHERE id = 2", "Anna,NULL,NULL"),
        ("BEGIN; INSERT INTO heard VALUES (2, 'no'); ROLLBACK; INSERT INTO heard VALUES (3, 'Eve')", "Anna,NULL,Eve"),
        ("TRUNCATE heard", "NULL,NULL,NULL"),
        ("INSERT INTO heard SELECT i, 'n' || i FROM generate_series(1, 5000) AS i", "n1,n2,n3"),
    ] {
        postgres.execute(change).await;
        until(&client, &by_id("1,2,3"), expected).await;
    }
    until(&client, "SELECT heard_at IS NOT NULL FROM lookaside.lookups WHERE name = 'customers'", "t").await;
    assert_eq!(ask(&client, "SELECT hears_by FROM lookaside.lookups").await, "listen heard_changed");
    let explained = ask(&client, &format!("EXPLAIN {}", by_id("1"))).await;
    assert!(explained.contains(", told_by=listen heard_changed)"), "{explained}");
    // By another column, which the message does not name.
    let by_name = "SELECT c.id FROM (VALUES ('n7')) AS k (name) LOOKUP JOIN customers AS c ON c.name = k.name";
    assert_eq!(ask(&client, by_name).await, "7");
    postgres.execute("UPDATE heard SET name = 'moved' WHERE id = 7").await;
    until(&client, by_name, "").await;
    postgres.execute("UPDATE heard SET name = 'n7' WHERE id = 8").await;
    until(&client, by_name, "8").await;
    // By hand, without a word of what has changed.
    postgres.execute("ALTER TABLE heard DISABLE TRIGGER ALL; UPDATE heard SET name = 'by hand' WHERE id = 1").await;
    assert_eq!(find(&client, "1").await, "n1");
    postgres.execute("NOTIFY heard_changed").await;
    until(&client, &by_id("1"), "by hand").await;
}

#[tokio::test]
async fn keys_of_every_type_name_what_has_changed() {
    let postgres = PostgresServer::shared();
    let keys = [
        ("smallint", "'-7'"),
        ("integer", "'2147483647'"),
        ("numeric(30,10)", "'12345678901234567890.0123456789'"),
        ("double precision", "'0.1'"),
        ("boolean", "'t'"),
        ("text", "E'it''s \"x\" \\\\ \\n {} Ω'"),
        ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
        ("bytea", "'\\x00ff27'"),
        ("date", "'2024-02-29'"),
        ("timestamp", "'2024-02-29 12:34:56.789012'"),
        ("timestamptz", "'2024-02-29 12:34:56.789012+05'"),
        ("time", "'12:34:56.789012'"),
    ];
    let columns = keys.iter().enumerate().map(|(i, (key_type, _))| format!("k{i} {key_type}"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let names = (0..keys.len()).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ");
    let values = keys.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(", ");
    postgres
        .execute(&format!(
            "CREATE TABLE heard_types ({columns}, id bigint, name text, PRIMARY KEY ({names}, id));
             INSERT INTO heard_types VALUES ({values}, 1, 'old'), ({values}, 2, 'other')"
        ))
        .await;
    let (_server, client) = start(postgres, "heard_types").await;
    let condition = (0..keys.len()).map(|i| format!("c.k{i} = s.k{i}")).collect::<Vec<_>>().join(" AND ");
    let cast = keys.iter().enumerate().map(|(i, (key_type, value))| format!("CAST({value} AS {key_type}) AS k{i}"));
    let cast = cast.collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT c.name FROM (SELECT {cast}, i.id FROM (VALUES (1), (2)) AS i (id)) AS s \
         LEFT LOOKUP JOIN customers AS c ON {condition} AND c.id = s.id"
    );
    assert_eq!(ask(&client, &sql).await, "old,other");
    let asked = ask(&client, "SELECT keys FROM lookaside.lookups").await.parse::<u64>().unwrap();
    postgres.execute("UPDATE heard_types SET name = 'new' WHERE id = 1").await;
    until(&client, &sql, "new,other").await;
    let keys = ask(&client, "SELECT keys FROM lookaside.lookups").await.parse::<u64>().unwrap();
    assert_eq!(keys - asked, 1, "the other row was still cached");
}

#[tokio::test]
async fn a_broken_connection_empties_the_cache_and_is_made_again() {
    let postgres = PostgresServer::start();
    postgres
        .execute("CREATE TABLE heard (id bigint PRIMARY KEY, name text); INSERT INTO heard VALUES (1, 'Ann')")
        .await;
    let (_server, client) = start(&postgres, "heard").await;
    assert_eq!(find(&client, "1").await, "Ann");
    for round in 0..3 {
        // Nobody is told of this change.
        let name = format!("unheard {round}");
        let unheard = format!(
            "ALTER TABLE heard DISABLE TRIGGER ALL; UPDATE heard SET name = '{name}'; ALTER TABLE heard ENABLE TRIGGER ALL"
        );
        postgres.execute(&unheard).await;
        match round {
            0 => postgres.execute(KILL_LISTENERS).await,
            _ => {
                postgres.stop();
                postgres.start_again();
            }
        }
        until(&client, &by_id("1"), &name).await;
        until_it_listens(&client).await;
        let heard = format!("heard {round}");
        postgres.execute(&format!("UPDATE heard SET name = '{heard}'")).await;
        until(&client, &by_id("1"), &heard).await;
    }
}

/// Ends whatever listens.
pub const KILL_LISTENERS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %' OR query = ''";

#[tokio::test]
async fn a_server_that_says_nothing_any_more_is_not_trusted() {
    let postgres = PostgresServer::start();
    postgres
        .execute("CREATE TABLE heard (id bigint PRIMARY KEY, name text); INSERT INTO heard VALUES (1, 'Ann')")
        .await;
    let (_server, client) = start(&postgres, "heard").await;
    postgres.freeze();
    let frozen = tokio::time::timeout(DEADLINE, async {
        while ask(&client, "SELECT hears_since IS NULL FROM lookaside.lookups").await != "t" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let noticed = frozen.await;
    postgres.thaw();
    assert!(noticed.is_ok(), "a frozen server is noticed");
    until_it_listens(&client).await;
    assert_eq!(find(&client, "1").await, "Ann");
}

#[tokio::test]
async fn a_table_that_cannot_tell_is_refused_with_what_to_do_instead() {
    let postgres = PostgresServer::shared();
    postgres
        .execute("CREATE TABLE heard_base (id bigint, name text); CREATE VIEW heard_view AS SELECT * FROM heard_base")
        .await;
    let trigger = async |catalog: &str, lookup: &str| {
        let (_folder, file) = catalog_file(catalog);
        let mut command = lookaside();
        command.arg("trigger").arg(&file).arg(lookup);
        let finished = run(command).await;
        (finished.status.code(), finished.stdout, finished.stderr)
    };
    let view = catalog(postgres, "heard_view");
    let (code, _, error) = trigger(&view, "customers").await;
    assert_eq!(code, Some(1));
    assert!(error.contains("is not a table") && error.contains("NOTIFY \"heard_view_changed\""), "{error}");
    let (code, _, error) = trigger(&view, "nobody").await;
    assert!(code == Some(1) && error.contains("lookup table \"nobody\" does not exist"), "{error}");
    let silent = view.replace("listen", "# listen");
    let (code, _, error) = trigger(&silent, "customers").await;
    assert!(code == Some(1) && error.contains("listen = "), "{error}");
    // Without a primary key all is emptied.
    let (code, sql, _) = trigger(&catalog(postgres, "heard_base"), "customers").await;
    assert!(code == Some(0) && sql.contains("FOR EACH STATEMENT") && !sql.contains("FOR EACH ROW"), "{sql}");
    let (_server, client) = start(postgres, "heard_base").await;
    let sql = "SELECT count(c.id) FROM (VALUES (5)) AS k (id) LEFT LOOKUP JOIN customers AS c ON c.id = k.id";
    assert_eq!(ask(&client, sql).await, "0");
    postgres.execute("INSERT INTO heard_base VALUES (5)").await;
    until(&client, sql, "1").await;
}
