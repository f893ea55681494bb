//! gRPC over HTTP/2 for a sender that costs little: requests are frames made beforehand, over one blocking connection.
//!
//! Only what a sender needs: windows of flow control are kept, settings and pings are answered, everything else is passed over.
//! Headers of answers are not decoded: an answer with a message is taken for a good one, since one that refuses has none.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long one read may wait.
const READ_MAX: Duration = Duration::from_secs(60);
/// Largest frame that every server takes.
const FRAME_BYTES: usize = 16 << 10;
/// What a server lets be sent before it says otherwise.
const WINDOW_BYTES: i64 = 65_535;
/// Bytes in front of a frame.
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// The number of the setting that says how much may be sent of a call.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    headers: Vec<u8>,
    buffer: Vec<u8>,
    start: usize,
    /// What may still be sent, of all calls.
    window: i64,
    /// The same of a new call.
    initial_window: i64,
    /// Calls that are not answered: what may be sent of them, and whether a message came.
    calls: BTreeMap<u32, Call>,
    next: u32,
}

#[derive(Debug)]
struct Call {
    window: i64,
    number: usize,
    is_good: bool,
}

/// How a call ended: the number that it was given, and whether it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) number: usize,
    pub(super) is_good: bool,
}

impl Connection {
    /// Connects, for calls of the method at `path`.
    pub(super) fn open(address: &str, path: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(READ_MAX))?;
        stream.set_nodelay(true)?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        let headers = header_block(path);
        let (window, initial_window) = (WINDOW_BYTES, WINDOW_BYTES);
        let calls = BTreeMap::new();
        let mut connection =
            Self { stream, headers, buffer: Vec::new(), start: 0, window, initial_window, calls, next: 1 };
        // The settings of the server, so that the first call has the window that they give.
        while connection.read_frame()?.0 != SETTINGS {}
        Ok(connection)
    }

    /// Returns how many calls are not answered.
    pub(super) fn under_way(&self) -> usize {
        self.calls.len()
    }

    /// Sends a call with this message, which has its prefix; calls that end meanwhile are put into `ended`.
    pub(super) fn send(&mut self, number: usize, message: &[u8], ended: &mut Vec<Ended>) -> anyhow::Result<()> {
        let id = self.next;
        self.next += 2;
        self.calls.insert(id, Call { window: self.initial_window, number, is_good: false });
        let mut out = frame(HEADERS, END_HEADERS, id, &self.headers);
        let mut rest = message;
        while !rest.is_empty() {
            // One that is answered before it is sent was refused.
            let Some(call) = self.calls.get_mut(&id) else { return Ok(()) };
            let room = self.window.min(call.window).min(FRAME_BYTES as i64);
            if room <= 0 || (room as usize) < rest.len().min(FRAME_BYTES / 4) {
                self.stream.write_all(&out)?;
                out.clear();
                ended.extend(self.handle()?);
                continue;
            }
            let (piece, after) = rest.split_at(rest.len().min(room as usize));
            (self.window, call.window) = (self.window - piece.len() as i64, call.window - piece.len() as i64);
            rest = after;
            out.extend(head(piece.len(), DATA, if rest.is_empty() { END_STREAM } else { 0 }, id));
            out.extend_from_slice(piece);
        }
        self.stream.write_all(&out)?;
        Ok(())
    }

    /// Reads until a call ends.
    pub(super) fn wait(&mut self) -> anyhow::Result<Ended> {
        loop {
            if let Some(ended) = self.handle()? {
                return Ok(ended);
            }
        }
    }

    /// Reads a frame and does what it asks for; returns the call that ends with it.
    fn handle(&mut self) -> anyhow::Result<Option<Ended>> {
        let (kind, flags, id) = self.read_frame()?;
        match kind {
            DATA => {
                let bytes = self.payload_bytes();
                if let Some(call) = self.calls.get_mut(&id) {
                    call.is_good = true;
                }
                // What was read of answers may be sent again; a call's own window is never used up.
                let more = u32::try_from(bytes).context("a frame that is too long")?.to_be_bytes();
                if bytes > 0 {
                    self.stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &more))?;
                }
            }
            RST_STREAM if self.calls.contains_key(&id) => bail!("a call was reset"),
            GOAWAY => bail!("the server sent GOAWAY: {}", String::from_utf8_lossy(&self.payload()[8..])),
            _ => {}
        }
        let is_end = (kind == DATA || kind == HEADERS) && flags & END_STREAM != 0;
        let ended = is_end.then(|| self.calls.remove(&id)).flatten();
        Ok(ended.map(|Call { number, is_good, .. }| Ended { number, is_good }))
    }

    /// Reads a frame, and keeps the windows and answers what wants one; returns its kind, flags and stream.
    fn read_frame(&mut self) -> anyhow::Result<(u8, u8, u32)> {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.fill(HEAD_BYTES)?;
        let length = u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]) as usize;
        let (kind, flags) = (self.buffer[3], self.buffer[4]);
        let id = number(&self.buffer[5..9]) & 0x7fff_ffff;
        self.fill(HEAD_BYTES + length)?;
        self.start = HEAD_BYTES + length;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                for setting in self.payload().as_chunks::<6>().0.to_vec() {
                    if u16::from_be_bytes([setting[0], setting[1]]) == INITIAL_WINDOW_SIZE {
                        let size = i64::from(number(&setting[2..]));
                        let by = size - self.initial_window;
                        self.initial_window = size;
                        self.calls.values_mut().for_each(|call| call.window += by);
                    }
                }
                self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
            }
            PING if flags & ACK == 0 => {
                let answer = frame(PING, ACK, 0, self.payload());
                self.stream.write_all(&answer)?;
            }
            WINDOW_UPDATE => {
                let by = i64::from(number(self.payload()));
                if id == 0 {
                    self.window += by;
                } else if let Some(call) = self.calls.get_mut(&id) {
                    call.window += by;
                }
            }
            _ => {}
        }
        Ok((kind, flags, id))
    }

    fn payload(&self) -> &[u8] {
        &self.buffer[HEAD_BYTES..self.start]
    }

    fn payload_bytes(&self) -> usize {
        self.start - HEAD_BYTES
    }

    /// Reads until so many bytes are there.
    fn fill(&mut self, wanted: usize) -> anyhow::Result<()> {
        let mut piece = [0; 4 << 10];
        while self.buffer.len() < wanted {
            let read = self.stream.read(&mut piece)?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            self.buffer.extend_from_slice(&piece[..read]);
        }
        Ok(())
    }
}

