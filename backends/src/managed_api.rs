//! `ManagedAPI`: a managed ingest service, told by its base URL and a token; what carries the events is `HTTP`'s.
//!
//! # Guarantees
//! - One event is a JSON object to `eventPath`, several are one JSON array to `batchPath`; the same batch is the same bytes
//!   under the same `Idempotency-Key`.
//! - An answer is taken at its word item by item (`answers`): a success that hides refusals is unpacked, one that does not
//!   account for every event is a fault.
//! - After a failure the service is asked how it is (`healthPath`) before a batch is sent to it again.
//!
//! # Limits
//! [`BATCH_EVENTS_MAX`](settings::BATCH_EVENTS_MAX) events of a batch, 4 MiB of an answer: enough for a refusal of 4 KiB
//! for each. The rest is that of `HTTP`.

#[cfg(feature = "client")]
pub(crate) mod answers;
#[cfg(feature = "client")]
mod client;
mod settings;

pub use settings::ManagedApiSettings;

#[cfg(feature = "client")]
pub use client::ManagedApi;
