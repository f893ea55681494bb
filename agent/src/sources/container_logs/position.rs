//! Whose position it is, of those that travel in the frames: `container-logs/<pod uid>/<container>`.

use bytes::Bytes;

/// Names the marker that says: this pipeline has seen the node's files before.
pub(super) const MARKER: &str = "container-logs";

/// Returns the source of a container's position.
pub(super) fn source(uid: &str, container: &str) -> Bytes {
    format!("{MARKER}/{uid}/{container}").into()
}
