//! The source over real sockets, in front of a recorder that stands where the intake stands.

mod connections;
mod errors;
mod forms;
mod limits;
mod otlp;
mod pipelines;
mod pods;
mod security;
mod sidecars;

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use spillway_delivery::clock::Clock;
use spillway_delivery::intake::{Intake, SubmitError};
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{HttpContext, HttpSettings, HttpSource, HttpStats, Paths};
use crate::sources::pushed::recorder::{RECEIVED, Recorder};
use crate::sources::pushed::security::{ListenerSecurity, TlsFiles};
use crate::sources::pushed::sender::Sender;
use crate::sources::pushed::targets::{Door, Selection, Submission};

/// A running source.
struct Server {
    address: SocketAddr,
    recorder: Recorder,
    supervisor: Supervisor,
    stats: Arc<HttpStats>,
}

impl Server {
    async fn start() -> Self {
        Self::with(Recorder::new(&[("default", "jobs")])).await
    }

    async fn with(recorder: Recorder) -> Self {
        let settings = HttpSettings {
            address: "127.0.0.1:0".parse().unwrap(),
            paths: Paths::All,
            tls: TlsFiles::default(),
            token_file: None,
        };
        Self::with_settings(recorder, settings).await
    }

    async fn with_settings(recorder: Recorder, settings: HttpSettings) -> Self {
        let supervisor = Supervisor::new("http");
        let stats = Arc::<HttpStats>::default();
        let context = HttpContext {
            intake: Intake,
            clock: Clock::manual(RECEIVED),
            supervisor: supervisor.clone(),
            stats: stats.clone(),
        };
        let HttpSettings { address, paths, tls, token_file } = settings;
        let security = ListenerSecurity::check(address, &tls, token_file.as_deref()).unwrap();
        let source = HttpSource::start((address, paths), Box::new(recorder.clone()), security, context).await.unwrap();
        Self { address: source.local_address(), recorder, supervisor, stats }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Posts `body` with `headers` (each with its line end) on a connection of its own.
    async fn post(&self, headers: &str, body: &[u8]) -> Answer {
        self.send(&request("/v1/events", headers, body)).await
    }

    /// Writes `bytes` on a connection of its own and reads one answer.
    async fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        let (mut reader, mut writer) = stream.split();
        // A source that refuses early may close before all is written.
        let (_, answer) = tokio::join!(writer.write_all(bytes), Answer::read(&mut reader));
        answer.expect("an answer")
    }

    fn limit(&self, name: &str) -> u64 {
        self.stats.limits().find(|(limit, _)| *limit == name).unwrap().1
    }

    fn answered(&self, status: u16) -> u64 {
        self.stats.requests().find(|(known, _)| *known == status).unwrap().1
    }
}

/// Writes all of `bytes` to the socket: a TLS stream keeps what the socket has no room for until it is flushed.
async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Returns a whole request.
fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes =
        format!("POST {path} HTTP/1.1\r\nhost: agent\r\n{headers}content-length: {length}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What a client reads.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Reads one answer; `None` when the connection ends first.
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = value(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        Some(Self { status, head, body: String::from_utf8(body).unwrap() })
    }

    fn header(&self, name: &str) -> Option<&str> {
        value(&self.head, name)
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns the code of an error, and checks that it has a message.
    fn code(&self) -> String {
        let json = self.json();
        assert!(json["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
        json["code"].as_str().unwrap().to_owned()
    }
}

fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}
