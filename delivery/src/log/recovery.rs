//! What a log finds in its directory at the start. Damage never makes it refuse: it cuts, skips, sets aside, counts and says
//! so. What only cannot be read is no damage until the device was given time ([`Device`]); its file is set aside and never
//! deleted, whatever its size, when it is to go. What this process lacks (file descriptors, rights) is an error: a log is
//! not judged by that.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::core::{DRAFT_EXTENSION, SPARE_EXTENSION, SegmentInfo};
use super::device::{Device, is_lack};
use super::format::{Footer, Place, SegmentHeader};
use super::quarantine;
use super::segment::{Later, SegmentFile, Stop, Summary, ordinal_of, path_of};
use super::state::State;
use super::successors::{hidden_from, lacks_end, unread_end};
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
    /// Segments that the device refused to read, whole or from some place on.
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

/// A segment with a readable header. Its file is not kept open: a log may have more segments than a process may have files.
struct Headed {
    ordinal: u64,
    path: PathBuf,
    header: Arc<SegmentHeader>,
}

pub(super) fn recover(fs: &dyn Filesystem, dir: &Path) -> io::Result<(Recovered, Found)> {
    let device = Device::new(fs);
    let mut report = Recovered::default();
    let paths = device.ask(|| fs.list(dir))?;
    let mut ordinals: Vec<u64> = paths.iter().filter_map(|path| ordinal_of(path)).collect();
    ordinals.sort_unstable();
    report.segments = ordinals.len() as u64;
    // No name is used again, and no sequence of one that was newer than all that is there.
    let aside = quarantine::list(fs, dir).iter().filter_map(|path| ordinal_of(path)).max();
    let hides_newest = aside > ordinals.last().copied();
    let mut found = Found {
        segments: BTreeMap::new(),
        next_ordinal: ordinals.last().copied().max(aside).map_or(1, |last| last + 1),
        end_seq: 1,
        running_ms: 0,
        state: State::default(),
        unsealed: Vec::new(),
    };
    let headed = read_headers(&device, dir, &ordinals, &mut report)?;
    for draft in paths.iter().filter(|path| path.extension().is_some_and(is_scrap)) {
        fs.remove(draft).ok();
    }
    let mut refused = Vec::new();
    for (index, Headed { ordinal, path, header }) in headed.iter().enumerate() {
        let limit = hidden_from(headed[index + 1..].iter().map(|later| &*later.header));
        let file = match device.ask(|| SegmentFile::open(fs, path)) {
            Ok(Some(file)) if file.header == *header => file,
            Err(error) if is_lack(&error) || Later::is(&error) => return Err(error),
            // It was there a moment ago.
            _ => {
                refused.push(path_of(dir, *ordinal));
                continue;
            }
        };
        let Some((mut info, ending, unsealed)) = examine(&device, &file, path, limit, &mut report)? else {
            refused.push(path_of(dir, *ordinal));
            continue;
        };
        found.unsealed.extend(unsealed);
        let next = headed.get(index + 1).map(|next| &*next.header).filter(|_| info.whole);
        report.damaged_records += u64::from(lacks_end(&file.header, info.summary.end_seq, next));
        if info.data_end > info.data_start && unread_end(&file.header, info.summary.end_seq, next) {
            info.whole = false;
            info.unread_from = next.map(|next| next.follows_seq);
            tracing::warn!(
                path = %info.path.display(),
                "the segment holds events that an earlier start could not read; it is set aside when the log lets go of it"
            );
        }
        found.end_seq = found.end_seq.max(info.summary.end_seq).max(info.base_seq);
        found.running_ms = found.running_ms.max(ending.running_ms);
        found.state = ending.state;
        report.in_memory = file.header.in_memory;
        found.segments.insert(info.ordinal, info);
    }
    for path in refused {
        report.unreadable_segments += 1;
        quarantine::set_aside_refused(fs, dir, &path);
    }
    if report.unreadable_segments > 0 || hides_newest {
        // What they hold must not be hidden by a new segment's base once they can be read again.
        found.end_seq += UNREADABLE_SEQ_GAP;
    }
    if found.segments.values().any(|info| !info.whole) {
        // While there is room: what is set aside later needs none but this.
        quarantine::prepare(fs, dir);
    }
    report.end_seq = found.end_seq;
    Ok((report, found))
}

/// Reads every segment's header, oldest first; what has no readable one is set aside. A segment of a later format, or
/// something that this process lacks, ends it with everything where it was.
fn read_headers(device: &Device<'_>, dir: &Path, ordinals: &[u64], report: &mut Recovered) -> io::Result<Vec<Headed>> {
    let mut headed = Vec::with_capacity(ordinals.len());
    let (mut damaged, mut refused) = (Vec::new(), Vec::new());
    for ordinal in ordinals.iter().copied() {
        let path = path_of(dir, ordinal);
        match device.ask(|| SegmentFile::open(device.fs, &path)) {
            Ok(Some(file)) if file.header.ordinal == ordinal => {
                headed.push(Headed { ordinal, path, header: file.header });
            }
            Ok(_) => damaged.push(path),
            Err(error) if is_lack(&error) || Later::is(&error) => return Err(error),
            Err(_) => refused.push(path),
        }
    }
    for path in damaged {
        report.quarantined_segments += 1;
        report.quarantine_overflow += u64::from(!quarantine::set_aside_damaged(device.fs, dir, &path));
    }
    for path in refused {
        report.unreadable_segments += 1;
        quarantine::set_aside_refused(device.fs, dir, &path);
    }
    Ok(headed)
}

