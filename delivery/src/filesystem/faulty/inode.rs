//! One file: what readers see, what the disk has, and what lies between.

use std::ops::Range;

use super::{SECTOR_BYTES, SplitMix64};

/// One file.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What the disk has.
    disk: Vec<u8>,
    /// What readers see.
    cache: Vec<u8>,
    /// What was done since the last sync, oldest first.
    unsynced: Vec<Change>,
    /// How often it is open.
    pub(super) handles: usize,
    /// Bytes that the disk cannot read any more.
    pub(super) spoilt: Vec<Range<usize>>,
}

#[derive(Debug, Clone)]
enum Change {
    /// The sectors that a write touched, as they were in the cache just after it: a disk never gets the bytes of a write
    /// without those around them.
    Sectors { start: usize, bytes: Vec<u8> },
    /// The file was cut or extended.
    Len(usize),
}

impl Inode {
    /// Returns a file that is on the disk.
    pub(super) fn synced(content: &[u8]) -> Self {
        Self { disk: content.to_vec(), cache: content.to_vec(), ..Self::default() }
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.cache
    }

    /// Reads what is there; `None` where a part of it cannot be read.
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> Option<usize> {
        let there = self.cache.get(offset..).unwrap_or_default();
        let read = there.len().min(into.len());
        if self.spoilt.iter().any(|spoilt| spoilt.start < offset + read && offset < spoilt.end) {
            return None;
        }
        into[..read].copy_from_slice(&there[..read]);
        Some(read)
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        put(&mut self.cache, offset, bytes);
        let start = offset / SECTOR_BYTES * SECTOR_BYTES;
        let end = (offset + bytes.len()).next_multiple_of(SECTOR_BYTES).min(self.cache.len());
        self.unsynced.push(Change::Sectors { start, bytes: self.cache[start..end].to_vec() });
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.cache.resize(len, 0);
        self.unsynced.push(Change::Len(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.disk);
        }
        // Differs only after a sync that failed: lengths are metadata and go to the disk with the next sync.
        self.disk.resize(self.cache.len(), 0);
    }

    /// Each unsynced change goes to the disk or never will, and nobody remembers which; with `drops_cache` readers may lose
    /// sight of it too.
    pub(super) fn fail_sync(&mut self, rng: &mut SplitMix64, drops_cache: bool) {
        let kept = rng.below(3);
        for change in self.unsynced.drain(..) {
            if kept == 2 || kept == 1 && rng.chance(1, 2) {
                change.apply(&mut self.disk);
            }
        }
        if drops_cache && rng.chance(1, 2) {
            let len = self.cache.len();
            self.cache.clone_from(&self.disk);
            self.cache.resize(len, 0);
        }
    }

    pub(super) fn flip(&mut self, offset: usize, mask: u8) -> bool {
        self.flush();
        let Some(byte) = self.disk.get_mut(offset) else { return false };
        *byte ^= mask;
        self.cache[offset] = *byte;
        true
    }

    pub(super) fn cut(&mut self, len: usize) -> bool {
        if len >= self.cache.len() {
            return false;
        }
        self.flush();
        self.disk.truncate(len);
        self.cache.truncate(len);
        true
    }

    /// Harm by hand is done to the disk, so the disk must have it all.
    fn flush(&mut self) {
        self.unsynced.clear();
        self.disk.clone_from(&self.cache);
    }

    /// Returns what the disk may hold after power loss.
    pub(super) fn after_crash(&self, rng: &mut SplitMix64) -> Self {
        let mut disk = self.disk.clone();
        let count = self.unsynced.len() as u64;
        // How many survive for sure, and how many may.
        let (sure, maybe) = match rng.below(4) {
            0 => (0, 0),
            1 => (count, count),
            2 => {
                let first = rng.below(count + 1);
                (first, first + 1)
            }
            _ => (0, count),
        };
        for (index, change) in (0..).zip(&self.unsynced) {
            if index < sure {
                change.apply(&mut disk);
            } else if index < maybe && rng.chance(2, 3) {
                change.apply_torn(&mut disk, rng);
            }
        }
        match rng.below(4) {
            0 => disk.truncate(self.disk.len()),
            1 => disk.resize(self.cache.len(), 0),
            _ => {}
        }
        Self { cache: disk.clone(), disk, ..Self::default() }
    }

    /// Returns what the next process finds.
    pub(super) fn after_kill(&self) -> Self {
        Self { handles: 0, ..self.clone() }
    }
}

impl Change {
    fn apply(&self, disk: &mut Vec<u8>) {
        match self {
            Self::Sectors { start, bytes } => put(disk, *start, bytes),
            Self::Len(len) => disk.resize(*len, 0),
        }
    }

    /// Applies all of it, its first sectors, or any of its sectors.
    fn apply_torn(&self, disk: &mut Vec<u8>, rng: &mut SplitMix64) {
        let Self::Sectors { start, bytes } = self else { return self.apply(disk) };
        let sectors = bytes.chunks(SECTOR_BYTES);
        let (whole, holes) = match rng.below(4) {
            0 => (rng.below(sectors.len() as u64 + 1), false),
            1 => (sectors.len() as u64, true),
            _ => (sectors.len() as u64, false),
        };
        for (index, sector) in sectors.take(whole as usize).enumerate() {
            if !holes || rng.chance(1, 2) {
                put(disk, start + index * SECTOR_BYTES, sector);
            }
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}
