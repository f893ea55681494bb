//! One container read for one pipeline: which file, how far, and what of it is not finished.
//!
//! # Expected flow
//! [`Reader::turn`] makes one batch and its position; the caller submits it until it is kept and only then asks for the
//! next. The reader goes on in memory; where a restart goes on is what the kept batches say.
//!
//! # Guarantees
//! Files are read in the order they were written, each to its end before the next is begun: a file ends when it
//! has a successor or no name, a moment after it was seen so. A file that was cut below what was read of it goes on from
//! its end while its head is the same; with another head it is begun anew.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use spillway_delivery::event::{Origin, Position};
use tokio::time::Instant;

use super::assemble::{Assembler, Replay, Sink};
use super::file::{GzipStream, LogFile, Opener};
use super::files::{Files, Found, Growth};
use super::position::{DONE_MAX, FileId, Mark};
use super::stats::Counts;

/// What a turn works with.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// The time of the turn.
    pub(super) now: Instant,
    /// Opens files that were closed.
    pub(super) opener: &'a Opener,
    /// The read buffer, shared by all readers.
    pub(super) chunk: &'a mut [u8],
    /// Where events go.
    pub(super) sink: Sink<'a>,
}

/// What is to be done after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
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

/// Reads one container for one pipeline.
#[derive(Debug)]
pub(super) struct Reader {
    /// Which pipeline, by its place in the list.
    pub(super) pipeline: usize,
    /// Who made the events.
    pub(super) origin: Arc<Origin>,
    source: Bytes,
    queue: VecDeque<u32>,
    done: Vec<u32>,
    floor: Option<(u64, Box<str>)>,
    offset: u64,
    previous: Option<FileId>,
    generation: Option<(u32, u32)>,
    gzip: Option<Box<GzipStream>>,
    assembler: Assembler,
}

impl Reader {
    /// Returns a reader that has read nothing.
    pub(super) fn new(pipeline: usize, origin: Arc<Origin>, source: Bytes) -> Self {
        Self {
            pipeline,
            origin,
            source,
            queue: VecDeque::new(),
            done: Vec::new(),
            floor: None,
            offset: 0,
            previous: None,
            generation: None,
            gzip: None,
            assembler: Assembler::default(),
        }
    }

    /// Takes up where `mark` stood. A file that is gone is counted, and so is a tail that is.
    pub(super) fn resume(&mut self, files: &Files, mark: &Mark, found: &Found, counts: &mut Counts) {
        let files = files.in_order();
        let current = find(&files, &mark.file);
        let begun = mark.groups.iter().any(|group| group.in_previous);
        let previous = mark.previous.as_ref().filter(|_| begun && current.is_some()).and_then(|id| find(&files, id));
        self.floor.clone_from(&mark.floor);
        let newest = files.last().map(|file| &file.key);
        let others = files.iter().filter(|file| ![current, previous].contains(&Some(file.serial)));
        for file in others {
            // An empty file is not listed as done; one that has a successor stays empty.
            let is_known = file.done_hash().map_or(Some(&file.key) != newest, |hash| mark.done.contains(&hash));
            let is_done = is_known || found.copies.contains(&file.serial) || self.is_below_floor(file);
            if is_done {
                self.done.push(file.serial);
            } else {
                self.queue.push_back(file.serial);
            }
        }
        let Some(current) = files.iter().find(|file| Some(file.serial) == current) else {
            counts.missed_files += 1;
            return;
        };
        self.queue.push_front(current.serial);
        self.generation = Some((current.serial, current.generation));
        self.queue.extend(previous);
        self.queue.rotate_right(usize::from(previous.is_some()));
        let end = if current.reads_gzip() { mark.offset } else { current.size_listed.min(mark.offset) };
        counts.lost_tail_bytes += mark.offset - end;
        self.previous = mark.previous.filter(|_| previous.is_some());
        self.resume_lines(mark, end);
    }

    fn resume_lines(&mut self, mark: &Mark, end: u64) {
        let mut groups = mark.groups.clone();
        groups.retain(|group| !group.in_previous || self.previous.is_some());
        self.assembler.resume(&groups);
        let in_previous = groups.iter().any(|group| group.in_previous);
        let starts = groups.iter().filter(|group| group.in_previous == in_previous).map(|group| group.start);
        self.offset = starts.chain((!in_previous).then_some(end)).min().unwrap_or(end);
        if groups.is_empty() {
            return;
        }
        let mut replay = Replay { in_previous, until: end, starts: [None; 3] };
        for group in &groups {
            replay.starts[group.slot as usize] = Some((group.in_previous, group.start));
        }
        self.assembler.replay = Some(replay);
    }

