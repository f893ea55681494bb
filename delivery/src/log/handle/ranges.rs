//! What of a log is there: bytes, and which sequences.

use super::{Log, ReadError};
use crate::clock::UnixNanos;
use crate::log::DeliveryKey;

impl Log {
    /// Returns the bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared().disk_bytes
    }

    /// Frees what nobody needs any more, the segment being written included.
    pub(crate) fn make_room(&self) {
        let mut shared = self.shared();
        self.want_free(&mut shared);
    }

    /// A reader that never saved anything needs nothing any more.
    pub(crate) fn drop_floor(&self, key: &DeliveryKey) {
        self.shared().floors.remove(key);
    }

    /// Returns the first sequence received at or after `time`, the end when there is none. Times are labels: where the clock
    /// was set back, the first such event counts.
    pub async fn seq_at(&self, time: UnixNanos) -> Result<u64, ReadError> {
        let mut reader = self.reader(self.before(time));
        loop {
            let frames = reader.read().await?;
            if frames.is_empty() {
                return Ok(self.visible_end());
            }
            if let Some(frame) = frames.iter().find(|frame| frame.received >= time) {
                return Ok(frame.first_seq);
            }
        }
    }

    /// Returns the sequence of the last index entry before the first one received at or after `time`.
    fn before(&self, time: UnixNanos) -> u64 {
        let shared = self.shared();
        let entries = shared.segments.values().flat_map(|info| &info.summary.index);
        let early = entries.take_while(|entry| entry.received < time);
        let first = shared.segments.values().next().map_or(1, |info| info.base_seq);
        early.last().map_or(first, |entry| entry.seq)
    }
}
