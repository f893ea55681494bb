//! Takes connections over TLS and drives each to its end: what the endpoint of agents and the webhook have in common.

use std::io;
use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::{ConnectionShutdown, Handle, Server};
use tokio_util::sync::CancellationToken;

use super::certificates::Shown;
use super::doorman::{Doorman, Place};
use super::limits::{
    HANDSHAKE_TIMEOUT, HEADER_BYTES_MAX, HEADER_TIMEOUT, PING_EVERY, PING_TIMEOUT, STOP_GRACE, STREAMS_MAX,
};

/// Serves `router` on `socket` and keeps the certificate fresh until `stop`; then takes no connection more, lets requests end
/// and ends itself, at the latest after [`STOP_GRACE`].
pub(crate) async fn serve(
    socket: TcpListener,
    certificates: &impl Shown,
    doorman: Doorman,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let (handle, resting) = (Handle::new(), doorman.clone());
    let router = router.layer(from_fn(asking));
    let tls = RustlsAcceptor::new(certificates.tls()).handshake_timeout(HANDSHAKE_TIMEOUT).acceptor(doorman);
    let server = server(socket)?.acceptor(tls).handle(handle.clone());
    let beside = async {
        let stopping = async {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(STOP_GRACE));
        };
        tokio::join!(stopping, certificates.keep(stop.clone()), resting.end_idle(stop.clone()));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = server.serve(router.into_make_service_with_connect_info::<SocketAddr>()) => served,
        () = beside => Ok(()),
    }
}

fn server(socket: TcpListener) -> io::Result<Server<SocketAddr>> {
    let mut server = axum_server::from_tcp(socket)?.first_request_timeout(HEADER_TIMEOUT);
    let builder = server.http_builder();
    builder.http1().header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX as u32)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    Ok(server)
}

/// Lets a connection count as used while a request of it is answered.
async fn asking(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let end = extensions.get::<ConnectionShutdown>().cloned();
    let _asking = extensions.get::<Place>().cloned().map(|place| place.ask(end));
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use axum::routing::get;
    use spillway_delivery::clock::Clock;
    use spillway_delivery::supervisor::Supervisor;
    use tokio::time::Instant;

    use super::super::certificates::{Authority, Certificates, now};
    use super::super::stats::{Connections, IDLE};
    use super::*;

    async fn until_one_is_ended(connections: Connections) -> &'static str {
        while connections.endings(IDLE) == 0 {
            tokio::task::yield_now().await;
        }
        "slow"
    }

    #[tokio::test]
    async fn a_connection_over_which_nobody_asks_is_ended_and_one_that_waits_for_an_answer_is_not() {
        let authority = Authority::generate(now(&Clock::system())).unwrap();
        let trusted = reqwest::Certificate::from_pem(authority.certificate_pem().as_bytes()).unwrap();
        let certificates = Arc::new(Certificates::new(authority, vec!["localhost".into()], Clock::system()).unwrap());
        let (connections, owner) = (Connections::default(), Supervisor::new("test"));
        let doorman = Doorman::new(9, &connections).with_idle_max(Duration::from_millis(40));
        let others = connections.clone();
        let slow = move || until_one_is_ended(others.clone());
        let router = Router::new().route("/", get(|| async { "quick" })).route("/slow", get(slow));
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}", socket.local_addr().unwrap().port());
        let stop = owner.stopping();
        owner.spawn("listen", async move { serve(socket, &*certificates, doorman, router, stop).await.unwrap() });
        let client = || reqwest::Client::builder().no_proxy().tls_certs_only([trusted.clone()]).build().unwrap();
        let (idle, waits) = (client(), client());
        let answer = async |client: &reqwest::Client, path: &str| {
            let response = client.get(format!("{url}{path}")).send().await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            response.text().await.unwrap()
        };
        let slow = answer(&waits, "/slow");
        let (slow, quick) = tokio::join!(slow, answer(&idle, "/"));
        assert_eq!((slow.as_str(), quick.as_str()), ("slow", "quick"));
        while connections.open.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(connections.endings(IDLE), 2, "both, the second after its answer");
        assert_eq!(answer(&idle, "/").await, "quick", "a client comes again");
        assert!(owner.stop(Instant::now() + STOP_GRACE * 2).await);
    }
}
