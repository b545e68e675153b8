//! The server under test, in this process, on a free port.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use lookaside::catalog::{Catalog, file};
use lookaside::engine::Engine;
use lookaside::server::Server;
use lookaside::server::http::HttpServer;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

/// A server that runs while this lives.
pub struct Lookaside {
    pub engine: Arc<Engine>,
    pub port: u16,
    /// Of metrics and health.
    pub http_port: u16,
    stop: CancellationToken,
    serving: Option<SpawnedTask<()>>,
}

impl Lookaside {
    /// Serves a catalog given as text; relative paths in it start at the project's folder.
    pub async fn start(catalog: &str) -> Lookaside {
        Self::serve(engine(catalog)).await
    }

    pub async fn serve(engine: Arc<Engine>) -> Lookaside {
        let server = Server::bind(Arc::clone(&engine), "127.0.0.1:0").await.unwrap();
        let port = server.local_address().unwrap().port();
        let http = HttpServer::bind(&server, "127.0.0.1:0").await.unwrap();
        let http_port = http.local_address().unwrap().port();
        let stop = CancellationToken::new();
        let (stop_server, stop_http) = (stop.clone(), stop.clone());
        let serving = Some(SpawnedTask::spawn(async move {
            tokio::join!(server.run(stop_server), http.run(stop_http));
        }));
        Lookaside { engine, port, http_port, stop, serving }
    }

    /// A client of the server.
    pub async fn connect(&self) -> Client {
        self.connect_as("tests").await
    }

    /// A client that gives itself this application_name.
    pub async fn connect_as(&self, application_name: &str) -> Client {
        connect_to(self.port, application_name).await
    }

    /// Stops as SIGTERM does, and waits for the end.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(serving) = self.serving.take() {
            serving.join().await.unwrap();
        }
    }
}

/// A client of whatever serves at this port.
pub async fn connect_to(port: u16, application_name: &str) -> Client {
    let config = format!("host=127.0.0.1 port={port} user=tests application_name={application_name}");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    // It ends with the client or with the server.
    SpawnedTask::spawn(async move {
        let _ = connection.await;
    })
    .detach_for_tests();
    client
}

/// An engine over a catalog given as text.
pub fn engine(catalog: &str) -> Arc<Engine> {
    let path = project().join("test-catalog.toml");
    let definition = file::read_text(&[(path, catalog.to_string())], &|_| None).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    });
    Engine::new(Catalog::open(definition).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }))
}

/// The project's folder.
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

trait Detach {
    fn detach_for_tests(self);
}

impl Detach for SpawnedTask<()> {
    fn detach_for_tests(self) {
        std::mem::forget(self);
    }
}
