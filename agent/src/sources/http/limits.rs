//! The bounds of the HTTP source.

use std::time::Duration;

use spillway_delivery::event::BATCH_BYTES_MAX;

use crate::sources::pushed::budget::NoRoom;

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
pub(in crate::sources) const WIRE_BYTES_MAX: u64 = 16 << 20;

/// Most bytes of a decoded body: a batch, less the line break that its last line may lack.
pub(super) const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX - 1;

/// Most bytes of all bodies in memory, windows of decoders included: two of the greatest.
pub(super) const BODIES_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

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
pub(in crate::sources) const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a whole body may take.
pub(super) const BODY_TOTAL_TIMEOUT: Duration = Duration::from_mins(2);

/// How long an answer may wait for a client that does not read.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
pub(in crate::sources) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long what a refused client still sends is read and thrown away, so that its system does not drop the answer.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Most bytes thrown away so.
pub(super) const LINGER_BYTES_MAX: usize = 32 << 20;

/// How long a connection that is in no request may stay open once the source is told to stop.
pub(in crate::sources) const STOP_GRACE: Duration = Duration::from_secs(1);

/// A limit that a sender ran into, as it is counted and named in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Limit {
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
    pub(in crate::sources) fn as_str(self) -> &'static str {
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

impl From<NoRoom> for Limit {
    fn from(found: NoRoom) -> Self {
        match found {
            NoRoom::Share => Self::SenderBody,
            NoRoom::ShareNow => Self::SenderBodiesBytes,
            NoRoom::Now => Self::BodiesBytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_counted_where_they_stand() {
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
        }
    }
}
