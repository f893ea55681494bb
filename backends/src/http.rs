//! `HTTP`: events to one endpoint, as NDJSON, as a JSON array, or one JSON object per request.
//!
//! # Guarantees
//! - One request per batch (`NDJSON`, `JSONArray`): the same batch is the same bytes under the same `Idempotency-Key`. One
//!   request per event (`JSONObject`): its key is the event's id.
//! - An item counts as delivered only after a final 2xx; what each status means is the table in `encode.rs`.
//! - No redirect is followed, no proxy of the environment used, no certificate taken on trust.
//! - Neither a secret nor the URL's query is in any fault.
//!
//! # Limits
//! 64 KiB of an answer are read, for at most 5 s once the status is known; 10 s to connect; `Retry-After` up to 1 h.
//!
//! | module | holds |
//! | --- | --- |
//! | `endpoint` | URL and credentials; below every backend that is a preset of this one |
//! | `each` | one request per event, for presets too |
//! | `encode` | bodies, and what an answer means (pure) |
//! | `client` | the backend over these |

#[cfg(feature = "client")]
pub(crate) mod client;
#[cfg(feature = "client")]
pub(crate) mod each;
#[cfg(feature = "client")]
pub(crate) mod encode;
#[cfg(feature = "client")]
pub(crate) mod endpoint;
pub(crate) mod settings;

pub use settings::{HttpAuth, HttpBearerAuth, HttpFormat, HttpHeader, HttpHeaderAuth, HttpMethod, HttpSettings};

#[cfg(feature = "client")]
pub use client::Http;
