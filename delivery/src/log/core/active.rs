//! The segment being written: how one begins, and how one is left.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::{LogCore, SegmentInfo};
use crate::event::Origin;
use crate::filesystem::{Ahead, File};
use crate::log::format::{self, Place, SegmentHeader};
use crate::log::frame::Frame;
use crate::log::segment::{Summary, path_of};
use crate::log::state::Tally;
use crate::settings::Durability;

/// A segment that has no name yet; recovery removes it.
pub(in crate::log) const DRAFT_EXTENSION: &str = "new";

#[derive(Debug)]
pub(in crate::log) struct Active {
    pub(super) file: Arc<dyn File>,
    pub(super) ordinal: u64,
    pub(super) header: Arc<SegmentHeader>,
    pub(super) origins: Vec<Arc<Origin>>,
    pub(super) origin_ids: HashMap<Bytes, u32>,
    pub(super) synced_end: u64,
    /// How far its bytes are on their way to the disk.
    pub(super) ahead: Ahead,
}

impl LogCore {
    /// Begins the next segment: header, the frames that are not synced yet, sync, and only then its name, so that no header
    /// hides what stands in an older file before the same stands here.
    pub(super) fn begin_segment(&mut self, running_ms: u64) -> io::Result<()> {
        self.seal_recovered()?;
        self.base.forget_keys(running_ms);
        let (ordinal, routes) = (self.next_ordinal, self.table());
        self.next_ordinal += 1;
        let path = path_of(&self.options.dir, ordinal);
        let draft = path.with_extension(DRAFT_EXTENSION);
        let spare = self.spares.take(&*self.fs, &self.options.dir, &draft);
        let (file, stale_end) = spare.map_or_else(|| self.create_draft(&draft).map(|file| (file, 0)), Ok)?;
        let header = SegmentHeader {
            incarnation: self.options.incarnation,
            ordinal,
            base_seq: self.base_seq,
            running_ms: running_ms.max(self.running_base_ms),
            created: self.options.now,
            stale_end,
            routes: routes.clone(),
            state: self.base.clone(),
            follows_seq: self.written_end(),
            in_memory: self.options.durability == Durability::Memory,
        };
        let head = header.encode();
        let data_start = head.len() as u64;
        let mut info = SegmentInfo::begun((ordinal, path), self.base_seq, routes, data_start);
        let mut active = Active {
            file: file.clone(),
            ordinal,
            header: header.into(),
            origins: Vec::new(),
            origin_ids: HashMap::new(),
            synced_end: data_start,
            ahead: Ahead::of(data_start),
        };
        let metas = active.encode_again(&self.unsynced, &mut info);
        let mut parts: Vec<&[u8]> = vec![&head];
        for (meta, (frame, _)) in metas.iter().zip(&self.unsynced) {
            parts.push(meta);
            parts.push(&frame.payload);
        }
        let synced = file.write_at(0, &parts).and_then(|()| file.sync());
        let (is_synced, rename) = (synced.is_ok(), || self.fs.rename(&draft, &info.path));
        let named = synced.and_then(|()| rename()).and_then(|()| self.fs.sync_dir(&self.options.dir));
        if let Err(error) = named {
            for left in [&draft, &info.path] {
                self.fs.remove(left).ok();
            }
            if is_synced {
                // The name may come back after a power loss, and its base hides what stands above it in older files.
                self.abandon();
            }
            return Err(error);
        }
        self.spares.named();
        active.synced_end = info.data_end;
        self.segments.insert(ordinal, info);
        self.active = Some(active);
        self.header_ms = running_ms;
        self.held.header_written();
        self.all_synced();
        Ok(())
    }

    /// Begins the next segment, with the state as it is: the one being written is sealed, or goes when it is empty.
    pub(super) fn turn_over(&mut self, running_ms: u64) -> io::Result<()> {
        self.sync_at(running_ms)?;
        let before = self.active_info().map(|info| (info.ordinal, info.data_end == info.data_start));
        let Some((ordinal, is_empty)) = before else { return Ok(()) };
        if !is_empty {
            return self.seal_at(running_ms);
        }
        self.begin_segment(running_ms)?;
        if let Some(info) = self.segments.get_mut(&ordinal) {
            info.sealed_ms = Some(running_ms);
        }
        self.remove_empty_segments();
        Ok(())
    }

    /// Returns the sequence behind the last event in a segment that is there.
    fn written_end(&self) -> u64 {
        let written = self.segments.values().rev().find(|info| info.data_end > info.data_start);
        // Whoever could not read all of it went on as if it ended there; the next start is to know that, too.
        written.map_or(0, |info| info.unread_from.unwrap_or(info.summary.end_seq))
    }

    fn create_draft(&self, draft: &Path) -> io::Result<Arc<dyn File>> {
        self.fs.create(draft).or_else(|error| {
            // One of an earlier start that could not be removed then.
            let is_left = error.kind() == io::ErrorKind::AlreadyExists && self.fs.remove(draft).is_ok();
            if is_left { self.fs.create(draft) } else { Err(error) }
        })
    }

    /// Whether a segment is being written. Where none is since the open, what recovery found may be in the page cache alone.
    pub(in crate::log) fn is_writing(&self) -> bool {
        self.active.is_some()
    }