type Examined = (SegmentInfo, Ending, Option<Unsealed>);

/// Returns what a segment holds; `None` where the device does not even say how long it is.
fn examine(
    device: &Device<'_>,
    file: &SegmentFile,
    path: &Path,
    limit: u64,
    report: &mut Recovered,
) -> io::Result<Option<Examined>> {
    let header = &*file.header;
    let bytes = match device.ask(|| file.file.len()) {
        Err(error) if is_lack(&error) => return Err(error),
        Err(_) => return Ok(None),
        Ok(bytes) => bytes,
    };
    // One that cannot be read costs a scan.
    let sealed = match device.ask(|| file.footer()) {
        Err(error) if is_lack(&error) => return Err(error),
        found => found.unwrap_or(None),
    };
    let (mut unsealed, mut whole) = (None, true);
    let (summary, data_end, ending) = if let Some((at, footer)) = sealed {
        (footer.summary, at, Ending { state: footer.state, running_ms: footer.running_ms })
    } else {
        report.scanned += 1;
        let scan = scan(device, file, bytes, limit, report)?;
        whole = scan.complete;
        report.damaged_records += scan.damaged.len() as u64;
        scan.damaged.iter().for_each(|bytes| quarantine::keep_record(device.fs, path, header.ordinal, bytes.clone()));
        unsealed = whole.then(|| Unsealed {
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
        bytes,
        sealed_ms: Some(ending.running_ms),
        whole,
        unread_from: None,
    };
    Ok(Some((info, ending, unsealed)))
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
    /// Places that were synced and are no records any more.
    damaged: Vec<Range<u64>>,
}

fn scan(device: &Device<'_>, file: &SegmentFile, bytes: u64, limit: u64, report: &mut Recovered) -> io::Result<Scan> {
    let header = &*file.header;
    let mut scan = Scan {
        summary: Summary::new(header.base_seq, header.routes.len()),
        origins: Vec::new(),
        state: header.state.clone(),
        running_ms: header.running_ms,
        end: file.data_start,
        complete: true,
        damaged: Vec::new(),
    };
    let mut at = file.data_start;
    let refused = |mut scan: Scan, error: io::Error, report: &mut Recovered| {
        if is_lack(&error) {
            return Err(error);
        }
        scan.complete = false;
        report.unreadable_segments += 1;
        Ok(scan)
    };
    while at < bytes {
        let known = scan.origins.clone();
        let read = device.ask(|| {
            let mut origins = known.clone();
            Ok((file.readable_block(at, &mut origins, bytes)?, origins))
        });
        let block = match read {
            Ok((block, origins)) => {
                scan.origins = origins;
                block
            }
            Err(error) => return refused(scan, error, report),
        };
        for placed in &block.frames {
            if placed.frame.first_seq >= limit {
                scan.end = placed.offset;
                return Ok(scan);
            }
            let tallies = scan.summary.push(&placed.frame, placed.offset);
            scan.state.apply(&placed.frame, &tallies);
            scan.running_ms = scan.running_ms.max(placed.frame.running_ms);
        }
        scan.end = block.next;
        match block.stop {
            Stop::More => at = block.next,
            Stop::End => break,
            Stop::Bad => match device.ask(|| next_synced(file, block.next, bytes)) {
                Ok(Some(next)) => {
                    scan.damaged.push(block.next..next);
                    at = next;
                }
                Ok(None) => break,
                Err(error) => return refused(scan, error, report),
            },
        }
    }
    report.cut_bytes += bytes.saturating_sub(scan.end.max(header.stale_end));
    Ok(scan)
}

/// Finds the next good frame behind a bad place, where that place had been synced: it is damage. `None`: a torn tail.
pub(super) fn next_synced(file: &SegmentFile, bad: u64, end: u64) -> io::Result<Option<u64>> {
    let Some(next) = file.resync(bad, end)? else { return Ok(None) };
    let mut at = next;
    while at < end {
        let block = file.block(at, &mut Vec::new(), end)?;
        if block.frames.iter().any(|placed| u64::from(placed.synced) > bad) {
            return Ok(Some(next));
        }
        at = match block.stop {
            Stop::More => block.next,
            Stop::End => return Ok(None),
            Stop::Bad => match file.resync(block.next, end)? {
                Some(next) => next,
                None => return Ok(None),
            },
        };
    }
    Ok(None)
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
