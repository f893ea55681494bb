//! Who may come in: a place for each connection, of all there are and of those of the address that it comes from.
//!
//! # Guarantees
//! - One pod takes no places of the sidecars of others: it has [`SIDECAR_CONNECTIONS_EACH`].
//! - One address takes neither the places nor the room for bodies of others.
//! - A connection over which nobody asks gives its place back: after [`IDLE_MAX`] it is told to end, and ended after as long again
//!   where it does not. To answer pings keeps none.
//! - Nobody is remembered who is gone.
//!
//! # It must not know
//! What is asked, and who asks.
//!
//! # Limits
//! Those it is made with; who finds no place is counted, and so is each that gave its own back.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::{Ready, ready};
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::ConnectionShutdown;
use axum_server::accept::Accept;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::limits::{IDLE_MAX, SIDECAR_CONNECTIONS_EACH};
use super::stats::{Connections, IDLE, SUPERSEDED};

/// Lets connections in while there is a place, for all and for the address that they come from.
#[derive(Debug, Clone)]
pub(crate) struct Doorman {
    places: Arc<Semaphore>,
    sidecars: Arc<Sidecars>,
    addresses: Arc<Addresses>,
    open: Arc<Open>,
    idle_max: Duration,
    connections: Connections,
}

/// What each address has.
#[derive(Debug)]
struct Addresses {
    connections_max: usize,
    body_bytes_max: usize,
    known: Mutex<HashMap<IpAddr, Share>>,
}

/// What one address has.
#[derive(Debug)]
struct Share {
    connections: usize,
    /// Bytes of bodies that it may have in memory besides those it has.
    room: Arc<Semaphore>,
}

/// The place of one connection among those of its address.
#[derive(Debug)]
struct OfAddress {
    addresses: Arc<Addresses>,
    address: IpAddr,
    room: Arc<Semaphore>,
}

impl Addresses {
    fn new(connections_max: usize, body_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, body_bytes_max, known: Mutex::default() })
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<OfAddress> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let share = known
            .entry(address)
            .or_insert_with(|| Share { connections: 0, room: Arc::new(Semaphore::new(self.body_bytes_max)) });
        if share.connections >= self.connections_max {
            return None;
        }
        share.connections += 1;
        Some(OfAddress { addresses: Arc::clone(self), address, room: Arc::clone(&share.room) })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut known = self.addresses.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut share) = known.entry(self.address) {
            share.get_mut().connections -= 1;
            if share.get().connections == 0 {
                share.remove();
            }
        }
    }
}

/// The connections that are of sidecars, of those that may be.
#[derive(Debug)]
struct Sidecars {
    places: Arc<Semaphore>,
    pods: Mutex<OfPods>,
}

/// The connections of each pod by their numbers, each with its place, the oldest first.
type OfPods = HashMap<Arc<str>, Vec<(u64, OwnedSemaphorePermit)>>;

impl Sidecars {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(most)), pods: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, OfPods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection of this number a place; one too many of its pod has that of the oldest, whose number is returned.
    fn enter(&self, pod_uid: &Arc<str>, number: u64) -> Result<Option<u64>, NoPlace> {
        let mut pods = self.lock();
        let of_pod = pods.get_mut(pod_uid);
        if of_pod.as_ref().is_some_and(|places| places.iter().any(|(known, _)| *known == number)) {
            return Ok(None);
        }
        if let Some(places) = of_pod.filter(|places| places.len() >= SIDECAR_CONNECTIONS_EACH) {
            let (oldest, permit) = places.remove(0);
            places.push((number, permit));
            return Ok(Some(oldest));
        }
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| NoPlace)?;
        pods.entry(Arc::clone(pod_uid)).or_default().push((number, permit));
        Ok(None)
    }

    fn leave(&self, pod_uid: &Arc<str>, number: u64) {
        if let Entry::Occupied(mut places) = self.lock().entry(Arc::clone(pod_uid)) {
            places.get_mut().retain(|(known, _)| *known != number);
            if places.get().is_empty() {
                places.remove();
            }
        }
    }
}

