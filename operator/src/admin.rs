//! Health and metrics: `/livez`, `/readyz`, `/metrics`, over plain HTTP. No secret, no payload, nothing to change.
//!
//! `/readyz` is true once a controller could lead (the first listing of every watch is there), or a webhook
//! knows whatever it answers from and its certificate is not over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

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

use crate::serve::expires::Expires;

/// The type of the answer of `/metrics`.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the endpoint tells.
#[derive(Debug, Default)]
pub struct Health {
    is_ready: AtomicBool,
    /// What it is not ready after.
    until: OnceLock<Expires>,
    registry: Registry,
}

impl Health {
    /// Says that it is ready from now on.
    pub fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Relaxed);
    }

    /// Says that it is not ready once the certificate that it shows is over. The first call counts.
    pub fn only_before(&self, end: Expires) {
        self.until.get_or_init(|| end);
    }

    /// Returns whether it is.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed) && !self.until.get().is_some_and(Expires::is_over)
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
    let health = Arc::new(Health { registry, ..Health::default() });
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

#[cfg(test)]
mod tests {
    use spillway_delivery::clock::Clock;
    use spillway_delivery::supervisor::Supervisor;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::serve::certificates::Authority;
    use crate::serve::mounted::{FILES, Mounted};

    #[tokio::test]
    async fn a_process_is_not_ready_before_it_says_so_and_after_the_end_of_its_certificate() {
        let clock = Clock::manual(1_800_000_000_000_000_000);
        let (owner, folder) = (Supervisor::new("test"), tempfile::tempdir().unwrap());
        let (address, health) = serve("127.0.0.1:0".parse().unwrap(), |_| {}, &owner).await.unwrap();
        let ready = async || {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.starts_with("HTTP/1.1 200")
        };
        let (expires, now) = (Expires::new(clock.clone()), jiff::Timestamp::from_second(1_800_000_000).unwrap());
        health.only_before(expires.clone());
        let leaf = Authority::generate(now).unwrap().issue_pem(&["localhost".into()], now).unwrap();
        for (name, text) in FILES.into_iter().zip([&leaf.certificate, &leaf.key]) {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Mounted::read(folder.path(), expires).unwrap();
        assert!(!ready().await);
        health.set_ready();
        assert!(ready().await);
        clock.set(1_900_000_000_000_000_000);
        assert!(!ready().await);
    }
}
