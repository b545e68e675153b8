//! Which hosts may be asked: those that the catalog names, and of addresses that are not public only those that it names.
//!
//! Names are looked up by a resolver of ours, whose answer is what is connected to: a name that leads to a public address
//! now and to a private one a moment later is refused a moment later.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// What `allow_hosts` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHosts {
    hosts: Vec<AllowedHost>,
    /// The host of the connection's own url and its port, which an entry of that host without a port includes.
    own: Option<(Host, u16)>,
}

/// An item of `allow_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHost {
    /// A name or an address; without a port those of http and https.
    Host { host: Host, port: Option<u16> },
    /// A block of addresses: `10.0.0.0/8`.
    Block { first: IpAddr, bits: u8 },
}

impl FromStr for AllowedHost {
    type Err = String;

    /// # Errors
    /// In words, beginning with the quoted text.
    fn from_str(text: &str) -> Result<AllowedHost, String> {
        let wrong = |reason: &str| format!("\"{text}\" is not a host: {reason}");
        if let Some((address, bits)) = text.split_once('/') {
            let first: IpAddr = address.parse().map_err(|_| wrong("a block is ADDRESS/BITS"))?;
            let most = if first.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most);
            let bits = bits.ok_or_else(|| wrong(&format!("a block has 0 to {most} bits")))?;
            return Ok(AllowedHost::Block { first: first.to_canonical(), bits });
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(AllowedHost::Host { host: canonical(Host::Ipv6(address)), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().map_err(|_| wrong("behind the colon stands no port"))?;
                (host, Some(port))
            }
            _ => (text, None),
        };
        let host = Host::parse(host).map_err(|_| wrong("write a name, an address, or one of them and :PORT"))?;
        Ok(AllowedHost::Host { host: canonical(host), port })
    }
}

impl AllowedHosts {
    /// `url` is the connection's own.
    pub fn new(hosts: Vec<AllowedHost>, url: &Url) -> AllowedHosts {
        let own = host_of(url).zip(url.port_or_known_default());
        AllowedHosts { hosts, own }
    }

    /// Whether a request may go to `url`, as far as can be told without looking its name up.
    ///
    /// # Errors
    /// In words that follow the host's name.
    pub fn check(&self, url: &Url) -> Result<(), String> {
        let (Some(host), Some(port)) = (host_of(url), url.port_or_known_default()) else {
            return Err("is no host that can be asked".to_string());
        };
        let is_own = self.own.as_ref().is_some_and(|(own, own_port)| *own == host && *own_port == port);
        let is_usual = is_own || matches!((url.scheme(), port), ("http", 80) | ("https", 443));
        let allows = |allowed: &AllowedHost| match allowed {
            AllowedHost::Host { host: allowed, port: None } => *allowed == host && is_usual,
            AllowedHost::Host { host: allowed, port: Some(allowed_port) } => *allowed == host && *allowed_port == port,
            AllowedHost::Block { first, bits } => {
                is_usual && address_of(&host).is_some_and(|address| in_block(address, *first, *bits))
            }
        };
        match self.hosts.iter().any(allows) {
            true => Ok(()),
            false => Err("is not in allow_hosts".to_string()),
        }
    }

    /// Whether the name may lead to this address. Addresses that are not public must be named, without a port; what is
    /// called localhost may be this machine.
    fn may_lead_to(&self, name: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let named = |allowed: &AllowedHost| match allowed {
            AllowedHost::Host { host, port: None } => address_of(host) == Some(address),
            AllowedHost::Host { port: Some(_), .. } => false,
            AllowedHost::Block { first, bits } => in_block(address, *first, *bits),
        };
        let is_local = name.eq_ignore_ascii_case("localhost") && address.is_loopback();
        is_public(address) || is_local || self.hosts.iter().any(named)
    }
}

/// `host:port` of a url, for people.
pub(super) fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

fn host_of(url: &Url) -> Option<Host> {
    url.host().map(|host| canonical(host.to_owned()))
}

/// A name without the dot behind it, an IPv4 address that is written as one of IPv6 as itself.
fn canonical(host: Host) -> Host {
    match host {
        Host::Domain(name) => Host::Domain(name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase()),
        Host::Ipv4(address) => Host::Ipv4(address),
        Host::Ipv6(address) => match IpAddr::V6(address).to_canonical() {
            IpAddr::V4(address) => Host::Ipv4(address),
            IpAddr::V6(address) => Host::Ipv6(address),
        },
    }
}

fn address_of(host: &Host) -> Option<IpAddr> {
    match host {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some((*address).into()),
        Host::Ipv6(address) => Some((*address).into()),
    }
}

