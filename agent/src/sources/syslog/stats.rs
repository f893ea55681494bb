//! What a listener for syslog counts, for the metrics of the process.

use super::decode::Malformed;
use super::limits::Limit;
use crate::sources::pushed::tally::{self, Tally, listed};

/// What a listener for syslog counts; of the kinds, events of malformed messages by what was wrong, where one may count more
/// than once.
pub type SyslogStats = Tally<Figure, Limit, Malformed>;

/// Counts in a gauge until it is dropped.
pub(super) type Now = tally::Now<Figure, Limit, Malformed>;

/// What one of them is, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Connections taken.
    Connections,
    /// Connections open now.
    OpenConnections,
    /// Senders that wait now until a pipeline takes their messages: connections, or all who send datagrams as one.
    WaitingSenders,
    /// Datagrams read.
    Datagrams,
    /// Datagrams that the kernel dropped, as far as it tells.
    KernelDrops,
    /// Bytes read.
    WireBytes,
    /// Batches that were kept.
    Batches,
    /// Events accepted.
    AcceptedEvents,
    /// Their bytes.
    AcceptedBytes,
    /// Events that were read, and could not be kept at the end.
    LostEvents,
}

impl Figure {
    const ALL: [Self; 10] = [
        Self::Connections,
        Self::OpenConnections,
        Self::WaitingSenders,
        Self::Datagrams,
        Self::KernelDrops,
        Self::WireBytes,
        Self::Batches,
        Self::AcceptedEvents,
        Self::AcceptedBytes,
        Self::LostEvents,
    ];
}

listed!(Figure);
