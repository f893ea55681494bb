//! Reading from a device that may come back: what it refuses is asked for again before anything is concluded from it.
//!
//! A path that fails over, a volume that is attached anew, a server that restarts: for some seconds reads fail, and then all
//! is as it was. Who took such a read for damage would put a log aside that is whole. What is refused for want of something
//! of this process or machine ([`is_lack`]) says nothing of the file at all.
//!
//! One open waits [`PAUSES_MAX`] times, whatever the number of files; while the device answers nobody, all opens of the process
//! together do, and each of them once more.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::segment::Later;
use crate::filesystem::{Filesystem, PAUSE_FIRST, PAUSES_MAX};

/// How often something is asked for when the pauses are used up.
const ATTEMPTS: u32 = 3;

/// Asks for one open of a log, or of its journal.
pub(super) struct Device<'a> {
    pub(super) fs: &'a dyn Filesystem,
    pauses: Cell<u32>,
}

impl<'a> Device<'a> {
    pub(super) fn new(fs: &'a dyn Filesystem) -> Self {
        Self { fs, pauses: Cell::new(0) }
    }

    /// Returns what `what` gives, asked for again while the device refuses and there is patience left.
    pub(super) fn ask<T>(&self, what: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let mut attempts = 0;
        loop {
            let refused = match what() {
                Err(error) if !is_lack(&error) && !Later::is(&error) => error,
                Ok(given) => {
                    self.fs.patience().answered();
                    return Ok(given);
                }
                lack => return lack,
            };
            attempts += 1;
            if let Some(pause) = self.pause() {
                self.fs.pause(pause);
            } else if attempts >= ATTEMPTS {
                return Err(refused);
            }
        }
    }

    /// Takes a pause: of those that all share, while this open has some left, and one in any case.
    fn pause(&self) -> Option<Duration> {
        let before = self.pauses.get();
        if before >= PAUSES_MAX {
            return None;
        }
        self.pauses.set(before + 1);
        self.fs.patience().take().or_else(|| (before == 0).then_some(PAUSE_FIRST))
    }
}

/// Whether a call failed for want of something that is no file's: descriptors, memory, rights.
pub(super) fn is_lack(error: &io::Error) -> bool {
    let of = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ACCESS, Errno::PERM].into_iter().any(of)
}
