//! Reads the events and the cursors of a log without the process that writes it, and without changing a byte.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::inspect::ReadOnly;
use super::journal::{DeliveryKey, Journal, Progress};
use super::segment::{SegmentFile, Stop, ordinal_of, path_of};
use crate::filesystem::Filesystem;
use crate::log::Frame;

/// Calls `visit` for every frame with events at or above `from`, in order, until it returns `false`. What is damaged or
/// not whole is passed over, as the process would. Blocks.
pub fn scan(fs: &dyn Filesystem, dir: &Path, from: u64, mut visit: impl FnMut(&Frame) -> bool) -> io::Result<()> {
    let mut ordinals: Vec<u64> = fs.list(dir)?.iter().filter_map(|path| ordinal_of(path)).collect();
    ordinals.sort_unstable();
    let mut segments = Vec::with_capacity(ordinals.len());
    for ordinal in ordinals {
        match SegmentFile::open(fs, &path_of(dir, ordinal)) {
            // Not kept open: a log may have more segments than a process may have files.
            Ok(segment) => segments.extend(segment.map(|segment| (ordinal, segment.header.base_seq))),
            // A process that runs may free it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for (index, (ordinal, _)) in segments.iter().enumerate() {
        let later = segments[index + 1..].iter().map(|(_, base_seq)| *base_seq);
        // A later base hides what stands here from there on.
        let limit = later.min().unwrap_or(u64::MAX);
        if limit <= from {
            continue;
        }
        let segment = match SegmentFile::open(fs, &path_of(dir, *ordinal)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let Some(segment) = segment else { continue };
        if !scan_segment(&segment, (from, limit), &mut visit)? {
            break;
        }
    }
    Ok(())
}

fn scan_segment(
    segment: &SegmentFile,
    (from, limit): (u64, u64),
    visit: &mut impl FnMut(&Frame) -> bool,
) -> io::Result<bool> {
    let end = match segment.footer()? {
        Some((at, _)) => at,
        None => segment.file.len()?,
    };
    let (mut at, mut origins) = (segment.data_start, Vec::new());
    while at < end {
        let block = segment.block(at, &mut origins, end)?;
        for placed in &block.frames {
            if placed.frame.first_seq >= limit {
                return Ok(true);
            }
            if placed.frame.end_seq() > from && !visit(&placed.frame) {
                return Ok(false);
            }
        }
        at = match block.stop {
            Stop::More => block.next,
            Stop::End => break,
            Stop::Bad => match segment.resync(block.next, end)? {
                Some(next) => next,
                None => break,
            },
        };
    }
    Ok(true)
}

/// Returns what every delivery of a log has saved. Blocks.
pub fn progress_in(fs: &Arc<dyn Filesystem>, dir: &Path) -> BTreeMap<DeliveryKey, Progress> {
    let read_only: Arc<dyn Filesystem> = Arc::new(ReadOnly(fs.clone()));
    Journal::open(read_only, dir).progress().clone()
}
