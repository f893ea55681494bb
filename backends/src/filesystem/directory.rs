//! A directory, by handle: every path given here stays below it.
//!
//! Each path is resolved by the kernel with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`; where that call is not
//! there (old kernels, strict sandboxes) it is walked one component at a time without following a link. Nothing but
//! regular files is ever opened for writing. All calls block.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Mode of files.
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);
/// Mode of directories.
const DIRECTORY_MODE: u32 = 0o750;
/// How often a resolution that lost a race with a rename is tried anew.
const RESOLVE_ATTEMPTS_MAX: u32 = 8;

/// A directory by handle.
#[derive(Debug)]
pub(super) struct Directory {
    handle: OwnedFd,
    /// Whether to walk by components, because the kernel cannot do it at once.
    walk: AtomicBool,
}

/// What is in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_directory: bool,
}

impl Directory {
    /// Opens `path`, made if need be, so that its name survives power loss. Links in it are followed: the administrator chose it.
    pub(super) fn open_trusted(path: &Path) -> io::Result<Self> {
        let made = path.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).count();
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        for parent in path.ancestors().skip(1).take(made) {
            sync_trusted(parent)?;
        }
        if made == 0
            && let Some(parent) = path.parent()
            && let Err(error) = sync_trusted(parent)
        {
            // A process before may have made it and been killed. Where that cannot be looked after, somebody else made it.
            tracing::debug!(path = %path.display(), %error, "the directory above is not synced");
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { handle, walk: AtomicBool::new(false) })
    }

    /// Opens `path` below this directory, made if need be.
    pub(super) fn open_below(&self, path: &str) -> io::Result<Self> {
        self.make_directories(path, &mut Vec::new())?;
        // Whoever made them: a process that was killed had no time for it.
        for parent in ancestors(path) {
            self.sync(parent)?;
        }
        let handle = self.resolve(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Self { handle, walk: AtomicBool::new(self.walk.load(Ordering::Relaxed)) })
    }

    /// Creates `path`, which must not be there, and its directories. The directories whose entries changed are added to
    /// `changed`.
    pub(super) fn create(&self, path: &str, changed: &mut Vec<String>) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let parent = parent_of(path);
        let created = match self.resolve(path, flags, FILE_MODE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directories(parent, changed)?;
                self.resolve(path, flags, FILE_MODE)
            }
            other => other,
        }?;
        changed.push(parent.to_owned());
        Ok(created)
    }

    /// Opens the regular file `path` for reading and writing; never waits for a pipe.
    pub(super) fn open_file(&self, path: &str) -> io::Result<OwnedFd> {
        let file = self.resolve(path, OFlags::RDWR | OFlags::NONBLOCK, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::RegularFile {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    /// Removes the file `path`.
    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        let parent = self.open_directory(parent_of(path))?;
        Ok(rustix::fs::unlinkat(parent, path.rsplit('/').next().unwrap_or(path), AtFlags::empty())?)
    }

    /// Makes the entries of the directory `path` survive power loss.
    pub(super) fn sync(&self, path: &str) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_directory(path)?)?)
    }

    /// Returns the entries of the directory `path` whose names are text; links are left out.
    pub(super) fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let handle = self.open_directory(path)?;
        for entry in Dir::read_from(&handle)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            let file_type = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(_) => continue,
                },
                known => known,
            };
            if name != "." && name != ".." && matches!(file_type, FileType::RegularFile | FileType::Directory) {
                entries.push(Entry { name: name.to_owned(), is_directory: file_type == FileType::Directory });
            }
        }
        Ok(entries)
    }

    fn open_directory(&self, path: &str) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    fn make_directories(&self, path: &str, changed: &mut Vec<String>) -> io::Result<()> {
        let mut made = String::new();
        for component in path.split('/').filter(|component| !component.is_empty()) {
            let parent = self.open_directory(&made)?;
            match rustix::fs::mkdirat(&parent, component, Mode::from_raw_mode(DIRECTORY_MODE)) {
                Ok(()) => changed.push(made.clone()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            if !made.is_empty() {
                made.push('/');
            }
            made.push_str(component);
        }
        Ok(())
    }

    fn resolve(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if !self.walk.load(Ordering::Relaxed) {
            for _ in 0..RESOLVE_ATTEMPTS_MAX {
                let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(&self.handle, path, flags, mode, how) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(Errno::NOSYS | Errno::PERM) => {
                        self.walk.store(true, Ordering::Relaxed);
                        break;
                    }
                    other => return Ok(other?),
                }
            }
        }
        self.walk(path, flags, mode)
    }

    fn walk(&self, path: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        let mut components = path.split('/').peekable();
        while let Some(component) = components.next() {
            if component.is_empty() || component == ".." {
                return Err(Errno::XDEV.into());
            }
            let from = at.as_ref().map_or(self.handle.as_fd(), AsFd::as_fd);
            if components.peek().is_none() {
                return Ok(rustix::fs::openat(from, component, flags, mode)?);
            }
            at = Some(rustix::fs::openat(from, component, step, Mode::empty())?);
        }
        Err(Errno::NOENT.into())
    }
}

