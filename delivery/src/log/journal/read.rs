//! Reading a slot, damage included.

use std::collections::BTreeMap;

use memchr::memmem;

use super::{
    DeliveryKey, KIND_ONE, KIND_ONE_V1, KIND_REMOVED, KIND_SNAPSHOT, KIND_SNAPSHOT_V1, Progress, RECORD_HEADER_BYTES,
};
use crate::log::codec::Get;

/// What one record says of one delivery; `None`: it is forgotten.
pub(super) type Record = (DeliveryKey, Option<Progress>);

/// What stands in a slot.
pub(super) struct SlotContent {
    pub(super) generation: u64,
    /// `None` where it is damaged; there are records then.
    pub(super) snapshot: Option<BTreeMap<DeliveryKey, Progress>>,
    /// What came behind it, oldest first; whole records alone.
    pub(super) records: Vec<Record>,
    /// Places that are no record and have records behind them.
    pub(super) damaged: u64,
}

pub(super) fn apply(progress: &mut BTreeMap<DeliveryKey, Progress>, records: Vec<Record>) {
    for (key, entry) in records {
        match entry {
            Some(entry) => drop(progress.insert(key, entry)),
            None => drop(progress.remove(&key)),
        }
    }
}

/// Returns what a slot says; `None` where nothing was ever written, or a snapshot was torn that nothing came behind.
pub(super) fn read_slot(bytes: &[u8]) -> Option<SlotContent> {
    let first = read_record(&mut Get(bytes));
    let snapshot = first.and_then(|(_, body)| read_snapshot(body));
    // The header of a damaged snapshot may be whole; records that bear its number, their checksums right, say so.
    let generation =
        first.map_or_else(|| generation_at(bytes), |(generation, _)| Some(generation)).filter(|of| *of > 0)?;
    let mut content = SlotContent { generation, snapshot, records: Vec::new(), damaged: 0 };
    let mut at = match (&content.snapshot, first) {
        (Some(_), Some((_, body))) => RECORD_HEADER_BYTES + body.len(),
        _ => 0,
    };
    while let Some((skipped, len, record)) = next_record(bytes, at, generation) {
        content.damaged += u64::from(skipped);
        content.records.push(record);
        at += len;
    }
    (content.snapshot.is_some() || !content.records.is_empty()).then_some(content)
}

fn read_snapshot(body: &[u8]) -> Option<BTreeMap<DeliveryKey, Progress>> {
    let mut entry = Get(body);
    let version = match entry.u8()? {
        KIND_SNAPSHOT => 2,
        KIND_SNAPSHOT_V1 => 1,
        _ => return None,
    };
    (0..entry.count(8)?).map(|_| Some((read_key(&mut entry)?, read_entry(&mut entry, version)?))).collect()
}

fn generation_at(bytes: &[u8]) -> Option<u64> {
    let mut get = Get(bytes.get(RECORD_HEADER_BYTES - 8..)?);
    get.u64()
}

/// Finds the next record of one delivery, of a generation, at or behind `at`: whether something else lies before it, how far
/// its end is from `at`, and what it says.
fn next_record(bytes: &[u8], at: usize, generation: u64) -> Option<(bool, usize, Record)> {
    let rest = bytes.get(at..)?;
    let number = generation.to_le_bytes();
    let places = memmem::find_iter(rest, &number).filter_map(|at| at.checked_sub(RECORD_HEADER_BYTES - number.len()));
    let mut found = places.filter_map(|skip| {
        let (_, body) = read_record(&mut Get(&rest[skip..]))?;
        Some((skip > 0, skip + RECORD_HEADER_BYTES + body.len(), read_one(body)?))
    });
    found.next()
}

/// Reads a record of one delivery.
fn read_one(body: &[u8]) -> Option<Record> {
    let mut entry = Get(body);
    let (kind, key) = (entry.u8()?, read_key(&mut entry)?);
    let progress = match kind {
        KIND_REMOVED => None,
        KIND_ONE => Some(read_entry(&mut entry, 2)?),
        KIND_ONE_V1 => Some(read_entry(&mut entry, 1)?),
        _ => return None,
    };
    Some((key, progress))
}

fn read_record<'a>(get: &mut Get<'a>) -> Option<(u64, &'a [u8])> {
    let (len, crc) = (get.u32()? as usize, get.u32()?);
    let mut ahead = *get;
    let whole = ahead.take(8 + len)?;
    (len > 0 && crc32c::crc32c(whole) == crc).then_some(())?;
    let generation = get.u64()?;
    Some((generation, get.take(len)?))
}

/// Reads the entry behind a key, of version 2 or 1.
fn read_entry(get: &mut Get<'_>, version: u8) -> Option<Progress> {
    let mut progress = Progress::read(get)?;
    if version > 1 {
        progress.read_tags(Get(get.bytes()?))?;
    }
    Some(progress)
}

fn read_key(get: &mut Get<'_>) -> Option<DeliveryKey> {
    Some(DeliveryKey { route: get.text()?.into(), backend_uid: get.text()?.into() })
}
