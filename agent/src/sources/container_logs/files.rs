//! The files of one container, found again under whatever names they have now.
//!
//! A listing of the directory is merged into what is known: by inode (renamed), by name (compressed), by head
//! (compressed or copied while nobody looked); what is left is new. A known file that has no name any more stays while
//! somebody reads it: its descriptor is held, and its bytes are there until it is closed.
//!
//! A name is read, looked at and opened one after the other, and a rotation comes in between any two of these: what a
//! listing lacks may be there all the same. [`Files::is_complete`] says when nothing can be that is not known.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::file::{Entry, LogFile, Opener};
use super::layout::{Age, file_name};
use super::position::FileId;
use super::stats::ContainerLogStats;

/// How long a file may still be written after its successor appeared: containerd makes the new file first and then
/// lets go of the old one, microseconds later.
pub(super) const ROTATION_GRACE: Duration = Duration::from_millis(200);

/// How long a file may still be written after it was unlinked; the kubelet unlinks when the container is gone.
pub(super) const UNLINK_GRACE: Duration = Duration::from_secs(1);

/// Most files of one container that are looked at; the kubelet keeps five. What is above waits until others are gone.
const FILES_MAX: usize = 256;

/// Whether a file will grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// It may.
    Open,
    /// It is replaced or unlinked, so recently that a last write may be under way.
    Closing,
    /// It will not.
    Closed,
}

/// The files of one container.
#[derive(Debug, Default)]
pub(super) struct Files {
    list: Vec<LogFile>,
    serial_next: u32,
    last: Last,
}

/// What the last listing left open.
#[derive(Debug, Default)]
struct Last {
    /// Hash of its names and inodes, `None` before the first.
    hash: Option<u64>,
    /// What it had and could not be opened.
    unopened: Vec<Entry>,
    /// Whether something was renamed or deleted meanwhile.
    has_vanished: bool,
    /// Whether something could not be looked at or opened that may be there.
    has_failed: bool,
    /// Whether nothing is there that is not known.
    is_complete: bool,
}

/// The log files of a directory.
#[derive(Debug, Default)]
struct Listing {
    entries: Vec<Entry>,
    refused: usize,
    vanished: usize,
    failed: usize,
}

impl Listing {
    /// Lists `directory` in the order its files were written.
    fn read(directory: &Path, opener: &Opener) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in opener.list(directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(file_name) else {
                continue;
            };
            let path = entry.path();
            match opener.look(&path) {
                Ok(metadata) if metadata.is_file() => {
                    listing.entries.push(Entry { name, path, inode: metadata.ino(), size: metadata.len() });
                }
                Ok(_) => listing.refused += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => listing.vanished += 1,
                Err(_) => listing.failed += 1,
            }
        }
        listing.entries.sort_by(|a, b| (&a.name.key, a.name.gzip).cmp(&(&b.name.key, b.name.gzip)));
        listing.entries.truncate(FILES_MAX);
        Ok(listing)
    }

    fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for entry in &self.entries {
            hash.update(entry.path.file_name().unwrap_or_default().as_encoded_bytes());
            // A name holds no slash.
            hash.update(b"/");
            hash.update(&entry.inode.to_le_bytes());
        }
        hash.digest()
    }
}

impl Files {
    /// Lists `directory` and takes in what is there: `new` gets the files nobody knew. Returns how many entries were
    /// refused.
    pub(super) fn list(
        &mut self,
        directory: &Path,
        opener: &Opener,
        now: Instant,
        new: &mut Vec<u32>,
    ) -> io::Result<usize> {
        let before = std::mem::take(&mut self.last).hash;
        let listing = Listing::read(directory, opener)?;
        let (hash, refused) = (listing.hash(), listing.refused);
        opener.stats.read_errors.fetch_add(listing.failed as u64, Ordering::Relaxed);
        self.last = Last {
            hash: Some(hash),
            has_vanished: listing.vanished > 0,
            has_failed: listing.failed > 0,
            ..Last::default()
        };
        self.merge(listing.entries, opener, now, new);
        let is_known = !self.last.has_vanished && !self.last.has_failed && self.last.unopened.is_empty();
        // What had another name when the names were read than when they were looked at has one in the listing before.
        self.last.is_complete = is_known && before == Some(hash);
        Ok(refused)
    }

    /// Takes note that the directory is gone.
    pub(super) fn end(&mut self, now: Instant) {
        for file in &mut self.list {
            file.listed = false;
            file.gone_at.get_or_insert(now);
        }
        self.last = Last { is_complete: true, ..Last::default() };
    }

    /// Returns whether there is no file that is not known: one that is lacking is gone.
    pub(super) fn is_complete(&self) -> bool {
        self.last.is_complete
    }

    /// Returns whether the directory changed while it was listed, so that the next listing says more.
    pub(super) fn has_vanished(&self) -> bool {
        self.last.has_vanished
    }

    /// Returns whether something could not be read that another listing right now would not read either.
    pub(super) fn has_failed(&self) -> bool {
        self.last.has_failed
    }

