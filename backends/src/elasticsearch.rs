//! `Elasticsearch`: documents by `_bulk`, to Elasticsearch 8 and 9 and to OpenSearch 2 and 3.
//!
//! # Guarantees
//! - Every document has the event's id as `_id` and is created, never overwritten: what arrives again (after a lost
//!   answer, a crash, a restart) is answered 409, which is success. In a data stream that holds within one backing index.
//! - Every item of an answer is looked at: none counts as delivered because the request was answered 200. What each
//!   status means is the table in `answer.rs`.
//! - An answer that is cut short, that has other items than were sent or that cannot be read is a fault; the batch is
//!   sent again.
//! - With `dataStream` no plain index is made and nothing goes to one (`streams.rs`).
//! - Every document has `@timestamp`: its own, else its `time`, else the time of receipt.
//! - Neither a secret nor the text of a URL is in any fault or reason.
//!
//! # Must not know
//! Retries, back-off, dead letters: the engine's. Which of the products it talks to, but for the one mapping type whose
//! name differs.
//!
//! # Limits
//! 16 nodes; an answer of at most 8 MiB (`answer.rs`); a node that could not be reached is asked last for 30 s.
//!
//! | module | holds |
//! | --- | --- |
//! | `encode` | events to the lines of a bulk request (pure) |
//! | `answer` | answers to outcomes (pure) |
//! | `mapping` | the index template (pure) |
//! | `nodes` | the seam: one function sends a request to one of the nodes |
//! | `streams` | which names are data streams, or will be |
//! | `client` | the backend over these |

mod settings;

#[cfg(feature = "client")]
mod answer;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod encode;
#[cfg(feature = "client")]
mod mapping;
#[cfg(feature = "client")]
mod nodes;
#[cfg(feature = "client")]
mod streams;

pub use settings::{ElasticsearchAuth, ElasticsearchCompression, ElasticsearchSettings};

#[cfg(feature = "client")]
pub use client::Elasticsearch;
