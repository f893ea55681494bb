//! The durable log of one pipeline: what an agent accepts is appended here once, and every delivery is a reader of it.
//!
//! # Files (format version 2; integers little-endian)
//! ```text
//! <data>/spool/<pipeline uid>/
//!     <ordinal:016x>.log     a segment: header, frames, and once sealed a footer
//!     cursors.a  cursors.b   what each delivery has resolved: two slots, the newer one counts (`journal`)
//!     <ordinal>.new, <ordinal>.spare    a segment that is begun; the file of one that went, to be written over
//!     quarantine/            segments set aside for people: damaged ones (at most 64 MiB), and all that cannot be read
//!
//! segment  magic "SPWYLOG2", u32 length, u32 CRC32C, header body (later versions: the checksum covers the magic too)
//!          header body: incarnation, ordinal, base sequence, running time, wall time, length of the file when it began,
//!          route names (bit order of the masks below), the state as of the base (totals, positions, keys), u64 the
//!          sequence behind the last event that was written before, u8 whether the log is at level `Memory`, u64 events that
//!          transforms dropped, as of the base
//! frame    u32 magic "SPF1", u32 body length, u32 CRC32C of incarnation, ordinal and everything behind it, u32 events,
//!          u64 first sequence,
//!          i64 time of receipt, u64 running time, u32 origin, u32 unrouted, u8 kind, u8 mask form, u8 codec (0), u8 flags,
//!          u32 synced, u32 meta length; then meta (masks, ends, position, key, u32 dropped) and payload (NDJSON)
//!          kind 1 data, 2 origin (payload is its JSON, `origin` its number), 3 footer
//! footer   a frame of kind 3 (counts and bytes per route, sparse index, origins, state as of the end, u64 events that
//!          transforms dropped until then), then u32 its length, and magic "SPWYEND1"
//!
//! What was dropped stands last everywhere, and in a frame only where it is not 0: a program of this version that does not
//! know it passes over it, and where it is absent it is 0.
//! ```
//!
//! # Guarantees
//! - A frame is seen by readers, and its receipt resolves, when it has reached the pipeline's level: held (`Memory`), written
//!   (`Process`) or synced (`Disk`). What was acknowledged at a level survives what that level names.
//! - **Level `Memory`**: a frame that every delivery has passed before memory is at its bound is never written, and while all
//!   keep up nothing is synced. At the bound the oldest frames **spill**: they are written and synced in one go, so that each
//!   frame is in memory, durable, or passed by all. A log that ends writes the rest; a process that is killed takes it along.
//!   Then: no id names two events, for the next incarnation begins above everything a cursor or plan names; a position or key
//!   is never ahead of events that are neither delivered nor durable, but may be a minute ([`CHECKPOINT_PERIOD`]) behind what
//!   was delivered; what is lost is held nowhere, and counted where a cursor or plan knows of it. With retention nothing is
//!   passed: frames spill when they leave memory.
//! - **Incarnations.** Each open draws a random 64-bit incarnation and begins a new segment above the log's end, every
//!   cursor and every plan. An [`EventId`](crate::event::EventId) never names two events.
//! - **One truth for positions and keys**: they travel in the frame that holds the data, and recovery takes them from
//!   frames, headers and footers alone. Never ahead of the data, never behind what was acknowledged.
//! - **A failed sync is not retried**: the frames since the last good one are written from memory into a new segment,
//!   whose base hides the old one's from there on, and only then resolved.
//! - **Recovery is bounded by segments**: header and footer of each, and a scan of the unsealed ones (the last; one more
//!   after a power loss, after a failed sync, and for each kill in the midst of a seal before a power loss). It never
//!   refuses what is damaged: a torn tail is cut, a damaged record is skipped and counted, a segment without a readable
//!   header is quarantined. What the device refuses to read is no damage at once: at the start it is asked for again for
//!   some seconds, while the log runs for minutes; only then it counts as damage, and its file is set aside whatever its
//!   size. What the process lacks (file descriptors, rights) is an error of the open. A segment of a later format version is no damage: the log is not opened then, and everything
//!   stays where it is for the program that can read it.
//!   A hole is a torn tail unless a later frame says (`synced`) that the place had been synced: then it is damage.
//!
//! # Limits
//! See the constants of this module. Per log in memory: [`TAIL_BYTES_MAX`] of frames for readers, [`MEMORY_BYTES_MAX`] of
//! frames in no file at level `Memory`, [`UNSYNCED_BYTES_MAX`] for the failed-sync rule, the sparse index (one entry per [`INDEX_STRIDE_BYTES`]: 20 bytes plus 12 per route), live
//! positions and keys.

use std::time::Duration;

mod codec;
mod core;
mod device;
mod format;
mod frame;
mod handle;
mod inspect;
mod journal;
mod quarantine;
mod recovery;
mod resolved;
mod scan;
mod segment;
mod state;
mod successors;

pub use core::{CommitError, Committed, CoreEdit, Keep, LogCore, OpenOptions};
pub use frame::{Frame, Masks, Pending};
pub(crate) use handle::Receipt;
pub use handle::{Census, KeyClaim, Log, LogOptions, LogReader, ReadError, Refused, Reservation};
pub(crate) use handle::{ROOM_ASK_PERIOD, ROOM_WAIT_MAX};
pub use inspect::{Inspection, SegmentInspection, inspect};
pub use journal::{DeliveryKey, Journal, JournalError, Left, Plan, Progress, Removed};
pub use recovery::Recovered;
pub use scan::{progress_in, scan};
pub use state::{AcceptedEvents, KeyLookup};

/// Most bytes of a segment before it is sealed: 16 MiB, less for logs with a small quota (an eighth of it).
pub const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// Fewest bytes at which a segment is sealed, whatever the quota.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// Bytes of frames between two entries of a segment's sparse index.
pub const INDEX_STRIDE_BYTES: u64 = 64 << 10;

/// Most bytes of fresh frames a log keeps in memory for readers that keep up: three batches of the default size, so that
/// one that is a batch behind still reads from memory. A reader that falls behind keeps nothing here.
pub const TAIL_BYTES_MAX: usize = 12 << 20;

/// Bytes in the memory tail from which a source that can wait does: less than the tail, so that the batches that are on
/// their way meanwhile fit, more than a delivery takes at once.
pub const AHEAD_BYTES_MAX: usize = 6 << 20;

/// Most bytes of frames a log at level `Memory` holds in no file: what a delivery of the default size has under way (four
/// batches of 4 MiB), one that is forming, and one that has just come. A quarter of the quota where that is less.
pub const MEMORY_BYTES_MAX: usize = 24 << 20;

/// How often a log at level `Memory` writes down where moved positions stand: what is read again after a crash.
pub const CHECKPOINT_PERIOD: Duration = Duration::from_mins(1);

/// Bytes written and not synced at which a log at level `Process` syncs.
pub const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// Most bytes of one group commit.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Most idempotency keys a log remembers; the oldest go first, counted.
pub const KEYS_MAX: usize = 65_536;

/// Most live positions of a log; a batch that brings one more is taken without its position, counted.
pub const POSITIONS_MAX: usize = 65_536;

/// Most bytes set aside in `quarantine/`; what is over is deleted, counted.
pub const QUARANTINE_BYTES_MAX: u64 = 64 << 20;

/// Most bytes read from a segment at once, unless one frame is larger.
pub const READ_BYTES_MAX: usize = 256 << 10;
