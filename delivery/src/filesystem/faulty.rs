//! A hand-made file system in memory that fails on purpose. **A fake, for tests only.**
//!
//! Why a fake: power loss, a failed fsync and a full or dying disk cannot be forced on a real disk from a test, least of
//! all the same way twice. What is here is what POSIX leaves open and what ext4 and xfs have been seen to do, not one
//! particular file system. Real disks are met by the scenarios that kill a real process and fill a real tmpfs.
//!
//! # What it does
//! - **Page cache apart from disk.** A write is seen at once by every reader and is on the disk only after a sync that
//!   succeeded. A creation, removal or rename (and the making of a directory, in its parent) is on the disk only after
//!   [`Filesystem::sync_dir`] of its directory; a file's own sync does not save its name.
//! - **[`FaultyFs::kill`]** is SIGKILL: all that was written is there, and what was not synced still is not.
//! - **[`FaultyFs::crash`]** is power loss: of the unsynced writes of a file none, all, the first few or any subset
//!   survive, each whole, cut at a sector of [`SECTOR_BYTES`] or with sectors missing; the length survives apart from the
//!   data. Of the unsynced changes of names the first few or any subset survive, as long as a change of a name has those
//!   before it on the same name: two renames may change places.
//! - **A failed sync** loses or keeps each unsynced write at random, and forgets that they were unsynced: the next sync
//!   succeeds and proves nothing. Readers go on seeing what the disk does not have or, with
//!   [`Faults::drops_cache`], perhaps not.
//! - **Faults** come by chance ([`Faults`], from the seed), by order ([`FaultyFs::fail`]), or by hand
//!   ([`FaultyFs::flip_bit`], [`FaultyFs::cut`], [`FaultyFs::spoil`]). [`FaultyFs::stop_after`] ends the machine's life at a chosen call.
//!
//! # Limits
//! The same seed and the same calls in the same order give the same disk; threads that race give up the order. Sizes
//! are lengths: there are no holes, no blocks and no cost of a name. Bytes that were synced are never harmed but by hand.
//! Directories are neither removed nor renamed.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use super::{File, Filesystem, Patience};

mod disk;
mod inode;
#[cfg(test)]
mod tests;

use disk::{Disk, Node};

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A file system in memory that fails on purpose; see the module header. A clone is the same file system.
#[derive(Debug, Clone)]
pub struct FaultyFs {
    disk: Arc<Mutex<Disk>>,
    patience: Arc<Patience>,
}

/// A kind of call, to count it or to let it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of that name")]
pub enum Call {
    Write,
    Read,
    Sync,
    Truncate,
    Create,
    Open,
    CreateDir,
    SyncDir,
    List,
    Remove,
    Rename,
}

impl Call {
    /// Returns whether the call can change what a crash leaves.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Read | Self::Open | Self::List)
    }
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// EIO. A write leaves any part of itself behind.
    Io,
    /// ENOSPC. A write leaves any part of itself behind.
    NoSpace,
    /// EMFILE: the process has no file descriptor left.
    NoFiles,
}

/// What may go wrong by itself. Chances are per million calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Chance of EIO on a write or a truncation.
    pub write: u32,
    /// Chance of EIO on a call that reads, opens or lists.
    pub read: u32,
    /// Chance of a failed sync of a file.
    pub sync: u32,
    /// Chance of EIO on a call that makes, renames, removes or syncs names.
    pub names: u32,
    /// Whether a failed sync may also take from readers what the disk did not get, as xfs does; else they go on seeing it,
    /// as with ext4.
    pub drops_cache: bool,
    /// Most bytes of all files together; at it a write leaves what fits and fails with ENOSPC.
    pub capacity: Option<u64>,
    /// What [`Filesystem::free_bytes`] says; `None` is what the capacity leaves.
    pub free: Option<u64>,
}

/// How often each thing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "each is the count of that thing")]
pub struct Counts {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub syncs: u64,
    /// Bytes whose sync was begun ahead.
    pub begun_bytes: u64,
    pub opens: u64,
    pub lists: u64,
    /// Calls that can change what a crash leaves, failed ones included.
    pub changes: u64,
    /// Milliseconds that would have been waited for the device.
    pub paused_ms: u64,
    /// Faults injected, by chance, by order or for want of capacity.
    pub faults: u64,
}

/// A small generator of random numbers: same seed, same numbers (algorithm: Steele, Lea, Flood, "Fast Splittable
/// Pseudorandom Number Generators", `SplitMix64`).
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Returns the generator of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw().checked_rem(bound).unwrap_or(0)
    }

    /// Returns true `part` times in `whole`.
    pub fn chance(&mut self, part: u64, whole: u64) -> bool {
        self.below(whole) < part
    }
}

impl FaultyFs {
    /// Returns an empty file system without faults.
    pub fn new(seed: u64) -> Self {
        Self::of(Disk::new(seed))
    }

    fn of(disk: Disk) -> Self {
        Self { disk: Arc::new(Mutex::new(disk)), patience: Arc::default() }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// Sets what may go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// Returns what may go wrong.
    pub fn faults(&self) -> Faults {
        self.disk().faults
    }

    /// Lets the call of that kind fail that comes after `skip` others of it, once.
    pub fn fail(&self, call: Call, skip: u64, fault: Fault) {
        self.disk().orders.push((call, skip, fault));
    }

    /// Lets `changes` more calls succeed that [`Call::changes`]; the one behind them is under way when the machine stops:
    /// it may have done its work, and it and every later call fail.
    pub fn stop_after(&self, changes: u64) {
        let mut disk = self.disk();
        disk.stop_at = Some(disk.counts.changes + changes);
    }

    /// Returns whether the machine has stopped.
    pub fn stopped(&self) -> bool {
        self.disk().stopped
    }

    /// Returns what the next process finds after SIGKILL of this one. Open files stay with the dead.
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::of(self.disk().after_kill())
    }

