//! Names to addresses, where only some addresses may be connected to.
//!
//! # Guarantees
//! - The client dials what is answered here and nothing else: there is no second look-up between the check and the connection.
//! - A name of which no address may be connected to fails with why; of one that has both kinds the others are left out.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Forbidden, Limits, sockets};

/// Looks a name up.
pub(crate) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Answers with what may be connected to at one port, and at every port that is judged alike.
pub(crate) struct Resolver {
    limits: Arc<Limits>,
    port: u16,
    lookup: Lookup,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("limits", &self.limits).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Returns one that asks the machine.
    pub(crate) fn of_the_machine(limits: Arc<Limits>, port: u16) -> Self {
        Self::new(limits, port, Arc::new(|name| Box::pin(system(name))))
    }

    pub(crate) fn new(limits: Arc<Limits>, port: u16, lookup: Lookup) -> Self {
        Self { limits, port, lookup }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (limits, port) = (self.limits.clone(), self.port);
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let open = open(found.await?, |address| limits.check(address, port, Some(name.as_str())))?;
            Ok(Box::new(sockets(open)) as Addrs)
        })
    }
}

/// Returns what of `found` may be connected to.
fn open(found: Vec<IpAddr>, check: impl Fn(IpAddr) -> Result<(), Forbidden>) -> Result<Vec<IpAddr>, Forbidden> {
    let mut refused = None;
    let mut open = Vec::with_capacity(found.len());
    for address in found {
        match check(address) {
            Ok(()) => open.push(address),
            Err(forbidden) => refused = refused.or(Some(forbidden)),
        }
    }
    match refused {
        Some(forbidden) if open.is_empty() => Err(forbidden),
        _ => Ok(open),
    }
}

async fn system(name: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}
