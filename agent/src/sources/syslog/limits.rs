//! The bounds of syslog; each counts for one listener.

use std::time::Duration;

use crate::sources::pushed::tally::listed;

use super::decode::{MESSAGE_BYTES_MAX, event_bytes_max};

/// Most connections at once. One that has sent something has a buffer of [`READ_BYTES`]: 16 MiB, if all of them do.
pub(super) const CONNECTIONS_MAX: usize = 1024;

/// Most TLS handshakes at once; further connections wait with the system, at whose side nothing of a message was sent yet.
pub(super) const HANDSHAKES_MAX: usize = 256;

/// Most of them from one address; one more is closed, and its sender comes again.
pub(super) const SENDER_HANDSHAKES_MAX: usize = 64;

/// Bytes of the read buffer of one connection; a longer message takes of [`LONG_BYTES_MAX`] while it is read.
pub(super) const READ_BYTES: usize = 16 << 10;

/// Most bytes of buffers for messages longer than [`READ_BYTES`]: 128 of them at once. Who finds them taken is not read from.
pub(super) const LONG_BYTES_MAX: usize = 128 * MESSAGE_BYTES_MAX;

/// Bytes of events at which a batch ends; the event that reaches them is in it.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Events at which a batch ends.
pub(super) const BATCH_EVENTS: usize = 8192;

/// How long a batch stays open while messages keep coming; one after which nothing comes ends at once.
pub(super) const BATCH_WAIT: Duration = Duration::from_millis(10);

/// Most bytes of batches of all connections, until they are kept. Who finds them taken is not read from.
pub(super) const BATCHES_BYTES_MAX: usize = 32 << 20;

/// First bytes that a batch takes of them.
pub(super) const BATCH_FIRST_BYTES: usize = 32 << 10;

/// Most bytes of a datagram: 65,507 by IPv4, and 65,527 by IPv6.
pub(super) const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// Bytes of events that are taken from datagrams while the batch before is being kept; then the rest stays with the kernel, which
/// drops what its buffer has no room for.
pub(super) const PENDING_BYTES: usize = 4 << 20;

/// Events that are taken so.
pub(super) const PENDING_EVENTS: usize = 16_384;

/// Bytes of the kernel's buffer for datagrams that are asked for; it takes its own overhead of them, about 700 bytes for a short one.
pub(super) const KERNEL_BYTES: usize = 8 << 20;

/// Datagrams taken before others have a turn.
pub(super) const TURN_DATAGRAMS: usize = 512;

/// How often the kernel is asked what it dropped.
pub(super) const DROPS_EVERY: Duration = Duration::from_secs(10);

/// How long a connection may be silent before its first message.
pub(super) const FIRST_TIMEOUT: Duration = Duration::from_mins(5);

/// How long a connection may rest between messages. A sender of plain syslog does not see its end before it has written once more
/// in vain, so that a quiet one must be left alone; one whose machine is gone is found by [`KEEPALIVE_IDLE`].
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_hours(24);

/// After how long a silent sender is asked whether it is there.
pub(super) const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// How often it is asked then.
pub(super) const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// After how many questions without an answer its connection ends.
pub(super) const KEEPALIVE_ASKS: u32 = 4;

/// How long nothing may come in the midst of a message.
pub(super) const OPEN_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a message may take in all.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a TLS handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest pause between two tries of a batch.
pub(super) const RETRY_EVERY_MAX: Duration = Duration::from_secs(1);

/// Shortest pause between two tries.
pub(super) const RETRY_EVERY_MIN: Duration = Duration::from_millis(50);

/// How long what was sent is read on once the source is told to stop.
pub(super) const STOP_READ: Duration = Duration::from_secs(1);

/// How long nothing must come then, for all to be read.
pub(super) const STOP_IDLE: Duration = Duration::from_millis(50);

/// How long a connection may take to be closed in order.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often messages that are malformed, wait or are lost are told in the agent's own log.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(10);

const _: () = assert!(2 * (BATCH_BYTES + event_bytes_max(MESSAGE_BYTES_MAX)) <= BATCHES_BYTES_MAX);
const _: () = assert!(2 * 2 * (PENDING_BYTES + event_bytes_max(DATAGRAM_BYTES_MAX)) <= BATCHES_BYTES_MAX);

/// A limit that a sender ran into, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A connection had to wait for a place.
    Connections,
    /// An address had more handshakes under way than it may.
    SenderHandshakes,
    /// The system accepts no more connections.
    Accept,
    /// A TLS handshake that failed or did not end: no certificate that is trusted, for one.
    Handshake,
    /// A connection that sent nothing at all.
    FirstTime,
    /// A connection that rested too long.
    IdleTime,
    /// Half a message, behind which nothing came.
    OpenIdleTime,
    /// A message that took too long in all.
    OpenTime,
    /// A message that is too long, and cut.
    MessageBytes,
    /// All connections together have as much in flight as they may.
    Bytes,
    /// Datagrams wait with the kernel, since as many as may be wait to be kept.
    Pending,
}

impl Limit {
    /// Every limit, in the order of their discriminants.
    pub(super) const ALL: [Self; 11] = [
        Self::Connections,
        Self::SenderHandshakes,
        Self::Accept,
        Self::Handshake,
        Self::FirstTime,
        Self::IdleTime,
        Self::OpenIdleTime,
        Self::OpenTime,
        Self::MessageBytes,
        Self::Bytes,
        Self::Pending,
    ];

    /// Returns the name as metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::SenderHandshakes => "sender_handshakes",
            Self::Accept => "accept",
            Self::Handshake => "handshake",
            Self::FirstTime => "first_time",
            Self::IdleTime => "idle_time",
            Self::OpenIdleTime => "open_idle_time",
            Self::OpenTime => "open_time",
            Self::MessageBytes => "message_bytes",
            Self::Bytes => "bytes",
            Self::Pending => "pending",
        }
    }
}

listed!(Limit, named);
