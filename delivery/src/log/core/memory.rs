//! What is accepted and in no file: the frames of a log at level `Memory`.
//!
//! A frame is **held** from its acceptance on. It leaves memory in one of two ways, oldest first, so that what a file holds
//! is always a run without a hole but for what everybody has:
//! - **passed**: every delivery has come behind it for good. Its totals, position and key go into the state; its events are
//!   never written.
//! - **spilled**: written and synced in one go, because memory is at its bound, because the log ends, or because an edit
//!   asks for a level that promises more.
//!
//! # Guarantees
//! - Where frames were passed, the next frame that is written begins a segment: its header holds what they did to the state.
//!   So a position or a key is never durable ahead of events that are neither delivered nor durable.
//! - A spill that fails leaves the frames in memory under the sequences they have; readers see them all the time.
//! - [`LogCore::memory_bytes_max`] holds, but for one group or one frame that is larger.
//!
//! # Must not know
//! Who reads, and how far: it is told one sequence.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::LogCore;
use crate::log::frame::Frame;
use crate::log::{CHECKPOINT_PERIOD, MEMORY_BYTES_MAX};
use crate::settings::Durability;

/// Frames that no file holds, oldest first.
#[derive(Debug, Default)]
pub(super) struct Held {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    disk_bytes: u64,
    spilled: Spilled,
    /// Whether frames were passed since the last header.
    passed_any: bool,
    /// Whether one of them moved a position.
    positions_moved: bool,
}

/// What was spilled since the open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::log) struct Spilled {
    pub(in crate::log) frames: u64,
    pub(in crate::log) bytes: u64,
}

impl Spilled {
    fn add(&mut self, frame: &Frame) {
        self.frames += 1;
        self.bytes += frame.payload.len() as u64;
    }

    /// A frame may be taken back that an earlier level had written.
    fn remove(&mut self, frame: &Frame) {
        self.frames = self.frames.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(frame.payload.len() as u64);
    }
}

impl Held {
    /// Returns the oldest frames, at least `bytes` of them where there are so many.
    fn oldest(&self, bytes: usize) -> Vec<Arc<Frame>> {
        let mut chosen: usize = 0;
        let is_wanted = |frame: &&Arc<Frame>| {
            let wanted = chosen < bytes;
            chosen += frame.memory_bytes();
            wanted
        };
        self.frames.iter().take_while(is_wanted).cloned().collect()
    }

    pub(super) fn push(&mut self, frame: Arc<Frame>) {
        self.bytes += frame.memory_bytes();
        self.disk_bytes += frame.disk_bytes();
        self.frames.push_back(frame);
    }

    /// Takes back what was to be written, in its old order.
    fn put_back(&mut self, frames: impl DoubleEndedIterator<Item = Arc<Frame>>) {
        for frame in frames.rev() {
            self.bytes += frame.memory_bytes();
            self.disk_bytes += frame.disk_bytes();
            self.frames.push_front(frame);
        }
    }

    fn pop(&mut self) -> Option<Arc<Frame>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.memory_bytes();
        self.disk_bytes -= frame.disk_bytes();
        Some(frame)
    }

    pub(super) fn front(&self) -> Option<&Arc<Frame>> {
        self.frames.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Frame>> {
        self.frames.iter()
    }

    /// Whether the next frame that is written must begin a segment.
    pub(super) fn needs_header(&self) -> bool {
        self.passed_any
    }

    /// Notes that a header was written with the state as it is.
    pub(super) fn header_written(&mut self) {
        self.passed_any = false;
        self.positions_moved = false;
    }
}

impl LogCore {
    /// Returns the first sequence that no file holds.
    pub(in crate::log) fn memory_start(&self) -> u64 {
        self.held.front().map_or(self.next_seq, |frame| frame.first_seq)
    }

    /// Returns the bytes of memory that held frames take.
    pub(in crate::log) fn memory_bytes(&self) -> usize {
        self.held.bytes
    }

    /// Returns the bytes that held frames would take on disk.
    pub(in crate::log) fn memory_disk_bytes(&self) -> u64 {
        self.held.disk_bytes
    }

    /// Returns what was spilled since the open.
    pub(in crate::log) fn spilled(&self) -> Spilled {
        self.held.spilled
    }

