//! The bounds of the HTTP source, and the budget its bodies share.

use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::event::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most connections at once. Until its first byte comes, one costs a socket and a task below 2 KiB (a test holds that),
/// so all of them cost 2 MiB; one that has sent a request keeps a read buffer of 8 KiB, of [`READ_BUFFER_BYTES_MAX`] if its
/// bodies were long (64 MiB, if all of them did that).
pub(super) const CONNECTIONS_MAX: usize = 1024;

/// Most connections beyond [`CONNECTIONS_MAX`] that are told `503`; what comes on top of them is just closed.
pub(super) const TURNED_AWAY_MAX: usize = 64;

/// Most bytes of a request line and its headers.
pub(super) const HEADER_BYTES_MAX: usize = 16 << 10;

/// Most bytes of the read buffer of one connection, and so of one piece of a body.
pub(super) const READ_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Most bytes of a body as it travels, its encoding included: 16 MiB.
pub(super) const WIRE_BYTES_MAX: u64 = 16 << 20;

/// Most bytes of a decoded body: a batch, less the line break that its last line may lack.
pub(super) const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX - 1;

/// Most bytes of all bodies in memory, windows of decoders included: two of the greatest.
pub(super) const BODIES_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// What an event costs beside its bytes until the log has it: where it ends, and the routes that want it.
pub(super) const EVENT_EXTRA_BYTES: usize = 4 + 8;

/// Most bytes of that for all bodies in memory: what one body of as many events as there may be needs.
pub(super) const EVENTS_EXTRA_BYTES_MAX: usize = BATCH_EVENTS_MAX * EVENT_EXTRA_BYTES;

/// Most connections of one sender at the door: one in sixteen of [`CONNECTIONS_MAX`].
pub(super) const SENDER_CONNECTIONS_MAX: usize = 64;

/// Most bytes of all bodies of one sender at the door in memory, windows of decoders included: a quarter of
/// [`BODIES_BYTES_MAX`].
pub(super) const SENDER_BODIES_BYTES_MAX: usize = BODIES_BYTES_MAX / 4;

/// How often one sender may ask at the door in the long run: to look at a token costs about 0.1 ms.
pub(super) const SENDER_REQUEST_EVERY: Duration = Duration::from_millis(1);

/// How many requests one sender may make at once at the door after a rest.
pub(super) const SENDER_REQUESTS_AT_ONCE: u32 = 2_000;

/// Most senders that are told apart at the door, 0.8 MiB; those with a connection are [`CONNECTIONS_MAX`] at most.
pub(super) const SENDERS_MAX: usize = 4 * CONNECTIONS_MAX;

/// First piece of the budget that a body takes. A sender that announces much and sends little holds no more than this;
/// a body up to this size is copied once.
pub(super) const BODY_FIRST_BYTES: usize = 512 << 10;

/// Most decoded bytes for one byte on the wire, looked at once [`RATIO_FLOOR_BYTES`] are decoded. Deflate cannot
/// exceed 1,032; honest events stay below 100.
pub(super) const RATIO_MAX: u64 = 1_000;

/// Decoded bytes below which the ratio does not matter: 1 MiB of equal lines may be packed into nothing.
pub(super) const RATIO_FLOOR_BYTES: u64 = 1 << 20;

/// Most members of a gzip body or frames of a zstd body; a writer of blocks of 64 KiB needs 256 for the greatest body.
pub(super) const MEMBERS_MAX: u32 = 1_024;

/// Largest window of a zstd frame: what RFC 9659 asks of every decoder.
pub(super) const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

/// What a zstd decoder needs beside its window: tables of 100 KiB and two blocks of 128 KiB.
pub(super) const ZSTD_CONTEXT_BYTES: usize = 384 << 10;

/// What a gzip decoder needs: a window of 32 KiB and its tables.
pub(super) const GZIP_CONTEXT_BYTES: usize = 48 << 10;

