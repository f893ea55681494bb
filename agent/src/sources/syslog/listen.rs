//! Takes connections over TCP, with TLS or without, and ends with the source.
//!
//! # Stop
//! When the supervisor says stop, those are served besides whom the system has let in already, and each connection ends by itself
//! ([`super::connection`]).
//!
//! # Limits
//! Beyond [`CONNECTIONS_MAX`] connections, and beyond [`HANDSHAKES_MAX`] handshakes, nothing is accepted: senders wait, and lose nothing.
//! Who shows no certificate has no place among connections, and [`SENDER_HANDSHAKES_MAX`] handshakes by its address.

use std::net::SocketAddr;
use std::sync::Arc;

use rustix::net::sockopt;
use spillway_delivery::supervisor::Supervisor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::decode::Peer;
use super::limits::{
    CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, KEEPALIVE_ASKS, KEEPALIVE_EVERY, KEEPALIVE_IDLE, Limit,
    SENDER_HANDSHAKES_MAX, STOP_IDLE,
};
use super::shared::Shared;
use crate::sources::pushed::accepts::Accepts;
use crate::sources::pushed::places::{Place, Places};
use crate::sources::pushed::security::name_of;

/// Takes connections until the supervisor says stop.
pub(super) struct Listener {
    shared: Arc<Shared>,
    supervisor: Supervisor,
    connections: Arc<Semaphore>,
    tls: Option<Handshakes>,
}

/// How connections over TLS begin.
struct Handshakes {
    acceptor: TlsAcceptor,
    running: Arc<Semaphore>,
    by_sender: Arc<Places>,
}

impl Listener {
    /// Returns a listener whose connections `supervisor` owns.
    pub(super) fn new(shared: Arc<Shared>, supervisor: Supervisor, tls: Option<TlsAcceptor>) -> Self {
        let handshakes = |acceptor| Handshakes {
            acceptor,
            running: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            by_sender: Places::new(SENDER_HANDSHAKES_MAX),
        };
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { shared, supervisor, connections, tls: tls.map(handshakes) }
    }

    /// Runs until stop.
    pub(super) async fn run(self, socket: TcpListener) {
        let stop = self.supervisor.stopping();
        let mut accepts = Accepts::default();
        // What is not accepted yet waits with the system, with all that its sender has written.
        while let Some(room) = stop.run_until_cancelled(self.room()).await {
            let Some(accepted) = stop.run_until_cancelled(socket.accept()).await else { break };
            if let Some((stream, address)) = accepts.take(accepted, || self.shared.stats.limited(Limit::Accept)).await {
                self.admit(stream, address, room);
            }
        }
        self.admit_rest(&socket).await;
    }

    /// Serves those, too, whom the system has let in before the stop.
    async fn admit_rest(&self, socket: &TcpListener) {
        if self.tls.is_some() {
            // Without a handshake nothing of a message is there.
            return;
        }
        while let Ok(room) = self.connections.clone().try_acquire_owned() {
            let Ok(Ok((stream, address))) = timeout(STOP_IDLE, socket.accept()).await else { return };
            self.admit(stream, address, room);
        }
    }

    /// Waits until there is room for one more: a connection, or a handshake.
    async fn room(&self) -> OwnedSemaphorePermit {
        match &self.tls {
            None => self.place(&self.connections).await,
            Some(tls) => self.place(&tls.running).await,
        }
    }

    /// Waits for one of the places, and counts where there was none.
    async fn place(&self, places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        if places.available_permits() == 0 {
            self.shared.stats.limited(Limit::Connections);
        }
        take_place(places).await
    }

    /// Serves a connection.
    fn admit(&self, stream: TcpStream, address: SocketAddr, room: OwnedSemaphorePermit) {
        ask_whether_it_is_there(&stream);
        let Some(tls) = &self.tls else {
            let (shared, stop) = (self.shared.clone(), self.supervisor.stopping());
            let held = (room, shared.opened());
            let connection = Connection::new(stream, Peer::new(address.ip(), None), shared, stop);
            return self.supervisor.spawn("syslog connection", async move {
                connection.run().await;
                drop(held);
            });
        };
        let Some(place) = tls.by_sender.take(address.ip()) else {
            return self.shared.stats.limited(Limit::SenderHandshakes);
        };
        let connections = self.connections.clone();
        let served = self.serve_tls((tls.acceptor.clone(), stream), address, (room, place), connections);
        self.supervisor.spawn("syslog connection", served);
    }

    /// Serves who shows a certificate; until then it takes no place of those who have.
    fn serve_tls(
        &self,
        (tls, stream): (TlsAcceptor, TcpStream),
        address: SocketAddr,
        handshaking: (OwnedSemaphorePermit, Place),
        connections: Arc<Semaphore>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (shared, stop) = (self.shared.clone(), self.supervisor.stopping());
        async move {
            let open = shared.opened();
            let handshake = stop.run_until_cancelled(timeout(HANDSHAKE_TIMEOUT, tls.accept(stream))).await;
            let stream = match handshake {
                Some(Ok(Ok(stream))) => stream,
                Some(Ok(Err(error))) => {
                    tracing::debug!(listener = shared.listener, %error, "a handshake failed");
                    return shared.stats.limited(Limit::Handshake);
                }
                Some(Err(_)) => return shared.stats.limited(Limit::Handshake),
                None => return,
            };
            if connections.available_permits() == 0 {
                shared.stats.limited(Limit::Connections);
            }
            // At a stop it is read for a moment, place or none.
            let place = stop.run_until_cancelled(take_place(&connections)).await;
            drop(handshaking);
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let peer = Peer::new(address.ip(), shown.and_then(name_of).as_deref());
            Box::pin(Connection::new(stream, peer, shared, stop).run()).await;
            drop((place, open));
        }
    }
}

/// Waits for a place; they are never closed.
async fn take_place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match places.clone().acquire_owned().await {
        Ok(place) => place,
        Err(_) => std::future::pending().await,
    }
}

/// Has the kernel ask a silent sender whether it is there.
fn ask_whether_it_is_there(stream: &TcpStream) {
    let asking = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, KEEPALIVE_ASKS));
    if let Err(error) = asking {
        tracing::debug!(%error, "a connection is kept without asking whether its sender is there");
    }
}
