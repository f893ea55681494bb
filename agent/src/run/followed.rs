//! The files that are followed, of containers and of the machine: one source per pipeline, so that one comes and goes without
//! the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use spillway_crds::kinds::monitoring_pipeline as manifest;
use spillway_crds::{Input, Reach};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::settings::PipelineUid;
use spillway_delivery::supervisor::Supervisor;
use spillway_delivery::transform::Multiline;

use super::Parts;
use super::intake::Opened;
use crate::overview::Overview;
use crate::sources::container_logs::{self, ContainerLogsSettings, LogInput};
use crate::sources::files::{self, FileInput, FilesSettings};
use crate::sources::tail::{Following, StartAt, TailStats};

/// What a pipeline wants of files, and how their lines are joined.
type Wanted = (Reach, Vec<Input>, Option<Multiline>);

/// One kind of files that are followed.
pub(super) trait Kind {
    /// Returns whether an input is of this kind.
    fn takes(&self, input: &Input) -> bool;

    /// Begins to follow what a pipeline wants; `None` where that cannot be.
    fn start(&self, of: &Opened, inputs: &[Input], owner: &Supervisor, stats: &Arc<TailStats>) -> Option<Following>;

    /// Says that what pipelines want cannot be followed.
    fn refuse(&self, pipelines: usize);

    /// Tells of the counters.
    fn tell(&self, overview: &Overview, stats: &Arc<TailStats>);
}

/// Files of one kind that are followed.
#[derive(Debug)]
pub(super) struct Followed<K> {
    kind: K,
    owner: Supervisor,
    overview: Arc<Overview>,
    stats: Arc<TailStats>,
    following: BTreeMap<PipelineUid, (Arc<Pipeline>, Wanted, Following)>,
}

impl<K: Kind> Followed<K> {
    /// Returns one that follows nothing yet.
    pub(super) fn new(kind: K, parts: &Parts) -> Self {
        Self {
            kind,
            owner: parts.sources.clone(),
            overview: parts.overview.clone(),
            stats: Arc::default(),
            following: BTreeMap::new(),
        }
    }

    /// Follows from now on what `opened` want and nothing else. What is wanted as before is not touched.
    pub(super) async fn follow(&mut self, opened: &BTreeMap<PipelineUid, Opened>) {
        let of_kind = |one: &Opened| -> Vec<Input> {
            one.inputs.iter().filter(|input| self.kind.takes(input)).cloned().collect()
        };
        let wanted: BTreeMap<&PipelineUid, (&Opened, Wanted)> = opened
            .iter()
            .map(|(uid, one)| (uid, (one, (one.namespaces.clone(), of_kind(one), one.pipeline.multiline()))))
            .filter(|(_, (_, (_, inputs, _)))| !inputs.is_empty())
            .collect();
        let is_same = |uid: &PipelineUid, pipeline: &Arc<Pipeline>, before: &Wanted| {
            wanted.get(uid).is_some_and(|(one, now)| Arc::ptr_eq(&one.pipeline, pipeline) && now == before)
        };
        let changed = self.following.iter().filter(|(uid, (pipeline, before, _))| !is_same(uid, pipeline, before));
        for uid in changed.map(|(uid, _)| uid.clone()).collect::<Vec<_>>() {
            if let Some((_, _, following)) = self.following.remove(&uid) {
                following.stop().await;
            }
        }
        let mut refused = 0;
        for (uid, (one, wanted)) in wanted {
            if self.following.contains_key(uid) {
                continue;
            }
            let Some(following) = self.kind.start(one, &wanted.1, &self.owner, &self.stats) else {
                refused += 1;
                continue;
            };
            self.following.insert(uid.clone(), (one.pipeline.clone(), wanted, following));
            self.kind.tell(&self.overview, &self.stats);
        }
        if refused > 0 {
            self.kind.refuse(refused);
        }
    }
}

/// The logs of containers; of none where no folder of them is there.
#[derive(Debug)]
pub(super) struct ContainerLogs(pub(super) Option<ContainerLogsSettings>);

impl Kind for ContainerLogs {
    fn takes(&self, input: &Input) -> bool {
        matches!(input, Input::ContainerLogs(_))
    }

    fn start(&self, of: &Opened, inputs: &[Input], owner: &Supervisor, stats: &Arc<TailStats>) -> Option<Following> {
        let inputs = inputs.iter().filter_map(|input| log_input(of, input)).collect();
        Some(container_logs::start(self.0.clone()?, inputs, owner, stats.clone()))
    }

    fn refuse(&self, pipelines: usize) {
        tracing::warn!(pipelines, "container logs are off, no folder of them is there: see --pod-logs");
    }

    fn tell(&self, overview: &Overview, stats: &Arc<TailStats>) {
        overview.with_sources(|sources| sources.container_logs = Some(stats.clone()));
    }
}

fn log_input(opened: &Opened, input: &Input) -> Option<LogInput> {
    let Input::ContainerLogs(wanted) = input else { return None };
    Some(LogInput {
        pipeline: opened.pipeline.clone(),
        namespaces: opened.namespaces.clone(),
        containers: wanted.containers.clone(),
        pod_selector: wanted.pod_selector.clone(),
        start_at: start_at(wanted.start_at),
    })
}

/// Files of the machine; of none where manifests are served.
#[derive(Debug)]
pub(super) struct Files(pub(super) Option<FilesSettings>);

impl Kind for Files {
    fn takes(&self, input: &Input) -> bool {
        matches!(input, Input::Files(_))
    }

    fn start(&self, of: &Opened, inputs: &[Input], owner: &Supervisor, stats: &Arc<TailStats>) -> Option<Following> {
        let file_input = |input: &Input| match input {
            Input::Files(wanted) => {
                Some(FileInput { include: wanted.include.clone(), start_at: start_at(wanted.start_at) })
            }
            Input::ContainerLogs(_) | Input::Events(_) => None,
        };
        let inputs: Vec<FileInput> = inputs.iter().filter_map(file_input).collect();
        Some(files::start(self.0.clone()?, of.pipeline.clone(), &inputs, owner, stats.clone()))
    }

    fn refuse(&self, pipelines: usize) {
        tracing::warn!(
            pipelines,
            "inputs of type Files are left out: an agent of an operator reads no files of its machine"
        );
    }

    fn tell(&self, overview: &Overview, stats: &Arc<TailStats>) {
        overview.with_sources(|sources| sources.files = Some(stats.clone()));
    }
}

fn start_at(start_at: manifest::StartAt) -> StartAt {
    match start_at {
        manifest::StartAt::Beginning => StartAt::Beginning,
        manifest::StartAt::End => StartAt::End,
    }
}
