//! A stream becomes lines.
//!
//! # Guarantees
//! A line costs no more than [`LINE_BYTES_MAX`] and the read buffer, however long it is: what is longer is thrown away as it
//! comes, and told by its length. What is beyond [`READ_BYTES`] is leased before it is there. A byte is searched for a line
//! break once.
//!
//! # Cancel safety
//! [`LineReader::fill`] loses nothing when it is dropped.

use std::ops::Range;

use memchr::memchr;
use tokio::io::AsyncRead;

use super::limits::{LINE_BYTES_MAX, READ_BYTES};
use crate::sources::pushed::budget::{Budget, Lease, NoRoom};
use crate::sources::pushed::reading::{Filled, Reading};

/// Lines of one stream.
pub(super) struct LineReader<S> {
    /// Where they come from.
    pub(super) from: Reading<S>,
    budget: Budget,
    lease: Lease,
    /// Data in `start..end`.
    bytes: Vec<u8>,
    start: usize,
    /// Up to where there is no line break.
    searched: usize,
    end: usize,
    /// Bytes thrown away of the line that is under way.
    skipped: usize,
    number: u64,
}

/// A line without its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// Where it is; see [`LineReader::text`].
    Whole(Range<usize>),
    /// It had so many bytes, which are gone.
    TooLong(usize),
}

impl<S: AsyncRead + Unpin> LineReader<S> {
    /// Returns the lines of `stream`.
    pub(super) fn new(stream: S, budget: Budget) -> Self {
        let (lease, bytes) = (budget.lease(None), Vec::new());
        Self { from: Reading::new(stream), budget, lease, bytes, start: 0, searched: 0, end: 0, skipped: 0, number: 0 }
    }

    /// Returns how many lines there were, the last one returned included.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns whether a part of a line is there.
    pub(super) fn is_inside(&self) -> bool {
        self.skipped > 0 || self.end > self.start
    }

    /// Returns how many bytes of the line under way there are.
    pub(super) fn inside_bytes(&self) -> usize {
        self.skipped + self.end - self.start
    }

    /// Returns the text of a line that was just returned.
    pub(super) fn text(&self, span: Range<usize>) -> &[u8] {
        &self.bytes[span]
    }

    /// Takes the next whole line.
    pub(super) fn next_line(&mut self) -> Option<Line> {
        let Some(length) = memchr(b'\n', &self.bytes[self.searched..self.end]) else {
            self.searched = self.end;
            if self.inside_bytes() > LINE_BYTES_MAX {
                self.skip();
            }
            return None;
        };
        let end = self.searched + length;
        let span = self.start..end;
        (self.start, self.searched) = (end + 1, end + 1);
        Some(self.counted(span))
    }

    /// Takes what stands behind the last line break, once no more comes.
    pub(super) fn last_line(&mut self) -> Option<Line> {
        if !self.is_inside() {
            return None;
        }
        let span = self.start..self.end;
        (self.start, self.searched) = (self.end, self.end);
        Some(self.counted(span))
    }

    fn counted(&mut self, span: Range<usize>) -> Line {
        self.number += 1;
        let bytes = std::mem::take(&mut self.skipped) + span.len();
        if bytes > LINE_BYTES_MAX { Line::TooLong(bytes) } else { Line::Whole(span) }
    }

    /// Reads more.
    pub(super) async fn fill(&mut self) -> Filled {
        if self.make_room().await.is_err() {
            return Filled::NoRoom;
        }
        let filled = self.from.fill(&mut self.bytes[self.end..]).await;
        if let Filled::Some { bytes, .. } = filled {
            self.end += bytes;
        }
        filled
    }

    /// Throws away what is there of a line that is too long.
    fn skip(&mut self) {
        self.skipped += self.end - self.start;
        (self.start, self.searched, self.end) = (0, 0, 0);
    }

