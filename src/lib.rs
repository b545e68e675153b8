//! Lookaside joins a live stream with the tables it refers to, in SQL, over the PostgreSQL protocol.

pub mod catalog;
pub mod error;
pub mod format;
pub mod lookup;
pub mod pg_type;
pub mod quantity;
pub mod source;
pub mod store;
