//! Reads a log without the process that writes it, and without changing a byte.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::format::SegmentHeader;
use super::frame::Frame;
use super::journal::Journal;
use super::recovery::next_synced;
use super::segment::{Later, SegmentFile, Stop, ordinal_of, path_of};
use super::successors::{hidden_from, lacks_end};
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
    /// Why it, or what comes behind some place of it, could not be read at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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
    /// Whether events are missing at its end that were there when it was ended, or the next one begun.
    pub lacks_end: bool,
    /// Bytes behind the last good frame that are no footer.
    pub torn_bytes: u64,
    /// Bytes that do not count, since what stands there was written again in a later segment, or never acknowledged.
    pub hidden_bytes: u64,
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

/// Reads a log's directory. `event` is called for every event that counts, with its id and its bytes. What cannot be read of a
/// segment is said of that segment. Blocks.
///
/// # Errors
/// The directory cannot be listed, or a program of a later format wrote a segment.
pub fn inspect(fs: &Arc<dyn Filesystem>, dir: &Path, mut event: impl FnMut(EventId, &[u8])) -> io::Result<Inspection> {
    let mut ordinals: Vec<u64> = fs.list(dir)?.iter().filter_map(|path| ordinal_of(path)).collect();
    ordinals.sort_unstable();
    let mut opened = Vec::with_capacity(ordinals.len());
    for ordinal in ordinals {
        let path = path_of(dir, ordinal);
        let segment = SegmentFile::open(&**fs, &path);
        if let Some(later) = segment.as_ref().err().filter(|error| Later::is(error)) {
            return Err(io::Error::new(later.kind(), later.to_string()));
        }
        opened.push((path, segment.map(|segment| segment.filter(|segment| segment.header.ordinal == ordinal))));
    }
    let mut segments = Vec::new();
    for (index, (path, segment)) in opened.iter().enumerate() {
        let behind = Behind {
            hidden_from: hidden_from(opened[index + 1..].iter().filter_map(|(_, later)| header(later))),
            next: opened.get(index + 1).and_then(|(_, next)| header(next)),
        };
        let found = inspect_segment(&**fs, path, segment, &behind, &mut event);
        // A process that runs may let it go meanwhile, and write another over its file: what was read since is none of its.
        let is_gone = fs.open(path, false).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if !is_gone {
            segments.push(found);
        }
    }
    let read_only: Arc<dyn Filesystem> = Arc::new(ReadOnly(fs.clone()));
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

/// What is known of the segments behind one.
struct Behind<'a> {
    hidden_from: u64,
    /// The header of the next, where it can be read.
    next: Option<&'a SegmentHeader>,
}

fn header(opened: &io::Result<Option<SegmentFile>>) -> Option<&SegmentHeader> {
    Some(&*opened.as_ref().ok()?.as_ref()?.header)
}

/// Reads one segment.
fn inspect_segment(
    fs: &dyn Filesystem,
    path: &Path,
    segment: &io::Result<Option<SegmentFile>>,
    behind: &Behind<'_>,
    event: &mut impl FnMut(EventId, &[u8]),
) -> SegmentInspection {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = || fs.open(path, false).and_then(|file| file.len()).unwrap_or(0);
    let segment = match segment {
        Ok(Some(segment)) => segment,
        Ok(None) => return unreadable(name, bytes()),
        Err(error) => return SegmentInspection { error: Some(error.to_string()), ..unreadable(name, bytes()) },
    };
    let header = &segment.header;
    let mut found = SegmentInspection {
        readable: true,
        incarnation: format!("{:016x}", header.incarnation),
        base_seq: header.base_seq,
        end_seq: header.base_seq,
        created: header.created,
        ..unreadable(name, 0)
    };
    match walk(segment, behind.hidden_from, &mut found, event) {
        Ok(end_seq) => {
            found.lacks_end = found.end_seq < end_seq || lacks_end(header, found.end_seq, behind.next);
        }
        Err(error) => found.error = Some(error.to_string()),
    }
    found
}

/// Reads the frames of a segment; returns where its footer says that its events end, 0 without one. What stands from
/// `hidden_from` on is not looked at.
fn walk(
    segment: &SegmentFile,
    hidden_from: u64,
    found: &mut SegmentInspection,
    event: &mut impl FnMut(EventId, &[u8]),
) -> io::Result<u64> {
    found.bytes = segment.file.len()?;
    let footer = segment.footer()?;
    found.sealed = footer.is_some();
    let (end, end_seq) = footer.map_or((found.bytes, 0), |(at, footer)| (at, footer.summary.end_seq));
    let (mut at, mut origins) = (segment.data_start, Vec::new());
    while at < end {
        let block = segment.block(at, &mut origins, end)?;
        for placed in &block.frames {
            if !found.sealed && placed.frame.first_seq >= hidden_from {
                found.hidden_bytes = end - placed.offset;
                return Ok(end_seq);
            }
            found.take(&placed.frame, &segment.header.routes, event);
        }
        at = block.next;
        match block.stop {
            Stop::More => {}
            Stop::End => break,
            Stop::Bad => {
                // Without a footer, what stands behind a bad place counts only where that place had been synced.
                let next = if found.sealed { segment.resync(at, end)? } else { next_synced(segment, at, end)? };
                let Some(next) = next else {
                    found.torn_bytes = end.saturating_sub(at.max(segment.header.stale_end));
                    break;
                };
                found.damaged += 1;
                at = next;
            }
        }
    }
    Ok(end_seq)
}

impl SegmentInspection {
    /// Returns whether something is lacking in it that was there once.
    pub fn is_damaged(&self) -> bool {
        !self.readable || self.damaged > 0 || self.lacks_end || self.error.is_some()
    }

    fn take(&mut self, frame: &Frame, routes: &[Arc<str>], event: &mut impl FnMut(EventId, &[u8])) {
        self.frames += 1;
        self.events += frame.len() as u64;
        self.end_seq = frame.end_seq();
        for index in 0..frame.len() {
            let (start, stop) = frame.span(index);
            let id = EventId { incarnation: frame.incarnation, seq: frame.first_seq + index as u64 };
            event(id, &frame.payload[start as usize..stop as usize]);
            for (bit, route) in routes.iter().enumerate() {
                *self.routed.entry(route.to_string()).or_default() += frame.masks.get(index) >> bit & 1;
            }
        }
    }
}

fn unreadable(file: String, bytes: u64) -> SegmentInspection {
    SegmentInspection {
        file,
        bytes,
        readable: false,
        error: None,
        sealed: false,
        incarnation: String::new(),
        base_seq: 0,
        end_seq: 0,
        created: 0,
        frames: 0,
        events: 0,
        routed: BTreeMap::new(),
        damaged: 0,
        lacks_end: false,
        torn_bytes: 0,
        hidden_bytes: 0,
    }
}

/// Opens everything for reading alone.
#[derive(Debug)]
pub(super) struct ReadOnly(pub(super) Arc<dyn Filesystem>);

impl Filesystem for ReadOnly {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn crate::filesystem::File>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, path: &Path, _: bool) -> io::Result<Arc<dyn crate::filesystem::File>> {
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

    fn patience(&self) -> &crate::filesystem::Patience {
        self.0.patience()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }
}
