//! Where a reader begins.
//!
//! One that does not begin with the first file ([`Reader::begin_at`]) reads nothing before [`Reader::take_found`] has seen the
//! files that its place depends on, or knows that they are gone. What it knows of the others is kept until a listing is
//! complete: a file that could not be opened, or was renamed meanwhile, is no new one when it is found.

use std::io;

use super::super::assemble::{Form, Replay};
use super::super::file::{LogFile, Opener};
use super::super::files::{Files, find, find_behind};
use super::super::position::Mark;
use super::super::stats::Counts;
use super::Reader;

/// Where a reader begins that does not begin with the first file.
#[derive(Debug)]
pub(in crate::sources) enum Start {
    /// Where a position says.
    Mark(Mark),
    /// At the end of what is there.
    End,
}

/// Whether a reader has its place.
#[derive(Debug, Default)]
pub(in crate::sources) enum Place {
    /// It has, and every file that is there is known.
    #[default]
    Taken,
    /// It has; a file it is not to read may be found yet.
    Early(Start),
    /// Not before the files it depends on are found, or known to be gone.
    Awaited(Start),
}

/// What a reader takes its place with.
#[derive(Debug)]
pub(in crate::sources) struct Taking<'a> {
    /// Opens files.
    pub(in crate::sources) opener: &'a Opener,
    /// The read buffer, shared by all readers.
    pub(in crate::sources) chunk: &'a mut [u8],
    /// Counts what is gone.
    pub(in crate::sources) counts: Counts,
}

impl<F: Form> Reader<F> {
    /// Has the reader begin elsewhere than with the first file.
    pub(in crate::sources) fn begin_at(&mut self, start: Start) {
        self.place = Place::Awaited(start);
    }

    /// Returns whether it has its place; until then it reads nothing and wants every file.
    pub(in crate::sources) fn is_placed(&self) -> bool {
        !matches!(self.place, Place::Awaited(_))
    }

    /// Returns whether it has its place, or what is known of `files` is enough to take it.
    pub(in crate::sources) fn can_take_place(&self, files: &Files) -> bool {
        let Place::Awaited(start) = &self.place else { return true };
        let is_found = match start {
            Start::Mark(mark) => {
                let previous = mark.previous.as_ref().filter(|_| mark.groups.iter().any(|group| group.in_previous));
                files.has(&mark.file) && previous.is_none_or(|previous| files.has(previous))
            }
            Start::End => files.has_newest(),
        };
        is_found || files.is_complete()
    }

    /// Takes what listings found, in the order it was written, and its place as soon as that is known.
    pub(in crate::sources) fn take_found(&mut self, new: &[u32], files: &mut Files, taking: &mut Taking<'_>) {
        self.count_late(files, &mut taking.counts);
        if self.is_placed() {
            for file in new.iter().filter_map(|serial| files.get(*serial)) {
                if file.is_copy || self.is_not_for_it(file, files) {
                    self.done.push(file.serial);
                } else {
                    self.queue.push_back(file.serial);
                }
            }
        } else if !self.can_take_place(files) {
            return;
        } else if let Place::Awaited(start) = std::mem::take(&mut self.place) {
            match &start {
                Start::Mark(mark) => self.resume(files, mark, &mut taking.counts),
                Start::End if self.skip_to_end(files, taking).is_err() => {
                    taking.counts.read_errors += 1;
                    self.place = Place::Awaited(start);
                    return;
                }
                Start::End => {}
            }
            self.place = Place::Early(start);
        }
        if files.is_complete() {
            self.place = Place::Taken;
        }
    }

    /// Takes every file there is.
    pub(in crate::sources) fn take_all(&mut self, files: &Files) {
        self.queue.extend(files.all());
    }

    /// Returns whether a file that is found late was read before, or left unread on purpose.
    fn is_not_for_it(&self, file: &LogFile, files: &Files) -> bool {
        match &self.place {
            Place::Early(Start::Mark(mark)) => {
                file.done_hash().is_some_and(|hash| mark.done.contains(&hash)) || self.is_below_floor(file)
            }
            Place::Early(Start::End) => {
                let current = self.queue.front().and_then(|serial| files.get(*serial));
                current.is_some_and(|current| file.key < current.key)
            }
            Place::Taken | Place::Awaited(_) => false,
        }
    }

    /// Takes up where `mark` stood. A file that is gone is counted, and so is a tail that is.
    fn resume(&mut self, files: &Files, mark: &Mark, counts: &mut Counts) {
        let files = files.in_order();
        let begun = mark.groups.iter().any(|group| group.in_previous);
        let before = mark.previous.as_ref().filter(|_| begun).and_then(|id| find(&files, id));
        let current = find(&files, &mark.file).or_else(|| find_behind(&files, before?, &mark.file));
        let previous = before.filter(|_| current.is_some());
        self.floor.clone_from(&mark.floor);
        let newest = files.last().map(|file| &file.key);
        let others = files.iter().filter(|file| ![current, previous].contains(&Some(file.serial)));
        for file in others {
            // An empty file is not listed as done; one that has a successor stays empty.
            let is_known = file.done_hash().map_or(Some(&file.key) != newest, |hash| mark.done.contains(&hash));
            let is_done = is_known || file.is_copy || self.is_below_floor(file);
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

    /// Leaves what is there now unread: begins at the end of the newest file, behind its last line break.
    fn skip_to_end(&mut self, files: &mut Files, taking: &mut Taking<'_>) -> io::Result<()> {
        let mut older = files.all();
        let Some(file) = older.pop().and_then(|newest| files.get_mut(newest)) else {
            return Ok(());
        };
        match last_line_break(file, taking) {
            Ok(offset) => {
                self.offset = offset;
                self.generation = Some((file.serial, file.generation));
                self.queue.push_back(file.serial);
            }
            // What cannot be read and is gone is left unread all the same.
            Err(_) if file.gone_at.is_some() => self.done.push(file.serial),
            Err(error) => return Err(error),
        }
        self.done.extend(older);
        Ok(())
    }
}

/// Returns where the last line of a file begins that is not finished; of a compressed one, which grows no more, its beginning.
fn last_line_break(file: &mut LogFile, taking: &mut Taking<'_>) -> io::Result<u64> {
    file.reopen(taking.opener)?;
    if file.reads_gzip() {
        return Ok(0);
    }
    let size = file.size()?;
    let from = size.saturating_sub(taking.chunk.len() as u64);
    let length = file.read(from, taking.chunk, &mut None)?;
    let line = memchr::memrchr(b'\n', &taking.chunk[..length]).map(|at| from + at as u64 + 1);
    Ok(line.unwrap_or(if from == 0 { 0 } else { size }))
}
