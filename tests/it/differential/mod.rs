//! Lookup joins against PostgreSQL's ordinary joins of the same random rows: the same bag of rows in each ordering, at
//! each batch size, cached, held whole, and not; and in order of arrival where that is asked for.
//!
//! Reads of the lookup tables outside of lookup joins are compared as well. Each kind of store ([`Kind`]) holds the same
//! tables as PostgreSQL, which is the judge of all of them.
//!
//! Both systems get the same text, where `LOOKUP JOIN` is what PostgreSQL calls `JOIN`. `joins.rs` has the joins,
//! `data.rs` makes the rows from a seed: `LOOKASIDE_SEED=7 cargo test --test it differential` takes another one.

mod data;
mod joins;

use std::sync::Arc;

use lookaside::catalog::Relation;
use lookaside::lookup::table::LookupCounters;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::lookaside::Lookaside;
use crate::support::mariadb::MariadbServer;
use crate::support::postgres::PostgresServer;
use data::Data;

type Row = Vec<Option<String>>;

const DEFAULT_SEED: u64 = 20_240_229;

/// The lookup tables of the catalog: the same tables of the store, cached, held whole, and not.
const TABLES: [&str; 2] = ["people", "places"];

const SQLITE_FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/differential.db");

/// One way to run all joins.
#[derive(Clone, Copy, Debug)]
struct Way {
    ordering: &'static str,
    batch_size: usize,
}

/// A query with what PostgreSQL says of it.
struct Case {
    sql: String,
    expected: Vec<Row>,
    /// Whether it joins the stream: then its first column is the order of arrival.
    is_join: bool,
}

/// A store that holds the lookup tables.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Postgres,
    Mysql,
    Sqlite,
}

