//! One unit read for one pipeline: which file, how far, and what of it is not finished.
//!
//! # Expected flow
//! [`Reader::turn`] makes one batch and its position; the caller submits it until it is kept and only then asks for the
//! next. The reader goes on in memory; where a restart goes on is what the kept batches say.
//!
//! # Guarantees
//! Files are read in the order they were written, each to its end before the next is begun: a file ends when it
//! has a successor or no name, a moment after it was seen so. A file that was cut below what was read of it goes on from
//! its end while its head is the same; with another head it is begun anew.
//!
//! # Limits
//! What is written to a file later than that moment after its successor appeared is not read: it is counted as missed when a
//! listing shows it.

mod place;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use spillway_delivery::event::{Origin, Position};
use spillway_delivery::transform::Multiline;
use tokio::time::Instant;

use self::place::Place;
use super::assemble::{Assembler, Form};
use super::file::{GzipStream, LogFile, Opener};
use super::files::{Files, Growth};
use super::join::Joiner;
use super::position::{DONE_MAX, FileId, Mark};
use super::sink::Sink;
use super::stats::Counts;

pub(in crate::sources) use self::place::{Start, Taking};

/// What a turn works with.
#[derive(Debug)]
pub(in crate::sources) struct Turn<'a> {
    /// The time of the turn.
    pub(in crate::sources) now: Instant,
    /// Opens files that were closed.
    pub(in crate::sources) opener: &'a Opener,
    /// The read buffer, shared by all readers.
    pub(in crate::sources) chunk: &'a mut [u8],
    /// Where events go.
    pub(in crate::sources) sink: Sink<'a>,
}

/// What is to be done after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum After {
    /// There may be more at once.
    More,
    /// A file is about to end: look again at the next tick.
    Soon,
    /// Everything there is was read.
    Idle,
    /// Every file is read and has no name any more.
    Drained,
}

enum Step {
    Again,
    End(After),
}

/// Reads one unit for one pipeline.
#[derive(Debug)]
pub(in crate::sources) struct Reader<F> {
    /// Which pipeline, by its place in the list.
    pub(in crate::sources) pipeline: usize,
    /// Who made the events.
    pub(in crate::sources) origin: Arc<Origin>,
    source: Bytes,
    place: Place,
    queue: VecDeque<u32>,
    done: Vec<u32>,
    /// Plain files among them that were read here, and up to where.
    left: Vec<(u32, u64)>,
    floor: Option<(u64, Box<str>)>,
    offset: u64,
    previous: Option<FileId>,
    generation: Option<(u32, u32)>,
    gzip: Option<Box<GzipStream>>,
    assembler: Assembler<F>,
}

impl<F: Form> Reader<F> {
    /// Returns a reader that has read nothing.
    pub(in crate::sources) fn new(pipeline: usize, origin: Arc<Origin>, source: Bytes) -> Self {
        Self {
            pipeline,
            origin,
            source,
            place: Place::Taken,
            queue: VecDeque::new(),
            done: Vec::new(),
            left: Vec::new(),
            floor: None,
            offset: 0,
            previous: None,
            generation: None,
            gzip: None,
            assembler: Assembler::default(),
        }
    }

    /// Returns it as one whose lines are joined, where that is told.
    pub(in crate::sources) fn joining(self, multiline: Option<&Multiline>) -> Self {
        let joiner = multiline.map(|multiline| Joiner::new(multiline.clone()));
        Self { assembler: Assembler::joining(joiner), ..self }
    }

    /// Returns a reader of the same that has no files.
    pub(in crate::sources) fn anew(&self) -> Self {
        let reader = Self::new(self.pipeline, self.origin.clone(), self.source.clone());
        Self { assembler: self.assembler.anew(), ..reader }
    }

    /// Returns when an open group of lines is closed if nothing follows.
    pub(in crate::sources) fn due(&self) -> Option<Instant> {
        self.assembler.due()
    }

    /// Returns whose position it is.
    pub(in crate::sources) fn source(&self) -> &Bytes {
        &self.source
    }

    /// Returns how many bytes of unfinished lines it holds.
    pub(in crate::sources) fn held_bytes(&self) -> usize {
        self.assembler.held_bytes()
    }

    /// Returns how many files it has yet to read, and how many bytes as far as is known.
    pub(in crate::sources) fn unread(&self, files: &Files) -> (u64, u64) {
        let sizes = self.queue.iter().filter_map(|serial| files.get(*serial)).map(|file| file.size_listed);
        (self.queue.len() as u64, sizes.sum::<u64>().saturating_sub(self.offset))
    }

