//! A part of a disk that fails for a while, beside the rest that does not.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use spillway_delivery::filesystem::{File, Filesystem};

/// How it fails, as long as it does.
pub(crate) type Broken = Arc<Mutex<Option<io::ErrorKind>>>;

fn check(broken: &Broken) -> io::Result<()> {
    let broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
    broken.map_or(Ok(()), |kind| Err(kind.into()))
}

/// A file system that writes nothing to paths that hold `part` while these are `broken`.
#[derive(Debug)]
pub(crate) struct Breaking<F> {
    pub(crate) whole: F,
    pub(crate) part: &'static str,
    pub(crate) broken: Broken,
}

impl<F> Breaking<F> {
    fn is_part(&self, path: &Path) -> bool {
        path.to_string_lossy().contains(self.part)
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        if self.is_part(path) { check(&self.broken) } else { Ok(()) }
    }

    fn file(&self, path: &Path, whole: Arc<dyn File>) -> Arc<dyn File> {
        if self.is_part(path) { Arc::new(BreakingFile { whole, broken: self.broken.clone() }) } else { whole }
    }
}

impl<F: Filesystem> Filesystem for Breaking<F> {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.check(path)?;
        Ok(self.file(path, self.whole.create(path)?))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>> {
        Ok(self.file(path, self.whole.open(path, write)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        self.whole.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        self.whole.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.whole.list(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(path)?;
        self.whole.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(to)?;
        self.whole.rename(from, to)
    }

    fn pause(&self, time: std::time::Duration) {
        self.whole.pause(time);
    }

    fn patience(&self) -> &spillway_delivery::filesystem::Patience {
        self.whole.patience()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.whole.free_bytes(path)
    }
}

#[derive(Debug)]
struct BreakingFile {
    whole: Arc<dyn File>,
    broken: Broken,
}

impl File for BreakingFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        check(&self.broken)?;
        self.whole.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.whole.read_at(offset, into)
    }

    fn sync(&self) -> io::Result<()> {
        check(&self.broken)?;
        self.whole.sync()
    }

    fn begin_sync(&self, bytes: Range<u64>) {
        self.whole.begin_sync(bytes);
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        check(&self.broken)?;
        self.whole.truncate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.whole.len()
    }
}
