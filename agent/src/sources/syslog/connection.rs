//! One connection, from its first message to its end.
//!
//! # Expected flow
//! Messages become events and gather in a batch; it ends when nothing more comes at the moment, or by its bounds. It is kept before
//! anything more is read.
//!
//! # Guarantees
//! - What was sent before the sender closed its side is in the log, half a message at its end included, which says so.
//! - The connection is not read from while its messages cannot be kept; what is read and cannot be kept at a stop is counted as lost.
//! - What is no syslog at all (a request of HTTP, which a page can make a browser send; a client that speaks TLS to a plain listener)
//!   ends the connection, and is counted.
//!
//! # Cancel safety
//! Messages that were read may be kept.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::decode::{About, End, Peer, trimmed};
use super::frame::Frame;
use super::limits::{BATCH_BYTES, BATCH_EVENTS, CLOSE_TIMEOUT, Limit};
use super::reader::MessageReader;
use super::shared::Shared;
use super::stats::Figure;
use super::times::{Due, Times};
use crate::sources::pushed::reading::Filled;
use crate::sources::pushed::strangers::{is_http, is_tls};

/// A connection.
pub(super) struct Connection<S> {
    shared: Arc<Shared>,
    stop: CancellationToken,
    reader: MessageReader<S>,
    peer: Peer,
    batch: Batch,
    times: Times,
    /// Whether nothing was taken yet.
    is_first: bool,
    /// Whether a batch was given up at the stop, since its pipeline takes nothing.
    is_refused: bool,
}

/// How a connection ends.
enum Ended {
    /// The client has sent all.
    Closed,
    /// It broke.
    Broken,
    /// The source is told to stop, or it ran into a limit.
    Cut,
    /// What comes is no syslog.
    Stranger,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Returns the connection of `peer` over `stream`, which ends by itself after `stop`.
    pub(super) fn new(stream: S, peer: Peer, shared: Arc<Shared>, stop: CancellationToken) -> Self {
        let reader = MessageReader::new(stream, shared.long.clone());
        let (batch, times) = (Batch::new(&shared.batches), Times::new());
        Self { shared, stop, reader, peer, batch, times, is_first: true, is_refused: false }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        let ended = loop {
            if let Err(ended) = self.take_messages().await {
                break ended;
            }
            match self.fill().await {
                Ok(()) => {}
                Err(ended) => {
                    self.take_rest(&ended).await;
                    break ended;
                }
            }
        };
        if !matches!(ended, Ended::Broken) {
            // Whether it hears is its own affair.
            drop(timeout(CLOSE_TIMEOUT, self.reader.from.stream.shutdown()).await);
        }
    }

    /// Takes the messages that are there, and ends the batch where it is time.
    async fn take_messages(&mut self) -> Result<(), Ended> {
        if self.is_first && is_tls(self.reader.unread()) {
            return Err(self.stranger("tls"));
        }
        let mut are_whole = false;
        while let Some(frame) = self.reader.next_frame() {
            are_whole = true;
            if std::mem::take(&mut self.is_first) && is_strange(self.reader.text(&frame), frame.over) {
                return Err(self.stranger("http"));
            }
            self.take(frame, true).await;
        }
        if are_whole {
            self.times.pace.whole();
        }
        self.times.pace.inside(self.reader.is_inside());
        if self.times.pace.is_due(self.batch.since) {
            self.settle().await;
        }
        Ok(())
    }

    /// Takes half a message, too, and keeps what is still to be kept.
    async fn take_rest(&mut self, ended: &Ended) {
        if let Some((frame, is_line)) = self.reader.last_frame() {
            self.take(frame, is_line && matches!(ended, Ended::Closed)).await;
        }
        self.settle().await;
    }

    /// Adds a message to the batch.
    async fn take(&mut self, frame: Frame, is_whole: bool) {
        if trimmed(self.reader.text(&frame)).is_empty() && frame.over == 0 {
            return;
        }
        while self.batch.make_room(frame.span.len(), &self.shared.arenas).await.is_err() {
            self.shared.stats.limited(Limit::Bytes);
            self.settle().await;
        }
        self.times.pace.resume();
        let end = match (frame.over, is_whole) {
            (0, true) => End::Whole,
            (0, false) => End::Half,
            (over, _) => End::TooLong(over as u64),
        };
        let about = About { received: self.shared.clock.now(), peer: &self.peer, end };
        let decoded = self.batch.push(self.reader.text(&frame), &about);
        self.shared.decoded(decoded);
        if self.batch.has(BATCH_BYTES, BATCH_EVENTS) {
            self.settle().await;
        }
    }

    /// Ends the batch, and has it kept.
    async fn settle(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::replace(&mut self.batch, Batch::new(&self.shared.batches));
            self.is_refused |= !self.shared.keep(batch, &self.stop).await;
            self.times.pace.resume();
        }
    }

    /// Reads more, or finds that the batch is to be ended, or the connection.
    async fn fill(&mut self) -> Result<(), Ended> {
        // What would be read now would be lost; where it is, its sender may still have it.
        if self.is_refused {
            return Err(Ended::Cut);
        }
        loop {
            if let Some(due) = self.times.overdue() {
                return self.due(due);
            }
            let (deadline, due) = self.times.next(self.batch.since);
            let filled = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !self.times.pace.is_stopping() => {
                    self.times.pace.stop();
                    continue;
                }
                filled = self.reader.fill() => filled,
                () = tokio::time::sleep_until(deadline) => return self.due(due),
            };
            match filled {
                Filled::Some { bytes, all_room } => {
                    self.shared.stats.add(Figure::WireBytes, bytes as u64);
                    self.times.read(all_room);
                    return Ok(());
                }
                Filled::End => return Err(Ended::Closed),
                Filled::Broken(error) => {
                    tracing::debug!(listener = self.shared.listener, %error, "a connection broke");
                    return Err(Ended::Broken);
                }
                Filled::NoRoom => {
                    self.shared.stats.limited(Limit::Bytes);
                    self.times.pace.resume();
                    if !self.batch.is_empty() {
                        self.times.pace.drained();
                        return Ok(());
                    }
                }
            }
        }
    }

    fn due(&mut self, due: Due) -> Result<(), Ended> {
        match due {
            Due::Batch => {
                self.times.pace.drained();
                Ok(())
            }
            Due::Stop => Err(Ended::Cut),
            Due::Limit(limit) => {
                self.shared.stats.limited(limit);
                Err(Ended::Cut)
            }
        }
    }

    fn stranger(&self, code: &'static str) -> Ended {
        self.shared.stats.refused(code);
        tracing::warn!(listener = self.shared.listener, code, "what comes is no syslog");
        Ended::Stranger
    }
}

/// Returns whether a first message is none of syslog: an HTTP request, also one whose first line is too long to see its end. What
/// begins as syslog does may end as it likes: logs of HTTP servers end so.
fn is_strange(text: &[u8], over: usize) -> bool {
    !text.starts_with(b"<") && (over > 0 || is_http(text))
}
