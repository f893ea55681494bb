//! What a listener for lines counts, for the metrics of the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::Limit;
use crate::sources::pushed::events::RefusalCode;

/// Counters and gauges; all of the time since the start.
#[derive(Debug, Default)]
pub struct NdjsonStats {
    connections: AtomicU64,
    open: AtomicU64,
    waiting: AtomicU64,
    wire_bytes: AtomicU64,
    batches: AtomicU64,
    accepted_events: AtomicU64,
    accepted_bytes: AtomicU64,
    lost_events: AtomicU64,
    cut_lines: AtomicU64,
    refused_events: [AtomicU64; RefusalCode::ALL.len()],
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

impl NdjsonStats {
    /// Returns a figure.
    pub fn figure(&self, figure: Figure) -> u64 {
        self.counter(figure).load(Ordering::Relaxed)
    }

    /// Returns how many events were refused by themselves, by code.
    pub fn refused_events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.refused_events.iter().map(|count| count.load(Ordering::Relaxed));
        RefusalCode::ALL.into_iter().map(RefusalCode::as_str).zip(counts)
    }

    /// Returns how often a sender ran into a limit, by the name of the limit.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Limit::ALL.into_iter().map(Limit::as_str).zip(self.limits.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Returns how many batches and connections were refused, by code.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn counter(&self, figure: Figure) -> &AtomicU64 {
        match figure {
            Figure::Connections => &self.connections,
            Figure::OpenConnections => &self.open,
            Figure::WaitingConnections => &self.waiting,
            Figure::WireBytes => &self.wire_bytes,
            Figure::Batches => &self.batches,
            Figure::AcceptedEvents => &self.accepted_events,
            Figure::AcceptedBytes => &self.accepted_bytes,
            Figure::LostEvents => &self.lost_events,
            Figure::CutLines => &self.cut_lines,
        }
    }

    pub(super) fn add(&self, figure: Figure, by: u64) {
        self.counter(figure).fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn event_refused(&self, code: RefusalCode, events: u64) {
        self.refused_events[code as usize].fetch_add(events, Ordering::Relaxed);
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
    stats: Arc<NdjsonStats>,
    figure: Figure,
}

impl Drop for Now {
    fn drop(&mut self) {
        self.stats.counter(self.figure).fetch_sub(1, Ordering::Relaxed);
    }
}
