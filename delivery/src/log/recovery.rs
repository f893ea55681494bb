//! What a log finds in its directory at the start. Never refuses: it cuts, skips, sets aside, counts and says so.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::QUARANTINE_BYTES_MAX;
use super::core::{DRAFT_EXTENSION, SPARE_EXTENSION, SegmentInfo};
use super::format::{Footer, Place, SegmentHeader};
use super::segment::{Later, SegmentFile, Stop, Summary, ordinal_of};
use super::state::State;
use crate::event::Origin;
use crate::filesystem::Filesystem;

/// What recovery met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Segments found.
    pub segments: u64,
    /// Segments that had to be scanned because they had no footer.
    pub scanned: u64,
    /// Bytes of a torn tail that were cut: written and never acknowledged at level `Disk`.
    pub cut_bytes: u64,
    /// Damaged places within synced data that were skipped.
    pub damaged_records: u64,
    /// Segments without a readable header, moved to `quarantine/`.
    pub quarantined_segments: u64,
    /// Segments that the file system refused to read, whole or from some place on.
    pub unreadable_segments: u64,
    /// Whether the log was at level `Memory`: a process that did not end by itself may have taken events with it that
    /// nothing else knows of.
    pub in_memory: bool,
    /// Events that went with it at least: they stand below a cursor or in a plan, in no file, and not every delivery had
    /// them.
    pub lost_events: u64,
    /// Sequence behind the last event that is there, or was passed by all.
    pub end_seq: u64,
    /// Damaged things that could not be set aside because `quarantine/` is full, and were deleted.
    pub quarantine_overflow: u64,
}

/// How often a segment is opened that the file system refuses to read.
const OPEN_ATTEMPTS: usize = 3;

/// Sequences left out above a segment that cannot be read: more than one can hold.
const UNREADABLE_SEQ_GAP: u64 = 1 << 32;

pub(super) struct Found {
    pub(super) segments: BTreeMap<u64, SegmentInfo>,
    pub(super) next_ordinal: u64,
    pub(super) end_seq: u64,
    pub(super) running_ms: u64,
    pub(super) state: State,
    /// Segments that a crash left open: what stands in them may be in the page cache alone.
    pub(super) unsealed: Vec<Unsealed>,
}

/// A segment that was scanned, to be made durable before anything that names what it holds is.
#[derive(Debug)]
pub(super) struct Unsealed {
    pub(super) ordinal: u64,
    path: PathBuf,
    end: u64,
    footer: Vec<u8>,
}

/// What one segment says of the log's state at its end.
struct Ending {
    state: State,
    running_ms: u64,
}

pub(super) fn recover(fs: &dyn Filesystem, dir: &Path) -> io::Result<(Recovered, Found)> {
    let mut report = Recovered::default();
    let paths = fs.list(dir)?;
    let mut ordinals: Vec<u64> = paths.iter().filter_map(|path| ordinal_of(path)).collect();
    ordinals.sort_unstable();
    report.segments = ordinals.len() as u64;
    let mut found = Found {
        segments: BTreeMap::new(),
        next_ordinal: ordinals.last().map_or(1, |last| last + 1),
        end_seq: 1,
        running_ms: 0,
        state: State::default(),
        unsealed: Vec::new(),
    };
    let files = open_all(fs, dir, &ordinals, &mut report)?;
    for draft in paths.iter().filter(|path| path.extension().is_some_and(is_scrap)) {
        fs.remove(draft).ok();
    }
    for (index, (path, file)) in files.iter().enumerate() {
        // A later base hides what stands here from there on: it was written again, or never acknowledged.
        let limit = files[index + 1..].iter().map(|(_, later)| later.header.base_seq).min().unwrap_or(u64::MAX);
        let (info, ending, unsealed) = examine(file, path, limit, &mut report);
        found.unsealed.extend(unsealed);
        let next = files.get(index + 1).map(|(_, next)| &next.header);
        let lacks_end = |next: &SegmentHeader| info.summary.end_seq < next.follows_seq;
        if next.is_some_and(|next| next.incarnation == file.header.incarnation && lacks_end(next)) {
            // The next segment was begun when this one was whole: what is missing at its end is damage, not a torn tail.
            report.damaged_records += 1;
        }
        found.end_seq = found.end_seq.max(info.summary.end_seq).max(info.base_seq);
        found.running_ms = found.running_ms.max(ending.running_ms);
        found.state = ending.state;
        report.in_memory = file.header.in_memory;
        found.segments.insert(info.ordinal, info);
    }
    if report.unreadable_segments > 0 {
        // What they hold must not be hidden by a new segment's base once they can be read again.
        found.end_seq += UNREADABLE_SEQ_GAP;
    }
    report.end_seq = found.end_seq;
    Ok((report, found))
}

