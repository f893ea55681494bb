//! A hand-made receiver of Elasticsearch's `_bulk`, for measurements only: it reads the action lines, remembers which ids
//! it has, and answers each item as the real one does under the request's `filter_path`: 201, 409 for what it has, and,
//! where told so, 429 for the first coming of every third event.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};

use crate::bench::http::Connection;
use crate::bench::process::{WAIT_MAX, pause};
use crate::bench::server::Server;
use crate::stopwatch::Stopwatch;

/// What an event has become here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Refused,
    Taken,
}

/// The receiver. Dropping it stops listening.
#[derive(Debug)]
pub(super) struct BulkReceiver {
    server: Server,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    refuses_a_third: bool,
    /// By the event's number.
    seen: Mutex<Vec<Option<Seen>>>,
    taken: AtomicU64,
    repeated: AtomicU64,
    refused: AtomicU64,
}

/// What has arrived so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    /// Events that are there, each counted once.
    pub(super) taken: u64,
    /// Events that came again although they were there.
    pub(super) repeated: u64,
    /// Items answered 429.
    pub(super) refused: u64,
}

impl BulkReceiver {
    /// Starts listening on a free port.
    pub(super) fn start(refuses_a_third: bool) -> anyhow::Result<Self> {
        let state = Arc::new(State { refuses_a_third, ..State::default() });
        let shared = Arc::clone(&state);
        Ok(Self { server: Server::start(move |stream| serve(stream, &shared))?, state })
    }

    /// Returns where it listens.
    pub(super) fn address(&self) -> String {
        self.server.address()
    }

    /// Returns what has arrived.
    pub(super) fn received(&self) -> Bulk {
        let load = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Bulk {
            taken: load(&self.state.taken),
            repeated: load(&self.state.repeated),
            refused: load(&self.state.refused),
        }
    }

    /// Waits until `events` events are there.
    pub(super) fn wait_for(&self, events: u64) -> anyhow::Result<Bulk> {
        let watch = Stopwatch::start();
        loop {
            let received = self.received();
            if received.taken >= events {
                return Ok(received);
            }
            if watch.elapsed() > WAIT_MAX {
                bail!("only {} of {events} events arrived within {} s", received.taken, WAIT_MAX.as_secs());
            }
            pause(5);
        }
    }
}

fn serve(stream: TcpStream, state: &State) -> anyhow::Result<()> {
    let mut connection = Connection::new(stream)?;
    let mut answer = String::new();
    while let Some(request) = connection.next()? {
        answer.clear();
        if memchr::memmem::find(request.head, b"_bulk").is_some() {
            state.answer(request.body, &mut answer)?;
        } else {
            answer.push_str(r#"{"acknowledged":true}"#);
        }
        let length = answer.len();
        connection.send(
            format!(
                "HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{answer}"
            )
            .as_bytes(),
        )?;
    }
    Ok(())
}

impl State {
    fn answer(&self, body: &[u8], out: &mut String) -> anyhow::Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let start = out.len();
        let mut errors = false;
        let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        while let Some(action) = lines.next() {
            lines.next().context("an action without a document")?;
            let id = id_of(action)?;
            let status = self.status(&mut seen, number_of(id)?);
            errors |= status != 201;
            write!(out, r#",{{"create":{{"_id":"{id}","status":{status}"#)?;
            match status {
                201 => out.push_str("}}"),
                409 => out.push_str(r#","error":{"type":"version_conflict_engine_exception","reason":"exists"}}}"#),
                _ => out.push_str(r#","error":{"type":"es_rejected_execution_exception","reason":"queue full"}}}"#),
            }
        }
        let items = out.split_off(start);
        write!(out, r#"{{"errors":{errors},"items":[{}]}}"#, items.strip_prefix(',').unwrap_or(""))?;
        Ok(())
    }

    fn status(&self, seen: &mut Vec<Option<Seen>>, number: usize) -> u16 {
        if seen.len() <= number {
            seen.resize(number + 1, None);
        }
        match seen[number] {
            Some(Seen::Taken) => {
                self.repeated.fetch_add(1, Ordering::AcqRel);
                409
            }
            None if self.refuses_a_third && number.is_multiple_of(3) => {
                seen[number] = Some(Seen::Refused);
                self.refused.fetch_add(1, Ordering::AcqRel);
                429
            }
            _ => {
                seen[number] = Some(Seen::Taken);
                self.taken.fetch_add(1, Ordering::AcqRel);
                201
            }
        }
    }
}

/// Returns the id that an action line names.
fn id_of(action: &[u8]) -> anyhow::Result<&str> {
    let name = b"\"_id\":\"";
    let start = memchr::memmem::find(action, name).context("an action without an id")? + name.len();
    let length = memchr::memchr(b'"', &action[start..]).context("an id without an end")?;
    Ok(std::str::from_utf8(&action[start..start + length])?)
}

/// Returns the number in an event's id.
fn number_of(id: &str) -> anyhow::Result<usize> {
    let number = id.rsplit('-').next().context("an id without a number")?;
    usize::from_str_radix(number, 16).with_context(|| format!("an id without a number: {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(receiver: &BulkReceiver, numbers: &[usize]) -> serde_json::Value {
        let lines = numbers.iter().map(|n| format!("{{\"create\":{{\"_id\":\"00000000000000a1-{n:x}\"}}}}\n{{}}\n"));
        let body: String = lines.collect();
        let mut connection = Connection::open(&receiver.address()).unwrap();
        connection.send(&crate::bench::http::post("/_bulk", body.as_bytes())).unwrap();
        serde_json::from_slice(connection.next().unwrap().unwrap().body).unwrap()
    }

    #[test]
    fn a_third_is_refused_once_and_what_comes_again_is_counted() {
        let receiver = BulkReceiver::start(true).unwrap();
        let answer = ask(&receiver, &[3, 4, 5]);
        let statuses = |answer: &serde_json::Value| {
            let items = answer["items"].as_array().unwrap();
            items.iter().map(|item| item["create"]["status"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(statuses(&answer), [429, 201, 201]);
        assert_eq!(answer["errors"], true);
        assert_eq!(statuses(&ask(&receiver, &[3, 4])), [201, 409]);
        let Bulk { taken, repeated, refused } = receiver.received();
        assert_eq!((taken, repeated, refused), (3, 1, 1));
    }
}
