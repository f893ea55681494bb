//! Datagrams, one message in each (RFC 5426).
//!
//! # Expected flow
//! One task takes datagrams into a batch while the batch before is being kept. When that is full, too, nothing is read: the kernel's
//! buffer fills, and the kernel drops what comes then. What it dropped is asked of it ([`drops`]).
//!
//! # Guarantees
//! Memory is that of two batches of [`PENDING_BYTES`] and one datagram. What was read and cannot be kept at a stop is counted as lost.
//!
//! # Caveats
//! Who sends is told nothing, not even that a datagram was dropped; and whoever may send on this machine may name any host.
//!
//! # Cancel safety
//! Datagrams that were read may be kept.

mod drops;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use rustix::net::sockopt;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::decode::{About, End, Peer, trimmed};
use super::limits::{
    DATAGRAM_BYTES_MAX, DROPS_EVERY, KERNEL_BYTES, Limit, PENDING_BYTES, PENDING_EVENTS, STOP_IDLE, STOP_READ,
    TURN_DATAGRAMS,
};
use super::shared::Shared;
use super::stats::Figure;
use drops::Drops;

/// A batch on its way.
type Keeping = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Takes datagrams until the source stops.
pub(super) struct Datagrams {
    shared: Arc<Shared>,
    stop: CancellationToken,
    socket: UdpSocket,
    drops: Drops,
    buffer: Vec<u8>,
    /// Who sent the last one.
    peer: Option<(IpAddr, Peer)>,
    batch: Batch,
    keeping: Option<Keeping>,
}

/// Returns a socket at `address`, with as much of the kernel's memory as it gives.
pub(super) async fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    // Beyond the machine's bound it takes a privilege; up to that it always works.
    if sockopt::set_socket_recv_buffer_size_force(&socket, KERNEL_BYTES).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, KERNEL_BYTES)?;
    }
    Ok(socket)
}

impl Datagrams {
    /// Returns what takes the datagrams of `socket`, until `stop`.
    pub(super) fn new(socket: UdpSocket, shared: Arc<Shared>, stop: CancellationToken) -> Self {
        let (batch, drops) = (Batch::new(&shared.batches), Drops::of(&socket));
        let buffer = vec![0; DATAGRAM_BYTES_MAX];
        Self { shared, stop, socket, drops, buffer, peer: None, batch, keeping: None }
    }

    /// Runs until stop, and keeps what had come before.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut looks = tokio::time::interval(DROPS_EVERY);
        loop {
            if self.keeping.is_none() {
                self.keeping = self.begin_keeping();
            }
            let has_room = !self.batch.has(PENDING_BYTES, PENDING_EVENTS);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = kept(&mut self.keeping), if self.keeping.is_some() => self.keeping = None,
                _ = looks.tick() => self.drops.look(&self.shared.stats),
                _ = self.socket.readable(), if has_room => {
                    self.take().await;
                    tokio::task::yield_now().await;
                }
            }
        }
        self.finish().await;
    }

    /// Takes what is there and has room, up to [`TURN_DATAGRAMS`].
    async fn take(&mut self) {
        for _ in 0..TURN_DATAGRAMS {
            if self.batch.has(PENDING_BYTES, PENDING_EVENTS) {
                self.shared.stats.limited(Limit::Pending);
                return;
            }
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((bytes, from)) => self.push(bytes, from.ip()).await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Of one datagram; the next one is another.
                Err(error) => tracing::debug!(listener = self.shared.listener, %error, "a datagram cannot be read"),
            }
        }
    }

    async fn push(&mut self, bytes: usize, from: IpAddr) {
        self.shared.stats.add(Figure::Datagrams, 1);
        self.shared.stats.add(Figure::WireBytes, bytes as u64);
        let message = &self.buffer[..bytes];
        if trimmed(message).is_empty() {
            return;
        }
        // Two batches have room in the budget whatever is in them, so that this takes no time.
        while self.batch.make_room(bytes, &self.shared.arenas).await.is_err() {
            self.shared.stats.limited(Limit::Bytes);
        }
        if self.peer.as_ref().is_none_or(|(address, _)| *address != from) {
            self.peer = Some((from, Peer::new(from, None)));
        }
        let Some((_, peer)) = &self.peer else { return };
        let about = About { received: self.shared.clock.now(), peer, end: End::Whole };
        let decoded = self.batch.push(message, &about);
        self.shared.decoded(decoded);
    }

    /// Begins to keep what there is.
    fn begin_keeping(&mut self) -> Option<Keeping> {
        if self.batch.is_empty() {
            return None;
        }
        let batch = std::mem::replace(&mut self.batch, Batch::new(&self.shared.batches));
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        Some(Box::pin(async move { shared.keep(batch, &stop).await }))
    }

    /// Takes what the kernel has, until nothing comes, and keeps it.
    async fn finish(mut self) {
        let begun = Instant::now();
        // What is there is known once the kernel was asked, which takes a turn of the runtime.
        while begun.elapsed() < STOP_READ && timeout(STOP_IDLE, self.socket.readable()).await.is_ok() {
            self.take().await;
            if self.batch.has(PENDING_BYTES, PENDING_EVENTS) {
                self.keep_all().await;
            }
        }
        self.keep_all().await;
        self.drops.look(&self.shared.stats);
    }

    async fn keep_all(&mut self) {
        kept(&mut self.keeping).await;
        self.keeping = self.begin_keeping();
        kept(&mut self.keeping).await;
    }
}

/// Waits until a batch is kept, if there is one, and lets go of it.
async fn kept(keeping: &mut Option<Keeping>) {
    if let Some(under_way) = keeping {
        under_way.await;
        *keeping = None;
    }
}
