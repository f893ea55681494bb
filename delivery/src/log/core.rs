//! The writer of a log, synchronous: appends groups of frames, syncs, seals, frees. One thread at a time.
//!
//! State runs in two steps, so that headers and footers never say more than the disk holds: `base` is the state as of
//! everything synced, `unsynced` are the frames since. A sync moves them over; a failed one writes them again, into a
//! new segment whose header holds `base` alone.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::format::{self, Footer};
use super::frame::{Frame, Pending};
use super::quarantine;
use super::recovery::{self, Recovered};
use super::segment::{SegmentFile, Summary};
use super::state::{State, Tally};
use super::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use crate::clock::UnixNanos;
use crate::event::{EventId, Origin};
use crate::filesystem::Filesystem;
use crate::settings::Durability;

mod active;
mod memory;
mod spares;
mod table;

use active::Active;
pub(super) use active::DRAFT_EXTENSION;
use memory::Held;
pub(super) use memory::Spilled;
pub(super) use spares::SPARE_EXTENSION;
use spares::Spares;
pub use table::CoreEdit;

/// What a log is opened with.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Where its files are.
    pub dir: PathBuf,
    /// The level of its acknowledgements.
    pub durability: Durability,
    /// Most bytes on disk; sizes the segments.
    pub bytes_max: u64,
    /// The routes, in the order of the masks' bits; at most 64.
    pub routes: Vec<Arc<str>>,
    /// Random.
    pub incarnation: u64,
    /// The new incarnation begins at this sequence or above: behind every cursor and every plan.
    pub seq_min: u64,
    /// Wall time.
    pub now: UnixNanos,
}

/// Why frames were not kept.
#[derive(Debug)]
pub struct CommitError {
    /// The file system's answer.
    pub source: io::Error,
    /// Whether a crash right now could bring the frames back although they were refused.
    pub maybe_kept: bool,
}

/// What a commit did.
#[derive(Debug)]
pub struct Committed {
    /// The frames that reached the level, in order: the first so many of the group.
    pub frames: Vec<Arc<Frame>>,
    /// Why the rest did not.
    pub error: Option<CommitError>,
}

/// A segment as readers and the accounts see it.
#[derive(Debug, Clone)]
pub(super) struct SegmentInfo {
    pub(super) ordinal: u64,
    pub(super) path: PathBuf,
    pub(super) base_seq: u64,
    pub(super) routes: Arc<[Arc<str>]>,
    pub(super) summary: Summary,
    /// Where the first frame may be.
    pub(super) data_start: u64,
    /// Behind the last good frame.
    pub(super) data_end: u64,
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// Running time at which it was sealed; `None` while it is written.
    pub(super) sealed_ms: Option<u64>,
    /// Whether this start, and the one that began the next, could read it all. Where not it is set aside when it goes, never deleted.
    pub(super) whole: bool,
    /// Where what an earlier start could not read begins; `None` where there is nothing of that.
    pub(super) unread_from: Option<u64>,
}

impl SegmentInfo {
    /// Returns the index of a route in this segment's table.
    pub(super) fn route(&self, name: &str) -> Option<usize> {
        self.routes.iter().position(|route| **route == *name)
    }
}

/// The writer.
#[derive(Debug)]
pub struct LogCore {
    pub(super) fs: Arc<dyn Filesystem>,
    options: OpenOptions,
    routes: Arc<[Arc<str>]>,
    active: Option<Active>,
    pub(super) segments: BTreeMap<u64, SegmentInfo>,
    next_ordinal: u64,
    next_seq: u64,
    base: State,
    base_seq: u64,
    unsynced: Vec<(Arc<Frame>, Box<[Tally]>)>,
    unsynced_bytes: usize,
    held: Held,
    /// Running time of the last header.
    header_ms: u64,
    running_base_ms: u64,
    syncs: u64,
    /// Recovered segments that are not durable yet.
    unsealed: Vec<recovery::Unsealed>,
    /// Files of segments that went, to be written over.
    spares: Spares,
}

