//! OTLP over HTTP: `POST /v1/logs`, `/v1/metrics`, `/v1/traces`, in protobuf or in OTLP's JSON.
//!
//! ```text
//! body ─► sources::otlp ─► events ─► targets ─► Intake
//! ```
//!
//! # Guarantees
//! - `200` means that every record but those counted in `partialSuccess` has reached the durability of every pipeline it was for.
//! - A request is kept whole, or nothing of it is: what is answered `429` or `503` was not kept, or it is not known whether
//!   (code `unknown`), and is sent again by every client of OTLP. The protocol has no keys for that, but a client may send
//!   `Idempotency-Key` here too.
//! - Answers are of the encoding of the request, errors as `google.rpc.Status`.
//!
//! # Must not know
//! Who sends and which pipelines there are: that is what the source around it decides.
//!
//! # Limits
//! Those of any body, and of [`crate::sources::otlp`].
//!
//! Source: OTLP specification 1.10, "OTLP/HTTP".

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use spillway_delivery::event::BATCH_BYTES_MAX;

use super::answer::Refused;
use super::body::ReadBody;
use super::handler::{self, Given, Shared};
use super::limits::Limit;
use crate::sources::otlp::{self, Error, Signal, Written};
use crate::sources::pushed::budget::Lease;
use crate::sources::pushed::events::RefusalCode;
use crate::sources::pushed::sender::Sender;

/// Where each signal is taken.
pub(super) const PATHS: [(&str, Signal); 3] =
    [("/v1/logs", Signal::Logs), ("/v1/metrics", Signal::Metrics), ("/v1/traces", Signal::Traces)];

/// The encodings of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

impl Encoding {
    const ALL: [Self; 2] = [Self::Protobuf, Self::Json];

    fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }

    fn of(headers: &HeaderMap) -> Result<Self, Refused> {
        let value = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let found = value.unwrap_or_default();
        let media_type = found.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|one| media_type.eq_ignore_ascii_case(one.content_type())).ok_or_else(|| {
            let message = format!(
                "content type {media_type:?} is not taken here, send application/x-protobuf or application/json"
            );
            Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
        })
    }

    fn answer(self, status: StatusCode, body: Vec<u8>) -> Response {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        response
    }
}

/// Takes a request of `signal`.
pub(super) async fn take(signal: Signal, State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let encoding = Encoding::of(&head.headers);
    let answered = match (&encoding, head.extensions.get::<Sender>()) {
        (Err(refused), _) => Err(refused.clone()),
        (_, None) => Err(Refused::unauthorized()),
        (Ok(encoding), Some(sender)) => taken(&shared, (signal, *encoding), sender, &head.headers, body).await,
    };
    let encoding = encoding.unwrap_or(Encoding::Json);
    match answered {
        Ok(refused) => {
            let body = match encoding {
                Encoding::Protobuf => otlp::success(&refused),
                Encoding::Json => otlp::success_json(signal, &refused),
            };
            encoding.answer(StatusCode::OK, body)
        }
        Err(refused) => refuse(encoding, refused),
    }
}

async fn taken(
    shared: &Shared,
    (signal, encoding): (Signal, Encoding),
    sender: &Sender,
    headers: &HeaderMap,
    body: Body,
) -> Result<[u64; 3], Refused> {
    let Given { body: ReadBody { bytes, mut lease }, selection, key } =
        handler::given(shared, sender, headers, body).await?;
    let request = match encoding {
        Encoding::Protobuf => bytes,
        Encoding::Json => {
            // What is made of it, and what is made for a part of that.
            lease.grow(2 * bytes.len()).await.map_err(|found| handler::limited(shared, found.into()))?;
            otlp::to_protobuf(signal, &bytes).map_err(|error| malformed(shared, &error.to_string()))?
        }
    };
    let Written { payload, ends, refused } = written(shared, signal, &request, &mut lease).await?;
    if !ends.is_empty() {
        handler::keep(shared, sender, selection, (payload, ends), key).await?;
    }
    drop(lease);
    Ok(refused)
}

/// Writes the events of a request in protobuf, and counts what of it is none; the memory for it is leased, also for the events until
/// they are kept.
pub(in crate::sources) async fn written(
    shared: &Shared,
    signal: Signal,
    request: &[u8],
    lease: &mut Lease,
) -> Result<Written, Refused> {
    let limited = |limit| handler::limited(shared, limit);
    let (mut room, mut paid) = (request.len().saturating_mul(4).max(ROOM_BYTES_MIN), 0);
    let written = loop {
        room = room.min(BATCH_BYTES_MAX);
        lease.grow(room - paid).await.map_err(|found| limited(found.into()))?;
        paid = room;
        match otlp::events(signal, request, shared.arena(room), room) {
            Ok(written) => break written,
            // Its resources and scopes are written once for each record.
            Err(Error::Room) if room < BATCH_BYTES_MAX => room = room.saturating_mul(4),
            Err(Error::Room) => return Err(limited(Limit::BodyBytes)),
            Err(Error::Events) => return Err(limited(Limit::Events)),
            Err(Error::Wire(error)) => {
                return Err(malformed(shared, &format!("the body is no request of OTLP: {error}")));
            }
        }
    };
    let codes = [RefusalCode::TooLarge, RefusalCode::TooDeep, RefusalCode::Malformed];
    for (code, count) in codes.into_iter().zip(written.refused) {
        shared.stats.refused(code, count);
    }
    if !written.ends.is_empty() {
        lease.hold_events(written.ends.len()).await.map_err(|found| limited(found.into()))?;
    }
    Ok(written)
}

/// Least room for the events of a request; most requests need no second try.
const ROOM_BYTES_MIN: usize = 64 << 10;

fn malformed(shared: &Shared, why: &str) -> Refused {
    shared.stats.refused(RefusalCode::Malformed, 1);
    Refused::new(StatusCode::BAD_REQUEST, RefusalCode::Malformed.as_str(), format!("{why}; nothing was kept"))
}

/// Returns a refusal as `google.rpc.Status`, under a status that says whether to send again.
fn refuse(encoding: Encoding, refused: Refused) -> Response {
    // `500` would have a client throw away what it may send again: what is not known to be kept.
    let status = if refused.status() == StatusCode::INTERNAL_SERVER_ERROR {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        refused.status()
    };
    let message = format!("{}: {}", refused.code(), refused.message());
    let code = grpc_code(status);
    let body = match encoding {
        Encoding::Protobuf => otlp::status(code, &message, None),
        Encoding::Json => serde_json::json!({"code": code, "message": message}).to_string().into_bytes(),
    };
    let mut response = encoding.answer(status, body);
    refused.put_headers(&mut response);
    response
}

/// Returns the code of gRPC that says the same as a status of HTTP.
pub(in crate::sources) fn grpc_code(status: StatusCode) -> u64 {
    match status.as_u16() {
        401 => 16,
        403 => 7,
        404 | 422 => 5,
        408 => 4,
        413 | 429 => 8,
        415 => 12,
        500 | 503 => 14,
        _ => 3,
    }
}
