//! Lookup joins over MariaDB, from the catalog file to the client's rows.

use std::path::PathBuf;

use futures::{StreamExt, pin_mut};
use lookaside::catalog::{Catalog, file};
use lookaside::engine::Engine;
use tokio_postgres::SimpleQueryMessage;

use crate::support::lookaside::{Lookaside, project};
use crate::support::mariadb::MariadbServer;
use crate::support::process::{catalog_file, lookaside, run};
use crate::support::raw::DEADLINE;

#[tokio::test]
async fn example_query_runs_over_the_example_catalog() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE DATABASE erp CHARACTER SET utf8mb4",
            "CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'p@ss:/word'",
            "GRANT SELECT ON erp.* TO reader@'127.0.0.1'",
            "USE erp",
            "CREATE TABLE customers (id bigint PRIMARY KEY, name varchar(100), tier varchar(20), active boolean)",
            "INSERT INTO customers VALUES (7, 'Ann', 'gold', 1), (8, 'Bob', NULL, 0)",
        ])
        .await;
    let path = project().join("catalogs/mysql.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let variable = |name: &str| match name {
        "ERP_PORT" => Some(server.port().to_string()),
        "ERP_PASSWORD" => Some("p%40ss%3A%2Fword".to_string()),
        _ => None,
    };
    let definition = file::read_text(&[(path, text)], &variable).unwrap_or_else(|problems| panic!("{problems:?}"));
    let catalog = Catalog::open(definition).unwrap_or_else(|problems| panic!("{problems:?}"));
    let lookaside = Lookaside::serve(Engine::new(catalog)).await;
    let (reader, writer) = (lookaside.connect().await, lookaside.connect().await);
    let sql = std::fs::read_to_string(project().join("sql/mysql.sql")).unwrap();
    let rows = reader.query_raw(&sql, Vec::<i64>::new()).await.unwrap();
    pin_mut!(rows);
    let insert = "INSERT INTO orders VALUES (1, 7, 12.50, now()), (2, 8, 1, now()), (3, 9, 2, now())";
    writer.simple_query(insert).await.unwrap();
    let mut seen = vec![];
    while seen.len() < 3 {
        let row = tokio::time::timeout(DEADLINE, rows.next()).await.expect("a row in time").unwrap().unwrap();
        let text = |column| row.get::<_, Option<String>>(column).unwrap_or_else(|| "NULL".to_string());
        seen.push(format!("{} {} {}", row.get::<_, i64>(0), text(2), text(3)));
    }
    assert_eq!(seen, ["1 Ann gold", "2 NULL NULL", "3 NULL NULL"]);
}

/// The rows of the last statement as text, or the error's SQLSTATE and message.
async fn ask(client: &tokio_postgres::Client, sql: &str) -> Result<Vec<String>, String> {
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

#[tokio::test]
async fn keys_that_fold_find_their_rows_in_each_mode_that_allows_them() {
    let server = MariadbServer::shared();
    server
        .execute(&[
            "CREATE TABLE folded (id int PRIMARY KEY, name varchar(20) COLLATE utf8mb4_unicode_ci, KEY (name))",
            "INSERT INTO folded VALUES (1, 'Ann'), (2, 'Bob'), (3, 'ann')",
        ])
        .await;
    let mut catalog = format!("[connection.erp]\ntype = \"mysql\"\nurl = \"{}\"\n", server.url());
    for mode in ["none", "partial", "full"] {
        let cache = format!("cache = {{ mode = \"{mode}\" }}");
        catalog.push_str(&format!("[lookup.folded_{mode}]\nconnection = \"erp\"\ntable = \"folded\"\n{cache}\n"));
    }
    let lookaside = Lookaside::start(&catalog).await;
    let client = lookaside.connect().await;
    let join = |mode: &str, on: &str| {
        format!(
            "SELECT k.n, f.id FROM (VALUES (1, 'ANN'), (2, 'Ánn'), (3, 'bob '), (4, 'Carl')) AS k (n, name) \
             LEFT LOOKUP JOIN folded_{mode} AS f ON {on}"
        )
    };
    for mode in ["none", "partial", "partial"] {
        let mut rows = ask(&client, &join(mode, "f.name = k.name")).await.unwrap();
        rows.sort();
        assert_eq!(rows, ["1|1", "1|3", "2|1", "2|3", "3|2", "4|NULL"], "{mode}");
        // Sent to the store or not, a condition means what it means in PostgreSQL.
        let rows = ask(&client, &join(mode, "f.name = k.name AND f.name <> 'ann'")).await.unwrap();
        assert_eq!(rows, ["1|1", "2|1", "3|2", "4|NULL"], "{mode}");
    }
    assert_eq!(ask(&client, &join("full", "f.id = k.n")).await.unwrap(), ["1|1", "2|2", "3|3", "4|NULL"]);
    let refused = ask(&client, &join("full", "f.name = k.name")).await.unwrap_err();
    assert!(refused.starts_with("0A000 ") && refused.contains("utf8mb4_unicode_ci"), "{refused}");
    assert_eq!(ask(&client, "SELECT id FROM folded_none WHERE name = 'Bob'").await.unwrap(), ["2"]);
    assert_eq!(ask(&client, "SELECT count(*) FROM folded_none").await.unwrap(), ["3"]);
}

#[tokio::test]
async fn check_tells_of_the_table_and_its_indexes() {
    let server = MariadbServer::shared();
    server.execute(&["CREATE TABLE checked (id bigint PRIMARY KEY, name text)"]).await;
    let text = format!(
        "[connection.erp]\ntype = \"mysql\"\nurl = \"{}\"\n[lookup.checked]\nconnection = \"erp\"\ntable = \"checked\"\n",
        server.url()
    );
    let check = async |path: PathBuf| {
        let mut command = lookaside();
        command.arg("check").arg(path);
        run(command).await
    };
    let (_folder, path) = catalog_file(&text);
    let finished = check(path).await;
    assert!(finished.status.success(), "{}", finished.stderr);
    assert!(finished.stdout.contains("lookup checked: table checked of connection \"erp\""), "{}", finished.stdout);
    assert!(finished.stdout.contains("lookups by id use an index"), "{}", finished.stdout);
    let (_folder, path) = catalog_file(&text.replace("\"checked\"\n", "\"unchecked\"\n"));
    let finished = check(path).await;
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("table \"unchecked\" does not exist in the store"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("not-a-secret"), "{}", finished.stderr);
}
