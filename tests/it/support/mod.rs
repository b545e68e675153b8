//! What several tests need.

pub mod certificate;
pub mod lookaside;
pub mod mariadb;
pub mod postgres;
pub mod process;
pub mod raw;
pub mod redis;
pub mod script;
