//! How a call ended, as gRPC says it.
//!
//! # What a client makes of it
//! By the specification of OTLP a client sends again what ended with `UNAVAILABLE`, `DEADLINE_EXCEEDED` or `CANCELLED`, and with
//! `RESOURCE_EXHAUSTED` where there is a `RetryInfo`; it drops what ended with any other. So what may be kept later is `UNAVAILABLE`,
//! or `RESOURCE_EXHAUSTED` with a `RetryInfo` where a log is full, and what will never fit is `RESOURCE_EXHAUSTED` without one.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::limits::WORDS_BYTES_MAX;
use crate::sources::http::answer::Refused;
use crate::sources::http::otlp::grpc_code;
use crate::sources::otlp;

/// Says how a call ended, in its trailers.
const STATUS: &str = "grpc-status";

/// The codes of gRPC, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    /// Every code, in the order of their numbers.
    pub(super) const ALL: [Self; 17] = [
        Self::Ok,
        Self::Cancelled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// Returns its name.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::DataLoss => "DATA_LOSS",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// Why a call did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) code: Code,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
}

impl Failed {
    /// Returns a failure that a client does not mend by sending again, unless its code says so.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// Says when it may be otherwise.
    pub(super) fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        let code = Code::ALL.get(grpc_code(refused.status()) as usize).copied().unwrap_or(Code::Unknown);
        let message = format!("{}: {}", refused.code(), refused.message());
        Self { code, message, retry_after: refused.retry_after() }
    }
}

/// Returns the headers of an answer, which has a message and trailers.
pub(super) fn headers() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Returns the trailers behind a message.
pub(super) fn well() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(STATUS), HeaderValue::from_static("0"))])
}

/// Returns the headers of an answer that has nothing else.
pub(super) fn failed(failed: &Failed) -> Response<()> {
    let mut response = headers();
    let headers = response.headers_mut();
    let message = cut(&failed.message);
    headers.insert(STATUS, HeaderValue::from(failed.code as u16));
    if let Ok(message) = HeaderValue::from_str(&encoded(message)) {
        headers.insert("grpc-message", message);
    }
    if failed.code == Code::Unimplemented {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,gzip"));
    }
    if let Some(wait) = failed.retry_after {
        // The first is what the specification says, the second is where the SDK for Python looks.
        for (name, details) in [
            ("grpc-status-details-bin", otlp::status(failed.code as u64, message, Some(wait))),
            ("google.rpc.retryinfo-bin", otlp::retry_info(wait)),
        ] {
            if let Ok(details) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(details)) {
                headers.insert(name, details);
            }
        }
    }
    response
}

/// Returns an answer to what is no call of gRPC at all.
pub(super) fn foreign(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

/// Returns the front of a text that is longer than it may be.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(WORDS_BYTES_MAX)]
}

/// Returns a text as `grpc-message` has it: what is no visible ASCII, and `%`, in hexadecimal digits.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // A text takes what is written.
            write!(out, "%{byte:02X}").ok();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::limits::Limit;

    #[test]
    fn codes_are_where_their_numbers_say() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index);
        }
        assert_eq!(Code::Unauthenticated as u16, 16);
    }

    #[test]
    fn what_is_refused_says_whether_to_send_again() {
        let of = |status| Failed::from(Refused::new(StatusCode::from_u16(status).unwrap(), "code", "words"));
        for (status, code) in [
            (400, Code::InvalidArgument),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (408, Code::DeadlineExceeded),
            (413, Code::ResourceExhausted),
            (415, Code::Unimplemented),
            (422, Code::NotFound),
            (429, Code::ResourceExhausted),
            (500, Code::Unavailable),
            (503, Code::Unavailable),
        ] {
            assert_eq!(of(status), Failed::new(code, "code: words"), "{status}");
        }
        // What never fits has no time to come again, what is busy has.
        assert_eq!(Failed::from(Refused::limit(Limit::BodyBytes)).retry_after, None);
        let busy = Failed::from(Refused::limit(Limit::BodiesBytes));
        assert_eq!((busy.code, busy.retry_after), (Code::Unavailable, Some(Duration::from_secs(1))));
    }

    #[test]
    fn words_are_cut_and_travel_as_ascii() {
        let long = Failed::new(Code::Internal, format!("100% \u{e9}\n{}", "\u{e9}".repeat(WORDS_BYTES_MAX)));
        let response = failed(&long);
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.starts_with("100%25 %C3%A9%0A%C3%A9"), "{message}");
        assert!(message.len() <= 3 * WORDS_BYTES_MAX && message.ends_with("%C3%A9"));
        assert_eq!((&response.headers()["grpc-status"], response.status()), (&HeaderValue::from(13), StatusCode::OK));
        assert!(!response.headers().contains_key("grpc-status-details-bin"));
    }
}
