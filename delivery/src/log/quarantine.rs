//! `quarantine/` of a log: what cannot be delivered, kept for who looks into it.
//!
//! | what | as | bound |
//! | --- | --- | --- |
//! | a segment without a header that can be read | the file, moved | [`QUARANTINE_BYTES_MAX`] with all that is there: what is over is deleted, counted |
//! | a segment that the device does not give, whole or in part | the file, moved | none: it may be whole |
//! | a record whose checksum is wrong | `<segment>-<offset>.bad`, its bytes | [`QUARANTINE_BYTES_MAX`]: what is over is not kept |
//!
//! Nothing here is ever read again by the log, but for the names of segments, which are not used twice.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{QUARANTINE_BYTES_MAX, READ_BYTES_MAX};
use crate::filesystem::Filesystem;

/// The directory, within the log's.
const FOLDER: &str = "quarantine";

/// Most files of one name.
const NAMES_MAX: u32 = 100;

/// Returns what is there.
pub(super) fn list(fs: &dyn Filesystem, dir: &Path) -> Vec<PathBuf> {
    fs.list(&dir.join(FOLDER)).unwrap_or_default()
}

/// Makes the directory while there is room: what is set aside later needs none but this.
pub(super) fn prepare(fs: &dyn Filesystem, dir: &Path) {
    fs.create_dir_all(&dir.join(FOLDER)).ok();
}

/// Moves a segment that nobody can read, or deletes it where there is no room. Returns whether it is kept.
pub(super) fn set_aside_damaged(fs: &dyn Filesystem, dir: &Path, path: &Path) -> bool {
    let moved = has_room(fs, dir, bytes_of(fs, path)) && move_in(fs, dir, path).is_ok();
    if !moved && let Err(error) = fs.remove(path) {
        tracing::error!(path = %path.display(), %error, "damaged segment can be neither moved nor removed");
    }
    tell(path, moved, "it has no header that can be read");
    moved
}

/// Moves a segment that the device does not give.
pub(super) fn set_aside_refused(fs: &dyn Filesystem, dir: &Path, path: &Path) {
    let moved = move_in(fs, dir, path).is_ok();
    tell(path, moved, "the device does not give it");
}

fn tell(path: &Path, moved: bool, reason: &str) {
    tracing::error!(path = %path.display(), moved, reason, "segment set aside; what it holds is not delivered");
}

/// Moves a file there.
pub(super) fn move_in(fs: &dyn Filesystem, dir: &Path, path: &Path) -> io::Result<()> {
    let folder = dir.join(FOLDER);
    fs.create_dir_all(&folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // What an earlier start set aside under this name stays.
    let names = std::iter::once(name.clone()).chain((1..NAMES_MAX).map(|number| format!("{name}.{number}")));
    let is_free = |target: &PathBuf| fs.open(target, false).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let target = names.map(|name| folder.join(name)).find(is_free);
    let target = target.ok_or_else(|| io::Error::other("no name is free in quarantine/"))?;
    fs.rename(path, &target)
}

/// Keeps the damaged bytes of the segment at `path`, once: a later start that meets them finds them there. Best effort, since
/// what is delivered does not depend on it.
pub(super) fn keep_record(fs: &dyn Filesystem, path: &Path, ordinal: u64, bytes: Range<u64>) {
    let Some(dir) = path.parent() else { return };
    let target = dir.join(FOLDER).join(format!("{ordinal:016x}-{}.bad", bytes.start));
    if list(fs, dir).contains(&target) {
        return;
    }
    let count = bytes.end.saturating_sub(bytes.start);
    let kept = if has_room(fs, dir, count) {
        copy(fs, path, bytes, &target)
    } else {
        Err(io::Error::other(format!("quarantine/ would hold more than {QUARANTINE_BYTES_MAX} bytes")))
    };
    match kept {
        Ok(()) => tracing::info!(path = %target.display(), bytes = count, "damaged record kept"),
        Err(error) => {
            // Half a copy says less than none.
            fs.remove(&target).ok();
            tracing::warn!(path = %target.display(), bytes = count, %error, "damaged record is not kept");
        }
    }
}

fn copy(fs: &dyn Filesystem, path: &Path, mut bytes: Range<u64>, target: &Path) -> io::Result<()> {
    let from = fs.open(path, false)?;
    prepare(fs, path.parent().unwrap_or(path));
    let (into, begun) = (fs.create(target)?, bytes.start);
    let mut piece = vec![0; READ_BYTES_MAX];
    while bytes.start < bytes.end {
        let wanted = piece.len().min((bytes.end - bytes.start) as usize);
        let read = from.read_at(bytes.start, &mut piece[..wanted])?;
        if read == 0 {
            break;
        }
        into.write_at(bytes.start - begun, &[&piece[..read]])?;
        bytes.start += read as u64;
    }
    into.sync()
}

fn has_room(fs: &dyn Filesystem, dir: &Path, bytes: u64) -> bool {
    let held: u64 = list(fs, dir).iter().map(|path| bytes_of(fs, path)).sum();
    held + bytes <= QUARANTINE_BYTES_MAX
}

fn bytes_of(fs: &dyn Filesystem, path: &Path) -> u64 {
    fs.open(path, false).and_then(|file| file.len()).unwrap_or(0)
}
