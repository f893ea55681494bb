//! Reading a log: from the memory tail while the reader keeps up, from the segments when it is behind.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Log;
use crate::event::Origin;
use crate::log::core::SegmentInfo;
use crate::log::device::is_lack;
use crate::log::frame::Frame;
use crate::log::quarantine;
use crate::log::segment::{Block, SegmentFile, Stop, tally_below};
use crate::log::state::Tally;

/// Most damaged places that are told one by one; what lies beyond is skipped all the same.
const DAMAGED_PLACES_MAX: usize = 4096;

/// How long the device may refuse to read a place before that counts as damage: longer than a path takes to fail over, a server to
/// restart or a volume to be attached anew. Meanwhile whoever must read it waits.
const UNREADABLE_MAX: Duration = Duration::from_mins(5);

/// Fewest and most bytes stepped over at once to find where the device reads again: from a sector on, twice as many each time.
const STEP_BYTES_MIN: u64 = 512;
const STEP_BYTES_MAX: u64 = 1 << 20;

/// Most bytes of frames given at once from the memory tail.
const TAIL_GIVE_BYTES: usize = 1 << 20;

/// Why a log could not be read; the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system refused.
    #[error("log cannot be read")]
    Io(#[source] io::Error),
}

/// Reads the events of a log in order. Each delivery has one.
///
/// It holds the file of a segment only while it has more of it to read: one that is deleted and held open takes its room of the
/// volume until somebody writes, and nobody may where that room is what is lacking.
#[derive(Debug)]
pub struct LogReader {
    log: Log,
    id: u64,
    seq: u64,
    open: Option<OpenSegment>,
    visible: watch::Receiver<u64>,
}

#[derive(Debug)]
pub(super) struct OpenSegment {
    ordinal: u64,
    file: SegmentFile,
    origins: Vec<Arc<Origin>>,
    /// The origins of a sealed segment are all known from its footer; those met on the way are not counted again.
    origins_known: bool,
    offset: u64,
}

/// What one read gave.
pub(super) enum Given {
    Frames(Vec<Arc<Frame>>),
    /// Nothing stands at the reader's sequence; go on at this one.
    Skip(u64),
}

/// One read of a segment.
pub(super) struct DiskRead {
    pub(super) given: Given,
    pub(super) open: Option<OpenSegment>,
    /// Whether it went over a damaged place.
    over_damage: bool,
}

impl LogReader {
    pub(super) fn new(log: Log, seq: u64) -> Self {
        let mut shared = log.shared();
        let id = shared.next_reader;
        shared.next_reader += 1;
        shared.readers.insert(id, seq);
        drop(shared);
        let visible = log.inner.visible.subscribe();
        Self { log, id, seq, open: None, visible }
    }

    /// Returns the sequence it reads next.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Goes to another sequence.
    pub fn seek(&mut self, seq: u64) {
        self.seq = seq;
        self.open = None;
        self.log.shared().readers.insert(self.id, seq);
    }

    /// Returns whether there is something to read now.
    pub fn has_more(&self) -> bool {
        self.seq < *self.visible.borrow()
    }

