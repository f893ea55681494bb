//! What each delivery has resolved, durable: two slots of fixed size, the one with the newer whole snapshot counts.
//!
//! A slot is `cursors.a` or `cursors.b`: records of `u32 length, u32 CRC32C, u64 generation, body`, the first a snapshot
//! of every delivery, the later ones one delivery each. A delivery's entry is a fixed part and, since version 2, a list of
//! `u8 tag, u32 length, bytes` behind it: what a version does not know it skips, and entries of version 1 have none. When a slot is full, or a sync failed, the next snapshot goes
//! to the other one with the next generation. Both files get their size when the log opens and keep
//! it, so saving needs no free space, the first save after a start included; a slot grows only when a snapshot is larger
//! than a quarter of it. A torn record at the end of a slot does no harm: what is older is a valid, earlier truth. A record that
//! cannot be read has others behind it where it is damage: reading goes on with those, each a whole truth of one delivery, and
//! says so. A slot whose snapshot is damaged gives its records over the other slot's end, which was the snapshot.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::codec::Put;
use super::device::{Device, is_lack};
use crate::filesystem::Filesystem;

mod progress;
mod read;
mod removals;
mod slot;

pub use progress::{Left, Plan, Progress, Removed};
use read::{apply, read_slot};
use slot::{Slot, blank};

/// Bytes of a slot at first; it grows to four snapshots where that is more.
const SLOT_BYTES: u64 = 256 << 10;
const RECORD_HEADER_BYTES: usize = 16;
/// Most numbers left out behind damage; how many is drawn.
const GENERATIONS_LEFT_OUT: u64 = 1 << 40;
const KIND_SNAPSHOT_V1: u8 = 1;
const KIND_ONE_V1: u8 = 2;
const KIND_REMOVED: u8 = 3;
const KIND_SNAPSHOT: u8 = 4;
const KIND_ONE: u8 = 5;
/// Names a delivery within its pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryKey {
    /// The route.
    pub route: Arc<str>,
    /// The backend, for good.
    pub backend_uid: Arc<str>,
}

/// Why progress was not saved.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Both slots refused.
    #[error("cursors cannot be saved")]
    Write(#[source] io::Error),
}

/// The durable progress of every delivery of a log. Blocks; one thread at a time.
#[derive(Debug)]
pub struct Journal {
    fs: Arc<dyn Filesystem>,
    dir: PathBuf,
    slots: [Slot; 2],
    current: usize,
    generation: u64,
    /// Where the next record goes in the current slot.
    end: u64,
    /// Set when the current slot cannot be trusted: the next save begins with a snapshot in the other.
    distrusted: bool,
    progress: BTreeMap<DeliveryKey, Progress>,
    /// What edits say of references, whatever is saved of their progress later.
    removals: removals::Removals,
    /// Places and slots that could not be read.
    damaged: u64,
}

impl Journal {
    /// Reads both slots of a log's directory, which must be there. Damage is an earlier truth, never an error.
    pub fn open(fs: Arc<dyn Filesystem>, dir: &Path) -> Self {
        Self::read(fs, dir).0
    }

    /// The same for a process that will save: room for that is set aside. What this process lacks (file descriptors, rights) is
    /// an error, and so is a device that gives neither slot: an earlier truth is for damage alone.
    pub fn open_to_save(fs: Arc<dyn Filesystem>, dir: &Path) -> io::Result<Self> {
        let (mut journal, lacks) = Self::read(fs, dir);
        if let Some(error) = lacks {
            return Err(error);
        }
        slot::set_aside(&mut journal.slots, &*journal.fs, dir);
        Ok(journal)
    }

    /// Returns also what could not be read for want of something of this process.
    fn read(fs: Arc<dyn Filesystem>, dir: &Path) -> (Self, Option<io::Error>) {
        let [(first, in_first), (second, in_second)] = {
            let device = Device::new(&*fs);
            ["cursors.a", "cursors.b"].map(|name| Slot::open(&device, dir.join(name)))
        };
        let (mut lacks, mut unreadable, mut damaged) = (None, 0, 0);
        let mut found = Vec::new();
        for (index, bytes) in [in_first, in_second].into_iter().enumerate() {
            match bytes {
                Ok(bytes) => found.extend(read_slot(&bytes).map(|slot| (index, slot))),
                Err(error) if is_lack(&error) => lacks = Some(error),
                Err(error) => {
                    tracing::error!(%error, dir = %dir.display(), slot = index, "cursors cannot be read; an earlier truth is used");
                    // With neither there is no truth at all, and a delivery would begin behind what it has not delivered.
                    lacks = Some(error).filter(|_| unreadable > 0).or(lacks);
                    unreadable += 1;
                }
            }
        }
        found.sort_by_key(|(_, slot)| slot.generation);
        let (mut current, mut generation, mut progress) = (1, 0, BTreeMap::new());
        let most = found.iter().map(|(_, slot)| slot.generation).max().unwrap_or(0);
        for (index, slot) in found {
            damaged += slot.damaged;
            if let Some(snapshot) = slot.snapshot {
                // What was wrong before it matters no more.
                damaged = slot.damaged;
                progress = snapshot;
                apply(&mut progress, slot.records);
                (current, generation) = (index, slot.generation);
                continue;
            }
            if generation + 1 == slot.generation {
                // The slot before ended as this one began. That one stays as it is until a snapshot stands here.
                apply(&mut progress, slot.records);
            }
        }
        damaged += unreadable;
        if damaged > 0 {
            // A number that stands in a slot which was not read, or not followed, is not used again, and not by the next
            // start either, which may find the same.
            let left_out = RandomState::new().hash_one(most) % GENERATIONS_LEFT_OUT;
            generation = most.saturating_add(2 + left_out);
            tracing::error!(dir = %dir.display(), damaged, "cursors are damaged; some may stand earlier than they did");
        }
        let (dir, distrusted, slots) = (dir.to_owned(), true, [first, second]);
        let removals = removals::Removals::default();
        (Self { fs, dir, slots, current, generation, end: 0, distrusted, progress, removals, damaged }, lacks)
    }

