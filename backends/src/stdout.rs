//! `Stdout`: NDJSON on the standard output of the agent, for a first look and for pipes.
//!
//! Guarantees the order of the log and whole lines, one write per batch. At least once: a batch that was cancelled while
//! the pipe was full is written again. Knows nothing of who reads.

#[cfg(feature = "client")]
mod client;
mod settings;

pub use settings::StdoutSettings;

#[cfg(feature = "client")]
pub use client::Stdout;
