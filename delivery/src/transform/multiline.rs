//! `Multiline`: lines of a text that belong together become one event: a stack trace, or what stands behind a time stamp.
//!
//! # Where it runs
//! It is the first transform of a pipeline, and runs before the door, in the source that follows files: there a line has a file, a
//! stream and a position, and a group that is open is written nowhere. The position of its stream stays at the beginning of the
//! group until it is closed, so that a restart reads its lines again. What is pushed to an agent is answered when it is in the log,
//! has no line that follows, and passes by. This module decides what belongs together and knows neither files nor time: the sources
//! call it line by line, and so do tests of pipelines.
//!
//! # Guarantees
//! - Every line is in exactly one group, in its order; the text of a group is its lines with `\n` between them.
//! - What belongs together depends on the lines alone, not on how they came: no read, batch or restart divides a group.
//! - Linear time: a line is looked at once, at most [`PATTERN_TEXT_BYTES_MAX`] of it; its bytes are copied once.
//!
//! # What begins a group
//! With a pattern each line in which it is found. With [`Trace`]s each line that none of them takes for more of the trace before
//! it; a line before a trace (`ERROR could not …`) belongs to the trace, unless that says what begins it.
//!
//! # Limits
//! [`Multiline::lines_max`] lines and [`Multiline::bytes_max`] bytes of one group: the line that is too much begins another one,
//! counted as [`Failure::TooLarge`](super::Failure::TooLarge). Bounds of both: [`LINES_MAX`], [`BYTES_MAX`].

mod trace;

use std::time::Duration;

use self::trace::Traces;
use super::parse::PATTERN_TEXT_BYTES_MAX;
use crate::event::EVENT_BYTES_MAX;
use crate::pattern::Pattern;

pub use self::trace::Trace;

/// Most lines that a group may be told to have.
pub const LINES_MAX: u32 = 10_000;

/// Most bytes of text that a group may be told to have: an event has room for it however it is escaped, six bytes for one.
pub const BYTES_MAX: usize = 128 << 10;

const _: () = assert!(6 * BYTES_MAX < EVENT_BYTES_MAX - (64 << 10));

/// Which lines are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multiline {
    /// What begins a group.
    pub begins: Begins,
    /// Most lines of a group, at most [`LINES_MAX`].
    pub lines_max: u32,
    /// Most bytes of a group, at most [`BYTES_MAX`]. A line that is longer is a group by itself.
    pub bytes_max: usize,
    /// How long a group waits for its next line.
    pub wait: Duration,
}

/// What begins a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begins {
    /// A line in which this is found.
    Pattern(Pattern),
    /// A line that is not more of a trace of one of these.
    NoTrace(Vec<Trace>),
}

/// How a line stands to the group before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// It is one more line of it.
    Within,
    /// It begins another.
    Apart,
    /// It would be one more line, but the group is as large as it may be: it begins another.
    TooMuch,
}

/// A group that is open: its lines so far. Empty before the first.
#[derive(Debug, Default)]
pub struct Group {
    text: Vec<u8>,
    lines: u32,
    traces: Traces,
}

impl Group {
    /// Returns how many lines it has.
    pub fn lines(&self) -> u32 {
        self.lines
    }

    /// Returns its lines, with `\n` between them.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Tells how the next line of the stream stands to this group, and remembers what may follow that line. Only a line that is
    /// [`Stands::Within`] may be [`pushed`](Self::push) before the group was [`closed`](Self::close).
    pub fn stands(&mut self, settings: &Multiline, line: &[u8]) -> Stands {
        let follows = match &settings.begins {
            Begins::Pattern(pattern) => !pattern.is_in(&line[..line.len().min(PATTERN_TEXT_BYTES_MAX)]),
            Begins::NoTrace(traces) => self.traces.take(traces, line, self.lines),
        };
        if !follows || self.lines == 0 {
            return Stands::Apart;
        }
        let fits = self.lines < settings.lines_max && self.text.len() + 1 + line.len() <= settings.bytes_max;
        if fits { Stands::Within } else { Stands::TooMuch }
    }

    /// Adds a line.
    pub fn push(&mut self, line: &[u8]) {
        if self.lines > 0 {
            self.text.push(b'\n');
        }
        self.text.extend_from_slice(line);
        self.lines += 1;
    }

    /// Empties it. What may follow its last line is still known, for a trace that is cut in two.
    pub fn close(&mut self) {
        self.text.clear();
        self.lines = 0;
    }

    /// Empties it; whatever follows is a beginning.
    pub fn end(&mut self) {
        self.close();
        self.traces = Traces::default();
    }
}

#[cfg(test)]
mod tests;
