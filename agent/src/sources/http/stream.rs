//! A connection's stream with the timeouts that the HTTP library does not have.
//!
//! - Between requests it may rest for [`IDLE_TIMEOUT`]; from the first byte of a request line on, all headers must come
//!   within [`HEADER_TIMEOUT`], however they drip. During a request the body's own timeouts count ([`super::body`]).
//! - A client that does not read its answer is given up after [`WRITE_TIMEOUT`].
//! - Where a request was refused before it was read, what still comes is thrown away for [`LINGER_TIMEOUT`] before the
//!   socket is closed: closing it with unread data would make the system drop the answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::limits::{HEADER_TIMEOUT, IDLE_TIMEOUT, LINGER_BYTES_MAX, LINGER_TIMEOUT, Limit, WRITE_TIMEOUT};
use super::stats::HttpStats;

/// What a connection's requests tell its stream.
#[derive(Debug, Default)]
pub(super) struct Activity {
    in_request: AtomicBool,
    unread: AtomicBool,
}

impl Activity {
    /// Notes that a request begins.
    pub(super) fn begin(&self) {
        self.in_request.store(true, Ordering::Relaxed);
    }

    /// Notes that its answer is made, and whether a part of its body was left unread.
    pub(super) fn end(&self, unread: bool) {
        self.in_request.store(false, Ordering::Relaxed);
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// Returns whether a request is under way.
    pub(super) fn in_request(&self) -> bool {
        self.in_request.load(Ordering::Relaxed)
    }
}

/// What the reading side waits for while no request is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// A first byte.
    Idle,
    /// The rest of the headers.
    Headers,
}

/// A stream with timeouts.
pub(super) struct Stream<S> {
    io: TokioIo<S>,
    activity: Arc<Activity>,
    stats: Arc<HttpStats>,
    waiting: Option<(Waiting, Timer)>,
    write: Option<Timer>,
    linger: Option<Linger>,
}

type Timer = Pin<Box<Sleep>>;

/// The way from the last byte of an answer to the closing of the socket.
struct Linger {
    timer: Timer,
    bytes: usize,
}

impl<S> Stream<S> {
    /// Wraps `io`.
    pub(super) fn new(io: S, activity: Arc<Activity>, stats: Arc<HttpStats>) -> Self {
        Self { io: TokioIo::new(io), activity, stats, waiting: None, write: None, linger: None }
    }

    fn wait(&mut self, waiting: Waiting, timeout: Duration) -> &mut Timer {
        let fresh = !matches!(&self.waiting, Some((now, _)) if *now == waiting);
        if fresh {
            self.waiting = None;
        }
        &mut self.waiting.get_or_insert_with(|| (waiting, timer(timeout))).1
    }

    /// Says what the pending write becomes.
    fn stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.write.get_or_insert_with(|| timer(WRITE_TIMEOUT)).as_mut().poll(cx));
        self.stats.limited(Limit::WriteTime);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes on what a write did; a write that waits is timed.
    fn wrote<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_pending() {
            return self.stalled(cx);
        }
        self.write = None;
        poll
    }
}

fn timer(timeout: Duration) -> Timer {
    Box::pin(sleep_until(Instant::now() + timeout))
}

impl<S: AsyncRead + Unpin> Read for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.io).poll_read(cx, into);
        if this.activity.in_request() {
            this.waiting = None;
            return read;
        }
        if read.is_ready() {
            this.wait(Waiting::Headers, HEADER_TIMEOUT);
            return read;
        }
        let (timer, limit) = match this.waiting {
            Some((Waiting::Headers, _)) => (this.wait(Waiting::Headers, HEADER_TIMEOUT), Limit::HeaderTime),
            _ => (this.wait(Waiting::Idle, IDLE_TIMEOUT), Limit::IdleTime),
        };
        ready!(timer.as_mut().poll(cx));
        this.stats.limited(limit);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(cx, poll)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            let poll = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.wrote(cx, poll))?;
            let headers = matches!(this.waiting, Some((Waiting::Headers, _)));
            if !headers && !this.activity.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(|| Linger { timer: timer(LINGER_TIMEOUT), bytes: 0 });
        linger.poll(this.io.inner_mut(), cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(cx, bytes);
        this.wrote(cx, poll)
    }
}

impl Linger {
    /// Throws away what comes, until the client closes or a limit is reached.
    fn poll<S: AsyncRead + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waste = [0; 4 << 10];
        while self.bytes < LINGER_BYTES_MAX && self.timer.as_mut().poll(cx).is_pending() {
            let mut waste = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut *io).poll_read(cx, &mut waste)) {
                Ok(()) if !waste.filled().is_empty() => self.bytes += waste.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
