//! Files of lines on the machine, found by patterns of their paths.
//!
//! ```text
//! watch, timers ─► tailer ─► walk: patterns ─► directories ─► files (names, inodes, heads)
//!                     │
//!                     └─► tail: reader per file ─► a line as it is ─► batch + position ─► Intake
//! ```
//!
//! # Guarantees
//! Those of [`tail`](super::tail), where each file is a unit of its own; and:
//! - A file goes on where it was read up to, whatever its name is now: renamed into another that is wanted or not, it is
//!   neither read again nor left before its end. What takes its name is read after it.
//! - What was rotated away twice while the agent was away, so that it never had a wanted name while somebody looked, is
//!   read too where its name tells ([`rotated`]).
//! - Only regular files are read, and no link is followed below the part of a pattern without `*` and `?`: neither that of
//!   a file nor that of a directory, also where one is put there between two looks.
//! - Files that were there when their pattern was seen for the first time may be left unread up to their end; that they were is
//!   kept before anybody can be asked a second time.
//!
//! # What is lost, and counted
//! What a truncation takes unread cannot be known. What is deleted before it was read, while the agent is away or the
//! file not held open, is `missed_bytes` as far as its size was known. A file that was moved to where no pattern leads is
//! read to its end and forgotten after [`UNSEEN_MAX`].
//!
//! # What may come twice
//! A file that is copied to a name that is wanted and not that of a rotation, and a file that comes back after it was
//! forgotten: both are new files. The lines of a copy that was made for a truncation may, too: the model has seeds in
//! which a copy is not known as one.
//!
//! # Limits
//! Those of [`tail`](super::tail); [`FILES_MAX`] files, [`DIRECTORIES_MAX`] directories and [`ENTRIES_MAX`] entries of them a
//! look, [`DEPTH_MAX`] directories deep. Looks that events ask for take at most a twentieth of the time.
//!
//! # It must not know
//! Conditions, backends, pods.

mod line;
mod position;
mod rotated;
mod tailer;
mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use spillway_crds::paths::PathPattern;
use spillway_delivery::clock::Clock;
use spillway_delivery::intake::Pipeline;
use spillway_delivery::supervisor::Supervisor;

use super::tail::{Following, Running, StartAt, TailStats, follow, held_files_max};

/// Most files that one pipeline follows; each has its position in the log, which keeps 65,536.
pub const FILES_MAX: usize = 32_768;

/// Most directories that one pattern is looked for in.
pub const DIRECTORIES_MAX: usize = 4_096;

/// Most entries of directories that one pattern is compared with.
pub const ENTRIES_MAX: usize = 1 << 20;

/// How deep below its root a pattern is looked for.
pub const DEPTH_MAX: usize = 32;

/// How long a file that has a name somewhere may be found nowhere before it is left.
pub const UNSEEN_MAX: Duration = Duration::from_secs(60);

/// How long the position of a file that is not found after a start is kept.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// How long events gather after some were taken: one wake-up for many writes.
const GATHER: Duration = Duration::from_millis(5);

/// Settings of the source: those of the machine, not of a pipeline.
#[derive(Debug, Clone)]
pub struct FilesSettings {
    /// The machine's name, for the origin.
    pub node: Option<String>,
    /// How often everything is looked at although nothing woke us.
    pub rescan: Duration,
    /// Most files held open that are not being read this moment.
    pub held_files_max: u64,
    /// Wall time, for the time of receipt.
    pub clock: Clock,
}

impl Default for FilesSettings {
    fn default() -> Self {
        Self { node: None, rescan: Duration::from_secs(10), held_files_max: held_files_max(), clock: Clock::system() }
    }
}

/// What one input of a pipeline wants.
#[derive(Debug, Clone)]
pub struct FileInput {
    /// The files.
    pub include: Vec<PathPattern>,
    /// Where files are begun that are there when their pattern is seen for the first time.
    pub start_at: StartAt,
}

/// Starts to follow the files that `inputs` of a pipeline want; of two that want a file the first has it.
pub fn start(
    settings: FilesSettings,
    pipeline: Arc<Pipeline>,
    inputs: &[FileInput],
    supervisor: &Supervisor,
    stats: Arc<TailStats>,
) -> Following {
    let rescan = settings.rescan;
    let tailer = tailer::Tailer::new(settings, inputs, pipeline.positions(), stats);
    follow("files", tailer, Running { pipelines: vec![pipeline], pods: None, rescan, gather: GATHER }, supervisor)
}
