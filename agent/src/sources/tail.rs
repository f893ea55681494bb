//! Following files of lines: what the sources of files have in common. Where files are found and what their lines
//! are says each source ([`container_logs`](super::container_logs), [`files`](super::files)).
//!
//! ```text
//! watch, timers ─► a source's tailer ─► finds units: the files of a container, or one file
//!                        │
//!                        └─► core: reader per unit and pipeline ─► form ─► assemble ─► join ─► batch + position ─► Intake
//! ```
//!
//! # Guarantees
//! - Each line that is read is an event exactly once, in the order of its file and of the unit's files, over
//!   rotation, restarts and SIGKILL at any moment: the position travels in the batch, and nothing else is
//!   remembered. A batch that is refused is submitted again, never dropped.
//! - Lines that a pipeline's `Multiline` joins are one event, and count as read when that is kept: the position stays before
//!   them until then. A pipeline without it reads the same file by itself, line by line.
//! - A file is known by its inode and its first bytes, never by its name; a position counts decompressed bytes.
//! - A file that is unlinked while it is read is read to its end.
//! - A pipeline that takes nothing holds up nobody but itself.
//!
//! # Limits
//! One read: 256 KiB, one buffer for all. One batch: 1 MiB or 8,192 events, and one line more; 4 batches of a pipeline
//! under way, so 4 MiB and a few lines each. Unfinished lines and open groups: 8 MiB over all files. A file costs its first KiB and a
//! descriptor while it is unread: 1,000 idle files about 1.5 MB.
//!
//! # It must not know
//! Layouts of directories, container runtimes, conditions, backends.

pub(in crate::sources) mod assemble;
#[cfg(test)]
pub(in crate::sources) mod between;
pub(in crate::sources) mod core;
pub(in crate::sources) mod file;
pub(in crate::sources) mod files;
pub(in crate::sources) mod join;
pub(in crate::sources) mod lane;
pub(in crate::sources) mod order;
pub(in crate::sources) mod position;
pub(in crate::sources) mod reader;
pub(in crate::sources) mod run;
pub(in crate::sources) mod sink;
pub(in crate::sources) mod stats;
#[cfg(test)]
pub(in crate::sources) mod testing;
pub(in crate::sources) mod unit;
pub(in crate::sources) mod watch;

use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::intake::Pipeline;
use spillway_delivery::supervisor::Supervisor;
use tokio_util::sync::CancellationToken;

pub use self::file::Links;
pub use self::stats::TailStats;

use self::run::{Runner, Tails};
use crate::pods::PodsReceiver;

/// How often everything is looked at where a directory could not be watched.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(1);

/// Most batches of one pipeline on their way into its log: enough for one group commit to take several.
pub(in crate::sources) const IN_FLIGHT_MAX: usize = 4;

/// Where files are begun that were there when a pipeline saw them for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// At their beginning; so are files that appear later, always.
    #[default]
    Beginning,
    /// At their end.
    End,
}

/// A source that follows files. Dropping it ends nothing.
#[derive(Debug)]
pub struct Following {
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Following {
    /// Ends it and waits until nothing of it is under way.
    pub async fn stop(self) {
        self.stop.cancel();
        self.ended.cancelled().await;
    }
}

/// How a source runs.
pub(in crate::sources) struct Running {
    /// Where batches go, in the order the tailer numbers them.
    pub(in crate::sources) pipelines: Vec<Arc<Pipeline>>,
    /// What tells of pods.
    pub(in crate::sources) pods: Option<PodsReceiver>,
    /// How often everything is looked at.
    pub(in crate::sources) rescan: Duration,
    /// How long hints are left to gather after some were taken.
    pub(in crate::sources) gather: Duration,
}

/// Runs `tailer` until `supervisor` stops or it is told to: batches under way are waited for, and what was not kept is read
/// again at the next start.
pub(in crate::sources) fn follow(
    name: &'static str,
    mut tailer: impl Tails,
    running: Running,
    supervisor: &Supervisor,
) -> Following {
    let (stop, ended) = (supervisor.stopping().child_token(), CancellationToken::new());
    let stats = tailer.core().stats.clone();
    let Running { pipelines, pods, rescan, gather } = running;
    for (lane, pipeline) in tailer.core().lanes.iter_mut().zip(&pipelines) {
        lane.multiline = pipeline.multiline();
    }
    let runner = Runner { tailer, pipelines, pods, rescan, gather, stats, stop: stop.clone() };
    let end = ended.clone();
    supervisor.spawn(name, async move {
        runner.run().await;
        end.cancel();
    });
    Following { stop, ended }
}

/// Half of what the process may open, at most 4,096.
pub(in crate::sources) fn held_files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(4_096, |limit| (limit / 2).min(4_096))
}
