//! Files that are found and not followed yet: whose position they take, and which are not for us.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use spillway_delivery::json;
use tokio::time::Instant;

use super::super::walk::Found;
use super::super::{FILES_MAX, position};
use super::{Plain, Seen, Tailer};
use crate::sources::tail::StartAt;
use crate::sources::tail::assemble::MEMBERS_BYTES_MAX;
use crate::sources::tail::file::LogFile;
use crate::sources::tail::files::Files;
use crate::sources::tail::position::Mark;
use crate::sources::tail::reader::{Reader, Start};
use crate::sources::tail::stats::TailStats;
use crate::sources::tail::unit::{Gate, Seat, Unit};

/// Most paths that are remembered as told of because they cannot be opened.
const UNREADABLE_MAX: usize = 1_024;

/// How long before a pattern was seen a file may seem to be written that was written since: file systems tell no finer time.
const TIME_SLACK_NANOS: i64 = 2_000_000_000;

/// A new file: whose position it has from now on, and where it is begun.
struct Begin {
    source: Bytes,
    at: At,
    is_known: bool,
}

/// Where a file is begun.
enum At {
    /// At its beginning.
    Beginning,
    /// Behind its last whole line.
    End,
    /// Where a position says.
    Mark(Mark),
    /// The same, which was that of the file it is a copy of.
    MarkOfCopied(Mark),
    /// Not at all: it is a copy of what is read.
    Nowhere,
}

impl Tailer {
    /// Begins to follow files; returns how many are left out since there are too many.
    pub(super) fn enter_new(&mut self, new: Vec<Found>, names_before: &HashMap<PathBuf, u32>, now: Instant) -> usize {
        let (mut left_out, mut others) = (0, Vec::new());
        let mut names = Names { before: names_before, copied: HashMap::new() };
        // First what positions tell: then it is known which of them are left for files that have another inode now.
        for found in new {
            let inode = (found.device, found.entry.inode);
            if self.ignored.get(&inode) == Some(&found.modified) {
                continue;
            }
            if self.core.units.len() + others.len() >= FILES_MAX {
                left_out += 1;
                continue;
            }
            let Some(file) = self.open(&found, now) else { continue };
            let may_become_copy = found.before.is_some() && found.entry.size == 0;
            match self.own_position(&found, &file) {
                Some(begin) => self.enter(file, &found, begin, &mut names),
                None if may_become_copy => {}
                None => others.push((file, found)),
            }
        }
        // Copies before what they are copies of.
        others.sort_by_key(|(_, found)| found.before.is_none());
        for (file, found) in others {
            match self.begin_of(&found, &file) {
                Some(begin) => self.enter(file, &found, begin, &mut names),
                None => drop(self.ignored.insert((found.device, found.entry.inode), found.modified)),
            }
        }
        left_out
    }

    fn open(&mut self, found: &Found, now: Instant) -> Option<LogFile> {
        let path = &found.entry.path;
        match LogFile::open(0, found.entry.clone(), now, &self.core.opener) {
            Ok(file) => {
                self.unreadable.remove(path);
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Renamed or deleted meanwhile; another look tells.
                self.is_asked = true;
                None
            }
            Err(error) => {
                TailStats::add(&self.core.stats.read_errors, 1);
                if self.unreadable.len() < UNREADABLE_MAX && self.unreadable.insert(path.clone()) {
                    tracing::warn!(file = %path.display(), %error, "a file that is wanted cannot be opened");
                }
                None
            }
        }
    }

    /// Takes the position of the file with this inode and this beginning, if the pipeline has one.
    fn own_position(&mut self, found: &Found, file: &LogFile) -> Option<Begin> {
        let marks = self.recovered.get(&found.entry.inode)?;
        let own = || marks.iter().enumerate().filter(|(_, (_, mark))| file.matches(&mark.file, true));
        let is_here = position::is_at(&found.entry.path);
        let index = own().find(|(_, (source, _))| is_here(source)).or_else(|| own().next())?.0;
        let (source, mark) = self.take_recovered(found.entry.inode, index)?;
        let is_wanted = found.is_meant
            || found.before.is_some()
            || self.wanted.iter().any(|one| position::is_of(&source, one.hash));
        if !is_wanted {
            // An edit took its pattern away.
            self.core.lanes[0].farewells.push_back(source);
            return None;
        }
        let at = if position::is_copied(&mark) { At::Nowhere } else { At::Mark(mark) };
        Some(Begin { source, at, is_known: true })
    }

