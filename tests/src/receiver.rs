//! A destination over HTTP that misbehaves when told: hand-made, to force what a real one does rarely. It honours
//! `Idempotency-Key`: a repeat is answered 200 and not kept again.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::SystemTime;

use crate::http::{read_body, read_headers, read_line};
use crate::{PATIENCE, output};

/// How it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// 200, and kept.
    Take,
    /// This status, and not kept.
    Refuse(u16),
    /// Reads, and never answers.
    Hang,
    /// Keeps the batch, and never answers.
    TakeAndHang,
    /// Closes the connection in the midst of the answer, having kept the batch.
    TakeAndCut,
    /// Closes the connection at once.
    Reset,
    /// 413 for more bytes than this.
    TooLargeAbove(usize),
    /// 400 for a batch with an event whose number (`"id":"e<number>"`) this divides, saying which, and what came as
    /// `Authorization`.
    RejectEvery(u64),
}

#[derive(Debug, Default)]
struct State {
    mode: Option<Mode>,
    lines: Vec<String>,
    /// Beside `lines`.
    arrivals: Vec<SystemTime>,
    keys: HashMap<String, Vec<u8>>,
    connections: u64,
    requests: u64,
    repeats: u64,
    held_streams: Vec<TcpStream>,
}

/// The destination; dropped, it stops taking connections when the process ends.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Where it listens, as a URL.
    pub url: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Receiver {
    /// Listens on a free port of this machine.
    pub fn start() -> Self {
        Self::start_at("127.0.0.1")
    }

    /// Listens on a free port of one of this machine's addresses.
    pub fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let url = format!("http://{}/ingest", listener.local_addr().expect("an address"));
        let receiver = Self { url, state: Arc::default() };
        let server = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                server.state.0.lock().expect("no panic under the lock").connections += 1;
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        receiver
    }

    /// Changes how it answers from now on; what hangs is let go.
    pub fn mode(&self, mode: Mode) {
        let mut state = self.state.0.lock().expect("no panic under the lock");
        state.mode = Some(mode);
        state.held_streams.clear();
        self.state.1.notify_all();
    }

    /// Returns the lines it kept, in the order they came.
    pub fn lines(&self) -> Vec<String> {
        self.state.0.lock().expect("no panic under the lock").lines.clone()
    }

    /// Returns the lines it kept and when each came.
    pub fn arrivals(&self) -> Vec<(String, SystemTime)> {
        let state = self.state.0.lock().expect("no panic under the lock");
        state.lines.iter().cloned().zip(state.arrivals.iter().copied()).collect()
    }

    /// Returns how many connections it took.
    pub fn connections(&self) -> u64 {
        self.state.0.lock().expect("no panic under the lock").connections
    }

    /// Returns how many requests came with a key that came before.
    pub fn repeats(&self) -> u64 {
        self.state.0.lock().expect("no panic under the lock").repeats
    }

    /// Waits until so many requests have come.
    pub fn wait_for_requests(&self, count: u64) {
        let state = self.state.0.lock().expect("no panic under the lock");
        let (state, timeout) =
            self.state.1.wait_timeout_while(state, PATIENCE, |state| state.requests < count).expect("no panic");
        assert!(!timeout.timed_out(), "{} requests of {count}", state.requests);
    }

    /// Waits until so many lines are kept, as long as lines come.
    pub fn wait_for_lines(&self, count: usize) {
        let mut state = self.state.0.lock().expect("no panic under the lock");
        while state.lines.len() < count {
            let kept = state.lines.len();
            let wait = self.state.1.wait_timeout_while(state, PATIENCE, |state| state.lines.len() == kept);
            let (now, timeout) = wait.expect("no panic");
            assert!(!timeout.timed_out(), "{kept} lines of {count}, and no more come");
            state = now;
        }
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(mut answers) = stream.try_clone() else { return };
        let mut stream = BufReader::new(stream);
        while let Ok(request) = read_request(&mut stream) {
            let mode = {
                let mut state = self.state.0.lock().expect("no panic under the lock");
                state.requests += 1;
                self.state.1.notify_all();
                state.mode.clone().unwrap_or(Mode::Take)
            };
            let mut told = String::new();
            let status = match mode {
                Mode::RejectEvery(every) => match rejected(&request, every) {
                    None => self.keep(&request),
                    Some(id) => {
                        told = format!("cannot take {id}\r\nauthorization was {}", request.authorization);
                        400
                    }
                },
                Mode::Refuse(status) => status,
                Mode::TooLargeAbove(bytes) if request.body.len() > bytes && !self.knows(&request) => 413,
                Mode::Take | Mode::TooLargeAbove(_) => self.keep(&request),
                Mode::Reset => return,
                Mode::TakeAndCut => {
                    self.keep(&request);
                    answers.write_all(b"HTTP/1.1 200 O").ok();
                    return;
                }
                mode @ (Mode::Hang | Mode::TakeAndHang) => {
                    if mode == Mode::TakeAndHang {
                        self.keep(&request);
                    }
                    self.state.0.lock().expect("no panic under the lock").held_streams.extend(answers.try_clone().ok());
                    return;
                }
            };
            let text = format!("HTTP/1.1 {status} As told\r\nContent-Length: {}\r\n\r\n{told}", told.len());
            if answers.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn knows(&self, request: &Request) -> bool {
        let state = self.state.0.lock().expect("no panic under the lock");
        request.key.as_ref().is_some_and(|key| state.keys.contains_key(key))
    }

    fn keep(&self, request: &Request) -> u16 {
        let mut state = self.state.0.lock().expect("no panic under the lock");
        if let Some(key) = &request.key {
            match state.keys.get(key) {
                Some(body) if *body == request.body => {
                    state.repeats += 1;
                    return 200;
                }
                Some(_) => panic!("key {key} came with two bodies"),
                None => drop(state.keys.insert(key.clone(), request.body.clone())),
            }
        }
        state.lines.extend(output::lines(&request.body));
        let kept = state.lines.len();
        state.arrivals.resize(kept, now());
        self.state.1.notify_all();
        200
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with what other processes wrote")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns the first event of a batch whose number `every` divides.
fn rejected(request: &Request, every: u64) -> Option<String> {
    let number = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        event["id"].as_str()?.strip_prefix('e')?.parse::<u64>().ok()
    };
    let numbers = output::lines(&request.body).into_iter().filter_map(|line| number(&line));
    numbers.filter(|number| number % every == 0).map(|number| format!("e{number}")).next()
}

struct Request {
    authorization: String,
    key: Option<String>,
    body: Vec<u8>,
}

fn read_request(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Request> {
    read_line(stream)?;
    let headers = read_headers(stream)?;
    let mut body = read_body(stream, &headers)?;
    let header = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    if header("content-encoding").as_deref() == Some("gzip") {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(body.as_slice()).read_to_end(&mut plain)?;
        body = plain;
    }
    let authorization = header("authorization").unwrap_or_default();
    Ok(Request { authorization, key: header("idempotency-key"), body })
}
