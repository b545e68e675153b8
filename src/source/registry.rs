//! Schemas from a registry that speaks Confluent's protocol: by the number that stands in front of a message, or by subject.
//!
//! A number's schema never changes, so that it is asked for once. What is not there, or is no schema that can be read, is asked
//! for again after a while; of an outage nothing is kept.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use crate::error::{Code, Error};
use crate::format::avro_schema::AvroSchema;
use crate::format::text::excerpt;
use crate::store::http::{BodyRoom, Failure, HttpAnswer, HttpConnection, HttpMessage};

/// How long a number that has no schema stays without one.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// How many numbers are known at once.
const MAX_KNOWN: usize = 10_000;
/// Of a schema and all that it refers to.
const MAX_ANSWER_BYTES: u64 = 8 * 1024 * 1024;
/// How many schemas one may refer to, through others as well.
const MAX_REFERENCES: usize = 100;

/// All but the characters that RFC 3986 calls unreserved.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a registry gave no schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// It could not be reached, or had a failure of its own: the same may succeed later.
    Unavailable { message: String },
    /// It does not let us ask.
    Refused { message: String },
    /// What it has is no schema that can be read.
    Failed { message: String },
}

/// A version of a subject.
#[derive(Clone, Debug)]
pub struct RegisteredSchema {
    pub id: u32,
    pub version: u32,
    pub schema: Arc<AvroSchema>,
}

/// A registry that need not have been reached.
pub struct SchemaRegistry {
    client: Client,
    known: Arc<Mutex<HashMap<u32, Known>>>,
}

/// `None`: there is no schema of that number.
type Found = Result<Option<Arc<AvroSchema>>, RegistryError>;
type Flight = Shared<BoxFuture<'static, Found>>;

/// What is known of a number.
enum Known {
    Schema(Arc<AvroSchema>),
    Refused {
        found: Found,
        until: Instant,
    },
    /// It is being asked for; nothing holds on to that but those who wait for it.
    Asked(WeakShared<BoxFuture<'static, Found>>),
}

impl SchemaRegistry {
    pub fn new(connection: Arc<HttpConnection>) -> SchemaRegistry {
        SchemaRegistry { client: Client { connection }, known: Arc::default() }
    }

    /// The schema of this number; `None` if the registry has none. Who asks while it is being asked for waits for the same
    /// answer.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn by_id(&self, id: u32) -> Result<Option<Arc<AvroSchema>>, RegistryError> {
        let flight = {
            let mut known = locked(&self.known);
            match known.get(&id) {
                Some(Known::Schema(schema)) => return Ok(Some(Arc::clone(schema))),
                Some(Known::Refused { found, until }) if *until > Instant::now() => return found.clone(),
                Some(Known::Asked(flight)) => flight.upgrade(),
                Some(Known::Refused { .. }) | None => None,
            }
            .unwrap_or_else(|| self.ask(id, &mut known))
        };
        flight.await
    }

    /// The newest version of a subject.
    ///
    /// # Errors
    /// See [`RegistryError`]; failed if there is no such subject.
    pub async fn latest(&self, subject: &str) -> Result<RegisteredSchema, RegistryError> {
        let asked = Asked { what: format!("the newest schema of subject \"{subject}\""), room: room() };
        let target = format!("/subjects/{}/versions/latest", encoded(subject));
        let Some(answer) = self.client.get(&target, &asked).await? else {
            return Err(self
                .client
                .failed(&asked, "is not there: no such subject, or all of its versions are deleted"));
        };
        let (Some(id), Some(version)) = (answer.id, answer.version) else {
            return Err(self.client.failed(&asked, "came without its id and version"));
        };
        let schema = self.client.read(answer, &asked).await?;
        let mut known = locked(&self.known);
        make_room(&mut known);
        known.insert(id, Known::Schema(Arc::clone(&schema)));
        Ok(RegisteredSchema { id, version, schema })
    }

    fn ask(&self, id: u32, known: &mut HashMap<u32, Known>) -> Flight {
        let client = self.client.clone();
        let all = Arc::downgrade(&self.known);
        let asking = async move {
            let found = client.by_id(id).await;
            // As long as this is under way, nobody else writes down what becomes of the number.
            if let Some(all) = all.upgrade() {
                settle(&mut locked(&all), id, &found);
            }
            found
        };
        let flight = asking.boxed().shared();
        make_room(known);
        if let Some(flight) = flight.downgrade() {
            known.insert(id, Known::Asked(flight));
        }
        flight
    }
}

fn settle(known: &mut HashMap<u32, Known>, id: u32, found: &Found) {
    match found {
        Ok(Some(schema)) => known.insert(id, Known::Schema(Arc::clone(schema))),
        Ok(None) | Err(RegistryError::Failed { .. }) => {
            known.insert(id, Known::Refused { found: found.clone(), until: Instant::now() + REFUSED_FOR })
        }
        Err(RegistryError::Unavailable { .. } | RegistryError::Refused { .. }) => known.remove(&id),
    };
}

/// All are asked for again once there are too many; those under way are kept, so that nobody asks twice.
fn make_room(known: &mut HashMap<u32, Known>) {
    if known.len() >= MAX_KNOWN {
        known.retain(|_, known| matches!(known, Known::Asked(flight) if flight.upgrade().is_some()));
    }
}

fn locked(known: &Mutex<HashMap<u32, Known>>) -> MutexGuard<'_, HashMap<u32, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn room() -> BodyRoom {
    BodyRoom::new(MAX_ANSWER_BYTES)
}

