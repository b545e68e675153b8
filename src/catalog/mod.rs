//! What the user declares: streams, lookup tables, connections.
//!
//! `file` turns catalog files into a [`definition::CatalogDefinition`] or into a list of everything that is wrong with
//! them; `section` checks one section against `keys`, the table of every key there is; the `*_section` files say what each
//! kind means. `demo` is the catalog inside the binary.

mod columns;
mod connection_section;
pub mod definition;
pub mod demo;
pub mod file;
mod keys;
mod lookup_section;
pub mod problem;
mod reading;
mod section;
mod stream_section;
mod substitute;