    fn take_recovered(&mut self, inode: u64, at: usize) -> Option<(Bytes, Mark)> {
        let marks = self.recovered.get_mut(&inode)?;
        let taken = marks.swap_remove(at);
        if marks.is_empty() {
            self.recovered.remove(&inode);
        }
        Some(taken)
    }

    /// Tells where a file is begun of which no position tells; `None` when it is not for us.
    fn begin_of(&self, found: &Found, file: &LogFile) -> Option<Begin> {
        let wanted = &self.wanted[found.wanted];
        // A file that was cut while nobody looked keeps its name in the log.
        let cut = self.recovered.get(&found.entry.inode).and_then(|marks| marks.first());
        let source = cut.map(|(source, _)| source.clone());
        let source = source.unwrap_or_else(|| position::source(wanted.hash, &found.entry.path, found.entry.inode));
        if let Some(at) = found.before.as_ref().and_then(|before| self.begin_of_copy(before, file)) {
            return Some(Begin { source, at, is_known: false });
        }
        let since = self.core.lanes[0].seen.get(&position::marker(wanted.hash));
        if !found.is_meant {
            // Older ones were never wanted; one that was written since had a wanted name while nobody looked.
            let since = since.and_then(|marker| position::seen_since(marker))?;
            found.before.as_ref().filter(|_| found.modified > since - TIME_SLACK_NANOS)?;
        }
        let skips = self.first_look_at.is_none() && since.is_none() && wanted.start_at == StartAt::End;
        Some(Begin { source, at: if skips { At::End } else { At::Beginning }, is_known: false })
    }

    /// Returns where a copy is begun, if a file with the name of a rotation is one: of the file that has the name before it, and
    /// had it all the time, to be cut after it was copied. What was cut while nobody looked is read on in the copy.
    fn begin_of_copy(&self, before: &Path, copy: &LogFile) -> Option<At> {
        let is_at = position::is_at(before);
        let is_of = |(source, mark): &&(Bytes, Mark)| is_at(source) && copy.matches(&mark.file, false);
        if let Some((_, mark)) = self.recovered.values().flatten().find(is_of) {
            return Some(At::MarkOfCopied(Mark { file: copy.id(), ..mark.clone() }));
        }
        // Whatever its name is by now.
        let had_name = |unit: &&Unit<Plain>| unit.seats.iter().any(|seat| is_at(seat.reader.source()));
        let had_head = |unit: &Unit<Plain>| unit.files.list.first().is_some_and(|known| known.had_head_of(copy));
        self.core.units.values().filter(had_name).any(had_head).then_some(At::Nowhere)
    }

    /// Returns whether another file has the inode of a copy now, which is not held open; then that is forgotten.
    pub(super) fn is_replaced(&mut self, key: u32, found: &Found, now: Instant) -> bool {
        let Some(unit) = self.core.units.get(&key) else { return true };
        let is_copy = unit.seats.iter().all(|seat| seat.gate == Gate::Closed);
        let Some(known) = unit.files.list.first().filter(|_| is_copy) else { return false };
        let is_as_seen = self.seen.get(&key).is_some_and(|seen| {
            (seen.size, seen.modified) == (found.entry.size, found.modified) && known.path == found.entry.path
        });
        if is_as_seen {
            return false;
        }
        match LogFile::open(0, found.entry.clone(), now, &self.core.opener) {
            Ok(file) if !known.has_head_of(&file) => {}
            // What cannot be opened now is looked at again when it changes.
            Ok(_) | Err(_) => return false,
        }
        self.core.lose(key, now);
        self.core.leave(key);
        !self.core.units.contains_key(&key)
    }