impl Kind {
    /// PostgreSQL's schema with the tables of this store.
    fn schema(self) -> &'static str {
        match self {
            Kind::Postgres => "differential",
            Kind::Mysql => "differential_mysql",
            Kind::Sqlite => "differential_sqlite",
        }
    }

    fn data(self, seed: u64) -> Data {
        match self {
            Kind::Postgres => Data::new(seed),
            Kind::Mysql | Kind::Sqlite => Data::new(seed).with_finite_tables(),
        }
    }

    /// Puts the tables into the store, where PostgreSQL is not the store itself.
    async fn load(self, data: &Data) {
        match self {
            Kind::Postgres => {}
            Kind::Mysql => {
                let mariadb = MariadbServer::shared();
                mariadb
                    .execute(&["CREATE DATABASE differential CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"])
                    .await;
                let statements = data.mariadb();
                let statements = ["USE differential"].into_iter().chain(statements.iter().map(String::as_str));
                mariadb.execute(&statements.collect::<Vec<_>>()).await;
            }
            Kind::Sqlite => {
                // As PostgreSQL writes the values.
                let set = format!("SET search_path = {}; SET TimeZone = 'UTC'", self.schema());
                let _ = std::fs::remove_file(SQLITE_FILE);
                let database = rusqlite::Connection::open(SQLITE_FILE).unwrap();
                for name in TABLES {
                    let rows = PostgresServer::shared().query(&format!("{set}; SELECT * FROM {name}")).await;
                    database.execute_batch(&data.sqlite(name, &rows)).unwrap();
                }
            }
        }
    }

    /// The lines of the connection to the store.
    fn connection(self) -> String {
        let (of, key, place) = match self {
            Kind::Postgres => ("postgres", "url", PostgresServer::shared().url()),
            Kind::Mysql => ("mysql", "url", MariadbServer::shared().url()),
            Kind::Sqlite => ("sqlite", "path", SQLITE_FILE.to_string()),
        };
        format!("[connection.store]\ntype = \"{of}\"\n{key} = \"{place}\"\nmax_connections = 4\n")
    }

    /// The lines that say where one of [`TABLES`] is.
    fn table(self, name: &str) -> String {
        let from = format!("connection = \"store\"\ntable = \"differential.{name}\"\n");
        match (self, name) {
            (Kind::Sqlite, _) => from.replace("differential.", ""),
            (Kind::Mysql, "people") => format!("{from}types = {{ at = \"timestamptz\" }}\n"),
            (_, _) => from,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_joins_give_the_rows_of_postgresql_joins() {
    let sizes = [1, 7, 1000];
    let ways =
        ["ordered", "unordered"].into_iter().flat_map(|ordering| sizes.map(|batch_size| Way { ordering, batch_size }));
    compare(Kind::Postgres, &ways.collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_joins_over_mariadb_give_the_rows_of_postgresql_joins() {
    let ways = [Way { ordering: "ordered", batch_size: 1000 }, Way { ordering: "unordered", batch_size: 7 }];
    compare(Kind::Mysql, &ways).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookup_joins_over_sqlite_give_the_rows_of_postgresql_joins() {
    let ways = [Way { ordering: "ordered", batch_size: 1000 }, Way { ordering: "unordered", batch_size: 7 }];
    compare(Kind::Sqlite, &ways).await;
}

/// Runs all joins in each of these ways, with their tables in a store of this kind.
async fn compare(kind: Kind, ways: &[Way]) {
    let seed = std::env::var("LOOKASIDE_SEED").map_or(DEFAULT_SEED, |seed| seed.parse().unwrap());
    let data = Arc::new(kind.data(seed));
    let server = PostgresServer::shared();
    server.execute(&data.postgres(kind.schema())).await;
    kind.load(&data).await;
    let cases = Arc::new(cases(server, kind.schema()).await);
    let barren: Vec<&str> =
        cases.iter().filter(|case| case.expected.is_empty()).map(|case| case.sql.as_str()).collect();
    // Another seed may leave a join or two without rows; if it were many, the data would be of no use.
    assert!(barren.len() * 20 < cases.len(), "seed {seed}: no rows to compare in {barren:#?}");

    let mut running = JoinSet::new();
    for way in ways {
        running.spawn(check(kind, *way, Arc::clone(&data), Arc::clone(&cases)));
    }
    let differences = running.join_all().await.concat();
    assert!(differences.is_empty(), "seed {seed}: {} differences\n{}", differences.len(), differences.join("\n"));
}

/// All joins with PostgreSQL's rows.
async fn cases(server: &PostgresServer, schema: &str) -> Vec<Case> {
    let join =
        |kind, condition: &str| format!("SELECT o.n, p.id, p.code FROM orders AS o {kind} people AS p ON {condition}");
    let inner = joins::KEYS.iter().map(|condition| join("LOOKUP JOIN", condition));
    let left = joins::KEYS.iter().chain(joins::CONDITIONS).map(|condition| join("LEFT LOOKUP JOIN", condition));
    let whole = joins::QUERIES.iter().map(ToString::to_string);
    let joins = inner.chain(left).chain(whole).map(|sql| (sql, true));
    let reads = joins::READS.iter().map(|sql| (sql.to_string(), false));
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    let asking = async {
        let settings = format!("SET search_path = {schema}; SET TimeZone = 'UTC'");
        client.batch_execute(&settings).await.unwrap();
        let mut cases = vec![];
        for (sql, is_join) in joins.chain(reads) {
            let expected = rows(&client, &sql.replace("LOOKUP JOIN", "JOIN")).await;
            let expected = sorted(expected.unwrap_or_else(|error| panic!("{error} in {sql}")));
            cases.push(Case { sql, expected, is_join });
        }
        cases
    };
    tokio::select! {
        cases = asking => cases,
        end = connection => panic!("PostgreSQL hung up: {end:?}"),
    }
}

/// Runs all joins in one way on a server of their own, whose cache is empty at first.
async fn check(kind: Kind, way: Way, data: Arc<Data>, cases: Arc<Vec<Case>>) -> Vec<String> {
    let lookaside = Lookaside::start(&catalog(kind)).await;
    let client = lookaside.connect().await;
    for statement in data.lookaside() {
        rows(&client, &statement).await.unwrap_or_else(|error| panic!("{error} in {statement}"));
    }
    let mut differences = vec![];
    for case in cases.iter() {
        // The second time the cache answers.
        for suffix in ["", "_cached", "_cached", "_full"] {
            let sql = spell(&case.sql, suffix, way);
            let difference = match rows(&client, &sql).await {
                Ok(rows) => difference(way.ordering == "ordered" && case.is_join, rows, &case.expected),
                Err(error) => Some(error),
            };
            differences.extend(difference.map(|difference| format!("{sql}\n    {difference}")));
        }
    }
    let (uncached, cached) = (counters(&lookaside, "").await, counters(&lookaside, "_cached").await);
    assert_eq!(uncached.hits, 0, "{way:?}: {uncached:?}");
    assert!(cached.hits > cached.rows / 2 && cached.misses > 0, "{way:?}: {cached:?}");
    drop(client);
    lookaside.stop().await;
    differences
}

/// The join with the lookup tables of this suffix and with the options of this way.
fn spell(sql: &str, suffix: &str, way: Way) -> String {
    let Way { ordering, batch_size } = way;
    let mut spelled = sql.to_string();
    for table in TABLES {
        for alias in ["p", "q", "r"] {
            let options = format!("WITH (ordering = '{ordering}', batch_size = {batch_size})");
            spelled = spelled.replace(
                &format!("LOOKUP JOIN {table} AS {alias} "),
                &format!("LOOKUP JOIN {table}{suffix} AS {alias} {options} "),
            );
            for word in ["FROM", " JOIN"] {
                let (read, renamed) =
                    (format!("{word} {table} AS {alias}"), format!("{word} {table}{suffix} AS {alias}"));
                spelled = spelled.replace(&read, &renamed);
            }
        }
    }
    spelled
}

/// What is wrong with the rows, if anything is.
fn difference(in_order: bool, rows: Vec<Row>, expected: &[Row]) -> Option<String> {
    if in_order {
        let arrivals: Vec<i64> = rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
        if !arrivals.is_sorted() {
            return Some(format!("out of order: {arrivals:?}"));
        }
    }
    let rows = sorted(rows);
    if rows == expected {
        return None;
    }
    let first =
        |these: &[Row], others: &[Row]| these.iter().find(|row| count(row, these) > count(row, others)).cloned();
    Some(format!(
        "{} rows instead of {}; too many: {:?}; missing: {:?}",
        rows.len(),
        expected.len(),
        first(&rows, expected),
        first(expected, &rows)
    ))
}

fn count(wanted: &Row, rows: &[Row]) -> usize {
    rows.iter().filter(|row| *row == wanted).count()
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

/// The rows that a server of either kind sends, as text.
async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    })?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(String::from)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

/// What happened at both tables of this suffix together.
async fn counters(lookaside: &Lookaside, suffix: &str) -> LookupCounters {
    let mut sum = LookupCounters::default();
    for (name, relation) in lookaside.engine.catalog().relations() {
        if let Relation::Lookup(lookup) = relation
            && TABLES.iter().any(|table| format!("{table}{suffix}") == name)
        {
            let counters = lookup.table().await.unwrap().counters();
            sum.rows += counters.rows;
            sum.hits += counters.hits;
            sum.misses += counters.misses;
        }
    }
    sum
}

fn catalog(kind: Kind) -> String {
    let mut text = kind.connection();
    text.push_str("[stream.arriving]\ntype = \"push\"\n[stream.arriving.columns]\n");
    for (name, pg_type) in data::ORDERS {
        // A column of a stream has no length.
        let pg_type = if pg_type.starts_with("varchar") { "text" } else { pg_type };
        text.push_str(&format!("{name} = \"{pg_type}\"\n"));
    }
    for table in TABLES {
        let from = kind.table(table);
        text.push_str(&format!("[lookup.{table}]\n{from}"));
        text.push_str(&format!("[lookup.{table}_cached]\n{from}cache = {{ mode = \"partial\" }}\n"));
        text.push_str(&format!("[lookup.{table}_full]\n{from}cache = {{ mode = \"full\" }}\n"));
    }
    text
}