impl LogCore {
    /// Opens the log in a directory, which is made if absent, and begins an incarnation. Damage never makes this fail;
    /// only a file system that refuses to make or to list the directory does, and a segment of a later format version.
    pub fn open(fs: Arc<dyn Filesystem>, options: OpenOptions) -> io::Result<(Self, Recovered)> {
        fs.create_dir_all(&options.dir)?;
        // The directory's own entry must survive power loss before anything in it is acknowledged.
        for made in options.dir.ancestors().skip(1).take(2).filter(|parent| !parent.as_os_str().is_empty()) {
            fs.sync_dir(made)?;
        }
        let (recovered, found) = recovery::recover(&*fs, &options.dir)?;
        let next_seq = found.end_seq.max(options.seq_min).max(1);
        let mut core = Self {
            routes: options.routes.clone().into(),
            fs,
            options,
            active: None,
            next_ordinal: found.segments.keys().next_back().map_or(1, |last| last + 1).max(found.next_ordinal),
            segments: found.segments,
            next_seq,
            base: found.state,
            base_seq: next_seq,
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            held: Held::default(),
            header_ms: found.running_ms,
            running_base_ms: found.running_ms,
            syncs: 0,
            unsealed: found.unsealed,
            spares: Spares::default(),
        };
        match core.begin_segment(core.running_base_ms) {
            Ok(()) => core.remove_empty_segments(),
            // A full or failing disk is a state: what is held is delivered, and the first commit that can begins the segment.
            Err(error) => {
                tracing::error!(%error, dir = %core.options.dir.display(), "log cannot be written; it is read only");
            }
        }
        Ok((core, recovered))
    }

    /// Returns the sequence the next event will get.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Returns the incarnation this open began.
    pub fn incarnation(&self) -> u64 {
        self.options.incarnation
    }

    /// Returns the id an event of this incarnation has.
    pub fn event_id(&self, seq: u64) -> EventId {
        EventId { incarnation: self.options.incarnation, seq }
    }

    /// Returns the running time of the log, given how long this incarnation has run.
    pub fn running_ms(&self, since_open: Duration) -> u64 {
        self.running_base_ms + since_open.as_millis() as u64
    }

    /// Returns the bytes written and not yet synced.
    pub fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    /// Returns the syncs that succeeded since the open.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    /// Returns the bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Returns the state with everything that was accepted.
    pub(super) fn state(&self) -> State {
        let mut state = self.base.clone();
        self.unsynced.iter().for_each(|(frame, tallies)| state.apply(frame, tallies));
        self.held.iter().for_each(|frame| state.apply(frame, &frame.tallies()));
        state
    }

    /// Returns where `source` stands, everything accepted counted.
    pub fn position(&self, source: &[u8]) -> Option<Bytes> {
        self.state().position(source)
    }

    /// Returns every live position.
    pub fn positions(&self) -> Vec<(Bytes, Bytes)> {
        self.state().positions()
    }

    /// Returns whether a key came before.
    pub fn lookup_key(&self, key: &crate::event::IdempotencyKey, since_open: Duration) -> super::KeyLookup {
        self.state().lookup(key, self.running_ms(since_open))
    }

    /// Returns the events that a route's mask held, ever.
    pub fn routed_events(&self, route: &str) -> u64 {
        self.state().totals.routes.get(route).copied().unwrap_or(0)
    }

    /// Takes a group, in order, and brings it to the log's level.
    pub fn commit(&mut self, group: Vec<Pending>, since_open: Duration) -> Committed {
        if self.options.durability == Durability::Memory {
            self.hold(group, since_open)
        } else {
            self.write(group, since_open)
        }
    }

    /// Takes a group into memory; what must go to make room for it is spilled before.
    fn hold(&mut self, group: Vec<Pending>, since_open: Duration) -> Committed {
        let frames = self.frames(group, self.running_ms(since_open));
        let to_spill = self.to_spill(frames.iter().map(|frame| frame.memory_bytes()).sum());
        if to_spill > 0
            && let Err(source) = self.spill(to_spill, since_open)
        {
            return Committed { frames: Vec::new(), error: Some(CommitError { source, maybe_kept: false }) };
        }
        for frame in &frames {
            self.next_seq = frame.end_seq();
            self.held.push(frame.clone());
        }
        Committed { frames, error: None }
    }

    /// Writes a group; what an earlier level left in memory comes before it.
    fn write(&mut self, group: Vec<Pending>, since_open: Duration) -> Committed {
        let running_ms = self.running_ms(since_open);
        let unkept = |source| CommitError { source, maybe_kept: false };
        let group = self.frames(group, running_ms);
        let first_seq = self.next_seq;
        let mut frames = Vec::with_capacity(group.len());
        let mut error = self.settled(since_open).err().map(unkept);
        while error.is_none() && frames.len() < group.len() {
            let rest = group.get(frames.len()..).unwrap_or_default();
            match self.write_some(rest, running_ms, &mut frames) {
                Ok(_) => self.next_seq = frames.last().map_or(self.next_seq, |last| last.end_seq()),
                Err(source) => error = Some(CommitError { source, maybe_kept: self.active.is_none() }),
            }
        }
        if self.options.durability == Durability::Disk
            && let Err(source) = self.sync_at(running_ms)
        {
            // What a seal in the midst of the group had synced is kept; the rest never was.
            let given_up = self.give_up_unsynced(first_seq);
            frames.truncate(frames.len().saturating_sub(given_up));
            let maybe_kept = given_up > 0 || error.is_some_and(|error| error.maybe_kept);
            return Committed { frames, error: Some(CommitError { source, maybe_kept }) };
        }
        Committed { frames, error }
    }