    /// Returns how many places and slots could not be read at the open.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Returns what every delivery has saved.
    pub fn progress(&self) -> &BTreeMap<DeliveryKey, Progress> {
        &self.progress
    }

    /// Returns the first sequence above every cursor and every plan.
    pub fn seq_min(&self) -> u64 {
        self.progress.values().map(Progress::seq_min).max().unwrap_or(0)
    }

    /// Saves what one delivery has resolved; with `sync` it survives power loss when this returns.
    pub fn save(&mut self, key: &DeliveryKey, progress: &Progress, sync: bool) -> Result<(), JournalError> {
        let progress = self.removals.applied(key, progress);
        let mut body = vec![KIND_ONE];
        write_entry(&mut body, key, &progress);
        let before = self.progress.insert(key.clone(), progress.into_owned());
        let saved = self.append(&body, sync);
        if saved.is_err() {
            // Another delivery's snapshot must not make durable what its own delivery was told is not.
            match before {
                Some(before) => drop(self.progress.insert(key.clone(), before)),
                None => drop(self.progress.remove(key)),
            }
        }
        saved
    }

    /// Makes what was saved survive power loss.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        let slot = self.slots[self.current].file.as_ref().filter(|_| !self.distrusted);
        if slot.is_some_and(|file| file.sync().is_ok()) {
            return Ok(());
        }
        // A slot whose sync failed is left for the other one.
        self.turn().map_err(JournalError::Write)
    }

    /// Forgets a delivery that has come to its end.
    pub fn forget(&mut self, key: &DeliveryKey) -> Result<(), JournalError> {
        let mut body = vec![KIND_REMOVED];
        body.put_bytes(key.route.as_bytes());
        body.put_bytes(key.backend_uid.as_bytes());
        self.progress.remove(key);
        self.removals.forget(key);
        self.append(&body, true)
    }

    fn append(&mut self, body: &[u8], sync: bool) -> Result<(), JournalError> {
        let record = encode_record(self.generation, body);
        let fits = !self.distrusted && self.end + record.len() as u64 <= self.slots[self.current].size;
        if fits && self.write_record(&record, sync).is_ok() {
            self.end += record.len() as u64;
            return Ok(());
        }
        self.turn().map_err(JournalError::Write)
    }

    fn write_record(&mut self, record: &[u8], sync: bool) -> io::Result<()> {
        let slot = &self.slots[self.current];
        let Some(file) = &slot.file else { return Err(io::Error::other("no slot is open")) };
        let result = file.write_at(self.end, &[record]).and_then(|()| if sync { file.sync() } else { Ok(()) });
        if result.is_err() {
            self.distrusted = true;
            blank(&**file, self.end);
        }
        result
    }

    /// Writes a snapshot into the other slot, synced, and goes on there. After a failure the same slot is tried again the
    /// next time, and the last good truth stays where it is.
    fn turn(&mut self) -> io::Result<()> {
        self.distrusted = true;
        let mut body = vec![KIND_SNAPSHOT];
        body.put_u32(self.progress.len() as u32);
        for (key, progress) in &self.progress {
            write_entry(&mut body, key, progress);
        }
        let generation = self.generation + 1;
        let record = encode_record(generation, &body);
        let size = SLOT_BYTES.max(4 * record.len() as u64);
        let other = 1 - self.current;
        let slot = &mut self.slots[other];
        let named = slot.size >= size;
        let file = slot.grow(&*self.fs, size)?;
        let made = file
            .write_at(0, &[&record])
            .and_then(|()| file.sync())
            .and_then(|()| if named { Ok(()) } else { self.fs.sync_dir(&self.dir) });
        if let Err(error) = made {
            slot.size = if named { slot.size } else { 0 };
            blank(&*file, 0);
            return Err(error);
        }
        self.current = other;
        self.generation = generation;
        self.end = record.len() as u64;
        self.distrusted = false;
        Ok(())
    }
}

fn encode_record(generation: u64, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + body.len());
    record.put_u32(body.len() as u32);
    record.put_u32(0);
    record.put_u64(generation);
    record.extend_from_slice(body);
    let crc = crc32c::crc32c(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
    record
}

fn write_entry(out: &mut Vec<u8>, key: &DeliveryKey, progress: &Progress) {
    out.put_bytes(key.route.as_bytes());
    out.put_bytes(key.backend_uid.as_bytes());
    progress.write(out);
    let mut tags = Vec::new();
    progress.write_tags(&mut tags);
    out.put_bytes(&tags);
}

#[cfg(test)]
mod tests;
