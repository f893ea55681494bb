//! Messages of syslog: RFC 5424 and RFC 3164, over TCP, over TLS, and in datagrams.
//!
//! ```text
//! socket ─► listen ─► reader (frame) ─► connection ─┐
//!                                                   ├─► decode ─► batch ─► shared ─► pushed::targets ─► Intake
//! socket ─► udp ────────────────────────────────────┘
//! ```
//!
//! # Guarantees
//! - A message is an event ([`decode`]), whatever its bytes are; what is wrong with it is counted and stands in it.
//! - A connection is not read from while its messages cannot be kept. What a sender sent before it closed its side is in the log.
//! - Datagrams wait in bounds while theirs cannot be kept; what the kernel drops meanwhile is counted, as far as it tells.
//! - Whatever is sent, memory is bounded: `limits` names each bound.
//! - Nothing a message says changes what the agent knows: the origin is the agent's, and so is `peer`.
//!
//! # What it must not know
//! Logs, routes, backends, manifests, HTTP. It is given its pipelines, and calls the intake.
//!
//! # Limits
//! See `limits`. In short: 1,024 connections, 128 KiB for a message, 64 MiB of memory for a listener.

mod batch;
mod connection;
pub mod decode;
pub mod frame;
mod limits;
mod listen;
mod reader;
mod shared;
mod stats;
mod times;
mod udp;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use spillway_delivery::clock::Clock;
use spillway_delivery::intake::Intake;
use spillway_delivery::supervisor::Supervisor;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub use stats::{Figure, SyslogStats};

use listen::Listener;
use shared::{Senders, Shared};
use udp::Datagrams;

use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::security::{SecurityError, TlsFiles, mutual};
use crate::sources::pushed::targets::{Door, Pipelines, PushTargets};

/// What protects a listener for syslog over TLS: all of it is needed, wherever it listens.
#[derive(Debug, Clone)]
pub struct MutualTls {
    /// What the agent shows.
    pub tls: TlsFiles,
    /// The authorities whose certificates senders show.
    pub client_ca: Option<PathBuf>,
}

/// What the source stands on.
#[derive(Debug, Clone)]
pub struct SyslogContext {
    /// The door to the logs.
    pub intake: Intake,
    /// The pipelines.
    pub targets: PushTargets,
    /// The pod that this is the sidecar of; `None` where whoever gets here may send.
    pub own_pod: Option<OwnPod>,
    /// The time of receipt.
    pub clock: Clock,
    /// Owns the source's tasks; its stop ends the source.
    pub supervisor: Supervisor,
    /// What the source counts.
    pub stats: Arc<SyslogStats>,
}

/// Why the source cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It has no protection beyond loopback.
    #[error(
        "listener {address} is not a loopback address: plain syslog proves nobody, use --syslog-tls, or a relay on this machine"
    )]
    Plain {
        /// The address.
        address: SocketAddr,
    },
    /// It lacks what senders and agent show each other.
    #[error("listener {address} needs --tls-cert, --tls-key and --tls-client-ca, {missing} is missing")]
    Mutual {
        /// The address.
        address: SocketAddr,
        /// The first missing flag.
        missing: &'static str,
    },
    /// What it has cannot be used.
    #[error("syslog over TLS is not protected as it must be")]
    Security(#[from] SecurityError),
    /// The system does not let it.
    #[error("syslog source cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Listens over TCP at a loopback address, and takes messages until the supervisor stops. Returns where it listens.
pub async fn bind_tcp(address: SocketAddr, context: SyslogContext) -> Result<SocketAddr, BindError> {
    let door = door(&context);
    start_tcp(address, door, context).await
}

/// The same over TLS, at any address, of those who show a certificate.
pub async fn bind_tls(
    address: SocketAddr,
    security: &MutualTls,
    context: SyslogContext,
) -> Result<SocketAddr, BindError> {
    let door = door(&context);
    start_tls((address, security), door, context).await
}

/// Takes datagrams at a loopback address until the supervisor stops. Returns where it listens.
pub async fn bind_udp(address: SocketAddr, context: SyslogContext) -> Result<SocketAddr, BindError> {
    let door = door(&context);
    start_udp(address, door, context).await
}

fn door(context: &SyslogContext) -> Box<dyn Door> {
    Box::new(Pipelines::new(context.intake, context.targets.clone()))
}

fn loopback(address: SocketAddr) -> Result<(), BindError> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(BindError::Plain { address }) }
}

async fn start_tcp(address: SocketAddr, door: Box<dyn Door>, context: SyslogContext) -> Result<SocketAddr, BindError> {
    loopback(address)?;
    listen(("tcp", address), None, (door, context)).await
}

async fn start_tls(
    (address, security): (SocketAddr, &MutualTls),
    door: Box<dyn Door>,
    context: SyslogContext,
) -> Result<SocketAddr, BindError> {
    let MutualTls { tls, client_ca } = security;
    let missing = |missing| BindError::Mutual { address, missing };
    let certificate = tls.certificate.as_deref().ok_or(missing("--tls-cert"))?;
    let key = tls.key.as_deref().ok_or(missing("--tls-key"))?;
    let client_ca = client_ca.as_deref().ok_or(missing("--tls-client-ca"))?;
    let acceptor = mutual(certificate, key, client_ca)?;
    listen(("tls", address), Some(acceptor), (door, context)).await
}

async fn listen(
    (name, address): (&'static str, SocketAddr),
    tls: Option<TlsAcceptor>,
    (door, context): (Box<dyn Door>, SyslogContext),
) -> Result<SocketAddr, BindError> {
    let unheard = |source| BindError::Listen { address, source };
    let socket = TcpListener::bind(address).await.map_err(unheard)?;
    let local_address = socket.local_addr().map_err(unheard)?;
    let supervisor = context.supervisor.clone();
    let listener = Listener::new(shared(name, door, context), supervisor.clone(), tls);
    supervisor.spawn("syslog listener", listener.run(socket));
    tracing::info!(listener = name, address = %local_address, "syslog source listens");
    Ok(local_address)
}

async fn start_udp(address: SocketAddr, door: Box<dyn Door>, context: SyslogContext) -> Result<SocketAddr, BindError> {
    loopback(address)?;
    let unheard = |source| BindError::Listen { address, source };
    let socket = udp::bind(address).await.map_err(unheard)?;
    let local_address = socket.local_addr().map_err(unheard)?;
    let supervisor = context.supervisor.clone();
    let datagrams = Datagrams::new(socket, shared("udp", door, context), supervisor.stopping());
    supervisor.spawn("syslog datagrams", datagrams.run());
    tracing::info!(listener = "udp", address = %local_address, "syslog source listens");
    Ok(local_address)
}

fn shared(name: &'static str, door: Box<dyn Door>, context: SyslogContext) -> Arc<Shared> {
    let SyslogContext { targets, own_pod, clock, stats, .. } = context;
    let senders = match own_pod {
        Some(pod) => Senders::OwnPod(pod, targets),
        None => Senders::anybody(),
    };
    Arc::new(Shared::new(name, door, (clock, stats), senders))
}
