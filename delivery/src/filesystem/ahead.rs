//! When to begin to bring what was written to the disk, ahead of the sync that waits for it.
//!
//! A file that grows by a hundred megabytes between two syncs keeps its writer waiting for all of them at the second; one
//! whose pages are on their way since they were written, for the last of them.

use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsFd;

/// Bytes behind the last beginning at which the next is due: few enough that little is left for the sync, many enough that
/// the disk gets them in large pieces.
pub const AHEAD_BYTES: u64 = 1 << 20;

/// A page is begun once it is full: one that is written to again goes to the disk twice.
const PAGE_BYTES: u64 = 4096;

/// How far the bytes of one file are on their way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ahead {
    begun: u64,
}

impl Ahead {
    /// Starts at the end of a file.
    pub fn of(end: u64) -> Self {
        Self { begun: end / PAGE_BYTES * PAGE_BYTES }
    }

    /// Returns the bytes to begin with now that the file ends at `end`: full pages, none twice, at least [`AHEAD_BYTES`].
    pub fn due(&mut self, end: u64) -> Option<Range<u64>> {
        let range = self.begun..end / PAGE_BYTES * PAGE_BYTES;
        // A file that was cut begins there again.
        self.begun = self.begun.min(range.end);
        let due = range.end >= range.start + AHEAD_BYTES;
        due.then(|| {
            self.begun = range.end;
            range
        })
    }
}

/// Begins to bring `bytes` of a file to the disk and waits for nothing. Promises nothing; what fails is left to the sync.
pub fn begin_sync(file: impl AsFd, bytes: Range<u64>) {
    // Linux begins to write the pages of a range when it is told that they are not needed, and drops those that are on the
    // disk already (posix_fadvise(2)). Unlike sync_file_range(2) it takes no error away from the sync that is to come.
    if let Some(len) = NonZeroU64::new(bytes.end.saturating_sub(bytes.start)) {
        rustix::fs::fadvise(file, bytes.start, Some(len), rustix::fs::Advice::DontNeed).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_full_page_is_begun_once() {
        let mut ahead = Ahead::of(5000);
        assert_eq!(ahead.due(AHEAD_BYTES), None, "a page less than is due");
        assert_eq!(ahead.due(AHEAD_BYTES + 4095 + 4096), Some(4096..AHEAD_BYTES + 4096));
        assert_eq!(ahead.due(AHEAD_BYTES + 8192), None);
        assert_eq!(ahead.due(3 * AHEAD_BYTES), Some(AHEAD_BYTES + 4096..3 * AHEAD_BYTES));
    }

    #[test]
    fn a_file_that_was_cut_begins_where_it_was_cut() {
        let mut ahead = Ahead::of(0);
        assert_eq!(ahead.due(2 * AHEAD_BYTES), Some(0..2 * AHEAD_BYTES));
        assert_eq!(ahead.due(AHEAD_BYTES / 2), None);
        assert_eq!(ahead.due(2 * AHEAD_BYTES), Some(AHEAD_BYTES / 2..2 * AHEAD_BYTES));
    }
}
