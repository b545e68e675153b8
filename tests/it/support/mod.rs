//! What several tests need.

pub mod lookaside;
pub mod postgres;
