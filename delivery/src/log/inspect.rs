//! Reads a log without the process that writes it, and without changing a byte.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;
use serde::Serialize;

use super::journal::Journal;
use super::segment::{SegmentFile, Stop, ordinal_of, path_of};
use crate::clock::UnixNanos;
use crate::event::EventId;
use crate::filesystem::Filesystem;

/// What a log's directory holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Its segments, oldest first.
    pub segments: Vec<SegmentInspection>,
    /// What each delivery has resolved.
    pub deliveries: Vec<DeliveryInspection>,
}

/// What one segment holds, every frame checked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentInspection {
    /// Its file.
    pub file: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Whether its header could be read; nothing else is known where not.
    pub readable: bool,
    /// Whether it has a footer.
    pub sealed: bool,
    /// The incarnation that wrote it, as event ids show it.
    pub incarnation: String,
    /// First sequence it may hold.
    pub base_seq: u64,
    /// Sequence behind its last event.
    pub end_seq: u64,
    /// When it was begun, wall time.
    pub created: UnixNanos,
    /// Frames.
    pub frames: u64,
    /// Events.
    pub events: u64,
    /// Events per route.
    pub routed: BTreeMap<String, u64>,
    /// Places that are no frame.
    pub damaged: u64,
    /// Bytes behind the last good frame that are no footer.
    pub torn_bytes: u64,
}

/// What one delivery has resolved.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryInspection {
    /// The route.
    pub route: String,
    /// The backend, for good.
    pub backend: String,
    /// Everything below is resolved.
    pub cursor: u64,
    /// Resolved ranges above the cursor.
    pub resolved: Vec<(u64, u64)>,
    /// Events the backend has.
    pub delivered: u64,
    /// Events it had already.
    pub duplicates: u64,
    /// Events it refused for good.
    pub rejected: u64,
    /// Events given up, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Batches decided and not resolved: first, end, key.
    pub plans: Vec<(u64, u64, String)>,
}

/// Reads a log's directory. `event` is called for every event with its id and its bytes. Blocks.
pub fn inspect(
    fs: &std::sync::Arc<dyn Filesystem>,
    dir: &Path,
    mut event: impl FnMut(EventId, &[u8]),
) -> io::Result<Inspection> {
    let mut ordinals: Vec<u64> = fs.list(dir)?.iter().filter_map(|path| ordinal_of(path)).collect();
    ordinals.sort_unstable();
    let mut segments = Vec::new();
    for ordinal in ordinals {
        let path = path_of(dir, ordinal);
        let found = inspect_segment(&**fs, &path, &mut event);
        // A process that runs may let it go meanwhile, and write another over its file: what was read since is none of its.
        let is_gone = fs.open(&path, false).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if !is_gone {
            segments.push(found?);
        }
    }
    let read_only: std::sync::Arc<dyn Filesystem> = std::sync::Arc::new(ReadOnly(fs.clone()));
    let journal = Journal::open(read_only, dir);
    let deliveries = journal
        .progress()
        .iter()
        .map(|(key, progress)| DeliveryInspection {
            route: key.route.to_string(),
            backend: key.backend_uid.to_string(),
            cursor: progress.cursor,
            resolved: progress.resolved.clone(),
            delivered: progress.delivered,
            duplicates: progress.duplicates,
            rejected: progress.rejected,
            dropped: progress.dropped.iter().map(|(reason, events)| (reason.to_string(), *events)).collect(),
            plans: progress.plans.iter().map(|plan| (plan.first, plan.end, plan.key.to_string())).collect(),
        })
        .collect();
    Ok(Inspection { segments, deliveries })
}

fn inspect_segment(
    fs: &dyn Filesystem,
    path: &Path,
    event: &mut impl FnMut(EventId, &[u8]),
) -> io::Result<SegmentInspection> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let Some(segment) = SegmentFile::open(fs, path)? else {
        let bytes = fs.open(path, false)?.len()?;
        return Ok(unreadable(name, bytes));
    };
    let (header, bytes) = (&segment.header, segment.file.len()?);
    let footer = segment.footer()?;
    let end = footer.as_ref().map_or(bytes, |(at, _)| *at);
    let mut found = SegmentInspection {
        bytes,
        readable: true,
        sealed: footer.is_some(),
        incarnation: format!("{:016x}", header.incarnation),
        base_seq: header.base_seq,
        end_seq: header.base_seq,
        created: header.created,
        ..unreadable(name, bytes)
    };
    let (mut at, mut origins) = (segment.data_start, Vec::new());
    while at < end {
        let block = segment.block(at, &mut origins, end)?;
        for placed in &block.frames {
            let frame = &placed.frame;
            found.frames += 1;
            found.events += frame.len() as u64;
            found.end_seq = frame.end_seq();
            for index in 0..frame.len() {
                let (start, stop) = frame.span(index);
                let id = EventId { incarnation: frame.incarnation, seq: frame.first_seq + index as u64 };
                event(id, &Bytes::clone(&frame.payload)[start as usize..stop as usize]);
                for (bit, route) in header.routes.iter().enumerate() {
                    *found.routed.entry(route.to_string()).or_default() += frame.masks.get(index) >> bit & 1;
                }
            }
        }
        at = block.next;
        match block.stop {
            Stop::More => {}
            Stop::End => break,
            Stop::Bad => match segment.resync(at, end)? {
                Some(next) => {
                    found.damaged += 1;
                    at = next;
                }
                None => {
                    found.torn_bytes = end.saturating_sub(at.max(header.stale_end));
                    break;
                }
            },
        }
    }
    Ok(found)
}

fn unreadable(file: String, bytes: u64) -> SegmentInspection {
    SegmentInspection {
        file,
        bytes,
        readable: false,
        sealed: false,
        incarnation: String::new(),
        base_seq: 0,
        end_seq: 0,
        created: 0,
        frames: 0,
        events: 0,
        routed: BTreeMap::new(),
        damaged: 0,
        torn_bytes: 0,
    }
}

/// Opens everything for reading alone.
#[derive(Debug)]
pub(super) struct ReadOnly(pub(super) std::sync::Arc<dyn Filesystem>);

impl Filesystem for ReadOnly {
    fn create(&self, _: &Path) -> io::Result<std::sync::Arc<dyn crate::filesystem::File>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &Path, _: bool) -> io::Result<std::sync::Arc<dyn crate::filesystem::File>> {
        self.0.open(path, false)
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<std::path::PathBuf>> {
        self.0.list(path)
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn pause(&self, time: std::time::Duration) {
        self.0.pause(time);
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }
}