    fn enter(&mut self, mut file: LogFile, found: &Found, begin: Begin, names: &mut Names<'_>) {
        let Found { entry, device, modified, .. } = found;
        let Begin { source, at, is_known } = begin;
        if let Some(marks) = self.recovered.get_mut(&entry.inode) {
            file.before = marks.iter().find(|(known, _)| *known == source).map(|(_, mark)| mark.file);
            // Of a file that was cut: what is known of its new beginning takes the place of that.
            marks.retain(|(known, _)| *known != source);
        }
        let (announces, is_copy) = (matches!(at, At::End | At::MarkOfCopied(_)), matches!(at, At::MarkOfCopied(_)));
        let is_read = !matches!(at, At::Nowhere);
        if !is_read && !is_known {
            self.core.lanes[0].marks.push_back((source.clone(), position::copied(file.id()).encode()));
        }
        let multiline = self.core.lanes[0].multiline.as_ref();
        let mut reader = Reader::new(0, self.origin.clone(), source).joining(multiline);
        if let At::Mark(mark) = &at {
            file.before = mark.previous;
        }
        let files = Files::of(file);
        match at {
            At::Beginning => reader.take_all(&files),
            At::End => reader.begin_at(Start::End),
            At::Mark(mark) | At::MarkOfCopied(mark) => reader.begin_at(Start::Mark(mark)),
            At::Nowhere => {}
        }
        let before = names.before(&entry.path).filter(|key| is_read && self.core.units.contains_key(key));
        let gate = match before {
            _ if !is_read => Gate::Closed,
            Some(_) => Gate::Held,
            None => Gate::Open,
        };
        let mut unit = Unit::new(entry.path.clone(), files);
        unit.members = members(&entry.path);
        unit.seats.push(Seat { announces, gate, is_known: is_known || !is_read, ..Seat::new(reader) });
        if !is_read {
            unit.release();
        }
        self.core.lanes[0].announcing += usize::from(announces);
        let key = self.core.add(unit);
        self.by_inode.insert((*device, entry.inode), key);
        self.by_path.insert(entry.path.clone(), key);
        self.seen.insert(key, Seen { size: entry.size, modified: *modified, missed_at: None });
        if let Some(before) = before {
            self.held.insert(key, before);
            self.core.wake(before);
        }
        if is_copy {
            names.copied.extend(found.before.clone().map(|copied| (copied, key)));
        }
        self.take_place(key);
        self.core.wake(key);
    }
}

/// Who has, or had, a name that a new file may have now.
struct Names<'a> {
    /// At the look before.
    before: &'a HashMap<PathBuf, u32>,
    /// Copies that were found, by the name of what they are copies of.
    copied: HashMap<PathBuf, u32>,
}

impl Names<'_> {
    /// Returns what is to be read before a new file with a name.
    fn before(&self, path: &Path) -> Option<u32> {
        self.copied.get(path).or_else(|| self.before.get(path)).copied()
    }
}

/// Returns the members that every event of a file has besides those of its line: which file it is. Of a path too long for that
/// its end.
fn members(path: &Path) -> Box<[u8]> {
    let text = path.to_string_lossy();
    let mut from = 0;
    loop {
        let mut out = br#","file":""#.to_vec();
        json::write_escaped(&mut out, &text[from..]);
        out.push(b'"');
        if out.len() <= MEMBERS_BYTES_MAX {
            return out.into();
        }
        let cut = (out.len() - MEMBERS_BYTES_MAX).div_ceil(6);
        from = text.ceil_char_boundary(from + cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_path_too_long_for_an_event_its_end_is_told() {
        let short = members(Path::new("/a/\"b\".log"));
        assert_eq!(short.as_ref(), br#","file":"/a/\"b\".log""#);
        for name in ["ü", "\u{1}", "x"] {
            let long = members(Path::new(&format!("/{}.log", name.repeat(3_000))));
            assert!((MEMBERS_BYTES_MAX - 12..=MEMBERS_BYTES_MAX).contains(&long.len()), "{}", long.len());
            let event: serde_json::Value = serde_json::from_slice(&[b"{\"a\":1", &long[..], b"}"].concat()).unwrap();
            assert!(event["file"].as_str().unwrap().ends_with(&format!("{name}.log")));
        }
    }
}
