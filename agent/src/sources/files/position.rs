//! Whose position it is, of those that travel in the frames: `files/<pattern>/<path>-<inode>`, the first two as hashes, of a
//! file as it was first seen; and `files-seen/<pattern>`, which says since when a pattern is known.

use std::path::Path;

use bytes::Bytes;
use spillway_delivery::clock::UnixNanos;
use xxhash_rust::xxh3::xxh3_64;

use crate::sources::tail::position::{FileId, Mark};

/// What stands in the position of a copy in place of a suffix.
const COPIED: &str = "copied";

/// What the names of this source begin with.
pub(super) const NAME: &str = "files";

/// Returns what a pattern is known by.
pub(super) fn pattern_hash(pattern: &str) -> u64 {
    xxh3_64(pattern.as_bytes())
}

/// Returns the source of a file's position.
pub(super) fn source(pattern: u64, path: &Path, inode: u64) -> Bytes {
    format!("{NAME}/{pattern:016x}/{:016x}-{inode:x}", path_hash(path)).into()
}

/// Returns what tells whether a position is one of a file that was first seen at `path`.
pub(super) fn is_at(path: &Path) -> impl Fn(&[u8]) -> bool {
    let hash = format!("{:016x}", path_hash(path));
    move |source| source.get(NAME.len() + 18..NAME.len() + 34) == Some(hash.as_bytes())
}

/// Returns whether a position is one of a file that a pattern found.
pub(super) fn is_of(source: &[u8], pattern: u64) -> bool {
    source.get(NAME.len() + 1..NAME.len() + 17) == Some(format!("{pattern:016x}").as_bytes())
}

/// Returns the marker of a pattern.
pub(super) fn marker(pattern: u64) -> Bytes {
    format!("{NAME}-seen/{pattern:016x}").into()
}

/// Returns what a marker says that was kept at `now`.
pub(super) fn since(now: UnixNanos) -> Bytes {
    now.to_string().into()
}

/// Returns the position of a copy, of which nothing is read.
pub(super) fn copied(file: FileId) -> Mark {
    let floor = Some((0, COPIED.into()));
    Mark { file, offset: 0, previous: None, groups: Vec::new(), done: Vec::new(), floor }
}

/// Returns whether a position is that of a copy.
pub(super) fn is_copied(mark: &Mark) -> bool {
    mark.floor.as_ref().is_some_and(|(_, word)| **word == *COPIED)
}

/// Returns since when a pattern is known, by its marker.
pub(super) fn seen_since(marker: &[u8]) -> Option<UnixNanos> {
    std::str::from_utf8(marker).ok()?.parse().ok()
}

fn path_hash(path: &Path) -> u64 {
    xxh3_64(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_tells_the_pattern_and_the_path_it_is_of() {
        let (pattern, path) = (pattern_hash("/a/*.log"), Path::new("/a/b.log"));
        let source = source(pattern, path, 0xbeef);
        assert!(is_of(&source, pattern) && is_at(path)(&source), "{source:?}");
        assert!(!is_of(&source, pattern_hash("/a/*.txt")) && !is_at(Path::new("/a/c.log"))(&source));
        assert!(!is_at(path)(b"files/x") && !is_of(b"files/x", pattern));
    }

    #[test]
    fn a_marker_tells_since_when() {
        assert_eq!(seen_since(&since(17)), Some(17));
        assert_eq!(seen_since(b"x"), None);
    }
}
