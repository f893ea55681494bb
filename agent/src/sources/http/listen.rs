//! Takes connections and drives each to its end.
//!
//! # Stop
//! When the supervisor says stop, the socket is closed, connections that rest are closed, requests under way are
//! answered (with `Connection: close`), and headers that are half there get [`STOP_GRACE`].

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::Paths;
use super::answer::Refused;
use super::handler::{Shared, router};
use super::limits::{
    CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HEADER_BYTES_MAX, IDLE_TIMEOUT, LINGER_BYTES_MAX, LINGER_TIMEOUT, Limit,
    READ_BUFFER_BYTES_MAX, STOP_GRACE, TURNED_AWAY_MAX,
};
use super::shares::Place;
use super::stream::{Activity, Stream};
use crate::sources::pushed::accepts::Accepts;
use crate::sources::pushed::sender::Sender;

/// What a connection beyond the limit is told.
const TURNED_AWAY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
    content-length: 67\r\nconnection: close\r\n\r\n\
    {\"code\":\"connections\",\"message\":\"too many connections, try again\"}\n";

/// Takes connections until the supervisor says stop.
pub(super) struct Listener {
    shared: Arc<Shared>,
    router: Router,
    supervisor: Supervisor,
    connections: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

impl Listener {
    /// Returns a listener whose connections `supervisor` owns.
    pub(super) fn new(shared: Arc<Shared>, paths: Paths, supervisor: Supervisor) -> Self {
        Self {
            router: router(shared.clone(), paths),
            shared,
            supervisor,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
        }
    }

    /// Runs until stop.
    pub(super) async fn run(self, socket: TcpListener) {
        let stop = self.supervisor.stopping();
        let mut accepts = Accepts::default();
        while let Some(accepted) = stop.run_until_cancelled(socket.accept()).await {
            if let Some((stream, peer)) = accepts.take(accepted, || self.shared.stats.limited(Limit::Accept)).await {
                self.admit(stream, peer.ip().to_canonical());
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: IpAddr) {
        let place = match self.shared.shares.as_ref().map(|shares| shares.connect(address)).transpose() {
            Ok(place) => place,
            // Who has too many connections learns it by this one's end.
            Err(limit) => return self.shared.stats.limited(limit),
        };
        match self.connections.clone().try_acquire_owned() {
            Ok(permit) => {
                let connection = Connection {
                    shared: self.shared.clone(),
                    router: self.router.clone(),
                    stop: self.supervisor.stopping(),
                    from: Arc::new(Peer { address, place }),
                };
                self.supervisor.spawn("http connection", connection.run(stream, permit));
            }
            Err(_) => self.turn_away(stream),
        }
    }

    fn turn_away(&self, stream: TcpStream) {
        self.shared.stats.limited(Limit::Connections);
        if self.shared.gate.tls().is_some() {
            return;
        }
        if let Ok(permit) = self.turned_away.clone().try_acquire_owned() {
            self.shared.stats.answered(503);
            self.supervisor.spawn("http connection turned away", turn_away(stream, permit));
        }
    }
}

async fn turn_away(mut stream: TcpStream, permit: OwnedSemaphorePermit) {
    let telling = async {
        stream.write_all(TURNED_AWAY).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX as u64), &mut tokio::io::sink()).await
    };
    // Whether it heard is its own affair.
    drop(timeout(LINGER_TIMEOUT, telling).await);
    drop(permit);
}

/// One connection.
struct Connection {
    shared: Arc<Shared>,
    router: Router,
    stop: CancellationToken,
    from: Arc<Peer>,
}

/// Where a connection comes from, and its place among those of its sender.
struct Peer {
    address: IpAddr,
    place: Option<Place>,
}

impl Peer {
    /// Lets a request in.
    fn admit(&self, shared: &Shared, headers: &HeaderMap) -> Result<Sender, Refused> {
        let limited = |limit| {
            shared.stats.limited(limit);
            Refused::limit(limit)
        };
        let Some(place) = &self.place else { return shared.gate.admit(headers, self.address) };
        place.request().map_err(limited)?;
        let sender = shared.gate.admit(headers, self.address)?;
        let bodies = place.count_for(sender.pod.as_ref().map(|_| &sender.key)).map_err(limited)?;
        Ok(Sender { bodies: Some(bodies), ..sender })
    }
}

impl Connection {
    async fn run(self, stream: TcpStream, permit: OwnedSemaphorePermit) {
        let open = self.shared.stats.opened();
        // Answers are small and written whole, so waiting to fill packets gains nothing.
        if stream.set_nodelay(true).is_ok() && self.first_byte(&stream).await {
            match self.shared.gate.tls() {
                None => Box::pin(self.serve(stream)).await,
                Some(tls) => Box::pin(self.serve_tls(tls, stream)).await,
            }
        }
        drop((open, permit));
    }

    /// Waits until something comes, so that a connection that only rests has no buffers and a small task. Returns whether to go on.
    async fn first_byte(&self, stream: &TcpStream) -> bool {
        tokio::select! {
            ready = timeout(IDLE_TIMEOUT, stream.readable()) => {
                if ready.is_err() {
                    self.shared.stats.limited(Limit::IdleTime);
                }
                matches!(ready, Ok(Ok(())))
            }
            () = self.stop.cancelled() => false,
        }
    }

    async fn serve_tls(self, tls: TlsAcceptor, stream: TcpStream) {
        match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(_)) | Err(_) => self.shared.stats.limited(Limit::Handshake),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) {
        let Self { shared, router, stop, from } = self;
        let activity = Arc::<Activity>::default();
        let stream = Stream::new(stream, activity.clone(), shared.stats.clone());
        let requests = Requests { shared: shared.clone(), router, activity: activity.clone(), from };
        let mut driven = pin!(server().serve_connection(stream, requests));
        let mut end = tokio::select! {
            end = driven.as_mut() => Some(end),
            () = stop.cancelled() => None,
        };
        if end.is_none() {
            driven.as_mut().graceful_shutdown();
        }
        while end.is_none() {
            end = timeout(STOP_GRACE, driven.as_mut()).await.ok();
            if end.is_none() && !activity.in_request() {
                return;
            }
        }
        if matches!(end, Some(Err(error)) if error.is_parse_too_large()) {
            shared.stats.limited(Limit::HeaderBytes);
        }
    }
}

fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(true)
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(READ_BUFFER_BYTES_MAX);
    server
}

