//! A container that is followed: its files, who reads them, and when it is looked at.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::files::Files;
use super::reader::{Reader, Taking};

/// How often a container that writes all the time is looked at; writes that come faster than this make it one.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Most listings in a row of a directory that changes meanwhile: one rotation takes three, and the kubelet has minutes
/// between two. After that the next event or scan goes on.
const LISTINGS_MAX: usize = 6;

/// How many looks without anything new make it quiet again.
const QUIET_TICKS: u8 = 10;

/// A container that is followed.
#[derive(Debug)]
pub(super) struct Container {
    /// Its directory.
    pub(super) directory: PathBuf,
    /// Its files.
    pub(super) files: Files,
    /// Who reads it: one per pipeline that wants it.
    pub(super) seats: Vec<Seat>,
    /// Whether its directory is gone.
    pub(super) is_gone: bool,
    /// Since when.
    pub(super) gone_at: Option<Instant>,
    pace: Pace,
    written_at: Option<Instant>,
}

/// When a container is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// At each write.
    AtWrites,
    /// By the timer; so many looks brought nothing.
    Timed(u8),
}

/// A reader and what it waits for.
#[derive(Debug)]
pub(super) struct Seat {
    /// The reader.
    pub(super) reader: Reader,
    /// What it is at.
    pub(super) state: SeatState,
    /// Whether it may read at all.
    pub(super) gate: Gate,
    /// What became of what was there before its gate.
    pub(super) past: Past,
    /// Whether there may be more to read once the batch under way is kept.
    pub(super) has_more: bool,
    /// Whether its position is to be kept although it has read nothing.
    pub(super) announces: bool,
    /// Whether the log knows a position of it.
    pub(super) is_known: bool,
    /// Bytes of its last batch; the next is expected to have as many.
    pub(super) bytes_expected: usize,
}

/// Whether a seat may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// It may.
    Open,
    /// Not yet: it holds its files open until it is known whether it may.
    Held,
    /// Its pod is not one of those the pipeline wants.
    Closed,
}

/// What a seat did with what was there when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// Nothing yet: its gate was never open.
    Unread,
    /// It leaves it unread, and its position says so once its gate is open.
    Skipped,
    /// Its gate is or was open.
    Read,
}

/// What a reader is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeatState {
    /// Nothing to read.
    Idle,
    /// Waits for its turn.
    Queued,
    /// Its batch is on its way into the log.
    InFlight,
    /// Its last batch, which forgets it, is on its way.
    Leaving,
    /// It has read everything and the container is gone.
    Left,
}

impl Container {
    /// Returns a container whose files are not known yet.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            files: Files::default(),
            seats: Vec::new(),
            is_gone: false,
            gone_at: None,
            pace: Pace::AtWrites,
            written_at: None,
        }
    }

    /// Notes a write; returns whether they come so fast that the timer is to look from now on.
    pub(super) fn note_write(&mut self, now: Instant) -> bool {
        let last = self.written_at.replace(now);
        let is_fast = last.is_some_and(|last| now.saturating_duration_since(last) < TICK);
        if self.pace != Pace::AtWrites || !is_fast {
            return false;
        }
        self.pace = Pace::Timed(0);
        true
    }

    /// Notes that something new was read.
    pub(super) fn note_news(&mut self) {
        if let Pace::Timed(quiet) = &mut self.pace {
            *quiet = 0;
        }
    }

    /// Notes a look by the timer; returns whether writes are to be told again.
    pub(super) fn note_tick(&mut self) -> bool {
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
    pub(super) fn is_timed(&self) -> bool {
        self.pace != Pace::AtWrites
    }

    /// Lists the directory, again until what is found is enough for every reader, and lets them take it; returns how many
    /// entries were refused.
    pub(super) fn look(&mut self, taking: &mut Taking<'_>, now: Instant) -> io::Result<usize> {
        let Self { directory, files, seats, .. } = self;
        let mut new = Vec::new();
        let mut listed = files.list(directory, taking.opener, now, &mut new);
        for _ in 1..LISTINGS_MAX {
            // A new file is not taken before an older one that had another name when the names were read.
            let is_known = new.is_empty() && Self::readers(seats).all(|reader| reader.can_take_place(files));
            let is_enough = is_known || files.is_complete() || files.has_failed();
            if listed.is_err() || is_enough && !files.has_vanished() {
                break;
            }
            listed = files.list(directory, taking.opener, now, &mut new);
        }
        files.sort(&mut new);
        for reader in Self::readers(seats) {
            reader.take_found(&new, files, taking);
        }
        self.release();
        listed
    }

    /// Takes note that the directory is gone.
    pub(super) fn lose(&mut self, taking: &mut Taking<'_>, now: Instant) {
        self.is_gone = true;
        self.gone_at.get_or_insert(now);
        self.files.end(now);
        for reader in Self::readers(&mut self.seats) {
            reader.take_found(&[], &mut self.files, taking);
        }
        self.release();
    }

    fn readers(seats: &mut [Seat]) -> impl Iterator<Item = &mut Reader> {
        seats.iter_mut().filter(|seat| seat.gate != Gate::Closed).map(|seat| &mut seat.reader)
    }

    /// Closes and forgets files that nobody wants.
    pub(super) fn release(&mut self) {
        let Self { files, seats, .. } = self;
        files.release(|serial| seats.iter().any(|seat| seat.reader.wants(serial)));
        for seat in seats {
            seat.reader.forget(files);
        }
    }
}

impl Seat {
    /// Returns a seat that waits.
    pub(super) fn new(reader: Reader) -> Self {
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

    /// Returns whether nothing of a container that is gone is to be read any more.
    pub(super) fn is_through(&self) -> bool {
        self.state == SeatState::Left || self.gate == Gate::Closed && self.state == SeatState::Idle
    }
}
