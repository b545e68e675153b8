//! The PostgreSQL store against a PostgreSQL.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use lookaside::store::contract;
use lookaside::store::postgres::{PostgresConfig, PostgresConnection, PostgresStore, PostgresTable, SslMode};
use lookaside::store::{Store, StoreError};

use crate::support::postgres::PostgresServer;

#[derive(Clone, Copy)]
struct Options {
    max_connections: usize,
    prepare: bool,
}

const OPTIONS: Options = Options { max_connections: 4, prepare: true };

fn connection(server: &PostgresServer, options: Options) -> Arc<PostgresConnection> {
    let config = PostgresConfig {
        config: server.url().parse().unwrap(),
        sslmode: SslMode::Disable,
        sslrootcert: None,
        max_connections: options.max_connections,
        prepare: options.prepare,
    };
    PostgresConnection::try_new("shop".to_string(), config).unwrap()
}

fn table(name: &str) -> PostgresTable {
    PostgresTable { table: name.to_string(), columns: None, types: Vec::new() }
}

async fn store(server: &PostgresServer, name: &str) -> PostgresStore {
    PostgresStore::connect(connection(server, OPTIONS), table(name)).await.unwrap()
}

/// The statement that inserts `rows`, each value as a quoted text.
fn insert(name: &str, rows: &RecordBatch) -> String {
    let options = FormatOptions::default();
    let columns =
        rows.columns().iter().map(|column| (column, ArrayFormatter::try_new(column.as_ref(), &options).unwrap()));
    let columns = columns.collect::<Vec<_>>();
    let value = |row: usize| {
        let values = columns.iter().map(|(column, formatter)| match column.is_null(row) {
            true => "NULL".to_string(),
            false => format!("'{}'", formatter.value(row).to_string().replace('\'', "''")),
        });
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    format!("INSERT INTO {name} VALUES {}", (0..rows.num_rows()).map(value).collect::<Vec<_>>().join(",\n"))
}

#[tokio::test]
async fn contract_holds_prepared_and_not_with_an_index_and_without() {
    let server = PostgresServer::shared();
    let columns = "id bigint, region text, name text, note text";
    server.execute(&format!("CREATE TABLE contract ({columns}); CREATE TABLE contract_indexed ({columns}); CREATE INDEX ON contract_indexed (id, region)")).await;
    let rows = contract::table().unwrap();
    server.execute(&insert("contract", &rows)).await;
    server.execute(&insert("contract_indexed", &rows)).await;
    for prepare in [true, false] {
        for name in ["contract", "contract_indexed"] {
            let connection = connection(server, Options { prepare, ..OPTIONS });
            let store = PostgresStore::connect(connection, table(name)).await.unwrap();
            contract::check(&store, contract::RowOrder::Any).await.unwrap();
        }
    }
}
