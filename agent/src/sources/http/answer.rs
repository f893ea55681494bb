//! The answers of the HTTP source, all of them JSON.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use spillway_delivery::event::{BATCH_EVENTS_MAX, EVENT_BYTES_MAX};
use spillway_delivery::intake::{RefusalReason, SubmitError};

use super::Paths;
use super::limits::{
    BODIES_BYTES_MAX, BODY_BYTES_MAX, Limit, MEMBERS_MAX, RATIO_MAX, SENDER_BODIES_BYTES_MAX, SENDER_CONNECTIONS_MAX,
    SENDER_REQUEST_EVERY, WIRE_BYTES_MAX, ZSTD_WINDOW_BYTES_MAX,
};
use crate::sources::pushed::events::{BodyError, Fault, Refusal, RefusalCode, Refusals};
use crate::sources::pushed::targets::NotSelected;

/// A refusal of a whole request.
#[derive(Debug, Clone)]
pub(in crate::sources) struct Refused {
    status: StatusCode,
    body: Box<ErrorBody>,
    header: Option<(HeaderName, HeaderValue)>,
    is_last: bool,
}

/// What a client reads of it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody {
    code: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Item>,
}

/// One refused event.
#[derive(Debug, Clone, Serialize)]
struct Item {
    index: usize,
    code: &'static str,
    line: usize,
    column: usize,
    message: String,
}

#[derive(Serialize)]
struct Accepted {
    accepted: u64,
}

#[derive(Serialize)]
struct PartlyAccepted {
    accepted: u64,
    refused: usize,
    errors: Vec<Item>,
}

/// Returns `202`, or `207` when some events were refused.
pub(super) fn accepted(events: u64, refusals: Refusals) -> Response {
    let refused = refusals.total();
    if refused == 0 {
        return json(StatusCode::ACCEPTED, &Accepted { accepted: events });
    }
    json(StatusCode::MULTI_STATUS, &PartlyAccepted { accepted: events, refused, errors: items(refusals) })
}

impl Refused {
    /// Returns a refusal with `status`.
    pub(in crate::sources) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            body: Box::new(ErrorBody { code, message: message.into(), ..ErrorBody::default() }),
            header: None,
            is_last: false,
        }
    }

    /// Returns `401`.
    pub(in crate::sources) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "expected `Authorization: Bearer` with the agent's token")
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// Says why in other words.
    pub(super) fn because(mut self, code: &'static str, message: String) -> Self {
        (self.body.code, self.body.message) = (code, message);
        self
    }

    /// Returns the status.
    pub(in crate::sources) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the words.
    pub(in crate::sources) fn message(&self) -> &str {
        &self.body.message
    }

    /// Returns after which time to try again, where that is known.
    pub(in crate::sources) fn retry_after(&self) -> Option<Duration> {
        let (_, value) = self.header.as_ref().filter(|(name, _)| name == RETRY_AFTER)?;
        value.to_str().ok()?.parse().ok().map(Duration::from_secs)
    }

    /// Puts the headers of the refusal into an answer of another form.
    pub(super) fn put_headers(self, response: &mut Response) {
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        if self.is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Returns the code that a client reads.
    pub(in crate::sources) fn code(&self) -> &'static str {
        self.body.code
    }

    /// Returns `404`.
    pub(super) fn not_found(paths: Paths) -> Self {
        let message = match paths {
            Paths::All => "no such path, events are taken at POST /v1/events",
            Paths::Otlp => "no such path, OTLP is taken at POST /v1/logs, /v1/metrics and /v1/traces",
        };
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// Returns `422`, where no pipeline is meant.
    pub(super) fn not_selected(why: NotSelected) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, why.code, why.message)
    }

    /// Returns `405`.
    pub(super) fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "events are taken by POST")
            .with(ALLOW, HeaderValue::from_static("POST"))
    }

    /// Returns `415` for an encoding.
    pub(super) fn encoding(found: &str) -> Self {
        let message = format!("content encoding {found:?} is not taken, use one of gzip, zstd, identity");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message)
            .with(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"))
    }

    /// Returns what `limit` of a body means.
    pub(in crate::sources) fn limit(limit: Limit) -> Self {
        let (status, code, message, bound) = limit_text(limit);
        let mut refused = Self::new(status, code, message);
        refused.body.limit = bound;
        // Its connection is one too many.
        refused.is_last = limit == Limit::SenderConnections;
        let is_for_now = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        if is_for_now { refused.after(Duration::from_secs(1)) } else { refused }
    }

    /// Returns what became of a body without events.
    pub(super) fn body(error: BodyError) -> Self {
        match error {
            BodyError::Empty => Self::new(
                StatusCode::BAD_REQUEST,
                "empty_body",
                "line 1, column 1: the body is empty, expected a JSON object, an array of them, or NDJSON",
            )
            .at(1, 1),
            BodyError::Malformed(fault) => Self::fault(fault),
            BodyError::TooManyEvents => Self::limit(Limit::Events),
        }
    }

    /// Returns `413` when every event of a body is too large, else `400`, with what is wrong with the first.
    pub(super) fn all_events(refusals: Refusals) -> Self {
        let total = refusals.total();
        let too_large = refusals.counts[RefusalCode::TooLarge as usize] == total;
        let Some(first) = refusals.listed.first() else {
            return Self::body(BodyError::Empty);
        };
        let mut refused = Self::fault(first.fault.clone());
        if too_large {
            refused.status = StatusCode::PAYLOAD_TOO_LARGE;
            refused.body.limit = Some(EVENT_BYTES_MAX as u64);
        }
        if total > 1 {
            refused.body.refused = Some(total);
            refused.body.errors = items(refusals);
        }
        refused
    }

    /// Returns what the door said.
    pub(super) fn submit(error: &SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Refused { pipeline, reason, retry_after } => {
                let status = match reason {
                    RefusalReason::Full => StatusCode::TOO_MANY_REQUESTS,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                Self::new(status, reason.as_str(), message).of(pipeline).after(*retry_after)
            }
            SubmitError::KeyReused => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message),
            SubmitError::Unknown { pipeline } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "unknown", message).of(pipeline)
            }
        }
    }

    fn fault(fault: Fault) -> Self {
        Self::new(StatusCode::BAD_REQUEST, fault.code.as_str(), fault.message).at(fault.line, fault.column)
    }

    fn at(mut self, line: usize, column: usize) -> Self {
        self.body.line = Some(line);
        self.body.column = Some(column);
        self
    }

    fn of(mut self, pipeline: &str) -> Self {
        self.body.pipeline = Some(pipeline.to_owned());
        self
    }

    /// Adds `Retry-After`: whole seconds, rounded up, at least one.
    pub(in crate::sources) fn after(self, wait: Duration) -> Self {
        let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with(RETRY_AFTER, HeaderValue::from(secs.max(1)))
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.body);
        self.put_headers(&mut response);
        response
    }
}

