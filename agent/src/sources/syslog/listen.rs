//! Takes connections over TCP, with TLS or without, and ends with the source.
//!
//! # Stop
//! When the supervisor says stop, nothing is accepted any more, and each connection ends by itself ([`super::connection`]).

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
use super::limits::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, KEEPALIVE_ASKS, KEEPALIVE_EVERY, KEEPALIVE_IDLE, Limit};
use super::shared::Shared;
use super::stats::Now;
use crate::sources::pushed::accepts::Accepts;
use crate::sources::pushed::security::name_of;

/// Takes connections until the supervisor says stop.
pub(super) struct Listener {
    shared: Arc<Shared>,
    supervisor: Supervisor,
    tls: Option<TlsAcceptor>,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Returns a listener whose connections `supervisor` owns.
    pub(super) fn new(shared: Arc<Shared>, supervisor: Supervisor, tls: Option<TlsAcceptor>) -> Self {
        Self { shared, supervisor, tls, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Runs until stop.
    pub(super) async fn run(self, socket: TcpListener) {
        let stop = self.supervisor.stopping();
        let mut accepts = Accepts::default();
        while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
            if let Some((stream, address)) = accepts.take(accepted, || self.shared.stats.limited(Limit::Accept)).await {
                self.admit(stream, address);
            }
        }
    }

    /// Serves a connection, or closes it: its sender sees that nobody reads, and keeps what it has.
    fn admit(&self, stream: TcpStream, address: SocketAddr) {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            return self.shared.stats.limited(Limit::Connections);
        };
        let held = (permit, self.shared.opened());
        ask_whether_it_is_there(&stream);
        let (shared, stop) = (self.shared.clone(), self.supervisor.stopping());
        match self.tls.clone() {
            None => {
                let connection = Connection::new(stream, Peer::new(address.ip(), None), shared, stop);
                self.supervisor.spawn("syslog connection", async move {
                    connection.run().await;
                    drop(held);
                });
            }
            Some(tls) => self.serve_tls((tls, stream), address, held),
        }
    }

    fn serve_tls(&self, (tls, stream): (TlsAcceptor, TcpStream), address: SocketAddr, held: Held) {
        let (shared, stop) = (self.shared.clone(), self.supervisor.stopping());
        self.supervisor.spawn("syslog connection", async move {
            let handshake = stop.run_until_cancelled(timeout(HANDSHAKE_TIMEOUT, tls.accept(stream))).await;
            match handshake {
                Some(Ok(Ok(stream))) => {
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let peer = Peer::new(address.ip(), shown.and_then(name_of).as_deref());
                    Box::pin(Connection::new(stream, peer, shared, stop).run()).await;
                }
                Some(Ok(Err(error))) => {
                    tracing::debug!(listener = shared.listener, %error, "a handshake failed");
                    shared.stats.limited(Limit::Handshake);
                }
                Some(Err(_)) => shared.stats.limited(Limit::Handshake),
                None => {}
            }
            drop(held);
        });
    }
}

/// What is given back when a connection ends.
type Held = (OwnedSemaphorePermit, Now);

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
