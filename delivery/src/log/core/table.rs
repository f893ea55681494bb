//! Edits of a log that stays open: another route table, another level, another size.
//!
//! # Guarantees
//! A segment's masks are of one table, the one in its header. The first frame behind an edit begins a segment; frames that
//! a failed sync left unwritten are written again under the table they were masked with.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::LogCore;
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
        self.options.durability = edit.durability;
        self.options.bytes_max = edit.bytes_max;
        self.next_seq
    }

    /// Returns the table of the segment to begin: that of the frames to be written again, where there are any.
    pub(super) fn table(&self) -> Arc<[Arc<str>]> {
        self.unsynced.first().map_or_else(|| self.routes.clone(), |(frame, _)| frame.routes.clone())
    }

    /// Begins a segment under the table of now, where the one being written has another.
    pub(super) fn settle_table(&mut self, running_ms: u64) -> io::Result<()> {
        let outdated = self.active_info().filter(|info| !Arc::ptr_eq(&info.routes, &self.routes));
        let Some((ordinal, is_empty)) = outdated.map(|info| (info.ordinal, info.data_end == info.data_start)) else {
            return Ok(());
        };
        if !is_empty {
            return self.seal(Duration::from_millis(running_ms - self.running_base_ms));
        }
        self.begin_segment(running_ms)?;
        if let Some(info) = self.segments.get_mut(&ordinal) {
            info.sealed_ms = Some(running_ms);
        }
        self.remove_empty_segments();
        Ok(())
    }
}