    async fn make_room(&mut self) -> Result<(), NoRoom> {
        if self.start > 0 && (self.start == self.end || self.end == self.bytes.len()) {
            self.bytes.copy_within(self.start..self.end, 0);
            self.searched -= self.start;
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.bytes.len() > READ_BYTES && self.end < READ_BYTES / 2 {
            self.bytes.truncate(READ_BYTES);
            self.bytes.shrink_to_fit();
            self.lease = self.budget.lease(None);
        }
        if self.bytes.is_empty() {
            self.bytes.resize(READ_BYTES, 0);
        }
        if self.end < self.bytes.len() {
            return Ok(());
        }
        // One byte beyond the longest line, which is its line break or shows that it is too long.
        let more = self.bytes.len().min(LINE_BYTES_MAX + 1 - self.bytes.len().min(LINE_BYTES_MAX));
        self.lease.grow(more).await?;
        self.bytes.reserve_exact(more);
        self.bytes.resize(self.bytes.len() + more, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads lines of `text` that comes in pieces, the last one without its line break included.
    async fn lines(text: &[u8], piece: usize) -> Vec<Result<Vec<u8>, usize>> {
        let (mut writer, reader) = tokio::io::duplex(piece);
        let mut reader = LineReader::new(reader, Budget::new(4 << 20, 0));
        let mut found = Vec::new();
        let write = async {
            tokio::io::AsyncWriteExt::write_all(&mut writer, text).await.unwrap();
            drop(writer);
        };
        let read = async {
            loop {
                let ended = match reader.fill().await {
                    Filled::Some { .. } => false,
                    Filled::End => true,
                    other => panic!("{other:?}"),
                };
                while let Some(line) = reader.next_line().or_else(|| if ended { reader.last_line() } else { None }) {
                    found.push(match line {
                        Line::Whole(span) => Ok(reader.text(span).to_vec()),
                        Line::TooLong(bytes) => Err(bytes),
                    });
                }
                if ended {
                    assert_eq!(reader.number() as usize, found.len());
                    assert!(!reader.is_inside());
                    break;
                }
            }
        };
        tokio::join!(write, read);
        found
    }

    #[tokio::test]
    async fn lines_are_the_same_wherever_the_pieces_end() {
        let long = vec![b'x'; LINE_BYTES_MAX];
        let longer = vec![b'y'; LINE_BYTES_MAX + 1];
        let longest = vec![b'z'; 5 * LINE_BYTES_MAX];
        let text = [&b"a"[..], b"", &long, b"b\r", &longer, &longest, b"", b"half"].join(&b'\n');
        let wanted = [
            Ok(b"a".to_vec()),
            Ok(Vec::new()),
            Ok(long),
            Ok(b"b\r".to_vec()),
            Err(LINE_BYTES_MAX + 1),
            Err(5 * LINE_BYTES_MAX),
            Ok(Vec::new()),
            Ok(b"half".to_vec()),
        ];
        for piece in [7, 4096, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 << 20] {
            assert!(lines(&text, piece).await == wanted, "{piece}");
        }
        assert_eq!(lines(b"", 1).await, []);
        assert_eq!(lines(b"a\n", 1).await, [Ok(b"a".to_vec())]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_takes_of_the_budget_and_gives_it_back() {
        let budget = Budget::new(2 * LINE_BYTES_MAX, 0);
        let (mut writer, reader) = tokio::io::duplex(4 << 20);
        let mut reader = LineReader::new(reader, budget.clone());
        tokio::io::AsyncWriteExt::write_all(&mut writer, &vec![b'x'; LINE_BYTES_MAX]).await.unwrap();
        while reader.inside_bytes() < LINE_BYTES_MAX {
            assert!(matches!(reader.fill().await, Filled::Some { .. }));
            assert_eq!(reader.next_line(), None);
        }
        assert_eq!(budget.lease(None).grow(LINE_BYTES_MAX + READ_BYTES + 1).await, Err(NoRoom::Now));
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"\n{}\n").await.unwrap();
        assert!(matches!(reader.fill().await, Filled::Some { .. }));
        assert_eq!(reader.next_line(), Some(Line::Whole(0..LINE_BYTES_MAX)));
        tokio::io::AsyncWriteExt::write_all(&mut writer, b"{}\n").await.unwrap();
        assert!(matches!(reader.fill().await, Filled::Some { .. }));
        budget.lease(None).grow(2 * LINE_BYTES_MAX).await.unwrap();
        let mut all = budget.lease(None);
        all.grow(2 * LINE_BYTES_MAX).await.unwrap();
        while reader.next_line().is_some() {}
        tokio::io::AsyncWriteExt::write_all(&mut writer, &vec![b'x'; READ_BYTES + 1]).await.unwrap();
        assert!(matches!(reader.fill().await, Filled::Some { .. }));
        assert_eq!(reader.next_line(), None);
        assert!(matches!(reader.fill().await, Filled::NoRoom), "nothing is read for which there is no memory");
    }
}