    /// Most bytes of memory for held frames: [`MEMORY_BYTES_MAX`], less for logs with a small quota (a quarter of it).
    pub(in crate::log) fn memory_bytes_max(&self) -> usize {
        MEMORY_BYTES_MAX.min(usize::try_from(self.options.bytes_max / 4).unwrap_or(usize::MAX))
    }

    /// Returns how many bytes of frames must be spilled before so many more may be held. Half the bound is made free at
    /// once, so that a reader that stays behind costs one sync per so many bytes.
    pub(in crate::log) fn to_spill(&self, incoming: usize) -> usize {
        let (held, max) = (self.held.bytes, self.memory_bytes_max());
        if self.options.durability != Durability::Memory {
            return held;
        }
        if held + incoming <= max { 0 } else { (held + incoming - max / 2).min(held) }
    }

    /// Whether it is time to write down where the live positions stand, so that a crash makes sources read again what they
    /// read since the last time, and not more.
    pub(in crate::log) fn checkpoint_due(&self, since_open: Duration) -> bool {
        self.held.positions_moved
            && self.running_ms(since_open) >= self.header_ms + CHECKPOINT_PERIOD.as_millis() as u64
    }

    /// Whether frames were passed that no file knows of.
    pub(in crate::log) fn passed_any(&self) -> bool {
        self.held.passed_any
    }

    /// Whether positions moved that no file knows of.
    pub(in crate::log) fn positions_moved(&self) -> bool {
        self.held.positions_moved
    }

    /// Lets go of frames that every delivery has passed for good: those that end at or below `low`. Returns whether there
    /// were any.
    pub fn pass(&mut self, low: u64) -> bool {
        // What was written before them and is not synced comes first into the state.
        if !self.unsynced.is_empty() {
            return false;
        }
        let mut any = false;
        while self.held.front().is_some_and(|frame| frame.end_seq() <= low) {
            let Some(frame) = self.held.pop() else { break };
            let tallies = frame.tallies();
            self.base.apply(&frame, &tallies);
            self.held.positions_moved |= frame.position.is_some();
            any = true;
        }
        if any {
            self.held.passed_any = true;
            self.base_seq = self.memory_start();
        }
        any
    }

    /// Writes the oldest held frames, at least `bytes` of them, and syncs. On failure what did not get into a file is held
    /// as before.
    pub fn spill(&mut self, bytes: usize, since_open: Duration) -> io::Result<()> {
        let running_ms = self.running_ms(since_open);
        self.mend(running_ms)?;
        let (mut written, mut result) = (Spilled::default(), Ok(()));
        let frames = self.held.oldest(bytes);
        let mut rest = frames.as_slice();
        while !rest.is_empty() && result.is_ok() {
            match self.write_some(rest, running_ms, &mut Vec::new()) {
                Ok(count) => {
                    let (done, left) = rest.split_at(count.min(rest.len()));
                    done.iter().for_each(|frame| written.add(frame));
                    (0..done.len()).for_each(|_| drop(self.held.pop()));
                    rest = left;
                }
                Err(error) => result = Err(error),
            }
        }
        let result = self.sync_at(running_ms).and(result);
        if self.active.is_none() {
            // They are in no file that counts, and there is none to write them to.
            let unwritten: Vec<_> = self.unsynced.drain(..).map(|(frame, _)| frame).collect();
            self.unsynced_bytes = 0;
            unwritten.iter().for_each(|frame| written.remove(frame));
            self.held.put_back(unwritten.into_iter());
        }
        self.held.spilled.frames += written.frames;
        self.held.spilled.bytes += written.bytes;
        result
    }

    /// Writes the state as it is, held frames left out: at the end of the log, and when [`Self::checkpoint_due`].
    pub fn checkpoint(&mut self, since_open: Duration) -> io::Result<()> {
        if self.held.passed_any { self.turn_over(self.running_ms(since_open)) } else { Ok(()) }
    }

    /// Writes everything that is held, and the state, and seals. Returns how many events only memory has after a failure.
    pub fn close(&mut self, since_open: Duration) -> Result<(), (io::Error, u64)> {
        let written = self.spill(usize::MAX, since_open).and_then(|()| self.checkpoint(since_open));
        let closed = written.and_then(|()| self.seal(since_open));
        closed.map_err(|error| (error, self.held.iter().map(|frame| frame.len() as u64).sum()))
    }
}
