//! From lines of a file to events: parts are joined, long lines are cut, text is escaped. Knows no files.
//!
//! A whole line goes from the read buffer into the batch in one pass. A line in parts is held, per stream, until its
//! last part; a line whose event would be larger than [`EVENT_BYTES_MAX`] goes out in pieces, each with a member
//! `"partial":{"index":n,"last":false}`, and nothing of it is lost. A line that no runtime writes is an event too: the
//! whole line is its message, the time of reading its time, and it has no stream. Whole lines that belong together are
//! joined behind that ([`join`](super::join)), for a pipeline that wants it.
//!
//! Limits: text held for one line at most [`PIECE_BYTES_MAX`] and one chunk; over all lines of the process
//! [`GROUP_BYTES_MAX`] and one chunk, above which a growing line goes out in smaller pieces.

use std::fmt;
use std::marker::PhantomData;

use memchr::{memchr, memchr_iter};
use spillway_delivery::event::EVENT_BYTES_MAX;
use tokio::time::Instant;

use super::join::{Joiner, Start};
use super::position::GroupMark;
use super::sink::Sink;

/// Most bytes of escaped text in one event: an event less its frame. The frame is 12 + 10 + 35 + 12 + 8 + 44 = 121 bytes
/// at most (`{"message":"`, `","time":"`, a time, `","stream":"`, `stderr"}`, the member `partial`).
pub(in crate::sources) const PIECE_BYTES_MAX: usize = EVENT_BYTES_MAX - 128 - MEMBERS_BYTES_MAX;

/// Text that fits one event whatever it holds: each byte escapes to six at most.
const DIRECT_BYTES_MAX: usize = PIECE_BYTES_MAX / 6;

/// Most bytes of unfinished lines held over all files: eight of the longest.
pub(in crate::sources) const GROUP_BYTES_MAX: usize = 8 << 20;

/// Most bytes of the members that every event of a unit has besides its own.
pub(in crate::sources) const MEMBERS_BYTES_MAX: usize = 1_024;

/// Most bytes of a time stamp: `2026-01-01T01:01:01.000000001+02:00` has 35.
pub(in crate::sources) const TIME_BYTES_MAX: usize = 35;

/// Where a line belongs: its parts are joined per slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::sources) enum Slot {
    /// Standard output.
    Stdout = 0,
    /// Standard error.
    Stderr = 1,
    /// A line that is of neither.
    Other = 2,
}

impl Slot {
    /// Every slot, by its number.
    pub(in crate::sources) const ALL: [Slot; 3] = [Slot::Stdout, Slot::Stderr, Slot::Other];
}

/// A line, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct Line<'a> {
    /// Its time, RFC 3339.
    pub(in crate::sources) time: &'a [u8],
    /// `stdout`, `stderr` or neither.
    pub(in crate::sources) slot: Slot,
    /// Whether the line goes on in the next of its stream.
    pub(in crate::sources) partial: bool,
    /// What was written.
    pub(in crate::sources) text: &'a [u8],
}

/// What a line of a file is.
pub(in crate::sources) trait Form: fmt::Debug + Default + Send + 'static {
    /// Takes a line apart that is read at `read_at`, `None` when it is none of this form.
    fn parse<'a>(line: &'a [u8], read_at: &'a [u8]) -> Option<Line<'a>>;
}

/// Which lines a reader sees again after a restart: those before `until` count only for unfinished lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct Replay {
    /// Whether the file before is being read again.
    pub(in crate::sources) in_previous: bool,
    /// Where unread lines begin, in the file the position named.
    pub(in crate::sources) until: u64,
    /// Where each slot's unfinished line begins, and whether in the file before.
    pub(in crate::sources) starts: [Option<(bool, u64)>; 3],
}

impl Replay {
    fn wants(&self, slot: Slot, at: u64) -> bool {
        match self.starts[slot as usize] {
            Some((in_previous, start)) if in_previous == self.in_previous => at >= start,
            Some((in_previous, _)) => in_previous,
            None => false,
        }
    }

    fn covers(&self, at: u64) -> bool {
        self.in_previous || at < self.until
    }

    /// Returns from where on lines of `slot` have yet to be seen again, when all before `offset` was.
    fn rest(&self, slot: Slot, offset: u64) -> Option<Start> {
        let (in_previous, start) = self.starts[slot as usize]?;
        if self.in_previous && !in_previous {
            return Some(Start { at: start, in_previous });
        }
        let from = if self.in_previous == in_previous { offset.max(start) } else { offset };
        self.covers(offset).then_some(Start { at: from, in_previous: self.in_previous })
    }
}

