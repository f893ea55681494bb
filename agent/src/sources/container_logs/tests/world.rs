//! A node's directory and a log that remembers events and positions as the real one does.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spillway_crds::Reach;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_delivery::clock::Clock;
use spillway_delivery::event::Batch;
use spillway_delivery::transform::{Failure, Multiline};
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::tailer::{Tailer, Want};
use super::super::{ContainerLogsSettings, StartAt};
use crate::sources::tail::between::Between;
use crate::sources::tail::core::Outgoing;
use crate::sources::tail::file::Step;
use crate::sources::tail::run::Tails;
use crate::sources::tail::sink::Joined;
use crate::sources::tail::stats::TailStats;
use crate::sources::tail::testing::{Positions, append, compress, keep_position};

/// One pipeline's log: events and positions are kept together or not at all.
#[derive(Debug, Default, Clone)]
pub(super) struct Log {
    /// (container, event).
    pub(super) events: Vec<(String, serde_json::Value)>,
    pub(super) positions: Positions,
}

impl Log {
    fn keep(&mut self, batch: &Batch) {
        let container = batch.origin.fields().container.clone().unwrap_or_default();
        for event in batch.events() {
            self.events.push((container.clone(), serde_json::from_slice(event).expect("an event is JSON")));
        }
        keep_position(&mut self.positions, batch);
    }

    /// Returns the messages of one container; pieces of a line are joined.
    pub(super) fn messages(&self, container: &str) -> Vec<String> {
        self.messages_of(container, |_| true)
    }

    /// The same, of some of its streams.
    pub(super) fn messages_of(&self, container: &str, is_of: impl Fn(&str) -> bool) -> Vec<String> {
        let mut messages = Vec::new();
        let mut begun: HashMap<String, (u64, String)> = HashMap::new();
        for (_, event) in self.events.iter().filter(|(name, _)| name == container) {
            let text = event["message"].as_str().unwrap();
            let stream = event["stream"].as_str().unwrap_or("other").to_owned();
            if !is_of(&stream) {
                continue;
            }
            let Some(partial) = event.get("partial") else {
                messages.push(text.to_owned());
                continue;
            };
            let (pieces, joined) = begun.entry(stream.clone()).or_default();
            assert_eq!(partial["index"], *pieces, "pieces come in order");
            *pieces += 1;
            joined.push_str(text);
            if partial["last"] == true {
                messages.push(begun.remove(&stream).unwrap().1);
            }
        }
        assert!(begun.is_empty(), "every line that was cut has a last piece");
        messages
    }
}

/// A node.
#[derive(Debug)]
pub(super) struct World {
    pub(super) root: TempDir,
    pub(super) now: Instant,
    pub(super) tailer: Tailer,
    pub(super) logs: Vec<Log>,
    pub(super) refused: Vec<Outgoing>,
    pub(super) stats: Arc<TailStats>,
    pub(super) settings: ContainerLogsSettings,
    wants: Vec<Want>,
    /// How the lines of each pipeline are joined.
    pub(super) multiline: Vec<Option<Multiline>>,
    /// How they were joined since the start.
    pub(super) joined: Joined,
}

pub(super) const POD: &str = "fab12_etch-0_6b1c-77";

/// Returns what a pipeline wants that wants everything.
pub(super) fn everything(pipeline: usize) -> Want {
    Want {
        pipeline,
        namespaces: Reach::everywhere(),
        containers: Vec::new(),
        pod_selector: LabelSelector::default(),
        start_at: StartAt::Beginning,
    }
}

impl World {
    pub(super) fn new(wants: Vec<Want>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let settings = ContainerLogsSettings {
            root: root.path().into(),
            clock: Clock::manual(1_700_000_000_000_000_000),
            ..ContainerLogsSettings::default()
        };
        let stats = Arc::<TailStats>::default();
        let pipelines = wants.iter().map(|want| want.pipeline + 1).max().unwrap_or(0);
        let logs = vec![Log::default(); pipelines];
        let tailer = Tailer::new(settings.clone(), wants.clone(), vec![Vec::new(); pipelines], stats.clone());
        let (multiline, joined) = (vec![None; pipelines], Joined::default());
        Self { root, now: Instant::now(), tailer, logs, refused: Vec::new(), stats, settings, wants, multiline, joined }
    }

    /// Has the lines of a pipeline joined, from the next start on.
    pub(super) fn join(&mut self, pipeline: usize, multiline: Multiline) {
        self.multiline[pipeline] = Some(multiline);
        self.restart();
    }

    pub(super) fn directory(&self, container: &str) -> PathBuf {
        self.root.path().join(POD).join(container)
    }

    pub(super) fn path(&self, container: &str, file: &str) -> PathBuf {
        self.directory(container).join(file)
    }

    pub(super) fn write(&self, container: &str, file: &str, bytes: &[u8]) {
        append(&self.path(container, file), bytes);
    }

    pub(super) fn rename(&self, container: &str, from: &str, to: &str) {
        fs::rename(self.path(container, from), self.path(container, to)).unwrap();
    }

    pub(super) fn compress(&self, container: &str, file: &str) {
        compress(&self.path(container, file));
    }

    /// Has `comes` called before each step of a listing, until the next restart.
    pub(super) fn between(&mut self, comes: impl FnMut(Step, &Path) -> io::Result<()> + Send + 'static) {
        *self.tailer.between() = Between::new(comes);
    }

    /// Has nothing come between any more.
    pub(super) fn calm(&mut self) {
        *self.tailer.between() = Between::default();
    }

    pub(super) fn remove(&self, container: &str, file: &str) {
        fs::remove_file(self.path(container, file)).unwrap();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn keep(&mut self, outgoing: &Outgoing) {
        self.logs[outgoing.ticket.pipeline].keep(&outgoing.batch);
        self.joined.events += outgoing.joined.events;
        self.joined.changed += outgoing.joined.changed;
        self.joined.failed[Failure::TooLarge as usize] += outgoing.joined.failed[Failure::TooLarge as usize];
        self.tailer.core().kept(outgoing.ticket);
    }

    /// Takes batches until there are none.
    pub(super) fn take_all(&mut self) {
        for outgoing in std::mem::take(&mut self.refused) {
            self.keep(&outgoing);
        }
        while let Some(outgoing) = self.tailer.poll(self.now) {
            self.keep(&outgoing);
        }
    }

    /// Looks at everything, waits for files to end, and takes what comes.
    pub(super) fn settle(&mut self) {
        for _ in 0..8 {
            self.tailer.scan(self.now);
            self.take_all();
            self.pass(Duration::from_secs(2));
            self.tailer.tick(self.now);
            self.take_all();
        }
    }

    /// Ends the process as SIGKILL does: what was not kept is forgotten.
    pub(super) fn restart(&mut self) {
        self.refused.clear();
        let positions = self.logs.iter().map(|log| log.positions.clone().into_iter().collect()).collect();
        self.tailer = Tailer::new(self.settings.clone(), self.wants.clone(), positions, self.stats.clone());
        for (lane, multiline) in self.tailer.core().lanes.iter_mut().zip(&self.multiline) {
            lane.multiline.clone_from(multiline);
        }
    }
}

/// Returns a line as a runtime writes it; `at` makes its time unique.
pub(super) fn cri(at: u64, stream: &str, tag: &str, text: &str) -> Vec<u8> {
    format!("2026-01-01T01:01:{:02}.{:09}Z {stream} {tag} {text}\n", at / 1_000_000_000 % 60, at % 1_000_000_000)
        .into_bytes()
}
