//! The configuration of a running agent: manifests read again, held against what runs, and what came of it.
//!
//! ```text
//! watch (file events, rescan, SIGHUP) ─► manifests (last good text of each file) ─► compile ─► diff ─► actions
//!                                                         served (by an operator) ─┘
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`manifests`] | reading with a memory: a file that cannot be read counts as it was |
//! | [`served`] | the same from an operator, kept on disk and acknowledged |
//! | [`diff`] | pure: what runs and what is wanted into actions and refusals |
//! | [`watch`] | what wakes the reading |
//! | [`state`] | generation, hash and results, for status and metrics |
//!
//! # Guarantees
//! - A manifest that has errors changes nothing that runs: its pipeline goes on in its last good version, and says so.
//! - A file that is not YAML, or cannot be read, is no deletion; a `-f` path that is gone, or a folder without any manifest,
//!   changes nothing at all.
//! - One bad object harms no other.
//!
//! # It must not know
//! Logs, deliveries, sources: `run` carries the actions out.

pub mod diff;
pub mod manifests;
pub mod served;
pub mod state;
pub mod watch;

#[cfg(test)]
mod tests;
