//! The floors: the input and the output of the agent and nothing else. No log, no checks, no second try; blocking
//! sockets, buffers that are reused. What they write has the bytes that the agent writes, by a sample of its output.
//! Told to, the intake checks and keeps what it takes: the least that any program does which promises what the agent
//! promises.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, bail};
use serde::de::IgnoredAny;

use crate::bench::http::Connection;

/// Bytes of one read of a file.
const BLOCK_BYTES: usize = 256 << 10;
/// Said when a floor listens; the address follows.
pub(super) const LISTENS: &str = "listens at ";

const ACCEPTED: &[u8] =
    b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"accepted\":1000}";

/// One floor.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Floor {
    /// Sends a container's log to a receiver
    Tail {
        /// The log
        file: PathBuf,
        /// Where the receiver listens
        address: String,
        /// A line as the agent sends it
        sample: PathBuf,
        /// Events of one batch
        batch_events: u64,
    },
    /// Takes bodies of events and appends them to a file
    Intake {
        /// The file
        file: PathBuf,
        /// A line as the agent writes it
        sample: PathBuf,
        /// Calls fdatasync before each answer, on the log where there is one
        #[arg(long)]
        sync: bool,
        /// Checks that each event is an object of JSON, and appends each body to this file first
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
}

impl Floor {
    /// Runs it: until the log is sent, or until it is killed.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Tail { file, address, sample, batch_events } => {
                Tail { member: Member::read(sample)?, batch_events: *batch_events, sent: 0 }.run(file, address)
            }
            Self::Intake { file, sample, sync, log } => {
                let log = log.as_ref().map(File::create).transpose().context("creating the log")?;
                let output = Output { file: File::create(file).context("creating the output")?, log, written: 0 };
                intake(output, &Member::read(sample)?, *sync)
            }
        }
    }
}

/// The member `_spillway` as the agent wrote it, around the number of the event.
#[derive(Debug)]
struct Member {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Member {
    fn read(sample: &Path) -> anyhow::Result<Self> {
        Self::of(&fs::read(sample).context("reading the sample of a line")?)
    }

    fn of(line: &[u8]) -> anyhow::Result<Self> {
        let name = b",\"_spillway\":{\"id\":\"";
        let start = memchr::memmem::find(line, name).context("a sample without `_spillway`")?;
        let id = start + name.len();
        let end = id + memchr::memchr(b'"', &line[id..]).context("a sample whose id does not end")?;
        let dash = id + memchr::memrchr(b'-', &line[id..end]).context("an id without a number")?;
        Ok(Self { head: line[start..=dash].to_vec(), tail: line[end..].to_vec() })
    }

    fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        let mut digits = [0_u8; 20];
        let (mut at, mut rest) = (digits.len(), number);
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
        out.extend_from_slice(&self.tail);
    }
}

#[derive(Debug)]
struct Tail {
    member: Member,
    batch_events: u64,
    sent: u64,
}

impl Tail {
    fn run(mut self, file: &Path, address: &str) -> anyhow::Result<()> {
        let mut file = File::open(file).context("opening the log")?;
        let mut connection = Connection::open(address)?;
        let (mut block, mut kept, mut body) = (vec![0; BLOCK_BYTES], 0, Vec::new());
        loop {
            let read = file.read(&mut block[kept..])?;
            if read == 0 {
                return post(&mut connection, &mut body);
            }
            let (filled, mut start) = (kept + read, 0);
            for end in memchr::memchr_iter(b'\n', &block[..filled]) {
                self.write_event(&block[start..end], &mut body);
                start = end + 1;
                if self.sent.is_multiple_of(self.batch_events) {
                    post(&mut connection, &mut body)?;
                }
            }
            block.copy_within(start..filled, 0);
            kept = filled - start;
        }
    }

    /// Writes one line of a container's log as the event that the agent makes of it.
    fn write_event(&mut self, line: &[u8], body: &mut Vec<u8>) {
        // `<time> stdout F <text>`: the time has 30 bytes here.
        body.extend_from_slice(b"{\"message\":\"");
        let text = &line[40..];
        let mut from = 0;
        for at in memchr::memchr2_iter(b'"', b'\\', text) {
            body.extend_from_slice(&text[from..at]);
            body.push(b'\\');
            from = at;
        }
        body.extend_from_slice(&text[from..]);
        body.extend_from_slice(b"\",\"time\":\"");
        body.extend_from_slice(&line[..30]);
        body.extend_from_slice(b"\",\"stream\":\"stdout\"");
        self.member.write(self.sent, body);
        self.sent += 1;
    }
}

