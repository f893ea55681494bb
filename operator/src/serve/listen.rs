//! Takes connections over TLS and drives each to its end: what the endpoint of agents and the webhook have in common.

use std::future::{Ready, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::middleware::AddExtension;
use axum::{Extension, Router};
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::{Handle, Server};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::certificates::Shown;
use super::limits::{
    HANDSHAKE_TIMEOUT, HEADER_BYTES_MAX, HEADER_TIMEOUT, PING_EVERY, PING_TIMEOUT, STOP_GRACE, STREAMS_MAX,
};
use super::stats::Connections;

/// Serves `router` on `socket` and keeps the certificate fresh until `stop`; then takes no connection more, lets requests end
/// and ends itself, at the latest after [`STOP_GRACE`].
pub(crate) async fn serve(
    socket: TcpListener,
    certificates: &impl Shown,
    doorman: Doorman,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let handle = Handle::new();
    let tls = RustlsAcceptor::new(certificates.tls()).handshake_timeout(HANDSHAKE_TIMEOUT).acceptor(doorman);
    let server = server(socket)?.acceptor(tls).handle(handle.clone());
    let beside = async {
        let stopping = async {
            stop.cancelled().await;
            handle.graceful_shutdown(Some(STOP_GRACE));
        };
        tokio::join!(stopping, certificates.keep(stop.clone()));
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

/// Lets connections in while there is a place.
#[derive(Debug, Clone)]
pub(crate) struct Doorman {
    places: Arc<Semaphore>,
    connections: Connections,
}

/// The place of one connection; who serves it holds it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    connections: Connections,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connections.open.dec();
    }
}

impl Doorman {
    /// Returns one with so many places.
    pub(crate) fn new(places: usize, connections: &Connections) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), connections: connections.clone() }
    }
}

impl<S> Accept<TcpStream, S> for Doorman {
    type Stream = TcpStream;
    type Service = AddExtension<S, Place>;
    type Future = Ready<io::Result<(TcpStream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() else {
            self.connections.turned_away.inc();
            return ready(Err(io::Error::other("too many connections")));
        };
        self.connections.open.inc();
        let place = Place { _held: Arc::new(Held { connections: self.connections.clone(), _permit: permit }) };
        // An answer is written whole, so waiting to fill packets gains nothing.
        ready(stream.set_nodelay(true).map(|()| (stream, Extension(place).layer(service))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_a_place_until_it_ends_and_one_too_many_has_none() {
        let connections = Connections::default();
        let doorman = Doorman::new(1, &connections);
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let connect = || async { TcpStream::connect(address).await.unwrap() };
        let (stream, service) = doorman.accept(connect().await, Router::<()>::new()).await.unwrap();
        let request_under_way = service.clone();
        assert!(doorman.accept(connect().await, Router::<()>::new()).await.is_err());
        assert_eq!((connections.open.get(), connections.turned_away.get()), (1, 1));
        drop((stream, service));
        let refused = doorman.accept(connect().await, Router::<()>::new()).await;
        assert!(refused.is_err(), "a request is still under way");
        drop(request_under_way);
        assert_eq!(connections.open.get(), 0);
        assert!(doorman.accept(connect().await, Router::<()>::new()).await.is_ok());
    }
}
