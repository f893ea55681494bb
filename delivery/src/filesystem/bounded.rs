//! The machine's file system, of which one folder may take so many bytes and no more.
//!
//! For volumes that have a bound which is not that of their file system: who goes over the `sizeLimit` of an `emptyDir` is evicted,
//! and the kernel says nothing before. What the folder takes counts as taken of the bound, so that the floor of free space
//! that logs keep holds for it as for a small disk.
//!
//! # Limits
//! The folder is added up at each question: some tens of files. What comes between question and write may go over the bound by what
//! is on its way: the floor is there for it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{File, Filesystem, Patience, RealFs};

/// Bytes that a file system counts as one block of a file.
const BLOCK_BYTES: u64 = 512;

/// Deepest folder that is looked into.
const DEPTH_MAX: usize = 8;

/// The machine's file system with a bound for one folder.
#[derive(Debug, Clone)]
pub struct BoundedFs {
    folder: PathBuf,
    bytes_max: u64,
}

impl BoundedFs {
    /// Returns one in which `folder`, with all that is in it, takes at most `bytes_max`.
    pub fn new(folder: PathBuf, bytes_max: u64) -> Self {
        Self { folder, bytes_max }
    }
}

/// Returns how much the files below a folder take on the disk.
fn taken(folder: &Path, depth: usize) -> u64 {
    // What goes away meanwhile takes nothing.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() && depth < DEPTH_MAX => taken(&entry.path(), depth + 1),
        Ok(meta) => meta.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    });
    bytes.sum()
}

impl Filesystem for BoundedFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        RealFs.create(path)
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>> {
        RealFs.open(path, write)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealFs.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealFs.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        RealFs.list(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealFs.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealFs.rename(from, to)
    }

    fn pause(&self, time: Duration) {
        RealFs.pause(time);
    }

    fn patience(&self) -> &Patience {
        RealFs.patience()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(RealFs.free_bytes(path)?.min(self.bytes_max.saturating_sub(taken(&self.folder, 0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_folder_takes_is_taken_of_its_bound_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let bounded = BoundedFs::new(dir.path().to_owned(), 1 << 20);
        let free = || bounded.free_bytes(dir.path()).unwrap();
        assert_eq!(free(), 1 << 20);
        let inner = dir.path().join("spool/a");
        bounded.create_dir_all(&inner).unwrap();
        let file = bounded.create(&inner.join("f")).unwrap();
        file.write_at(0, &[&vec![1; 300 << 10]]).unwrap();
        file.sync().unwrap();
        assert!((700 << 10..=724 << 10).contains(&free()), "{}", free());
        file.write_at(300 << 10, &[&vec![1; 1 << 20]]).unwrap();
        file.sync().unwrap();
        assert_eq!(free(), 0);
        bounded.remove(&inner.join("f")).unwrap();
        drop(file);
        assert_eq!(free(), 1 << 20);
        // The disk may have less than the bound.
        let real = RealFs.free_bytes(dir.path()).unwrap();
        let wide = BoundedFs::new(dir.path().to_owned(), u64::MAX).free_bytes(dir.path()).unwrap();
        assert!(wide <= real + (1 << 30), "{wide} of {real}");
    }
}
