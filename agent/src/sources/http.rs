//! Events pushed over HTTP: `POST /v1/events`, `/v1/ingest/events`, `/v1/ingest/events:batch`.
//!
//! ```text
//! socket ─► listen ─► stream ─► handler ─► body (decode) ─► pushed::events ─► pushed::targets ─► Intake
//!                                  ▲                                                              │
//!                                  └────────────────────────── answer ◄───────────────────────────┘
//! ```
//!
//! There are listeners of the same make: one for whoever reaches it, or shows the token of its file; that of a sidecar, for the pod
//! that it sits in (`own_pod`); and the door for the pods of the node (`pods`), who prove with their own tokens which pod they are.
//!
//! # Guarantees
//! - `202` and `207` mean that the events named there have reached the durability of every pipeline they were for;
//!   every `4xx`, `5xx` but `500` means that nothing was kept anywhere.
//! - Every answer this source makes has a JSON body, `{"code", "message", …}` for errors. What the HTTP library refuses
//!   by itself (a request line or headers that are no HTTP: 400, too large: 431) has none, and closes the connection.
//! - Whatever is sent, memory is bounded: `limits` names each bound.
//! - Nothing an event says changes what the agent knows: `_spillway` members are taken out, the origin is the agent's.
//!
//! # What it must not know
//! Logs, routes, backends, manifests. It is given its pipelines, and calls the intake.
//!
//! # Limits
//! See `limits`. In short: 1,024 connections, 16 KiB of headers in 10 s, bodies of 16 MiB as sent and as decoded in
//! 120 s with no pause above 30 s, 32 MiB of bodies in memory over all requests, 1 MiB for one event. At the door one sender has
//! 64 connections, 8 MiB for its bodies, and 1,000 requests a second of it (`shares`).

pub(super) mod answer;
pub(super) mod body;
pub(super) mod decode;
pub(super) mod gate;
pub(super) mod handler;
pub(super) mod limits;
mod listen;
pub(super) mod otlp;
mod own_pod;
mod pods;
mod select;
mod shares;
mod stats;
mod stream;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use spillway_delivery::clock::Clock;
use spillway_delivery::intake::Intake;
use spillway_delivery::supervisor::Supervisor;
use tokio::net::TcpListener;

pub use pods::PodSenders;
pub use stats::HttpStats;

use gate::Gate;
use handler::Shared;
use listen::Listener;
use own_pod::OwnPodGate;
use pods::PodGate;

use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::security::{ListenerSecurity, SecurityError, TlsFiles};
use crate::sources::pushed::targets::{Door, Pipelines, PushTargets};

/// What a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Paths {
    /// Events and OTLP.
    #[default]
    All,
    /// OTLP alone.
    Otlp,
}

/// Where to listen, and under which protection.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The address; port 0 takes any free one.
    pub address: SocketAddr,
    /// What is taken there.
    pub paths: Paths,
    /// Certificate and key, needed beyond loopback.
    pub tls: TlsFiles,
    /// The file of the senders' token, needed beyond loopback.
    pub token_file: Option<PathBuf>,
}

/// What the source stands on.
#[derive(Debug, Clone)]
pub struct HttpContext {
    /// The door to the logs.
    pub intake: Intake,
    /// The time of receipt.
    pub clock: Clock,
    /// Owns the source's tasks; its stop ends the source.
    pub supervisor: Supervisor,
    /// What the source counts.
    pub stats: Arc<HttpStats>,
}

/// Why the source cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It may not listen there as it is set up.
    #[error("http source is not protected as it must be")]
    Security(#[from] SecurityError),
    /// The system does not let it.
    #[error("http source cannot listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// The running source. Its tasks belong to the supervisor it was given; dropping this ends nothing.
#[derive(Debug)]
pub struct HttpSource {
    local_address: SocketAddr,
}

impl HttpSource {
    /// Checks the protection, listens, and takes events for `targets` until the supervisor stops.
    pub async fn bind(settings: HttpSettings, targets: PushTargets, context: HttpContext) -> Result<Self, BindError> {
        let HttpSettings { address, paths, tls, token_file } = settings;
        let security = ListenerSecurity::check(address, &tls, token_file.as_deref())?;
        let door = Pipelines::new(context.intake, targets);
        Self::start((address, paths), Box::new(door), security, context).await
    }

    /// The same in a sidecar: takes events for `targets` as those of its pod.
    pub async fn bind_for_own_pod(
        settings: HttpSettings,
        pod: OwnPod,
        targets: PushTargets,
        context: HttpContext,
    ) -> Result<Self, BindError> {
        let HttpSettings { address, paths, tls, token_file } = settings;
        let security = ListenerSecurity::check(address, &tls, token_file.as_deref())?;
        let gate = OwnPodGate { security, pod, targets: targets.clone(), stats: context.stats.clone() };
        let door = Pipelines::new(context.intake, targets);
        Self::start((address, paths), Box::new(door), gate, context).await
    }

    /// Listens with TLS, and takes events of pods for `targets` until the supervisor stops.
    pub async fn bind_for_pods(
        (address, tls): (SocketAddr, &TlsFiles),
        senders: PodSenders,
        targets: PushTargets,
        context: HttpContext,
    ) -> Result<Self, BindError> {
        let gate = PodGate::new(senders, tls, context.stats.clone())?;
        let (looks, stop) = (gate.looks(), context.supervisor.stopping());
        context.supervisor.spawn("door certificate", async move {
            stop.run_until_cancelled(looks).await;
        });
        let door = Pipelines::new(context.intake, targets);
        Self::start((address, Paths::All), Box::new(door), gate, context).await
    }

    /// Returns where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    async fn start(
        (address, paths): (SocketAddr, Paths),
        door: Box<dyn Door>,
        gate: impl Gate,
        context: HttpContext,
    ) -> Result<Self, BindError> {
        let HttpContext { clock, supervisor, stats, .. } = context;
        let unheard = |source| BindError::Listen { address, source };
        let socket = TcpListener::bind(address).await.map_err(unheard)?;
        let local_address = socket.local_addr().map_err(unheard)?;
        let shared = Shared::new(door, clock, stats, gate);
        let listener = Listener::new(shared, paths, supervisor.clone());
        supervisor.spawn("http listener", listener.run(socket));
        tracing::info!(address = %local_address, "http source listens");
        Ok(Self { local_address })
    }
}
