//! The whole source without tasks, locks and waiting: told to look, it hands out batches one by one.
//!
//! # Expected flow
//! [`Tailer::scan`] and the hints of the watch find pods, containers and files; [`Core::poll`] hands out the next
//! batch of a reader that has one; [`Core::kept`] says that it is in the log. Until then that reader makes no other.

mod discover;
mod pods;
mod state;

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use self::pods::Told;
use self::state::Pods;
use super::cri::Cri;
use super::layout::PodFacts;
use super::position::MARKER;
use super::{ContainerLogsSettings, StartAt};
use crate::sources::tail::core::Core;
use crate::sources::tail::file::Opener;
use crate::sources::tail::lane::Lane;
use crate::sources::tail::run::Tails;
use crate::sources::tail::stats::TailStats;
use crate::sources::tail::watch::{self, Watch, Writes};

pub(super) use self::state::Want;

/// What a watched directory is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Where the pods are.
    Root,
    /// A pod, by its directory's name.
    Pod(Arc<str>),
    /// A container, by its key.
    Container(u32),
}

/// Where to look.
pub(super) type Hints = watch::Hints<Place>;

impl watch::Place for Place {
    type Written = u32;

    fn written(&self, _: Option<&CStr>) -> Option<u32> {
        match self {
            Self::Container(key) => Some(*key),
            Self::Root | Self::Pod(_) => None,
        }
    }
}

/// The whole source without tasks.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts of the root, each for itself")]
pub(super) struct Tailer {
    core: Core<Cri>,
    settings: ContainerLogsSettings,
    wants: Vec<Want>,
    pods: Pods,
    told: Told,
    watch: Option<Watch<Place>>,
    is_started: bool,
    /// Whether recovered positions of what is not there any more were let go of.
    is_settled: bool,
    /// Whether the last listing of the root showed no directory at all.
    is_root_empty: bool,
    is_unwatched: bool,
}

impl Tails for Tailer {
    type Form = Cri;

    fn core(&mut self) -> &mut Core<Cri> {
        &mut self.core
    }

    fn attach(&mut self) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
        let watch = self.watch.insert(Watch::open()?);
        Ok(watch.readiness())
    }

    fn scan(&mut self, now: Instant) {
        self.look_at_all(now);
    }

    fn take_hints(&mut self, now: Instant) {
        if let Some(hints) = self.watch.as_mut().map(Watch::take) {
            self.follow(hints, now);
        }
    }

    fn tick(&mut self, now: Instant) {
        for key in self.core.tick(now) {
            self.watch_container(key, Writes::Told);
        }
    }

    fn is_timed(&self) -> bool {
        self.core.is_timed()
    }

    fn is_unwatched(&self) -> bool {
        self.is_unwatched
    }

    fn take_pods(&mut self, now: Instant) {
        self.follow_pods(now);
    }
}

impl Tailer {
    /// Returns a tailer of `wants`; `positions` are those each pipeline recovered.
    pub(super) fn new(
        settings: ContainerLogsSettings,
        wants: Vec<Want>,
        positions: Vec<Vec<(Bytes, Bytes)>>,
        stats: Arc<TailStats>,
    ) -> Self {
        let opener = Opener::new(settings.links, settings.held_files_max, stats);
        let lanes = positions.into_iter().map(|positions| Lane::new(positions, MARKER)).collect();
        Self {
            core: Core::new(opener, settings.clock.clone(), lanes),
            settings,
            wants,
            pods: Pods::default(),
            told: Told::default(),
            watch: None,
            is_started: false,
            is_settled: false,
            is_root_empty: false,
            is_unwatched: false,
        }
    }

    /// What comes between two steps of a listing.
    #[cfg(test)]
    pub(super) fn between(&mut self) -> &mut crate::sources::tail::between::Between {
        &mut self.core.opener.between
    }

    /// Looks where `hints` say.
    pub(super) fn follow(&mut self, Hints { changed, written, overflowed }: Hints, now: Instant) {
        if overflowed {
            TailStats::add(&self.core.stats.overflows, 1);
            return self.look_at_all(now);
        }
        for place in changed {
            match place {
                Place::Root => self.scan_root(now),
                Place::Pod(name) => self.scan_pod(&name, now),
                Place::Container(key) => self.scan_container(key, now),
            }
        }
        for key in written {
            if self.core.units.get_mut(&key).is_some_and(|container| container.note_write(now)) {
                self.watch_container(key, Writes::Untold);
                self.core.timed.insert(key);
            }
            self.core.wake(key);
        }
    }
}