/// Returns whether the file before is being read again.
fn reads_previous(replay: Option<Replay>) -> bool {
    replay.is_some_and(|replay| replay.in_previous)
}

/// An unfinished line.
#[derive(Debug, Default)]
struct Group {
    start: u64,
    in_previous: bool,
    parts: u32,
    time: Vec<u8>,
    text: Vec<u8>,
    emitted: u64,
    skip: u64,
    index: u32,
}

/// A line of the file longer than one read: its beginning was taken, its end was not seen yet.
#[derive(Debug, Clone, Copy)]
struct LongLine {
    start: u64,
    slot: Slot,
    ends_group: bool,
    ignored: bool,
}

/// Joins and cuts the lines of one unit for one pipeline.
#[derive(Debug, Default)]
pub(in crate::sources) struct Assembler<F> {
    groups: [Option<Box<Group>>; 3],
    /// Joins the lines that are whole.
    joiner: Option<Box<Joiner>>,
    long: Option<LongLine>,
    /// Set while lines are seen again after a restart.
    pub(in crate::sources) replay: Option<Replay>,
    form: PhantomData<F>,
}

impl<F: Form> Assembler<F> {
    /// Returns one that has taken nothing, whose whole lines go through `joiner`.
    pub(in crate::sources) fn joining(joiner: Option<Joiner>) -> Self {
        Self { joiner: joiner.map(Box::new), ..Self::default() }
    }

    /// Returns one that works alike and has taken nothing.
    pub(in crate::sources) fn anew(&self) -> Self {
        Self::joining(self.joiner.as_ref().map(|joiner| joiner.anew()))
    }

    /// Returns how many bytes of unfinished lines and open groups are held.
    pub(in crate::sources) fn held_bytes(&self) -> usize {
        let open = self.joiner.as_ref().map_or(0, |joiner| joiner.held_bytes());
        self.groups.iter().flatten().map(|group| group.text.len()).sum::<usize>() + open
    }

    /// Returns when an open group is closed if nothing follows.
    pub(in crate::sources) fn due(&self) -> Option<Instant> {
        self.joiner.as_ref()?.due()
    }

    /// Closes groups that waited long enough. Everything that is there was read, up to `offset`. Not while lines are seen again:
    /// of a group those that were not yet would follow as another.
    pub(in crate::sources) fn end_due(&mut self, offset: u64, sink: &mut Sink<'_>) {
        if self.replay.is_some_and(|replay| !replay.covers(offset)) {
            self.end_replay();
        }
        if let (Some(joiner), None) = (&mut self.joiner, self.replay) {
            joiner.end_due(sink);
        }
    }

    /// Closes every group: of the lines behind it some are gone.
    pub(in crate::sources) fn end_groups(&mut self, sink: &mut Sink<'_>) {
        if let Some(joiner) = &mut self.joiner {
            joiner.end_all(sink);
        }
    }

    /// Tells that everything was seen again, or is gone.
    pub(in crate::sources) fn end_replay(&mut self) {
        self.replay = None;
        for group in &mut self.groups {
            // Of a stream that was marked for its lines alone, of which there were no more.
            group.take_if(|group| group.parts == 0 && group.emitted == 0);
        }
    }

    /// Takes the whole lines of `data`, which begins at `base` of the file; returns how many bytes it took.
    pub(in crate::sources) fn take_lines(&mut self, data: &[u8], base: u64, sink: &mut Sink<'_>) -> usize {
        let mut at = 0;
        if let Some(long) = self.long {
            let Some(end) = memchr(b'\n', data) else {
                self.grow(long, data, sink);
                return data.len();
            };
            self.grow(long, &data[..end], sink);
            self.end_long_line(sink);
            at = end + 1;
        }
        let first = at;
        for end in memchr_iter(b'\n', &data[first..]) {
            let end = first + end;
            self.take_line(&data[at..end], base + at as u64, sink);
            at = end + 1;
            if sink.is_full() {
                break;
            }
        }
        at
    }

