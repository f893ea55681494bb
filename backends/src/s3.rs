//! `S3`: NDJSON objects in a bucket, each event in them once.
//!
//! | module | holds |
//! | --- | --- |
//! | `key` | the template of a key, parsed and checked (pure) |
//! | `encode` | events to objects: key, identity, bytes (pure) |
//! | `fault` | what answers and errors mean (pure) |
//! | `transport` | the SDK's requests over the one HTTP client of this crate |
//! | `store` | the SDK's client, made anew when keys or CA change |
//! | `upload` | one object into the bucket: in one request, or in parts |
//! | `client` | the backend over these |
//!
//! # Guarantees
//! - An object is named by its events: `{id}` is a hash of who delivers and of every event's own id. Whatever happens
//!   between, the same events are the same key, the same bytes and the same identity.
//! - Nothing is overwritten: every object is put with `If-None-Match: *`. "It is there" counts as success only when the
//!   metadata of what is there holds our identity.
//! - An upload in parts that fails or is cut off is aborted; one that a killed process left is aborted by its retry.
//! - No redirect is followed, no proxy of the environment used, no certificate taken on trust; nothing secret, and nothing
//!   that the server says in words, is in any fault.
//!
//! # Limits
//! 64 objects per batch (above, the engine halves it), 8 of them at a time, 4 parts of 8 MiB at a time; 1024 bytes of key;
//! 256 KiB of an answer; 10 s to connect, 10 s to abort.

mod key;
mod settings;

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod encode;
#[cfg(feature = "client")]
mod fault;
#[cfg(feature = "client")]
mod store;
#[cfg(feature = "client")]
mod transport;
#[cfg(feature = "client")]
mod upload;

pub use settings::{S3Credentials, S3Encryption, S3EncryptionAlgorithm, S3Settings};

#[cfg(feature = "client")]
pub use client::S3;