/// Sidecars have no place left.
#[derive(Debug)]
struct NoPlace;

/// What goes on over the connections that are open, each under a number of its own.
#[derive(Debug, Default)]
struct Open(Mutex<(u64, BTreeMap<u64, Activity>)>);

/// What goes on over one connection.
#[derive(Debug)]
struct Activity {
    /// Requests that are being answered.
    asking: usize,
    /// Since when that is so.
    since: Instant,
    /// How it is ended; unknown before the first request, which has a time limit of its own.
    end: Option<ConnectionShutdown>,
    is_told: bool,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Activity>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> u64 {
        let mut open = self.lock();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, Activity { asking: 0, since: Instant::now(), end: None, is_told: false });
        number
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Activity)) {
        if let Some(activity) = self.lock().1.get_mut(&number) {
            change(activity);
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
    open: Arc<Open>,
    number: u64,
    _permit: OwnedSemaphorePermit,
    sidecars: Arc<Sidecars>,
    /// The pod whose sidecar asks over it, once that is known.
    pod_uid: OnceLock<Arc<str>>,
    of_address: OfAddress,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.lock().1.remove(&self.number);
        if let Some(pod_uid) = self.pod_uid.get() {
            self.sidecars.leave(pod_uid, self.number);
        }
        self.connections.open.dec();
    }
}

/// One request that is being answered; its connection counts as used until this is dropped.
#[derive(Debug)]
pub(crate) struct Asking(Place);

impl Drop for Asking {
    fn drop(&mut self) {
        let Held { open, number, .. } = &*self.0.held;
        open.change(*number, |activity| {
            activity.asking -= 1;
            activity.since = Instant::now();
        });
    }
}

impl Place {
    /// Notes a request of the connection, and how that is ended.
    pub(super) fn ask(self, end: Option<ConnectionShutdown>) -> Asking {
        let Held { open, number, .. } = &*self.held;
        open.change(*number, |activity| {
            activity.asking += 1;
            activity.end = end.or(activity.end.take());
        });
        Asking(self)
    }

    /// Returns the room that the address of the connection has for bodies.
    pub(super) fn room(&self) -> &Arc<Semaphore> {
        &self.held.of_address.room
    }

    /// Takes a place among those of sidecars as well, as long as the connection lasts; returns whether there was one. Where the pod
    /// has [`SIDECAR_CONNECTIONS_EACH`] already, the oldest of them is ended. A connection is of one pod.
    pub(crate) fn enter_as_sidecar(&self, pod_uid: &str) -> bool {
        let Held { connections, open, number, sidecars, pod_uid: known, .. } = &*self.held;
        let known = known.get_or_init(|| pod_uid.into());
        if **known != *pod_uid {
            return false;
        }
        let Ok(replaced) = sidecars.enter(known, *number) else { return false };
        if let Some(oldest) = replaced {
            connections.ended(SUPERSEDED);
            open.change(oldest, |activity| activity.end.iter().for_each(ConnectionShutdown::shutdown));
        }
        true
    }
}