    /// Takes one line without its line break, which begins at `at` of the file.
    #[inline]
    pub(in crate::sources) fn take_line(&mut self, line: &[u8], at: u64, sink: &mut Sink<'_>) {
        if self.replay.is_some() && self.is_seen_again(line, at) {
            return;
        }
        match F::parse(line, sink.read_at) {
            Some(line)
                if !line.partial
                    && line.text.len() <= DIRECT_BYTES_MAX
                    && self.groups[line.slot as usize].is_none() =>
            {
                match &mut self.joiner {
                    None => sink.event(&line, None),
                    Some(joiner) => joiner.take(&line, Start { at, in_previous: reads_previous(self.replay) }, sink),
                }
            }
            Some(line) => {
                self.append(&line, at, sink);
                if !line.partial {
                    self.finish(line.slot, sink);
                }
            }
            None => self.take_malformed(line, at, sink),
        }
    }

    /// Takes the beginning of a line longer than one read, which begins at `at` of the file.
    pub(in crate::sources) fn begin_long_line(&mut self, data: &[u8], at: u64, sink: &mut Sink<'_>) {
        let parsed = F::parse(data, sink.read_at);
        let is_malformed = parsed.is_none();
        let line = parsed.unwrap_or(Line { time: sink.read_at, slot: Slot::Other, partial: false, text: data });
        let ignored = self.replay.is_some() && self.is_seen_again(data, at);
        self.long = Some(LongLine { start: at, slot: line.slot, ends_group: !line.partial, ignored });
        if !ignored {
            sink.counts.malformed += u64::from(is_malformed);
            self.append(&line, at, sink);
        }
    }

    /// Ends a line longer than one read, if there is one: its line break was seen, or its file ended.
    pub(in crate::sources) fn end_long_line(&mut self, sink: &mut Sink<'_>) {
        if let Some(long) = self.long.take()
            && long.ends_group
            && !long.ignored
        {
            self.finish(long.slot, sink);
        }
    }

    /// Returns where the line begins whose end was not seen yet.
    pub(in crate::sources) fn long_line_start(&self) -> Option<u64> {
        self.long.map(|long| long.start)
    }

    /// Lets go of every unfinished line: what is there of it is delivered.
    pub(in crate::sources) fn finish_all(&mut self, sink: &mut Sink<'_>) {
        self.long = None;
        for slot in Slot::ALL {
            self.finish(slot, sink);
        }
        self.end_groups(sink);
    }

    /// Tells that the next file of the same restart follows; a line that goes on over three files is let go.
    pub(in crate::sources) fn next_file(&mut self, sink: &mut Sink<'_>) {
        for slot in Slot::ALL {
            match &mut self.groups[slot as usize] {
                Some(group) if group.in_previous => {
                    sink.counts.split_lines += u64::from(group.index == 0 && group.parts > 0);
                    self.finish(slot, sink);
                }
                Some(group) => group.in_previous = true,
                None => {}
            }
        }
        if let Some(joiner) = &mut self.joiner {
            joiner.next_file(sink);
        }
    }

    /// Returns the open groups and unfinished lines as a position keeps them, one of a stream: the first one. A stream whose lines
    /// are being seen again, up to `offset` so far, has one in any case, or what was not seen yet would be left out.
    pub(in crate::sources) fn marks(&self, offset: u64) -> Vec<GroupMark> {
        let mark = |slot: Slot| {
            let of = |Start { at, in_previous }| GroupMark { slot, in_previous, start: at, emitted: 0, index: 0 };
            if let Some(open) = self.joiner.as_ref().and_then(|joiner| joiner.open_at(slot)) {
                return Some(of(open));
            }
            if let Some(group) = &self.groups[slot as usize] {
                let start = of(Start { at: group.start, in_previous: group.in_previous });
                return Some(GroupMark { emitted: group.emitted, index: group.index, ..start });
            }
            self.replay?.rest(slot, offset).map(of)
        };
        Slot::ALL.into_iter().filter_map(mark).collect()
    }

    /// Takes up the unfinished lines of a position; their text is read again.
    pub(in crate::sources) fn resume(&mut self, marks: &[GroupMark]) {
        for mark in marks {
            self.groups[mark.slot as usize] = Some(Box::new(Group {
                start: mark.start,
                in_previous: mark.in_previous,
                emitted: mark.emitted,
                skip: mark.emitted,
                index: mark.index,
                ..Group::default()
            }));
        }
    }

    #[cold]
    fn is_seen_again(&mut self, line: &[u8], at: u64) -> bool {
        let Some(replay) = self.replay else {
            return false;
        };
        if !replay.covers(at) {
            self.end_replay();
            return false;
        }
        !replay.wants(F::parse(line, &[]).map_or(Slot::Other, |line| line.slot), at)
    }

    #[cold]
    fn take_malformed(&mut self, text: &[u8], at: u64, sink: &mut Sink<'_>) {
        sink.counts.malformed += 1;
        let line = Line { time: sink.read_at, slot: Slot::Other, partial: false, text };
        self.append(&line, at, sink);
        self.finish(Slot::Other, sink);
    }

