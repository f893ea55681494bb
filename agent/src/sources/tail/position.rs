//! Where a reader stands, as it travels in the frames of the log.
//!
//! The value says which file is being read and how far, where
//! the unfinished lines began, and which files that are still there were read to their end. Nothing depends on names:
//! a file is known by its inode and by the hash of its first bytes, so a renamed, a compressed and a copied file are the
//! one that was read, whatever the clock did to its name.
//!
//! # Format, version 1
//! Little-endian. `1u8`, flags `u8` (1: previous, 2: floor), file, offset `u64`, previous file when flagged, count of
//! unfinished lines `u8` and each `slot u8 (+0x80: begins in the previous file), start u64, emitted u64, index u32`,
//! count of files done `u8` and each `u64`, floor when flagged `restart u64, length u8, suffix`. A file is `inode u64,
//! head bytes u16, head hash u64`. At most 2 + 18 + 8 + 18 + 1 + 3 × 21 + 1 + 24 × 8 + 41 = 344 of the 512 bytes allowed.

use bytes::{Buf, BufMut, Bytes};

use super::assemble::Slot;
use super::order::SUFFIX_BYTES_MAX;

/// Most files done that a position lists; the kubelet keeps five. Above, the oldest are known by their suffix.
pub(in crate::sources) const DONE_MAX: usize = 24;

const VERSION: u8 = 1;
const FLAG_PREVIOUS: u8 = 1;
const FLAG_FLOOR: u8 = 2;
const SLOT_IN_PREVIOUS: u8 = 0x80;

/// Knows a file again under another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct FileId {
    /// Its inode; another after compression.
    pub(in crate::sources) inode: u64,
    /// How many of its first bytes are hashed; 0 when it was still empty.
    pub(in crate::sources) head_bytes: u16,
    /// Hash of those.
    pub(in crate::sources) head_hash: u64,
}

/// An unfinished line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sources) struct GroupMark {
    /// Its stream.
    pub(in crate::sources) slot: Slot,
    /// Whether it began in the file before.
    pub(in crate::sources) in_previous: bool,
    /// Where its first part begins.
    pub(in crate::sources) start: u64,
    /// How many bytes of its text went out in pieces.
    pub(in crate::sources) emitted: u64,
    /// How many pieces went out.
    pub(in crate::sources) index: u32,
}

/// Where a reader stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sources) struct Mark {
    /// The file being read.
    pub(in crate::sources) file: FileId,
    /// Where its first unread line begins, in decompressed bytes.
    pub(in crate::sources) offset: u64,
    /// The file before, when an unfinished line began there; else what the file was known by before it was begun anew.
    pub(in crate::sources) previous: Option<FileId>,
    /// The unfinished lines, at most one per slot.
    pub(in crate::sources) groups: Vec<GroupMark>,
    /// Head hashes of the files that are still there and were read to their end.
    pub(in crate::sources) done: Vec<u64>,
    /// Files up to this restart and suffix are done, when `done` could not hold them all.
    pub(in crate::sources) floor: Option<(u64, Box<str>)>,
}

