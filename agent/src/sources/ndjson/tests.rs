//! The source over real sockets and over pipes of memory, in front of a recorder that stands where the intake stands.

mod answers;
mod ends;
mod limits;
mod lines;
mod security;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use spillway_delivery::clock::Clock;
use spillway_delivery::intake::{Intake, RefusalReason, SubmitError};
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::{TcpStream, UnixStream};

use super::connection::Connection;
use super::shared::{Senders, Shared};
use super::{Figure, NdjsonContext, NdjsonStats, TcpSettings, start_tcp, start_unix};
use crate::sources::pushed::recorder::{RECEIVED, Recorder};
use crate::sources::pushed::security::TlsFiles;
use crate::sources::pushed::sender::Way;
use crate::sources::pushed::targets::PushTargets;
use crate::sources::testing;

/// What the source counts and keeps.
struct World {
    recorder: Recorder,
    supervisor: Supervisor,
    stats: Arc<NdjsonStats>,
    shared: Arc<Shared>,
}

impl World {
    fn new() -> Self {
        Self::with(Recorder::new(&[("default", "jobs")]))
    }

    fn with(recorder: Recorder) -> Self {
        let (supervisor, stats) = (Supervisor::new("ndjson"), Arc::<NdjsonStats>::default());
        let parts = (Clock::manual(RECEIVED), stats.clone());
        let shared = Shared::new(Way::Unix, Box::new(recorder.clone()), parts, Senders::Anybody(None));
        Self { recorder, supervisor, stats, shared: Arc::new(shared) }
    }

    fn context(&self) -> NdjsonContext {
        NdjsonContext {
            intake: Intake,
            targets: PushTargets::default(),
            own_pod: None,
            clock: Clock::manual(RECEIVED),
            supervisor: self.supervisor.clone(),
            stats: self.stats.clone(),
        }
    }

    /// Listens over TCP at loopback.
    async fn tcp(&self, tls: TlsFiles, token_file: Option<std::path::PathBuf>) -> SocketAddr {
        let settings = TcpSettings { address: "127.0.0.1:0".parse().unwrap(), tls, token_file };
        start_tcp(settings, Box::new(self.recorder.clone()), self.context()).await.unwrap()
    }

    /// Makes a connection over a pipe that holds `room` bytes in each direction.
    fn connect(&self, room: usize) -> DuplexStream {
        let (client, server) = tokio::io::duplex(room);
        let connection = Connection::new(server, self.shared.clone(), self.supervisor.stopping());
        self.supervisor.spawn("connection", connection.run());
        client
    }

    /// Makes one, says `hello` and takes the answer.
    async fn greeted(&self, hello: &str) -> Client<DuplexStream> {
        let mut client = Client::new(self.connect(1 << 20));
        client.say(hello).await;
        assert_eq!(client.answer().await, json!({"line": 1, "accepted": 0}));
        client
    }

    /// Sends all of `bytes` on a connection of its own and returns all that is read until its end.
    async fn send(&self, bytes: &[u8]) -> Vec<Value> {
        let answers = testing::exchange(self.connect(1 << 16), bytes).await;
        serde_json::Deserializer::from_slice(&answers).into_iter().collect::<Result<_, _>>().unwrap()
    }

    fn figure(&self, figure: Figure) -> u64 {
        self.stats.figure(figure)
    }

    fn limit(&self, name: &str) -> u64 {
        testing::named(self.stats.limits(), name)
    }

    fn refused(&self, code: &str) -> u64 {
        self.stats.refusals().get(code).copied().unwrap_or_default()
    }

    /// Lets other tasks go on until `holds`.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        testing::until(|| holds(self), &self.stats).await;
    }
}

/// A client that reads answers.
struct Client<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + tokio::io::AsyncWrite + Unpin> Client<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Writes a line.
    async fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Reads an answer.
    async fn answer(&mut self) -> Value {
        self.next().await.expect("an answer")
    }

    /// Reads an answer; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }
}
