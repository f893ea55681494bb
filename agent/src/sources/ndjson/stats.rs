//! What a listener for lines counts, for the metrics of the process.

use super::limits::Limit;
use crate::sources::pushed::events::RefusalCode;
use crate::sources::pushed::tally::{self, Tally, listed};

/// What a listener for lines counts; of the kinds, events that were refused by themselves.
pub type NdjsonStats = Tally<Figure, Limit, RefusalCode>;

/// Counts in a gauge until it is dropped.
pub(super) type Now = tally::Now<Figure, Limit, RefusalCode>;

/// What one of them is, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Connections taken.
    Connections,
    /// Connections open now.
    OpenConnections,
    /// Connections that wait now until a pipeline takes their lines again.
    WaitingConnections,
    /// Bytes read.
    WireBytes,
    /// Batches that were kept.
    Batches,
    /// Events accepted.
    AcceptedEvents,
    /// Their bytes.
    AcceptedBytes,
    /// Events that were read from senders that ask for no answers, and could not be kept.
    LostEvents,
    /// Lines of which only a part came before their connection broke.
    CutLines,
}

impl Figure {
    const ALL: [Self; 9] = [
        Self::Connections,
        Self::OpenConnections,
        Self::WaitingConnections,
        Self::WireBytes,
        Self::Batches,
        Self::AcceptedEvents,
        Self::AcceptedBytes,
        Self::LostEvents,
        Self::CutLines,
    ];
}

listed!(Figure);
