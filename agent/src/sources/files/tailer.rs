//! The whole source without tasks, locks and waiting: told to look, it hands out batches one by one.
//!
//! # Expected flow
//! [`Tailer::scan`](Tails::scan) looks for everything that is wanted: a file whose inode is known is the one that it was, and a
//! new one takes the position of the file that it was before the start, if there is one. Hints of the watch wake readers, or ask
//! for another look. [`Tails::poll`] hands out the next batch.

mod enter;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::event::{Origin, OriginBuilder};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::line::Plain;
use super::position;
use super::walk::{Found, Walk, Wanted};
use super::{FILES_MAX, FORGOTTEN_AFTER, FileInput, FilesSettings, UNSEEN_MAX};
use crate::sources::tail::core::{Core, Outgoing};
use crate::sources::tail::file::{Links, LogFile, Opener};
use crate::sources::tail::lane::Lane;
use crate::sources::tail::position::Mark;
use crate::sources::tail::run::Tails;
use crate::sources::tail::stats::TailStats;
use crate::sources::tail::unit::{Gate, SeatState, TICK};
use crate::sources::tail::watch::{self, Watch, Writes};

/// How many times as long as a look took nothing but the timer brings the next one.
const LOOK_SHARE: u32 = 20;

/// A directory that is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Directory(pub(super) Arc<Path>);

/// Where to look.
pub(super) type Hints = watch::Hints<Directory>;

impl watch::Place for Directory {
    type Written = PathBuf;

    fn written(&self, name: Option<&CStr>) -> Option<PathBuf> {
        name.map(|name| self.0.join(OsStr::from_bytes(name.to_bytes())))
    }
}

/// What a look saw of a file that is followed.
#[derive(Debug)]
struct Seen {
    size: u64,
    modified: UnixNanos,
    /// Since when no look finds it.
    missed_at: Option<Instant>,
}

/// The whole source without tasks; of one pipeline.
#[derive(Debug)]
pub(super) struct Tailer {
    core: Core<Plain>,
    settings: FilesSettings,
    wanted: Vec<Wanted>,
    origin: Arc<Origin>,
    watch: Option<Watch<Directory>>,
    is_unwatched: bool,
    /// Files that are followed, by device and inode.
    by_inode: HashMap<(u64, u64), u32>,
    /// By the name they had at the last look.
    by_path: HashMap<PathBuf, u32>,
    seen: HashMap<u32, Seen>,
    /// Positions of files that were not found since the start, by inode.
    recovered: HashMap<u64, Vec<(Bytes, Mark)>>,
    /// Files that were looked into and are not followed, with their times of change.
    ignored: HashMap<(u64, u64), UnixNanos>,
    /// Files that wait until another is read, whose name they took.
    held: BTreeMap<u32, u32>,
    /// Files that could not be opened, told once.
    unreadable: HashSet<PathBuf>,
    first_look_at: Option<Instant>,
    /// When a look that is asked for may come.
    look_from: Option<Instant>,
    is_asked: bool,
}

impl Tails for Tailer {
    type Form = Plain;

    fn core(&mut self) -> &mut Core<Plain> {
        &mut self.core
    }

    fn attach(&mut self) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
        let watch = self.watch.insert(Watch::open()?);
        Ok(watch.readiness())
    }

    fn scan(&mut self, now: Instant) {
        let began = Instant::now();
        self.is_asked = false;
        self.look(now);
        let took = began.elapsed() * LOOK_SHARE;
        self.look_from = Some(now + took.clamp(TICK, self.settings.rescan.max(TICK)));
    }

    fn take_hints(&mut self, now: Instant) {
        if let Some(hints) = self.watch.as_mut().map(Watch::take) {
            self.follow(hints, now);
        }
    }

    fn tick(&mut self, now: Instant) {
        self.core.tick(now);
        self.look_if_asked(now);
    }

    fn is_timed(&self) -> bool {
        self.is_asked || self.core.is_timed()
    }

    fn is_unwatched(&self) -> bool {
        self.is_unwatched
    }

    fn poll(&mut self, now: Instant) -> Option<Outgoing> {
        loop {
            let next = self.core.poll(now);
            if next.is_some() || !self.let_go() {
                return next;
            }
        }
    }
}

