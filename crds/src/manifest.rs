//! Reading manifests: YAML into a tree with positions, the tree against the CRD's schema, errors with line and column.
//!
//! Limits, so that a hostile file costs at most a few times its own size:
//!
//! | limit | value | why |
//! | --- | --- | --- |
//! | [`TEXT_BYTES_MAX`] | 3 MiB a file | what an API server takes in one request |
//! | [`tree::WEIGHT_MAX`] | 16 MiB a file | text and nodes with every alias counted as often as it is used: no alias bombs |
//! | [`tree::DEPTH_MAX`] | 64 levels | four times the deepest field of a kind; aliases count with what they stand for |
//! | [`error::ERRORS_MAX`] | 200 a file | nobody reads more; five times as many are looked for |
//!
//! JSON is read as YAML, as `kubectl` does. Plain scalars mean what they mean to `kubectl` (YAML 1.1: `yes` is true), so
//! that a manifest cannot mean one thing here and another in a cluster.

use std::sync::Arc;

pub(crate) mod check;
pub mod error;
pub(crate) mod nearest;
pub(crate) mod object;
pub(crate) mod rules;
pub(crate) mod scalar;
pub mod tree;

pub use error::{ManifestError, Reason, Referred};

/// Most bytes of one file.
pub const TEXT_BYTES_MAX: usize = 3 << 20;

/// One file of manifests: any number of YAML documents, or JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Name of the file, as errors show it.
    pub file: Arc<str>,
    /// Its text.
    pub text: String,
}

impl Document {
    /// Returns a document of that name and text.
    pub fn new(file: &str, text: impl Into<String>) -> Self {
        Self { file: file.into(), text: text.into() }
    }
}
