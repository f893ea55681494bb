//! One call: what its headers say, its message, its events, and how it ended.
//!
//! # Expected flow
//! What headers can say is looked at before the message is read: whether it is a call of gRPC at all, who sends, which method, the
//! encoding, the deadline, key and pipeline. Then the message is read and cut into events, within the deadline; then the events are
//! kept, whatever becomes of the client meanwhile; then the client is told.
//!
//! # Cancel safety
//! A call that is dropped before its events are handed over keeps nothing; behind that it may have kept them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode, request};
use spillway_delivery::event::IdempotencyKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::limits::{BUSY_AGAIN, CALLS_MAX, HEADER_BYTES_MAX, Hit};
use super::message::{Message, NoMessage, PREFIX_BYTES};
use super::stats::GrpcStats;
use super::status::{self, Code, Failed};
use crate::sources::http::body::{CUT, ReadBody, ReadError};
use crate::sources::http::decode::Coding;
use crate::sources::http::handler::{self, Asked, Given, Shared};
use crate::sources::http::limits::Limit;
use crate::sources::http::otlp::written;
use crate::sources::otlp::{self, Signal, Written};
use crate::sources::pushed::budget::Lease;
use crate::sources::pushed::sender::Sender;
use crate::sources::pushed::targets::Selection;

/// The methods that there are.
const METHODS: [(&str, Signal); 3] = [
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", Signal::Logs),
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Signal::Metrics),
    ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", Signal::Traces),
];

/// What each header costs beside its bytes, by the count of HTTP/2.
const HEADER_EXTRA_BYTES: usize = 32;

/// What all calls of a listener share.
pub(super) struct Calls {
    pub(super) shared: Arc<Shared>,
    pub(super) stats: Arc<GrpcStats>,
    places: Arc<Semaphore>,
}

impl Calls {
    /// Returns what calls need.
    pub(super) fn new(shared: Arc<Shared>, stats: Arc<GrpcStats>) -> Self {
        Self { shared, stats, places: Arc::new(Semaphore::new(CALLS_MAX)) }
    }

    /// Returns a place for a call; `None` where as many are under way as may be.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().inspect_err(|_| self.stats.hit(Hit::Calls)).ok()
    }

    /// Answers that there is no place. Returns whether the client may still read it.
    pub(super) fn turn_away(&self, respond: SendResponse<Bytes>) -> bool {
        let why = "busy: as many calls are under way as may be, nothing was kept";
        let busy = Failed::new(Code::Unavailable, why).after(BUSY_AGAIN);
        self.answer(respond, Outcome::Failed(busy))
    }

    /// Takes a call from `address`. Returns whether its client was there to the end.
    pub(super) async fn take(
        &self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        address: IpAddr,
    ) -> bool {
        let (head, stream) = request.into_parts();
        let outcome = match foreign(&head) {
            Some(status) => Outcome::Foreign(status),
            None => self.export(head, stream, address).await.map_or_else(Outcome::Failed, Outcome::Kept),
        };
        self.answer(respond, outcome)
    }

    /// Reads and keeps what a call brings; returns the answer.
    async fn export(&self, head: request::Parts, stream: RecvStream, address: IpAddr) -> Result<Vec<u8>, Failed> {
        let (wanted, sender) = self.wanted(&head, address)?;
        drop(head);
        let deadline = wanted.deadline;
        let reading = Box::pin(self.read(wanted, &sender, stream));
        let read = match deadline {
            None => reading.await?,
            Some(deadline) => timeout_at(deadline, reading).await.map_err(|_| self.too_late())??,
        };
        if !read.ends.is_empty() {
            let events = (read.payload, read.ends);
            handler::keep(&self.shared, &sender, read.selection, events, read.key).await?;
        }
        drop(read.lease);
        Ok(otlp::success(&read.refused))
    }

    /// Looks at the headers.
    fn wanted(&self, head: &request::Parts, address: IpAddr) -> Result<(Wanted, Sender), Failed> {
        let headers = &head.headers;
        if bytes_of(headers) > HEADER_BYTES_MAX {
            self.shared.stats.limited(Limit::HeaderBytes);
            let why = format!("header_bytes: the metadata may have at most {HEADER_BYTES_MAX} bytes");
            return Err(Failed::new(Code::ResourceExhausted, why));
        }
        let sender = self.shared.gate.admit(headers, address)?;
        let path = head.uri.path();
        let Some((_, signal)) = METHODS.into_iter().find(|(known, _)| *known == path) else {
            let why = "unknown_method: taken is Export of the LogsService, MetricsService and TraceService of OTLP";
            return Err(Failed::new(Code::Unimplemented, why));
        };
        let deadline = deadline(headers)?;
        let encoding = encoding(headers)?;
        let asked = handler::asked(&self.shared, &sender, headers)?;
        Ok((Wanted { signal, encoding, deadline, asked }, sender))
    }

    async fn read(&self, wanted: Wanted, sender: &Sender, stream: RecvStream) -> Result<Read, Failed> {
        let message = Message::open(stream).await.map_err(|why| self.no_message(why))?;
        let coding = match (message.is_compressed, wanted.encoding) {
            (false, _) => Coding::Identity,
            (true, Some(coding)) => coding,
            (true, None) => {
                let why = "malformed_encoding: the message is compressed, and no grpc-encoding says how";
                return Err(Failed::new(Code::Internal, why));
            }
        };
        let body = (Body::new(message), coding);
        let Given { body: ReadBody { bytes, mut lease }, selection, key } =
            handler::read(&self.shared, sender, wanted.asked, body).await?;
        let Written { payload, ends, refused } = written(&self.shared, wanted.signal, &bytes, &mut lease).await?;
        Ok(Read { payload, ends, refused, lease, selection, key })
    }

    fn no_message(&self, why: NoMessage) -> Failed {
        match why {
            NoMessage::None => {
                Failed::new(Code::Unimplemented, "no_message: a call has one message, and there is none")
            }
            NoMessage::Flag(flag) => {
                let why = format!("malformed: the first byte of a message is 0 or 1, and it is {flag}");
                Failed::new(Code::Internal, why)
            }
            NoMessage::Limit(limit) => handler::limited(&self.shared, limit).into(),
            NoMessage::Cut => handler::unread(&self.shared, ReadError::Broken(CUT)).into(),
        }
    }

    fn too_late(&self) -> Failed {
        self.stats.hit(Hit::Deadline);
        Failed::new(Code::DeadlineExceeded, "deadline: the time of the call was over, nothing was kept")
    }

    /// Answers a call. Returns whether its client may still read it.
    fn answer(&self, mut respond: SendResponse<Bytes>, outcome: Outcome) -> bool {
        let (code, sent) = match outcome {
            Outcome::Kept(body) => (Code::Ok, send(&mut respond, &body)),
            Outcome::Failed(failed) => {
                let sent = respond.send_response(status::failed(&failed), true).map(drop);
                (failed.code, sent)
            }
            Outcome::Foreign(status) => (Code::Unknown, respond.send_response(status::foreign(status), true).map(drop)),
        };
        let is_there = sent.is_ok();
        self.stats.answered(if is_there { code } else { Code::Cancelled });
        if !is_there {
            respond.send_reset(Reason::CANCEL);
        }
        is_there
    }
}

