//! The order of the files of one unit: which was written before which.

/// Most bytes of a rotated file's suffix; the kubelet writes 15 (`20260101-010101`).
pub(in crate::sources) const SUFFIX_BYTES_MAX: usize = 32;

/// Orders the files of one unit: by restart, then rotated files by their suffix, then the one still written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sources) struct FileKey {
    /// How often what writes was restarted before.
    pub(in crate::sources) restart: u64,
    /// Which file of that restart.
    pub(in crate::sources) age: Age,
}

impl FileKey {
    /// The key of a unit's only file.
    pub(in crate::sources) const ONLY: Self = Self { restart: 0, age: Age::Live };

    /// Returns the restart and the stamp, or a tilde, which sorts behind every stamp: a form that sorts as the key does.
    pub(in crate::sources) fn floor(&self) -> (u64, Box<str>) {
        match &self.age {
            Age::Rotated(stamp) => (self.restart, stamp.clone()),
            Age::Live => (self.restart, "~".into()),
        }
    }
}

/// Whether a file was rotated away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::sources) enum Age {
    /// Rotated, with its time stamp.
    Rotated(Box<str>),
    /// The one that is written.
    Live,
}

/// A file name, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sources) struct FileName {
    /// Its place.
    pub(in crate::sources) key: FileKey,
    /// Whether it is compressed.
    pub(in crate::sources) gzip: bool,
}