    /// Returns whether the reader has yet to read `serial`.
    pub(in crate::sources) fn wants(&self, serial: u32) -> bool {
        !self.is_placed() || self.queue.contains(&serial)
    }

    /// Forgets files that are gone.
    pub(in crate::sources) fn forget(&mut self, files: &Files) {
        self.done.retain(|serial| files.get(*serial).is_some());
        self.left.retain(|(serial, _)| files.get(*serial).is_some_and(|file| !file.gzip));
    }

    /// Counts what was written to files after they were left.
    fn count_late(&mut self, files: &Files, counts: &mut Counts) {
        for (serial, offset) in &mut self.left {
            let Some(file) = files.get(*serial).filter(|file| !file.gzip && file.listed) else { continue };
            let late_bytes = file.size_listed.saturating_sub(*offset);
            if late_bytes > 0 {
                *offset = file.size_listed;
                counts.missed_bytes += late_bytes;
                tracing::warn!(
                    file = %file.path.display(), late_bytes,
                    "a rotated log was written to long after its successor appeared: that is not read"
                );
            }
        }
    }

    /// Reads until the batch is full or there is nothing more.
    pub(in crate::sources) fn turn(&mut self, files: &mut Files, turn: &mut Turn<'_>) -> After {
        let mut after = After::More;
        while !turn.sink.is_full() {
            if let Step::End(end) = self.step(files, turn) {
                after = end;
                break;
            }
        }
        if after != After::More {
            self.assembler.end_due(self.offset, &mut turn.sink);
        }
        if !turn.opener.may_hold()
            && let Some(file) = self.queue.front().and_then(|serial| files.get_mut(*serial))
        {
            file.close();
        }
        after
    }

    /// Returns where the reader stands, `None` while it has no file.
    pub(in crate::sources) fn position(&mut self, files: &Files) -> Option<Position> {
        let replay = self.assembler.replay;
        let in_previous = replay.is_some_and(|replay| replay.in_previous);
        let current = files.get(*self.queue.get(usize::from(in_previous))?)?;
        self.bound_done(files);
        let reread = self.queue.front().filter(|_| in_previous);
        let done = self.done.iter().chain(reread).filter_map(|serial| files.get(*serial)?.done_hash());
        let mut done: Vec<u64> = done.collect();
        if let Place::Early(Start::Mark(mark)) = &self.place {
            let unseen: Vec<u64> = mark.done.iter().filter(|hash| !done.contains(hash)).copied().collect();
            done.extend(unseen);
            done.truncate(DONE_MAX);
        }
        let groups = self.assembler.marks(self.offset);
        let offset = match replay {
            Some(replay) => replay.until,
            None => self.assembler.long_line_start().unwrap_or(self.offset),
        };
        let previous = self.previous.filter(|_| groups.iter().any(|group| group.in_previous)).or(current.before);
        let mark = Mark { file: current.id(), offset, previous, groups, done, floor: self.floor.clone() };
        Some(Position { source: self.source.clone(), value: Some(mark.encode()) })
    }

    /// Returns the position that forgets the container.
    pub(in crate::sources) fn farewell(&self) -> Position {
        Position { source: self.source.clone(), value: None }
    }

    fn step(&mut self, files: &mut Files, turn: &mut Turn<'_>) -> Step {
        let Some(&serial) = self.queue.front() else {
            self.assembler.finish_all(&mut turn.sink);
            return Step::End(After::Drained);
        };
        let growth = files.growth(serial, self.queue.get(1).copied(), turn.now);
        let Some(file) = files.get_mut(serial) else {
            self.queue.pop_front();
            return Step::Again;
        };
        match self.read(file, turn) {
            Ok(0) => self.at_end(files, turn, growth),
            Ok(length) => self.take(turn, length, growth),
            Err(error) => self.unreadable(files, turn, growth, &error),
        }
    }

    fn read(&mut self, file: &mut LogFile, turn: &mut Turn<'_>) -> io::Result<usize> {
        file.reopen(turn.opener)?;
        let length = file.read(self.offset, turn.chunk, &mut self.gzip)?;
        // The head is looked at after the bytes were read: while it is the same, so were they.
        if length > 0 && self.is_begun_anew(file)? {
            self.begin_anew(turn);
            return file.read(0, turn.chunk, &mut self.gzip);
        }
        Ok(length)
    }

