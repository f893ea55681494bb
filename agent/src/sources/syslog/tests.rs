//! The source over real sockets and over pipes of memory, in front of a recorder that stands where the intake stands.

mod connections;
mod datagrams;
mod limits;
mod security;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use spillway_delivery::clock::Clock;
use spillway_delivery::intake::{Intake, RefusalReason};
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connection::Connection;
use super::decode::Peer;
use super::shared::{Senders, Shared};
use super::*;
use crate::sources::pushed::recorder::{RECEIVED, Recorder};
use crate::sources::testing;

/// What the source counts and keeps.
struct World {
    recorder: Recorder,
    supervisor: Supervisor,
    stats: Arc<SyslogStats>,
    shared: Arc<Shared>,
}

impl World {
    fn new() -> Self {
        Self::with(Recorder::new(&[("default", "jobs")]))
    }

    fn with(recorder: Recorder) -> Self {
        let (supervisor, stats) = (Supervisor::new("syslog"), Arc::<SyslogStats>::default());
        let parts = (Clock::manual(RECEIVED), stats.clone());
        let shared = Shared::new("tcp", Box::new(recorder.clone()), parts, Senders::anybody());
        Self { recorder, supervisor, stats, shared: Arc::new(shared) }
    }

    fn context(&self) -> SyslogContext {
        SyslogContext {
            intake: Intake,
            targets: PushTargets::default(),
            own_pod: None,
            clock: Clock::manual(RECEIVED),
            supervisor: self.supervisor.clone(),
            stats: self.stats.clone(),
        }
    }

    async fn tcp(&self) -> SocketAddr {
        start_tcp("127.0.0.1:0".parse().unwrap(), Box::new(self.recorder.clone()), self.context()).await.unwrap()
    }

    async fn udp(&self) -> SocketAddr {
        start_udp("127.0.0.1:0".parse().unwrap(), Box::new(self.recorder.clone()), self.context()).await.unwrap()
    }

    /// Makes a connection over a pipe that holds `room` bytes in each direction.
    fn connect(&self, room: usize) -> DuplexStream {
        let (client, server) = tokio::io::duplex(room);
        let peer = Peer::new("127.0.0.1".parse().unwrap(), None);
        let connection = Connection::new(server, peer, self.shared.clone(), self.supervisor.stopping());
        self.supervisor.spawn("connection", connection.run());
        client
    }

    /// Sends all of `bytes` on a connection of its own, closes it, and waits until the other side is closed, too.
    async fn send(&self, bytes: &[u8]) {
        assert_eq!(testing::exchange(self.connect(1 << 16), bytes).await, b"", "nothing is ever answered");
    }

    /// Takes the messages that were kept since.
    fn messages(&self) -> Vec<String> {
        self.events().iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Takes the events that were kept since.
    fn events(&self) -> Vec<Value> {
        self.recorder.payloads().concat().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn figure(&self, figure: Figure) -> u64 {
        self.stats.figure(figure)
    }

    fn limit(&self, name: &str) -> u64 {
        testing::named(self.stats.limits(), name)
    }

    fn malformed(&self, name: &str) -> u64 {
        testing::named(self.stats.kinds(), name)
    }

    fn refused(&self, code: &str) -> u64 {
        self.stats.refusals().get(code).copied().unwrap_or_default()
    }

    /// Lets other tasks go on until `holds`.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        testing::until(|| holds(self), &self.stats).await;
    }

    /// Stops the source; returns whether it ended in time.
    async fn stop(&self) -> bool {
        self.supervisor.stop(Instant::now() + Duration::from_secs(5)).await
    }
}
