//! The bounds of lines over TCP and Unix sockets; each counts for one listener.

use std::time::Duration;

use crate::sources::pushed::tally::listed;

use spillway_delivery::event::EVENT_BYTES_MAX;

/// Most connections at once. One that has not sent anything costs a socket and a small task, one that has a buffer of
/// [`READ_BYTES`] besides: 32 MiB, if all of them send.
pub(super) const CONNECTIONS_MAX: usize = 1024;

/// Bytes of the read buffer of one connection; a longer line takes of [`BYTES_MAX`] while it is read.
pub(super) const READ_BYTES: usize = 32 << 10;

/// Most bytes of a line without its line break. What is longer is read and thrown away, and refused by its number.
pub(super) const LINE_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// Most bytes of a control line: a token has 4 KiB at most, a key 256.
pub(super) const CONTROL_BYTES_MAX: usize = 8 << 10;

/// Bytes at which the agent ends a batch; the line that reaches them is in it.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Events at which the agent ends a batch.
pub(super) const BATCH_EVENTS: usize = 8192;

/// How long a batch that the agent ends stays open while lines keep coming; one after which nothing comes ends at once.
pub(super) const BATCH_WAIT: Duration = Duration::from_millis(10);

/// Most bytes of a batch that the client ends.
pub(super) const KEYED_BATCH_BYTES_MAX: usize = 4 << 20;

/// Most events of a batch that the client ends.
pub(super) const KEYED_BATCH_EVENTS_MAX: usize = 65_536;

/// Most bytes in flight of all connections, beside their read buffers: lines that are not whole yet, and batches until they
/// are kept. Who finds them taken is not read from.
pub(super) const BYTES_MAX: usize = 32 << 20;

/// First bytes that a batch takes of them.
pub(super) const BATCH_FIRST_BYTES: usize = 64 << 10;

/// How long a connection waits for a place in [`BYTES_MAX`] while it holds a part of a line or of a batch, before it is closed.
pub(super) const BYTES_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may rest between lines, and before the first: a sender that writes now and then keeps it open, one
/// whose machine is gone does not keep its place for ever.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_hours(1);

/// How long the first line may take where a token must be shown.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long nothing may come in the midst of a line, or of a batch that the client ends.
pub(super) const OPEN_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long such a line or batch may take in all.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_mins(2);

/// How long an answer may wait for a client that does not read.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a TLS handshake may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a batch that no pipeline takes now is tried again before a client that reads answers is told.
pub(super) const REFUSED_AFTER: Duration = Duration::from_secs(10);

/// How long lines are held for which there is no pipeline any more, where nobody reads answers.
pub(super) const GONE_AFTER: Duration = Duration::from_secs(10);

/// Longest pause between two tries of a batch.
pub(super) const RETRY_EVERY_MAX: Duration = Duration::from_secs(1);

/// Shortest pause between two tries.
pub(super) const RETRY_EVERY_MIN: Duration = Duration::from_millis(50);

/// How long what was sent is read on once the source is told to stop.
pub(super) const STOP_READ: Duration = Duration::from_secs(1);

/// How long nothing must come then, for all to be read.
pub(super) const STOP_IDLE: Duration = Duration::from_millis(50);

/// How long what a refused client still sends is read and thrown away, so that its system does not drop the last answer.
pub(super) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Most bytes thrown away so.
pub(super) const LINGER_BYTES_MAX: u64 = 32 << 20;

/// How often lines that are no events, or that are lost, are told in the agent's own log, where nobody reads answers.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A limit that a sender ran into, as it is counted and named in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// More connections than may be open.
    Connections,
    /// The system accepts no more connections.
    Accept,
    /// A TLS handshake that failed or did not end.
    Handshake,
    /// A connection that showed no token in time.
    HelloTime,
    /// A connection that rested too long.
    IdleTime,
    /// Half a line or batch, behind which nothing came.
    OpenIdleTime,
    /// A line or batch that took too long in all.
    OpenTime,
    /// A line that is too long.
    LineBytes,
    /// A control line that is too long.
    ControlBytes,
    /// A batch that the client ends, and that is too long.
    BatchBytes,
    /// A batch that the client ends, and that has too many events.
    BatchEvents,
    /// All connections together have as much in flight as they may.
    Bytes,
    /// A client that does not read its answers.
    WriteTime,
}

impl Limit {
    /// Every limit, in the order of their discriminants.
    pub(super) const ALL: [Self; 13] = [
        Self::Connections,
        Self::Accept,
        Self::Handshake,
        Self::HelloTime,
        Self::IdleTime,
        Self::OpenIdleTime,
        Self::OpenTime,
        Self::LineBytes,
        Self::ControlBytes,
        Self::BatchBytes,
        Self::BatchEvents,
        Self::Bytes,
        Self::WriteTime,
    ];

    /// Returns the name as metric label and code of an answer.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Accept => "accept",
            Self::Handshake => "handshake",
            Self::HelloTime => "hello_time",
            Self::IdleTime => "idle_time",
            Self::OpenIdleTime => "open_idle_time",
            Self::OpenTime => "open_time",
            Self::LineBytes => "line_bytes",
            Self::ControlBytes => "control_bytes",
            Self::BatchBytes => "batch_bytes",
            Self::BatchEvents => "batch_events",
            Self::Bytes => "bytes",
            Self::WriteTime => "write_time",
        }
    }

    /// Returns what the sender did, and what it may.
    pub(super) fn message(self) -> String {
        let secs = |time: Duration| time.as_secs();
        match self {
            Self::Connections => format!("{CONNECTIONS_MAX} connections are open, try again"),
            Self::Accept | Self::Handshake => "the connection was not made".to_owned(),
            Self::HelloTime => format!("no token within {} s", secs(HELLO_TIMEOUT)),
            Self::IdleTime => format!("nothing came for {} s", secs(IDLE_TIMEOUT)),
            Self::OpenIdleTime => format!("nothing came for {} s behind half a line or batch", secs(OPEN_IDLE_TIMEOUT)),
            Self::OpenTime => format!("a line or batch took longer than {} s", secs(OPEN_TIMEOUT)),
            Self::LineBytes => format!("a line may have at most {LINE_BYTES_MAX} bytes"),
            Self::ControlBytes => format!("a control line may have at most {CONTROL_BYTES_MAX} bytes"),
            Self::BatchBytes => {
                format!("a batch may have at most {KEYED_BATCH_BYTES_MAX} bytes, nothing of it was kept")
            }
            Self::BatchEvents => {
                format!("a batch may have at most {KEYED_BATCH_EVENTS_MAX} events, nothing of it was kept")
            }
            Self::Bytes => format!("lines under way fill {BYTES_MAX} bytes, try again"),
            Self::WriteTime => "answers are not read".to_owned(),
        }
    }
}

listed!(Limit, named);