fn in_block(address: IpAddr, first: IpAddr, bits: u8) -> bool {
    match (address, first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => {
            let differing = address.to_bits() ^ first.to_bits();
            differing.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V6(address), IpAddr::V6(first)) => {
            let differing = address.to_bits() ^ first.to_bits();
            differing.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Blocks of IPv4 that the public internet does not reach: IANA's registry of special-purpose addresses.
const SPECIAL_V4: [([u8; 4], u8); 15] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

/// As [`SPECIAL_V4`], of IPv6: all but 2000::/3, and of that what stands for something else.
const SPECIAL_V6: [([u16; 2], u8); 4] =
    [([0x2001, 0], 23), ([0x2001, 0x0db8], 32), ([0x2002, 0], 16), ([0x3fff, 0], 20)];

fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let in_special =
                |(first, bits): &([u8; 4], u8)| in_block(address.into(), Ipv4Addr::from(*first).into(), *bits);
            !SPECIAL_V4.iter().any(in_special)
        }
        IpAddr::V6(address) => {
            let in_special = |(first, bits): &([u16; 2], u8)| {
                in_block(address.into(), Ipv6Addr::new(first[0], first[1], 0, 0, 0, 0, 0, 0).into(), *bits)
            };
            address.segments()[0] & 0xe000 == 0x2000 && !SPECIAL_V6.iter().any(in_special)
        }
    }
}

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync {
    fn addresses(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// The system's way to find addresses.
#[derive(Debug)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Looks names up, and gives only addresses that they may lead to.
pub(super) struct GuardedResolver {
    pub(super) hosts: Arc<AllowedHosts>,
    pub(super) lookup: Arc<dyn Lookup>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = Arc::clone(&self.hosts);
        let name = name.as_str().to_string();
        let found = self.lookup.addresses(name.clone());
        Box::pin(async move {
            let found = found.await?;
            let allowed = found.iter().filter(|address| hosts.may_lead_to(&name, **address));
            let allowed = allowed.map(|address| SocketAddr::new(*address, 0)).collect::<Vec<_>>();
            match (allowed.is_empty(), found.first()) {
                (true, Some(address)) => Err(Refused { name, address: *address }.into()),
                (true, None) => Err(format!("\"{name}\" has no address").into()),
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// A name led to an address that it may not lead to.
#[derive(Debug)]
pub(super) struct Refused {
    name: String,
    address: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { name, address } = self;
        write!(f, "\"{name}\" leads to {address}, which is not a public address and not in allow_hosts")
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(allowed: &[&str], url: &str) -> AllowedHosts {
        AllowedHosts::new(allowed.iter().map(|text| text.parse().unwrap()).collect(), &url.parse().unwrap())
    }

    fn allows(hosts: &AllowedHosts, url: &str) -> bool {
        hosts.check(&url.parse().unwrap()).is_ok()
    }

    #[test]
    fn a_host_is_allowed_by_name_with_its_port() {
        let hosts =
            hosts(&["prices.example.com", "api.example.com:8443", "10.0.0.5"], "http://prices.example.com:8080");
        for url in [
            "http://prices.example.com:8080/x",
            "https://PRICES.example.com./x",
            "http://prices.example.com/x",
            "https://api.example.com:8443/",
            "http://10.0.0.5/",
            "http://[::ffff:10.0.0.5]/",
            "http://0xa000005/",
        ] {
            assert!(allows(&hosts, url), "{url}");
        }
        for url in [
            "http://prices.example.com:8081/x",
            "https://api.example.com/",
            "https://evil.example.com/",
            "https://prices.example.com.evil.example/",
            "http://10.0.0.6/",
            "http://10.0.0.5:8080/",
            "http://127.0.0.1:8080/",
            "http://[fe80::1]/",
            "http://169.254.169.254/",
        ] {
            assert!(!allows(&hosts, url), "{url}");
        }
    }

    #[test]
    fn names_lead_to_public_addresses_or_to_those_that_are_named() {
        let hosts =
            hosts(&["a.example", "localhost", "10.1.0.0/16", "192.168.0.7", "192.168.0.8:80"], "http://a.example");
        let leads = |name: &str, address: &str| hosts.may_lead_to(name, address.parse().unwrap());
        for address in ["93.184.216.34", "2606:2800:220:1::1", "10.1.2.3", "::ffff:10.1.2.3", "192.168.0.7"] {
            assert!(leads("a.example", address), "{address}");
        }
        for address in [
            "10.2.0.1",
            "192.168.0.8",
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "172.31.0.1",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fe80::1",
            "fec0::1",
            "fd00::1",
            "ff02::1",
        ] {
            assert!(!leads("a.example", address), "{address}");
        }
        assert!(leads("localhost", "127.0.0.1") && leads("localhost", "::1") && !leads("localhost", "10.2.0.1"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in
            ["", "a b", "https://a.example", "a.example:", "a.example:x", "a.example:70000", "10.0.0.0/33", "a/8"]
        {
            assert!(text.parse::<AllowedHost>().is_err(), "{text}");
        }
    }
}
