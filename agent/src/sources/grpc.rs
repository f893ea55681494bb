//! OTLP over gRPC: `LogsService`, `MetricsService` and `TraceService`, each with `Export`, of `opentelemetry-proto` v1.
//!
//! ```text
//! socket ─► listen ─► connection (HTTP/2) ─► call ─► message ─► http::body ─► sources::otlp ─► http::handler ─► Intake
//!                                             │                                                        │
//!                                             └──────────────────── status ◄───────────────────────────┘
//! ```
//!
//! gRPC is HTTP/2 with a prefix of five bytes before each message and a status in the trailers. Frames, flow control and floods are
//! the business of the crate `h2`; prefix, status and what a call may be are told here; bodies, their bounds, senders, pipelines and
//! keys are those of [`super::http`].
//!
//! # Guarantees
//! - `OK` means that every record but those counted in `partial_success` has reached the durability of every pipeline it was for.
//! - A request is kept whole, or nothing of it is. Whether to send it again follows from its status as the specification of OTLP has
//!   it ([`status`]); `UNAVAILABLE` with the code `unknown` alone may be there twice then.
//! - A call that reached the intake is kept to its end, also when its client is gone: a deadline ends the reading, not the keeping.
//! - Whatever is sent, memory is bounded: [`limits`] names each bound.
//!
//! # What it must not know
//! Logs, routes, backends, manifests, messages of protobuf.
//!
//! # Limits
//! See [`limits`]. In short: 512 connections of 64 calls, 1,024 calls in all, 8 KiB of headers, 128 KiB unread per connection, messages
//! of 16 MiB as sent and as decoded, 32 MiB of them in memory over all calls.
//!
//! Source: the gRPC protocol over HTTP/2 and its status codes; OTLP specification 1.10, "OTLP/gRPC".

mod call;
mod connection;
mod gate;
mod limits;
mod listen;
mod message;
mod stats;
mod status;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use spillway_delivery::clock::Clock;
use spillway_delivery::intake::Intake;
use spillway_delivery::supervisor::Supervisor;
use tokio::net::TcpListener;

pub use stats::GrpcStats;

use call::Calls;
use gate::GrpcGate;
use listen::Listener;

use super::http::handler::Shared;
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::security::{GRPC, ListenerSecurity, SecurityError, TlsFiles};
use crate::sources::pushed::targets::{Door, Pipelines, PushTargets};

/// Where to listen, and under which protection.
#[derive(Debug, Clone)]
pub struct GrpcSettings {
    /// The address; port 0 takes any free one.
    pub address: SocketAddr,
    /// Certificate and key, needed beyond loopback.
    pub tls: TlsFiles,
    /// The file of the senders' token, needed beyond loopback.
    pub token_file: Option<PathBuf>,
}

/// What the source stands on.
#[derive(Debug, Clone)]
pub struct GrpcContext {
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
    pub stats: Arc<GrpcStats>,
}

/// Why the source cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It may not listen there as it is set up.
    #[error("grpc source is not protected as it must be")]
    Security(#[from] SecurityError),
    /// The system does not let it.
    #[error("grpc source cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Checks the protection, listens, and takes telemetry until the supervisor stops. Returns where it listens.
pub async fn bind(settings: GrpcSettings, context: GrpcContext) -> Result<SocketAddr, BindError> {
    let door = Box::new(Pipelines::new(context.intake, context.targets.clone()));
    start(settings, door, context).await
}

async fn start(settings: GrpcSettings, door: Box<dyn Door>, context: GrpcContext) -> Result<SocketAddr, BindError> {
    let GrpcSettings { address, tls, token_file } = settings;
    let GrpcContext { targets, own_pod, clock, supervisor, stats, .. } = context;
    let security = ListenerSecurity::check_for(GRPC, address, &tls, token_file.as_deref())?;
    let unheard = |source| BindError::Listen { address, source };
    let socket = TcpListener::bind(address).await.map_err(unheard)?;
    let local_address = socket.local_addr().map_err(unheard)?;
    let gate = GrpcGate { security, own_pod: own_pod.map(|pod| (pod, targets)) };
    let calls = Calls::new(Shared::new(door, clock, stats.of_http().clone(), gate), stats);
    let listener = Listener::new(Arc::new(calls), supervisor.clone());
    supervisor.spawn("grpc listener", listener.run(socket));
    tracing::info!(address = %local_address, "grpc source listens");
    Ok(local_address)
}
