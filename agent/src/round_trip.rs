//! `round-trip`: writes a line to this container's log, and waits until a pipeline brings it back over HTTP.
//!
//! What `helm test` runs: one process is the application and the destination, so nothing but the way between them can be
//! wrong, and no tool is needed that asks the API server. It keeps nothing it is sent and answers every request with 200.
//!
//! # Limits
//! Bodies of at most [`BODY_BYTES_MAX`], read by as many connections as there are; it lives for seconds, in a pod of its own.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use spillway_delivery::clock::Clock;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, timeout};

use crate::cli::RoundTripFlags;
use crate::exit::{self, Failure};

/// Most bytes of a body that is looked at: more than a batch of a backend has.
const BODY_BYTES_MAX: usize = 32 << 20;
/// The time between two lines: the pipeline may begin after the first ones.
const EVERY: Duration = Duration::from_secs(1);

/// What is looked for, and what came.
struct Wanted {
    mark: String,
    requests: AtomicU64,
    found: Notify,
}

/// Returns success when a line came back in time.
pub fn run(flags: &RoundTripFlags) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed("runtime", error))?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mark = format!("round-trip-{host}-{}-{}", std::process::id(), Clock::system().now());
    let took =
        runtime.block_on(round_trip(flags.listen, Duration::from_secs(flags.within_seconds), mark, &mut |line| {
            exit::to_stdout(line)
        }))?;
    exit::to_stdout(&format!("the line came back after {:.1} s\n", took.as_secs_f64()))?;
    Ok(ExitCode::SUCCESS)
}

/// Hands out a line with `mark` each second until one comes back. Returns how long that took.
async fn round_trip(
    address: SocketAddr,
    within: Duration,
    mark: String,
    write: &mut impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Duration, Failure> {
    let listen = TcpListener::bind(address).await.with_context(|| format!("{address} cannot be listened at"));
    let socket = listen.map_err(|error| Failure::failed("round-trip-listen", error))?;
    let wanted = Arc::new(Wanted { mark, requests: AtomicU64::new(0), found: Notify::new() });
    let router = Router::new().fallback(look).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(wanted.clone());
    let (since, mut ticks) = (Instant::now(), interval(EVERY));
    let lines = async {
        loop {
            ticks.tick().await;
            write(&format!("{}\n", wanted.mark))?;
        }
    };
    let way = async {
        tokio::select! {
            () = wanted.found.notified() => Ok(since.elapsed()),
            failed = lines => failed,
            ended = axum::serve(socket, router) => {
                Err(Failure::failed("round-trip-listen", anyhow!("the listener ended: {ended:?}")))
            }
        }
    };
    timeout(within, way).await.unwrap_or_else(|_| {
        let requests = wanted.requests.load(Ordering::Relaxed);
        let error = anyhow!("no line came back within {} s; {requests} requests came", within.as_secs());
        Err(Failure::failed("round-trip", error)
            .next("look at the status of the pipeline and of the backend, and at the log of the agent on this node"))
    })
}

async fn look(State(wanted): State<Arc<Wanted>>, body: Bytes) -> StatusCode {
    wanted.requests.fetch_add(1, Ordering::Relaxed);
    if memchr::memmem::find(&body, wanted.mark.as_bytes()).is_some() {
        wanted.found.notify_one();
    }
    StatusCode::OK
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn free() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_line_that_comes_back_ends_it() {
        let (address, lines) = (free(), RefCell::new(Vec::new()));
        let mut write = |line: &str| {
            lines.borrow_mut().push(line.to_owned());
            Ok(())
        };
        let posts = async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let post = |body: &'static str| client.post(format!("http://{address}/any")).body(body).send();
            while post("{\"message\":\"another\"}").await.is_err() {
                tokio::task::yield_now().await;
            }
            post("{}\n{\"message\":\"it-7\"}\n").await.unwrap();
        };
        let trip = round_trip(address, Duration::from_secs(60), "it-7".to_owned(), &mut write);
        let (took, ()) = tokio::join!(trip, posts);
        took.unwrap();
        assert!(lines.borrow().iter().all(|line| line == "it-7\n") && !lines.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_never_comes_back_is_a_failure_in_words() {
        let mut count = 0;
        let mut write = |_: &str| {
            count += 1;
            Ok(())
        };
        let failed = round_trip(free(), Duration::from_secs(5), "it".to_owned(), &mut write).await.unwrap_err();
        assert_eq!(failed.code(), "round-trip");
        assert!(failed.to_string().contains("no line came back within 5 s; 0 requests came"), "{failed}");
        assert!(count >= 5);
    }
}
