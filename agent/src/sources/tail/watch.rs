//! What wakes the source: the kernel's file events, as hints only.
//!
//! An event says where to look and nothing else; a lost one costs time, not lines, because a full scan comes anyway.
//!
//! Limits: the kernel's own (`max_user_watches`); a directory that gets no watch is found by the scans, which then come
//! every [`super::RESCAN_UNWATCHED`].

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Bytes read from the kernel at once: some hundred events.
const EVENT_BYTES: usize = 16 << 10;

/// What a watched directory is to its source.
pub(in crate::sources) trait Place: Clone + Ord + fmt::Debug + Send + 'static {
    /// What a write below it wakes.
    type Written: Ord + fmt::Debug;

    /// Returns what a write to the file `name` wakes; `None` where it is a change of the directory.
    fn written(&self, name: Option<&CStr>) -> Option<Self::Written>;
}

/// Whether writes to the files of a directory are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) enum Writes {
    /// Each is.
    Told,
    /// None is; somebody looks by himself.
    Untold,
}

/// Where to look.
#[derive(Debug)]
pub(in crate::sources) struct Hints<P: Place> {
    /// Places whose entries changed.
    pub(in crate::sources) changed: BTreeSet<P>,
    /// What was written to.
    pub(in crate::sources) written: BTreeSet<P::Written>,
    /// Whether events were lost, so that only a full scan helps.
    pub(in crate::sources) overflowed: bool,
}

/// The watches.
#[derive(Debug)]
pub(in crate::sources) struct Watch<P> {
    fd: Arc<AsyncFd<OwnedFd>>,
    places: HashMap<i32, P>,
}

impl<P: Place> Watch<P> {
    /// Returns a watch over nothing. Must be called within a runtime.
    #[expect(deprecated, reason = "the successor is an unsafe function; an `OwnedFd` keeps what it asks for")]
    pub(in crate::sources) fn open() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(AsyncFd::new(fd)?), places: HashMap::new() })
    }

    /// Returns what becomes readable when there are hints.
    pub(in crate::sources) fn readiness(&self) -> Arc<AsyncFd<OwnedFd>> {
        self.fd.clone()
    }

    /// Watches a directory, or changes what is told of it.
    pub(in crate::sources) fn add(&mut self, directory: &Path, place: P, writes: Writes) -> io::Result<()> {
        let mut flags = WatchFlags::CREATE | WatchFlags::MOVE | WatchFlags::DELETE;
        flags |= WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR | WatchFlags::EXCL_UNLINK;
        if writes == Writes::Told {
            flags |= WatchFlags::MODIFY;
        }
        let id = inotify::add_watch(&*self.fd, directory, flags)?;
        self.places.insert(id, place);
        Ok(())
    }

    /// Takes every hint there is, without waiting.
    pub(in crate::sources) fn take(&mut self) -> Hints<P> {
        let mut hints = Hints::default();
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&*self.fd, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return hints,
                Err(_) => {
                    hints.overflowed = true;
                    return hints;
                }
            };
            let (id, events) = (event.wd(), event.events());
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                hints.overflowed = true;
            } else if events.contains(ReadFlags::IGNORED) {
                self.places.remove(&id);
            } else {
                hints.note(self.places.get(&id), events, event.file_name());
            }
        }
    }
}

impl<P: Place> Default for Hints<P> {
    fn default() -> Self {
        Self { changed: BTreeSet::new(), written: BTreeSet::new(), overflowed: false }
    }
}

impl<P: Place> Hints<P> {
    fn note(&mut self, place: Option<&P>, events: ReadFlags, name: Option<&CStr>) {
        let Some(place) = place else { return };
        let written = place.written(name).filter(|_| events.contains(ReadFlags::MODIFY));
        if let Some(written) = written {
            self.written.insert(written);
        } else if !self.changed.contains(place) {
            self.changed.insert(place.clone());
        }
    }
}
