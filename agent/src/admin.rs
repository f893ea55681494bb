//! The admin endpoint: is it alive, is it ready, what are its figures. No payload data in any answer but those of
//! `/v1/dead-letters`.
//!
//! | path | answer |
//! | --- | --- |
//! | `/livez` | 200 while the runtime makes progress, 503 when it is stuck |
//! | `/readyz` | 200 when pipelines are open and listeners bound; 503 with the reasons before, and during the drain |
//! | `/metrics` | the figures, as `OpenMetrics` |
//! | `/v1/status` | the ledger and what is wrong, for `spillway-agent status` |
//! | `/v1/replay`, `/v1/jobs/cancel` | begins a replay, ends a job, for `spillway-agent replay` and `jobs` |
//! | `/v1/dead-letters/…` | what backends refused for good, for `spillway-agent dead-letters` |
//!
//! On loopback it is plain; beyond, it speaks TLS and wants the bearer token on every path. The first three paths are also
//! served alone and plain at `--metrics`: a kubelet has no token, nothing there holds payload, and nothing can be changed.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use crate::metrics;
use crate::overview::Overview;

mod dead_letters;
mod jobs;
mod serve;

pub use serve::{AdminError, serve, serve_figures};

/// Returns the endpoint over `overview`.
fn router(overview: Arc<Overview>, secured: bool) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .route("/v1/status", get(status))
        .merge(dead_letters::router(secured, jobs::router()))
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .with_state(overview)
}

/// Returns what a kubelet and a scraper ask for, and nothing else.
fn figures(overview: Arc<Overview>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .fallback(async || StatusCode::NOT_FOUND)
        .with_state(overview)
}

async fn livez(State(overview): State<Arc<Overview>>) -> Response {
    let (age, alive) = overview.alive();
    let code = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    answer(code, &json!({ "alive": alive, "lastBeatMilliseconds": age_ms }))
}

async fn readyz(State(overview): State<Arc<Overview>>) -> Response {
    let reasons = overview.not_ready();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(code, &json!({ "ready": reasons.is_empty(), "reasons": reasons }))
}

async fn scrape(State(overview): State<Arc<Overview>>) -> Response {
    match read(overview, |overview| metrics::expose(overview.report(), overview.sources())).await {
        Some(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        None => unreadable(),
    }
}

async fn status(State(overview): State<Arc<Overview>>) -> Response {
    match read(overview, Overview::report).await {
        Some(report) => answer(StatusCode::OK, &report),
        None => unreadable(),
    }
}

/// Reads figures where blocking is allowed: the engine looks at its logs for them. `None` when that panicked.
async fn read<T: Send + 'static>(
    overview: Arc<Overview>,
    figures: impl FnOnce(&Overview) -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(move || figures(&overview)).await.ok()
}

fn unreadable() -> Response {
    let body = json!({ "code": "internal", "message": "figures cannot be read" });
    answer(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

async fn nothing_here() -> Response {
    let paths =
        ["/livez", "/readyz", "/metrics", "/v1/status", "/v1/dead-letters/list", "/v1/replay", "/v1/jobs/cancel"];
    answer(StatusCode::NOT_FOUND, &json!({ "code": "not-found", "message": "nothing is here", "allowed": paths }))
}

async fn other_method() -> Response {
    let message = "this path is not asked so: figures by GET, everything else by POST";
    answer(StatusCode::METHOD_NOT_ALLOWED, &json!({ "code": "method", "message": message }))
}

fn answer(code: StatusCode, body: &impl Serialize) -> Response {
    // Reports are plain data with texts as keys, which always serialise.
    let mut json = serde_json::to_vec(body).unwrap_or_default();
    json.push(b'\n');
    (code, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}

#[cfg(test)]
mod tests;
