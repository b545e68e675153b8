//! `lookaside serve`: the server.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, Lookup, Relation};
use crate::command::stop::stop_signal;
use crate::command::{open_engine, print_problems, read_catalogs, run_sql_file, show_error};
use crate::engine::Engine;
use crate::error::Result;
use crate::server::Server;
use crate::server::http::HttpServer;

/// Where to listen when neither the command line nor the catalog says.
const DEFAULT_LISTEN: &str = "127.0.0.1:7432";
/// How often a store that is down at the start is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Serves until a signal to stop. Exit code 0 after that, 1 when it cannot start.
pub async fn run(catalogs: &[PathBuf], listen: Option<String>, http: Option<String>, sql: &[PathBuf]) -> u8 {
    let definition = match read_catalogs(catalogs) {
        Ok(definition) => definition,
        Err(problems) => {
            print_problems(&problems);
            return 1;
        }
    };
    let declared = definition.server.listen.as_ref().map(|listen| listen.address.clone());
    let listen = listen.or(declared).unwrap_or_else(|| DEFAULT_LISTEN.to_string());
    let engine = match open_engine(definition) {
        Ok(engine) => engine,
        Err(problems) => {
            print_problems(&problems);
            return 1;
        }
    };
    for path in sql {
        if let Err(error) = run_sql_file(&engine, path).await {
            eprintln!("{}", show_error("lookaside", &error));
            return 1;
        }
    }
    for problem in engine.catalog().idle_grants() {
        tracing::warn!("{problem}");
    }
    let (server, http) = match bind(&engine, &listen, http.as_deref()).await {
        Ok(bound) => bound,
        Err(error) => {
            eprintln!("{}", show_error("lookaside", &error));
            return 1;
        }
    };
    let stores = connect_stores(engine.catalog());
    let code = announce_and_run(server, http).await;
    drop(stores);
    code
}

async fn bind(engine: &Arc<Engine>, listen: &str, http: Option<&str>) -> Result<(Server, Option<HttpServer>)> {
    let server = Server::bind(Arc::clone(engine), listen).await?;
    let http = match http {
        Some(http) => Some(HttpServer::bind(&server, http).await?),
        None => None,
    };
    Ok((server, http))
}

/// Tells where the server listens, as the first line on stdout, and serves until a signal to stop.
async fn announce_and_run(server: Server, http: Option<HttpServer>) -> u8 {
    if let Err(error) = announce(&server, http.as_ref()) {
        eprintln!("{}", show_error("lookaside", &error));
        return 1;
    }
    let stop = CancellationToken::new();
    let serving = async {
        let answering = async {
            if let Some(http) = http {
                http.run(stop.clone()).await;
            }
        };
        tokio::join!(server.run(stop.clone()), answering);
    };
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = stop_signal() => {
            tracing::info!("stopping");
            stop.cancel();
            serving.await;
        }
    }
    0
}

fn announce(server: &Server, http: Option<&HttpServer>) -> Result<()> {
    let mut lines = format!("listening on {}\n", server.local_address()?);
    if let Some(http) = http {
        lines.push_str(&format!("http on {}\n", http.local_address()?));
    }
    let mut stdout = std::io::stdout();
    // A closed stdout is no reason not to serve.
    let _ = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
    Ok(())
}

/// Connects every lookup table ahead of the first query, and keeps trying those whose store is down.
fn connect_stores(catalog: &Arc<Catalog>) -> Vec<SpawnedTask<()>> {
    let lookups = catalog.relations().filter_map(|(name, relation)| match relation {
        Relation::Lookup(lookup) => Some((name.to_string(), Arc::clone(lookup))),
        Relation::Stream(_) => None,
    });
    lookups.map(|(name, lookup)| SpawnedTask::spawn(connect(name, lookup))).collect()
}

async fn connect(name: String, lookup: Arc<Lookup>) {
    let mut told = false;
    loop {
        match lookup.table().await {
            Ok(_) => {
                tracing::info!(lookup = name, "lookup table is ready");
                return;
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(lookup = name, %error, "lookup table is not available, and is tried again every 5 s");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
