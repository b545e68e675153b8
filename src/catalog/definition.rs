//! A catalog as meant: whole, checked, with defaults filled in, and with the place where each object was declared.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use super::access::{GrantDefinition, ListenDefinition, ServerDefinition, TlsDefinition, UserDefinition};
pub use crate::format::debezium::{Deletes, EnvelopeField};
pub use crate::format::json_path::JsonPath;
pub use crate::format::{FileData, FileFormat, OnMalformed};
use crate::lookup::policy::LookupPolicy;
use crate::pg_type::PgType;
pub use crate::source::kafka_connection::KafkaConfig;
pub use crate::source::kafka_rows::{MessageField, MetadataColumn, MetadataField};
pub use crate::source::push::SlowReader;
pub use crate::store::SqlTable;
pub use crate::store::files::{FilesConfig, FilesTable};
pub use crate::store::http::{HttpConfig, HttpTable};
pub use crate::store::mysql::MysqlConfig;
pub use crate::store::postgres::SslMode;
pub use crate::store::redis::{RedisConfig, RedisTable};
pub use crate::store::simulated::SimulatedConfig;
pub use crate::store::sqlite::SqliteConfig;

/// Everything that the catalog files declare, in their order. Names of streams and lookup tables are unique together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CatalogDefinition {
    pub streams: Vec<StreamDefinition>,
    pub lookups: Vec<LookupDefinition>,
    pub connections: Vec<ConnectionDefinition>,
    pub server: ServerDefinition,
    /// None: everybody is let in.
    pub users: Vec<UserDefinition>,
    /// What roles name and no file declares.
    pub grants: Vec<GrantDefinition>,
}

impl CatalogDefinition {
    /// The connection of that name. Every connection that a lookup table of this catalog names is there.
    pub fn connection(&self, name: &str) -> Option<&ConnectionDefinition> {
        self.connections.iter().find(|connection| connection.name == name)
    }
}

/// Where something was declared. Lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct StreamDefinition {
    pub name: String,
    pub origin: Origin,
    /// What `\d+` and other tools show of it.
    pub comment: Option<String>,
    pub on_malformed: OnMalformed,
    pub kind: StreamKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StreamKind {
    Generator {
        /// 0: as fast as asked for.
        rows_per_second: f64,
        /// 0: endless.
        rows: u64,
        seed: u64,
        columns: Vec<GeneratorColumn>,
    },
    Push {
        columns: Vec<ColumnDefinition>,
        /// The newest rows that stay readable.
        retain_rows: NonZeroUsize,
        /// And their bytes, at least 1.
        retain_bytes: u64,
        slow_reader: SlowReader,
    },
    File {
        path: PathBuf,
        rows: FileStreamRows,
        /// Read as it grows.
        follow: bool,
    },
    Kafka(KafkaTopic),
}

/// What the file of a stream holds.
#[derive(Clone, Debug, PartialEq)]
pub enum FileStreamRows {
    /// Lines of csv below a header.
    Csv(Vec<ColumnDefinition>),
    /// A message a line, and what its format says beside it.
    Messages(PayloadDefinition, Vec<MetadataColumn>),
    /// A file that names its columns.
    Parquet,
    /// An object container file, which names its columns.
    Avro,
}

/// A topic of Kafka's.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaTopic {
    /// The name of a connection of this catalog, of type kafka.
    pub connection: String,
    pub topic: String,
    pub payload: PayloadDefinition,
    /// Behind the payload's columns, in their order.
    pub metadata: Vec<MetadataColumn>,
    pub discover_every: Duration,
}

/// What messages hold.
#[derive(Clone, Debug, PartialEq)]
pub struct PayloadDefinition {
    pub format: PayloadFormat,
    pub columns: Vec<ColumnDefinition>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PayloadFormat {
    Json,
    Csv,
    Raw,
    Debezium {
        deletes: Deletes,
    },
    /// Written with the very schema that this file holds.
    Avro {
        schema: PathBuf,
    },
    /// Each message names the schema that wrote it.
    AvroOfRegistry {
        /// The name of a connection of this catalog, of type http.
        registry: String,
        /// Whose newest version is the reader's schema; `None`: that of the topic.
        subject: Option<String>,
        /// The reader's schema instead.
        schema: Option<PathBuf>,
    },
}

/// A column of a generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorColumn {
    pub name: String,
    /// SQL over the row number `n`.
    pub expression: String,
    pub origin: Origin,
}

/// A declared column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDefinition {
    pub name: String,
    pub pg_type: PgType,
    pub nullable: bool,
    /// Where in a JSON document it stands; `None`: the member of its name.
    pub path: Option<JsonPath>,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LookupDefinition {
    pub name: String,
    pub origin: Origin,
    /// What `\d+` and other tools show of it.
    pub comment: Option<String>,
    /// The name of a connection of this catalog, whose type is that of `kind`; `None` where `kind` needs none.
    pub connection: Option<String>,
    /// The `cache` of a file's policy is `None`: the store itself holds the whole file.
    pub policy: LookupPolicy,
    pub kind: LookupKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum LookupKind {
    Postgres(SqlTable),
    Sqlite(SqlTable),
    Redis(RedisTable),
    Mysql(SqlTable),
    Http(HttpTable),
    Files(FilesTable),
    File {
        data: FileData,
        format: FileFormat,
        /// Empty for parquet and avro, whose files name their columns.
        columns: Vec<ColumnDefinition>,
    },
    Simulated(SimulatedConfig),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionDefinition {
    pub name: String,
    pub origin: Origin,
    /// What tools show of it, as a foreign server.
    pub comment: Option<String>,
    pub kind: ConnectionKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ConnectionKind {
    Postgres(PostgresConnection),
    Sqlite(SqliteConfig),
    Redis(RedisConfig),
    Mysql(MysqlConfig),
    Http(HttpConfig),
    Files(FilesConfig),
    Kafka(KafkaConfig),
}

impl ColumnDefinition {
    /// Where in a JSON document the column's value stands.
    pub fn json_path(&self) -> JsonPath {
        self.path.clone().unwrap_or_else(|| JsonPath::member(&self.name))
    }
}

/// A PostgreSQL server and how to use it.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresConnection {
    /// Hosts, ports, database, user and password. Its `Debug` hides the password; its `ssl_mode` never falls back.
    pub config: tokio_postgres::Config,
    pub sslmode: SslMode,
    /// Certificates to trust instead of the system's; only with `verify-full`.
    pub sslrootcert: Option<PathBuf>,
    pub max_connections: NonZeroUsize,
    /// Whether statements are prepared once a connection.
    pub prepare: bool,
}
