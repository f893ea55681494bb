//! The files of one container, found again under whatever names they have now.
//!
//! A listing of the directory is merged into what is known: by inode (renamed), by name (compressed), by head
//! (compressed or copied while nobody looked); what is left is new. A known file that has no name any more stays while
//! somebody reads it: its descriptor is held, and its bytes are there until it is closed.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::file::{Entry, LogFile, Opener};
use super::layout::{Age, file_name};
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

/// What a listing brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Files nobody read, in the order they were written.
    pub(super) new: Vec<u32>,
    /// Files that begin as another that still has its name: copies made before a truncation.
    pub(super) copies: Vec<u32>,
}

/// The files of one container.
#[derive(Debug, Default)]
pub(super) struct Files {
    list: Vec<LogFile>,
    serial_next: u32,
}

/// Lists the log files of `directory`, in the order they were written; returns how many entries were refused.
pub(super) fn list(directory: &Path, opener: &Opener) -> io::Result<(Vec<Entry>, usize)> {
    use std::os::unix::fs::MetadataExt;
    let (mut entries, mut refused) = (Vec::new(), 0);
    for entry in directory.read_dir()? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(file_name) else {
            continue;
        };
        let path = entry.path();
        match opener.links.metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                entries.push(Entry { name, path, inode: metadata.ino(), size: metadata.len() });
            }
            Ok(_) => refused += 1,
            // Renamed or deleted since it was listed; the change wakes us again.
            Err(_) => {}
        }
    }
    entries.sort_by(|a, b| (&a.name.key, a.name.gzip).cmp(&(&b.name.key, b.name.gzip)));
    entries.truncate(FILES_MAX);
    Ok((entries, refused))
}

impl Files {
    /// Takes a listing in.
    pub(super) fn merge(&mut self, listing: Vec<Entry>, opener: &Opener, now: Instant) -> Found {
        for file in &mut self.list {
            file.listed = false;
        }
        let unknown: Vec<Entry> =
            listing.into_iter().filter(|entry| !self.take_renamed(entry, &opener.stats)).collect();
        let mut found = Found::default();
        for entry in unknown {
            if !self.take_compressed(&entry) {
                self.take_unknown(&entry, opener, now, &mut found);
            }
        }
        for file in self.list.iter_mut().filter(|file| !file.listed) {
            file.gone_at.get_or_insert(now);
        }
        found
    }

    /// Returns every file as if it was found just now.
    pub(super) fn all(&self) -> Found {
        Found { new: self.in_order().into_iter().map(|file| file.serial).collect(), copies: Vec::new() }
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

    fn take_unknown(&mut self, entry: &Entry, opener: &Opener, now: Instant, found: &mut Found) {
        let file = match LogFile::open(self.serial_next, entry.clone(), now, opener) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => {
                opener.stats.read_errors.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let known = self.list.iter_mut().filter(|known| known.has_head_of(&file));
        match known.max_by_key(|known| !known.listed) {
            Some(known) if !known.listed => return known.rename(entry),
            Some(_) => found.copies.push(file.serial),
            None => found.new.push(file.serial),
        }
        self.serial_next += 1;
        self.list.push(file);
    }
}
