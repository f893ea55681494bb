//! As much of HTTP/1.1 as a demo needs, over plain blocking sockets: one request per connection, and reading a message.

use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 16 << 20;

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    body: Vec<u8>,
}

impl Answer {
    /// Returns the body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }

    /// Returns the body as JSON.
    pub(super) fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }
}

/// Asks for `path`.
pub(super) fn get(address: &str, path: &str) -> anyhow::Result<Answer> {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"), &[])
}

/// Sends NDJSON to `path`.
pub(super) fn post(address: &str, path: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    exchange(address, &head, body)
}

fn exchange(address: &str, head: &str, body: &[u8]) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let message = read_message(&mut BufReader::new(stream))?.context("no answer")?;
    let status = message.first_line.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no status line")?;
    Ok(Answer { status, body: message.body })
}

/// A request or an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    pub(super) first_line: String,
    /// `Idempotency-Key`.
    pub(super) key: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Reads one message; `None` when the other side has closed before it began.
pub(super) fn read_message(reader: &mut impl BufRead) -> anyhow::Result<Option<Message>> {
    let Some(first_line) = read_line(reader)? else {
        return Ok(None);
    };
    let (mut length, mut chunked, mut key, mut head_bytes) = (0, false, None, first_line.len());
    loop {
        let line = read_line(reader)?.context("the head ended early")?;
        head_bytes += line.len();
        if head_bytes > HEAD_BYTES_MAX {
            bail!("a head of more than {HEAD_BYTES_MAX} bytes");
        }
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().context("a length that is no number")?,
            "idempotency-key" => key = Some(value.trim().to_owned()),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let body = if chunked { read_chunks(reader)? } else { read_exactly(reader, length)? };
    Ok(Some(Message { first_line, key, body }))
}

fn read_chunks(reader: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = read_line(reader)?.context("the chunks ended early")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).context("a chunk's size")?;
        body.extend(read_exactly(reader, size)?);
        if body.len() > BODY_BYTES_MAX {
            bail!("a body of more than {BODY_BYTES_MAX} bytes");
        }
        read_line(reader)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn read_exactly(reader: &mut impl BufRead, length: usize) -> anyhow::Result<Vec<u8>> {
    if length > BODY_BYTES_MAX {
        bail!("a body of more than {BODY_BYTES_MAX} bytes");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

fn read_line(reader: &mut impl BufRead) -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    if reader.take(HEAD_BYTES_MAX as u64).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Message> {
        read_message(&mut text.as_bytes()).unwrap()
    }

    #[test]
    fn bodies_come_by_length_or_in_chunks() {
        let message = Message { first_line: "POST / HTTP/1.1".to_owned(), key: None, body: b"abcdef".to_vec() };
        assert_eq!(read("POST / HTTP/1.1\r\ncontent-LENGTH: 6\r\n\r\nabcdef").as_ref(), Some(&message));
        let chunks = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\n\r\n";
        assert_eq!(read(chunks).as_ref(), Some(&message));
        assert_eq!(read(""), None);
    }

    #[test]
    fn lengths_beyond_the_bound_are_refused() {
        let text = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        assert!(read_message(&mut text.as_bytes()).is_err());
    }
}