/// Opens every segment, oldest first; what has no readable header is set aside. A segment of a later format ends it with
/// everything where it was.
fn open_all(
    fs: &dyn Filesystem,
    dir: &Path,
    ordinals: &[u64],
    report: &mut Recovered,
) -> io::Result<Vec<(PathBuf, SegmentFile)>> {
    let mut files = Vec::with_capacity(ordinals.len());
    let mut damaged = Vec::new();
    for ordinal in ordinals {
        let path = super::segment::path_of(dir, *ordinal);
        match open_one(fs, &path, report)?.filter(|file| file.header.ordinal == *ordinal) {
            Some(file) => files.push((path, file)),
            None => damaged.push(path),
        }
    }
    for path in damaged {
        report.quarantined_segments += 1;
        set_aside(fs, dir, &path, report);
    }
    Ok(files)
}

/// Opens a segment, `None` when it is damaged. A read error may pass; what does not is damage, too, set aside and counted as
/// dropped by every delivery it concerns.
fn open_one(fs: &dyn Filesystem, path: &Path, report: &mut Recovered) -> io::Result<Option<SegmentFile>> {
    for _ in 0..OPEN_ATTEMPTS {
        match SegmentFile::open(fs, path) {
            Ok(opened) => return Ok(opened),
            Err(error) if Later::is(&error) => return Err(error),
            Err(_) => {}
        }
    }
    report.unreadable_segments += 1;
    Ok(None)
}

fn examine(
    file: &SegmentFile,
    path: &Path,
    limit: u64,
    report: &mut Recovered,
) -> (SegmentInfo, Ending, Option<Unsealed>) {
    let header = &*file.header;
    let bytes = file.file.len().unwrap_or(0);
    let sealed = file.footer().unwrap_or(None);
    let mut unsealed = None;
    let (summary, data_end, ending) = if let Some((at, footer)) = sealed {
        (footer.summary, at, Ending { state: footer.state, running_ms: footer.running_ms })
    } else {
        report.scanned += 1;
        let scan = scan(file, bytes, limit, report);
        unsealed = scan.complete.then(|| Unsealed {
            ordinal: header.ordinal,
            path: path.to_owned(),
            end: scan.end,
            footer: footer_of(&scan, header.seed()),
        });
        (scan.summary, scan.end, Ending { state: scan.state, running_ms: scan.running_ms })
    };
    let info = SegmentInfo {
        ordinal: header.ordinal,
        path: path.to_owned(),
        base_seq: header.base_seq,
        routes: header.routes.clone(),
        summary,
        data_start: file.data_start,
        data_end,
        bytes: file.file.len().unwrap_or(bytes),
        sealed_ms: Some(ending.running_ms),
    };
    (info, ending, unsealed)
}

/// Whether a file of this extension is no segment yet, or none any more.
fn is_scrap(extension: &std::ffi::OsStr) -> bool {
    extension == DRAFT_EXTENSION || extension == SPARE_EXTENSION
}

struct Scan {
    summary: Summary,
    origins: Vec<Arc<Origin>>,
    state: State,
    running_ms: u64,
    end: u64,
    /// Whether every byte could be read.
    complete: bool,
}

fn scan(file: &SegmentFile, bytes: u64, limit: u64, report: &mut Recovered) -> Scan {
    let header = &*file.header;
    let mut scan = Scan {
        summary: Summary::new(header.base_seq, header.routes.len()),
        origins: Vec::new(),
        state: header.state.clone(),
        running_ms: header.running_ms,
        end: file.data_start,
        complete: true,
    };
    let mut at = file.data_start;
    while at < bytes {
        let Ok(block) = file.block(at, &mut scan.origins, bytes) else {
            scan.complete = false;
            report.unreadable_segments += 1;
            return scan;
        };
        for placed in &block.frames {
            if placed.frame.first_seq >= limit {
                scan.end = placed.offset;
                return scan;
            }
            let tallies = scan.summary.push(&placed.frame, placed.offset);
            scan.state.apply(&placed.frame, &tallies);
            scan.running_ms = scan.running_ms.max(placed.frame.running_ms);
        }
        scan.end = block.next;
        match block.stop {
            Stop::More => at = block.next,
            Stop::End => break,
            Stop::Bad => match next_synced(file, block.next, bytes) {
                Some(next) => {
                    report.damaged_records += 1;
                    at = next;
                }
                None => break,
            },
        }
    }
    report.cut_bytes += bytes.saturating_sub(scan.end.max(header.stale_end));
    scan
}

