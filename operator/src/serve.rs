//! The endpoint that agents ask: TLS, tokens, long polls. It speaks the protocol of [`spillway_crds::served`].
//!
//! Expected flow: a connection is let in while there is a place, shows our leaf, and sends asks. Of each ask the token is
//! verified, then the body is read, the [`Hub`] takes it as a report, and the answer waits for news.
//!
//! # Guarantees
//! - An agent gets the slice of the node that its token names, as long as its pod is a live agent pod there; a sidecar that of
//!   the pod that its token names, as long as that runs. Nobody gets any other.
//! - A pod waits once: a newer ask of it ends the older one with `409`.
//! - Who does not lead answers `421` with `Retry-After` and closes the connection, so that the next one may meet who does;
//!   where it knows who that is, it names the address ([`LEADER`](spillway_crds::served::LEADER)).
//! - When the process stops, who waits is answered at once that there is nothing new.
//! - Secrets are in bodies alone: no cache keeps them, no log line shows them, and the length of an answer tells no more of
//!   them than their length.
//!
//! # Limits
//! Those of [`limits`], each counted where it turns somebody away.

pub(crate) mod body;
pub mod certificates;
pub(crate) mod doorman;
mod encode;
pub mod expires;
mod handler;
pub mod limits;
pub(crate) mod listen;
pub mod mounted;
mod polls;
pub(crate) mod problem;
pub mod stats;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use spillway_delivery::clock::Clock;
use spillway_tokens::Verifier;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;
use certificates::Certificates;
use doorman::Doorman;
use handler::Shared;
use stats::Stats;

/// What an endpoint is made of.
#[derive(Debug)]
pub struct Endpoint {
    /// Where slices come from and reports go.
    pub hub: Arc<Hub>,
    /// Who may ask.
    pub verifier: Verifier,
    /// What is shown to who connects.
    pub certificates: Arc<Certificates>,
    /// What is counted.
    pub stats: Stats,
    /// The time.
    pub clock: Clock,
    /// Where another replica leads.
    pub leader: watch::Receiver<Option<SocketAddr>>,
}

impl Endpoint {
    /// Serves on `socket` and keeps the certificate fresh until `stop`, then answers who waits and ends, at the latest after
    /// [`STOP_GRACE`](limits::STOP_GRACE).
    pub async fn run(self, socket: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let Self { hub, verifier, certificates, stats, clock, leader } = self;
        let doorman = Doorman::new(limits::CONNECTIONS_MAX, &stats.connections)
            .with_at_most(limits::ADDRESS_CONNECTIONS_MAX, limits::ADDRESS_BODIES_BYTES_MAX)
            .with_sidecars_at_most(limits::SIDECAR_CONNECTIONS_MAX);
        let shared = Shared::new((hub, leader), verifier, stats, clock, stop.clone());
        listen::serve(socket, &*certificates, doorman, handler::router(Arc::new(shared)), stop).await
    }
}

#[cfg(test)]
mod tests;
