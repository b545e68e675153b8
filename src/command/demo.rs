//! `lookaside demo`: the embedded catalog, served, with its query at work.

use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use futures::{StreamExt, pin_mut};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;

use crate::catalog::demo;
use crate::command::stop::stop_signal;
use crate::command::{open_engine, print_problems, show_error};
use crate::error::Error;
use crate::server::Server;

/// How long the server may take to stop once the demo has ended.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Serves the demo, and prints the rows of its query until Ctrl-C. Exit code 0 after that.
pub async fn run(listen: &str) -> u8 {
    let engine = match demo::read_demo().and_then(open_engine) {
        Ok(engine) => engine,
        Err(problems) => {
            print_problems(&problems);
            return 1;
        }
    };
    let server = match Server::bind(Arc::clone(&engine), listen).await {
        Ok(server) => server,
        Err(error) => {
            eprintln!("{}", show_error("lookaside", &error));
            return 1;
        }
    };
    let address = match server.local_address() {
        Ok(address) => address,
        Err(error) => {
            eprintln!("{}", show_error("lookaside", &error));
            return 1;
        }
    };
    let stop = CancellationToken::new();
    let serving = SpawnedTask::spawn(server.run(stop.clone()));
    let query = demo::QUERY.trim().trim_end_matches(';');
    println!("The demo is served. In another terminal:\n");
    println!("    psql -h {} -p {} -U demo demo\n", address.ip(), address.port());
    println!("This is what the query of the demo answers (Ctrl-C ends it):\n\n{query}\n");
    let shown = tokio::select! {
        shown = show_rows(address, query) => shown,
        () = stop_signal() => Ok(()),
    };
    stop.cancel();
    let _ = tokio::time::timeout(STOP_TIMEOUT, serving.join()).await;
    match shown {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{}", show_error("ERROR", &error));
            1
        }
    }
}

/// Reads the query's rows from the demo's own server as any client would, and prints them until stdout is closed.
async fn show_rows(address: std::net::SocketAddr, query: &str) -> Result<(), Error> {
    let failed = |error: tokio_postgres::Error| Error::internal(format!("the demo's own client failed: {error}"));
    let config = format!("host={} port={} user=demo dbname=demo application_name=demo", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.map_err(failed)?;
    let _connection = SpawnedTask::spawn(async move {
        // What ends the connection ends the query, which tells it.
        let _ = connection.await;
    });
    let rows = client.simple_query_raw(query).await.map_err(failed)?;
    pin_mut!(rows);
    while let Some(message) = rows.next().await {
        let line = match message.map_err(failed)? {
            SimpleQueryMessage::RowDescription(columns) => {
                columns.iter().map(|column| format!("{:<14}", column.name())).collect::<Vec<_>>()
            }
            SimpleQueryMessage::Row(row) => {
                (0..row.len()).map(|column| format!("{:<14}", row.get(column).unwrap_or(""))).collect()
            }
            _ => continue,
        };
        use std::io::Write;
        if writeln!(std::io::stdout(), "{}", line.join("  ").trim_end()).is_err() {
            return Ok(());
        }
    }
    Ok(())
}
