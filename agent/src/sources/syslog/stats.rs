//! What a listener for syslog counts, for the metrics of the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::decode::{Decoded, Malformed};
use super::limits::Limit;

/// Counters and gauges; all of the time since the start.
#[derive(Debug, Default)]
pub struct SyslogStats {
    figures: [AtomicU64; Figure::ALL.len()],
    malformed: [AtomicU64; Malformed::ALL.len()],
    limits: [AtomicU64; Limit::ALL.len()],
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

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

impl SyslogStats {
    /// Returns a figure.
    pub fn figure(&self, figure: Figure) -> u64 {
        self.figures[figure as usize].load(Ordering::Relaxed)
    }

    /// Returns how many events are of malformed messages, by what was wrong; an event may count more than once.
    pub fn malformed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.malformed.iter().map(|count| count.load(Ordering::Relaxed));
        Malformed::ALL.into_iter().map(Malformed::as_str).zip(counts)
    }

    /// Returns how often a sender ran into a limit, by the name of the limit.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Limit::ALL.into_iter().map(Limit::as_str).zip(self.limits.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns how many batches waited or were lost, and connections were ended, by reason.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn add(&self, figure: Figure, by: u64) {
        self.figures[figure as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// Counts what was wrong with a message; returns whether anything was.
    pub(super) fn decoded(&self, decoded: Decoded) -> bool {
        for one in decoded.malformed() {
            self.malformed[one as usize].fetch_add(1, Ordering::Relaxed);
            if one == Malformed::TooLong {
                self.limited(Limit::MessageBytes);
            }
        }
        decoded != Decoded::default()
    }

    pub(super) fn limited(&self, limit: Limit) {
        self.limits[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, code: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// Counts a connection, as open until what is returned is dropped.
    pub(super) fn opened(self: &Arc<Self>) -> Now {
        self.add(Figure::Connections, 1);
        self.now(Figure::OpenConnections)
    }

    /// Counts in a gauge until what is returned is dropped.
    pub(super) fn now(self: &Arc<Self>, figure: Figure) -> Now {
        self.add(figure, 1);
        Now { stats: self.clone(), figure }
    }
}

/// Counts in a gauge until it is dropped.
#[derive(Debug)]
pub(super) struct Now {
    stats: Arc<SyslogStats>,
    figure: Figure,
}

impl Drop for Now {
    fn drop(&mut self) {
        self.stats.figures[self.figure as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_and_kinds_are_counted_where_they_stand() {
        for (index, figure) in Figure::ALL.into_iter().enumerate() {
            assert_eq!(figure as usize, index);
        }
        for (index, one) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(one as usize, index);
        }
    }
}