    /// Opens a segment where none is, and writes what is held although the level wants it written.
    fn settled(&mut self, since_open: Duration) -> io::Result<()> {
        if self.held.front().is_some() {
            return self.spill(usize::MAX, since_open);
        }
        self.mend(self.running_ms(since_open))
    }

    /// Gives a group its sequences. They are used once the caller says so.
    fn frames(&self, group: Vec<Pending>, running_ms: u64) -> Vec<Arc<Frame>> {
        let mut next_seq = self.next_seq;
        let mut frame = |pending: Pending| {
            let frame = pending.into_frame((next_seq, self.options.incarnation), running_ms, &self.routes);
            next_seq = frame.end_seq();
            Arc::new(frame)
        };
        group.into_iter().map(&mut frame).collect()
    }

    /// Makes everything written survive power loss. On failure the frames are written anew once; when that fails too, they
    /// stay in memory and the next call begins there.
    pub fn sync(&mut self, since_open: Duration) -> io::Result<()> {
        if self.options.durability != Durability::Memory && self.held.front().is_some() {
            return self.spill(usize::MAX, since_open);
        }
        self.sync_at(self.running_ms(since_open))
    }

    fn sync_at(&mut self, running_ms: u64) -> io::Result<()> {
        self.mend(running_ms)?;
        if self.unsynced.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.sync_active() {
            tracing::warn!(%error, dir = %self.options.dir.display(), "sync failed; writing what it held anew");
            self.abandon();
            self.mend(running_ms)?;
        }
        Ok(())
    }

    /// Seals the segment being written and begins the next, so that what is delivered of it can be freed.
    pub fn seal(&mut self, since_open: Duration) -> io::Result<()> {
        self.seal_at(self.running_ms(since_open))
    }

    fn seal_at(&mut self, running_ms: u64) -> io::Result<()> {
        self.sync_at(running_ms)?;
        let Some(active) = &self.active else { return Ok(()) };
        let ordinal = active.ordinal;
        let Some(info) = self.segments.get(&ordinal).filter(|info| info.data_end > info.data_start) else {
            return Ok(());
        };
        let footer = Footer {
            summary: info.summary.clone(),
            origins: active.origins.iter().map(|origin| origin.json().clone()).collect(),
            running_ms,
            state: self.base.clone(),
        };
        let bytes = footer.encode(active.place());
        let (file, at, stale_end) = (active.file.clone(), info.data_end, active.header.stale_end);
        self.begin_segment(running_ms)?;
        // A footer that cannot be written costs the next start a scan of one segment, nothing else.
        let end = at + bytes.len() as u64;
        let cut = || if end < stale_end { file.truncate(end) } else { Ok(()) };
        let written = file.write_at(at, &[&bytes]).and_then(|()| cut()).and_then(|()| file.sync()).is_ok();
        if let Some(info) = self.segments.get_mut(&ordinal) {
            info.sealed_ms = Some(running_ms);
            if written {
                info.bytes = end;
            }
        }
        Ok(())
    }