/// How long a connection may rest between two requests, and before its first.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a request line and its headers may take from their first byte.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the next piece of a body may take.
pub(super) const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a whole body may take.
pub(super) const BODY_TOTAL_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a request waits for a place in [`BODIES_BYTES_MAX`].
pub(super) const BUDGET_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an answer may wait for a client that does not read.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what a refused client still sends is read and thrown away, so that its system does not drop the answer.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Most bytes thrown away so.
pub(super) const LINGER_BYTES_MAX: usize = 32 << 20;

/// How long a connection that is in no request may stay open once the source is told to stop.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(1);

/// How long nothing is accepted after the system refused to accept (no file descriptors left, for instance).
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most bytes of an `Idempotency-Key`.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// Most refused events that an answer lists; the rest is counted.
pub(super) const REFUSALS_LISTED_MAX: usize = 100;

/// A limit that a sender ran into, as it is counted and named in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// More connections than may be open.
    Connections,
    /// A request line and headers too long.
    HeaderBytes,
    /// A request line and headers too slow.
    HeaderTime,
    /// A connection that rested too long.
    IdleTime,
    /// A body too long as it travels.
    WireBytes,
    /// A body too long once decoded.
    BodyBytes,
    /// A body that decodes to suspiciously much.
    Ratio,
    /// A body of too many gzip members or zstd frames.
    Members,
    /// A zstd frame that wants too much memory.
    ZstdWindow,
    /// A body whose next piece did not come.
    BodyIdleTime,
    /// A body that took too long in all.
    BodyTime,
    /// All bodies together need too much memory.
    BodiesBytes,
    /// More events than a batch holds.
    Events,
    /// A client that does not read its answer.
    WriteTime,
    /// A TLS handshake that failed or did not end.
    Handshake,
    /// The system accepts no more connections.
    Accept,
    /// A sender at the door with more connections than it may have.
    SenderConnections,
    /// A sender at the door that asks more often than it may.
    SenderRequests,
    /// A body that needs more memory than one sender at the door may have.
    SenderBody,
    /// All bodies of one sender at the door need too much memory.
    SenderBodiesBytes,
}

impl Limit {
    /// Every limit, in the order of their discriminants.
    pub(super) const ALL: [Self; 20] = [
        Self::Connections,
        Self::HeaderBytes,
        Self::HeaderTime,
        Self::IdleTime,
        Self::WireBytes,
        Self::BodyBytes,
        Self::Ratio,
        Self::Members,
        Self::ZstdWindow,
        Self::BodyIdleTime,
        Self::BodyTime,
        Self::BodiesBytes,
        Self::Events,
        Self::WriteTime,
        Self::Handshake,
        Self::Accept,
        Self::SenderConnections,
        Self::SenderRequests,
        Self::SenderBody,
        Self::SenderBodiesBytes,
    ];

    /// Returns the name as metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::HeaderBytes => "header_bytes",
            Self::HeaderTime => "header_time",
            Self::IdleTime => "idle_time",
            Self::WireBytes => "wire_bytes",
            Self::BodyBytes => "body_bytes",
            Self::Ratio => "ratio",
            Self::Members => "members",
            Self::ZstdWindow => "zstd_window",
            Self::BodyIdleTime => "body_idle_time",
            Self::BodyTime => "body_time",
            Self::BodiesBytes => "bodies_bytes",
            Self::Events => "events",
            Self::WriteTime => "write_time",
            Self::Handshake => "handshake",
            Self::Accept => "accept",
            Self::SenderConnections => "sender_connections",
            Self::SenderRequests => "sender_requests",
            Self::SenderBody => "sender_body",
            Self::SenderBodiesBytes => "sender_bodies_bytes",
        }
    }
}

/// The memory that all bodies share.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    bytes: Arc<Semaphore>,
    events: Arc<Semaphore>,
}

