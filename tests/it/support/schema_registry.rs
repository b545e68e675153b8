//! A registry of schemas for tests, which answers as Confluent's does.

use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::http_service::{Asked, HttpService, Told};

/// A registry that runs while this lives.
pub struct SchemaRegistry {
    port: u16,
    schemas: Arc<Mutex<Vec<Registered>>>,
    /// `None` while it is stopped.
    service: Option<HttpService>,
}

struct Registered {
    subject: String,
    schema: String,
}

impl SchemaRegistry {
    pub async fn start() -> SchemaRegistry {
        let schemas = Arc::default();
        let service = serve(0, Arc::clone(&schemas)).await;
        SchemaRegistry { port: service.port, schemas, service: Some(service) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A new version of a subject's schema, and the id that it gets: 1, 2, …
    pub fn register(&self, subject: &str, schema: &str) -> u32 {
        let mut schemas = self.schemas.lock().unwrap();
        schemas.push(Registered { subject: subject.to_string(), schema: schema.to_string() });
        schemas.len() as u32
    }

    /// What was asked since the last call, as in `/schemas/ids/1`; nothing while it is stopped.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.service.as_ref().map(HttpService::asked).unwrap_or_default();
        asked.into_iter().map(|asked| asked.target).collect()
    }

    /// Closes its connections and refuses new ones.
    pub fn stop(&mut self) {
        self.service = None;
    }

    /// Starts again what was stopped, on the same port; it has forgotten nothing.
    pub async fn start_again(&mut self) {
        self.service = Some(serve(self.port, Arc::clone(&self.schemas)).await);
    }
}

async fn serve(port: u16, schemas: Arc<Mutex<Vec<Registered>>>) -> HttpService {
    HttpService::start_at(port, None, move |asked| answer(&schemas.lock().unwrap(), asked)).await
}

fn answer(schemas: &[Registered], asked: &Asked) -> Told {
    let path = asked.target.split('?').next().unwrap_or_default();
    match path.split('/').skip(1).collect::<Vec<_>>()[..] {
        ["schemas", "ids", id] => {
            let place = id.parse::<usize>().unwrap().wrapping_sub(1);
            schemas.get(place).map_or_else(
                || missing(40403, &format!("Schema {id} not found")),
                |registered| Told::json(json!({"schema": registered.schema}).to_string()),
            )
        }
        ["subjects", subject, "versions", "latest"] => {
            let versions = schemas.iter().zip(1..).filter(|(registered, _)| registered.subject == subject);
            let versions = versions.collect::<Vec<_>>();
            versions.last().map_or_else(
                || missing(40401, &format!("Subject '{subject}' not found.")),
                |(registered, id)| {
                    let (version, schema) = (versions.len(), &registered.schema);
                    let body = json!({"subject": subject, "version": version, "id": id, "schema": schema});
                    Told::json(body.to_string())
                },
            )
        }
        _ => missing(404, "HTTP 404 Not Found"),
    }
}

fn missing(code: u32, message: &str) -> Told {
    Told { status: 404, ..Told::json(json!({"error_code": code, "message": message}).to_string()) }
}
