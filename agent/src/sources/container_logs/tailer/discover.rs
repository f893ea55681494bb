//! Finding pods, containers and files, and losing them again.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::cri::Cri;
use super::super::position;
use super::pods::Known;
use super::state;
use super::{MARKER, Place, PodFacts, StartAt, TailStats, Tailer, Writes};
use crate::sources::tail::file::{Links, Opener};
use crate::sources::tail::files::Files;
use crate::sources::tail::lane::Lane;
use crate::sources::tail::position::Mark;
use crate::sources::tail::reader::{Reader, Start};
use crate::sources::tail::unit::{Gate, Past, Seat, SeatState, Unit};

impl Tailer {
    /// Looks at everything. The first time it also settles what becomes of recovered positions.
    pub(super) fn look_at_all(&mut self, now: Instant) {
        if !self.is_started {
            self.follow_pods(now);
        }
        if self.list_root(now).is_none() {
            return;
        }
        for name in self.pods.names.keys().cloned().collect::<Vec<_>>() {
            self.scan_pod(&name, now);
        }
        let refused = self.keys().into_iter().map(|key| self.list_container(key, now)).sum();
        self.core.shares.set_refused_entries(refused);
        if !self.is_started {
            self.is_started = true;
            for lane in self.core.lanes.iter_mut().filter(|lane| is_first_start(lane)) {
                lane.marks.push_back((MARKER.into(), Bytes::from_static(b"1")));
            }
        }
        self.settle_first();
        self.give_up(now);
        self.count_held();
    }

    pub(super) fn scan_root(&mut self, now: Instant) {
        if self.is_started {
            for name in self.list_root(now).unwrap_or_default() {
                self.scan_pod(&name, now);
            }
            self.settle_first();
        } else {
            self.look_at_all(now);
        }
    }

    /// Settles what becomes of recovered positions, once: not while no pod at all is there although there are positions of some.
    /// What the directory is to show may not be mounted yet.
    fn settle_first(&mut self) {
        let awaits = self.is_root_empty && self.core.lanes.iter().any(|lane| !lane.positions.is_empty());
        if self.is_settled || awaits {
            return;
        }
        self.is_settled = true;
        self.settle_positions();
    }