    /// Returns when there may be something to read.
    ///
    /// # Cancel safety
    /// May be cancelled at any time.
    pub async fn wait(&mut self) {
        while self.seq >= *self.visible.borrow_and_update() {
            if self.visible.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns frames with events at or above the reader's sequence and moves it behind them; none when there are none now.
    /// The first frame may begin below the sequence: the caller skips those events.
    ///
    /// # Cancel safety
    /// May be cancelled; nothing is moved then.
    pub async fn read(&mut self) -> Result<Vec<Arc<Frame>>, ReadError> {
        loop {
            let end = *self.visible.borrow();
            if self.seq >= end {
                return Ok(Vec::new());
            }
            if let Some(frames) = self.tail_frames() {
                self.open = None;
                self.advance(&frames);
                return Ok(frames);
            }
            match self.disk_frames(end).await.map_err(ReadError::Io)? {
                Given::Frames(frames) => {
                    self.advance(&frames);
                    return Ok(frames);
                }
                Given::Skip(seq) => self.seek_keep(seq),
            }
        }
    }

    fn advance(&mut self, frames: &[Arc<Frame>]) {
        if let Some(last) = frames.last() {
            self.seek_keep(last.end_seq());
        }
    }

    fn seek_keep(&mut self, seq: u64) {
        self.seq = seq;
        let mut shared = self.log.shared();
        shared.readers.insert(self.id, seq);
        super::commit::trim_tail(&mut shared);
        drop(shared);
        self.log.inner.read.notify_waiters();
    }

    fn tail_frames(&self) -> Option<Vec<Arc<Frame>>> {
        let shared = self.log.shared();
        if self.seq < shared.tail_start {
            return None;
        }
        let from = shared.tail.partition_point(|frame| frame.end_seq() <= self.seq);
        let mut bytes = 0;
        let frames: Vec<_> = shared
            .tail
            .range(from..)
            .take_while(|frame| {
                let first = bytes == 0;
                bytes += frame.memory_bytes();
                first || bytes <= TAIL_GIVE_BYTES
            })
            .cloned()
            .collect();
        (!frames.is_empty()).then_some(frames)
    }

    async fn disk_frames(&mut self, visible_end: u64) -> io::Result<Given> {
        let (log, seq, open) = (self.log.clone(), self.seq, self.open.take());
        let work = tokio::task::spawn_blocking(move || read_disk(&log, seq, visible_end, open));
        let DiskRead { given, open, over_damage } = work.await.map_err(io::Error::other)??;
        self.open = open;
        if over_damage {
            self.log.shared().damage_passed += 1;
        }
        Ok(given)
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.log.shared().readers.remove(&self.id);
    }
}

pub(super) fn read_disk(log: &Log, seq: u64, visible_end: u64, open: Option<OpenSegment>) -> io::Result<DiskRead> {
    let mut over_damage = false;
    let Some(info) = segment_at(log, seq) else {
        // No file has anything at or above: what only memory holds, burnt sequences at the end, or a writer that could not
        // write again what it lost.
        let shared = log.shared();
        let memory = shared.memory.start.min(visible_end);
        if seq < memory && memory < visible_end {
            return Ok(DiskRead { given: Given::Skip(memory), open: None, over_damage });
        }
        if shared.trouble.is_some() {
            return Err(io::Error::other("the log waits for its file system"));
        }
        return Ok(DiskRead { given: Given::Skip(visible_end), open: None, over_damage });
    };
    let mut at = match open.filter(|open| open.ordinal == info.ordinal) {
        Some(open) => open,
        None => match open_segment(log, &info, seq) {
            Ok(open) => open,
            Err(error) => {
                wait_for_device(log, &info, 0, error)?;
                tell_damage(log, &info, (0, info.data_end));
                let given = Given::Skip(info.summary.end_seq.max(seq + 1).min(visible_end));
                return Ok(DiskRead { given, open: None, over_damage: true });
            }
        },
    };
    if !at.origins_known {
        refresh_origins(log, &mut at);
    }
    while at.offset < info.data_end {
        // Frames name origins by number, and all that can be met are known before; what `block` appends while it passes
        // origin frames is thrown away.
        let Some(block) = readable_block(log, &mut at, &info)? else {
            over_damage = true;
            continue;
        };
        at.offset = block.next;
        let frames: Vec<_> = block
            .frames
            .into_iter()
            .map(|placed| placed.frame)
            .filter(|frame| frame.end_seq() > seq && frame.first_seq < info.summary.end_seq)
            .map(Arc::new)
            .collect();
        let is_bad = block.stop == Stop::Bad && log.shared().segments.contains_key(&info.ordinal);
        // What stands before a bad place goes its way first.
        if is_bad && frames.is_empty() {
            let from = at.offset;
            at.offset = match at.file.resync(from, info.data_end) {
                Ok(next) => next.unwrap_or(info.data_end),
                Err(error) => {
                    wait_for_device(log, &info, from, error)?;
                    next_readable(&at.file, from, info.data_end)?
                }
            };
            tell_damage(log, &info, (from, at.offset));
            over_damage = true;
        } else if block.stop != Stop::More && !is_bad {
            // The end; or its file is another segment's by now: it was let go while it was read.
            at.offset = info.data_end;
        }
        if !frames.is_empty() {
            let open = Some(at).filter(|at| at.offset < info.data_end);
            return Ok(DiskRead { given: Given::Frames(frames), open, over_damage });
        }
    }
    let given = Given::Skip(info.summary.end_seq.max(seq + 1).min(visible_end));
    Ok(DiskRead { given, open: None, over_damage })
}

/// Reads a block; `None` where the device has refused the place for so long that it is damage: then `open` stands behind it.
fn readable_block(log: &Log, open: &mut OpenSegment, info: &SegmentInfo) -> io::Result<Option<Block>> {
    let refused = match open.file.readable_block(open.offset, &mut open.origins.clone(), info.data_end) {
        Ok(block) => return Ok(Some(block)),
        Err(error) => error,
    };
    wait_for_device(log, info, open.offset, refused)?;
    let from = open.offset;
    open.offset = next_readable(&open.file, from, info.data_end)?;
    tell_damage(log, info, (from, open.offset));
    Ok(None)
}

/// Finds where the device reads a whole frame again, behind one at `from` that it refuses.
fn next_readable(file: &SegmentFile, from: u64, end: u64) -> io::Result<u64> {
    if let Some(next) = file.behind_frame(from, end) {
        return Ok(next);
    }
    let (mut at, mut step) = (from, STEP_BYTES_MIN);
    loop {
        match file.resync(at, end) {
            Ok(next) => return Ok(next.unwrap_or(end)),
            Err(error) if is_lack(&error) => return Err(error),
            Err(_) if at + step >= end => return Ok(end),
            Err(_) => at += step,
        }
        step = (step * 2).min(STEP_BYTES_MAX);
    }
}

/// Takes note that a place cannot be read; an error while the device is given time.
fn wait_for_device(log: &Log, info: &SegmentInfo, offset: u64, error: io::Error) -> io::Result<()> {
    let (mut shared, now) = (log.shared(), Instant::now());
    let place = (info.ordinal, offset);
    let is_new = !shared.unreadable.contains_key(&place);
    if is_lack(&error) || is_new && shared.unreadable.len() >= DAMAGED_PLACES_MAX {
        return Err(error);
    }
    let (first, last) = shared.unreadable.entry(place).or_insert((now, now));
    if now.duration_since(*last) >= UNREADABLE_MAX {
        // Nobody has asked meanwhile: it may have been readable.
        *first = now;
    }
    *last = now;
    if now.duration_since(*first) < UNREADABLE_MAX { Err(error) } else { Ok(()) }
}

/// Counts a damaged place when it is met first: whoever counts events reads over it too, again and again.
fn tell_damage(log: &Log, info: &SegmentInfo, (from, to): (u64, u64)) {
    let mut shared = log.shared();
    if shared.damaged_at.len() < DAMAGED_PLACES_MAX && shared.damaged_at.insert((info.ordinal, from)) {
        shared.damaged += 1;
        drop(shared);
        tracing::error!(path = %info.path.display(), from, to, "damaged record skipped; its events are counted as dropped");
        quarantine::keep_record(&*log.inner.options.filesystem, &info.path, info.ordinal, from..to);
    }
}

/// Returns the segment that holds `seq`, or the first one above.
fn segment_at(log: &Log, seq: u64) -> Option<Arc<SegmentInfo>> {
    let shared = log.shared();
    shared.segments.values().find(|info| info.summary.end_seq > seq && info.data_end > info.data_start).cloned()
}

fn open_segment(log: &Log, info: &SegmentInfo, seq: u64) -> io::Result<OpenSegment> {
    let fs = &log.inner.options.filesystem;
    let offset = info.summary.entry_at(seq).map_or(info.data_start, |entry| u64::from(entry.offset));
    let active = log.shared().active.as_ref().filter(|(ordinal, ..)| *ordinal == info.ordinal).cloned();
    if let Some((ordinal, file, origins)) = active {
        return Ok(OpenSegment { ordinal, file, origins: origins.to_vec(), origins_known: false, offset });
    }
    let file = SegmentFile::open(&**fs, &info.path)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "segment header is damaged"))?;
    let mut open = OpenSegment { ordinal: info.ordinal, file, origins: Vec::new(), origins_known: true, offset };
    // One that cannot be read costs the scan of one that is not there.
    match open.file.footer() {
        Ok(Some((_, footer))) => open.origins = footer.known_origins(),
        Err(error) if is_lack(&error) => return Err(error),
        _ => scan_origins(log, &mut open, info)?,
    }
    Ok(open)
}

