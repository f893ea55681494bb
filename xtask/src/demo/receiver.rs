//! A receiver of events over HTTP on loopback: takes NDJSON, or answers 503 while it is told to be down.
//!
//! It honours `Idempotency-Key` as a good receiver does: a batch that is sent again under a known key is answered alike
//! and not stored again. Without that, a batch that was taken just before the agent was killed would be there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;

use crate::demo::http::{self, Message};
use crate::demo::places::number_of;

/// How long a connection may rest: a client whose connection is closed opens another.
const IDLE_MAX: Duration = Duration::from_secs(5);

const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const DOWN: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

/// The receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    down: AtomicBool,
    stopped: AtomicBool,
    store: Mutex<Store>,
}

/// What was taken.
#[derive(Debug, Default)]
struct Store {
    keys: BTreeSet<String>,
    numbers: BTreeMap<u64, u64>,
}

impl Receiver {
    /// Starts listening on a free port.
    pub(super) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening for the demo's receiver")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, &shared));
        Ok(Self { address, state })
    }

    /// Returns where it listens.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Makes it fail, or makes it well.
    pub(super) fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::Relaxed);
    }

    /// Stops listening.
    pub(super) fn stop(&self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for a connection.
        drop(TcpStream::connect(self.address));
    }

    /// Returns how often each number was taken.
    pub(super) fn received(&self) -> BTreeMap<u64, u64> {
        self.state.store.lock().map(|store| store.numbers.clone()).unwrap_or_default()
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if state.stopped.load(Ordering::Relaxed) {
            return;
        }
        let state = Arc::clone(state);
        std::thread::spawn(move || {
            // A client that goes away, or whose bytes are no HTTP, costs its own connection only.
            drop(serve(stream, &state));
        });
    }
}

fn serve(stream: TcpStream, state: &State) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    while let Some(request) = http::read_message(&mut requests)? {
        if state.down.load(Ordering::Relaxed) {
            answers.write_all(DOWN.as_bytes())?;
            continue;
        }
        if let Ok(mut store) = state.store.lock() {
            store.take(request);
        }
        answers.write_all(TAKEN.as_bytes())?;
    }
    Ok(())
}

impl Store {
    fn take(&mut self, request: Message) {
        if request.key.is_some_and(|key| !self.keys.insert(key)) {
            return;
        }
        for number in request.body.split(|byte| *byte == b'\n').filter_map(number_of) {
            *self.numbers.entry(number).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_under_a_known_key_is_not_stored_again() {
        let request = |key: Option<&str>| Message {
            first_line: "POST /events HTTP/1.1".to_owned(),
            key: key.map(str::to_owned),
            body: b"{\"number\": 7}\n".to_vec(),
        };
        let mut store = Store::default();
        store.take(request(Some("a")));
        store.take(request(Some("a")));
        assert_eq!(store.numbers, BTreeMap::from([(7, 1)]));
        store.take(request(Some("b")));
        store.take(request(None));
        assert_eq!(store.numbers, BTreeMap::from([(7, 3)]));
    }
}
