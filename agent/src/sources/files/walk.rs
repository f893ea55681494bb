//! Finding what patterns mean: names, inodes and sizes, and nothing opened.

use std::collections::HashMap;
use std::fs::DirEntry;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillway_crds::paths::PathPattern;
use spillway_delivery::clock::UnixNanos;

use super::{DEPTH_MAX, DIRECTORIES_MAX, ENTRIES_MAX, StartAt, position, rotated};
use crate::sources::tail::file::{Entry, Opener};
use crate::sources::tail::order::{FileKey, FileName};

/// One pattern of the pipeline.
#[derive(Debug)]
pub(super) struct Wanted {
    /// What it means.
    pub(super) pattern: PathPattern,
    /// What it is known by.
    pub(super) hash: u64,
    /// Where files are begun that are there when it is seen for the first time.
    pub(super) start_at: StartAt,
    root: Arc<Path>,
}

impl Wanted {
    /// Returns what is wanted by a pattern.
    pub(super) fn new(pattern: PathPattern, start_at: StartAt) -> Self {
        Self { hash: position::pattern_hash(pattern.text()), root: pattern.root().into(), pattern, start_at }
    }
}

/// A file that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Where it is, and what it is.
    pub(super) entry: Entry,
    /// Which device its inode is of.
    pub(super) device: u64,
    /// When it was written last, by the file system.
    pub(super) modified: UnixNanos,
    /// The first pattern that means it, by its place in the list; of a rotated one that which means its name before.
    pub(super) wanted: usize,
    /// Whether a pattern means it as it is called.
    pub(super) is_meant: bool,
    /// The wanted name that it had before a rotation, as its name tells.
    pub(super) before: Option<PathBuf>,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Every file that is meant, once, and those besides that are known or rotated.
    pub(super) found: Vec<Found>,
    /// Entries that are meant and are no regular files.
    pub(super) refused: usize,
    /// Whether nothing can be there that was not found.
    pub(super) is_complete: bool,
    /// Failures to read or look at something.
    pub(super) failed: u64,
    by_inode: HashMap<(u64, u64), usize>,
}

/// A directory that a walk has yet to read.
struct Ahead {
    directory: PathBuf,
    at: Vec<usize>,
    depth: usize,
}

impl Walk {
    /// Looks for what is wanted. Tells of each directory before it reads it; takes in files whose inode `is_known`, too.
    pub(super) fn over(
        wanted: &[Wanted],
        opener: &Opener,
        is_known: &dyn Fn(u64) -> bool,
        mut enters: impl FnMut(&Path),
    ) -> Self {
        let mut walk = Self { is_complete: true, ..Self::default() };
        for (index, one) in wanted.iter().enumerate() {
            let mut ahead = vec![Ahead { directory: one.root.to_path_buf(), at: one.pattern.begin(), depth: 0 }];
            let (mut directories, mut entries) = (0, 0);
            while let Some(next) = ahead.pop() {
                directories += 1;
                if directories > DIRECTORIES_MAX || entries >= ENTRIES_MAX {
                    walk.is_complete = false;
                    break;
                }
                enters(&next.directory);
                let listed = opener.list(&next.directory);
                match &listed {
                    Ok(_) => {}
                    // Nothing in it is for us, as long as that stays so.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => walk.failed += 1,
                    Err(error) => walk.fail(error),
                }
                for entry in listed.into_iter().flatten().take(ENTRIES_MAX - entries) {
                    entries += 1;
                    match entry.and_then(|entry| walk.take((index, one), &entry, &next, (opener, is_known))) {
                        Ok(deeper) => ahead.extend(deeper),
                        Err(error) => walk.fail(&error),
                    }
                }
            }
        }
        walk
    }

    /// Takes an entry in; returns the directory that is to be read because of it.
    fn take(
        &mut self,
        (index, wanted): (usize, &Wanted),
        entry: &DirEntry,
        here: &Ahead,
        (opener, is_known): (&Opener, &dyn Fn(u64) -> bool),
    ) -> io::Result<Option<Ahead>> {
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() {
            let at = wanted.pattern.enter(&here.at, &name);
            let goes_on = !at.is_empty() && here.depth < DEPTH_MAX;
            return Ok(goes_on.then(|| Ahead { directory: entry.path(), at, depth: here.depth + 1 }));
        }
        let is_meant = wanted.pattern.ends(&here.at, &name);
        let before = name.to_str().and_then(rotated::before);
        let before = before.filter(|before| wanted.pattern.ends(&here.at, before.as_ref()));
        if !is_meant && before.is_none() && !is_known(entry.ino()) {
            return Ok(None);
        }
        if !kind.is_file() {
            self.refused += usize::from(is_meant);
            return Ok(None);
        }
        let path = entry.path();
        let metadata = opener.look(&path)?;
        if !metadata.is_file() {
            self.refused += usize::from(is_meant);
            return Ok(None);
        }
        let found = Found {
            device: metadata.dev(),
            modified: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
            wanted: index,
            is_meant,
            before: before.map(|before| here.directory.join(before)),
            entry: Entry {
                name: FileName { key: FileKey::ONLY, gzip: false },
                path,
                inode: metadata.ino(),
                size: metadata.len(),
                beneath: Some(wanted.root.clone()),
            },
        };
        self.add(found);
        Ok(None)
    }

    /// A file that two patterns or two names lead to is one: under the first that is meant.
    fn add(&mut self, found: Found) {
        match self.by_inode.get(&(found.device, found.entry.inode)) {
            None => {
                self.by_inode.insert((found.device, found.entry.inode), self.found.len());
                self.found.push(found);
            }
            Some(index) if found.is_meant && !self.found[*index].is_meant => self.found[*index] = found,
            Some(_) => {}
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.is_complete = false;
        // What is gone meanwhile, or is not there yet, is no failure.
        self.failed += u64::from(error.kind() != io::ErrorKind::NotFound);
    }
}