fn head(length: usize, kind: u8, flags: u8, id: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
    head[3..5].copy_from_slice(&[kind, flags]);
    head[5..].copy_from_slice(&id.to_be_bytes());
    head
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    [&head(payload.len(), kind, flags, id), payload].concat()
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// Returns the headers of a call: by their numbers in the static table, or as they are, so that no table is kept.
fn header_block(path: &str) -> Vec<u8> {
    // `:method: POST`, `:scheme: http`.
    let mut block = vec![0x83, 0x86];
    for (name, value) in
        [(":path", path), (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers")]
    {
        block.push(0);
        for text in [name, value] {
            // None has 127 bytes or more, so that one byte tells the length.
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_message_is_sent_within_the_windows_and_its_end_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let message = vec![7; 100_000];
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &200_000_u32.to_be_bytes()].concat();
            stream.write_all(&frame(SETTINGS, 0, 0, &setting)).unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).unwrap();
            let (mut got, mut is_end, mut allowed) = (0, false, WINDOW_BYTES);
            while !is_end {
                let mut head = [0; HEAD_BYTES];
                stream.read_exact(&mut head).unwrap();
                let mut payload = vec![0; number(&[0, head[0], head[1], head[2]]) as usize];
                stream.read_exact(&mut payload).unwrap();
                if head[3] != DATA {
                    continue;
                }
                got += payload.len();
                is_end = head[4] & END_STREAM != 0;
                assert!(got as i64 <= allowed, "more than the connection lets be sent");
                if got as i64 + FRAME_BYTES as i64 > allowed && !is_end {
                    allowed += 100_000;
                    stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &100_000_u32.to_be_bytes())).unwrap();
                    stream.write_all(&frame(PING, 0, 0, b"12345678")).unwrap();
                }
            }
            stream.write_all(&frame(HEADERS, END_HEADERS, 1, &[0x88])).unwrap();
            stream.write_all(&frame(DATA, 0, 1, &[0; 5])).unwrap();
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])).unwrap();
            stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &[0x88])).unwrap();
            // Read to the end, so that nothing that is sent is lost.
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
            got
        });
        let mut connection = Connection::open(&address, "/x").unwrap();
        let mut ended = Vec::new();
        connection.send(4, &message, &mut ended).unwrap();
        connection.send(5, b"", &mut ended).unwrap();
        while connection.under_way() > 0 {
            ended.push(connection.wait().unwrap());
        }
        assert_eq!(ended, [Ended { number: 4, is_good: true }, Ended { number: 5, is_good: false }]);
        drop(connection);
        assert_eq!(server.join().unwrap(), message.len());
    }
}
