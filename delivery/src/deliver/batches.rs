//! Ranges of the log become batches.
//!
//! A [`Work`] is a range of sequences `[first, end)`; its members are the events of the route in there that are not
//! resolved. Ranges tile the log: each begins where the one before ended, so that resolved ranges merge into the cursor
//! whatever lies between.
//!
//! # Limits
//! A batch keeps at most twice its bytes in memory, however few of the events that were read are its members: those of a
//! read that are less than half of it are copied. [`SCAN_BYTES_MAX`] are looked at in one go; whoever forms batches then
//! gets to look at its orders.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::backend::{OutBatch, OutBatchBuilder};
use crate::log::{Frame, Log, LogReader, Progress, ReadError};
use crate::settings::PipelineSettings;

use super::dead_letters::Selection;
use super::jobs::{Job, JobKind};

mod letters;

/// Most bytes of events that are looked at in one go, whether they are members or not: some tens of milliseconds.
const SCAN_BYTES_MAX: usize = 16 << 20;

/// For how long events have been left behind by a backend that was well and took others.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeftFor {
    pub(super) counted: Duration,
    /// Up to when it is counted.
    pub(super) seen: Instant,
}

impl LeftFor {
    /// Counts on to the end of `well`, the time up to now in which the backend was well; what of it was counted counts once.
    pub(super) fn count(&mut self, well: Option<(Instant, Instant)>) {
        if let Some((since, until)) = well {
            self.counted += until.saturating_duration_since(since.max(self.seen));
            self.seen = self.seen.max(until);
        }
    }
}

/// A range of the log to be sent under one key.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) key: Arc<str>,
    pub(super) attempts: u32,
    /// For how long siblings of its members are taken and they are not.
    pub(super) left: Option<LeftFor>,
    /// When it may be tried again, apart from what the breaker says.
    pub(super) not_before: Option<Instant>,
    /// When the destination answered last that it takes nothing of it: others are tried in between.
    pub(super) refused_at: Option<Instant>,
    /// Attempts in a row that had no answer in time.
    pub(super) timeouts: u32,
    /// The members' sequences, in order; known once it was read.
    pub(super) members: Vec<u64>,
    /// Its batch, where it is kept in memory.
    pub(super) kept: Option<Box<Kept>>,
}

/// The batch of a range that waits in memory to be sent again.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) batch: OutBatch,
    pub(super) members: Vec<u64>,
    /// Bytes of the budget, given back with it.
    pub(super) _share: OwnedSemaphorePermit,
}

impl Work {
    /// Returns a range that was begun before.
    pub(super) fn again(first: u64, end: u64, key: Arc<str>) -> Self {
        Self {
            first,
            end,
            key,
            attempts: 0,
            left: None,
            not_before: None,
            refused_at: None,
            timeouts: 0,
            members: Vec::new(),
            kept: None,
        }
    }

    /// Takes the batch that was kept, unless any of its events was resolved since: then what is left is another batch.
    pub(super) fn take_kept(&mut self, progress: &Progress) -> Option<OutBatch> {
        let kept = self.kept.take()?;
        if kept.batch.key() != &*self.key || progress.is_any_resolved(&kept.members) {
            return None;
        }
        let Kept { batch, members, .. } = *kept;
        self.members = members;
        Some(batch)
    }
}

/// How large a batch may be now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) bytes: usize,
    pub(super) events: usize,
    /// Send what there is, do not wait for more.
    pub(super) now: bool,
}

/// Who the batches are of, and which events of the log they are made of.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) namespace: Arc<str>,
    pub(super) pipeline: Arc<str>,
    pub(super) route: Arc<str>,
    /// The letters meant, where the log is one of dead letters; else the events of the route.
    pub(super) letters: Option<Arc<Selection>>,
    /// Ends every key: what tells the batches of a job from those of deliveries.
    pub(super) tag: Arc<str>,
}

