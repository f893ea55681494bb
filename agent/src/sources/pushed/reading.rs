//! Bytes of a stream come into a buffer: all that is there, as far as there is room.
//!
//! # Guarantees
//! A read goes on while the stream has more at once: what comes in pieces, as records of TLS do, is one read.
//!
//! # Cancel safety
//! [`Reading::fill`] loses nothing when it is dropped.

use std::io;

use futures_util::future::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A stream, and what it said behind the bytes that were returned last.
#[derive(Debug)]
pub(crate) struct Reading<S> {
    /// Where bytes come from.
    pub(crate) stream: S,
    /// How it ended behind them.
    ended: Option<Filled>,
}

/// What became of a read.
#[derive(Debug)]
pub(crate) enum Filled {
    /// Some bytes came; whether as many as there was room for.
    Some { bytes: usize, all_room: bool },
    /// There are no more.
    End,
    /// The stream broke.
    Broken(io::Error),
    /// There is no memory for so much now.
    NoRoom,
}

impl<S: AsyncRead + Unpin> Reading<S> {
    /// Returns what reads `stream`.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, ended: None }
    }

    /// Waits for bytes, and takes all that are there as far as there is `room`, of which there is some.
    pub(crate) async fn fill(&mut self, room: &mut [u8]) -> Filled {
        if let Some(ended) = self.ended.take() {
            return ended;
        }
        let mut bytes = match filled(self.stream.read(room).await) {
            Ok(bytes) => bytes,
            Err(ended) => return ended,
        };
        while bytes < room.len() {
            // Whoever calls again waits with a waker of its own.
            match self.stream.read(&mut room[bytes..]).now_or_never().map(filled) {
                Some(Ok(more)) => bytes += more,
                Some(Err(ended)) => {
                    self.ended = Some(ended);
                    break;
                }
                None => break,
            }
        }
        Filled::Some { bytes, all_room: bytes == room.len() }
    }
}

fn filled(read: io::Result<usize>) -> Result<usize, Filled> {
    match read {
        Ok(0) => Err(Filled::End),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(Filled::Broken(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// Pieces, which are all there, and an end.
    struct Pieces(VecDeque<io::Result<&'static [u8]>>);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let piece = self.0.pop_front().unwrap_or(Ok(b""))?;
            let (now, later) = piece.split_at(piece.len().min(buf.remaining()));
            buf.put_slice(now);
            if !later.is_empty() {
                self.0.push_front(Ok(later));
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn pieces_that_are_there_are_one_read_and_what_is_behind_them_is_told_after_it() {
        let broken = Err(io::ErrorKind::ConnectionReset.into());
        let mut reading = Reading::new(Pieces([Ok(&b"ab"[..]), Ok(b"c"), Ok(b"defg"), broken].into()));
        let mut room = [0; 5];
        assert!(matches!(reading.fill(&mut room).await, Filled::Some { bytes: 5, all_room: true }));
        assert_eq!(&room, b"abcde");
        assert!(matches!(reading.fill(&mut room).await, Filled::Some { bytes: 2, all_room: false }));
        assert!(matches!(reading.fill(&mut room).await, Filled::Broken(_)));
        assert!(matches!(reading.fill(&mut room).await, Filled::End));
    }
}
