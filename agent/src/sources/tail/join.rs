//! Lines of one unit joined for one pipeline whose first transform is `Multiline`: a group per stream, closed by the line behind
//! it, by time, by its size, or by the end of what is read. Knows no files; [`assemble`](super::assemble) hands it whole lines.
//!
//! # Guarantees
//! - What is open is written nowhere: the position of its stream is where its first line begins ([`Joiner::open_at`]), so after a
//!   restart these lines are read again, and joined anew.
//! - Lines of two streams, containers or files are never in one group.
//! - Time closes a group only once everything that is there was read: a reader that is behind, or whose pipeline took nothing for
//!   a while, does not take its own delay for silence.
//!
//! # Limits
//! Those of [`Multiline`]; and the text of all open groups and unfinished lines of a source together,
//! [`GROUP_BYTES_MAX`]: a group that grows beyond it is closed, counted as one that is too large.

use spillway_delivery::transform::Multiline;
use spillway_delivery::transform::multiline::{Group, Stands};
use tokio::time::Instant;

use super::assemble::{GROUP_BYTES_MAX, Line, Slot};
use super::sink::Sink;

/// Where a line, or a group, begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct Start {
    /// The offset.
    pub(in crate::sources) at: u64,
    /// Whether that is in the file before the one that is read.
    pub(in crate::sources) in_previous: bool,
}

/// Joins lines, per stream.
#[derive(Debug)]
pub(in crate::sources) struct Joiner {
    settings: Multiline,
    streams: [Option<Box<Open>>; 3],
}

/// The group of a stream; one that is empty remembers what came before.
#[derive(Debug)]
struct Open {
    group: Group,
    start: Start,
    time: Vec<u8>,
    due: Instant,
}

impl Joiner {
    /// Returns one that has joined nothing yet.
    pub(in crate::sources) fn new(settings: Multiline) -> Self {
        Self { settings, streams: [const { None }; 3] }
    }

    /// Returns one that joins alike.
    pub(in crate::sources) fn anew(&self) -> Self {
        Self::new(self.settings.clone())
    }

    /// Returns whether a text of so many bytes may be part of a group.
    pub(in crate::sources) fn takes(&self, bytes: usize) -> bool {
        bytes <= self.settings.bytes_max
    }

    /// Returns how many bytes are held.
    pub(in crate::sources) fn held_bytes(&self) -> usize {
        self.streams.iter().flatten().map(|open| open.group.text().len()).sum()
    }

    /// Returns where the group of a stream begins that is open.
    pub(in crate::sources) fn open_at(&self, slot: Slot) -> Option<Start> {
        self.streams[slot as usize].as_ref().filter(|open| open.group.lines() > 0).map(|open| open.start)
    }

    /// Returns when the first group is closed if nothing follows.
    pub(in crate::sources) fn due(&self) -> Option<Instant> {
        self.streams.iter().flatten().filter(|open| open.group.lines() > 0).map(|open| open.due).min()
    }

    /// Takes a whole line.
    pub(in crate::sources) fn take(&mut self, line: &Line<'_>, start: Start, sink: &mut Sink<'_>) {
        if !self.takes(line.text.len()) {
            self.end(line.slot, sink);
            Self::note_alone(sink);
            return sink.event(line, None);
        }
        let due = sink.now + self.settings.wait;
        let open = self.streams[line.slot as usize]
            .get_or_insert_with(|| Box::new(Open { group: Group::default(), start, time: Vec::new(), due }));
        match open.group.stands(&self.settings, line.text) {
            Stands::Within => {}
            Stands::Apart => open.close(line.slot, sink),
            Stands::TooMuch => {
                sink.joined.too_large();
                open.close(line.slot, sink);
            }
        }
        if open.group.lines() == 0 {
            open.start = start;
            open.time.clear();
            open.time.extend_from_slice(line.time);
        }
        let before = open.group.text().len();
        open.group.push(line.text);
        open.due = due;
        *sink.group_bytes += open.group.text().len() - before;
        if *sink.group_bytes > GROUP_BYTES_MAX {
            sink.joined.too_large();
            open.close(line.slot, sink);
        }
    }

    /// Takes note of a line that is too long for a group and goes out by itself.
    pub(in crate::sources) fn note_alone(sink: &mut Sink<'_>) {
        sink.joined.group(1);
        sink.joined.too_large();
    }

    /// Closes the group of a stream: what follows it is no more of it.
    pub(in crate::sources) fn end(&mut self, slot: Slot, sink: &mut Sink<'_>) {
        if let Some(open) = &mut self.streams[slot as usize] {
            open.close(slot, sink);
            open.group.end();
        }
    }

    /// Closes all groups.
    pub(in crate::sources) fn end_all(&mut self, sink: &mut Sink<'_>) {
        for slot in Slot::ALL {
            self.end(slot, sink);
        }
    }

    /// Closes groups that waited long enough for another line; to be called once everything that is there was read.
    pub(in crate::sources) fn end_due(&mut self, sink: &mut Sink<'_>) {
        for slot in Slot::ALL {
            if self.streams[slot as usize].as_ref().is_some_and(|open| open.due <= sink.now) {
                self.end(slot, sink);
            }
        }
    }

    /// Tells that the next file of the same restart follows; a group that goes on over three files is closed.
    pub(in crate::sources) fn next_file(&mut self, sink: &mut Sink<'_>) {
        for slot in Slot::ALL {
            if self.open_at(slot).is_some_and(|start| start.in_previous) {
                sink.joined.too_large();
                self.end(slot, sink);
            } else if let Some(open) = &mut self.streams[slot as usize] {
                open.start.in_previous = true;
            }
        }
    }
}

impl Open {
    fn close(&mut self, slot: Slot, sink: &mut Sink<'_>) {
        if self.group.lines() == 0 {
            return;
        }
        sink.joined.group(self.group.lines());
        *sink.group_bytes -= self.group.text().len();
        sink.event(&Line { time: &self.time, slot, partial: false, text: self.group.text() }, None);
        self.group.close();
    }
}