impl Names {
    pub(super) fn new(settings: &PipelineSettings, route: &Arc<str>) -> Self {
        Self {
            namespace: settings.namespace.clone(),
            pipeline: settings.name.clone(),
            route: route.clone(),
            letters: None,
            tag: "".into(),
        }
    }

    pub(super) fn of_job(settings: &PipelineSettings, job: &Job) -> Self {
        let letters = (job.kind == JobKind::Redrive).then(|| Arc::new(job.selection.clone()));
        Self { letters, tag: format!("-job-{}", job.id).into(), ..Self::new(settings, &job.route) }
    }

    fn builder(&self) -> OutBatchBuilder {
        OutBatchBuilder::new(&self.namespace, &self.pipeline, &self.route)
    }
}

/// What forming gave.
pub(super) enum Formed {
    /// A batch to send.
    Batch(Box<(Work, OutBatch)>),
    /// A range without members: resolved as it is.
    Nothing(u64, u64),
    /// Not enough yet: look again when there is more to look at, or when [`Former::ripe_at`] has come.
    Wait,
}

/// Forms new batches from where the delivery reads.
#[derive(Debug)]
pub(super) struct Former {
    names: Names,
    reader: LogReader,
    frames: VecDeque<Arc<Frame>>,
    /// Next sequence to look at.
    at: u64,
    /// Where the range being formed begins.
    first: u64,
    /// What stands here and above is not looked at.
    end: u64,
    /// It reads nothing, and keeps nothing in memory.
    parked: bool,
    forming: Option<(OutBatchBuilder, Vec<u64>, Instant, u64)>,
    read: Read,
}

/// What was read last, and how many chunks of the batch being formed came before it.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    bytes: usize,
    chunks_before: usize,
}

impl Read {
    fn of(frames: &[Arc<Frame>], builder: Option<&OutBatchBuilder>) -> Self {
        let bytes = frames.iter().map(|frame| frame.payload.len()).sum();
        Self { bytes, chunks_before: builder.map_or(0, OutBatchBuilder::chunk_count) }
    }

    /// Lets go of what was read where few of its events are in the batch.
    fn unpin(self, builder: &mut OutBatchBuilder) {
        builder.unpin(self.chunks_before, self.bytes);
    }
}

impl Former {
    pub(super) fn new(names: Names, log: &Log, from: u64, end: u64) -> Self {
        Self {
            names,
            reader: log.reader(from),
            frames: VecDeque::new(),
            at: from,
            first: from,
            end,
            parked: false,
            forming: None,
            read: Read::default(),
        }
    }

    /// Waits for something to read.
    ///
    /// # Cancel safety
    /// May be cancelled at any time.
    pub(super) async fn wait(&mut self) {
        if self.at >= self.end {
            std::future::pending::<()>().await;
        }
        self.unpark();
        self.reader.wait().await;
    }

    /// Returns when the batch being formed has waited long enough.
    pub(super) fn ripe_at(&self, wait_max: Duration) -> Option<Instant> {
        self.forming.as_ref().map(|(_, _, since, _)| *since + wait_max)
    }

    /// Forgets what is being formed, to begin again at its first sequence with other bounds.
    pub(super) fn restart(&mut self) {
        self.forming = None;
        self.read = Read::default();
        self.frames.clear();
        self.at = self.first;
        self.parked = false;
        self.reader.seek(self.first);
    }

    /// Reads nothing until it is asked for something.
    pub(super) fn park(&mut self) {
        if !self.parked {
            self.restart();
            self.reader.seek(u64::MAX);
            self.parked = true;
        }
    }

    fn unpark(&mut self) {
        if self.parked {
            self.restart();
        }
    }

    /// Returns whether there is something to look at now.
    pub(super) fn has_more(&self) -> bool {
        self.at < self.end && (!self.frames.is_empty() || self.reader.has_more())
    }

    /// Returns where the range being formed begins: what lies before it was begun.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Begins anew at `seq`.
    pub(super) fn rewind(&mut self, seq: u64) {
        self.first = seq;
        self.restart();
    }

