//! What a delivery has resolved, and how that is written: a fixed part, and behind it what version 1 did not know, by tags.
//!
//! # Guarantees
//! - What a version does not know it skips, and what an earlier one did not write has a meaning of its own.
//!
//! # Limits
//! As many ranges, plans and leftovers as a delivery has; [`crate::deliver::RESOLVED_RANGES_MAX`] bounds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::log::codec::{Get, Put};
use crate::log::resolved;

/// Tags of what stands behind the fixed part of an entry.
const TAG_LEFT: u8 = 1;
const TAG_BEGAN: u8 = 2;
const TAG_ELSEWHERE: u8 = 3;
const TAG_ENCODINGS: u8 = 4;
const TAG_GROUPED: u8 = 5;

/// A batch that was decided before its first attempt, and is finished as it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// First sequence.
    pub first: u64,
    /// Behind the last sequence.
    pub end: u64,
    /// What it is sent under.
    pub key: Arc<str>,
    /// How its bytes are made ([`crate::backend::Traits::encoding`]); 0 where that is not known.
    pub encoding: u64,
}

/// A reference that is not in the settings any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Running time at which it was missed first.
    pub since_ms: u64,
    /// What was appended from here on is not its business.
    pub end_seq: u64,
}

/// Events that their backend left behind while it took others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// First sequence.
    pub first: u64,
    /// Behind the last sequence.
    pub end: u64,
    /// For how long they have been left behind by a backend that was well, in milliseconds.
    pub for_ms: u64,
}

/// What a delivery has resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Everything below is resolved.
    pub cursor: u64,
    /// Resolved ranges `[from, to)` above the cursor, ascending, apart.
    pub resolved: Vec<(u64, u64)>,
    /// Events routed to the route before this delivery began. Negative after a loss of the log's own totals.
    pub routed_before: i64,
    /// Events the backend has.
    pub delivered: u64,
    /// Events it had already.
    pub duplicates: u64,
    /// Events it refused for good.
    pub rejected: u64,
    /// Events given up, by reason.
    pub dropped: BTreeMap<Arc<str>, u64>,
    /// Their payload bytes, by reason, where they are known.
    pub dropped_bytes: BTreeMap<Arc<str>, u64>,
    /// Batches decided and not resolved.
    pub plans: Vec<Plan>,
    /// Where the backend stood at its last commit.
    pub mark: Option<Bytes>,
    /// When the reference was removed; it drains since.
    pub removed: Option<Removed>,
    /// What its backend left behind, by first sequence.
    pub left: Vec<Left>,
    /// Where the delivery began: what lies below is not its business. `None`, not known, where an earlier version saved it.
    pub began: Option<u64>,
    /// Events that another backend of its route got in its place.
    pub elsewhere: u64,
    /// Whether it is one of several of its route of which the first healthy one sends: what it holds is the business of all.
    pub grouped: bool,
}

impl Progress {
    /// Returns the first sequence above everything this knows of.
    pub fn seq_min(&self) -> u64 {
        let ranges = self.resolved.iter().map(|(_, end)| *end);
        let plans = self.plans.iter().map(|plan| plan.end);
        ranges.chain(plans).chain(self.left.iter().map(|left| left.end)).fold(self.cursor, u64::max)
    }

    /// Whether all of `[first, end)` is resolved.
    pub fn has_all(&self, first: u64, end: u64) -> bool {
        let first = first.max(self.cursor);
        let at = self.resolved.partition_point(|(_, to)| *to <= first);
        first >= end || self.resolved.get(at).is_some_and(|(from, to)| *from <= first && end <= *to)
    }

    /// Marks `[from, to)` as resolved and moves the cursor over what is now without a gap.
    pub fn resolve(&mut self, from: u64, to: u64) {
        if to <= from || to <= self.cursor {
            return;
        }
        resolved::add(&mut self.resolved, from.max(self.cursor), to);
        self.cursor = resolved::pass(&mut self.resolved, self.cursor);
    }

    /// Marks ranges `[from, to)`, ascending and apart, as resolved, and moves the cursor: one pass, however many they are.
    pub fn resolve_each(&mut self, ranges: &[(u64, u64)]) {
        let above = &ranges[ranges.partition_point(|(_, to)| *to <= self.cursor)..];
        resolved::add_each(&mut self.resolved, above);
        self.cursor = resolved::pass(&mut self.resolved, self.cursor);
    }

    /// Returns how many events came to an end here, not elsewhere.
    pub fn outcomes(&self) -> u64 {
        self.delivered + self.duplicates + self.rejected + self.dropped.values().sum::<u64>()
    }

    /// Counts events as given up.
    pub fn drop_events(&mut self, reason: &str, events: u64, bytes: u64) {
        if events > 0 {
            *self.dropped.entry(reason.into()).or_default() += events;
            *self.dropped_bytes.entry(reason.into()).or_default() += bytes;
        }
    }

