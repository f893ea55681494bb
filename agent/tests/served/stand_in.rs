//! A stand-in for the operator: the real protocol and its types over HTTP/1.1, with or without TLS, and nothing behind it
//! but what a test puts there. It trusts every token; the real operator is tested with its own agents elsewhere.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use spillway_crds::served::{Answer, Ask, Authorities, Configuration, PATH, Pods};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a test sets, and what agents said.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) configuration: Option<Configuration>,
    pub(crate) pods: Option<Pods>,
    pub(crate) authorities: Option<Authorities>,
    /// Answers to give as they are, status line and all, the last first.
    pub(crate) raw: Vec<Vec<u8>>,
    pub(crate) asks: Vec<Ask>,
    pub(crate) tokens: Vec<String>,
    pub(crate) is_over: bool,
}

/// A running stand-in; dropping it closes every connection.
pub(crate) struct Operator {
    pub(crate) address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
    accepts: Option<JoinHandle<()>>,
}

impl Operator {
    /// Listens at `address`, with TLS if there is a certificate.
    pub(crate) fn listen(address: &str, tls: Option<Arc<ServerConfig>>, state: State) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let of_thread = shared.clone();
        let accepts = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.0.lock().unwrap().is_over {
                    return;
                }
                let (stream, tls, shared) = (stream.unwrap(), tls.clone(), of_thread.clone());
                std::thread::spawn(move || match tls {
                    // An agent that goes away ends its connection.
                    Some(tls) => drop(talk(StreamOwned::new(ServerConnection::new(tls).unwrap(), stream), &shared)),
                    None => drop(talk(stream, &shared)),
                });
            }
        });
        Self { address, shared, accepts: Some(accepts) }
    }

    /// Changes what is answered; who waits is answered at once.
    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    /// Waits until an agent has asked what `holds`; returns that question.
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn(&Ask) -> bool) -> Ask {
        let wanted = |state: &mut State| state.asks.iter().rev().find(|ask| holds(ask)).cloned();
        let (mut state, over) = self.wait(|state| wanted(state).is_none());
        assert!(!over, "never asked: {what}; the last: {:#?}", state.asks.last());
        wanted(&mut state).unwrap()
    }

    /// Waits until every answer of `raw` was given.
    pub(crate) fn wait_until_given(&self) {
        let (state, over) = self.wait(|state| !state.raw.is_empty());
        assert!(!over, "{} answers are left", state.raw.len());
    }

    fn wait(&self, goes_on: impl Fn(&mut State) -> bool) -> (MutexGuard<'_, State>, bool) {
        let state = self.shared.0.lock().unwrap();
        let (state, timeout) = self.shared.1.wait_timeout_while(state, PATIENCE, |state| goes_on(state)).unwrap();
        (state, timeout.timed_out())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.set(|state| state.is_over = true);
        // The one that makes the loop look.
        drop(TcpStream::connect(self.address));
        if let Some(accepts) = self.accepts.take() {
            accepts.join().unwrap();
        }
    }
}

/// Returns a certificate for loopback that `ca` vouches for: what a server shows, and the PEM of who is to be trusted.
pub(crate) fn certificate() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    (Arc::new(config.with_single_cert(vec![made.cert.der().clone()], key).unwrap()), made.cert.pem())
}

/// Answers one question after the other.
fn talk(stream: impl Read + Write, (state, changed): &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some((token, ask)) = question(&mut stream)? else { return Ok(()) };
        let wait = Duration::from_secs(ask.wait_seconds.into());
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tokens.push(token);
        state.asks.push(ask.clone());
        changed.notify_all();
        let is_idle =
            |state: &mut State| !state.is_over && state.raw.is_empty() && news(state, &ask) == Answer::default();
        let mut state = changed.wait_timeout_while(state, wait, is_idle).unwrap_or_else(PoisonError::into_inner).0;
        if state.is_over {
            return Ok(());
        }
        let answer = state.raw.pop().unwrap_or_else(|| {
            let body = serde_json::to_vec(&news(&state, &ask)).unwrap_or_default();
            let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
            answer.extend(body);
            answer
        });
        changed.notify_all();
        drop(state);
        stream.get_mut().write_all(&answer)?;
        stream.get_mut().flush()?;
    }
}

/// What is new to who asks, by what it says it has.
fn news(state: &State, ask: &Ask) -> Answer {
    let is_new = |one: &&Configuration| ask.running.as_ref() != Some(&one.version);
    Answer {
        configuration: state.configuration.as_ref().filter(is_new).cloned(),
        pods: state.pods.as_ref().filter(|pods| ask.pods.as_ref() != Some(&pods.hash)).cloned(),
        authorities: state
            .authorities
            .as_ref()
            .filter(|told| ask.authorities.as_ref().is_some_and(|known| *known != told.hash))
            .cloned(),
    }
}

/// A request as a stand-in reads it.
pub(crate) struct Request {
    /// Method, path and version.
    line: String,
    /// The value of `Authorization`.
    pub(crate) authorization: String,
    /// The value of `X-Spillway-Route`.
    pub(crate) route: String,
    pub(crate) body: Vec<u8>,
}

/// Reads a request; `None` at the end of the connection.
pub(crate) fn request(stream: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let (mut length, mut authorization, mut route, mut line) = (0, String::new(), String::new(), String::new());
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let first = line.trim_end().to_owned();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(std::io::Error::other)?,
            "authorization" => value.clone_into(&mut authorization),
            "x-spillway-route" => value.clone_into(&mut route),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request { line: first, authorization, route, body }))
}

/// Reads a question; `None` at the end of the connection.
fn question(stream: &mut impl BufRead) -> std::io::Result<Option<(String, Ask)>> {
    let Some(Request { line, authorization, body, .. }) = request(stream)? else { return Ok(None) };
    assert_eq!(line, format!("POST {PATH} HTTP/1.1"));
    Ok(Some((authorization.trim_start_matches("Bearer ").to_owned(), serde_json::from_slice(&body)?)))
}