    /// Returns whether the file that a position means is known, and not one that could not be opened.
    pub(super) fn has(&self, id: &FileId) -> bool {
        !self.last.unopened.iter().any(|entry| entry.inode == id.inode) && find(&self.in_order(), id).is_some()
    }

    /// Returns whether no newer file than those that are known is there.
    pub(super) fn has_newest(&self) -> bool {
        let newest = self.list.iter().map(|file| &file.key).max();
        let is_older = |entry: &Entry| newest.is_some_and(|newest| entry.name.key < *newest);
        self.last.hash.is_some() && !self.last.has_vanished && self.last.unopened.iter().all(is_older)
    }

    /// Sorts files by the order they were written, as far as their names tell.
    pub(super) fn sort(&self, serials: &mut [u32]) {
        serials.sort_by_key(|serial| self.get(*serial).map(|file| &file.key));
    }

    fn merge(&mut self, entries: Vec<Entry>, opener: &Opener, now: Instant, new: &mut Vec<u32>) {
        for file in &mut self.list {
            file.listed = false;
        }
        let unknown: Vec<Entry> =
            entries.into_iter().filter(|entry| !self.take_renamed(entry, &opener.stats)).collect();
        for entry in unknown {
            if !self.take_compressed(&entry) {
                self.take_unknown(entry, opener, now, new);
            }
        }
        let Self { list, last, .. } = self;
        if !last.has_vanished {
            let is_unopened = |file: &LogFile| last.unopened.iter().any(|entry| file.has_inode_of(entry));
            for file in list.iter_mut().filter(|file| !file.listed && !is_unopened(file)) {
                file.gone_at.get_or_insert(now);
            }
        }
    }

    /// Returns every file in the order they were written.
    pub(super) fn all(&self) -> Vec<u32> {
        self.in_order().into_iter().map(|file| file.serial).collect()
    }

    /// Returns a file.
    pub(super) fn get(&self, serial: u32) -> Option<&LogFile> {
        self.list.iter().find(|file| file.serial == serial)
    }

    /// Returns a file to be changed.
    pub(super) fn get_mut(&mut self, serial: u32) -> Option<&mut LogFile> {
        self.list.iter_mut().find(|file| file.serial == serial)
    }

    /// Returns every file in the order they were written, as far as their names tell.
    pub(super) fn in_order(&self) -> Vec<&LogFile> {
        let mut files: Vec<&LogFile> = self.list.iter().collect();
        files.sort_by(|a, b| a.key.cmp(&b.key));
        files
    }

    /// Tells whether a file will grow, given the one that follows it.
    pub(super) fn growth(&self, serial: u32, successor: Option<u32>, now: Instant) -> Growth {
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
    pub(super) fn release(&mut self, is_wanted: impl Fn(u32) -> bool) {
        self.list.retain_mut(|file| {
            let wanted = is_wanted(file.serial);
            if !wanted {
                file.close();
            }
            wanted || file.gone_at.is_none()
        });
    }

    fn take_renamed(&mut self, entry: &Entry, stats: &ContainerLogStats) -> bool {
        let Some(file) = self.list.iter_mut().find(|file| !file.listed && file.is_entry(entry)) else {
            return false;
        };
        if file.key.age == Age::Live && entry.name.key.age != Age::Live {
            stats.rotated.fetch_add(1, Ordering::Relaxed);
        }
        file.rename(entry);
        true
    }

    fn take_compressed(&mut self, entry: &Entry) -> bool {
        let is_same = |file: &&mut LogFile| {
            file.key == entry.name.key && entry.name.key.age != Age::Live && (file.gzip || entry.name.gzip)
        };
        let Some(file) = self.list.iter_mut().find(is_same) else {
            return false;
        };
        if !file.listed {
            file.rename(entry);
        }
        true
    }

    fn take_unknown(&mut self, entry: Entry, opener: &Opener, now: Instant, new: &mut Vec<u32>) {
        let mut file = match LogFile::open(self.serial_next, entry.clone(), now, opener) {
            Ok(file) => file,
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    self.last.has_vanished = true;
                } else {
                    self.last.has_failed = true;
                    opener.stats.read_errors.fetch_add(1, Ordering::Relaxed);
                }
                self.last.unopened.push(entry);
                return;
            }
        };
        let known = self.list.iter_mut().filter(|known| known.has_head_of(&file));
        match known.max_by_key(|known| !known.listed) {
            Some(known) if !known.listed => return known.rename(&entry),
            known => file.is_copy = known.is_some(),
        }
        new.push(file.serial);
        self.serial_next += 1;
        self.list.push(file);
    }
}

/// Finds the file a position means: the same inode first, else the same head under another (compressed, copied).
pub(super) fn find(files: &[&LogFile], id: &FileId) -> Option<u32> {
    let exact = files.iter().find(|file| file.matches(id, true));
    exact.or_else(|| files.iter().find(|file| file.matches(id, false))).map(|file| file.serial)
}
