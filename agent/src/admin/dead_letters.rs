//! The part of the endpoint that shows payload data: dead letters.
//!
//! Without TLS and token it is for programs of this machine alone. A page in a browser must not reach it: the `Host` is an
//! address or `localhost` (a name that was rebound is neither), and a body is `application/json` (which another origin
//! may not send without asking, and nobody answers that question).

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Router, body::Bytes};
use serde::de::DeserializeOwned;
use serde_json::json;
use spillway_delivery::deliver::Desk;
use spillway_delivery::deliver::dead_letters::{IDS_MAX, PAGE_LETTERS};

use super::answer;
use crate::dead_letters::LettersQuery;
use crate::overview::Overview;

/// Most bytes of a request's body: a thousand ids and what else selects.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Returns the paths and `more` under the same guard. `secured` says that every request has shown the token over TLS.
pub(super) fn router(secured: bool, more: Router<Arc<Overview>>) -> Router<Arc<Overview>> {
    let guard = middleware::from_fn(move |request: Request, next: Next| guarded(secured, request, next));
    Router::new()
        .route("/v1/dead-letters/list", post(list))
        .route("/v1/dead-letters/show", post(show))
        .merge(more)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(guard)
}

async fn guarded(secured: bool, request: Request, next: Next) -> Response {
    match refusal(secured, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

fn refusal(secured: bool, request: &Request) -> Option<Response> {
    let shown = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !secured && !is_local(shown(header::HOST)) {
        let message = "without TLS and token this is asked by address: the host must be an IP address or localhost";
        return Some(refuse(StatusCode::FORBIDDEN, "not-local", message));
    }
    let media_type = shown(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    if request.method() == Method::POST && !media_type.eq_ignore_ascii_case("application/json") {
        let message = "the content type must be application/json";
        return Some(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", message));
    }
    None
}

/// Reads a request's body.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Box<Response>> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the body is not understood: {error}");
        Box::new(refuse(StatusCode::BAD_REQUEST, "not-understood", &message))
    })
}

/// Whether a `Host` header names no name that somebody else could point here.
fn is_local(host: &str) -> bool {
    let address = host.parse::<std::net::SocketAddr>().is_ok()
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    address || name.eq_ignore_ascii_case("localhost")
}

async fn list(State(overview): State<Arc<Overview>>, body: Bytes) -> Response {
    let found = read(&body).and_then(|query: LettersQuery| Ok((desks(&overview, &query)?, query)));
    let (desks, query) = match found {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let mut groups = Vec::with_capacity(desks.len());
    for desk in desks {
        match desk.dead_letters().groups(&query.selection, &name(&desk)).await {
            Ok(of_pipeline) => groups.push(of_pipeline),
            Err(error) => return unreadable(&error),
        }
    }
    answer(StatusCode::OK, &groups)
}

async fn show(State(overview): State<Arc<Overview>>, body: Bytes) -> Response {
    let found = read(&body).and_then(|query: LettersQuery| Ok((desks(&overview, &query)?, query)));
    let (desks, query) = match found {
        Ok(found) => found,
        Err(refusal) => return *refusal,
    };
    let [desk] = desks.as_slice() else {
        return refuse(StatusCode::BAD_REQUEST, "which-pipeline", "name one pipeline");
    };
    let limit = query.limit.unwrap_or(PAGE_LETTERS);
    let page = match desk.dead_letters().page(&query.selection, query.from, limit).await {
        Ok(page) => page,
        Err(error) => return unreadable(&error),
    };
    let mut body = b"{\"letters\":[".to_vec();
    let lines: Vec<&[u8]> = page.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    body.extend(lines.join(&b','));
    body.extend_from_slice(format!("],\"next\":{}}}\n", json!(page.next)).as_bytes());
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Returns the desks of the pipelines that are meant, or what to answer.
pub(super) fn desks(overview: &Overview, query: &LettersQuery) -> Result<Vec<Arc<Desk>>, Box<Response>> {
    if query.selection.ids.len() > IDS_MAX {
        let message = format!("{} ids, allowed: at most {IDS_MAX}", query.selection.ids.len());
        return Err(Box::new(refuse(StatusCode::BAD_REQUEST, "too-many-ids", &message)));
    }
    let mut desks = overview.desks();
    let Some(wanted) = &query.pipeline else { return Ok(desks) };
    let known: Vec<String> = desks.iter().map(|desk| name(desk)).collect();
    desks.retain(|desk| name(desk) == *wanted);
    if desks.is_empty() {
        let message = format!("no pipeline {wanted} runs here; found: {}", known.join(", "));
        return Err(Box::new(refuse(StatusCode::NOT_FOUND, "no-pipeline", &message)));
    }
    Ok(desks)
}

/// Returns how people write the pipeline.
pub(super) fn name(desk: &Desk) -> String {
    let settings = desk.pipeline().settings();
    format!("{}/{}", settings.namespace, settings.name)
}

pub(super) fn refuse(status: StatusCode, code: &str, message: &str) -> Response {
    answer(status, &json!({ "code": code, "message": message }))
}

fn unreadable(error: &spillway_delivery::log::ReadError) -> Response {
    tracing::error!(error = %error, "dead letters cannot be read");
    refuse(StatusCode::INTERNAL_SERVER_ERROR, "unreadable", "dead letters cannot be read; the agent's log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_local() {
        for host in ["127.0.0.1:8412", "127.0.0.1", "[::1]:8412", "::1", "localhost", "LocalHost:8412", "10.0.0.7:8412"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "evil.example.test", "evil.example.test:8412", "127.0.0.1.example.test", "localhost.example.test"]
        {
            assert!(!is_local(host), "{host}");
        }
    }
}
