//! What is sent: the log of a container, and bodies of job events.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};

use crate::bench::http::{self, Connection};
use crate::bench::process::pause;

/// Folder of the container below the folder of the pods.
const CONTAINER: &str = "bench_web-6d4cf56db6-x2x9k_5d8f3a52-7c1e-4a7e-9d0e-6f1b2a3c4d5e/web";
/// Bytes of text in one line, about.
const LINE_BYTES: usize = 350;
/// Events of one body.
pub(super) const BODY_EVENTS: u64 = 1_000;
/// Bytes of one event.
const EVENT_BYTES: usize = 400;
/// Bodies that are made; they are sent again and again.
const BODIES: u64 = 8;
/// Connections that send at once.
const CONNECTIONS: usize = 4;
/// How often in a row one body may be refused for the moment.
const REFUSALS_MAX: u32 = 20_000;

const WORDS: [&str; 8] = [
    "GET /api/v1/wafers/4711?lot=A17&layer=metal-2 200 12ms ",
    "chamber pressure 12.4 mTorr within window 11.8 to 13.1 ",
    "user agent \"Mozilla/5.0 (X11; Linux x86_64)\" ",
    "retrying connection to recipe store, attempt 3 of 5 ",
    "span 8f3c1d22 finished in 184 us, children 4 ",
    "cache hit ratio 0.93 over the last 60 s, evictions 17 ",
    "path C:\\recipes\\etch was mapped ",
    "queue depth 42, oldest entry 3.7 s, consumers 8 ",
];

/// Writes the log of one container in the layout of a kubelet; returns the file.
pub(super) fn write_container_log(pods: &Path, lines: u64) -> anyhow::Result<std::path::PathBuf> {
    let folder = pods.join(CONTAINER);
    fs::create_dir_all(&folder).context("creating the folder of a container")?;
    let path = folder.join("0.log");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path).context("creating a container's log")?);
    let mut line = String::new();
    for number in 0..lines {
        line.clear();
        let (second, nano) = (number / 20_000 % 60, number % 20_000 * 50_000);
        write!(line, "2026-11-23T10:04:{second:02}.{nano:09}Z stdout F INFO request {number} ")?;
        let from = line.len();
        // Steps of 3 through eight words, begun elsewhere each time: no two neighbours are alike.
        for step in 0.. {
            if line.len() - from >= LINE_BYTES - 40 {
                break;
            }
            line.push_str(WORDS[((number * 5 + step * 3) % 8) as usize]);
        }
        line.push('\n');
        file.write_all(line.as_bytes())?;
    }
    let file = file.into_inner().context("writing a container's log")?;
    // What is written back later would be measured with the first run.
    file.sync_all()?;
    Ok(path)
}

/// Returns whole requests with [`BODY_EVENTS`] events each.
pub(super) fn requests() -> Vec<Vec<u8>> {
    (0..BODIES).map(|body| http::post("/v1/events", events(body).as_bytes())).collect()
}

fn events(body: u64) -> String {
    let mut text = String::new();
    for number in 0..BODY_EVENTS {
        let from = text.len();
        let job = body * BODY_EVENTS + number;
        write!(
            text,
            r#"{{"job_id":"J-{job:08}","tool":"etch-{:02}","kind":"finished","status":"SUCCEEDED","ms":{},"recipe":{{"name":"poly-etch","step":{},"pressure":12.25}},"lots":["A17","B{:03}"],"note":""#,
            number % 40,
            number * 37 % 9_000,
            number % 12,
            number % 700,
        )
        .ok();
        let note = EVENT_BYTES - 2 - (text.len() - from);
        text.extend(WORDS[1].chars().cycle().take(note));
        text.push_str("\"}\n");
    }
    text
}

/// Sends `count` requests over some connections at once, each after the answer to the one before; every one must be
/// answered 202. One that is refused for the moment is sent again.
pub(super) fn send(address: &str, requests: &[Vec<u8>], count: u64) -> anyhow::Result<()> {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let senders: Vec<_> =
            (0..CONNECTIONS).map(|_| scope.spawn(|| send_some(address, requests, count, &next))).collect();
        for sender in senders {
            let sent = sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))?;
            sent?;
        }
        Ok(())
    })
}

fn send_some(address: &str, requests: &[Vec<u8>], count: u64, next: &AtomicU64) -> anyhow::Result<()> {
    let mut connection = Connection::open(address)?;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        send_one(&mut connection, &requests[number as usize % requests.len()])?;
    }
}

/// Sends one request until it is taken.
pub(super) fn send_one(connection: &mut Connection, request: &[u8]) -> anyhow::Result<()> {
    for _ in 0..REFUSALS_MAX {
        match connection.ask(request)? {
            202 => return Ok(()),
            429 | 503 => pause(5),
            status => bail!("a body was answered {status}"),
        }
    }
    bail!("a body was refused {REFUSALS_MAX} times")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_json_of_the_size_that_is_told() {
        let text = events(3);
        assert_eq!(text.lines().count() as u64, BODY_EVENTS);
        for line in text.lines() {
            assert_eq!(line.len(), EVENT_BYTES, "{line}");
            assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object());
        }
    }
}
