//! What a commit stores: the files that may still grow, and how far they are committed.

use serde::{Deserialize, Serialize};

use super::encode::{Place, Window};

/// The version written; another one is refused.
pub(super) const MARK_VERSION: u32 = 1;

/// Most bytes of a mark: under the 64 KiB the engine takes.
pub(super) const MARK_BYTES_MAX: usize = 60 << 10;

/// Most bytes of it that are not files: two directories of 512 and 1024 bytes and what is around them.
pub(super) const MARK_BYTES_AROUND: usize = 2 << 10;

/// Where the backend stood at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) version: u32,
    /// The number of the next file: files of ours from it on were begun after this commit.
    pub(super) next: u64,
    /// `directory` of the settings then.
    pub(super) directory: Option<String>,
    /// The directory below which every file lies: the fixed beginning of the template then.
    pub(super) below: String,
    /// The files that may still grow.
    pub(super) files: Vec<MarkFile>,
}

/// One file that may still grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MarkFile {
    /// Its rendered path without what names the owner.
    pub(super) place: String,
    /// The window of receipt it is for, where there is rotation by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<Window>,
    pub(super) extension: String,
    pub(super) number: u64,
    /// Its committed length.
    pub(super) bytes: u64,
}

impl MarkFile {
    /// Returns at most how many bytes it takes in the mark: JSON around it, two numbers, and text that needs no escapes.
    pub(super) fn cost(place: &Place, extension: &str) -> usize {
        96 + place.path.len() + extension.len() + if place.window.is_some() { 64 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_version_1() {
        let mark = Mark {
            version: MARK_VERSION,
            next: 3,
            directory: None,
            below: "ns".into(),
            files: vec![MarkFile {
                place: "ns/a".into(),
                window: None,
                extension: ".ndjson".into(),
                number: 2,
                bytes: 10,
            }],
        };
        let stored = r#"{"version":1,"next":3,"directory":null,"below":"ns","files":[{"place":"ns/a","extension":".ndjson","number":2,"bytes":10}]}"#;
        assert_eq!(serde_json::to_string(&mark).unwrap(), stored);
        assert_eq!(serde_json::from_str::<Mark>(stored).unwrap(), mark);
        for window in [None, Some((i64::MIN, i64::MIN))] {
            let (extension, place) = (".e".into(), "p".into());
            let largest = MarkFile { place, window, extension, number: u64::MAX, bytes: u64::MAX };
            let place = Place { path: "p".into(), window };
            assert!(serde_json::to_string(&largest).unwrap().len() < MarkFile::cost(&place, ".e"));
        }
    }
}
