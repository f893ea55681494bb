//! The bounds of the gRPC source, besides those of bodies, which are those of [`crate::sources::http`].
//!
//! # What one connection costs
//! At most [`CONNECTION_WINDOW_BYTES`] of messages that are not read yet, [`FRAME_BYTES_MAX`] twice for the frame that is being read
//! and what was read behind it, 4 KiB for the table of header compression, and [`HEADERS_FRAMED_MAX`] for the headers that come; the
//! headers of a call are dropped as soon as they were looked at. That is below 256 KiB, and 128 MiB for [`CONNECTIONS_MAX`]. Who sends
//! crumbs makes each of them pin the piece of memory that it was read into: [`CRUMBS_BYTES_MAX`] bounds them to 128, 2 MiB more. What
//! is read is copied into memory that the budget of all bodies gave.

use std::time::Duration;

/// Most connections at once. One has many calls, and a process has one or three (a signal each).
pub(super) const CONNECTIONS_MAX: usize = 512;

/// Most calls of one connection at once; a client keeps to it, and what comes beyond is reset before it is looked at.
pub(super) const CALLS_OF_CONNECTION_MAX: u32 = 64;

/// Most calls of all connections at once: as many as HTTP has connections. A call costs a task of 4 KiB beside its body.
pub(super) const CALLS_MAX: usize = 1_024;

/// Most bytes of messages that a connection may send before they are read, and one call of it: at 1 ms to and fro these
/// are 128 MB a second.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 128 << 10;

/// Most bytes of one frame: the least that HTTP/2 allows, and what most clients send at most.
pub(super) const FRAME_BYTES_MAX: u32 = 16 << 10;

/// Most bytes of the headers of a call, by the count of HTTP/2 (32 more for each): what gRPC has by default.
pub(super) const HEADER_BYTES_MAX: usize = 8 << 10;

/// What HTTP/2 itself lets pass of them, so that what is too large is answered as gRPC answers. What is larger still is answered
/// `431`, four times as much ends the connection.
pub(super) const HEADERS_FRAMED_MAX: u32 = 16 << 10;

/// What the parts of messages that are not read may lack to 256 bytes each, in all: 128 parts of one byte.
pub(super) const CRUMBS_BYTES_MAX: usize = 128 * 255;

/// Most calls that a client resets before anybody looked at them.
pub(super) const UNSEEN_RESETS_MAX: usize = 20;

/// Most calls that a connection may reset beyond as many as it had answered.
pub(super) const RESETS_MAX: u64 = 100;

/// Most calls that break the rules of HTTP/2, one by one, before their connection is ended.
pub(super) const BROKEN_CALLS_MAX: usize = 64;

/// Most bytes of one answer that wait for a client that does not read.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Most bytes of the words of a status: the trailers of a call must stay below what a client takes, 8 KiB.
pub(super) const WORDS_BYTES_MAX: usize = 1 << 10;

/// How often a connection is asked whether its client is there and reads.
pub(super) const PING_EVERY: Duration = Duration::from_secs(30);

/// How long the answer to that may take.
pub(super) const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection may have no call: clients that send once a minute keep theirs.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// When a call that there was no room for may come again.
pub(super) const BUSY_AGAIN: Duration = Duration::from_secs(1);

/// A limit that a client ran into and that HTTP/1.1 does not have, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    /// More calls than there may be.
    Calls,
    /// A client that is not there any more, or does not read.
    Ping,
    /// More calls reset than answered.
    Resets,
    /// Frames in a number or of a size that serve nobody.
    Flood,
    /// Frames that are no HTTP/2.
    Protocol,
    /// A call whose deadline was over before it was kept.
    Deadline,
}

impl Hit {
    /// Every limit, in the order of their discriminants.
    pub(super) const ALL: [Self; 6] =
        [Self::Calls, Self::Ping, Self::Resets, Self::Flood, Self::Protocol, Self::Deadline];

    /// Returns the name as metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Ping => "ping",
            Self::Resets => "resets",
            Self::Flood => "flood",
            Self::Protocol => "protocol",
            Self::Deadline => "deadline",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_counted_where_they_stand() {
        for (index, hit) in Hit::ALL.into_iter().enumerate() {
            assert_eq!(hit as usize, index);
        }
    }
}