    /// Reads on until a batch is full, nothing more is there, or much was looked at.
    pub(super) async fn form(
        &mut self,
        bounds: Bounds,
        wait_max: Duration,
        skip: &Progress,
    ) -> Result<Formed, ReadError> {
        self.unpark();
        let mut scanned = 0;
        loop {
            if self.frames.is_empty() {
                self.let_go_of_read();
                if !self.reader.has_more() || self.at >= self.end || scanned >= SCAN_BYTES_MAX {
                    return Ok(self.ripe(bounds, wait_max));
                }
                match self.reader.read().await {
                    Ok(frames) => {
                        self.read = Read::of(&frames, self.forming.as_ref().map(|(builder, ..)| builder));
                        scanned += self.read.bytes;
                        self.frames.extend(frames);
                    }
                    // What stands before a place that cannot be read goes its way.
                    Err(_) if self.forming.is_some() => return Ok(self.give()),
                    Err(error) => return Err(error),
                }
                if self.frames.is_empty() {
                    self.at = self.reader.seq().min(self.end);
                    return Ok(self.ripe(bounds, wait_max));
                }
            }
            let Some(frame) = self.frames.front().cloned() else { continue };
            if self.take_from(&frame, bounds, skip) {
                return Ok(self.give());
            }
            self.frames.pop_front();
            self.at = self.at.max(frame.end_seq().min(self.end));
            if self.frames.is_empty() && !self.reader.has_more() {
                self.at = self.at.max(self.reader.seq().min(self.end));
            }
        }
    }

    fn let_go_of_read(&mut self) {
        let read = std::mem::take(&mut self.read);
        if let Some((builder, ..)) = &mut self.forming {
            read.unpin(builder);
        }
    }

    /// Adds a frame's members; returns whether the batch is full.
    fn take_from(&mut self, frame: &Arc<Frame>, bounds: Bounds, skip: &Progress) -> bool {
        if let Some(selection) = self.names.letters.clone() {
            return self.take_letters(&selection, frame, bounds, skip);
        }
        let bit = frame.bit(&self.names.route);
        if bit == 0 {
            return false;
        }
        let mut begun = false;
        for index in self.at.saturating_sub(frame.first_seq) as usize..frame.len() {
            let seq = frame.first_seq + index as u64;
            if seq >= self.end {
                break;
            }
            if frame.masks.get(index) & bit == 0 || skip.is_resolved(seq) {
                continue;
            }
            let (start, end) = frame.span(index);
            let size = (end - start) as usize;
            let (builder, members, _, _) = self
                .forming
                .get_or_insert_with(|| (self.names.builder(), Vec::new(), Instant::now(), frame.incarnation));
            let full = builder.len() >= bounds.events || builder.payload_bytes() + size > bounds.bytes;
            if full && !builder.is_empty() {
                self.at = seq;
                return true;
            }
            if !begun {
                builder.begin_chunk(frame.payload.clone(), frame.origin.clone(), frame.incarnation, frame.received);
                begun = true;
            }
            builder.push(seq, start, end);
            members.push(seq);
        }
        false
    }

    fn ripe(&mut self, bounds: Bounds, wait_max: Duration) -> Formed {
        match &self.forming {
            None if self.at > self.first => {
                let first = std::mem::replace(&mut self.first, self.at);
                Formed::Nothing(first, self.at)
            }
            None => Formed::Wait,
            Some((_, _, since, _)) if !bounds.now && since.elapsed() < wait_max => Formed::Wait,
            Some(_) => self.give(),
        }
    }

    fn give(&mut self) -> Formed {
        let read = self.read;
        self.let_go_of_read();
        // What of it is left goes into the next one.
        self.read = Read { chunks_before: 0, ..read };
        let first = std::mem::replace(&mut self.first, self.at);
        match self.forming.take() {
            None => Formed::Nothing(first, self.at),
            Some((builder, members, _, incarnation)) => {
                let key = key_of(&self.names, incarnation, &members);
                let work = Work { members, ..Work::again(first, self.at, key.clone()) };
                Formed::Batch(Box::new((work, builder.build(key))))
            }
        }
    }
}

