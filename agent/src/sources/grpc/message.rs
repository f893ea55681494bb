//! The one message of a call, in front of which five bytes say whether it is compressed and how long it is.
//!
//! # Guarantees
//! - Nothing is allocated for a length that is only told. What was read is counted as read to the client, so that it may send more.
//! - A message is whole, and nothing follows it, or reading it fails.
//!
//! # Cancel safety
//! What was read is lost.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Bytes, HttpBody};
use h2::RecvStream;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use crate::sources::http::body::{Broken, CUT};
use crate::sources::http::limits::{BODY_IDLE_TIMEOUT, Limit, WIRE_BYTES_MAX};

/// Bytes in front of a message.
pub(super) const PREFIX_BYTES: usize = 5;

/// A message behind its prefix, as it comes.
#[derive(Debug)]
pub(super) struct Message {
    stream: RecvStream,
    /// What has come and was not passed on.
    piece: Bytes,
    /// What is still to be passed on.
    left: u64,
    /// Whether its bytes are compressed.
    pub(super) is_compressed: bool,
}

/// Why there is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoMessage {
    /// The call ended without one.
    None,
    /// Its first byte is neither 0 nor 1.
    Flag(u8),
    /// It is too long, or does not come.
    Limit(Limit),
    /// The call ended in the midst of the prefix.
    Cut,
}

impl Message {
    /// Reads the prefix.
    pub(super) async fn open(mut stream: RecvStream) -> Result<Self, NoMessage> {
        let (mut prefix, mut filled) = ([0; PREFIX_BYTES], 0);
        let mut piece = Bytes::new();
        while filled < PREFIX_BYTES {
            if piece.is_empty() {
                let next = timeout(BODY_IDLE_TIMEOUT, stream.data()).await;
                piece = match next.map_err(|_| NoMessage::Limit(Limit::BodyIdleTime))? {
                    Some(Ok(piece)) => piece,
                    None if filled == 0 => return Err(NoMessage::None),
                    None | Some(Err(_)) => return Err(NoMessage::Cut),
                };
                taken(&mut stream, &piece);
            }
            let part = piece.split_to(piece.len().min(PREFIX_BYTES - filled));
            prefix[filled..filled + part.len()].copy_from_slice(&part);
            filled += part.len();
        }
        let [flag, length @ ..] = prefix;
        let left = u64::from(u32::from_be_bytes(length));
        match flag {
            _ if left > WIRE_BYTES_MAX => Err(NoMessage::Limit(Limit::WireBytes)),
            0 | 1 => Ok(Self { stream, piece, left, is_compressed: flag == 1 }),
            _ => Err(NoMessage::Flag(flag)),
        }
    }
}

/// Lets the client send as much again.
fn taken(stream: &mut RecvStream, piece: &Bytes) {
    // It fails only for more than was taken.
    stream.flow_control().release_capacity(piece.len()).ok();
}

impl HttpBody for Message {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        loop {
            if !this.piece.is_empty() {
                if this.left == 0 {
                    return Poll::Ready(Some(Err(Broken("a call has one message, and something follows it"))));
                }
                let length = this.piece.len().min(usize::try_from(this.left).unwrap_or(usize::MAX));
                this.left -= length as u64;
                return Poll::Ready(Some(Ok(Frame::data(this.piece.split_to(length)))));
            }
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(piece)) => {
                    taken(&mut this.stream, &piece);
                    this.piece = piece;
                }
                None if this.left == 0 => return Poll::Ready(None),
                None | Some(Err(_)) => return Poll::Ready(Some(Err(Broken(CUT)))),
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
