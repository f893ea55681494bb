//! Finding pods, containers and files, and losing them again.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::container::{Container, Seat, SeatState};
use super::super::file::Links;
use super::super::files::{self, Found};
use super::super::position::{self, Mark};
use super::super::reader::Reader;
use super::state;
use super::{ContainerLogStats, Counts, Place, PodFacts, StartAt, Tailer, Writes};

impl Tailer {
    /// Looks at everything. The first time it also settles what becomes of recovered positions.
    pub(in super::super) fn scan(&mut self, now: Instant) {
        if self.list_root(now).is_none() {
            return;
        }
        for name in self.pods.names.keys().cloned().collect::<Vec<_>>() {
            self.scan_pod(&name, now);
        }
        let refused = self.pods.keys().into_iter().map(|key| self.list_container(key, now)).sum();
        self.shares.set_refused_entries(refused);
        self.shares.set_containers(self.pods.len());
        if !self.is_started {
            self.is_started = true;
            for lane in &mut self.lanes {
                lane.marks = lane.is_first_start;
                lane.farewells.extend(lane.positions.drain().map(|(source, _)| source));
            }
        }
    }

    pub(super) fn scan_root(&mut self, now: Instant) {
        if self.is_started {
            for name in self.list_root(now).unwrap_or_default() {
                self.scan_pod(&name, now);
            }
            self.shares.set_containers(self.pods.len());
        } else {
            self.scan(now);
        }
    }