    /// Returns what the machine finds after power loss, one of many possible worlds by `seed`. Open files stay with the
    /// dead; chances of faults are kept.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        Self::of(self.disk().after_crash(seed))
    }

    /// Returns how often each thing was done, here and not in the lives before.
    pub fn counts(&self) -> Counts {
        self.disk().counts
    }

    /// Returns the bytes of all files, unlinked ones that are open included.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used_bytes()
    }

    /// Returns every file and its length, in the order of their paths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.disk().files()
    }

    /// Returns what a reader sees in `path`.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        Some(disk.inodes[&disk.file(path).ok()?].content().to_vec())
    }

    /// Puts a file on the disk, name, parents and content synced; replaces what is there. No fault comes in between.
    pub fn put(&self, path: &Path, content: &[u8]) {
        self.disk().put(path, content);
    }

    /// Turns one bit over, on the disk and for readers; false when there is no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut disk = self.disk();
        let Ok(inode) = disk.file(path) else { return false };
        disk.inode(inode).is_ok_and(|inode| inode.flip(offset as usize, 1 << (bit & 7)))
    }

    /// Lets every read that touches these bytes of a file fail from now on; false when it is not there.
    pub fn spoil(&self, path: &Path, bytes: Range<u64>) -> bool {
        let mut disk = self.disk();
        let Ok(inode) = disk.file(path) else { return false };
        let spoilt = bytes.start as usize..bytes.end as usize;
        disk.inode(inode).is_ok_and(|inode| {
            inode.spoilt.push(spoilt);
            true
        })
    }

    /// Lets every byte of a file be read again; false when it is not there.
    pub fn mend(&self, path: &Path) -> bool {
        let mut disk = self.disk();
        let Ok(inode) = disk.file(path) else { return false };
        disk.inode(inode).is_ok_and(|inode| {
            inode.spoilt.clear();
            true
        })
    }

    /// Returns the most files that were open at a time.
    pub fn open_files_most(&self) -> usize {
        self.disk().open_most
    }

    /// Cuts a file, on the disk and for readers; false when it is not there or not longer.
    pub fn cut(&self, path: &Path, len: u64) -> bool {
        let mut disk = self.disk();
        let Ok(inode) = disk.file(path) else { return false };
        disk.inode(inode).is_ok_and(|inode| inode.cut(len as usize))
    }
}

impl Filesystem for FaultyFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        let inode = disk.change(Call::Create, |disk| disk.create(path))?;
        Ok(self.handle(&mut disk, inode, true))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.look(Call::Open)?;
        let inode = disk.file(path)?;
        Ok(self.handle(&mut disk, inode, write))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk().change(Call::CreateDir, |disk| disk.create_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk().sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut disk = self.disk();
        disk.look(Call::List)?;
        disk.list(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk().change(Call::Remove, |disk| {
            let inode = disk.file(path)?;
            disk.rename(vec![(path.to_owned(), None)]);
            disk.forget(inode);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().change(Call::Rename, |disk| {
            let inode = disk.file(from)?;
            disk.parent_of(to)?;
            if from != to {
                disk.rename(vec![(from.to_owned(), None), (to.to_owned(), Some(Node::File(inode)))]);
            }
            Ok(())
        })
    }

    fn pause(&self, time: Duration) {
        // What is broken here does not mend by itself while nothing else runs.
        self.disk().counts.paused_ms += time.as_millis() as u64;
    }

    fn patience(&self) -> &Patience {
        &self.patience
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let disk = self.disk();
        if disk.stopped {
            return Err(Errno::IO.into());
        }
        let left = disk.faults.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(disk.used_bytes()));
        Ok(disk.faults.free.unwrap_or(left))
    }
}

impl FaultyFs {
    fn handle(&self, disk: &mut Disk, inode: u64, write: bool) -> Arc<dyn File> {
        if let Ok(inode) = disk.inode(inode) {
            inode.handles += 1;
        }
        let open = disk.inodes.values().map(|inode| inode.handles).sum();
        disk.open_most = disk.open_most.max(open);
        Arc::new(FaultyFile { disk: Arc::clone(&self.disk), inode, write })
    }
}

/// An open file of a [`FaultyFs`].
#[derive(Debug)]
struct FaultyFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    write: bool,
}

impl FaultyFile {
    fn writable(&self) -> io::Result<MutexGuard<'_, Disk>> {
        if self.write { Ok(lock(&self.disk)) } else { Err(Errno::BADF.into()) }
    }
}

impl File for FaultyFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.writable()?.write(self.inode, offset as usize, &parts.concat())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut disk = lock(&self.disk);
        disk.look(Call::Read)?;
        let read = disk.inode(self.inode)?.read(offset as usize, into).ok_or(Errno::IO)?;
        disk.counts.read_bytes += read as u64;
        Ok(read)
    }

    fn sync(&self) -> io::Result<()> {
        lock(&self.disk).sync(self.inode)
    }

    fn begin_sync(&self, bytes: Range<u64>) {
        // What survives power loss may be any part of it anyway.
        lock(&self.disk).counts.begun_bytes += bytes.end - bytes.start;
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.writable()?.change(Call::Truncate, |disk| {
            disk.inode(self.inode)?.truncate(len as usize);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = lock(&self.disk);
        if disk.stopped {
            return Err(Errno::IO.into());
        }
        Ok(disk.inode(self.inode)?.content().len() as u64)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        if let Ok(inode) = disk.inode(self.inode) {
            inode.handles -= 1;
        }
        disk.forget(self.inode);
    }
}

/// A panic of a test must not hide behind a poisoned lock.
fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}