/// The requests of one connection.
struct Requests {
    shared: Arc<Shared>,
    router: Router,
    activity: Arc<Activity>,
    from: Arc<Peer>,
}

impl hyper::service::Service<Request<Incoming>> for Requests {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.begin();
        let (shared, mut router, activity) = (self.shared.clone(), self.router.clone(), self.activity.clone());
        let from = self.from.clone();
        Box::pin(async move {
            let read_whole = Arc::<AtomicBool>::default();
            let mut request = request.map(|body| Body::new(Watched { body, read_whole: read_whole.clone() }));
            let response = match from.admit(&shared, request.headers()) {
                Ok(sender) => {
                    request.extensions_mut().insert(sender);
                    router.call(request).await
                }
                Err(refused) => Ok(refused.into_response()),
            };
            if let Ok(response) = &response {
                shared.stats.answered(response.status().as_u16());
            }
            activity.end(!read_whole.load(Ordering::Relaxed));
            response
        })
    }
}

/// A body that tells whether it was read to its end.
struct Watched {
    body: Incoming,
    read_whole: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) {
            self.read_whole.store(true, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.read_whole.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::Gate;
    use super::super::limits::{SENDER_REQUEST_EVERY, SENDER_REQUESTS_AT_ONCE};
    use super::super::stats::HttpStats;
    use super::*;
    use crate::sources::pushed::security::{ListenerSecurity, TlsFiles};
    use crate::sources::pushed::sender::Way;
    use crate::sources::pushed::targets::{Pipelines, PushTargets};
    use http::HeaderValue;
    use spillway_crds::served::PodFacts;
    use spillway_delivery::clock::Clock;
    use spillway_delivery::intake::Intake;

    #[tokio::test]
    async fn a_connection_that_rests_is_a_small_task() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), socket.accept());
        let security = ListenerSecurity::check(address, &TlsFiles::default(), None).unwrap();
        let door = Box::new(Pipelines::new(Intake, PushTargets::default()));
        let shared = Shared::new(door, Clock::system(), Arc::<HttpStats>::default(), security);
        let router = router(shared.clone(), Paths::All);
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let from = Arc::new(Peer { address: address.ip(), place: None });
        let connection = Connection { shared, router, stop: CancellationToken::new(), from };
        let task = connection.run(accepted.unwrap().0, permit);
        assert!(size_of_val(&task) < 2048, "{}", size_of_val(&task));
        drop((client, task));
    }

    /// Knows pods by a header.
    struct ByName;

    impl Gate for ByName {
        fn admit(&self, headers: &HeaderMap, _: IpAddr) -> Result<Sender, Refused> {
            let name = headers.get("x-pod").ok_or_else(Refused::unauthorized)?;
            let pod = PodFacts { uid: name.to_str().unwrap_or_default().into(), ..PodFacts::default() };
            Ok(Sender::pod(Way::Http, &Arc::new(pod), "n"))
        }

        fn tells_apart(&self) -> bool {
            true
        }

        fn tls(&self) -> Option<TlsAcceptor> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_often_is_told_so_whatever_it_shows() {
        let stats = Arc::<HttpStats>::default();
        let door = Box::new(Pipelines::new(Intake, PushTargets::default()));
        let shared = Shared::new(door, Clock::system(), stats.clone(), ByName);
        let shares = shared.shares.clone().unwrap();
        let peer = |last| {
            let address = IpAddr::from([10, 0, 0, last]);
            Peer { address, place: Some(shares.connect(address).unwrap()) }
        };
        let of = |pod| HeaderMap::from_iter([(http::HeaderName::from_static("x-pod"), HeaderValue::from_static(pod))]);
        let code = |peer: &Peer, headers: &HeaderMap| peer.admit(&shared, headers).err().map(|refused| refused.code());
        let [greedy, again, other, idle] = [1, 2, 3, 4].map(peer);
        let (its, nothing) = (of("greedy"), HeaderMap::new());
        let most = SENDER_REQUESTS_AT_ONCE as usize;
        assert_eq!((0..2 * most).take_while(|_| code(&greedy, &its).is_none()).count(), most);
        let refused = greedy.admit(&shared, &its).unwrap_err().into_response();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &HeaderValue::from_static("1"))
        );
        assert_eq!(code(&greedy, &nothing), Some("sender_requests"), "the token is not even looked at");
        assert_eq!(code(&again, &its), Some("sender_requests"), "nor is it another one from elsewhere");
        // Who shows nothing has the share of its address, where a connection counts as a request.
        let bad = (0..2 * most).take_while(|_| code(&idle, &nothing) == Some("unauthorized")).count();
        assert_eq!((bad, code(&idle, &nothing)), (most - 1, Some("sender_requests")));
        assert_eq!(code(&other, &of("modest")), None);
        tokio::time::advance(SENDER_REQUEST_EVERY).await;
        assert_eq!((code(&greedy, &its), code(&greedy, &its)), (None, Some("sender_requests")));
        assert!(stats.limits().any(|(limit, times)| limit == "sender_requests" && times >= 5));
    }

    #[test]
    fn the_canned_answer_says_its_length() {
        let text = std::str::from_utf8(TURNED_AWAY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
