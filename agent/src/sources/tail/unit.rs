//! What is followed as one, a container or a file: its files, who reads them, and when it is looked at.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::assemble::Form;
use super::files::Files;
use super::reader::{Reader, Taking};

/// How often a unit that is written all the time is looked at; writes that come faster than this make it one.
pub(in crate::sources) const TICK: Duration = Duration::from_millis(20);

/// How many looks without anything new make it quiet again.
const QUIET_TICKS: u8 = 10;

/// What is followed as one.
#[derive(Debug)]
pub(in crate::sources) struct Unit<F> {
    /// A container's directory, or the file.
    pub(in crate::sources) path: PathBuf,
    /// Members of each of its events besides those of the line.
    pub(in crate::sources) members: Box<[u8]>,
    /// Its files.
    pub(in crate::sources) files: Files,
    /// Who reads it: one per pipeline that wants it.
    pub(in crate::sources) seats: Vec<Seat<F>>,
    /// Whether it is gone.
    pub(in crate::sources) is_gone: bool,
    /// Since when.
    pub(in crate::sources) gone_at: Option<Instant>,
    pace: Pace,
    written_at: Option<Instant>,
}

/// When a unit is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// At each write.
    AtWrites,
    /// By the timer; so many looks brought nothing.
    Timed(u8),
}

/// A reader and what it waits for.
#[derive(Debug)]
pub(in crate::sources) struct Seat<F> {
    /// The reader.
    pub(in crate::sources) reader: Reader<F>,
    /// What it is at.
    pub(in crate::sources) state: SeatState,
    /// Whether it may read at all.
    pub(in crate::sources) gate: Gate,
    /// What became of what was there before its gate.
    pub(in crate::sources) past: Past,
    /// Whether there may be more to read once the batch under way is kept.
    pub(in crate::sources) has_more: bool,
    /// Whether its position is to be kept although it has read nothing.
    pub(in crate::sources) announces: bool,
    /// Whether the log knows a position of it.
    pub(in crate::sources) is_known: bool,
    /// Bytes of its last batch; the next is expected to have as many.
    pub(in crate::sources) bytes_expected: usize,
}

/// Whether a seat may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Gate {
    /// It may.
    Open,
    /// Not yet: it holds its files open until it is known whether it may.
    Held,
    /// Its unit is not one of those the pipeline wants.
    Closed,
}

/// What a seat did with what was there when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Past {
    /// Nothing yet: its gate was never open.
    Unread,
    /// It leaves it unread, and its position says so once its gate is open.
    Skipped,
    /// Its gate is or was open.
    Read,
}

/// What a reader is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum SeatState {
    /// Nothing to read.
    Idle,
    /// Waits for its turn.
    Queued,
    /// Its batch is on its way into the log.
    InFlight,
    /// Its last batch, which forgets it, is on its way.
    Leaving,
    /// It has read everything and the unit is gone.
    Left,
}

impl<F: Form> Unit<F> {
    /// Returns a unit that nobody reads yet.
    pub(in crate::sources) fn new(path: PathBuf, files: Files) -> Self {
        Self {
            path,
            members: Box::default(),
            files,
            seats: Vec::new(),
            is_gone: false,
            gone_at: None,
            pace: Pace::AtWrites,
            written_at: None,
        }
    }

    /// Notes a write; returns whether they come so fast that the timer is to look from now on.
    pub(in crate::sources) fn note_write(&mut self, now: Instant) -> bool {
        let last = self.written_at.replace(now);
        let is_fast = last.is_some_and(|last| now.saturating_duration_since(last) < TICK);
        if self.pace != Pace::AtWrites || !is_fast {
            return false;
        }
        self.pace = Pace::Timed(0);
        true
    }

    /// Notes that something new was read.
    pub(in crate::sources) fn note_news(&mut self) {
        if let Pace::Timed(quiet) = &mut self.pace {
            *quiet = 0;
        }
    }

    /// Notes a look by the timer; returns whether writes are to be told again.
    pub(in crate::sources) fn note_tick(&mut self) -> bool {
        match &mut self.pace {
            Pace::Timed(quiet) if *quiet < QUIET_TICKS => {
                *quiet += 1;
                false
            }
            Pace::Timed(_) => {
                self.pace = Pace::AtWrites;
                true
            }
            Pace::AtWrites => false,
        }
    }

    /// Returns whether the timer looks at it.
    pub(in crate::sources) fn is_timed(&self) -> bool {
        self.pace != Pace::AtWrites
    }

    /// Takes note that it is gone: what is held of its files is read to the end.
    pub(in crate::sources) fn lose(&mut self, taking: &mut Taking<'_>, now: Instant) {
        self.is_gone = true;
        self.gone_at.get_or_insert(now);
        self.files.end(now);
        for reader in Self::readers(&mut self.seats) {
            reader.take_found(&[], &mut self.files, taking);
        }
        self.release();
    }

    /// Returns the readers that may read.
    pub(in crate::sources) fn readers(seats: &mut [Seat<F>]) -> impl Iterator<Item = &mut Reader<F>> {
        seats.iter_mut().filter(|seat| seat.gate != Gate::Closed).map(|seat| &mut seat.reader)
    }

    /// Closes and forgets files that nobody wants.
    pub(in crate::sources) fn release(&mut self) {
        let Self { files, seats, .. } = self;
        files.release(|serial| seats.iter().any(|seat| seat.reader.wants(serial)));
        for seat in seats {
            seat.reader.forget(files);
        }
    }
}

impl<F: Form> Seat<F> {
    /// Returns a seat that waits.
    pub(in crate::sources) fn new(reader: Reader<F>) -> Self {
        Self {
            reader,
            state: SeatState::Idle,
            gate: Gate::Open,
            past: Past::Unread,
            has_more: false,
            announces: false,
            is_known: false,
            bytes_expected: 0,
        }
    }

    /// Returns whether nothing of a unit that is gone is to be read any more.
    pub(in crate::sources) fn is_through(&self) -> bool {
        self.state == SeatState::Left || self.gate == Gate::Closed && self.state == SeatState::Idle
    }
}
