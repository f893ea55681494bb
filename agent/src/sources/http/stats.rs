//! What the HTTP source counts, for the metrics of the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::limits::Limit;
use crate::sources::pushed::events::RefusalCode;

/// Every status the source answers, in the order of their counters.
const STATUSES: [u16; 16] = [200, 202, 207, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503, 0];

/// Counters and one gauge; all of the time since the start.
#[derive(Debug, Default)]
pub struct HttpStats {
    requests: [AtomicU64; STATUSES.len()],
    refused_events: [AtomicU64; RefusalCode::ALL.len()],
    limits: [AtomicU64; Limit::ALL.len()],
    accepted_events: AtomicU64,
    accepted_bytes: AtomicU64,
    wire_bytes: AtomicU64,
    connections: AtomicU64,
    connections_open: AtomicU64,
    turned_back: Mutex<BTreeMap<&'static str, u64>>,
    unverified_events: AtomicU64,
    /// 0 while none is shown.
    certificate_ends: AtomicU64,
}

impl HttpStats {
    /// Returns how many requests were turned back for who sent them, by reason.
    pub fn senders_turned_back(&self) -> BTreeMap<&'static str, u64> {
        self.turned_back.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns how many of the accepted events came without a token, at the door.
    pub fn unverified_events(&self) -> u64 {
        read(&self.unverified_events)
    }

    /// Returns when the certificate of a door is over, seconds since 1970; `None` where none is shown.
    pub fn certificate_ends(&self) -> Option<u64> {
        Some(read(&self.certificate_ends)).filter(|end| *end > 0)
    }

    pub(super) fn shows_until(&self, end: u64) {
        self.certificate_ends.store(end, Ordering::Relaxed);
    }

    pub(super) fn unverified(&self, events: u64) {
        add(&self.unverified_events, events);
    }

    pub(super) fn turned_back(&self, reason: &'static str) {
        *self.turned_back.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// Returns how many requests were answered, by status; `0` stands for any other status.
    pub fn requests(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.into_iter().zip(self.requests.iter().map(read))
    }

    /// Returns how many events were refused by themselves, by code.
    pub fn refused_events(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RefusalCode::ALL.into_iter().map(RefusalCode::as_str).zip(self.refused_events.iter().map(read))
    }

    /// Returns how often a sender ran into a limit, by the name of the limit.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Limit::ALL.into_iter().map(Limit::as_str).zip(self.limits.iter().map(read))
    }

    /// Returns how many events were accepted, repeats under the same key included.
    pub fn accepted_events(&self) -> u64 {
        read(&self.accepted_events)
    }

    /// Returns the bytes of the accepted events.
    pub fn accepted_bytes(&self) -> u64 {
        read(&self.accepted_bytes)
    }

    /// Returns the bytes of bodies read, as they travelled.
    pub fn wire_bytes(&self) -> u64 {
        read(&self.wire_bytes)
    }

    /// Returns how many connections were taken.
    pub fn connections(&self) -> u64 {
        read(&self.connections)
    }

    /// Returns how many connections are open now.
    pub fn connections_open(&self) -> u64 {
        read(&self.connections_open)
    }

    pub(super) fn answered(&self, status: u16) {
        let index = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        add(&self.requests[index], 1);
    }

    pub(super) fn refused(&self, code: RefusalCode, events: u64) {
        add(&self.refused_events[code as usize], events);
    }

    pub(in crate::sources) fn limited(&self, limit: Limit) {
        add(&self.limits[limit as usize], 1);
    }

    pub(super) fn accepted(&self, events: u64, bytes: u64) {
        add(&self.accepted_events, events);
        add(&self.accepted_bytes, bytes);
    }

    pub(super) fn read_from_wire(&self, bytes: u64) {
        add(&self.wire_bytes, bytes);
    }

    pub(in crate::sources) fn opened(self: &std::sync::Arc<Self>) -> OpenConnection {
        add(&self.connections, 1);
        add(&self.connections_open, 1);
        OpenConnection { stats: self.clone() }
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(in crate::sources) struct OpenConnection {
    stats: std::sync::Arc<HttpStats>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.stats.connections_open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
