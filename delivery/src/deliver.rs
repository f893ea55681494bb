//! The engine at run time: pipelines with their logs, and the loop that reads a log and resolves every item.
//!
//! One [`Engine`] per data directory. One delivery per route and backend: it forms batches from its cursor, plans them
//! durably where the backend recognises a repeat by its key, sends up to `in_flight_max` at once, resolves every item,
//! and saves its progress: the log first, then the backend's commit, then the cursor, then segments may go.
//!
//! # Guarantees
//! - Every routed event ends as delivered, duplicate, rejected (in the dead letters), dropped (by reason) or is held.
//! - A delivery that fails holds a range of sequences, not memory: it lets go of its batch, waits as its circuit breaker
//!   says (`breaker`), reads it again and sends **one** batch until one succeeds; how many may be under way grows from
//!   there (`pace`), within the settings' bound and its rate limits (`rate`).
//! - Events that their backend leaves behind while it takes others are sent again alone, after a wait of their own, for ten
//!   minutes of its being well; then they are dead letters. They hold up nothing but what must keep their order. They are
//!   kept in memory as far as [`LEFT_BYTES`] reach: of a batch a third is left, and reading it again reads all of it.
//! - A failing delivery slows nobody: no lock, queue or reader is shared between deliveries. All bytes under way share one
//!   budget ([`BUDGET_BYTES`]); a batch of up to [`PROBE_BYTES`] never waits for it, and that is what a delivery sends that
//!   has not succeeded yet.
//!
//! What runs is edited in place: see `edit`.
//!
//! # Limits
//! The constants below.

mod backoff;
mod batches;
mod beginnings;
mod breaker;
mod budget;
mod bury;
pub mod dead_letters;
mod deliveries;
mod delivery;
mod desk;
mod drain;
mod edit;
mod engine;
mod failover;
mod give_up;
mod gone;
mod group;
pub mod jobs;
mod life;
mod pace;
mod rate;
mod reasons;
mod saving;
mod seats;
mod settle;
mod standing;
mod status;
mod target;
mod unanswered;
mod unclaimed;

pub(crate) use deliveries::Deliveries;
pub use desk::Desk;
pub use drain::CUT_SHORT_MAX;
pub use engine::{DeliverySpec, Engine, EngineError, EngineSettings, Rebind};
pub use standing::Standing;
pub use status::DeliveryStatus;

use std::time::Duration;

/// Most bytes of batches under way over all deliveries: 24 MiB.
pub const BUDGET_BYTES: usize = 24 << 20;

/// Most bytes of a batch that a delivery sends before anything succeeded, and after a failure.
pub const PROBE_BYTES: usize = 256 << 10;

/// Most bytes of events that their backends left behind and that wait in memory, over all deliveries: 8 MiB. What finds no
/// room there is read from the log again.
pub const LEFT_BYTES: usize = 8 << 20;

/// Most ranges that may be resolved above a delivery's cursor: 256 KiB of a saved record. At this number nothing new is
/// begun until what is left behind below is resolved.
pub const RESOLVED_RANGES_MAX: usize = 16_384;

/// How often progress is saved while there is some.
pub const SAVE_PERIOD: Duration = Duration::from_millis(500);

/// Bytes of events after which progress is saved before that: two segments of the log, so that those of a fast delivery go
/// one by one and their files are written over while the kernel still has them in memory.
pub const SAVE_BYTES: usize = 32 << 20;

/// How often progress is made safe from power loss where the pipeline's level is `Process`.
pub const PROCESS_SYNC_PERIOD: Duration = Duration::from_secs(5);

/// Bytes of events after which it is made so before that, so that what was delivered leaves the log.
pub const PROCESS_SYNC_BYTES: usize = 64 << 20;