impl Doorman {
    /// Returns one with so many places.
    pub(crate) fn new(places: usize, connections: &Connections) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            sidecars: Sidecars::new(places),
            addresses: Addresses::new(usize::MAX, Semaphore::MAX_PERMITS),
            open: Arc::default(),
            idle_max: IDLE_MAX,
            connections: connections.clone(),
        }
    }

    fn placed(&self, permit: OwnedSemaphorePermit, of_address: OfAddress) -> Place {
        self.connections.open.inc();
        let held = Held {
            connections: self.connections.clone(),
            number: self.open.begin(),
            open: Arc::clone(&self.open),
            _permit: permit,
            sidecars: Arc::clone(&self.sidecars),
            pod_uid: OnceLock::new(),
            of_address,
        };
        Place { held: Arc::new(held) }
    }

    fn enter(&self, address: IpAddr) -> Option<Place> {
        let of_address = self.addresses.enter(address.to_canonical())?;
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(self.placed(permit, of_address))
    }

    /// Leaves so many places to sidecars, and the others to who is none.
    pub(crate) fn with_sidecars_at_most(self, most: usize) -> Self {
        Self { sidecars: Sidecars::new(most), ..self }
    }

    /// Lets so many in from one address, with so many bytes of bodies at a time, and no more.
    pub(crate) fn with_at_most(self, connections: usize, body_bytes: usize) -> Self {
        Self { addresses: Addresses::new(connections, body_bytes), ..self }
    }

    /// Ends connections over which nobody asks, until told to stop.
    pub(super) async fn end_idle(self, stop: CancellationToken) {
        while stop.run_until_cancelled(sleep(self.idle_max / 4)).await.is_some() {
            let now = Instant::now();
            for activity in self.open.lock().1.values_mut().filter(|activity| activity.asking == 0) {
                let idle = now.saturating_duration_since(activity.since);
                let Some(end) = activity.end.as_ref().filter(|_| idle >= self.idle_max) else { continue };
                if !activity.is_told {
                    activity.is_told = true;
                    self.connections.ended(IDLE);
                    end.graceful_shutdown();
                } else if idle >= self.idle_max * 2 {
                    end.shutdown();
                }
            }
        }
    }

    /// Returns the place of a connection from that address, without one.
    #[cfg(test)]
    pub(super) fn place(&self, address: IpAddr) -> Option<Place> {
        self.enter(address)
    }

    /// Waits so long for a request.
    #[cfg(test)]
    pub(super) fn with_idle_max(self, idle_max: Duration) -> Self {
        Self { idle_max, ..self }
    }
}

impl<S> Accept<TcpStream, S> for Doorman {
    type Stream = TcpStream;
    type Service = AddExtension<S, Place>;
    type Future = Ready<io::Result<(TcpStream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Some(place) = stream.peer_addr().ok().and_then(|peer| self.enter(peer.ip())) else {
            self.connections.turned_away.inc();
            return ready(Err(io::Error::other("too many connections")));
        };
        // An answer is written whole, so waiting to fill packets gains nothing.
        ready(stream.set_nodelay(true).map(|()| (stream, Extension(place).layer(service))))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;

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
        let place = || doorman.place([127, 0, 0, 1].into()).unwrap();
        let places = [place(), place()];
        assert!(
            places[0].enter_as_sidecar("a") && places[0].clone().enter_as_sidecar("a"),
            "each asks again and again"
        );
        assert!(!places[1].enter_as_sidecar("b"));
        assert!(!places[0].enter_as_sidecar("b"), "a connection is of one pod");
        drop(places);
        assert!(place().enter_as_sidecar("b"));
        assert!(doorman.sidecars.lock().is_empty(), "nobody is remembered who is gone");
    }

    #[test]
    fn one_pod_takes_two_places_of_sidecars_and_gives_its_oldest_for_another() {
        let connections = Connections::default();
        let doorman = Doorman::new(100, &connections).with_sidecars_at_most(3);
        let place = || doorman.place([127, 0, 0, 1].into()).unwrap();
        let of_one: Vec<_> = (0..50).map(|_| place()).collect();
        assert!(of_one.iter().all(|place| place.enter_as_sidecar("greedy")));
        assert_eq!((connections.endings(SUPERSEDED), doorman.sidecars.places.available_permits()), (48, 1));
        let (other, late) = (place(), place());
        assert!(other.enter_as_sidecar("other") && !late.enter_as_sidecar("late"));
        drop(of_one);
        assert!(late.enter_as_sidecar("late"));
        drop((other, late));
        assert_eq!(doorman.sidecars.places.available_permits(), 3);
    }

    #[tokio::test]
    async fn one_address_does_not_take_the_places_of_others() {
        let doorman = Doorman::new(5, &Connections::default()).with_at_most(2, 1);
        let socket = tokio::net::TcpListener::bind("[::]:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let accepted = async |from: &str| {
            let from = SocketAddr::new(from.parse().unwrap(), 0);
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
        assert!(doorman.open.lock().1.is_empty());
    }
}
