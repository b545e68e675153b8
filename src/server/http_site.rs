//! Whether a request comes from a program, or from a page in somebody's browser that has no business here.
//!
//! Two ways lead from a foreign page to a server that only this machine can reach. The page may send a request to
//! `http://127.0.0.1`: its `Origin` tells. Or the page's own name may be made to lead to 127.0.0.1 (DNS rebinding), so that
//! the browser takes us for the page's own site: its `Host` tells. Where users are declared the second way leads nowhere, as
//! the browser has no password for that name, and the server may be called by any name.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, StatusCode};

use super::http_refusal::Refusal;
use crate::error::{Code, Error};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The host of an address to listen on, `HOST:PORT`.
pub(super) fn host_of(listen: &str) -> &str {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// # Errors
/// 421 for a request to a name that is not ours; 400 for one to none or to several. `listen_host` is where we listen, as it
/// was written.
pub(super) fn check_host(head: &Parts, listen_host: &str) -> Result<(), Refusal> {
    let host = host_header(&head.headers)?;
    let Ok(authority) = Authority::try_from(host) else {
        return Err(refusal(StatusCode::BAD_REQUEST, "the request's Host is not a host"));
    };
    // A target may name a host as well, and then both must be ours.
    for authority in [Some(&authority), head.uri.authority()].into_iter().flatten() {
        if !is_ours(authority, listen_host) {
            let name = authority.host();
            let mut refused = refusal(StatusCode::MISDIRECTED_REQUEST, &format!("this server is not \"{name}\""));
            refused.error = refused
                .error
                .with_hint("Call it localhost, by its address in numbers, or by the name that --http was given.");
            return Err(refused);
        }
    }
    Ok(())
}

/// No name server says where numbers lead, nor where localhost does.
fn is_ours(authority: &Authority, listen_host: &str) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    !authority.as_str().contains('@')
        && (host.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || host.eq_ignore_ascii_case(listen_host))
}

/// # Errors
/// 403 for a request of a page that is not from here.
pub(super) fn check_origin(head: &Parts) -> Result<(), Refusal> {
    let foreign = || refusal(StatusCode::FORBIDDEN, "requests of other sites' pages are refused");
    for site in head.headers.get_all(SEC_FETCH_SITE) {
        // `none`: the user's own doing, no page's.
        if site != "same-origin" && site != "none" {
            return Err(foreign());
        }
    }
    for origin in head.headers.get_all(ORIGIN) {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        let is_own = origin.is_some_and(|(_, origin)| {
            host_header(&head.headers).is_ok_and(|host| host.eq_ignore_ascii_case(origin.as_bytes()))
        });
        if !is_own {
            return Err(foreign());
        }
    }
    Ok(())
}

fn host_header(headers: &HeaderMap) -> Result<&[u8], Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.as_bytes()),
        (None, _) => Err(refusal(StatusCode::BAD_REQUEST, "the request has no Host")),
        (Some(_), Some(_)) => Err(refusal(StatusCode::BAD_REQUEST, "the request has more than one Host")),
    }
}

fn refusal(status: StatusCode, message: &str) -> Refusal {
    Refusal::new(status, Error::new(Code::InsufficientPrivilege, message))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn host_status(target: &str, hosts: &[&str], listen: &str) -> Option<u16> {
        let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        check_host(&head(target, &headers), host_of(listen)).err().map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn names_that_others_may_lead_here_are_not_ours() {
        let local = "127.0.0.1:7480";
        for host in ["localhost", "LocalHost:7480", "127.0.0.1:7480", "[::1]:7480", "10.0.0.5"] {
            assert_eq!(host_status("/streams/a", &[host], local), None, "{host}");
        }
        for host in ["evil.example", "evil.example:7480", "localhost.evil.example", "127.0.0.1.evil.example", "127.1"] {
            assert_eq!(host_status("/streams/a", &[host], local), Some(421), "{host}");
            assert_eq!(host_status(&format!("http://{host}/streams/a"), &["localhost"], local), Some(421), "{host}");
        }
        assert_eq!(host_status("/streams/a", &["localhost@evil.example"], local), Some(421));
        for hosts in [&[] as &[&str], &["localhost", "localhost"], &["a b"], &[""]] {
            assert_eq!(host_status("/streams/a", hosts, local), Some(400), "{hosts:?}");
        }
        assert_eq!(host_status("/streams/a", &["Lookaside:80"], "lookaside:7480"), None);
        assert_eq!(host_status("/streams/a", &["other"], "lookaside:7480"), Some(421));
        assert_eq!(host_of("[::1]:7480"), "::1");
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let refused = |headers: &[(&str, &str)]| {
            let mut headers = headers.to_vec();
            headers.push(("host", "localhost:7480"));
            check_origin(&head("/streams/a", &headers)).is_err()
        };
        for headers in [
            &[] as &[(&str, &str)],
            &[("origin", "http://localhost:7480"), ("sec-fetch-site", "same-origin")],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!refused(headers), "{headers:?}");
        }
        for headers in [
            &[("origin", "http://evil.example")] as &[(&str, &str)],
            &[("origin", "http://localhost")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("origin", "http://localhost:7480"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(refused(headers), "{headers:?}");
        }
    }
}