/// Finds the next good frame behind a bad place, where that place had been synced: it is damage. `None`: a torn tail.
fn next_synced(file: &SegmentFile, bad: u64, end: u64) -> Option<u64> {
    let next = file.resync(bad, end).ok()??;
    let mut at = next;
    while at < end {
        let block = file.block(at, &mut Vec::new(), end).ok()?;
        if block.frames.iter().any(|placed| u64::from(placed.synced) > bad) {
            return Some(next);
        }
        at = match block.stop {
            Stop::More => block.next,
            Stop::End => return None,
            Stop::Bad => file.resync(block.next, end).ok()??,
        };
    }
    None
}

fn footer_of(scan: &Scan, seed: u32) -> Vec<u8> {
    let footer = Footer {
        summary: scan.summary.clone(),
        origins: scan.origins.iter().map(|origin| origin.json().clone()).collect(),
        running_ms: scan.running_ms,
        state: scan.state.clone(),
    };
    footer.encode(Place { synced: 0, seed })
}

impl Unsealed {
    /// Makes the segment durable, its tail cut and its footer written, and returns its length.
    ///
    /// A copy is synced and takes the name. The file itself is not synced: after a sync that failed in the process before, that
    /// would prove nothing, and when it fails now the kernel may drop what only the page cache holds. On a full disk there
    /// is no room for a copy; the bytes are written again where they stand then.
    pub(super) fn seal(&self, fs: &dyn Filesystem, dir: &Path) -> io::Result<u64> {
        let mut bytes = vec![0; self.end as usize];
        if fs.open(&self.path, false)?.read_at(0, &mut bytes)? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match self.copy(fs, dir, &bytes) {
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                self.write_in_place(fs, &bytes)
            }
            other => other,
        }
    }

    fn copy(&self, fs: &dyn Filesystem, dir: &Path, bytes: &[u8]) -> io::Result<u64> {
        let draft = self.path.with_extension(DRAFT_EXTENSION);
        // One that an earlier attempt left, if it could not be removed then.
        fs.remove(&draft).ok();
        let made = fs.create(&draft).and_then(|file| {
            file.write_at(0, &[bytes, &self.footer])?;
            file.sync()?;
            fs.rename(&draft, &self.path)?;
            fs.sync_dir(dir)
        });
        if made.is_err() {
            fs.remove(&draft).ok();
        }
        made.map(|()| self.end + self.footer.len() as u64)
    }

    fn write_in_place(&self, fs: &dyn Filesystem, bytes: &[u8]) -> io::Result<u64> {
        let file = fs.open(&self.path, true)?;
        file.write_at(0, &[bytes])?;
        file.truncate(self.end)?;
        file.sync()?;
        Ok(self.end)
    }
}

/// Moves a damaged file to `quarantine/`, or deletes it when that is full.
fn set_aside(fs: &dyn Filesystem, dir: &Path, path: &Path, report: &mut Recovered) {
    let quarantine = dir.join("quarantine");
    let size = |path: &Path| fs.open(path, false).and_then(|file| file.len()).unwrap_or(0);
    let held: u64 = fs.list(&quarantine).unwrap_or_default().iter().map(|path| size(path)).sum();
    let target = quarantine.join(path.file_name().unwrap_or_default());
    let fits = held + size(path) <= QUARANTINE_BYTES_MAX;
    let moved = fits && fs.create_dir_all(&quarantine).and_then(|()| fs.rename(path, &target)).is_ok();
    if !moved {
        report.quarantine_overflow += 1;
        if let Err(error) = fs.remove(path) {
            tracing::error!(path = %path.display(), %error, "damaged segment can be neither moved nor removed");
        }
    }
    tracing::error!(path = %path.display(), moved, "segment has no readable header; set aside");
}
