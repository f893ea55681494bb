//! Health and metrics: `/livez`, `/readyz`, `/metrics`, over plain HTTP. No secret, no payload, nothing to change.
//!
//! `/readyz` is true once a controller could lead (the first listing of every watch is there), or a webhook
//! knows whatever it answers from.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use spillway_delivery::supervisor::Supervisor;
use tokio::net::TcpListener;

/// The type of the answer of `/metrics`.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the endpoint tells.
#[derive(Debug, Default)]
pub struct Health {
    is_ready: AtomicBool,
    registry: Registry,
}

impl Health {
    /// Says that it is ready from now on.
    pub fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Returns whether it is.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }
}

/// Serves at `address` until `owner` stops, with the metrics that `register` puts into the registry of the operator. Returns
/// where, and the health of a process that is not ready.
pub async fn serve(
    address: SocketAddr,
    register: impl FnOnce(&mut Registry),
    owner: &Supervisor,
) -> anyhow::Result<(SocketAddr, Arc<Health>)> {
    let listened = || format!("{address} cannot be listened at");
    let listener = TcpListener::bind(address).await.with_context(listened)?;
    let bound = listener.local_addr().with_context(listened)?;
    let mut registry = Registry::with_prefix("spillway_operator");
    register(&mut registry);
    let health = Arc::new(Health { is_ready: AtomicBool::new(false), registry });
    let shown = health.clone();
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shown);
    let stop = owner.stopping();
    owner.spawn("admin", async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin endpoint ended");
        }
    });
    Ok((bound, health))
}

async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    if health.is_ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: the log says what is waited for\n")
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let mut text = String::new();
    // Writing to a text does not fail.
    encode(&mut text, &health.registry).unwrap_or_default();
    ([(CONTENT_TYPE, OPENMETRICS)], text)
}
