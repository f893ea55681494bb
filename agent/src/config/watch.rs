//! What wakes the reading of manifests: the kernel's file events, as hints only.
//!
//! A folder is watched, and so is the folder around each path, in which a path is replaced: by an editor, or by the swap of
//! the link `..data` of a mounted `ConfigMap`. An event says that it may be worth looking, and nothing else; a lost one
//! costs time only, because a rescan comes anyway every [`RESCAN`].

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How often the files are looked at although nothing woke us.
pub const RESCAN: Duration = Duration::from_secs(10);

/// How long nothing must have changed before the files are read: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// How long changes that do not end put the reading off.
const QUIET_WAIT_MAX: Duration = Duration::from_millis(500);

/// Bytes read from the kernel at once: some tens of events.
const EVENT_BYTES: usize = 4 << 10;

/// The watch over the paths.
#[derive(Debug)]
pub struct Watch {
    paths: Vec<PathBuf>,
    fd: Option<AsyncFd<OwnedFd>>,
}

impl Watch {
    /// Watches files and folders. Where the kernel gives no events, the rescan alone counts. Must be called in a runtime.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let fd = match open() {
            Ok(fd) => Some(fd),
            Err(error) => {
                tracing::warn!(%error, "no file events from the kernel, manifests are looked at every ten seconds");
                None
            }
        };
        let watch = Self { paths, fd };
        watch.refresh();
        watch
    }

    /// Watches what the paths lead to now. Folders that are watched already stay so.
    pub fn refresh(&self) {
        let Some(fd) = &self.fd else { return };
        let flags = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE | WatchFlags::CLOSE_WRITE;
        let flags = flags | WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
        for folder in folders(&self.paths) {
            // One that cannot be watched is found by the rescan.
            if let Err(error) = inotify::add_watch(fd, &folder, flags) {
                tracing::debug!(%error, folder = %folder.display(), "a folder of manifests cannot be watched");
            }
        }
    }

    /// Resolves when the files may have changed and have been at rest for a moment, or when it is time for a rescan.
    ///
    /// # Cancel safety
    /// May be cancelled; an event that was taken is found by the rescan.
    pub async fn changed(&self) {
        tokio::select! {
            () = self.event() => {}
            () = sleep(RESCAN) => return,
        }
        let latest = Instant::now() + QUIET_WAIT_MAX;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, self.event()).await.is_err() || Instant::now() >= latest {
                sleep_until(quiet).await;
                return;
            }
        }
    }

    /// Waits for events and takes them.
    async fn event(&self) {
        let Some(fd) = &self.fd else { return std::future::pending().await };
        let Ok(mut ready) = fd.readable().await else { return std::future::pending().await };
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(fd, &mut buffer);
        // Until everything is taken; another failure is found by the rescan.
        while matches!(reader.next(), Ok(_) | Err(Errno::INTR)) {}
        ready.clear_ready();
    }
}

#[expect(deprecated, reason = "the successor is an unsafe function; an `OwnedFd` keeps what it asks for")]
fn open() -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

/// Returns the folders in which a change may matter: the paths that are folders, and those around every path and around
/// what it is a link to.
fn folders(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            folders.insert(path.clone());
        }
        folders.extend(around(path));
        if let Ok(target) = path.canonicalize() {
            folders.extend(around(&target));
        }
    }
    folders
}

fn around(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}
