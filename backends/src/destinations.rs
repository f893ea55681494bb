//! Where backends may connect to: the one rule below every client.
//!
//! A tenant who writes a URL must not make the agent ask what the tenant cannot reach (server-side request forgery): what
//! listens on the node's loopback, the metadata of a cloud, the API server. So backends of a namespace that an operator serves
//! are [`Destinations::Limited`]; those of the cluster, and those of a machine's own files, are not.
//!
//! | module | holds |
//! | --- | --- |
//! | [`network`] | networks as people write them |
//! | `special` | addresses that no tenant means (pure) |
//! | `resolve` | names to addresses, and only to those that may be connected to |
//!
//! # Guarantees
//! - What is judged is the address that is connected to: a name is resolved once per connection, by `resolve`, and what it
//!   leaves out is never dialled. An answer that changes between two look-ups gains nothing.
//! - Every form of an address is judged as what it means: IPv4 in IPv6 (mapped, NAT64), decimal and octal forms of URLs.
//! - What the administrator allows goes before what is refused: at an allowed network every port is open, by name and by
//!   address alike.
//!
//! # It must not know
//! Backends, HTTP, whose a backend is: the host says whether it is limited.
//!
//! # Limits
//! A machine is known by the addresses that the host names. Others of it, those of other nodes, and what a Service or a rule of
//! the network leads to are not known here: who wants them refused names their networks.

pub mod network;
pub(crate) mod resolve;
mod special;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use network::{Allowance, Network};
use special::{canonical, why_not};

/// Ports below it are those of a machine's own services.
const WELL_KNOWN_PORTS_END: u16 = 1024;

/// Those of them that a backend may mean: HTTP.
const WEB_PORTS: [u16; 2] = [80, 443];

/// Ports above it that belong to a cluster: container runtimes, etcd, the API server, and kubelet to controller manager.
const CLUSTER_PORTS: [std::ops::RangeInclusive<u16>; 4] = [2375..=2376, 2379..=2382, 6443..=6443, 10_248..=10_259];

/// What a backend may connect to. There is no default: whoever makes a backend says whose it is.
#[derive(Debug, Clone)]
pub enum Destinations {
    /// Whatever it names: it is the machine's or the cluster's own.
    Any,
    /// What is left of the network for a tenant.
    Limited(Arc<Limits>),
}

/// What tenants may not connect to, and what of that all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Goes before every refusal.
    pub allowed: Vec<Allowance>,
    /// Refused besides what always is.
    pub denied: Vec<Network>,
    /// Addresses of the machine and of the API server, as the host finds them.
    pub own: Vec<IpAddr>,
    /// Names of the API server: refused where the address they mean is not allowed.
    pub denied_names: Vec<String>,
}

/// An address that may not be connected to. It is the end of a chain of causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forbidden {
    found: String,
    why: &'static str,
}

impl Destinations {
    /// Returns whether this is a tenant's.
    pub(crate) fn is_limited(&self) -> bool {
        matches!(self, Self::Limited(_))
    }

    /// Refuses what needs no look-up to be refused. What a name means is judged when it is resolved.
    pub(crate) fn check(&self, host: &str, port: u16) -> Result<(), Forbidden> {
        let Self::Limited(limits) = self else { return Ok(()) };
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => limits.check(address, port, None),
            // One of its addresses may be allowed.
            Err(_) if limits.allowed.iter().any(|one| matches!(one, Allowance::Network(_))) => Ok(()),
            Err(_) => limits.check_name(host, port),
        }
    }

    /// Returns which ports are judged alike, and so can share one client: all that are open, and each one that is not.
    pub(crate) fn group(&self, port: u16) -> Option<u16> {
        match self {
            Self::Limited(limits) => limits.check_port(port).is_err().then_some(port),
            Self::Any => None,
        }
    }
}

impl Limits {
    /// Refuses an address that a tenant may not connect to at this port and, where it was found by one, by this name.
    pub(crate) fn check(&self, address: IpAddr, port: u16, name: Option<&str>) -> Result<(), Forbidden> {
        if self.allows(address) {
            return Ok(());
        }
        self.check_name(name.unwrap_or_default(), port)?;
        let is_own = || self.own.iter().any(|own| canonical(*own) == canonical(address));
        let is_denied = || self.denied.iter().any(|network| network.contains(canonical(address)));
        let why = why_not(address)
            .or_else(|| is_own().then_some("the node's or the API server's"))
            .or_else(|| is_denied().then_some("refused by --deny-destinations"));
        why.map_or(Ok(()), |why| Err(Forbidden { found: address.to_string(), why }))
    }

    /// Refuses a name, and a port whatever it is of.
    fn check_name(&self, name: &str, port: u16) -> Result<(), Forbidden> {
        let whole = name.trim_end_matches('.');
        if self.denied_names.iter().any(|denied| denied.trim_end_matches('.').eq_ignore_ascii_case(whole)) {
            return Err(Forbidden { found: name.to_owned(), why: "the API server" });
        }
        self.check_port(port)
    }

    fn allows(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.allowed.iter().any(|one| matches!(one, Allowance::Network(network) if network.contains(address)))
    }

    fn check_port(&self, port: u16) -> Result<(), Forbidden> {
        let is_low = port < WELL_KNOWN_PORTS_END && !WEB_PORTS.contains(&port);
        let is_clusters = CLUSTER_PORTS.iter().any(|ports| ports.contains(&port));
        if !(is_low || is_clusters) || self.allowed.contains(&Allowance::Port(port)) {
            return Ok(());
        }
        let why = if is_low { "one of a machine's services" } else { "one of the cluster's own" };
        Err(Forbidden { found: format!("port {port}"), why })
    }
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, why } = self;
        write!(f, "not sent: {found} is {why}; a Backend of a namespace may not connect there (--allow-destinations)")
    }
}

impl std::error::Error for Forbidden {}

/// Returns addresses as sockets whose port is still open.
fn sockets(addresses: Vec<IpAddr>) -> impl Iterator<Item = SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests;