fn encoded(subject: &str) -> String {
    utf8_percent_encode(subject, RESERVED).to_string()
}

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistry").field("connection", &self.client.connection).finish_non_exhaustive()
    }
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::Unavailable { message }
            | RegistryError::Refused { message }
            | RegistryError::Failed { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for RegistryError {}

impl From<RegistryError> for Error {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unavailable { message } => Error::new(Code::StoreUnavailable, message),
            RegistryError::Refused { message } | RegistryError::Failed { message } => {
                Error::new(Code::StoreFailed, message)
            }
        }
    }
}

/// Asks, and knows nothing of what was asked before.
#[derive(Clone)]
struct Client {
    connection: Arc<HttpConnection>,
}

/// One question, which may take several requests.
struct Asked {
    /// As messages name it.
    what: String,
    room: BodyRoom,
}

/// A schema as a registry tells it, for a number or for a version.
#[derive(Deserialize)]
#[serde(expecting = "a registered schema")]
struct Registered {
    schema: String,
    /// AVRO if it is not there.
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    references: Option<Vec<Reference>>,
    id: Option<u32>,
    version: Option<u32>,
}

#[derive(Clone, Deserialize, PartialEq, Eq, Hash)]
struct Reference {
    subject: String,
    version: i64,
}

/// On the way through schemas that refer to others.
enum Visit {
    Fetch(Reference),
    /// All that it refers to has been fetched.
    Take(String),
}

impl Client {
    async fn by_id(&self, id: u32) -> Found {
        let asked = Asked { what: format!("schema {id}"), room: room() };
        match self.get(&format!("/schemas/ids/{id}"), &asked).await? {
            Some(answer) => self.read(answer, &asked).await.map(Some),
            None => Ok(None),
        }
    }

    /// `None` where the registry has nothing.
    async fn get(&self, target: &str, asked: &Asked) -> Result<Option<Registered>, RegistryError> {
        // A subject of one or two points would lead elsewhere.
        let url = self.connection.url_of(target).map_err(|_| self.failed(asked, "has a name that no url can hold"))?;
        let message = HttpMessage { method: Method::GET, url, body: None, may_quote: true };
        match self.connection.send(&message, &asked.room).await {
            Ok(HttpAnswer::Json(json)) => match serde_json::from_str(&json) {
                Ok(answer) => Ok(Some(answer)),
                Err(error) => Err(self.failed(asked, &format!("was answered with no schema: {error}"))),
            },
            Ok(HttpAnswer::Nothing) => Err(self.failed(asked, "was answered with nothing")),
            Ok(HttpAnswer::NotFound) => Ok(None),
            Err(Failure::Unavailable(reason)) => {
                Err(RegistryError::Unavailable { message: self.about(asked, &reason) })
            }
            Err(Failure::Failed(reason) | Failure::AboutKeys(reason)) => {
                Err(RegistryError::Refused { message: self.about(asked, &reason) })
            }
            Err(Failure::TooLarge) => {
                Err(self.failed(asked, &format!("has more than {MAX_ANSWER_BYTES} bytes with all that it refers to")))
            }
        }
    }

    /// The schema with all that it refers to.
    async fn read(&self, answer: Registered, asked: &Asked) -> Result<Arc<AvroSchema>, RegistryError> {
        self.check_type(&answer, asked)?;
        let references = self.references(answer.references.unwrap_or_default(), asked).await?;
        let schema = AvroSchema::parse_with_references(&answer.schema, &references);
        schema.map(Arc::new).map_err(|error| self.failed(asked, &format!("cannot be read: {}", error.message())))
    }

    /// The schemas that are referred to, each behind those that it refers to itself.
    async fn references(&self, direct: Vec<Reference>, asked: &Asked) -> Result<Vec<String>, RegistryError> {
        let mut seen = HashSet::new();
        let mut schemas = Vec::new();
        let mut left: Vec<Visit> = direct.into_iter().rev().map(Visit::Fetch).collect();
        while let Some(visit) = left.pop() {
            let reference = match visit {
                Visit::Take(schema) => {
                    schemas.push(schema);
                    continue;
                }
                // Those that refer to each other in a circle find their names missing.
                Visit::Fetch(reference) if seen.contains(&reference) => continue,
                Visit::Fetch(reference) => reference,
            };
            if seen.len() >= MAX_REFERENCES {
                return Err(self.failed(asked, &format!("refers to more than {MAX_REFERENCES} others")));
            }
            let (subject, version) = (&reference.subject, reference.version);
            // Versions that are deleted are still referred to.
            let target = format!("/subjects/{}/versions/{version}?deleted=true", encoded(subject));
            let Some(answer) = self.get(&target, asked).await? else {
                let subject = excerpt(subject);
                let reason = format!("refers to version {version} of subject \"{subject}\", which is not there");
                return Err(self.failed(asked, &reason));
            };
            self.check_type(&answer, asked)?;
            left.push(Visit::Take(answer.schema));
            left.extend(answer.references.unwrap_or_default().into_iter().rev().map(Visit::Fetch));
            seen.insert(reference);
        }
        Ok(schemas)
    }

    fn check_type(&self, answer: &Registered, asked: &Asked) -> Result<(), RegistryError> {
        match answer.schema_type.as_deref() {
            None | Some("AVRO") => Ok(()),
            Some(other) => Err(self.failed(asked, &format!("is of type {}, and not AVRO", excerpt(other)))),
        }
    }

    fn failed(&self, asked: &Asked, reason: &str) -> RegistryError {
        RegistryError::Failed { message: self.about(asked, reason) }
    }

    fn about(&self, asked: &Asked, reason: &str) -> String {
        format!("{} of the schema registry at {} {reason}", asked.what, self.connection)
    }
}
