//! Takes connections and answers one request on each.
//!
//! Limits of each endpoint: [`CONNECTIONS_MAX`] at once (more wait in the system's queue), one request per connection,
//! [`CONNECTION_LIFE_MAX`] from the first byte to the last, [`HEADER_BYTES_MAX`] of request, and small bodies where one is read.
//! So a slow or idle client costs little and for a short time, and nobody can keep the others out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::io::Errno;
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::overview::Overview;
use crate::sources::pushed::accepts::Accepts;
use crate::sources::pushed::security::ListenerSecurity;

/// Most connections at once: kubelet, a scraper or two and people need a handful.
const CONNECTIONS_MAX: usize = 32;
/// Longest life of a connection: the answer is made from memory, so this is the client's time to read it.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a request line and headers.
const HEADER_BYTES_MAX: usize = 16 << 10;

/// Why the endpoint cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("endpoint of {flag} cannot listen at {address}")]
pub struct AdminError {
    flag: &'static str,
    address: SocketAddr,
    source: std::io::Error,
}

/// Listens at `address` and answers until `owner` stops. Returns where it listens.
pub async fn serve(
    address: SocketAddr,
    security: ListenerSecurity,
    overview: Arc<Overview>,
    owner: &Supervisor,
) -> Result<SocketAddr, AdminError> {
    let (socket, local) = bind("--admin", address).await?;
    let (tls, security) = (security.tls().cloned(), Arc::new(security));
    let guard = middleware::from_fn(move |request: Request, next: Next| authorized(security.clone(), request, next));
    let router = super::router(overview, tls.is_some()).layer(guard);
    owner.spawn("admin listener", accept(socket, router, tls, owner.clone()));
    Ok(local)
}

/// Listens at `address` and answers probes and scrapes alone, to anybody who can reach it, until `owner` stops. Returns where
/// it listens.
pub async fn serve_figures(
    address: SocketAddr,
    overview: Arc<Overview>,
    owner: &Supervisor,
) -> Result<SocketAddr, AdminError> {
    let (socket, local) = bind("--metrics", address).await?;
    owner.spawn("metrics listener", accept(socket, super::figures(overview), None, owner.clone()));
    Ok(local)
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), AdminError> {
    let failed = |source| AdminError { flag, address, source };
    let bound = match TcpListener::bind(address).await {
        Err(error) => match without_ipv6(address, &error) {
            Some(other) => TcpListener::bind(other).await,
            None => Err(error),
        },
        bound => bound,
    };
    let socket = bound.map_err(failed)?;
    let local = socket.local_addr().map_err(failed)?;
    Ok((socket, local))
}

/// Returns what to listen at in place of every address, where that failed since the machine has no IPv6: every one that it has.
fn without_ipv6(address: SocketAddr, error: &std::io::Error) -> Option<SocketAddr> {
    let absent = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(|errno| Some(errno.raw_os_error()));
    let is_every_one = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (is_every_one && absent.contains(&error.raw_os_error())).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

async fn authorized(security: Arc<ListenerSecurity>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
    if security.admits(shown) {
        return next.run(request).await;
    }
    let body = serde_json::json!({ "code": "unauthorized", "message": "the bearer token is missing or wrong" });
    let mut answer = super::answer(StatusCode::UNAUTHORIZED, &body);
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
    answer.into_response()
}

async fn accept(socket: TcpListener, router: Router, tls: Option<TlsAcceptor>, owner: Supervisor) {
    let (stop, places) = (owner.stopping(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    let next = async || {
        // The semaphore is never closed.
        let place = places.clone().acquire_owned().await.ok();
        (socket.accept().await, place)
    };
    let mut accepts = Accepts::default();
    while let Some((accepted, place)) = stop.run_until_cancelled(next()).await {
        if let Some((stream, _)) = accepts.take(accepted, || {}).await {
            let (router, tls) = (router.clone(), tls.clone());
            owner.spawn("admin connection", async move {
                // What the other side did to the connection is its own affair.
                drop(timeout(CONNECTION_LIFE_MAX, connection(stream, router, tls)).await);
                drop(place);
            });
        }
    }
}

async fn connection(stream: TcpStream, router: Router, tls: Option<TlsAcceptor>) {
    match tls {
        None => answer(stream, router).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                answer(stream, router).await;
            }
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(stream: S, router: Router) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_LIFE_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_system(errno: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[tokio::test]
    async fn every_address_is_one_of_either_family() {
        let (socket, local) = bind("--metrics", "[::]:0".parse().unwrap()).await.unwrap();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, local.port()));
        let (connected, accepted) = tokio::join!(client, socket.accept());
        assert!(connected.is_ok() && accepted.is_ok());
    }

    #[test]
    fn every_address_of_a_machine_without_ipv6_is_every_one_of_ipv4() {
        let instead = |address: &str, errno| without_ipv6(address.parse().unwrap(), &of_system(errno));
        let every = "0.0.0.0:8413".parse().ok();
        assert_eq!(instead("[::]:8413", Errno::AFNOSUPPORT), every);
        assert_eq!(instead("[::]:8413", Errno::ADDRNOTAVAIL), every);
        assert_eq!(instead("[::]:8413", Errno::ADDRINUSE), None, "another fault is told");
        assert_eq!(instead("[::1]:8413", Errno::AFNOSUPPORT), None, "one address is meant and no other");
        assert_eq!(instead("0.0.0.0:8413", Errno::AFNOSUPPORT), None);
    }
}