    /// Makes durable what recovery found, before a header speaks of it.
    fn seal_recovered(&mut self) -> io::Result<()> {
        while let Some(unsealed) = self.unsealed.last() {
            if let Some(info) = self.segments.get_mut(&unsealed.ordinal) {
                info.bytes = unsealed.seal(&*self.fs, &self.options.dir)?;
            }
            self.unsealed.pop();
        }
        Ok(())
    }

    /// Begins to bring what was written up to `end` to the disk, where the sync comes later.
    pub(super) fn sync_ahead(&mut self, end: u64) {
        if self.options.durability == Durability::Process
            && let Some(active) = &mut self.active
            && let Some(bytes) = active.ahead.due(end)
        {
            active.file.begin_sync(bytes);
        }
    }

    pub(super) fn all_synced(&mut self) {
        for (frame, tallies) in self.unsynced.drain(..) {
            self.base.apply(&frame, &tallies);
        }
        self.unsynced_bytes = 0;
        self.base_seq = self.memory_start();
        self.syncs += 1;
    }

    /// Leaves the segment being written for good. What it holds from the last sync on is hidden by the next one's base.
    pub(super) fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        let now_ms = self.unsynced.last().map_or(self.running_base_ms, |(frame, _)| frame.running_ms);
        if let Some(info) = self.segments.get_mut(&active.ordinal) {
            let summary = &mut info.summary;
            let removed = self.unsynced.iter().map(|(_, tallies)| tallies);
            for (index, tally) in removed.flat_map(|tallies| tallies.iter().enumerate()) {
                summary.tallies[index].events -= tally.events;
                summary.tallies[index].bytes -= tally.bytes;
            }
            summary.end_seq = summary.end_seq.min(self.base_seq);
            summary.index.retain(|entry| u64::from(entry.offset) < active.synced_end);
            info.data_end = active.synced_end.max(info.data_start);
            info.sealed_ms = Some(now_ms);
        }
    }

    /// Forgets the frames from `first_seq` on, which were refused after a failed sync, and returns how many they are; their
    /// sequences are not used again. What was acknowledged before them, at a level that needs no sync, stays to be written.
    pub(super) fn give_up_unsynced(&mut self, first_seq: u64) -> usize {
        self.abandon();
        let before = self.unsynced.len();
        self.unsynced.retain(|(frame, _)| frame.first_seq < first_seq);
        self.unsynced_bytes = self.unsynced.iter().map(|(frame, _)| frame.memory_bytes()).sum();
        before - self.unsynced.len()
    }

    /// Removes older segments without a frame: their state stands in the new one's header.
    pub(super) fn remove_empty_segments(&mut self) {
        let empty: Vec<u64> = self
            .segments
            .values()
            .filter(|info| info.sealed_ms.is_some() && info.data_end == info.data_start)
            .map(|info| info.ordinal)
            .collect();
        for ordinal in empty {
            if self.let_go(ordinal).is_ok() {
                self.segments.remove(&ordinal);
            }
        }
    }
}

impl SegmentInfo {
    /// Returns one that holds nothing behind its header.
    fn begun((ordinal, path): (u64, PathBuf), base_seq: u64, routes: Arc<[Arc<str>]>, data_start: u64) -> Self {
        Self {
            ordinal,
            path,
            base_seq,
            summary: Summary::new(base_seq, routes.len()),
            routes,
            data_start,
            data_end: data_start,
            bytes: data_start,
            sealed_ms: None,
            whole: true,
            unread_from: None,
        }
    }
}

impl Active {
    pub(super) fn place(&self) -> Place {
        Place { synced: self.synced_end as u32, seed: self.header.seed() }
    }

    /// Returns the number of an origin in this segment, appending its frame to `out` at its first appearance.
    pub(super) fn origin_id(&mut self, origin: &Arc<Origin>, out: &mut Vec<u8>) -> u32 {
        if let Some(id) = self.origin_ids.get(origin.json()) {
            return *id;
        }
        let id = self.origins.len() as u32;
        format::encode_origin(out, id, origin, self.place());
        self.origin_ids.insert(origin.json().clone(), id);
        self.origins.push(origin.clone());
        id
    }

    /// Forgets the origins numbered from `count` on: their frames did not get into the file.
    pub(super) fn truncate_origins(&mut self, count: usize) {
        for origin in self.origins.drain(count..) {
            self.origin_ids.remove(origin.json());
        }
    }

    /// Encodes frames that are to be written again behind a header; returns each frame's bytes before its payload.
    fn encode_again(&mut self, frames: &[(Arc<Frame>, Box<[Tally]>)], info: &mut SegmentInfo) -> Vec<Vec<u8>> {
        let mut metas = Vec::with_capacity(frames.len());
        for (frame, _) in frames {
            let mut meta = Vec::new();
            let origin = self.origin_id(&frame.origin, &mut meta);
            let offset = info.data_end + meta.len() as u64;
            format::encode_data(&mut meta, frame, origin, self.place());
            info.data_end += (meta.len() + frame.payload.len()) as u64;
            info.summary.push(frame, offset);
            metas.push(meta);
        }
        info.bytes = info.data_end;
        metas
    }
}