fn post(connection: &mut Connection, body: &mut Vec<u8>) -> anyhow::Result<()> {
    if body.is_empty() {
        return Ok(());
    }
    let length = body.len();
    connection.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
    connection.send(body)?;
    body.clear();
    connection.next()?.context("closed without an answer")?;
    Ok(())
}

#[derive(Debug)]
struct Output {
    file: File,
    log: Option<File>,
    written: u64,
}

/// Fails unless every line of `body` is an object of JSON.
fn check(body: &[u8]) -> anyhow::Result<()> {
    for line in std::str::from_utf8(body).context("checking a body")?.lines() {
        let IgnoredAny = serde_json::from_str(line).context("checking an event")?;
        if !line.starts_with('{') {
            bail!("an event that is no object");
        }
    }
    Ok(())
}

/// Takes bodies over any number of connections; a thread each.
fn intake(output: Output, member: &Member, sync: bool) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    println!("{LISTENS}{}", listener.local_addr()?);
    let checks = output.log.is_some();
    let output = Mutex::new(output);
    std::thread::scope(|scope| {
        for stream in listener.incoming().map_while(Result::ok) {
            scope.spawn(|| {
                if let Err(error) = take(stream, &output, member, (sync, checks)) {
                    println!("{error:#}");
                }
            });
        }
    });
    bail!("the listener has ended")
}

fn take(
    stream: TcpStream,
    output: &Mutex<Output>,
    member: &Member,
    (sync, checks): (bool, bool),
) -> anyhow::Result<()> {
    let mut connection = Connection::new(stream)?;
    let mut out = Vec::new();
    while let Some(request) = connection.next()? {
        out.clear();
        if checks {
            check(request.body)?;
        }
        let handle = {
            let Ok(mut output) = output.lock() else {
                bail!("another connection panicked");
            };
            if let Some(log) = &mut output.log {
                log.write_all(request.body)?;
            }
            let mut start = 0;
            for end in memchr::memchr_iter(b'\n', request.body) {
                // The member goes before the closing brace, which its own end brings.
                out.extend_from_slice(&request.body[start..end - 1]);
                member.write(output.written, &mut out);
                output.written += 1;
                start = end + 1;
            }
            output.file.write_all(&out)?;
            let promised = output.log.as_ref().unwrap_or(&output.file);
            sync.then(|| promised.try_clone()).transpose()?
        };
        if let Some(file) = handle {
            file.sync_data()?;
        }
        connection.send(ACCEPTED)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"{\"a\":1,\"_spillway\":{\"id\":\"00000000000000a1-17\",\"pipeline\":\"p\"}}\n";

    #[test]
    fn the_member_is_that_of_the_sample_with_another_number() {
        let member = Member::of(SAMPLE).unwrap();
        let mut out = b"{\"a\":1".to_vec();
        member.write(17, &mut out);
        assert_eq!(out, SAMPLE);
        out.clear();
        member.write(0, &mut out);
        assert!(out.starts_with(b",\"_spillway\":{\"id\":\"00000000000000a1-0\","));
        assert!(Member::of(b"{}\n").is_err());
    }

    #[test]
    fn what_is_no_object_is_not_taken() {
        check(b"{\"a\":1}\n{}\n").unwrap();
        for body in [&b"{\"a\":1}\n{\n"[..], b"[]\n", b"{\"a\":\"\xff\"}\n"] {
            check(body).unwrap_err();
        }
    }

    #[test]
    fn a_line_becomes_the_event_of_the_agent() {
        let mut tail = Tail { member: Member::of(SAMPLE).unwrap(), batch_events: 1, sent: 5 };
        let mut body = Vec::new();
        tail.write_event(br#"2026-11-23T10:04:00.000000000Z stdout F say "a\b""#, &mut body);
        let event: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(event["message"], r#"say "a\b""#);
        assert_eq!(event["stream"], "stdout");
        assert_eq!(event["_spillway"]["id"], "00000000000000a1-5");
    }
}
