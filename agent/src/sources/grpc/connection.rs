//! One connection: its handshake, its calls as tasks of their own, and its end.
//!
//! # Ends
//! - By itself: the client closed it, or it broke the rules of HTTP/2 (counted as `flood` or `protocol`).
//! - It had no call for [`IDLE_TIMEOUT`]: `GOAWAY`, and what comes meanwhile is still answered.
//! - A ping was not answered within [`PONG_TIMEOUT`]: the client is gone, or does not read.
//! - It reset more calls than it had answered, and [`RESETS_MAX`]: `GOAWAY` with `ENHANCE_YOUR_CALM`.
//!
//! # Stop
//! `GOAWAY`: calls under way are answered, new ones go elsewhere. What has no call then is closed after [`STOP_GRACE`], whether
//! it has understood or not.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::server::{Builder, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use super::call::Calls;
use super::limits::{
    ANSWER_BYTES_MAX, BROKEN_CALLS_MAX, CALLS_OF_CONNECTION_MAX, CONNECTION_WINDOW_BYTES, CRUMBS_BYTES_MAX,
    FRAME_BYTES_MAX, HEADERS_FRAMED_MAX, Hit, IDLE_TIMEOUT, PING_EVERY, PONG_TIMEOUT, RESETS_MAX, UNSEEN_RESETS_MAX,
};
use crate::sources::http::limits::{HANDSHAKE_TIMEOUT, Limit, STOP_GRACE};

/// One connection.
pub(super) struct Connection {
    pub(super) calls: Arc<Calls>,
    pub(super) supervisor: Supervisor,
    pub(super) address: IpAddr,
}

/// How the calls of a connection ended.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU64,
    reset: AtomicU64,
}

impl Tally {
    fn count(&self, is_answered: bool) {
        if is_answered { &self.answered } else { &self.reset }.fetch_add(1, Ordering::Relaxed);
    }

    fn is_abuse(&self) -> bool {
        self.reset.load(Ordering::Relaxed) > self.answered.load(Ordering::Relaxed) + RESETS_MAX
    }
}

/// A call, as it comes.
type Accepted = Option<Result<(Request<RecvStream>, SendResponse<Bytes>), h2::Error>>;

/// What a connection does next.
#[expect(clippy::large_enum_variant, reason = "it lives for a moment, in the loop of its connection")]
enum Next {
    Call(Accepted),
    Stop,
    Look,
}

/// What is done about a connection that is looked at.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Goes,
    /// It rests for too long.
    Rests,
    /// Its client does not answer.
    Gone,
    /// It is not needed any more.
    Over,
}

impl Connection {
    /// Drives it to its end.
    pub(super) async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let stop = self.supervisor.stopping();
        let handshake = timeout(HANDSHAKE_TIMEOUT, server().handshake::<_, Bytes>(stream));
        let mut connection = match stop.run_until_cancelled(handshake).await {
            None => return,
            Some(Ok(Ok(connection))) => connection,
            Some(_) => return self.calls.shared.stats.limited(Limit::Handshake),
        };
        let mut pulse = Pulse::new(connection.ping_pong());
        let tally = Arc::<Tally>::default();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled(), if !pulse.is_stopping() => Next::Stop,
                accepted = connection.accept() => Next::Call(accepted),
                () = sleep_until(pulse.next) => Next::Look,
            };
            match next {
                Next::Call(None) => return,
                Next::Call(Some(Err(error))) => return self.broke(&error),
                Next::Call(Some(Ok((request, respond)))) => {
                    pulse.called();
                    if tally.is_abuse() {
                        self.calls.stats.hit(Hit::Resets);
                        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    } else {
                        self.call(request, respond, tally.clone());
                    }
                }
                Next::Stop => {
                    pulse.stop();
                    connection.graceful_shutdown();
                }
                Next::Look => match pulse.look(connection.has_streams()) {
                    Verdict::Goes => {}
                    Verdict::Over => return,
                    Verdict::Gone => return self.calls.stats.hit(Hit::Ping),
                    Verdict::Rests => {
                        self.calls.shared.stats.limited(Limit::IdleTime);
                        connection.graceful_shutdown();
                    }
                },
            }
        }
    }

    fn call(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>, tally: Arc<Tally>) {
        let Some(place) = self.calls.place() else {
            return tally.count(self.calls.turn_away(respond));
        };
        let (calls, address) = (self.calls.clone(), self.address);
        self.supervisor.spawn("grpc call", async move {
            tally.count(calls.take(request, respond, address).await);
            drop(place);
        });
    }

    /// Counts why it broke, where that was the client's doing.
    fn broke(&self, error: &h2::Error) {
        if error.is_library() {
            let is_flood = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
            self.calls.stats.hit(if is_flood { Hit::Flood } else { Hit::Protocol });
        }
    }
}

fn server() -> Builder {
    let mut server = Builder::new();
    server
        .initial_window_size(CONNECTION_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(HEADERS_FRAMED_MAX)
        .max_concurrent_streams(CALLS_OF_CONNECTION_MAX)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX)
        .max_local_error_reset_streams(Some(BROKEN_CALLS_MAX))
        .max_send_buffer_size(ANSWER_BYTES_MAX)
        .data_frame_budget(CRUMBS_BYTES_MAX);
    server
}

/// Looks now and then whether a connection is still of use.
struct Pulse {
    /// `None` where a ping cannot be had, which is never.
    ping: Option<PingPong>,
    is_asked: bool,
    last_call: Instant,
    /// When to look next.
    next: Instant,
    end: End,
}

/// Whether a connection comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// It was told to go away since it rests.
    Resting,
    Stopping,
}

impl Pulse {
    fn new(ping: Option<PingPong>) -> Self {
        let now = Instant::now();
        Self { ping, is_asked: false, last_call: now, next: now + PING_EVERY, end: End::Open }
    }

    fn is_stopping(&self) -> bool {
        self.end == End::Stopping
    }

    fn called(&mut self) {
        self.last_call = Instant::now();
    }

    fn stop(&mut self) {
        self.end = End::Stopping;
        self.next = Instant::now() + STOP_GRACE;
    }

    /// Looks at a connection which has calls under way, or has none.
    fn look(&mut self, has_calls: bool) -> Verdict {
        let now = Instant::now();
        if has_calls {
            self.last_call = now;
        }
        match self.end {
            End::Stopping if has_calls => {
                self.next = now + STOP_GRACE;
                return Verdict::Goes;
            }
            End::Stopping => return Verdict::Over,
            End::Resting if !has_calls => return Verdict::Over,
            End::Open | End::Resting => {}
        }
        if self.is_asked && !self.is_answered() {
            return Verdict::Gone;
        }
        if self.end == End::Open && now.duration_since(self.last_call) >= IDLE_TIMEOUT {
            (self.end, self.next) = (End::Resting, now + STOP_GRACE);
            return Verdict::Rests;
        }
        // Asked, it is looked at again when the answer must be there; answered, after a while.
        let is_sent = !self.is_asked && self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
        self.is_asked = is_sent;
        self.next = now + if is_sent { PONG_TIMEOUT } else { PING_EVERY.saturating_sub(PONG_TIMEOUT) };
        Verdict::Goes
    }

    /// Returns whether the last ping was answered.
    fn is_answered(&mut self) -> bool {
        let Some(ping) = &mut self.ping else { return true };
        std::future::poll_fn(|cx| ping.poll_pong(cx)).now_or_never().is_some()
    }
}
