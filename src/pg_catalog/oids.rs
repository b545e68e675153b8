//! Numbers of objects: given at first sight, the same as long as the server runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The first number that PostgreSQL gives to what users make; tools take what is below for its own.
pub const FIRST_USER_OID: u32 = 16_384;
/// The schemas.
pub const NAMESPACE_PG_CATALOG: u32 = 11;
pub const NAMESPACE_PUBLIC: u32 = 2200;
pub const NAMESPACE_INFORMATION_SCHEMA: u32 = 13_207;
pub const NAMESPACE_LOOKASIDE: u32 = 16_000;
/// The role that owns everything, as PostgreSQL's first superuser.
pub const OWNER: u32 = 10;
/// The database.
pub const DATABASE: u32 = 5;
/// The catalog tables whose own numbers say what kind of object is meant.
pub const PG_CLASS: u32 = 1259;
pub const PG_FOREIGN_SERVER: u32 = 1417;
pub const PG_TYPE: u32 = 1247;
/// What stands between us and stores of type "postgres".
pub const POSTGRES_WRAPPER: u32 = 16_001;

/// What is numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Relation,
    SystemView,
    KeyIndex,
    KeyConstraint,
    Role,
    Function,
    Connection,
}

/// The numbers given so far.
#[derive(Debug, Default)]
pub struct Oids {
    given: Mutex<HashMap<(Kind, String), u32>>,
}

impl Oids {
    pub fn of(&self, kind: Kind, name: &str) -> u32 {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let next = FIRST_USER_OID + given.len() as u32;
        *given.entry((kind, name.to_string())).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_with_its_object() {
        let oids = Oids::default();
        let orders = oids.of(Kind::Relation, "orders");
        assert_eq!(orders, FIRST_USER_OID);
        assert_ne!(oids.of(Kind::KeyIndex, "orders"), orders);
        assert_eq!(oids.of(Kind::Relation, "orders"), orders);
    }
}
