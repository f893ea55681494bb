//! Where events go that are made of lines: a batch, and what was counted on the way.

use spillway_delivery::event::BatchBuilder;
use spillway_delivery::json;
use tokio::time::Instant;

use super::assemble::{Line, Slot};
use super::stats::Counts;

pub(in crate::sources) use spillway_delivery::transform::Counts as Joined;

/// Most bytes of one batch before a turn ends; one more line may follow.
pub(in crate::sources) const TURN_BYTES_MAX: usize = 1 << 20;

/// Most events of one batch before a turn ends.
pub(in crate::sources) const TURN_EVENTS_MAX: usize = 8_192;

/// Where events go.
#[derive(Debug)]
pub(in crate::sources) struct Sink<'a> {
    /// The batch.
    pub(in crate::sources) out: BatchBuilder,
    /// What was seen on the way.
    pub(in crate::sources) counts: Counts,
    /// Bytes of unfinished lines held, over all files.
    pub(in crate::sources) group_bytes: &'a mut usize,
    /// What was joined on the way.
    pub(in crate::sources) joined: Joined,
    /// The time of the turn.
    pub(in crate::sources) now: Instant,
    /// The time of reading, for lines without one.
    pub(in crate::sources) read_at: &'a [u8],
    /// Members of every event: each begins with a comma. At most [`MEMBERS_BYTES_MAX`](super::assemble::MEMBERS_BYTES_MAX).
    pub(in crate::sources) members: &'a [u8],
}

impl Sink<'_> {
    /// Returns whether the turn has made enough.
    #[inline]
    pub(in crate::sources) fn is_full(&self) -> bool {
        self.out.bytes() >= TURN_BYTES_MAX || self.out.len() >= TURN_EVENTS_MAX
    }

    /// Makes an event of a line, or of a piece of one: which, and whether it is the last.
    #[inline]
    pub(in crate::sources) fn event(&mut self, line: &Line<'_>, piece: Option<(u32, bool)>) {
        let counts = &mut self.counts;
        counts.lines += 1;
        self.out.push_with(|out| {
            out.extend_from_slice(br#"{"message":""#);
            if let Ok(text) = std::str::from_utf8(line.text) {
                json::write_escaped(out, text);
            } else {
                counts.invalid_utf8 += 1;
                write_replaced(out, line.text);
            }
            out.extend_from_slice(br#"","time":""#);
            out.extend_from_slice(line.time);
            out.extend_from_slice(match line.slot {
                Slot::Stdout => br#"","stream":"stdout""#,
                Slot::Stderr => br#"","stream":"stderr""#,
                Slot::Other => br#"""#,
            });
            out.extend_from_slice(self.members);
            if let Some((index, last)) = piece {
                write_piece(out, index, last);
            }
            out.push(b'}');
        });
    }
}

#[cold]
fn write_replaced(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        json::write_escaped(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

#[cold]
fn write_piece(out: &mut Vec<u8>, index: u32, last: bool) {
    out.extend_from_slice(format!(r#","partial":{{"index":{index},"last":{last}}}"#).as_bytes());
}
