//! What wakes the source: the kernel's file events, as hints only.
//!
//! Every directory of the layout is watched: the root for pods, a pod for containers, a container for its files. An
//! event says where to look and nothing else; a lost one costs time, not lines, because a full scan comes anyway. Writes
//! are asked for only while a container is quiet: one that writes all the time is looked at by a timer instead, which
//! costs less than an event per write.
//!
//! Limits: the kernel's own (`max_user_watches`); a directory that gets no watch is found by the scans, which then come
//! every [`super::RESCAN_UNWATCHED`].

use std::collections::{BTreeSet, HashMap};
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

/// What a watched directory is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Where the pods are.
    Root,
    /// A pod, by its directory's name.
    Pod(Arc<str>),
    /// A container, by its key.
    Container(u32),
}

/// Whether writes to the files of a directory are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    /// Each is.
    Told,
    /// None is; somebody looks by himself.
    Untold,
}

/// Where to look.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Places whose entries changed.
    pub(super) changed: BTreeSet<Place>,
    /// Containers with files that were written to.
    pub(super) written: BTreeSet<u32>,
    /// Whether events were lost, so that only a full scan helps.
    pub(super) overflowed: bool,
}

/// The watches.
#[derive(Debug)]
pub(super) struct Watch {
    fd: Arc<AsyncFd<OwnedFd>>,
    places: HashMap<i32, Place>,
}

impl Watch {
    /// Returns a watch over nothing. Must be called within a runtime.
    #[expect(deprecated, reason = "the successor is an unsafe function; an `OwnedFd` keeps what it asks for")]
    pub(super) fn open() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(AsyncFd::new(fd)?), places: HashMap::new() })
    }

    /// Returns what becomes readable when there are hints.
    pub(super) fn readiness(&self) -> Arc<AsyncFd<OwnedFd>> {
        self.fd.clone()
    }

    /// Watches a directory, or changes what is told of it.
    pub(super) fn add(&mut self, directory: &Path, place: Place, writes: Writes) -> io::Result<()> {
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
    pub(super) fn take(&mut self) -> Hints {
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
                hints.note(self.places.get(&id), events);
            }
        }
    }
}

impl Hints {
    fn note(&mut self, place: Option<&Place>, events: ReadFlags) {
        match place {
            Some(Place::Container(key)) if events.contains(ReadFlags::MODIFY) => {
                self.written.insert(*key);
            }
            Some(place) if !self.changed.contains(place) => {
                self.changed.insert(place.clone());
            }
            _ => {}
        }
    }
}
