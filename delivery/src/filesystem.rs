//! The seam under the log: the few calls it makes to a file system.
//!
//! The real one is [`RealFs`], with a bound for a folder [`BoundedFs`]. The faulty one that tests put in its place keeps what was synced apart from what was not,
//! and can lose, tear, flip and refuse. All paths are below the data directory. All calls block.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod ahead;
mod bounded;
mod faulty;
mod patience;
mod real;

pub use ahead::{AHEAD_BYTES, Ahead, begin_sync};
pub use bounded::BoundedFs;
pub use faulty::{Call, Counts, Fault, Faults, FaultyFs, SECTOR_BYTES, SplitMix64};
pub use patience::{PAUSE_FIRST, PAUSES_MAX, Patience};
pub use real::RealFs;

/// An open file.
#[expect(clippy::len_without_is_empty, reason = "a file's length is asked for; whether it is empty never is")]
pub trait File: Send + Sync + std::fmt::Debug {
    /// Writes all of `parts`, one behind the other, at `offset`. On error any part of it may have been written.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Fills `into` from `offset` as far as the file goes and returns how many bytes that were.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Makes the data, and the length, survive power loss. After an error nothing is known of any write since the last
    /// success, and a second call proves nothing.
    fn sync(&self) -> io::Result<()>;

    /// Begins to bring what was written within `bytes` to the disk, and waits for nothing: a later [`sync`](Self::sync) has
    /// less to wait for. Promises nothing and hides no failure from that sync.
    fn begin_sync(&self, bytes: Range<u64>);

    /// Cuts the file to `len`.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Returns the length.
    fn len(&self) -> io::Result<u64>;
}

/// A file system.
pub trait Filesystem: Send + Sync + std::fmt::Debug + 'static {
    /// Creates `path`, which must not be there, for reading and writing, mode 0600.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;

    /// Opens `path` for reading and, where `write`, writing.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>>;

    /// Makes a directory and its parents, mode 0700.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the creations, removals and renames within a directory survive power loss.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns the paths within a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits before a call is made again that a device refused.
    fn pause(&self, time: Duration);

    /// Returns how long this process may still wait for the device, over all who ask it.
    fn patience(&self) -> &Patience;

    /// Returns the bytes free to this user on the volume that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}
