//! Edits of a log that stays open: another route table, another level, another size.
//!
//! # Guarantees
//! A segment's masks are of one table, the one in its header. The first frame behind an edit begins a segment; frames that
//! a failed sync left unwritten are written again under the table they were masked with.

use std::io;
use std::sync::Arc;

use super::LogCore;
use crate::log::frame::Frame;
use crate::settings::Durability;

/// What an edit changes of a log.
#[derive(Debug, Clone)]
pub struct CoreEdit {
    /// The routes, in the order of the masks' bits; at most 64.
    pub routes: Arc<[Arc<str>]>,
    /// The level of its acknowledgements.
    pub durability: Durability,
    /// Most bytes on disk; sizes the segments.
    pub bytes_max: u64,
}

impl LogCore {
    /// Goes on under `edit` and returns the sequence it begins at. Writes nothing, so it cannot fail: the next frame begins
    /// the segment.
    pub fn edit(&mut self, edit: CoreEdit) -> u64 {
        if self.routes != edit.routes {
            self.routes = edit.routes;
        }
        if edit.bytes_max < self.options.bytes_max {
            // They are of segments larger than those to come.
            self.spares.drop_all(&*self.fs);
        }
        self.options.durability = edit.durability;
        self.options.bytes_max = edit.bytes_max;
        self.next_seq
    }

    /// Returns the table of the segment to begin: that of the frames to be written, where there are any.
    pub(super) fn table(&self) -> Arc<[Arc<str>]> {
        let first = self.unsynced.first().map(|(frame, _)| frame);
        first.or(self.held.front()).map_or_else(|| self.routes.clone(), |frame| frame.routes.clone())
    }

    /// Begins a segment where the one being written has another table than the frame to be written, or does not know the
    /// state as it is.
    pub(super) fn settle_table(&mut self, frame: &Frame, running_ms: u64) -> io::Result<()> {
        let is_good = |info: &super::SegmentInfo| Arc::ptr_eq(&info.routes, &frame.routes) && !self.held.needs_header();
        if self.active_info().is_none_or(is_good) { Ok(()) } else { self.turn_over(running_ms) }
    }
}