    /// Takes what a listing found.
    pub(super) fn add(&mut self, found: &Found) {
        self.queue.extend(&found.new);
        self.done.extend(&found.copies);
    }

    /// Leaves what is there now unread: begins at the end of the newest file, behind its last line break.
    pub(super) fn skip_to_end(&mut self, files: &mut Files, opener: &Opener, chunk: &mut [u8]) {
        while self.queue.len() > 1 {
            self.done.extend(self.queue.pop_front());
        }
        let Some(file) = self.queue.front().and_then(|serial| files.get_mut(*serial)) else {
            return;
        };
        if file.reopen(opener).is_ok() && !file.reads_gzip() {
            let size = file.size().unwrap_or(0);
            let from = size.saturating_sub(chunk.len() as u64);
            let length = file.read(from, chunk, &mut None).unwrap_or(0);
            let line = memchr::memrchr(b'\n', &chunk[..length]).map(|at| from + at as u64 + 1);
            self.offset = line.unwrap_or(if from == 0 { 0 } else { size });
            self.generation = Some((file.serial, file.generation));
        }
    }

    /// Returns whose position it is.
    pub(super) fn source(&self) -> &Bytes {
        &self.source
    }

    /// Returns how many bytes of unfinished lines it holds.
    pub(super) fn held_bytes(&self) -> usize {
        self.assembler.held_bytes()
    }

    /// Returns how many files it has yet to read, and how many bytes as far as is known.
    pub(super) fn unread(&self, files: &Files) -> (u64, u64) {
        let sizes = self.queue.iter().filter_map(|serial| files.get(*serial)).map(|file| file.size_listed);
        (self.queue.len() as u64, sizes.sum::<u64>().saturating_sub(self.offset))
    }

    /// Returns whether the reader has yet to read `serial`.
    pub(super) fn wants(&self, serial: u32) -> bool {
        self.queue.contains(&serial)
    }

    /// Forgets files that are gone.
    pub(super) fn forget(&mut self, files: &Files) {
        self.done.retain(|serial| files.get(*serial).is_some());
    }

    /// Reads until the batch is full or there is nothing more.
    pub(super) fn turn(&mut self, files: &mut Files, turn: &mut Turn<'_>) -> After {
        let mut after = After::More;
        while !turn.sink.is_full() {
            if let Step::End(end) = self.step(files, turn) {
                after = end;
                break;
            }
        }
        if !turn.opener.may_hold()
            && let Some(file) = self.queue.front().and_then(|serial| files.get_mut(*serial))
        {
            file.close();
        }
        after
    }

    /// Returns where the reader stands, `None` while it has no file.
    pub(super) fn position(&mut self, files: &Files) -> Option<Position> {
        let replay = self.assembler.replay;
        let in_previous = replay.is_some_and(|replay| replay.in_previous);
        let current = files.get(*self.queue.get(usize::from(in_previous))?)?;
        self.bound_done(files);
        let reread = self.queue.front().filter(|_| in_previous);
        let done = self.done.iter().chain(reread).filter_map(|serial| files.get(*serial)?.done_hash()).collect();
        let groups = self.assembler.marks();
        let offset = match replay {
            Some(replay) => replay.until,
            None => self.assembler.long_line_start().unwrap_or(self.offset),
        };
        let previous = self.previous.filter(|_| groups.iter().any(|group| group.in_previous));
        let mark = Mark { file: current.id(), offset, previous, groups, done, floor: self.floor.clone() };
        Some(Position { source: self.source.clone(), value: Some(mark.encode()) })
    }

    /// Returns the position that forgets the container.
    pub(super) fn farewell(&self) -> Position {
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
            self.assembler.replay = None;
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
        self.offset = 0;
        self.gzip = None;
        if let Some(replay) = self.assembler.replay.as_mut().filter(|replay| replay.in_previous) {
            replay.in_previous = false;
            return Step::Again;
        }
        self.assembler.replay = None;
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
        self.assembler.replay = None;
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

/// Finds the file a position means: the same inode first, else the same head under another (compressed, copied).
fn find(files: &[&LogFile], id: &FileId) -> Option<u32> {
    let exact = files.iter().find(|file| file.matches(id, true));
    exact.or_else(|| files.iter().find(|file| file.matches(id, false))).map(|file| file.serial)
}