/// Names a batch: the incarnation of its first event, its first and its last sequence, and how many members it has. Unique:
/// a sequence never comes back, members are what is not resolved in between, and what is resolved only grows. First and
/// number alone would not do: what is left of a batch of 1000, filled up by the next process, begins alike and is as long.
fn key_of(names: &Names, incarnation: u64, members: &[u64]) -> Arc<str> {
    let (first, last) = (members.first().copied().unwrap_or(0), members.last().copied().unwrap_or(0));
    format!("{incarnation:016x}-{first:x}-{last:x}-{:x}-{}{}", members.len(), names.route, names.tag).into()
}

/// Names a range that was begun before, and whose name is not known.
pub(super) fn key_again(names: &Names, incarnation: u64, (first, end): (u64, u64), what: &str) -> Arc<str> {
    format!("{incarnation:016x}-{first:x}-{end:x}-{what}-{}{}", names.route, names.tag).into()
}

/// Reads a range again and makes its batch: the members are those of the route that are not resolved.
pub(super) async fn rebuild(
    names: &Names,
    log: &Log,
    work: &mut Work,
    progress: &Progress,
) -> Result<Option<OutBatch>, ReadError> {
    let mut reader = log.reader(work.first);
    let mut builder = names.builder();
    let mut members = Vec::new();
    while reader.seq() < work.end {
        let frames = reader.read().await?;
        if frames.is_empty() {
            break;
        }
        let read = Read::of(&frames, Some(&builder));
        for frame in frames.iter().filter(|frame| frame.first_seq < work.end) {
            let range = (work.first, work.end);
            match &names.letters {
                None => add_members(frame, range, &names.route, progress, &mut builder, &mut members),
                Some(selection) => {
                    letters::add_letters(frame, range, (selection, progress), (&mut builder, &mut members));
                }
            }
        }
        read.unpin(&mut builder);
    }
    work.members = members;
    Ok((!builder.is_empty()).then(|| builder.build(work.key.clone())))
}

#[expect(clippy::too_many_arguments, reason = "one loop body of `rebuild`, kept apart for its depth")]
fn add_members(
    frame: &Arc<Frame>,
    (first, end): (u64, u64),
    route: &str,
    progress: &Progress,
    builder: &mut OutBatchBuilder,
    members: &mut Vec<u64>,
) {
    let bit = frame.bit(route);
    if bit == 0 {
        return;
    }
    let mut begun = false;
    for index in first.saturating_sub(frame.first_seq) as usize..frame.len() {
        let seq = frame.first_seq + index as u64;
        if seq >= end {
            break;
        }
        if frame.masks.get(index) & bit != 0 && !progress.is_resolved(seq) {
            if !begun {
                builder.begin_chunk(frame.payload.clone(), frame.origin.clone(), frame.incarnation, frame.received);
                begun = true;
            }
            let (start, stop) = frame.span(index);
            builder.push(seq, start, stop);
            members.push(seq);
        }
    }
}

/// Halves a range between its members; `None` when it has one member only.
pub(super) fn halve(work: &Work) -> Option<(Work, Work)> {
    let middle = work.members.len() / 2;
    let split = *work.members.get(middle).filter(|_| middle > 0)?;
    let half = |first, end, members: &[u64], side: &str| Work {
        first,
        end,
        key: format!("{}{side}", work.key).into(),
        attempts: work.attempts,
        left: work.left,
        not_before: work.not_before,
        refused_at: work.refused_at,
        timeouts: 0,
        members: members.to_vec(),
        kept: None,
    };
    let (left, right) = work.members.split_at(middle);
    Some((half(work.first, split, left, "l"), half(split, work.end, right, "r")))
}

#[cfg(test)]
mod tests;