    /// Returns whether any of `seqs`, ascending, is resolved: one pass over the ranges they lie among.
    pub fn is_any_resolved(&self, seqs: &[u64]) -> bool {
        let Some(first) = seqs.first() else { return false };
        let mut ranges = self.resolved[self.resolved.partition_point(|(_, end)| end <= first)..].iter().peekable();
        *first < self.cursor
            || seqs.iter().any(|seq| {
                while ranges.next_if(|(_, end)| end <= seq).is_some() {}
                ranges.peek().is_some_and(|(start, _)| start <= seq)
            })
    }

    /// Returns whether an event is resolved.
    pub fn is_resolved(&self, seq: u64) -> bool {
        // Above all that is resolved stands most of what is asked about.
        if self.resolved.last().is_none_or(|(_, end)| *end <= seq) {
            return seq < self.cursor;
        }
        seq < self.cursor || {
            let at = self.resolved.partition_point(|(_, end)| *end <= seq);
            self.resolved.get(at).is_some_and(|(start, _)| *start <= seq)
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for number in [self.cursor, self.routed_before as u64, self.delivered, self.duplicates, self.rejected] {
            out.put_u64(number);
        }
        out.put_u64(self.removed.map_or(u64::MAX, |removed| removed.since_ms));
        out.put_u64(self.removed.map_or(0, |removed| removed.end_seq));
        out.put_u32(self.resolved.len() as u32);
        for (from, to) in &self.resolved {
            out.put_u64(*from);
            out.put_u64(*to);
        }
        for counts in [&self.dropped, &self.dropped_bytes] {
            out.put_u32(counts.len() as u32);
            for (reason, count) in counts {
                out.put_bytes(reason.as_bytes());
                out.put_u64(*count);
            }
        }
        out.put_u32(self.plans.len() as u32);
        for plan in &self.plans {
            out.put_u64(plan.first);
            out.put_u64(plan.end);
            out.put_bytes(plan.key.as_bytes());
        }
        out.push(u8::from(self.mark.is_some()));
        out.put_bytes(self.mark.as_deref().unwrap_or_default());
    }

    /// Appends what version 1 did not know.
    pub(super) fn write_tags(&self, out: &mut Vec<u8>) {
        if !self.left.is_empty() {
            out.push(TAG_LEFT);
            out.put_u32(4 + 24 * self.left.len() as u32);
            out.put_u32(self.left.len() as u32);
            for left in &self.left {
                [left.first, left.end, left.for_ms].into_iter().for_each(|number| out.put_u64(number));
            }
        }
        if self.plans.iter().any(|plan| plan.encoding != 0) {
            out.push(TAG_ENCODINGS);
            out.put_u32(8 * self.plans.len() as u32);
            self.plans.iter().for_each(|plan| out.put_u64(plan.encoding));
        }
        for (tag, number) in [(TAG_BEGAN, self.began), (TAG_ELSEWHERE, Some(self.elsewhere))] {
            let Some(number) = number else { continue };
            out.push(tag);
            out.put_bytes(&number.to_le_bytes());
        }
        if self.grouped {
            out.push(TAG_GROUPED);
            out.put_bytes(b"");
        }
    }

    /// Reads what version 1 did not know; a tag it does not know itself is skipped.
    pub(super) fn read_tags(&mut self, mut tags: Get<'_>) -> Option<()> {
        while !tags.0.is_empty() {
            let (tag, mut get) = (tags.u8()?, Get(tags.bytes()?));
            match tag {
                TAG_LEFT => self.left = read_left(&mut get)?,
                TAG_BEGAN => self.began = Some(get.u64()?),
                TAG_ELSEWHERE => self.elsewhere = get.u64()?,
                TAG_GROUPED => self.grouped = true,
                TAG_ENCODINGS => {
                    for plan in &mut self.plans {
                        plan.encoding = get.u64()?;
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    pub(super) fn read(get: &mut Get<'_>) -> Option<Self> {
        let mut progress = Self {
            cursor: get.u64()?,
            routed_before: get.i64()?,
            delivered: get.u64()?,
            duplicates: get.u64()?,
            rejected: get.u64()?,
            removed: Some(Removed { since_ms: get.u64()?, end_seq: get.u64()? }).filter(|at| at.since_ms != u64::MAX),
            ..Self::default()
        };
        for _ in 0..get.count(16)? {
            progress.resolved.push((get.u64()?, get.u64()?));
        }
        for counts in [&mut progress.dropped, &mut progress.dropped_bytes] {
            for _ in 0..get.count(12)? {
                let reason: Arc<str> = get.text()?.into();
                counts.insert(reason, get.u64()?);
            }
        }
        for _ in 0..get.count(20)? {
            progress.plans.push(Plan { first: get.u64()?, end: get.u64()?, key: get.text()?.into(), encoding: 0 });
        }
        let some = get.u8()? == 1;
        progress.mark = some.then_some(Bytes::copy_from_slice(get.bytes()?));
        Some(progress)
    }
}

fn read_left(get: &mut Get<'_>) -> Option<Vec<Left>> {
    (0..get.count(24)?).map(|_| Some(Left { first: get.u64()?, end: get.u64()?, for_ms: get.u64()? })).collect()
}
