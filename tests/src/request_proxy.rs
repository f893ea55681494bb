//! A proxy in front of a real server that knows requests by their first lines: it loses the answers to some, which the
//! server has carried out all the same, or lets some of them not pass.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use crate::PATIENCE;

/// What happens to requests from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passage {
    /// They pass, and so do the answers.
    Open,
    /// They pass; the answer to one that begins with this text is lost, for so many of them.
    LoseAnswers(&'static str, u32),
    /// One that begins with this text does not pass: its connection is reset.
    Closed(&'static str),
}

#[derive(Debug)]
struct State {
    passage: Passage,
    lost: u32,
    /// First lines of the requests that came, in order.
    requests: Vec<String>,
}

/// The proxy; its threads end with its connections, or with the process.
#[derive(Debug, Clone)]
pub struct RequestProxy {
    /// Where it listens.
    pub address: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl RequestProxy {
    /// Listens on a free port for `target`.
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = State { passage: Passage::Open, lost: 0, requests: Vec::new() };
        let proxy = Self { address, state: Arc::new((Mutex::new(state), Condvar::new())) };
        let (server, target) = (proxy.clone(), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A target that is down is a connection that ends at once.
                if let Ok(upstream) = TcpStream::connect(&target) {
                    server.serve(client, upstream);
                }
            }
        });
        proxy
    }

    /// Changes what happens to requests from now on.
    pub fn set(&self, passage: Passage) {
        let mut state = self.state.0.lock().expect("no panic under the lock");
        state.passage = passage;
        state.lost = 0;
    }

    /// Waits until `count` answers were lost since the last change.
    pub fn wait_until_lost(&self, count: u32) {
        let state = self.state.0.lock().expect("no panic under the lock");
        let waiting = self.state.1.wait_timeout_while(state, PATIENCE, |state| state.lost < count);
        assert!(waiting.expect("no panic under the lock").0.lost >= count, "no answer was lost");
    }

    /// Waits for a request that begins with `text`; returns its first line.
    pub fn wait_for_request(&self, text: &str) -> String {
        let state = self.state.0.lock().expect("no panic under the lock");
        let found = |state: &State| state.requests.iter().find(|line| line.starts_with(text)).cloned();
        let waiting = self.state.1.wait_timeout_while(state, PATIENCE, |state| found(state).is_none());
        let state = waiting.expect("no panic under the lock").0;
        found(&state).unwrap_or_else(|| panic!("no request {text:?}; {:?}", state.requests))
    }

    fn serve(&self, client: TcpStream, upstream: TcpStream) {
        let losing = Arc::new(Mutex::new(false));
        let (Ok(client_reads), Ok(upstream_writes)) = (client.try_clone(), upstream.try_clone()) else { return };
        let (proxy, lose) = (self.clone(), losing.clone());
        std::thread::spawn(move || proxy.pass_requests(client_reads, upstream_writes, &lose));
        let proxy = self.clone();
        std::thread::spawn(move || proxy.pass_answers(upstream, client, &losing));
    }

    fn pass_requests(&self, mut client: TcpStream, mut upstream: TcpStream, losing: &Mutex<bool>) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = client.read(&mut buffer) {
            let bytes = &buffer[..count];
            // A client writes the head of a request at once, after the answer to the one before.
            if let Some(line) = first_line(bytes) {
                let mut state = self.state.0.lock().expect("no panic under the lock");
                state.requests.push(line.clone());
                self.state.1.notify_all();
                match state.passage {
                    Passage::Closed(text) if line.starts_with(text) => break,
                    Passage::LoseAnswers(text, count) if line.starts_with(text) && state.lost < count => {
                        state.lost += 1;
                        *losing.lock().expect("no panic under the lock") = true;
                    }
                    _ => {}
                }
            }
            if count == 0 || upstream.write_all(bytes).is_err() {
                break;
            }
        }
        client.shutdown(Shutdown::Both).ok();
        upstream.shutdown(Shutdown::Both).ok();
    }

    fn pass_answers(&self, mut upstream: TcpStream, mut client: TcpStream, losing: &Mutex<bool>) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = upstream.read(&mut buffer) {
            let lost = *losing.lock().expect("no panic under the lock");
            if lost {
                self.state.1.notify_all();
            }
            if lost || count == 0 || client.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        client.shutdown(Shutdown::Both).ok();
        upstream.shutdown(Shutdown::Both).ok();
    }
}

/// Returns the first line of an HTTP request when bytes begin with one.
fn first_line(bytes: &[u8]) -> Option<String> {
    let line = bytes.split(|b| *b == b'\r').next().filter(|line| line.len() < 4096)?;
    let line = std::str::from_utf8(line).ok()?;
    line.ends_with("HTTP/1.1").then(|| line.to_owned())
}
