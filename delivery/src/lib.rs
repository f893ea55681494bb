//! The engine: an accepted batch becomes a delivered or reported batch.
//!
//! ```text
//! Intake::submit ─► transforms ─► route mask ─► Log ─► one Delivery per route and backend ─► Backend::send
//!       ▲                                        │                                              │
//!       └───────────────── receipt ──────────────┴───────────── outcome per item ◄──────────────┘
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`event`] | a batch of events as bytes, who made it, and how one event is named |
//! | [`json`] | the walker over raw JSON: validate, find, splice; never a tree of values |
//! | [`condition`] | conditions and expressions: CEL, checked and lowered to a tree of its own |
//! | [`pattern`] | regular expressions, linear in the text |
//! | [`transform`] | what a pipeline does to its events before the log: fields set, cut, moved, events dropped |
//! | [`settings`] | what a pipeline and a delivery can be told, with defaults and bounds |
//! | [`log`] | the durable log: segments, cursors, recovery; everything is a reader of it |
//! | [`intake`] | the one door in: selects pipelines, reserves in every log, appends, answers |
//! | [`deliver`] | the loop that reads a log and resolves every item at one backend |
//! | [`backend`] | the one door out: the seam every destination implements |
//! | [`ledger`] | the conservation ledger: nothing is counted twice or not at all |
//! | [`filesystem`] | the seam under the log: the real file system and a faulty one for tests |
//! | [`clock`], [`supervisor`], [`secret`] | wall time, owned tasks, values that never print |
//!
//! Invariants (gates hold them): this crate knows no HTTP and no Kubernetes; no event becomes a tree of values on
//! its way through; every queue and every buffer has a named bound; nothing is acknowledged before it is in the log
//! at the level its pipeline promises.

pub mod backend;
pub mod clock;
pub mod condition;
pub mod deliver;
pub mod event;
pub mod filesystem;
pub mod intake;
pub mod json;
pub mod ledger;
pub mod log;
pub mod pattern;
pub mod secret;
pub mod settings;
pub mod supervisor;
pub mod transform;
