//! Takes connections until the source is told to stop.

use std::net::IpAddr;
use std::sync::Arc;

use spillway_delivery::supervisor::Supervisor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::call::Calls;
use super::connection::Connection;
use super::limits::CONNECTIONS_MAX;
use crate::sources::http::limits::{HANDSHAKE_TIMEOUT, Limit};
use crate::sources::pushed::accepts::Accepts;

/// Takes connections.
pub(super) struct Listener {
    calls: Arc<Calls>,
    supervisor: Supervisor,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Returns a listener whose connections and calls `supervisor` owns.
    pub(super) fn new(calls: Arc<Calls>, supervisor: Supervisor) -> Self {
        Self { calls, supervisor, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Runs until stop.
    pub(super) async fn run(self, socket: TcpListener) {
        let stop = self.supervisor.stopping();
        let mut accepts = Accepts::default();
        while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
            if let Some((stream, peer)) =
                accepts.take(accepted, || self.calls.shared.stats.limited(Limit::Accept)).await
            {
                self.admit(stream, peer.ip().to_canonical());
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: IpAddr) {
        let stats = &self.calls.shared.stats;
        // Who is one too many learns it by its end: to speak HTTP/2 with it would cost what there is none of.
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            return stats.limited(Limit::Connections);
        };
        let held = (permit, stats.opened());
        let connection = Connection { calls: self.calls.clone(), supervisor: self.supervisor.clone(), address };
        self.supervisor.spawn("grpc connection", async move {
            // Answers are small and written whole, so waiting to fill packets gains nothing.
            if stream.set_nodelay(true).is_ok() {
                serve(connection, stream).await;
            }
            drop(held);
        });
    }
}

async fn serve(connection: Connection, stream: TcpStream) {
    let shared = connection.calls.shared.clone();
    let Some(tls) = shared.gate.tls() else { return Box::pin(connection.run(stream)).await };
    let stop = connection.supervisor.stopping();
    match stop.run_until_cancelled(timeout(HANDSHAKE_TIMEOUT, tls.accept(stream))).await {
        Some(Ok(Ok(stream))) => Box::pin(connection.run(stream)).await,
        Some(_) => shared.stats.limited(Limit::Handshake),
        None => {}
    }
}
