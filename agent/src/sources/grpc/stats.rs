//! What the gRPC source counts, for the metrics of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::Hit;
use super::status::Code;
use crate::sources::http::HttpStats;
use crate::sources::http::limits::Limit;

/// The limits of HTTP that a client of gRPC can run into.
const SHARED: [Limit; 11] = [
    Limit::Connections,
    Limit::HeaderBytes,
    Limit::IdleTime,
    Limit::WireBytes,
    Limit::BodyBytes,
    Limit::Ratio,
    Limit::Members,
    Limit::BodyIdleTime,
    Limit::BodyTime,
    Limit::BodiesBytes,
    Limit::Events,
];

/// And those of its connections.
const OF_CONNECTIONS: [Limit; 2] = [Limit::Handshake, Limit::Accept];

/// Counters of the time since the start: those of HTTP, of which events and bodies are counted, and those that gRPC has besides.
#[derive(Debug, Default)]
pub struct GrpcStats {
    http: Arc<HttpStats>,
    answered: [AtomicU64; Code::ALL.len()],
    hits: [AtomicU64; Hit::ALL.len()],
}

impl GrpcStats {
    /// Returns what is counted as for HTTP: events, bytes, connections.
    pub fn of_http(&self) -> &Arc<HttpStats> {
        &self.http
    }

    /// Returns how many calls were answered, by the name of the status.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.answered.iter().map(|count| count.load(Ordering::Relaxed));
        Code::ALL.into_iter().map(Code::as_str).zip(counts)
    }

    /// Returns how often a client ran into a limit, by the name of the limit.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let is_shared = |name: &str| SHARED.into_iter().chain(OF_CONNECTIONS).any(|limit| limit.as_str() == name);
        let own = self.hits.iter().map(|count| count.load(Ordering::Relaxed));
        let own = Hit::ALL.into_iter().map(Hit::as_str).zip(own);
        self.http.limits().filter(move |(name, _)| is_shared(name)).chain(own)
    }

    pub(super) fn answered(&self, code: Code) {
        self.answered[code as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn hit(&self, hit: Hit) {
        self.hits[hit as usize].fetch_add(1, Ordering::Relaxed);
    }
}
