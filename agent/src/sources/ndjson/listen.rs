//! Takes connections over TCP or a Unix socket, and ends with the source.
//!
//! # Stop
//! When the supervisor says stop, nothing is accepted any more, the file of a Unix socket is removed, and each connection ends
//! by itself ([`super::connection`]).

use std::io::{self, Write};
use std::sync::Arc;

use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::answer::{self, Refusal};
use super::connection::Connection;
use super::limits::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, Limit};
use super::shared::Shared;
use super::socket_file::SocketFile;
use super::stats::Now;
use crate::sources::pushed::accepts::Accepts;
use crate::sources::pushed::security::ListenerSecurity;

/// A socket that listens.
pub(super) enum Socket {
    /// Over TCP.
    Tcp(TcpListener),
    /// At a file, which goes with it.
    Unix(UnixListener, #[expect(dead_code, reason = "its drop removes the file")] SocketFile),
}

/// What it accepted.
enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
            Self::Unix(socket, _) => socket.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// Takes connections until the supervisor says stop.
pub(super) struct Listener {
    shared: Arc<Shared>,
    supervisor: Supervisor,
    connections: Arc<Semaphore>,
}

impl Listener {
    /// Returns a listener whose connections `supervisor` owns.
    pub(super) fn new(shared: Arc<Shared>, supervisor: Supervisor) -> Self {
        Self { shared, supervisor, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Runs until stop.
    pub(super) async fn run(self, socket: Socket) {
        let stop = self.supervisor.stopping();
        let mut accepts = Accepts::default();
        while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
            if let Some(stream) = accepts.take(accepted, || self.shared.stats.limited(Limit::Accept)).await {
                self.admit(stream);
            }
        }
    }

    fn admit(&self, stream: Accepted) {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            return self.turn_away(stream);
        };
        let held = (permit, self.shared.opened());
        let tls = self.shared.security().and_then(ListenerSecurity::tls).cloned();
        match stream {
            Accepted::Tcp(stream) => match tls {
                None => self.serve(stream, held),
                Some(tls) => self.serve_tls(tls, stream, held),
            },
            Accepted::Unix(stream) => self.serve(stream, held),
        }
    }

    fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static, held: Held) {
        let connection = Connection::new(stream, self.shared.clone(), self.supervisor.stopping());
        self.supervisor.spawn("ndjson connection", async move {
            connection.run().await;
            drop(held);
        });
    }

    fn serve_tls(&self, tls: TlsAcceptor, stream: TcpStream, held: Held) {
        let (shared, stop) = (self.shared.clone(), self.supervisor.stopping());
        self.supervisor.spawn("ndjson connection", async move {
            let handshake = stop.run_until_cancelled(timeout(HANDSHAKE_TIMEOUT, tls.accept(stream))).await;
            match handshake {
                Some(Ok(Ok(stream))) => Box::pin(Connection::new(stream, shared, stop).run()).await,
                Some(_) => shared.stats.limited(Limit::Handshake),
                None => {}
            }
            drop(held);
        });
    }

    /// Says that there are too many, without waiting: a new socket has room for a line.
    fn turn_away(&self, stream: Accepted) {
        self.shared.stats.limited(Limit::Connections);
        if self.shared.security().and_then(ListenerSecurity::tls).is_some() {
            return;
        }
        let line = answer::refused(None, &Refusal::limit(Limit::Connections));
        // Whether it hears is its own affair.
        drop(match stream {
            Accepted::Tcp(stream) => stream.into_std().and_then(|mut stream| stream.write_all(&line)),
            Accepted::Unix(stream) => stream.into_std().and_then(|mut stream| stream.write_all(&line)),
        });
    }
}

/// What is given back when a connection ends.
type Held = (OwnedSemaphorePermit, Now);