    /// Finds the pods; returns those that are new, `None` when the root cannot be listed.
    fn list_root(&mut self, now: Instant) -> Option<Vec<Arc<str>>> {
        let root = self.settings.root.clone();
        self.watch_directory(&root, Place::Root);
        let there = match directories(&root, self.settings.links) {
            Ok(there) => there,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    ContainerLogStats::add(&self.stats.read_errors, 1);
                }
                return None;
            }
        };
        let lost = self.pods.names.iter().filter(|(name, _)| !there.contains(*name));
        let lost: Vec<u32> = lost.flat_map(|(_, containers)| containers.values().copied()).collect();
        for key in lost {
            self.lose(key, now);
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
        PodFacts::from_directory(pod).is_some_and(|facts| {
            let is_own = self.settings.own_pod_uid.as_deref() == Some(&*facts.uid);
            !is_own && self.wants.iter().any(|want| want.takes_pod(&facts))
        })
    }

    /// Finds the containers of a pod.
    pub(super) fn scan_pod(&mut self, pod: &Arc<str>, now: Instant) {
        let directory = self.settings.root.join(&**pod);
        self.watch_directory(&directory, Place::Pod(pod.clone()));
        let there = match directories(&directory, self.settings.links) {
            Ok(there) => there,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(_) => return ContainerLogStats::add(&self.stats.read_errors, 1),
        };
        let known = self.pods.names.get(pod).cloned().unwrap_or_default();
        for (_, key) in known.iter().filter(|(name, _)| !there.contains(*name)) {
            self.lose(*key, now);
        }
        let Some(facts) = PodFacts::from_directory(pod) else {
            return;
        };
        for name in there {
            match known.get(&name) {
                Some(key) => self.find_again(*key, now),
                None if self.wants.iter().any(|want| want.takes(&facts, &name)) => {
                    self.enter(pod, &facts, &name, now);
                }
                None => {}
            }
        }
    }

    /// Finds the files of a container.
    pub(super) fn scan_container(&mut self, key: u32, now: Instant) {
        self.list_container(key, now);
    }

    fn list_container(&mut self, key: u32, now: Instant) -> usize {
        let Some(container) = self.pods.container(key) else {
            return 0;
        };
        let (listing, refused) = match files::list(&container.directory, &self.opener) {
            Ok(listing) => listing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.lose(key, now);
                return 0;
            }
            Err(_) => {
                ContainerLogStats::add(&self.stats.read_errors, 1);
                return 0;
            }
        };
        let found = container.files.merge(listing, &self.opener, now);
        for seat in &mut container.seats {
            seat.reader.add(&found);
        }
        container.release();
        self.wake(key);
        refused
    }

    /// Begins to follow a container.
    fn enter(&mut self, pod: &Arc<str>, facts: &PodFacts, name: &Arc<str>, now: Instant) {
        let directory = self.settings.root.join(&**pod).join(&**name);
        let key = self.pods.add(pod, name.clone(), Container::new(directory.clone()));
        self.watch_container(key, Writes::Told);
        let found = match (files::list(&directory, &self.opener), self.pods.container(key)) {
            (Ok((listing, _)), Some(container)) => container.files.merge(listing, &self.opener, now),
            _ => Found::default(),
        };
        let origin = state::origin(facts, name, self.settings.node.as_deref());
        let mut served = BTreeSet::new();
        for want in 0..self.wants.len() {
            let wanted = &self.wants[want];
            if wanted.takes(facts, name) && served.insert(wanted.pipeline) {
                let source = position::source(&facts.uid, name);
                self.seat(
                    key,
                    want,
                    Reader::new(wanted.pipeline, origin.clone(), source.clone()),
                    &Entry { source: &source, found: &found },
                );
            }
        }
        if let Some(container) = self.pods.container(key) {
            container.release();
        }
        self.wake(key);
    }

    /// Gives a reader its place in the files: where its pipeline stood, at their end, or at their beginning.
    fn seat(&mut self, key: u32, want: usize, mut reader: Reader, entry: &Entry<'_>) {
        let Some(container) = self.pods.container(key) else {
            return;
        };
        let lane = &mut self.lanes[reader.pipeline];
        let stored = lane.positions.remove(entry.source);
        let mark = stored.as_deref().and_then(Mark::decode);
        let is_late = !self.is_started && lane.is_first_start && self.wants[want].start_at == StartAt::End;
        let mut counts = Counts::default();
        let mut announces = false;
        if let Some(mark) = mark {
            reader.resume(&container.files, &mark, entry.found, &mut counts);
        } else {
            reader.add(entry.found);
        }
        if is_late && stored.is_none() {
            reader.skip_to_end(&mut container.files, &self.opener, &mut self.chunk);
            announces = true;
            lane.announcing += 1;
        }
        self.stats.add_turn(&counts);
        container.seats.push(Seat { announces, is_known: stored.is_some(), ..Seat::new(reader) });
    }

    fn find_again(&mut self, key: u32, now: Instant) {
        let Some(container) = self.pods.container(key) else {
            return;
        };
        let leaves = container.seats.iter().any(|seat| matches!(seat.state, SeatState::Leaving | SeatState::Left));
        // One that is being left is followed anew once it was left.
        if container.is_gone && !leaves {
            container.is_gone = false;
            self.watch_container(key, Writes::Told);
            self.scan_container(key, now);
        }
    }

    /// Takes note that a container's directory is gone: what is held of its files is read to the end.
    fn lose(&mut self, key: u32, now: Instant) {
        let Some(container) = self.pods.container(key) else {
            return;
        };
        container.is_gone = true;
        container.files.merge(Vec::new(), &self.opener, now);
        container.release();
        self.wake(key);
    }

    /// Forgets a container that is gone and that every reader has left.
    pub(super) fn leave(&mut self, key: u32) {
        let Some(container) = self.pods.container(key) else {
            return;
        };
        if container.is_gone && container.seats.iter().all(|seat| seat.state == SeatState::Left) {
            self.pods.remove(key);
            self.timed.remove(&key);
            self.shares.set_containers(self.pods.len());
        }
    }

    /// Watches a container's directory, or changes what is told of it.
    pub(super) fn watch_container(&mut self, key: u32, writes: Writes) {
        if let (Some(watch), Some(container)) = (&mut self.watch, self.pods.container(key)) {
            let watched = watch.add(&container.directory, Place::Container(key), writes);
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

/// How a reader finds its place.
struct Entry<'a> {
    source: &'a Bytes,
    found: &'a Found,
}

/// Lists the directories below `directory` by name.
fn directories(directory: &Path, links: Links) -> io::Result<BTreeSet<Arc<str>>> {
    let mut names = BTreeSet::new();
    for entry in directory.read_dir()? {
        let entry = entry?;
        let is_directory = match links {
            Links::Refuse => entry.file_type().is_ok_and(|kind| kind.is_dir()),
            Links::Follow => entry.path().is_dir(),
        };
        if let Some(name) = entry.file_name().to_str().filter(|_| is_directory) {
            names.insert(name.into());
        }
    }
    Ok(names)
}