impl Mark {
    /// Returns the stored form.
    pub(in crate::sources) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + 8 * self.done.len());
        out.put_u8(VERSION);
        let previous = if self.previous.is_some() { FLAG_PREVIOUS } else { 0 };
        out.put_u8(previous | if self.floor.is_some() { FLAG_FLOOR } else { 0 });
        put_file(&mut out, self.file);
        out.put_u64_le(self.offset);
        if let Some(previous) = self.previous {
            put_file(&mut out, previous);
        }
        out.put_u8(self.groups.len() as u8);
        for group in &self.groups {
            out.put_u8(group.slot as u8 | if group.in_previous { SLOT_IN_PREVIOUS } else { 0 });
            out.put_u64_le(group.start);
            out.put_u64_le(group.emitted);
            out.put_u32_le(group.index);
        }
        out.put_u8(self.done.len() as u8);
        for hash in &self.done {
            out.put_u64_le(*hash);
        }
        if let Some((restart, suffix)) = &self.floor {
            out.put_u64_le(*restart);
            out.put_u8(suffix.len() as u8);
            out.put_slice(suffix.as_bytes());
        }
        out.into()
    }

    /// Reads the stored form, `None` when it is of another version or damaged.
    pub(in crate::sources) fn decode(mut from: &[u8]) -> Option<Self> {
        if from.try_get_u8().ok()? != VERSION {
            return None;
        }
        let flags = from.try_get_u8().ok()?;
        let file = get_file(&mut from)?;
        let offset = from.try_get_u64_le().ok()?;
        let previous = if flags & FLAG_PREVIOUS == 0 { None } else { Some(get_file(&mut from)?) };
        let groups = (0..from.try_get_u8().ok()?).map(|_| get_group(&mut from)).collect::<Option<Vec<_>>>()?;
        let done = (0..from.try_get_u8().ok()?).map(|_| from.try_get_u64_le().ok()).collect::<Option<Vec<_>>>()?;
        let floor = if flags & FLAG_FLOOR == 0 { None } else { Some(get_floor(&mut from)?) };
        from.is_empty().then_some(Self { file, offset, previous, groups, done, floor })
    }
}

fn put_file(out: &mut Vec<u8>, file: FileId) {
    out.put_u64_le(file.inode);
    out.put_u16_le(file.head_bytes);
    out.put_u64_le(file.head_hash);
}

fn get_file(from: &mut &[u8]) -> Option<FileId> {
    Some(FileId {
        inode: from.try_get_u64_le().ok()?,
        head_bytes: from.try_get_u16_le().ok()?,
        head_hash: from.try_get_u64_le().ok()?,
    })
}

fn get_group(from: &mut &[u8]) -> Option<GroupMark> {
    let slot = from.try_get_u8().ok()?;
    Some(GroupMark {
        slot: *Slot::ALL.get(usize::from(slot & !SLOT_IN_PREVIOUS))?,
        in_previous: slot & SLOT_IN_PREVIOUS != 0,
        start: from.try_get_u64_le().ok()?,
        emitted: from.try_get_u64_le().ok()?,
        index: from.try_get_u32_le().ok()?,
    })
}

fn get_floor(from: &mut &[u8]) -> Option<(u64, Box<str>)> {
    let restart = from.try_get_u64_le().ok()?;
    let length = usize::from(from.try_get_u8().ok()?);
    let suffix = from.split_off(..length).filter(|suffix| suffix.len() <= SUFFIX_BYTES_MAX)?;
    Some((restart, std::str::from_utf8(suffix).ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest() -> Mark {
        let file = FileId { inode: u64::MAX, head_bytes: 1024, head_hash: 7 };
        let group = |slot| GroupMark { slot, in_previous: slot == Slot::Stderr, start: 9, emitted: 3, index: 1 };
        Mark {
            file,
            offset: u64::MAX,
            previous: Some(file),
            groups: Slot::ALL.map(group).into(),
            done: (0..DONE_MAX as u64).collect(),
            floor: Some((3, "0".repeat(SUFFIX_BYTES_MAX).into())),
        }
    }

    #[test]
    fn a_mark_survives_its_stored_form_and_fits() {
        let mark = largest();
        let stored = mark.encode();
        assert_eq!(stored.len(), 344);
        assert_eq!(Mark::decode(&stored), Some(mark.clone()));
        let smallest = Mark { previous: None, groups: Vec::new(), done: Vec::new(), floor: None, ..mark };
        assert_eq!(Mark::decode(&smallest.encode()), Some(smallest));
    }

    #[test]
    fn a_damaged_mark_is_refused() {
        let stored = largest().encode();
        for cut in 0..stored.len() {
            assert_eq!(Mark::decode(&stored[..cut]), None, "{cut}");
        }
        let mut longer = stored.to_vec();
        longer.push(0);
        assert_eq!(Mark::decode(&longer), None);
        longer[0] = 2;
        assert_eq!(Mark::decode(&longer), None);
    }
}
