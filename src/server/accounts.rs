//! Who may log in, and whether a password is his.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use tokio::sync::Semaphore;

use super::scram::{self, Channel, Decoy};
use super::throttle::Throttle;
use crate::catalog::definition::UserDefinition;
use crate::catalog::verifier::Verifier;
use crate::catalog::{Catalog, Rights};
use crate::error::{Error, Result};

/// Passwords that may be hashed at once; each takes a core for some milliseconds.
const HASHINGS: usize = 2;

/// The users of one server.
#[derive(Debug)]
pub struct Accounts {
    users: BTreeMap<String, UserDefinition>,
    decoy: Decoy,
    pub throttle: Throttle,
    hashings: Arc<Semaphore>,
}

/// What is to be held against a proof of a password.
#[derive(Debug)]
pub struct Account {
    pub verifier: Verifier,
    /// `None` for a name that nobody has.
    pub rights: Option<Arc<Rights>>,
}

impl Accounts {
    pub fn new(catalog: &Catalog) -> Accounts {
        let users: BTreeMap<_, _> = catalog.users().iter().map(|user| (user.name.clone(), user.clone())).collect();
        let decoy = Decoy::new(users.values().map(|user| &user.verifier));
        Accounts { users, decoy, throttle: Throttle::default(), hashings: Arc::new(Semaphore::new(HASHINGS)) }
    }

    /// Whether everybody is let in, as long as nobody is declared.
    pub fn are_open(&self) -> bool {
        self.users.is_empty()
    }

    /// The account under this name; if there is none, one that looks like it.
    pub fn account(&self, user: &str) -> Account {
        let decoy = self.decoy.verifier(user);
        match self.users.get(user) {
            Some(user) => Account { verifier: user.verifier.clone(), rights: Some(Arc::clone(&user.rights)) },
            None => Account { verifier: decoy, rights: None },
        }
    }

    /// What the user may do, if the password is his. It is checked in turn, and off the async threads.
    ///
    /// # Errors
    /// XX000 when that could not be done.
    pub async fn check_password(&self, address: IpAddr, user: &str, password: String) -> Result<Option<Arc<Rights>>> {
        let turn = self.throttle.turn(address).await;
        let account = self.account(user);
        let is_known = account.rights.is_some();
        let hashing = Arc::clone(&self.hashings).acquire_owned().await;
        let checked = SpawnedTask::spawn_blocking(move || {
            // Held by the work itself, which goes on when the client has gone.
            let _hashing = hashing;
            is_password(&password, account.verifier, is_known)
        });
        let checked =
            checked.join().await.map_err(|error| Error::internal(format!("no password was checked: {error}")))?;
        let rights = account.rights.filter(|_| matches!(checked, Ok(true)));
        if rights.is_none() {
            tracing::warn!(user, %address, "password authentication failed");
            self.throttle.note_failure(address);
        }
        drop(turn);
        checked.map(|_| rights)
    }
}

/// Plays both parts of an exchange, so that a password is prepared, hashed and compared as in any other log-in.
fn is_password(password: &str, verifier: Verifier, is_known: bool) -> Result<bool> {
    let channel = Channel { is_bound: false, end_point: None };
    let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    let challenge = scram::begin(client.message(), channel, (verifier, is_known), &scram::new_nonce()?)?;
    let answered = client.update(challenge.message.as_bytes());
    answered.map_err(|error| Error::internal(format!("a password was not hashed: {error}")))?;
    Ok(challenge.finish(client.message())?.is_some())
}
