//! The files of one unit: of a container, whatever names they have now; or one file.
//!
//! A known file that has no name any more stays while somebody reads it: its descriptor is held, and its bytes are there until
//! it is closed.

use std::time::Duration;

use tokio::time::Instant;

use super::file::{Entry, LogFile};
use super::order::Age;
use super::position::FileId;

/// How long a file may still be written after its successor appeared: containerd makes the new file first and then
/// lets go of the old one, microseconds later.
pub(in crate::sources) const ROTATION_GRACE: Duration = Duration::from_millis(200);

/// How long a file may still be written after it was unlinked; the kubelet unlinks when the container is gone.
pub(in crate::sources) const UNLINK_GRACE: Duration = Duration::from_secs(1);

/// Whether a file will grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Growth {
    /// It may.
    Open,
    /// It is replaced or unlinked, so recently that a last write may be under way.
    Closing,
    /// It will not.
    Closed,
}

/// The files of one unit.
#[derive(Debug, Default)]
pub(in crate::sources) struct Files {
    /// The files, in the order they were found.
    pub(in crate::sources) list: Vec<LogFile>,
    /// The serial of the next one.
    pub(in crate::sources) serial_next: u32,
    /// What the last listing left open.
    pub(in crate::sources) last: Last,
}

/// What the last listing left open.
#[derive(Debug, Default)]
pub(in crate::sources) struct Last {
    /// Hash of its names and inodes, `None` before the first.
    pub(in crate::sources) hash: Option<u64>,
    /// What it had and could not be opened.
    pub(in crate::sources) unopened: Vec<Entry>,
    /// Whether something was renamed or deleted meanwhile.
    pub(in crate::sources) has_vanished: bool,
    /// Whether something could not be looked at or opened that may be there.
    pub(in crate::sources) has_failed: bool,
    /// Whether nothing is there that is not known.
    pub(in crate::sources) is_complete: bool,
}

impl Files {
    /// Returns the files of a unit that has but one.
    pub(in crate::sources) fn of(file: LogFile) -> Self {
        let last = Last { hash: Some(0), is_complete: true, ..Last::default() };
        Self { serial_next: file.serial + 1, list: vec![file], last }
    }

    /// Takes note that the directory is gone.
    pub(in crate::sources) fn end(&mut self, now: Instant) {
        for file in &mut self.list {
            file.listed = false;
            file.gone_at.get_or_insert(now);
        }
        self.last = Last { is_complete: true, ..Last::default() };
    }

    /// Returns whether there is no file that is not known: one that is lacking is gone.
    pub(in crate::sources) fn is_complete(&self) -> bool {
        self.last.is_complete
    }

    /// Returns whether the directory changed while it was listed, so that the next listing says more.
    pub(in crate::sources) fn has_vanished(&self) -> bool {
        self.last.has_vanished
    }

    /// Returns whether something could not be read that another listing right now would not read either.
    pub(in crate::sources) fn has_failed(&self) -> bool {
        self.last.has_failed
    }

    /// Returns whether the file that a position means is known, and not one that could not be opened.
    pub(in crate::sources) fn has(&self, id: &FileId) -> bool {
        !self.last.unopened.iter().any(|entry| entry.inode == id.inode) && find(&self.in_order(), id).is_some()
    }

    /// Returns whether no newer file than those that are known is there.
    pub(in crate::sources) fn has_newest(&self) -> bool {
        let newest = self.list.iter().map(|file| &file.key).max();
        let is_older = |entry: &Entry| newest.is_some_and(|newest| entry.name.key < *newest);
        self.last.hash.is_some() && !self.last.has_vanished && self.last.unopened.iter().all(is_older)
    }

    /// Sorts files by the order they were written, as far as their names tell.
    pub(in crate::sources) fn sort(&self, serials: &mut [u32]) {
        serials.sort_by_key(|serial| self.get(*serial).map(|file| &file.key));
    }

    /// Returns every file in the order they were written.
    pub(in crate::sources) fn all(&self) -> Vec<u32> {
        self.in_order().into_iter().map(|file| file.serial).collect()
    }

    /// Returns a file.
    pub(in crate::sources) fn get(&self, serial: u32) -> Option<&LogFile> {
        self.list.iter().find(|file| file.serial == serial)
    }

    /// Returns a file to be changed.
    pub(in crate::sources) fn get_mut(&mut self, serial: u32) -> Option<&mut LogFile> {
        self.list.iter_mut().find(|file| file.serial == serial)
    }

    /// Returns every file in the order they were written, as far as their names tell.
    pub(in crate::sources) fn in_order(&self) -> Vec<&LogFile> {
        let mut files: Vec<&LogFile> = self.list.iter().collect();
        files.sort_by(|a, b| a.key.cmp(&b.key));
        files
    }

    /// Tells whether a file will grow, given the one that follows it.
    pub(in crate::sources) fn growth(&self, serial: u32, successor: Option<u32>, now: Instant) -> Growth {
        let file = self.get(serial);
        // A file that still has its name grows, whatever older one of its restart was found late.
        let is_live =
            |next: &LogFile| file.is_some_and(|file| file.key.age == Age::Live && file.key.restart == next.key.restart);
        let closing = match successor.and_then(|next| self.get(next)).filter(|next| !is_live(next)) {
            Some(next) => Some(next.seen_at + ROTATION_GRACE),
            None => file.and_then(|file| file.gone_at).map(|gone| gone + UNLINK_GRACE),
        };
        match closing {
            None => Growth::Open,
            Some(until) if now < until => Growth::Closing,
            Some(_) => Growth::Closed,
        }
    }

    /// Closes files that `is_wanted` by nobody, and forgets those that have no name either.
    pub(in crate::sources) fn release(&mut self, is_wanted: impl Fn(u32) -> bool) {
        self.list.retain_mut(|file| {
            let wanted = is_wanted(file.serial);
            if !wanted {
                file.close();
            }
            wanted || file.gone_at.is_none()
        });
    }
}

/// Finds the file a position means: the same inode first, else the same head under another (compressed, copied).
pub(in crate::sources) fn find(files: &[&LogFile], id: &FileId) -> Option<u32> {
    let exact = files.iter().find(|file| file.matches(id, true));
    exact.or_else(|| files.iter().find(|file| file.matches(id, false))).map(|file| file.serial)
}

/// Finds a file by the one that it came after: its head may have been too short to tell it from others.
pub(in crate::sources) fn find_behind(files: &[&LogFile], before: u32, id: &FileId) -> Option<u32> {
    let place = files.iter().position(|file| file.serial == before)?;
    files.get(place + 1).filter(|file| file.begins_as(id)).map(|file| file.serial)
}
