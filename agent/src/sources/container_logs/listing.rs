//! The files of one container, found again under whatever names they have now.
//!
//! A listing of the directory is merged into what is known: by inode (renamed), by name (compressed), by head
//! (compressed or copied while nobody looked); what is left is new.
//!
//! A name is read, looked at and opened one after the other, and a rotation comes in between any two of these: what a
//! listing lacks may be there all the same. [`Files::is_complete`] says when nothing can be that is not known.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::cri::Cri;
use super::layout::file_name;
use crate::sources::tail::file::{Entry, LogFile, Opener};
use crate::sources::tail::files::{Files, Last};
use crate::sources::tail::order::Age;
use crate::sources::tail::reader::Taking;
use crate::sources::tail::stats::TailStats;
use crate::sources::tail::unit::Unit;

/// Most files of one container that are looked at; the kubelet keeps five. What is above waits until others are gone.
const FILES_MAX: usize = 256;

/// Most listings in a row of a directory that changes meanwhile: one rotation takes three, and the kubelet has minutes
/// between two. After that the next event or scan goes on.
const LISTINGS_MAX: usize = 6;

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
                    listing.entries.push(Entry {
                        name,
                        path,
                        inode: metadata.ino(),
                        size: metadata.len(),
                        beneath: None,
                    });
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

    fn take_renamed(&mut self, entry: &Entry, stats: &TailStats) -> bool {
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
        // One that has lost its name may have been seen empty, and read by nobody since.
        for known in self.list.iter_mut().filter(|known| !known.listed && known.is_open()) {
            if let Err(error) = known.check_head() {
                tracing::debug!(path = %known.path.display(), %error, "the head of a file cannot be read");
            }
        }
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

impl Unit<Cri> {
    /// Lists the directory, again until what is found is enough for every reader, and lets them take it; returns how many
    /// entries were refused.
    pub(super) fn look(&mut self, taking: &mut Taking<'_>, now: Instant) -> io::Result<usize> {
        let Self { path: directory, files, seats, .. } = self;
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
}
