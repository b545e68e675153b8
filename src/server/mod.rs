//! The PostgreSQL protocol: what clients send and what they get.
//!
//! Values on the wire: `encode.rs` makes DataRow messages of record batches (`encode_column.rs` prepares one
//! writer a column; `encode_text.rs`, `encode_time.rs`, `float.rs` and `numeric.rs` write single values), `encode_copy.rs`
//! does the same for COPY, and `decode.rs` reads the parameters of Bind (`decode_text.rs`, `decode_time.rs`,
//! `decode_array.rs`).

pub mod decode;
mod decode_array;
mod decode_text;
mod decode_time;
pub mod encode;
mod encode_column;
mod encode_column_time;
pub mod encode_copy;
mod encode_text;
mod encode_time;
mod float;
mod numeric;