/// Takes the file for this process, or fails at once with `WouldBlock`.
pub(super) fn lock(file: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

fn sync_trusted(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let handle = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::fsync(handle)?)
}

/// Returns every directory above `path`, up to the one that all paths are below.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(parent_of(path)), |at| (!at.is_empty()).then(|| parent_of(at)))
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Both ways of resolving must refuse the same.
    fn each_way(check: impl Fn(&Directory, &Path)) {
        for walk in [false, true] {
            let outside = tempfile::tempdir().unwrap();
            let root = outside.path().join("root");
            let directory = Directory::open_trusted(&root).unwrap();
            directory.walk.store(walk, Ordering::Relaxed);
            check(&directory, &root);
            assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "something was made outside");
        }
    }

    #[test]
    fn no_path_leaves_the_directory() {
        each_way(|directory, root| {
            symlink("..", root.join("up")).unwrap();
            symlink("/etc", root.join("etc")).unwrap();
            std::fs::create_dir(root.join("real")).unwrap();
            symlink("real", root.join("inner")).unwrap();
            for path in ["../x", "real/../../x", "/etc/x", "up/x", "etc/x", "inner/x", "real/\0"] {
                let error = directory.create(path, &mut Vec::new()).unwrap_err();
                assert!(!root.join("real/x").exists(), "{path}: {error}");
            }
        });
    }

    #[test]
    fn every_directory_above_a_path_is_named() {
        assert_eq!(ancestors("a/b/c").collect::<Vec<_>>(), ["a/b", "a", ""]);
        assert_eq!(ancestors("c").collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn only_regular_files_are_opened() {
        each_way(|directory, root| {
            symlink("/dev/full", root.join("full")).unwrap();
            symlink("target", root.join("link")).unwrap();
            std::fs::write(root.join("target"), "").unwrap();
            std::fs::create_dir(root.join("dir")).unwrap();
            rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, FILE_MODE, 0).unwrap();
            for path in ["full", "link", "dir", "fifo"] {
                assert!(directory.open_file(path).is_err(), "{path}");
                assert!(directory.create(path, &mut Vec::new()).is_err(), "{path}");
            }
            directory.open_file("target").unwrap();
        });
    }

    #[test]
    fn what_is_made_is_private_and_its_directories_are_named() {
        each_way(|directory, root| {
            let mut changed = Vec::new();
            directory.create("a/b/c", &mut changed).unwrap();
            assert_eq!(changed, ["", "a", "a/b"]);
            let mode = std::fs::metadata(root.join("a/b/c")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
            assert_eq!(directory.list("a").unwrap(), [Entry { name: "b".into(), is_directory: true }]);
            for path in &changed {
                directory.sync(path).unwrap();
            }
            directory.remove("a/b/c").unwrap();
            assert!(!root.join("a/b/c").exists());
        });
    }
}