impl Tailer {
    /// Returns a tailer of what `inputs` want; `positions` are those that the pipeline recovered.
    pub(super) fn new(
        settings: FilesSettings,
        inputs: &[FileInput],
        positions: Vec<(Bytes, Bytes)>,
        stats: Arc<TailStats>,
    ) -> Self {
        let opener = Opener::new(Links::Refuse, settings.held_files_max, stats);
        let of_input =
            |input: &FileInput| input.include.iter().map(|one| Wanted::new(one.clone(), input.start_at)).collect();
        let mut lane = Lane::new(positions, position::NAME);
        let mut recovered: HashMap<u64, Vec<(Bytes, Mark)>> = HashMap::new();
        for (source, value) in lane.positions.drain() {
            match Mark::decode(&value) {
                Some(mark) => recovered.entry(mark.file.inode).or_default().push((source, mark)),
                None => lane.farewells.push_back(source),
            }
        }
        let origin =
            OriginBuilder { node: settings.node.clone(), source: Some("files".into()), ..OriginBuilder::default() };
        Self {
            core: Core::new(opener, settings.clock.clone(), vec![lane]),
            settings,
            wanted: inputs.iter().flat_map(|input| -> Vec<Wanted> { of_input(input) }).collect(),
            origin: origin.build(),
            watch: None,
            is_unwatched: false,
            by_inode: HashMap::new(),
            by_path: HashMap::new(),
            seen: HashMap::new(),
            recovered,
            ignored: HashMap::new(),
            held: BTreeMap::new(),
            unreadable: HashSet::new(),
            first_look_at: None,
            look_from: None,
            is_asked: false,
        }
    }

    /// What comes between two steps of a look.
    #[cfg(test)]
    pub(super) fn between(&mut self) -> &mut crate::sources::tail::between::Between {
        &mut self.core.opener.between
    }

    /// Looks where `hints` say.
    pub(super) fn follow(&mut self, Hints { changed, written, overflowed }: Hints, now: Instant) {
        if overflowed {
            TailStats::add(&self.core.stats.overflows, 1);
        }
        // Under the names of before; those of now the look wakes that is asked for.
        for path in written {
            if let Some(key) = self.by_path.get(&path) {
                self.core.wake(*key);
            }
        }
        self.is_asked |= overflowed || !changed.is_empty();
        self.look_if_asked(now);
    }

    fn look_if_asked(&mut self, now: Instant) {
        if self.is_asked && self.look_from.is_none_or(|from| from <= now) {
            self.scan(now);
        }
    }

    /// Looks for everything.
    fn look(&mut self, now: Instant) {
        self.forget_left();
        let mut watched: Vec<io::Result<()>> = Vec::new();
        let Self { wanted, core, watch, by_inode, recovered, .. } = self;
        let inodes: HashSet<u64> = by_inode.keys().map(|(_, inode)| *inode).chain(recovered.keys().copied()).collect();
        // Before it is read: what comes afterwards is told.
        let enters = |directory: &Path| {
            watched.extend(watch.as_mut().map(|watch| watch.add(directory, Directory(directory.into()), Writes::Told)));
        };
        let walk = Walk::over(wanted, &core.opener, &|inode| inodes.contains(&inode), enters);
        watched.into_iter().for_each(|watched| self.note_watched(watched));
        TailStats::add(&self.core.stats.read_errors, walk.failed);
        let names_before = std::mem::take(&mut self.by_path);
        let mut unseen: HashSet<u32> = self.core.units.keys().copied().collect();
        let mut new = Vec::new();
        for found in walk.found {
            match self.by_inode.get(&(found.device, found.entry.inode)).copied() {
                Some(key) if self.core.units.contains_key(&key) && !self.is_replaced(key, &found, now) => {
                    unseen.remove(&key);
                    self.find_again(key, &found);
                }
                _ => new.push(found),
            }
        }
        // As they were written, as far as that can be told.
        new.sort_by(|a, b| (a.modified, &a.entry.path).cmp(&(b.modified, &b.entry.path)));
        let left_out = self.enter_new(new, &names_before, now);
        for key in unseen {
            self.miss(key, now, walk.is_complete);
        }
        self.settle(now, walk.is_complete);
        self.core.shares.set_refused_entries(walk.refused);
        self.core.shares.set_left_out_files(left_out);
        self.core.shares.set_units(self.core.units.len());
    }

