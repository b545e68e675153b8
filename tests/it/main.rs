//! Tests against real services, which they start themselves. One binary: each one links DataFusion.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails says so by panicking")]

mod access;
mod activity;
mod architecture;
mod clients;
mod commands;
mod conformance;
mod differential;
mod failure;
mod full_cache;
mod fuzz;
mod grants;
mod protocol;
mod protocol_copy;
mod protocol_stop;
mod psql;
mod psql_catalog;
mod questions;
mod slt;
mod soak;
mod soak_connections;
mod soak_memory;
mod soak_outage;
mod store_files;
mod store_http;
mod store_http_failure;
mod store_postgres;
mod store_postgres_failure;
mod store_postgres_scan;
mod support;
mod system;
mod system_http;
mod wire;
mod wire_values;