fn limit_text(limit: Limit) -> (StatusCode, &'static str, String, Option<u64>) {
    let (name, bound, unit) = match limit {
        Limit::WireBytes => ("the body", WIRE_BYTES_MAX, "bytes as it is sent"),
        Limit::Ratio => ("the encoded body", RATIO_MAX, "decoded bytes for each byte sent"),
        Limit::Members => ("the encoded body", u64::from(MEMBERS_MAX), "members or frames"),
        Limit::ZstdWindow => ("a zstd frame of the body", ZSTD_WINDOW_BYTES_MAX, "bytes of window"),
        Limit::Events => ("the body", BATCH_EVENTS_MAX as u64, "events"),
        Limit::BodiesBytes => {
            let message = format!("requests under way fill {BODIES_BYTES_MAX} bytes, nothing was kept");
            return (StatusCode::SERVICE_UNAVAILABLE, "busy", message, Some(BODIES_BYTES_MAX as u64));
        }
        Limit::SenderBodiesBytes => {
            let message =
                format!("requests of this sender under way fill {SENDER_BODIES_BYTES_MAX} bytes, nothing was kept");
            return (StatusCode::SERVICE_UNAVAILABLE, limit.as_str(), message, Some(SENDER_BODIES_BYTES_MAX as u64));
        }
        Limit::SenderConnections => {
            let message = format!("this sender has {SENDER_CONNECTIONS_MAX} other connections, nothing was kept");
            return (StatusCode::SERVICE_UNAVAILABLE, limit.as_str(), message, Some(SENDER_CONNECTIONS_MAX as u64));
        }
        Limit::SenderRequests => {
            let most = 1_000 / SENDER_REQUEST_EVERY.as_millis() as u64;
            let message =
                format!("this sender may make {most} requests a second, nothing was kept: send several events in one");
            return (StatusCode::TOO_MANY_REQUESTS, limit.as_str(), message, Some(most));
        }
        Limit::BodyIdleTime | Limit::BodyTime => {
            let message = "the body came too slowly, nothing was kept".to_owned();
            return (StatusCode::REQUEST_TIMEOUT, limit.as_str(), message, None);
        }
        Limit::SenderBody => ("the body", SENDER_BODIES_BYTES_MAX as u64, "bytes of memory while it is read"),
        _ => ("the body", BODY_BYTES_MAX as u64, "bytes once decoded"),
    };
    let message = format!("{name} may have at most {bound} {unit}, nothing was kept");
    (StatusCode::PAYLOAD_TOO_LARGE, limit.as_str(), message, Some(bound))
}

fn items(refusals: Refusals) -> Vec<Item> {
    let item = |refusal: Refusal| {
        let Fault { code, line, column, message } = refusal.fault;
        Item { index: refusal.index, code: code.as_str(), line, column, message }
    };
    refusals.listed.into_iter().map(item).collect()
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Plain structs of strings and numbers always have a JSON form.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