    /// Takes note that a file that is followed was found, under whatever name.
    fn find_again(&mut self, key: u32, found: &Found) {
        let Some(unit) = self.core.units.get_mut(&key) else { return };
        let leaves = unit.seats.iter().any(|seat| matches!(seat.state, SeatState::Leaving | SeatState::Left));
        let Some(file) = unit.files.list.first_mut().filter(|_| !leaves) else { return };
        let is_renamed = file.path != found.entry.path;
        file.rename(&found.entry);
        (unit.is_gone, unit.gone_at) = (false, None);
        if is_renamed {
            self.core.stats.rotated.fetch_add(1, Ordering::Relaxed);
        }
        let is_placed = unit.seats.iter().all(|seat| seat.reader.is_placed());
        let seen = Seen { size: found.entry.size, modified: found.modified, missed_at: None };
        let before = self.seen.insert(key, seen);
        self.by_path.insert(found.entry.path.clone(), key);
        if !is_placed {
            self.take_place(key);
        }
        let is_same = before.is_some_and(|seen| (seen.size, seen.modified) == (found.entry.size, found.modified));
        if is_renamed || !is_same || !is_placed {
            self.core.wake(key);
        }
    }

    fn take_place(&mut self, key: u32) {
        self.core.with_taking(key, |unit, taking| {
            for seat in &mut unit.seats {
                seat.reader.take_found(&[], &mut unit.files, taking);
            }
        });
    }

    /// Takes note that a look did not find a file that is followed.
    fn miss(&mut self, key: u32, now: Instant, is_complete: bool) {
        let Some(unit) = self.core.units.get(&key).filter(|unit| !unit.is_gone) else { return };
        let is_unlinked = unit.files.list.first().and_then(LogFile::is_unlinked);
        let missed_at = match self.seen.get_mut(&key) {
            Some(seen) if is_complete => *seen.missed_at.get_or_insert(now),
            _ => now,
        };
        // One that is not held open may have been renamed while the directory was read; so may another look not have.
        let is_over = match is_unlinked {
            Some(true) => true,
            Some(false) => now.saturating_duration_since(missed_at) >= UNSEEN_MAX,
            None => now > missed_at,
        };
        if is_over {
            self.core.lose(key, now);
            // Of a copy nothing is read.
            self.core.leave(key);
        }
        self.is_asked |= is_complete && !is_over && is_unlinked.is_none();
    }

    /// Lets files be read that waited for another; returns whether there is one.
    fn let_go(&mut self) -> bool {
        let is_read = |core: &Core<Plain>, key: u32| {
            core.units.get(&key).is_none_or(|unit| {
                unit.seats.iter().all(|seat| match seat.state {
                    SeatState::Idle => seat.gate != Gate::Held || unit.is_gone,
                    SeatState::Left => true,
                    SeatState::Queued | SeatState::InFlight | SeatState::Leaving => false,
                })
            })
        };
        let free: Vec<u32> =
            self.held.iter().filter(|(_, before)| is_read(&self.core, **before)).map(|(key, _)| *key).collect();
        for key in &free {
            self.held.remove(key);
            if let Some(unit) = self.core.units.get_mut(key) {
                unit.seats.iter_mut().for_each(|seat| seat.gate = Gate::Open);
            }
            self.core.wake(*key);
        }
        !free.is_empty()
    }

    fn forget_left(&mut self) {
        let Self { core, by_inode, by_path, seen, held, ignored, .. } = self;
        if ignored.len() > FILES_MAX {
            ignored.clear();
        }
        by_inode.retain(|_, key| core.units.contains_key(key));
        by_path.retain(|_, key| core.units.contains_key(key));
        seen.retain(|key, _| core.units.contains_key(key));
        held.retain(|key, _| core.units.contains_key(key));
    }

    /// Notes which patterns were seen, the first time; forgets positions whose files do not come.
    fn settle(&mut self, now: Instant, is_complete: bool) {
        let lane = &mut self.core.lanes[0];
        let since = *self.first_look_at.get_or_insert_with(|| {
            let received = self.settings.clock.now();
            for wanted in &self.wanted {
                let marker = position::marker(wanted.hash);
                if !lane.seen.contains_key(&marker) {
                    lane.seen.insert(marker.clone(), position::since(received));
                    lane.marks.push_back((marker, position::since(received)));
                }
            }
            now
        });
        let is_there = !self.core.units.is_empty();
        if is_complete && is_there && now.saturating_duration_since(since) >= FORGOTTEN_AFTER {
            lane.farewells.extend(self.recovered.drain().flat_map(|(_, marks)| marks).map(|(source, _)| source));
        }
    }

    fn note_watched(&mut self, watched: io::Result<()>) {
        match watched {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                if !self.is_unwatched {
                    tracing::warn!(%error, "a directory of files cannot be watched, scanning instead");
                }
                self.is_unwatched = true;
            }
            Ok(()) | Err(_) => {}
        }
    }
}
