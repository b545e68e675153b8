//! What errors of MariaDB, MySQL and their driver mean.

use mysql_async::{DriverError, IoError, ServerError};

/// What an error of the server says of what may be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// This connection is of no use any more; another one may be.
    ConnectionLost,
    /// It starts, stops, or has no room.
    Unavailable,
    /// With this SQLSTATE.
    Failed(&'a str),
}

impl Meaning<'_> {
    /// By the numbers of `errmsg`; the server's SQLSTATE where that tells as much.
    pub(super) fn of(error: &ServerError) -> Meaning<'_> {
        match error.code {
            // The server shuts down; the connection was killed or closed for its idleness; a prepared statement is unknown.
            1053 | 1927 | 2006 | 2013 | 4031 | 1243 | 1615 => Meaning::ConnectionLost,
            // Too many connections, of all or of one user; shutdown in its steps; the host is blocked.
            1040 | 1203 | 1077..=1080 | 1129 => Meaning::Unavailable,
            // The keys are more than one packet may hold: fewer may be answered.
            1153 => Meaning::Failed("22001"),
            // Broken and garbled packets.
            1152 | 1154..=1161 => Meaning::ConnectionLost,
            // Waited too long for a lock, or a deadlock: the next attempt may pass.
            1205 | 1213 => Meaning::Failed("40001"),
            // Killed by somebody else, or ran longer than the server lets statements run.
            1317 | 1969 | 3024 => Meaning::Failed("57014"),
            _ => Meaning::Failed(&error.state),
        }
    }
}

/// The cause in the server's or the system's words; neither knows the password.
pub(super) fn describe(error: &mysql_async::Error) -> String {
    match error {
        mysql_async::Error::Server(answer) => answer.message.clone(),
        mysql_async::Error::Io(IoError::Io(error)) => error.to_string(),
        mysql_async::Error::Io(IoError::Tls(error)) => error.to_string(),
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => "server does not support TLS".to_string(),
        mysql_async::Error::Driver(error) => error.to_string(),
        mysql_async::Error::Other(error) => error.to_string(),
        // Would show the url.
        mysql_async::Error::Url(_) => "its address cannot be read".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_say_what_may_be_done() {
        let of = |code, state: &str| {
            let error = ServerError { code, message: String::new(), state: state.to_string() };
            format!("{:?}", Meaning::of(&error))
        };
        assert_eq!(of(1927, "70100"), "ConnectionLost");
        assert_eq!(of(1158, "08S01"), "ConnectionLost");
        assert_eq!(of(1040, "08004"), "Unavailable");
        assert_eq!(of(1153, "08S01"), "Failed(\"22001\")");
        assert_eq!(of(1205, "HY000"), "Failed(\"40001\")");
        assert_eq!(of(1317, "70100"), "Failed(\"57014\")");
        assert_eq!(of(1146, "42S02"), "Failed(\"42S02\")");
    }
}