    fn grow(&mut self, long: LongLine, text: &[u8], sink: &mut Sink<'_>) {
        if !long.ignored {
            self.add_text(long.slot, text, sink);
        }
    }

    fn append(&mut self, line: &Line<'_>, at: u64, sink: &mut Sink<'_>) {
        let in_previous = reads_previous(self.replay);
        let group = self.groups[line.slot as usize]
            .get_or_insert_with(|| Box::new(Group { start: at, in_previous, ..Group::default() }));
        if group.time.is_empty() {
            group.time.extend_from_slice(line.time);
        }
        group.parts += 1;
        self.add_text(line.slot, line.text, sink);
    }

    fn add_text(&mut self, slot: Slot, text: &[u8], sink: &mut Sink<'_>) {
        let Some(group) = &mut self.groups[slot as usize] else {
            return;
        };
        let skipped = group.skip.min(text.len() as u64);
        group.skip -= skipped;
        let text = &text[skipped as usize..];
        group.text.extend_from_slice(text);
        *sink.group_bytes += text.len();
        if let Some(joiner) = &mut self.joiner
            && (!joiner.takes(group.text.len()) || *sink.group_bytes > GROUP_BYTES_MAX)
        {
            // It will be no part of a group, and what comes before it comes out before it.
            joiner.end(slot, sink);
        }
        while group.text.len() >= PIECE_BYTES_MAX && group.send_piece(slot, sink) {}
        if *sink.group_bytes > GROUP_BYTES_MAX {
            group.send_piece(slot, sink);
        }
    }

    fn finish(&mut self, slot: Slot, sink: &mut Sink<'_>) {
        let Some(mut group) = self.groups[slot as usize].take() else {
            return;
        };
        if group.parts == 0 {
            return;
        }
        sink.counts.partial_joined += u64::from(group.parts > 1);
        if let Some(joiner) = &mut self.joiner {
            if group.index == 0 && joiner.takes(group.text.len()) {
                *sink.group_bytes -= group.text.len();
                let line = Line { time: &group.time, slot, partial: false, text: &group.text };
                return joiner.take(&line, Start { at: group.start, in_previous: group.in_previous }, sink);
            }
            Joiner::note_alone(sink);
        }
        while fitting(&group.text) < group.text.len() && group.send_piece(slot, sink) {}
        *sink.group_bytes -= group.text.len();
        let piece = (group.index > 0).then_some((group.index, true));
        sink.event(&Line { time: &group.time, slot, partial: false, text: &group.text }, piece);
    }
}

impl Group {
    /// Sends as much as one event takes, and keeps a character whose end is not there yet. Returns whether it sent.
    fn send_piece(&mut self, slot: Slot, sink: &mut Sink<'_>) -> bool {
        let cut = fitting(&self.text);
        let cut = if cut == self.text.len() { cut - unfinished_character(&self.text) } else { cut };
        if cut == 0 {
            return false;
        }
        sink.counts.split_lines += u64::from(self.index == 0);
        let line = Line { time: &self.time, slot, partial: true, text: &self.text[..cut] };
        sink.event(&line, Some((self.index, false)));
        self.index += 1;
        self.emitted += cut as u64;
        *sink.group_bytes -= cut;
        self.text.drain(..cut);
        true
    }
}

/// Returns how many bytes of `text` one event takes, cut between characters.
fn fitting(text: &[u8]) -> usize {
    if text.len() <= DIRECT_BYTES_MAX {
        return text.len();
    }
    let (mut taken, mut written) = (0, 0);
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            let size = match character {
                '"' | '\\' => 2,
                '\0'..='\x1f' => 6,
                other => other.len_utf8(),
            };
            if written + size > PIECE_BYTES_MAX {
                return taken;
            }
            written += size;
            taken += character.len_utf8();
        }
        if !chunk.invalid().is_empty() {
            if written + 3 > PIECE_BYTES_MAX {
                return taken;
            }
            written += 3;
            taken += chunk.invalid().len();
        }
    }
    taken
}

/// Returns how many bytes at the end of `text` are the beginning of a character whose rest may follow.
fn unfinished_character(text: &[u8]) -> usize {
    let tail = &text[text.len().saturating_sub(3)..];
    let cut = tail.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    let needs = match tail.get(tail.len() - cut) {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 0,
    };
    if cut < needs { cut } else { 0 }
}