    fn take(&mut self, turn: &mut Turn<'_>, length: usize, growth: Growth) -> Step {
        let data = &turn.chunk[..length];
        let is_whole = length == turn.chunk.len();
        let mut taken = self.assembler.take_lines(data, self.offset, &mut turn.sink);
        if taken == 0 && is_whole {
            self.assembler.begin_long_line(data, self.offset, &mut turn.sink);
            taken = length;
        } else if taken == 0 && growth == Growth::Closed {
            self.assembler.take_line(data, self.offset, &mut turn.sink);
            taken = length;
        }
        self.offset += taken as u64;
        turn.sink.counts.bytes += taken as u64;
        match growth {
            _ if is_whole || turn.sink.is_full() => Step::Again,
            Growth::Closed => Step::Again,
            Growth::Closing => Step::End(After::Soon),
            Growth::Open => Step::End(After::Idle),
        }
    }

    fn at_end(&mut self, files: &mut Files, turn: &mut Turn<'_>, growth: Growth) -> Step {
        let Some(file) = self.queue.front().and_then(|serial| files.get_mut(*serial)) else {
            return Step::Again;
        };
        let end = match &self.gzip {
            Some(stream) => stream.end(),
            None => file.size().unwrap_or(self.offset),
        };
        // Also at the same length: what was written anew may happen to be as long.
        let is_anew = self.is_begun_anew(file).unwrap_or(false) || end == 0;
        if is_anew && self.offset > 0 {
            self.begin_anew(turn);
            return Step::Again;
        }
        if end < self.offset {
            turn.sink.counts.lost_tail_bytes += self.offset - end;
            self.assembler.end_long_line(&mut turn.sink);
            self.assembler.end_groups(&mut turn.sink);
            self.assembler.end_replay();
            self.offset = end;
            return Step::Again;
        }
        match growth {
            Growth::Open => Step::End(After::Idle),
            Growth::Closing => Step::End(After::Soon),
            Growth::Closed => self.next_file(files, turn),
        }
    }

    fn unreadable(&mut self, files: &mut Files, turn: &mut Turn<'_>, growth: Growth, error: &io::Error) -> Step {
        let counts = &mut turn.sink.counts;
        let file = self.queue.front().and_then(|serial| files.get(*serial));
        let size = file.filter(|file| !file.gzip && file.gone_at.is_some()).map(|file| file.size_listed);
        if let Some(size) = size.filter(|_| error.kind() == io::ErrorKind::NotFound) {
            // It was closed because too many were held, and then deleted.
            counts.missed_bytes += size.saturating_sub(self.offset);
            return self.next_file(files, turn);
        }
        counts.read_errors += 1;
        let is_damaged = file.is_some_and(LogFile::reads_gzip) && error.kind() != io::ErrorKind::NotFound;
        if is_damaged && growth == Growth::Closed {
            return self.next_file(files, turn);
        }
        // The next scan tries again.
        Step::End(After::Idle)
    }

    fn next_file(&mut self, files: &Files, turn: &mut Turn<'_>) -> Step {
        self.assembler.end_long_line(&mut turn.sink);
        let ended = self.queue.pop_front().and_then(|serial| files.get(serial));
        let next = self.queue.front().and_then(|serial| files.get(*serial));
        self.done.extend(ended.map(|file| file.serial));
        if let Some(file) = ended.filter(|file| !file.reads_gzip()) {
            self.left.push((file.serial, self.offset));
        }
        self.offset = 0;
        self.gzip = None;
        if let Some(replay) = self.assembler.replay.as_mut().filter(|replay| replay.in_previous) {
            replay.in_previous = false;
            return Step::Again;
        }
        self.assembler.end_replay();
        match (ended, next) {
            (Some(ended), Some(next)) if ended.key.restart == next.key.restart => {
                self.previous = Some(ended.id());
                self.assembler.next_file(&mut turn.sink);
            }
            _ => self.assembler.finish_all(&mut turn.sink),
        }
        Step::Again
    }

    /// Other readers of the file look at its head too, so what counts is what this one saw last.
    fn is_begun_anew(&mut self, file: &mut LogFile) -> io::Result<bool> {
        let before = file.generation;
        file.check_head()?;
        let now = (file.serial, file.generation);
        let seen = self.generation.replace(now).filter(|(serial, _)| *serial == file.serial);
        Ok(seen.unwrap_or((file.serial, before)) != now)
    }

    fn begin_anew(&mut self, turn: &mut Turn<'_>) {
        turn.sink.counts.truncated += 1;
        self.assembler.end_replay();
        self.assembler.finish_all(&mut turn.sink);
        self.offset = 0;
    }

    fn bound_done(&mut self, files: &Files) {
        // One place is kept for a file that is read again.
        while self.done.len() >= DONE_MAX {
            let oldest = files.get(self.done.remove(0)).map(|file| file.key.floor());
            self.floor = self.floor.take().max(oldest);
        }
    }

    fn is_below_floor(&self, file: &LogFile) -> bool {
        self.floor.as_ref().is_some_and(|floor| file.key.floor() <= *floor)
    }
}
