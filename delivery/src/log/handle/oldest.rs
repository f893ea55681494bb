//! When the oldest event was received that a delivery still holds.

use super::Log;
use super::reader::{Given, ReadError, read_disk};
use crate::clock::UnixNanos;
use crate::log::core::SegmentInfo;
use crate::log::journal::Progress;

impl Log {
    /// Returns when the first event of a route was received that `progress` has not resolved; `None` without one. Reads from
    /// the index entry before it on, past frames of other routes by their counts. Blocks.
    pub fn oldest_held(&self, route: &str, progress: &Progress) -> Result<Option<UnixNanos>, ReadError> {
        let infos: Vec<_> = self.shared().segments.values().cloned().collect();
        for info in infos.iter().filter(|info| info.summary.end_seq > progress.cursor) {
            let Some(bit) = info.route(route) else { continue };
            let found = self.oldest_of(info, bit, progress)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn oldest_of(&self, info: &SegmentInfo, bit: usize, progress: &Progress) -> Result<Option<UnixNanos>, ReadError> {
        let index = &info.summary.index;
        let events = |tallies: &[crate::log::state::Tally]| tallies.get(bit).map_or(0, |tally| tally.events);
        for (place, entry) in index.iter().enumerate() {
            let next = index.get(place + 1);
            let end = next.map_or(info.summary.end_seq, |next| next.seq);
            let after = next.map_or_else(|| events(&info.summary.tallies), |next| events(&next.before));
            if end <= progress.cursor || after == events(&entry.before) {
                continue;
            }
            let (mut at, mut open) = (entry.seq, None);
            while at < end {
                let (given, opened) = read_disk(self, at, end, open.take()).map_err(ReadError::Io)?;
                let Given::Frames(frames) = given else { break };
                open = opened;
                let is_held = |seq: &u64| !progress.is_resolved(*seq);
                let holds = |frame: &&std::sync::Arc<crate::log::Frame>| {
                    let wanted = (frame.first_seq..frame.end_seq()).filter(is_held);
                    wanted.into_iter().any(|seq| frame.masks.get((seq - frame.first_seq) as usize) >> bit & 1 == 1)
                };
                if let Some(frame) = frames.iter().find(holds) {
                    return Ok(Some(frame.received));
                }
                at = frames.last().map_or(end, |last| last.end_seq());
            }
        }
        Ok(None)
    }
}
