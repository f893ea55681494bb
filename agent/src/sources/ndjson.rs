//! Events pushed as lines over TCP and a Unix socket: one JSON object on each line (NDJSON).
//!
//! ```text
//! socket ─► listen ─► reader (lines) ─► connection ─► batch ─► pushed::targets ─► Intake
//!                                           ▲                                        │
//!                                           └─────────── answer (if asked) ◄─────────┘
//! ```
//!
//! # Guarantees
//! - An answer with `accepted` means that the events of these lines have reached the durability of every pipeline they were for.
//! - Who asks for no answers is not read from while its lines cannot be kept; what it sent and what was not kept when the connection
//!   or the agent ends is lost, and as far as it was read, counted.
//! - Whatever is sent, memory is bounded: `limits` names each bound.
//! - Nothing an event says changes what the agent knows: `_spillway` members are taken out, the origin is the agent's.
//!
//! # What it must not know
//! Logs, routes, backends, manifests, HTTP. It is given its pipelines, and calls the intake.
//!
//! # Limits
//! See `limits`. In short: 1,024 connections, 1 MiB for a line, 32 MiB of lines in flight over all connections.

mod answer;
mod batch;
mod connection;
mod control;
mod limits;
mod listen;
mod reader;
mod shared;
mod socket_file;
mod stats;
mod times;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillway_delivery::clock::Clock;
use spillway_delivery::intake::Intake;
use spillway_delivery::supervisor::Supervisor;
use tokio::net::TcpListener;

pub use socket_file::SocketFileError;
pub use stats::{Figure, NdjsonStats};

use listen::{Listener, Socket};
use shared::{Senders, Shared};

use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::security::{LINES, ListenerSecurity, SecurityError, TlsFiles};
use crate::sources::pushed::sender::Way;
use crate::sources::pushed::targets::{Door, Pipelines, PushTargets};

/// Where to listen over TCP, and under which protection.
#[derive(Debug, Clone)]
pub struct TcpSettings {
    /// The address; port 0 takes any free one.
    pub address: SocketAddr,
    /// Certificate and key, needed beyond loopback.
    pub tls: TlsFiles,
    /// The file of the senders' token, needed beyond loopback.
    pub token_file: Option<PathBuf>,
}

/// What the source stands on.
#[derive(Debug, Clone)]
pub struct NdjsonContext {
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
    pub stats: Arc<NdjsonStats>,
}

/// Why the source cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It may not listen there as it is set up.
    #[error("tcp source is not protected as it must be")]
    Security(#[from] SecurityError),
    /// The system does not let it.
    #[error("tcp source cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The file of the socket cannot be had.
    #[error("unix source cannot listen")]
    File(#[from] SocketFileError),
}

/// Checks the protection, listens over TCP, and takes events until the supervisor stops. Returns where it listens.
pub async fn bind_tcp(settings: TcpSettings, context: NdjsonContext) -> Result<SocketAddr, BindError> {
    let door = Box::new(Pipelines::new(context.intake, context.targets.clone()));
    start_tcp(settings, door, context).await
}

/// Listens at a Unix socket, and takes events until the supervisor stops.
pub async fn bind_unix(path: &Path, context: NdjsonContext) -> Result<(), BindError> {
    let door = Box::new(Pipelines::new(context.intake, context.targets.clone()));
    start_unix(path, door, context).await
}

async fn start_tcp(
    settings: TcpSettings,
    door: Box<dyn Door>,
    context: NdjsonContext,
) -> Result<SocketAddr, BindError> {
    let TcpSettings { address, tls, token_file } = settings;
    let security = ListenerSecurity::check_for(LINES, address, &tls, token_file.as_deref())?;
    let unheard = |source| BindError::Listen { address, source };
    let socket = TcpListener::bind(address).await.map_err(unheard)?;
    let local_address = socket.local_addr().map_err(unheard)?;
    start(Way::Tcp, Socket::Tcp(socket), Some(security), (door, context));
    tracing::info!(address = %local_address, "tcp source listens");
    Ok(local_address)
}

async fn start_unix(path: &Path, door: Box<dyn Door>, context: NdjsonContext) -> Result<(), BindError> {
    let (socket, file) = socket_file::listen(path).await?;
    start(Way::Unix, Socket::Unix(socket, file), None, (door, context));
    tracing::info!(path = %path.display(), "unix source listens");
    Ok(())
}

fn start(
    way: Way,
    socket: Socket,
    security: Option<ListenerSecurity>,
    (door, context): (Box<dyn Door>, NdjsonContext),
) {
    let NdjsonContext { targets, own_pod, clock, supervisor, stats, .. } = context;
    let senders = match own_pod {
        Some(pod) => Senders::OwnPod(security, pod, targets),
        None => Senders::Anybody(security),
    };
    let shared = Arc::new(Shared::new(way, door, (clock, stats), senders));
    let listener = Listener::new(shared, supervisor.clone());
    supervisor.spawn("ndjson listener", listener.run(socket));
}
