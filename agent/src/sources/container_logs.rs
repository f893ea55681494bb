//! Container logs of a kubelet's layout: `<root>/<namespace>_<pod>_<uid>/<container>/<n>.log`, its rotated files
//! `<n>.log.<stamp>` and their `.gz`.
//!
//! ```text
//! watch, timers ─► tailer ─► discover: root ─► pods ─► containers ─► files (names, inodes, heads)
//!                     │
//!                     └─► reader per container and pipeline ─► cri ─► assemble ─► batch + position ─► Intake
//! ```
//!
//! # Guarantees
//! - Each line that is read is an event exactly once, in the order of its file and of the container's files, over
//!   rotation, compression, restarts and SIGKILL at any moment: the position travels in the batch, and nothing else is
//!   remembered. A batch that is refused is submitted again, never dropped.
//! - A file is known by its inode and its first bytes, never by its name; a position counts decompressed bytes.
//! - A pipeline that takes nothing holds up nobody but itself.
//! - What is renamed or cannot be opened while a directory is listed is no new file when it is found: after a start, a reader
//!   takes its place once the file of its position is found, or a listing in which nothing changed or failed lacks it.
//! - A file that is unlinked while it is read is read to its end.
//! - Who made an event is taken from the kubelet's directory name, and from what the operator tells of the pod with that
//!   uid; no line can change it. A pod with the annotation `spillway.dev/logs: "false"` is left out: the chart gives it to
//!   agents, which would read what they say of what they read.
//! - Where an operator tells of pods, nothing of a pod is read before it is told of; then it is read from its beginning.
//!
//! # What is lost, and counted
//! What is deleted or cut off before it was read (`missed_bytes`, `missed_files`; what a truncation takes unread cannot
//! be known). A file cut to fewer bytes than the hashed beginning while the agent is away is taken for a new one: up to 1
//! KiB of it is delivered again.
//!
//! # Limits
//! One read: 256 KiB, one buffer for all. One batch: 1 MiB or 8,192 events, and one line more; 4 batches of a pipeline
//! under way, so 4 MiB and a few lines each. Unfinished lines: 8 MiB over all files. A file costs its first KiB and a
//! descriptor while it is unread: 1,000 idle files about 1.5 MB. Descriptors held: [`ContainerLogsSettings::held_files_max`].
//!
//! # It must not know
//! Conditions, backends, Kubernetes' API. Labels of pods come from the operator ([`crate::pods`]), where there is one.
//!
//! Only for Linux: the layout is a kubelet's, and wake-ups come from inotify directly, because only so a busy file can be
//! left unwatched (one event per write costs more than reading the line).

mod assemble;
mod container;
mod cri;
mod file;
mod files;
mod layout;
mod position;
mod reader;
mod run;
mod stats;
mod tailer;
mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spillway_crds::Reach;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_delivery::clock::Clock;
use spillway_delivery::intake::Pipeline;
use spillway_delivery::supervisor::Supervisor;
use tokio_util::sync::CancellationToken;

use crate::pods::PodsReceiver;
use crate::settings::UnknownPods;

pub use self::file::Links;
pub use self::layout::PodFacts;
pub use self::stats::ContainerLogStats;

/// How often everything is looked at where a directory could not be watched.
const RESCAN_UNWATCHED: Duration = Duration::from_secs(1);

/// Settings of the source: those of the machine, not of a pipeline.
#[derive(Debug, Clone)]
pub struct ContainerLogsSettings {
    /// Where the pods' directories are. It may appear later.
    pub root: PathBuf,
    /// The node's name, for the origin.
    pub node: Option<String>,
    /// What tells of pods; `None` where only the kubelet's paths do.
    pub pods: Option<PodsReceiver>,
    /// What becomes of pods that are not told of yet, where something tells of pods.
    pub unknown_pods: UnknownPods,
    /// Whether links are followed: needed with Docker, refused by default.
    pub links: Links,
    /// How often everything is looked at although nothing woke us.
    pub rescan: Duration,
    /// Most files held open that are not being read this moment; at least one per container is wanted, so that what is
    /// unlinked is not missed.
    pub held_files_max: u64,
    /// Wall time, for the time of receipt.
    pub clock: Clock,
}

impl Default for ContainerLogsSettings {
    fn default() -> Self {
        Self {
            root: "/var/log/pods".into(),
            node: None,
            pods: None,
            unknown_pods: UnknownPods::Hold,
            links: Links::Refuse,
            rescan: Duration::from_secs(10),
            held_files_max: held_files_max(),
            clock: Clock::system(),
        }
    }
}

/// Where files are begun that were there when a pipeline saw the node for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// At their beginning; so are files that appear later, always.
    #[default]
    Beginning,
    /// At their end.
    End,
}

/// One input of a pipeline.
#[derive(Debug, Clone)]
pub struct LogInput {
    /// Who wants it. Two inputs of one pipeline that want the same container read it once.
    pub pipeline: Arc<Pipeline>,
    /// The namespaces whose pods are read.
    pub namespaces: Reach,
    /// The containers that are read, by name; empty for every one.
    pub containers: Vec<String>,
    /// The pods that are read, by the labels that are told of them; where nothing tells of pods it must be empty.
    pub pod_selector: LabelSelector,
    /// Where files are begun that are there already.
    pub start_at: StartAt,
}

/// A source that follows logs. Dropping it ends nothing.
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

/// Starts to follow the logs that `inputs` want. Ends when `supervisor` stops or when it is told: batches under way are
/// waited for, and what was not kept is read again at the next start.
pub fn start(
    settings: ContainerLogsSettings,
    inputs: Vec<LogInput>,
    supervisor: &Supervisor,
    stats: Arc<ContainerLogStats>,
) -> Following {
    let mut pipelines: Vec<Arc<Pipeline>> = Vec::new();
    let mut wants = Vec::new();
    for input in inputs {
        let known = pipelines.iter().position(|known| Arc::ptr_eq(known, &input.pipeline));
        let pipeline = known.unwrap_or(pipelines.len());
        if known.is_none() {
            pipelines.push(input.pipeline);
        }
        let LogInput { namespaces, containers, pod_selector, start_at, .. } = input;
        wants.push(tailer::Want { pipeline, namespaces, containers, pod_selector, start_at });
    }
    let positions = pipelines.iter().map(|pipeline| pipeline.positions()).collect();
    let (rescan, pods) = (settings.rescan, settings.pods.clone());
    let tailer = tailer::Tailer::new(settings, wants, positions, stats.clone());
    let (stop, ended) = (supervisor.stopping().child_token(), CancellationToken::new());
    let runner = run::Runner { tailer, pipelines, pods, rescan, stats, stop: stop.clone() };
    let end = ended.clone();
    supervisor.spawn("container-logs", async move {
        runner.run().await;
        end.cancel();
    });
    Following { stop, ended }
}

/// Half of what the process may open, at most 4,096.
fn held_files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(4_096, |limit| (limit / 2).min(4_096))
}
