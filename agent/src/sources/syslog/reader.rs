//! A stream becomes messages.
//!
//! # Guarantees
//! What is beyond [`READ_BYTES`] is leased before it is there, all that the longest message needs at once: who has it waits for no
//! more, so that those who have some of it never wait for each other.
//!
//! # Cancel safety
//! [`MessageReader::fill`] loses nothing when it is dropped.

use tokio::io::AsyncRead;

use super::decode::MESSAGE_BYTES_MAX;
use super::frame::{Frame, Framer};
use super::limits::READ_BYTES;
use crate::sources::pushed::budget::{Budget, Lease, NoRoom};
use crate::sources::pushed::reading::{Filled, Reading};

/// Messages of one stream.
pub(super) struct MessageReader<S> {
    /// Where they come from.
    pub(super) from: Reading<S>,
    budget: Budget,
    lease: Lease,
    bytes: Vec<u8>,
    framer: Framer,
}

impl<S: AsyncRead + Unpin> MessageReader<S> {
    /// Returns the messages of `stream`.
    pub(super) fn new(stream: S, budget: Budget) -> Self {
        let lease = budget.lease(None);
        Self { from: Reading::new(stream), budget, lease, bytes: Vec::new(), framer: Framer::default() }
    }

    /// Returns whether a part of a message is there.
    pub(super) fn is_inside(&self) -> bool {
        self.framer.is_inside()
    }

    /// Returns what was read and not taken.
    pub(super) fn unread(&self) -> &[u8] {
        &self.bytes[self.framer.start..self.framer.end]
    }

    /// Returns the text of a message that was just returned.
    pub(super) fn text(&self, frame: &Frame) -> &[u8] {
        &self.bytes[frame.span.clone()]
    }

    /// Takes the next whole message.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        self.framer.next(&self.bytes)
    }

    /// Takes what is there of a message, once no more comes, and whether it is a line.
    pub(super) fn last_frame(&mut self) -> Option<(Frame, bool)> {
        self.framer.last()
    }

    /// Reads more.
    pub(super) async fn fill(&mut self) -> Filled {
        if self.make_room().await.is_err() {
            return Filled::NoRoom;
        }
        let filled = self.from.fill(&mut self.bytes[self.framer.end..]).await;
        if let Filled::Some { bytes, .. } = filled {
            self.framer.end += bytes;
        }
        filled
    }

    async fn make_room(&mut self) -> Result<(), NoRoom> {
        let Framer { start, end, .. } = self.framer;
        if start > 0 && (start == end || end == self.bytes.len()) {
            self.bytes.copy_within(start..end, 0);
            self.framer.moved();
        }
        if self.bytes.len() > READ_BYTES && self.framer.end < READ_BYTES / 2 {
            self.bytes.truncate(READ_BYTES);
            self.bytes.shrink_to_fit();
            self.lease = self.budget.lease(None);
        }
        if self.bytes.is_empty() {
            self.bytes.resize(READ_BYTES, 0);
        }
        if self.framer.end < self.bytes.len() {
            return Ok(());
        }
        // Only a message that is longer than the buffer fills it from its beginning; the longest leaves room behind it.
        self.lease.grow(MESSAGE_BYTES_MAX).await?;
        self.bytes.reserve_exact(MESSAGE_BYTES_MAX);
        self.bytes.resize(READ_BYTES + MESSAGE_BYTES_MAX, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_message_takes_of_the_budget_and_gives_it_back() {
        let budget = Budget::new(MESSAGE_BYTES_MAX, 0);
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let mut reader = MessageReader::new(reader, budget.clone());
        let long = vec![b'x'; 10 * MESSAGE_BYTES_MAX];
        let writing = async {
            writer.write_all(&long).await.unwrap();
            writer.write_all(b"\n<1>a\n").await.unwrap();
        };
        let reading = async {
            let mut found = Vec::new();
            while found.len() < 2 {
                assert!(matches!(reader.fill().await, Filled::Some { .. }));
                assert!(reader.bytes.len() <= READ_BYTES + MESSAGE_BYTES_MAX);
                found.extend(std::iter::from_fn(|| reader.next_frame()).map(|frame| (frame.span.len(), frame.over)));
            }
            found
        };
        let (found, ()) = tokio::join!(reading, writing);
        assert_eq!(found, [(MESSAGE_BYTES_MAX, 9 * MESSAGE_BYTES_MAX), (4, 0)]);
        assert_eq!(budget.free_bytes(), 0);
        let (mut other_writer, other) = tokio::io::duplex(1 << 20);
        let mut other = MessageReader::new(other, budget.clone());
        other_writer.write_all(&vec![b'y'; READ_BYTES + 1]).await.unwrap();
        assert!(matches!(other.fill().await, Filled::Some { all_room: true, .. }));
        assert_eq!(other.next_frame(), None);
        assert!(matches!(other.fill().await, Filled::NoRoom), "nothing is read for which there is no memory");
        writer.write_all(b"<1>b\n").await.unwrap();
        assert!(matches!(reader.fill().await, Filled::Some { .. }));
        assert_eq!(budget.free_bytes(), MESSAGE_BYTES_MAX);
        assert!(matches!(other.fill().await, Filled::Some { .. }));
    }
}
