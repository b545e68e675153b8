//! Lookaside joins a live stream with the tables it refers to, in SQL, over the PostgreSQL protocol.

pub mod catalog;
pub mod command;
pub mod datafusion_error;
pub mod engine;
pub mod error;
pub mod expression;
pub mod format;
pub mod lookup;
pub mod notice;
pub mod pg_catalog;
pub mod pg_type;
pub mod plan;
pub mod quantity;
pub mod server;
pub mod session;
pub mod source;
pub mod sql;
pub mod sql_name;
pub mod store;
pub mod telemetry;