    /// Finds the pods; returns those that are new, `None` when the root cannot be listed.
    fn list_root(&mut self, now: Instant) -> Option<Vec<Arc<str>>> {
        self.forget_left();
        let root = self.settings.root.clone();
        self.watch_directory(&root, Place::Root);
        let there = match directories(&root, &self.core.opener) {
            Ok(there) => there,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    TailStats::add(&self.core.stats.read_errors, 1);
                }
                return None;
            }
        };
        self.is_root_empty = there.is_empty();
        let lost = self.pods.names.iter().filter(|(name, _)| !there.contains(*name));
        let lost: Vec<u32> = lost.flat_map(|(_, containers)| containers.values().copied()).collect();
        for key in lost {
            self.core.lose(key, now);
        }
        let unread =
            self.pods.names.iter().filter(|(name, containers)| containers.is_empty() && !there.contains(*name));
        for name in unread.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.forget_pod(&name);
        }
        self.pods.retain(|name| there.contains(name));
        let is_new = |name: &Arc<str>| !self.pods.names.contains_key(name) && self.is_wanted(name);
        let new: Vec<Arc<str>> = there.into_iter().filter(is_new).collect();
        for name in &new {
            self.pods.names.entry(name.clone()).or_default();
        }
        Some(new)
    }

    fn is_wanted(&self, pod: &str) -> bool {
        PodFacts::from_directory(pod).is_some_and(|facts| self.wants.iter().any(|want| want.takes_pod(&facts)))
    }

    /// Finds the containers of a pod.
    pub(super) fn scan_pod(&mut self, pod: &Arc<str>, now: Instant) {
        self.forget_left();
        let directory = self.settings.root.join(&**pod);
        self.watch_directory(&directory, Place::Pod(pod.clone()));
        let there = match directories(&directory, &self.core.opener) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(_) => {
                if !self.is_settled {
                    self.pods.unlisted.insert(pod.clone());
                }
                return TailStats::add(&self.core.stats.read_errors, 1);
            }
        };
        let known = self.pods.names.get(pod).cloned().unwrap_or_default();
        for (_, key) in known.iter().filter(|(name, _)| !there.contains(*name)) {
            self.core.lose(*key, now);
        }
        let Some(facts) = PodFacts::from_directory(pod) else {
            return;
        };
        let told = self.known(pod, &facts);
        for name in there {
            match known.get(&name) {
                Some(key) => self.find_again(*key, now),
                None => {
                    let gates = (0..self.core.lanes.len()).map(|pipeline| self.gate(&told, (&facts, &name), pipeline));
                    let gates: Vec<Option<Gate>> = gates.collect();
                    if gates.iter().flatten().any(|gate| *gate != Gate::Closed) {
                        self.enter((pod, &name), &told, &gates, now);
                    }
                }
            }
        }
        if self.pods.unlisted.remove(pod) && self.is_settled {
            self.settle_positions();
        }
    }

    /// Finds the files of a container.
    pub(super) fn scan_container(&mut self, key: u32, now: Instant) {
        self.list_container(key, now);
    }

    fn list_container(&mut self, key: u32, now: Instant) -> usize {
        let Some(listed) = self.core.with_taking(key, |container, taking| container.look(taking, now)) else {
            return 0;
        };
        self.core.wake(key);
        match listed {
            Ok(refused) => return refused,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.core.lose(key, now),
            Err(_) => TailStats::add(&self.core.stats.read_errors, 1),
        }
        0
    }

    /// Begins to follow a container, for the pipelines that have a gate for it.
    fn enter(&mut self, (pod, name): (&Arc<str>, &Arc<str>), told: &Known, gates: &[Option<Gate>], now: Instant) {
        let Some(facts) = PodFacts::from_directory(pod) else {
            return;
        };
        let directory = self.settings.root.join(&**pod).join(&**name);
        let key = self.core.add(Unit::new(directory, Files::default()));
        self.pods.add(pod, name.clone(), key);
        self.core.shares.set_units(self.core.units.len());
        self.watch_container(key, Writes::Told);
        let origin = state::origin(&facts, name, self.settings.node.as_deref(), told);
        let source = position::source(&facts.uid, name);
        let is_silenced = self.is_silenced(pod);
        let is_unlisted = self.pods.unlisted.contains(pod);
        let (is_first_look, is_at_start) = (!self.is_settled || is_unlisted, !self.is_started || is_unlisted);
        for (pipeline, gate) in gates.iter().enumerate() {
            let Some(gate) = *gate else { continue };
            let multiline = self.core.lanes[pipeline].multiline.as_ref();
            let reader = Reader::new(pipeline, origin.clone(), source.clone()).joining(multiline);
            self.seat(key, reader, &Entry { source: &source, gate, is_silenced, is_first_look, is_at_start });
        }
        self.list_container(key, now);
    }

    /// Gives a reader its place in the files: where its pipeline stood, at their end, or at their beginning.
    fn seat(&mut self, key: u32, mut reader: Reader<Cri>, entry: &Entry<'_>) {
        let (pipeline, gate) = (reader.pipeline, entry.gate);
        let starts_at_end = self.starts_at_end(key, pipeline);
        let Some(container) = self.core.units.get_mut(&key) else {
            return;
        };
        if gate == Gate::Closed {
            container.seats.push(Seat { gate, ..Seat::new(reader) });
            return;
        }
        let lane = &mut self.core.lanes[pipeline];
        let stored = lane.positions.remove(entry.source);
        // What is there of a container that the pipeline read, and then did not want, was not meant for it.
        let was_unwanted = entry.is_silenced || !entry.is_first_look && stored.is_some();
        let is_late = entry.is_at_start && is_first_start(lane) && starts_at_end && stored.is_none();
        let skips = is_late || was_unwanted;
        if skips {
            reader.begin_at(Start::End);
        } else if let Some(mark) = stored.as_deref().and_then(Mark::decode) {
            reader.begin_at(Start::Mark(mark));
        }
        let announces = skips && gate == Gate::Open;
        lane.announcing += usize::from(announces);
        let past = match gate {
            Gate::Open => Past::Read,
            _ if skips => Past::Skipped,
            Gate::Held | Gate::Closed => Past::Unread,
        };
        container.seats.push(Seat { announces, gate, past, is_known: stored.is_some(), ..Seat::new(reader) });
    }

    /// Returns whether the first input of a pipeline that takes a container begins at the end of its files.
    fn starts_at_end(&mut self, key: u32, pipeline: usize) -> bool {
        let directory = self.core.units.get_mut(&key).map(|container| container.path.clone()).unwrap_or_default();
        let name = |path: Option<&Path>| path.and_then(|path| path.file_name()?.to_str().map(str::to_owned));
        let (Some(pod), Some(container)) = (name(directory.parent()), name(Some(&directory))) else { return false };
        let Some(facts) = PodFacts::from_directory(&pod) else { return false };
        let mut wants = self.wants.iter().filter(|want| want.pipeline == pipeline && want.takes(&facts, &container));
        wants.next().is_some_and(|want| want.start_at == StartAt::End)
    }

    fn find_again(&mut self, key: u32, now: Instant) {
        let Some(container) = self.core.units.get_mut(&key) else {
            return;
        };
        let leaves = container.seats.iter().any(|seat| matches!(seat.state, SeatState::Leaving | SeatState::Left));
        // One that is being left is followed anew once it was left.
        if container.is_gone && !leaves {
            (container.is_gone, container.gone_at) = (false, None);
            self.watch_container(key, Writes::Told);
            self.scan_container(key, now);
        }
    }

    /// Returns the keys of every container.
    pub(super) fn keys(&self) -> Vec<u32> {
        self.core.units.keys().copied().collect()
    }

    fn forget_left(&mut self) {
        let Self { core, pods, .. } = self;
        pods.forget_left(|key| core.units.contains_key(&key));
    }

    /// Watches a container's directory, or changes what is told of it.
    pub(super) fn watch_container(&mut self, key: u32, writes: Writes) {
        if let (Some(watch), Some(container)) = (&mut self.watch, self.core.units.get(&key)) {
            let watched = watch.add(&container.path, Place::Container(key), writes);
            self.note_watched(watched);
        }
    }

    fn watch_directory(&mut self, directory: &Path, place: Place) {
        if let Some(watch) = &mut self.watch {
            let watched = watch.add(directory, place, Writes::Untold);
            self.note_watched(watched);
        }
    }

    fn note_watched(&mut self, watched: io::Result<()>) {
        match watched {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if !self.is_unwatched {
                    tracing::warn!(%error, "a log directory cannot be watched, scanning instead");
                }
                self.is_unwatched = true;
            }
        }
    }
}

/// Returns whether a pipeline never saw the files of this node before.
fn is_first_start(lane: &Lane) -> bool {
    !lane.seen.contains_key(MARKER.as_bytes())
}

/// How a reader finds its place.
struct Entry<'a> {
    source: &'a Bytes,
    gate: Gate,
    is_silenced: bool,
    /// Whether nobody could list its pod since the start: a position is one of the process before.
    is_first_look: bool,
    /// Whether its files may be older than this process.
    is_at_start: bool,
}

/// Lists the directories below `directory` by name.
pub(super) fn directories(directory: &Path, opener: &Opener) -> io::Result<BTreeSet<Arc<str>>> {
    let mut names = BTreeSet::new();
    for entry in opener.list(directory)? {
        let entry = entry?;
        let is_directory = match opener.links {
            Links::Refuse => entry.file_type().map(|kind| kind.is_dir()),
            Links::Follow => entry.path().metadata().map(|metadata| metadata.is_dir()),
        };
        let is_directory = match is_directory {
            // One that vanished, or a link to nothing. What cannot be looked at may be there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            other => other?,
        };
        if let Some(name) = entry.file_name().to_str().filter(|_| is_directory) {
            names.insert(name.into());
        }
    }
    Ok(names)
}
