//! Takes connections over TLS and drives each to its end: what the endpoint of agents and the webhook have in common.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

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

/// Lets connections in while there is a place, for all and for the address that they come from.
#[derive(Debug, Clone)]
pub(crate) struct Doorman {
    places: Arc<Semaphore>,
    /// Of these, those that may be of sidecars.
    of_sidecars: Arc<Semaphore>,
    addresses: Arc<Addresses>,
    connections: Connections,
}

/// How many connections each address has.
#[derive(Debug)]
struct Addresses {
    most: usize,
    known: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection among those of its address.
#[derive(Debug)]
struct OfAddress {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<OfAddress> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let count = known.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(OfAddress { addresses: Arc::clone(self), address })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut known = self.addresses.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = known.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The place of one connection; who serves it holds it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    connections: Connections,
    _permit: OwnedSemaphorePermit,
    of_sidecars: Arc<Semaphore>,
    /// The place among those of sidecars, once it is known that it is one.
    as_sidecar: OnceLock<OwnedSemaphorePermit>,
    _of_address: OfAddress,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connections.open.dec();
    }
}

impl Place {
    /// Takes a place among those of sidecars as well, as long as the connection lasts; returns whether there was one.
    pub(crate) fn enter_as_sidecar(&self) -> bool {
        let Held { of_sidecars, as_sidecar, .. } = &*self.held;
        if as_sidecar.get().is_some() {
            return true;
        }
        // Where two requests of the connection ask at once, the second gives its own back.
        Arc::clone(of_sidecars).try_acquire_owned().map(|permit| drop(as_sidecar.set(permit))).is_ok()
    }
}

impl Doorman {
    /// Returns one with so many places.
    pub(crate) fn new(places: usize, connections: &Connections) -> Self {
        let addresses = Arc::new(Addresses { most: usize::MAX, known: Mutex::default() });
        let [places, of_sidecars] = [places, places].map(|count| Arc::new(Semaphore::new(count)));
        Self { places, of_sidecars, addresses, connections: connections.clone() }
    }

    fn placed(&self, permit: OwnedSemaphorePermit, of_address: OfAddress) -> Place {
        self.connections.open.inc();
        let held = Held {
            connections: self.connections.clone(),
            _permit: permit,
            of_sidecars: Arc::clone(&self.of_sidecars),
            as_sidecar: OnceLock::new(),
            _of_address: of_address,
        };
        Place { held: Arc::new(held) }
    }

    /// Leaves so many places to sidecars, and the others to who is none.
    pub(crate) fn with_sidecars_at_most(self, most: usize) -> Self {
        Self { of_sidecars: Arc::new(Semaphore::new(most)), ..self }
    }

    /// Lets so many in from one address, and no more.
    pub(crate) fn with_at_most(self, most: usize) -> Self {
        Self { addresses: Arc::new(Addresses { most, known: Mutex::default() }), ..self }
    }
}

impl<S> Accept<TcpStream, S> for Doorman {
    type Stream = TcpStream;
    type Service = AddExtension<S, Place>;
    type Future = Ready<io::Result<(TcpStream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let of_address = stream.peer_addr().ok().and_then(|peer| self.addresses.enter(peer.ip().to_canonical()));
        let permit = Arc::clone(&self.places).try_acquire_owned().ok();
        let (Some(of_address), Some(permit)) = (of_address, permit) else {
            self.connections.turned_away.inc();
            return ready(Err(io::Error::other("too many connections")));
        };
        let place = self.placed(permit, of_address);
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

    #[test]
    fn sidecars_do_not_take_the_places_of_others() {
        let doorman = Doorman::new(3, &Connections::default()).with_sidecars_at_most(1);
        let place = || {
            let permit = Arc::clone(&doorman.places).try_acquire_owned().unwrap();
            doorman.placed(permit, doorman.addresses.enter([127, 0, 0, 1].into()).unwrap())
        };
        let places = [place(), place()];
        assert!(places[0].enter_as_sidecar() && places[0].clone().enter_as_sidecar(), "each asks again and again");
        assert!(!places[1].enter_as_sidecar());
        drop(places);
        assert!(place().enter_as_sidecar());
    }

    #[tokio::test]
    async fn one_address_does_not_take_the_places_of_others() {
        let doorman = Doorman::new(5, &Connections::default()).with_at_most(2);
        let socket = tokio::net::TcpListener::bind("[::]:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let accepted = async |from: &str| {
            let from = std::net::SocketAddr::new(from.parse().unwrap(), 0);
            let client = tokio::net::TcpSocket::new_v4().unwrap();
            client.bind(from).unwrap();
            let to = SocketAddr::new([127, 0, 0, 1].into(), port);
            let (client, stream) = tokio::join!(client.connect(to), socket.accept());
            (client.unwrap(), doorman.accept(stream.unwrap().0, Router::<()>::new()).await)
        };
        let held = [accepted("127.0.0.1").await, accepted("127.0.0.1").await];
        assert!(held.iter().all(|(_, accepted)| accepted.is_ok()));
        assert!(accepted("127.0.0.1").await.1.is_err());
        assert!(accepted("127.0.0.2").await.1.is_ok(), "another address has its own");
        drop(held);
        assert!(accepted("127.0.0.1").await.1.is_ok());
        assert!(doorman.addresses.known.lock().unwrap().is_empty(), "nobody is remembered who is gone");
    }
}
