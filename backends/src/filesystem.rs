//! `Filesystem`: NDJSON files below a directory, each event in them exactly once.
//!
//! | module | holds |
//! | --- | --- |
//! | `path` | the template of a path, parsed and checked |
//! | `encode` | values of events to places below the directory; names of files; never an escape (pure) |
//! | `pack` | how what is appended is packed (pure) |
//! | `gzip` | a gzip member that can be cut back to any batch (pure) |
//! | `mark` | what is stored at a commit (pure) |
//! | `directory` | the directory handle: no path leaves it |
//! | `outputs` | the open files: append, undo, rotate, commit |
//! | `recover` | from a mark back to exactly what was committed |
//! | `client` | the backend over these |

mod path;
mod settings;

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod directory;
#[cfg(feature = "client")]
mod encode;
#[cfg(feature = "client")]
mod gzip;
#[cfg(feature = "client")]
mod mark;
#[cfg(feature = "client")]
mod outputs;
#[cfg(feature = "client")]
mod pack;
#[cfg(feature = "client")]
mod recover;

pub use settings::{FilesystemSettings, RotateSettings};

#[cfg(feature = "client")]
pub use client::Files;