/// How a call ended.
enum Outcome {
    /// Well, with this message.
    Kept(Vec<u8>),
    Failed(Failed),
    /// It is none of gRPC.
    Foreign(StatusCode),
}

/// What the headers of a call ask for.
struct Wanted {
    signal: Signal,
    encoding: Option<Coding>,
    deadline: Option<Instant>,
    asked: Asked,
}

/// The events of a call, ready to be kept.
struct Read {
    payload: Vec<u8>,
    ends: Vec<u32>,
    refused: [u64; 3],
    lease: Lease,
    selection: Selection,
    key: Option<IdempotencyKey>,
}

fn send(respond: &mut SendResponse<Bytes>, body: &[u8]) -> Result<(), h2::Error> {
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + body.len());
    message.put_u8(0);
    // An answer has some words.
    message.put_u32(body.len() as u32);
    message.put_slice(body);
    let mut stream = respond.send_response(status::headers(), false)?;
    stream.send_data(message.freeze(), false)?;
    stream.send_trailers(status::well())
}

/// Returns the status of HTTP for what is no call of gRPC.
fn foreign(head: &request::Parts) -> Option<StatusCode> {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let is_ours =
        ["application/grpc", "application/grpc+proto"].iter().any(|ours| media_type.eq_ignore_ascii_case(ours));
    match (head.method == Method::POST, is_ours) {
        (false, _) => Some(StatusCode::METHOD_NOT_ALLOWED),
        (true, false) => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (true, true) => None,
    }
}

fn bytes_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_EXTRA_BYTES).sum()
}

/// Returns the encoding that a compressed message has.
fn encoding(headers: &HeaderMap) -> Result<Option<Coding>, Failed> {
    match headers.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
        None => Ok(None),
        Some(b"identity") => Ok(Some(Coding::Identity)),
        Some(b"gzip") => Ok(Some(Coding::Gzip)),
        Some(other) => {
            let found = String::from_utf8_lossy(other);
            let why = format!("unsupported_encoding: grpc-encoding {found:?} is not taken, send gzip or identity");
            Err(Failed::new(Code::Unimplemented, why))
        }
    }
}

/// Returns when the call is over for its client: at most eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Result<Option<Instant>, Failed> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(timeout_of).ok_or_else(|| {
        let why = "invalid_timeout: grpc-timeout must be one to eight digits and one of H, M, S, m, u, n";
        Failed::new(Code::InvalidArgument, why)
    })?;
    Ok(Some(Instant::now() + timeout))
}

fn timeout_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u64 = digits.parse().ok().filter(|_| is_number)?;
    // Eight digits of hours are 11,000 years.
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, seconds) in [("5S", 5.0), ("99999999m", 99_999.999), ("1H", 3600.0), ("2M", 120.0), ("3u", 3e-6)] {
            assert!((timeout_of(text).unwrap().as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
        for bad in ["", "S", "5", "5s", "+5S", "123456789S", "1 S", "-1S", "5\u{e9}"] {
            assert_eq!(timeout_of(bad), None, "{bad}");
        }
        // The clock takes the longest.
        assert!(Instant::now().checked_add(timeout_of("99999999H").unwrap()).is_some());
    }
}
