//! What a source of files has done, for the metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Figures of a source of files, summed over every pipeline (a file that two pipelines read counts twice).
#[derive(Debug, Default)]
pub struct TailStats {
    /// Events made: lines, joined lines and pieces of lines.
    pub lines: AtomicU64,
    /// Bytes read, of compressed files after decompression.
    pub bytes: AtomicU64,
    /// Lines that are not of their source's form, delivered whole.
    pub malformed: AtomicU64,
    /// Lines joined from more than one part.
    pub partial_joined: AtomicU64,
    /// Lines too long for one event, delivered in pieces.
    pub split_lines: AtomicU64,
    /// Events in which invalid UTF-8 was replaced.
    pub invalid_utf8: AtomicU64,
    /// Files that were cut and begun anew.
    pub truncated: AtomicU64,
    /// Bytes that were read once and then were gone from the end of their file.
    pub lost_tail_bytes: AtomicU64,
    /// Bytes that were deleted before they could be read, as far as their size was known.
    pub missed_bytes: AtomicU64,
    /// Files that were deleted before they were read to their end, while the agent was away.
    pub missed_files: AtomicU64,
    /// Files rotated away.
    pub rotated: AtomicU64,
    /// Failures to open, read or decompress a file.
    pub read_errors: AtomicU64,
    /// Entries that were not opened because they are links or no regular files.
    pub refused_entries: AtomicU64,
    /// Files held open now.
    pub open_files: AtomicU64,
    /// Units followed now: containers, or files.
    pub units: AtomicU64,
    /// Units of which nothing is read yet, now: containers until their pod is told of.
    pub held_units: AtomicU64,
    /// Files that are wanted and not followed, since there are more than may be.
    pub left_out_files: AtomicU64,
    /// Batches that a pipeline refused; they are tried again.
    pub refusals: AtomicU64,
    /// Times the kernel's queue of file events overflowed; each made a full scan.
    pub overflows: AtomicU64,
}

impl TailStats {
    pub(in crate::sources) fn add(counter: &AtomicU64, value: u64) {
        if value > 0 {
            counter.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Adds what one turn counted.
    pub(in crate::sources) fn add_turn(&self, counts: &Counts) {
        Self::add(&self.lines, counts.lines);
        Self::add(&self.bytes, counts.bytes);
        Self::add(&self.malformed, counts.malformed);
        Self::add(&self.partial_joined, counts.partial_joined);
        Self::add(&self.split_lines, counts.split_lines);
        Self::add(&self.invalid_utf8, counts.invalid_utf8);
        Self::add(&self.truncated, counts.truncated);
        Self::add(&self.lost_tail_bytes, counts.lost_tail_bytes);
        Self::add(&self.missed_bytes, counts.missed_bytes);
        Self::add(&self.missed_files, counts.missed_files);
        Self::add(&self.read_errors, counts.read_errors);
    }
}

/// What one tailer adds to the gauges that all share; taken back when it goes.
#[derive(Debug)]
pub(in crate::sources) struct Shares {
    stats: Arc<TailStats>,
    units: u64,
    held_units: u64,
    refused_entries: u64,
    left_out_files: u64,
}

impl Shares {
    pub(in crate::sources) fn new(stats: Arc<TailStats>) -> Self {
        Self { stats, units: 0, held_units: 0, refused_entries: 0, left_out_files: 0 }
    }

    pub(in crate::sources) fn set_units(&mut self, count: usize) {
        replace(&self.stats.units, &mut self.units, count as u64);
    }

    pub(in crate::sources) fn set_held(&mut self, count: usize) {
        replace(&self.stats.held_units, &mut self.held_units, count as u64);
    }

    pub(in crate::sources) fn set_refused_entries(&mut self, count: usize) {
        replace(&self.stats.refused_entries, &mut self.refused_entries, count as u64);
    }

    pub(in crate::sources) fn set_left_out_files(&mut self, count: usize) {
        replace(&self.stats.left_out_files, &mut self.left_out_files, count as u64);
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        self.set_units(0);
        self.set_held(0);
        self.set_refused_entries(0);
        self.set_left_out_files(0);
    }
}

fn replace(gauge: &AtomicU64, told: &mut u64, now: u64) {
    gauge.fetch_add(now, Ordering::Relaxed);
    gauge.fetch_sub(std::mem::replace(told, now), Ordering::Relaxed);
}

/// The counts of one turn of one reader, each the field of [`TailStats`] of that name: plain numbers, so that a
/// line costs no atomic operation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct Counts {
    pub(in crate::sources) lines: u64,
    pub(in crate::sources) bytes: u64,
    pub(in crate::sources) malformed: u64,
    pub(in crate::sources) partial_joined: u64,
    pub(in crate::sources) split_lines: u64,
    pub(in crate::sources) invalid_utf8: u64,
    pub(in crate::sources) truncated: u64,
    pub(in crate::sources) lost_tail_bytes: u64,
    pub(in crate::sources) missed_bytes: u64,
    pub(in crate::sources) missed_files: u64,
    pub(in crate::sources) read_errors: u64,
}
