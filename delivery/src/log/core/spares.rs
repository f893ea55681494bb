//! Files of segments that went, written over by the next ones.
//!
//! A new file costs the file system its blocks and the page cache its pages, and a removed one gives both back: for a log
//! that is delivered as it comes that is more than half of what writing costs. A file that is written over has them.
//!
//! # Guarantees
//! Nothing is written into a file before its old name is durably gone, so a segment's name never stands for another's
//! bytes. What the old one left is no frame of the new one: see [`SegmentHeader::seed`].
//!
//! # Limits
//! At most [`SPARES_MAX`] per log, each of a full segment. They do not count in `maxBytes`: a log that grows takes them
//! first, and one that needs room drops them. An open removes what an earlier process left.
//!
//! [`SegmentHeader::seed`]: crate::log::format::SegmentHeader::seed

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::filesystem::{File, Filesystem};

/// What a spare file's name ends in; recovery removes it.
pub(in crate::log) const SPARE_EXTENSION: &str = "spare";

/// Most files that wait to be written over.
const SPARES_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Spares {
    files: Vec<PathBuf>,
    /// How many of them, from the first on, have their name durably.
    named: usize,
}

impl Spares {
    /// Takes the file of a segment that goes; false where it must be removed instead.
    pub(super) fn keep(&mut self, fs: &dyn Filesystem, path: &Path) -> bool {
        let spare = path.with_extension(SPARE_EXTENSION);
        if self.files.len() >= SPARES_MAX || fs.rename(path, &spare).is_err() {
            return false;
        }
        self.files.push(spare);
        true
    }

    /// Says that the directory was synced.
    pub(super) fn named(&mut self) {
        self.named = self.files.len();
    }

    /// Gives a file under the name `draft`, and its length; `None` where there is none that may be written.
    pub(super) fn take(&mut self, fs: &dyn Filesystem, dir: &Path, draft: &Path) -> Option<(Arc<dyn File>, u64)> {
        if self.named == 0 && !self.files.is_empty() {
            fs.sync_dir(dir).ok()?;
            self.named();
        }
        if self.files.is_empty() {
            return None;
        }
        let spare = self.files.remove(0);
        self.named -= 1;
        let taken = fs.rename(&spare, draft).and_then(|()| fs.open(draft, true));
        let taken = taken.and_then(|file| file.len().map(|len| (file, len)));
        if taken.is_err() {
            // Neither name may stay: the next segment makes its own file.
            fs.remove(&spare).ok();
            fs.remove(draft).ok();
        }
        taken.ok()
    }

    /// Removes all of them.
    pub(super) fn drop_all(&mut self, fs: &dyn Filesystem) {
        for spare in self.files.drain(..) {
            fs.remove(&spare).ok();
        }
        self.named = 0;
    }
}
