//! A receiver that reads batches of NDJSON, counts them and answers 200. It keeps nothing but one line as a sample.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};

use crate::bench::http::{Connection, TAKEN};
use crate::bench::process::{WAIT_MAX, pause};
use crate::bench::server::Server;
use crate::stopwatch::Stopwatch;

/// The receiver. Dropping it stops listening.
#[derive(Debug)]
pub(super) struct Receiver {
    server: Server,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    lines: AtomicU64,
    bodies: AtomicU64,
    bytes: AtomicU64,
    sample: Mutex<Option<Vec<u8>>>,
}

/// What has arrived so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received {
    pub(super) lines: u64,
    pub(super) bodies: u64,
    pub(super) bytes: u64,
}

impl Receiver {
    /// Starts listening on a free port.
    pub(super) fn start() -> anyhow::Result<Self> {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        Ok(Self { server: Server::start(move |stream| serve(stream, &shared))?, state })
    }

    /// Returns where it listens.
    pub(super) fn address(&self) -> String {
        self.server.address()
    }

    /// Returns what has arrived.
    pub(super) fn received(&self) -> Received {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Received { lines: load(&self.state.lines), bodies: load(&self.state.bodies), bytes: load(&self.state.bytes) }
    }

    /// Waits for `lines` lines, and refuses one more.
    pub(super) fn wait_for(&self, lines: u64) -> anyhow::Result<Received> {
        let watch = Stopwatch::start();
        loop {
            let received = self.received();
            if received.lines > lines {
                bail!("{} lines arrived, {lines} were sent", received.lines);
            }
            if received.lines == lines {
                return Ok(received);
            }
            if watch.elapsed() > WAIT_MAX {
                bail!("only {} of {lines} lines arrived within {} s", received.lines, WAIT_MAX.as_secs());
            }
            pause(5);
        }
    }

    /// Returns the first line that arrived.
    pub(super) fn sample(&self) -> anyhow::Result<Vec<u8>> {
        let sample = self.state.sample.lock().ok().and_then(|sample| sample.clone());
        sample.context("nothing has arrived")
    }
}

fn serve(stream: TcpStream, state: &State) -> anyhow::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(request) = connection.next()? {
        let lines = memchr::memchr_iter(b'\n', request.body).count() as u64;
        if state.bodies.fetch_add(1, Ordering::AcqRel) == 0
            && let Ok(mut sample) = state.sample.lock()
        {
            *sample = request.body.split_inclusive(|byte| *byte == b'\n').next().map(<[u8]>::to_vec);
        }
        state.bytes.fetch_add(request.body.len() as u64, Ordering::AcqRel);
        state.lines.fetch_add(lines, Ordering::AcqRel);
        connection.send(TAKEN)?;
    }
    Ok(())
}
