//! HTTP/1.1 over blocking sockets for senders, receivers and floors: messages with a length, buffers that are reused.

use std::io::{self, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// How long one read may wait.
const READ_MAX: Duration = Duration::from_secs(60);
/// First size of a buffer; grows to the largest message.
const BUFFER_BYTES: usize = 1 << 20;
/// Largest message.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Answer of a receiver that has taken a batch.
pub(super) const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// One message; borrowed from its connection.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Connection {
    /// Wraps an accepted stream.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(READ_MAX))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 })
    }

    /// Connects.
    pub(super) fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        Ok(Self::new(stream)?)
    }

    /// Sends bytes as they are.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and returns the status of its answer.
    pub(super) fn ask(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.send(request)?;
        let answer = self.next()?.context("closed without an answer")?;
        status(answer.head)
    }

    /// Reads the next message; `None` when the other side has closed.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Message<'_>>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let head_bytes = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer[self.start..self.end], b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill(1)? {
                return Ok(None);
            }
        };
        let length = content_length(&self.buffer[self.start..self.start + head_bytes])?;
        while self.end - self.start < head_bytes + length {
            if !self.fill(head_bytes + length - (self.end - self.start))? {
                bail!("closed in the middle of a body");
            }
        }
        let body = self.start + head_bytes;
        let head = &self.buffer[self.start..body];
        self.start = body + length;
        Ok(Some(Message { head, body: &self.buffer[body..self.start] }))
    }

    /// Reads once more; `wanted` bytes have room. Returns false at the end of the stream.
    fn fill(&mut self, wanted: usize) -> anyhow::Result<bool> {
        if self.buffer.len() - self.end < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end + wanted > MESSAGE_BYTES_MAX {
                bail!("a message of more than {MESSAGE_BYTES_MAX} bytes");
            }
            if self.buffer.len() - self.end < wanted {
                self.buffer.resize(self.end + wanted, 0);
            }
        }
        let read = self.stream.read(&mut self.buffer[self.end..])?;
        self.end += read;
        Ok(read > 0)
    }
}

/// Returns a whole request.
pub(super) fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Asks for a JSON document over a connection of its own.
pub(super) fn get_json(address: &str, path: &str) -> anyhow::Result<Value> {
    let mut connection = Connection::open(address)?;
    connection.send(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let answer = connection.next()?.context("closed without an answer")?;
    let found = status(answer.head)?;
    if found != 200 {
        bail!("{path} answered {found}");
    }
    serde_json::from_slice(answer.body).with_context(|| format!("{path} answered no JSON"))
}

fn status(head: &[u8]) -> anyhow::Result<u16> {
    let word = head.split(|byte| *byte == b' ').nth(1).context("no status line")?;
    std::str::from_utf8(word)?.parse().context("a status that is no number")
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        if line[..colon].eq_ignore_ascii_case(b"content-length") {
            return std::str::from_utf8(&line[colon + 1..])?.trim().parse().context("a length that is no number");
        }
        if line[..colon].eq_ignore_ascii_case(b"transfer-encoding") {
            bail!("a body in chunks, which the benchmark does not read");
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_found_in_any_case() {
        assert_eq!(content_length(b"POST / HTTP/1.1\r\ncontent-LENGTH: 12\r\n\r\n").unwrap(), 12);
        assert_eq!(content_length(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap(), 0);
        assert!(content_length(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn messages_come_one_after_the_other() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Connection::open(&listener.local_addr().unwrap().to_string()).unwrap();
        let mut server = Connection::new(listener.accept().unwrap().0).unwrap();
        client.send(&[post("/a", b"one\n"), post("/b", b"")].concat()).unwrap();
        assert_eq!(server.next().unwrap().unwrap().body, b"one\n");
        assert_eq!(server.next().unwrap().unwrap().body, b"");
        server.send(TAKEN).unwrap();
        assert_eq!(status(client.next().unwrap().unwrap().head).unwrap(), 200);
        drop(client);
        assert!(server.next().unwrap().is_none());
    }
}
