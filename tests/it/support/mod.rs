//! What several tests need.

pub mod certificate;
pub mod http_service;
pub mod kafka;
pub mod kafka_login;
pub mod kafka_producer;
pub mod kafka_proxy;
pub mod lookaside;
pub mod mariadb;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod redis;
pub mod redis_monitor;
pub mod s3;
pub mod schema_registry;
pub mod script;
