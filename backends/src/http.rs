//! `HTTP`: NDJSON bodies to one endpoint.
//!
//! # Guarantees
//! - One request per batch; the same batch is the same bytes under the same `Idempotency-Key`.
//! - An item counts as delivered only after a final 2xx; what each status means is the table in `encode.rs`.
//! - No redirect is followed, no proxy of the environment used, no certificate taken on trust.
//! - Neither a secret nor the URL's query is in any fault.
//!
//! # Limits
//! 64 KiB of an answer are read, for at most 5 s once the status is known; 10 s to connect; `Retry-After` up to 1 h.

#[cfg(feature = "client")]
mod client;
mod settings;
// The rest of this part works on answers only, so it is of no use without a client.
#[cfg(feature = "client")]
mod encode;

pub use settings::{HttpAuth, HttpBearerAuth, HttpFormat, HttpHeader, HttpHeaderAuth, HttpMethod, HttpSettings};

#[cfg(feature = "client")]
pub use client::Http;
