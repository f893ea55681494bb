//! A directory and a log that remembers events and positions as the real one does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use spillway_crds::paths::PathPattern;
use spillway_delivery::clock::Clock;
use spillway_delivery::event::Batch;
use spillway_delivery::transform::Multiline;
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::tailer::Tailer;
use super::super::{FileInput, FilesSettings};
use crate::sources::tail::core::Outgoing;
use crate::sources::tail::run::Tails;
use crate::sources::tail::testing::{Positions, append, keep_position};
use crate::sources::tail::{StartAt, TailStats};

/// One pipeline's log: events and positions are kept together or not at all.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) events: Vec<Value>,
    pub(super) positions: Positions,
}

impl Log {
    fn keep(&mut self, batch: &Batch) {
        for event in batch.events() {
            assert_eq!(batch.origin.fields().source.as_deref(), Some("files"));
            self.events.push(serde_json::from_slice(event).expect("an event is JSON"));
        }
        keep_position(&mut self.positions, batch);
    }

    /// Returns the messages in the order they came.
    pub(super) fn messages(&self) -> Vec<String> {
        self.events.iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }
}

/// A machine.
#[derive(Debug)]
pub(super) struct World {
    pub(super) root: TempDir,
    pub(super) now: Instant,
    pub(super) tailer: Tailer,
    pub(super) log: Log,
    pub(super) refused: Vec<Outgoing>,
    pub(super) stats: Arc<TailStats>,
    pub(super) settings: FilesSettings,
    /// How lines are joined.
    pub(super) multiline: Option<Multiline>,
    inputs: Vec<FileInput>,
}

impl World {
    /// Returns a machine whose files are wanted by one pattern below its root.
    pub(super) fn new(pattern: &str) -> Self {
        Self::starting_at(StartAt::Beginning, &[pattern])
    }

    pub(super) fn starting_at(start_at: StartAt, patterns: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let settings = FilesSettings { clock: Clock::system(), ..FilesSettings::default() };
        let stats = Arc::<TailStats>::default();
        let tailer = Tailer::new(settings.clone(), &[], Vec::new(), stats.clone());
        let (log, refused, inputs) = (Log::default(), Vec::new(), Vec::new());
        let mut world =
            Self { root, now: Instant::now(), tailer, log, refused, stats, settings, multiline: None, inputs };
        world.want(start_at, patterns);
        world
    }

    /// Starts anew with other patterns.
    pub(super) fn want(&mut self, start_at: StartAt, patterns: &[&str]) {
        let pattern = |below: &&str| PathPattern::parse(self.path(below).to_str().unwrap()).unwrap();
        self.inputs = vec![FileInput { include: patterns.iter().map(pattern).collect(), start_at }];
        self.restart();
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    pub(super) fn write(&self, below: &str, bytes: impl AsRef<[u8]>) {
        append(&self.path(below), bytes.as_ref());
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn keep(&mut self, outgoing: &Outgoing) {
        self.log.keep(&outgoing.batch);
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

    /// Looks once and takes what comes.
    pub(super) fn look(&mut self) {
        self.tailer.scan(self.now);
        self.take_all();
    }

    /// Looks at everything, waits for files to end, and takes what comes.
    pub(super) fn settle(&mut self) {
        for _ in 0..8 {
            self.look();
            self.pass(Duration::from_secs(2));
            self.tailer.tick(self.now);
            self.take_all();
        }
    }

    /// Ends the process as SIGKILL does: what was not kept is forgotten.
    pub(super) fn restart(&mut self) {
        self.refused.clear();
        let positions = self.log.positions.clone().into_iter().collect();
        self.tailer = Tailer::new(self.settings.clone(), &self.inputs, positions, self.stats.clone());
        self.tailer.core().lanes[0].multiline.clone_from(&self.multiline);
    }

    pub(super) fn messages(&self) -> Vec<String> {
        self.log.messages()
    }
}

/// Returns lines with numbers.
pub(super) fn lines(numbers: std::ops::Range<u32>) -> String {
    texts(numbers).iter().map(|text| format!("{text}\n")).collect::<Vec<_>>().concat()
}

/// Returns the texts of [`lines`].
pub(super) fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("{number} a line that is longer than a time stamp")).collect()
}

/// Returns the paths of files that have positions, as far as a look at their sources tells: how many.
pub(super) fn positions(world: &World) -> usize {
    world.log.positions.keys().filter(|source| source.starts_with(b"files/")).count()
}

/// Returns the text of a path.
pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
