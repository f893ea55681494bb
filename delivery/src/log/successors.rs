//! What the segments behind one say of it. A start and an inspection go by the same.

use super::format::SegmentHeader;

/// Returns the first sequence of a segment that does not count: a later base hides what stands there from it on, which was
/// written again, or never acknowledged.
pub(super) fn hidden_from<'a>(later: impl Iterator<Item = &'a SegmentHeader>) -> u64 {
    later.map(|header| header.base_seq).min().unwrap_or(u64::MAX)
}

/// Returns whether a segment whose events end at `end_seq` lacks some: the next was begun when it was whole, so that what
/// is missing at its end is damage and not a torn tail.
pub(super) fn lacks_end(header: &SegmentHeader, end_seq: u64, next: Option<&SegmentHeader>) -> bool {
    next.is_some_and(|next| next.incarnation == header.incarnation && end_seq < next.follows_seq)
}

/// Returns whether a segment with events up to `end_seq` holds some at its end that the start which began the next could not
/// read: cursors went past them, so that they are delivered by none, and the file is all that is left of them.
pub(super) fn unread_end(header: &SegmentHeader, end_seq: u64, next: Option<&SegmentHeader>) -> bool {
    // One that was begun by the same start stands behind a failed sync, and has all that was acknowledged.
    next.is_some_and(|next| next.incarnation != header.incarnation && end_seq > next.follows_seq)
}
