//! Where the server listens, and that it does not listen where it should not.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};

use crate::catalog::Catalog;
use crate::error::{Code, Error, Result};

/// A client that has been silent so long is asked by the system whether it is still there,
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(60);
/// again and again,
const KEEP_ALIVE_PAUSE: Duration = Duration::from_secs(10);
/// so many times, and is gone when it does not answer.
const KEEP_ALIVE_TIMES: u32 = 3;

/// Listens at `HOST:PORT`; port 0 picks a free one.
///
/// # Errors
/// 22023 for an address that cannot be listened at, and for one that other machines can reach while users or TLS are
/// missing, unless the catalog wants that in so many words.
pub async fn bind(listen: &str, catalog: &Catalog) -> Result<TcpListener> {
    let failed =
        |reason: String| Error::new(Code::InvalidParameterValue, format!("cannot listen on \"{listen}\": {reason}"));
    let addresses = tokio::net::lookup_host(listen).await.map_err(|error| failed(error.to_string()))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    if let Some(open) = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
        check_protection(open, catalog)?;
    }
    TcpListener::bind(addresses.as_slice()).await.map_err(|error| failed(error.to_string()))
}

fn check_protection(address: &SocketAddr, catalog: &Catalog) -> Result<()> {
    let missing = match (catalog.users().is_empty(), catalog.server().tls.is_none()) {
        (false, false) => return Ok(()),
        (true, true) => "no users and no certificate",
        (true, false) => "no users",
        (false, true) => "no certificate",
    };
    if catalog.server().let_other_machines_in_unprotected {
        tracing::warn!(%address, "other machines are let in, although the catalog has {missing}");
        return Ok(());
    }
    let message = format!("refusing to listen on {address}, which other machines can reach");
    Err(Error::new(Code::InvalidParameterValue, message).with_detail(format!("The catalog has {missing}.")).with_hint(
        "Declare [user.X], and tls_certificate and tls_key in [server], or listen on 127.0.0.1 or ::1. If the \
             network itself keeps others out, write let_other_machines_in_unprotected = true.",
    ))
}

/// Has the system find out when the other side is no longer there, which otherwise shows only when it is written to.
pub fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    let keep_alive =
        TcpKeepalive::new().with_time(KEEP_ALIVE_AFTER).with_interval(KEEP_ALIVE_PAUSE).with_retries(KEEP_ALIVE_TIMES);
    SockRef::from(socket).set_tcp_keepalive(&keep_alive)
}