/// Reads the origins on the way from the start. Those in a place that the device refuses for too long stay unknown.
fn scan_origins(log: &Log, open: &mut OpenSegment, info: &SegmentInfo) -> io::Result<()> {
    let (mut at, end) = (info.data_start, info.data_end);
    while at < end {
        let block = match open.file.readable_block(at, &mut open.origins, end) {
            Ok(block) => block,
            Err(error) => {
                wait_for_device(log, info, at, error)?;
                at = next_readable(&open.file, at, end)?;
                continue;
            }
        };
        at = match block.stop {
            Stop::More => block.next,
            Stop::End => break,
            Stop::Bad => match open.file.resync(block.next, end) {
                Ok(next) => next.unwrap_or(end),
                Err(error) => {
                    wait_for_device(log, info, block.next, error)?;
                    next_readable(&open.file, block.next, end)?
                }
            },
        };
    }
    Ok(())
}

/// While a segment is written, new origins appear in it.
fn refresh_origins(log: &Log, open: &mut OpenSegment) {
    let active = log.shared().active.as_ref().filter(|(ordinal, ..)| *ordinal == open.ordinal).cloned();
    match active {
        Some((_, _, origins)) => open.origins = origins.to_vec(),
        None => {
            if let Ok(Some((_, footer))) = open.file.footer() {
                open.origins = footer.known_origins();
                open.origins_known = true;
            }
        }
    }
}

