//! Requests of OTLP become events, whatever door they came by.
//!
//! ```text
//! (json ─►) wire ─► write ─► events          refused ─► answer
//!          schema ──┘
//! ```
//!
//! A log record, a span and a point of a metric are an event each, with its resource and its scope; how is written down in
//! `docs/reference/otlp.md`, and `schema` is where it is told.
//!
//! # Guarantees
//! One pass over a request, no tree of values, no panic on any bytes; what is no event is refused alone and counted.
//!
//! # Must not know
//! How a request came, who sent it, which pipelines there are.
//!
//! # Limits
//! [`REQUEST_BYTES_MAX`] for a request in protobuf; the events of a request are at most as many and as large as a batch, one is at
//! most 1 MiB with its resource and scope, and values stand in each other 64 deep.

mod answer;
mod json;
mod out;
mod schema;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use spillway_delivery::event::BATCH_BYTES_MAX;

pub(crate) use answer::{retry_info, status, success, success_json};
pub(crate) use write::{Error, Signal, Written, events};

/// Most bytes of a request in protobuf.
pub(crate) const REQUEST_BYTES_MAX: usize = BATCH_BYTES_MAX - 1;

/// Returns a request in OTLP's JSON as it is in protobuf.
pub(crate) fn to_protobuf(signal: Signal, request: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    json::to_wire(signal.request(), request)
}
