//! What a request that is not answered is told: JSON as RFC 9457 has it, with a `reason` for programs.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use spillway_tokens::Refusal;

use crate::hub::{AskError, NotLeading};

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// A word for programs and metrics.
    pub(crate) reason: &'static str,
    /// A line for people.
    pub(crate) detail: String,
    header: Option<(HeaderName, HeaderValue)>,
    /// Whether the connection is of no more use.
    pub(crate) closes: bool,
}

/// What the client reads.
#[derive(Serialize)]
struct Body9457<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    reason: &'static str,
    detail: &'a str,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self { status, reason, detail: detail.into(), header: None, closes: false }
    }

    pub(crate) fn retry(self) -> Self {
        Self { header: Some((RETRY_AFTER, HeaderValue::from_static("1"))), ..self }
    }

    pub(crate) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    pub(crate) fn with(self, name: HeaderName, value: &'static str) -> Self {
        Self { header: Some((name, HeaderValue::from_static(value))), ..self }
    }
}

impl From<NotLeading> for Problem {
    fn from(error: NotLeading) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "not-leader", error.to_string()).retry().closing()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        if refusal.is_about_the_token() {
            let problem = Self::new(StatusCode::UNAUTHORIZED, refusal.reason(), detail);
            return problem.with(WWW_AUTHENTICATE, "Bearer").closing();
        }
        // A pod may be asked for before the watch of pods has told of it.
        Self::new(StatusCode::FORBIDDEN, refusal.reason(), detail).retry().closing()
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::NotLeading => NotLeading.into(),
            AskError::Gone => Self::new(StatusCode::FORBIDDEN, "pod", error.to_string()).retry().closing(),
            AskError::Epoch { .. } => Self::new(StatusCode::BAD_REQUEST, "epoch", error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body9457 {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            reason: self.reason,
            detail: &self.detail,
        };
        let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.header);
        response
    }
}
