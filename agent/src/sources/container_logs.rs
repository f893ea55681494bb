//! Container logs of a kubelet's layout: `<root>/<namespace>_<pod>_<uid>/<container>/<n>.log`, its rotated files
//! `<n>.log.<stamp>` and their `.gz`.
//!
//! ```text
//! watch, timers ─► tailer ─► discover: root ─► pods ─► containers ─► files (names, inodes, heads)
//!                     │
//!                     └─► tail: reader per container and pipeline ─► cri ─► batch + position ─► Intake
//! ```
//!
//! # Guarantees
//! Those of [`tail`](super::tail), of the files of a container also over compression; and:
//! - What is renamed or cannot be opened while a directory is listed is no new file when it is found: after a start, a reader
//!   takes its place once the file of its position is found, or a listing in which nothing changed or failed lacks it.
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
//! Those of [`tail`](super::tail). Descriptors held: [`ContainerLogsSettings::held_files_max`].
//!
//! # It must not know
//! Conditions, backends, Kubernetes' API. Labels of pods come from the operator ([`crate::pods`]), where there is one.
//!
//! Only for Linux: the layout is a kubelet's, and wake-ups come from inotify directly, because only so a busy file can be
//! left unwatched (one event per write costs more than reading the line).

mod cri;
mod layout;
mod listing;
mod position;
mod tailer;

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

use super::tail::{Following, Links, Running, StartAt, TailStats, follow, held_files_max};
use crate::pods::PodsReceiver;
use crate::settings::UnknownPods;

pub use self::layout::PodFacts;

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

/// Starts to follow the logs that `inputs` want. Ends when `supervisor` stops or when it is told: batches under way are
/// waited for, and what was not kept is read again at the next start.
pub fn start(
    settings: ContainerLogsSettings,
    inputs: Vec<LogInput>,
    supervisor: &Supervisor,
    stats: Arc<TailStats>,
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
    let tailer = tailer::Tailer::new(settings, wants, positions, stats);
    follow("container-logs", tailer, Running { pipelines, pods, rescan, gather: Duration::ZERO }, supervisor)
}