/// The log's segments and totals at one moment, to count against.
#[derive(Debug)]
pub struct Census {
    segments: Vec<Arc<SegmentInfo>>,
    /// What no file holds.
    memory: Vec<Arc<Frame>>,
    routed: std::collections::BTreeMap<Arc<str>, u64>,
}

impl Census {
    /// Returns all events of a route ever appended.
    pub fn routed_events(&self, route: &str) -> u64 {
        self.routed.get(route).copied().unwrap_or(0)
    }
}

impl Log {
    /// Returns the segments and totals of this moment.
    pub fn census(&self) -> Census {
        let shared = self.shared();
        Census {
            segments: shared.segments.values().cloned().collect(),
            memory: shared.in_memory().cloned().collect(),
            routed: shared.state.totals.routes.clone(),
        }
    }

    /// Counts the events of a route, and their payload bytes, that stand in the log at or above `from` and below `to`, by
    /// scanning masks: whole segments by their counts, the ends frame by frame. Blocks.
    pub fn count_events(&self, census: &Census, route: &str, from: u64, to: u64) -> Result<(u64, u64), ReadError> {
        let mut sum = Tally::default();
        for info in census.segments.iter().filter(|info| info.summary.end_seq > from && info.base_seq < to) {
            let Some(bit) = info.route(route) else { continue };
            let upper = self.tally_to(info, bit, to)?;
            let lower = self.tally_to(info, bit, from)?;
            sum.add(upper.events.saturating_sub(lower.events), upper.bytes.saturating_sub(lower.bytes));
        }
        for frame in census.memory.iter().filter(|frame| frame.end_seq() > from && frame.first_seq < to) {
            let Some(bit) = frame.routes.iter().position(|known| **known == *route) else { continue };
            let below = |seq| {
                let mut tallies = vec![Tally::default(); frame.routes.len()];
                tally_below(frame, seq, &mut tallies);
                tallies.get(bit).copied().unwrap_or_default()
            };
            let (upper, lower) = (below(to), below(from));
            sum.add(upper.events - lower.events, upper.bytes - lower.bytes);
        }
        Ok((sum.events, sum.bytes))
    }

    /// Returns the route's events of one segment below `seq`.
    fn tally_to(&self, info: &Arc<SegmentInfo>, bit: usize, seq: u64) -> Result<Tally, ReadError> {
        if seq >= info.summary.end_seq {
            return Ok(info.summary.tallies.get(bit).copied().unwrap_or_default());
        }
        let Some(entry) = info.summary.entry_at(seq) else { return Ok(Tally::default()) };
        let mut tallies = entry.before.to_vec();
        if entry.seq >= seq {
            return Ok(tallies.get(bit).copied().unwrap_or_default());
        }
        let mut at = entry.seq;
        let mut open = None;
        while at < seq {
            let read = read_disk(self, at, info.summary.end_seq, open.take()).map_err(ReadError::Io)?;
            let Given::Frames(frames) = read.given else { break };
            open = read.open;
            for frame in frames.iter().filter(|frame| frame.first_seq < seq) {
                tally_below(frame, seq, &mut tallies);
            }
            at = frames.last().map_or(seq, |last| last.end_seq());
        }
        Ok(tallies.get(bit).copied().unwrap_or_default())
    }

    /// Returns the time of receipt near the first event at or above `seq`: that of the index entry before it.
    pub fn received_near(&self, seq: u64) -> Option<crate::clock::UnixNanos> {
        let shared = self.shared();
        let info = shared.segments.values().find(|info| info.summary.end_seq > seq)?;
        info.summary.entry_at(seq).map(|entry| entry.received)
    }
}