impl Budget {
    /// Returns a budget of `bytes`.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes: Arc::new(Semaphore::new(bytes)), events: Arc::new(Semaphore::new(EVENTS_EXTRA_BYTES_MAX)) }
    }

    /// Returns a lease of nothing yet; of what it takes, as much is taken from `share`, the sender's own part.
    pub(super) fn lease(&self, share: Option<Arc<Semaphore>>) -> Lease {
        let (budget, events) = (self.bytes.clone(), self.events.clone());
        Lease { budget, held: None, share: share.map(|share| (share, None)), events, held_events: None }
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    share: Option<(Arc<Semaphore>, Option<OwnedSemaphorePermit>)>,
    events: Arc<Semaphore>,
    held_events: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// Takes `bytes` more, waiting at most [`BUDGET_TIMEOUT`] for each of the two. Returns the limit where they were not there.
    ///
    /// # Cancel safety
    /// Nothing is taken by a call that did not return.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), Limit> {
        let mut of_share = None;
        if let Some((share, held)) = &self.share {
            let own = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            if own + bytes > SENDER_BODIES_BYTES_MAX {
                return Err(Limit::SenderBody);
            }
            of_share = Some(acquire(share, bytes).await.ok_or(Limit::SenderBodiesBytes)?);
        }
        let more = acquire(&self.budget, bytes).await.ok_or(Limit::BodiesBytes)?;
        merge(&mut self.held, more);
        if let (Some((_, held)), Some(more)) = (&mut self.share, of_share) {
            merge(held, more);
        }
        Ok(())
    }

    /// Takes what `events` cost beside their bytes, in the same way; once, and last of all, so that nobody who holds some of
    /// it waits for more.
    pub(super) async fn hold_events(&mut self, events: usize) -> Result<(), Limit> {
        self.held_events = Some(acquire(&self.events, events * EVENT_EXTRA_BYTES).await.ok_or(Limit::BodiesBytes)?);
        Ok(())
    }
}

async fn acquire(budget: &Arc<Semaphore>, bytes: usize) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).ok()?;
    tokio::time::timeout(BUDGET_TIMEOUT, budget.clone().acquire_many_owned(bytes)).await.ok()?.ok()
}

fn merge(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_given_back_and_waits_for_its_turn() {
        let budget = Budget::new(10);
        let mut first = budget.lease(None);
        first.grow(4).await.unwrap();
        first.grow(5).await.unwrap();
        assert_eq!(budget.lease(None).grow(2).await, Err(Limit::BodiesBytes));
        drop(first);
        budget.lease(None).grow(10).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_events_cost_beside_their_bytes_has_a_bound_of_its_own() {
        let budget = Budget::new(BODIES_BYTES_MAX);
        let (mut first, mut second) = (budget.lease(None), budget.lease(None));
        first.grow(BODIES_BYTES_MAX / 2).await.unwrap();
        second.grow(BODIES_BYTES_MAX / 2).await.unwrap();
        first.hold_events(BATCH_EVENTS_MAX).await.unwrap();
        assert_eq!(second.hold_events(1).await, Err(Limit::BodiesBytes));
        drop(first);
        second.hold_events(BATCH_EVENTS_MAX).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_sender_takes_its_own_part_and_no_more() {
        let budget = Budget::new(BODIES_BYTES_MAX);
        let [one, other] = [(); 2].map(|()| Some(Arc::new(Semaphore::new(SENDER_BODIES_BYTES_MAX))));
        let mut first = budget.lease(one.clone());
        first.grow(SENDER_BODIES_BYTES_MAX - 1).await.unwrap();
        assert_eq!(first.grow(2).await, Err(Limit::SenderBody), "it will never fit");
        assert_eq!(
            budget.lease(one.clone()).grow(2).await,
            Err(Limit::SenderBodiesBytes),
            "it will when the first is gone"
        );
        budget.lease(other).grow(SENDER_BODIES_BYTES_MAX).await.unwrap();
        // What the whole has no room for is given back to the part.
        let mut all = budget.lease(None);
        all.grow(BODIES_BYTES_MAX - SENDER_BODIES_BYTES_MAX).await.unwrap();
        drop(first);
        let mut second = budget.lease(one.clone());
        all.grow(1).await.unwrap();
        assert_eq!(second.grow(SENDER_BODIES_BYTES_MAX).await, Err(Limit::BodiesBytes));
        assert_eq!(one.unwrap().available_permits(), SENDER_BODIES_BYTES_MAX);
    }

    #[test]
    fn limits_are_counted_where_they_stand() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
        }
    }
}
