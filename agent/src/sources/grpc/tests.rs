//! The source over pipes of memory and real sockets, in front of a recorder that stands where the intake stands. The client is that of
//! `h2`, or frames by hand.

mod calls;
mod ends;
mod hostile;
mod security;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Response};
use serde_json::{Value as Json, json};
use spillway_delivery::clock::Clock;
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

use super::call::Calls;
use super::connection::Connection;
use super::gate::GrpcGate;
use super::message::PREFIX_BYTES;
use super::*;
use crate::sources::otlp::{Signal, to_protobuf};
use crate::sources::pushed::recorder::{RECEIVED, Recorder};
use crate::sources::testing;

const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What a client of gRPC always sends.
const USUAL: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// A source without a listener.
struct World {
    recorder: Recorder,
    supervisor: Supervisor,
    clients: Supervisor,
    stats: Arc<GrpcStats>,
    calls: Arc<Calls>,
}

impl World {
    fn new() -> Self {
        let (recorder, stats) = (Recorder::new(&[("default", "jobs")]), Arc::<GrpcStats>::default());
        let address = "127.0.0.1:0".parse().unwrap();
        let security = ListenerSecurity::check_for(GRPC, address, &TlsFiles::default(), None).unwrap();
        let gate = GrpcGate { security, own_pod: None };
        let clock = Clock::manual(RECEIVED);
        let shared = Shared::new(Box::new(recorder.clone()), clock, stats.of_http().clone(), gate);
        let calls = Arc::new(Calls::new(shared, stats.clone()));
        let [supervisor, clients] = ["grpc", "clients"].map(Supervisor::new);
        Self { recorder, supervisor, clients, stats, calls }
    }

    /// Makes a connection over a pipe.
    fn pipe(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(1 << 16);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let connection = Connection { calls: self.calls.clone(), supervisor: self.supervisor.clone(), address };
        self.supervisor.spawn("connection", connection.run(server));
        client
    }

    async fn connect(&self) -> Client {
        Client::over(self.pipe(), &self.clients).await
    }

    fn limit(&self, name: &str) -> u64 {
        limit(&self.stats, name)
    }

    fn answered(&self, code: &str) -> u64 {
        testing::named(self.stats.calls(), code)
    }

    /// Lets other tasks go on until `holds`.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        testing::until(|| holds(self), &self.stats).await;
    }
}

fn limit(stats: &GrpcStats, name: &str) -> u64 {
    testing::named(stats.limits(), name)
}

/// The other side of a connection.
struct Client {
    requests: SendRequest<Bytes>,
}

/// What a client reads.
#[derive(Debug)]
struct Answer {
    http: u16,
    /// The status of gRPC, where there is one.
    code: Option<u16>,
    message: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Client {
    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, owner: &Supervisor) -> Self {
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        // How it ends is told by what is asked over it.
        owner.spawn("client", async move { drop(connection.await) });
        Self { requests }
    }

    /// Calls with one message.
    async fn export(&mut self, path: &str, message: &[u8]) -> Answer {
        self.call(path, &USUAL, &[&framed(0, message)]).await
    }

    /// Calls with these bytes, a frame each at least.
    async fn call(&mut self, path: &str, headers: &[(&str, &str)], pieces: &[&[u8]]) -> Answer {
        let (answer, mut body) = self.begin(path, headers).await;
        for piece in pieces {
            // Who is refused early may be cut off.
            if body.send_data(Bytes::copy_from_slice(piece), false).is_err() {
                break;
            }
        }
        drop(body.send_data(Bytes::new(), true));
        Answer::read(answer.await.expect("an answer")).await
    }

    /// Begins a call; its message is still to come.
    async fn begin(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut requests = self.requests.clone().ready().await.expect("a connection that is open");
        let mut request = Request::builder().method(Method::POST).uri(format!("http://agent{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        requests.send_request(request.body(()).unwrap(), false).unwrap()
    }
}

impl Answer {
    async fn read(response: Response<RecvStream>) -> Self {
        let (head, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece.unwrap();
            stream.flow_control().release_capacity(piece.len()).unwrap();
            body.extend_from_slice(&piece);
        }
        let mut headers = head.headers;
        headers.extend(stream.trailers().await.unwrap().unwrap_or_default());
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        let code = text("grpc-status").map(|code| code.parse().unwrap());
        let message = text("grpc-message").unwrap_or_default();
        Self { http: head.status.as_u16(), code, message, headers, body }
    }

    /// Returns the message of a call that ended well.
    fn ok(&self) -> &[u8] {
        assert_eq!((self.http, self.code, &*self.message), (200, Some(0), ""), "{self:?}");
        assert_eq!(self.headers["content-type"], "application/grpc");
        let (prefix, message) = self.body.split_at(PREFIX_BYTES);
        assert_eq!(prefix, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
        message
    }

    /// Returns the code of a call that did not.
    fn failed(&self) -> u16 {
        assert_eq!((self.http, self.body.len()), (200, 0), "{self:?}");
        assert!(!self.message.is_empty(), "{self:?}");
        self.code.filter(|code| *code != 0).unwrap_or_else(|| panic!("{self:?}"))
    }

    fn may_come_again(&self) -> bool {
        self.headers.contains_key("grpc-status-details-bin")
    }
}

/// Returns a message behind its prefix.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// Returns a request with these log records.
fn logs(messages: &[&str]) -> Vec<u8> {
    let records: Vec<Json> = messages.iter().map(|text| json!({"body": {"stringValue": text}})).collect();
    let request = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string();
    to_protobuf(Signal::Logs, request.as_bytes()).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
