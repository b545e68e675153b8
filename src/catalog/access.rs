//! Who may come in and where, as the catalog files say it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::definition::Origin;
use super::verifier::Verifier;
use super::viewer::Rights;

const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

/// `[server]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerDefinition {
    /// Where to serve, unless the command line says otherwise.
    pub listen: Option<ListenDefinition>,
    pub tls: Option<TlsDefinition>,
    /// `None`: TLS is required of who comes from another machine, if there is a certificate.
    pub require_tls: Option<bool>,
    /// Clients that may be logged in at once.
    pub max_connections: NonZeroUsize,
    /// From connecting to the end of the log-in.
    pub login_timeout: Duration,
    /// How long a client may say nothing outside of a statement and a transaction; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// Whether `/metrics` asks for no user.
    pub open_metrics: bool,
    /// Whether `/health` and `/ready` ask for no user.
    pub open_health: bool,
    /// Whether other machines are served without users or without TLS.
    pub let_other_machines_in_unprotected: bool,
}

impl Default for ServerDefinition {
    fn default() -> Self {
        ServerDefinition {
            listen: None,
            tls: None,
            require_tls: None,
            max_connections: MAX_CONNECTIONS,
            login_timeout: LOGIN_TIMEOUT,
            idle_timeout: None,
            open_metrics: false,
            open_health: false,
            let_other_machines_in_unprotected: false,
        }
    }
}

/// `[server] listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenDefinition {
    /// A name or an address, `HOST:PORT`; an IPv6 address stands in brackets.
    pub address: String,
    pub origin: Origin,
}

/// The files behind TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsDefinition {
    /// The server's own first, then those that lead to its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Authorities, one of which must have signed the certificate that a client then has to show.
    pub client_ca: Option<PathBuf>,
}

/// Somebody who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDefinition {
    pub name: String,
    pub verifier: Verifier,
    /// Those of all his roles together.
    pub rights: Arc<Rights>,
}

/// A name in a role's `read` or `write` that no file declares, so that it must be a view's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantDefinition {
    pub relation: String,
    /// The role's section, as `[role.analyst]`.
    pub role: String,
    pub origin: Origin,
}