    /// Removes segments whose events all lie below `below`, sealed at least `retain` ago, oldest first; with `bytes_over`,
    /// as many more of them as free so many bytes. Never the one being written.
    pub fn free(&mut self, below: u64, keep: Keep, since_open: Duration) -> Vec<u64> {
        let now_ms = self.running_ms(since_open);
        let mut freed = Vec::new();
        let mut over = keep.bytes_over;
        if over > 0 {
            self.spares.drop_all(&*self.fs);
        }
        while let Some(first) = self.segments.values().next() {
            let Some(sealed_ms) = first.sealed_ms.filter(|_| first.summary.end_seq <= below) else { break };
            // Where none could be begun since the open, the last one alone says where sources stand.
            let is_all = self.active.is_none() && self.segments.len() == 1;
            let due = sealed_ms + keep.retain.as_millis() as u64 <= now_ms;
            if is_all || (!due && over == 0) {
                break;
            }
            let (ordinal, path, bytes, is_whole) = (first.ordinal, first.path.clone(), first.bytes, first.whole);
            let may_stay = over == 0 && bytes >= self.segment_bytes() && is_whole;
            if !(may_stay && self.spares.keep(&*self.fs, &path)) {
                match self.let_go(ordinal) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => break,
                    _ => {}
                }
            }
            over = over.saturating_sub(if is_whole { bytes } else { 0 });
            self.segments.remove(&ordinal);
            freed.push(ordinal);
        }
        freed
    }

    /// Removes a segment's file, or sets it aside.
    fn let_go(&self, ordinal: u64) -> io::Result<()> {
        match self.segments.get(&ordinal) {
            Some(info) if info.whole => self.fs.remove(&info.path),
            Some(info) => quarantine::move_in(&*self.fs, &self.options.dir, &info.path),
            None => Ok(()),
        }
    }

    /// Writes as many of `frames` as the segment takes, in one call to the file system, appends them to `done` and returns how
    /// many. They are of one table, in order, and there is at least one.
    fn write_some(&mut self, frames: &[Arc<Frame>], running_ms: u64, done: &mut Vec<Arc<Frame>>) -> io::Result<usize> {
        let segment_bytes = self.segment_bytes();
        let Some(first) = frames.first() else { return Ok(0) };
        self.settle_table(first, running_ms)?;
        // Its header holds keys and positions, however many: what it has room for are events.
        let is_full = |data_start: u64, end: u64| end - data_start >= segment_bytes;
        if self.active_info().is_none_or(|info| is_full(info.data_start, info.data_end)) {
            self.seal_at(running_ms)?;
        }
        let newest = self.segments.values().next_back().map(|info| (info.data_start, info.data_end));
        let (Some(active), Some((data_start, start))) = (&mut self.active, newest) else {
            return Err(io::Error::other("no segment is open"));
        };
        let origins_before = active.origins.len();
        let (mut metas, mut placed, mut end) = (Vec::new(), Vec::new(), start);
        for frame in frames.iter().take_while(|frame| Arc::ptr_eq(&frame.routes, &first.routes)) {
            if is_full(data_start, end) && !placed.is_empty() {
                break;
            }
            let meta_start = metas.len();
            let origin = active.origin_id(&frame.origin, &mut metas);
            let offset = end + (metas.len() - meta_start) as u64;
            format::encode_data(&mut metas, frame, origin, active.place());
            end += (metas.len() - meta_start) as u64 + frame.payload.len() as u64;
            placed.push((offset, meta_start..metas.len(), frame));
        }
        let parts = placed.iter().flat_map(|(_, meta, frame)| [&metas[meta.clone()], &frame.payload]);
        let parts: Vec<&[u8]> = parts.collect();
        let file = active.file.clone();
        if let Err(error) = file.write_at(start, &parts) {
            if file.truncate(start).and_then(|()| file.sync()).is_err() {
                self.abandon();
            } else if let Some(active) = &mut self.active {
                // The origins of this group are not in the file.
                active.truncate_origins(origins_before);
            }
            return Err(error);
        }
        self.sync_ahead(end);
        self.account(placed.iter().map(|(offset, _, frame)| (*offset, (*frame).clone())), end, done);
        Ok(placed.len())
    }

    fn account(&mut self, placed: impl Iterator<Item = (u64, Arc<Frame>)>, end: u64, done: &mut Vec<Arc<Frame>>) {
        let Some(info) = self.active.as_ref().and_then(|active| self.segments.get_mut(&active.ordinal)) else { return };
        for (offset, frame) in placed {
            let tallies = info.summary.push(&frame, offset);
            self.unsynced_bytes += frame.memory_bytes();
            done.push(frame.clone());
            self.unsynced.push((frame, tallies));
        }
        info.data_end = end;
        info.bytes = end;
    }

    fn sync_active(&mut self) -> io::Result<()> {
        let Some(active) = &mut self.active else { return Err(io::Error::other("no segment is open")) };
        let end = self.segments.get(&active.ordinal).map_or(0, |info| info.data_end);
        active.file.sync()?;
        active.synced_end = end;
        self.all_synced();
        Ok(())
    }

    /// Opens a segment where none is, with everything in it that is written and not synced.
    fn mend(&mut self, running_ms: u64) -> io::Result<()> {
        if self.active.is_some() { Ok(()) } else { self.begin_segment(running_ms) }
    }

    fn active_info(&self) -> Option<&SegmentInfo> {
        self.active.as_ref().and_then(|active| self.segments.get(&active.ordinal))
    }

    /// Returns the active segment's file and origins, for readers.
    pub(super) fn active_file(&self) -> Option<(u64, SegmentFile, Vec<Arc<Origin>>)> {
        let active = self.active.as_ref()?;
        let data_start = self.segments.get(&active.ordinal)?.data_start;
        let file = SegmentFile { file: active.file.clone(), header: active.header.clone(), data_start };
        Some((active.ordinal, file, active.origins.clone()))
    }

    fn segment_bytes(&self) -> u64 {
        (self.options.bytes_max / 8).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)
    }
}

/// What of the delivered data stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep {
    /// How long it stays, in running time.
    pub retain: Duration,
    /// How many bytes must go although their time has not come.
    pub bytes_over: u64,
}
