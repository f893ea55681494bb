//! An HTTP server that does as it is told. Real sockets on loopback; every connection is owned and ends with the server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body's events, unpacked where it says it is packed.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        match self.header("content-encoding") {
            Some("gzip") => {
                std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&self.body[..]), &mut text).unwrap();
            }
            Some("zstd") => text = String::from_utf8(zstd::decode_all(&self.body[..]).unwrap()).unwrap(),
            _ => text = String::from_utf8(self.body.clone()).unwrap(),
        }
        if text.starts_with('[') {
            let events: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(&text).unwrap();
            return events.iter().map(|event| event.get().to_owned()).collect();
        }
        text.lines().map(str::to_owned).collect()
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These bytes; the connection stays.
    Bytes(Vec<u8>),
    /// These bytes, then the end of the connection.
    BytesAndClose(Vec<u8>),
    /// A reset.
    Reset,
    /// Nothing, for good.
    Silence,
    /// These bytes once, then the others until nobody reads any more.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes once, then the others one by one, each after [`DRIP_PERIOD`], until nobody reads any more.
    Drip(Vec<u8>, Vec<u8>),
}

/// How long the next byte of an answer takes that drips, in the time of the test.
const DRIP_PERIOD: Duration = Duration::from_secs(1);

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::with(status, "", "")
    }

    /// `headers` end in `\r\n` each.
    pub(crate) fn with(status: u16, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
        Self::Bytes(head.into_bytes())
    }
}

type Script = dyn Fn(usize, &Received) -> Reply + Send + Sync;

/// The server. Its connections are aborted when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Received>>>,
    _owner: Supervisor,
}

impl Server {
    /// Starts; `script` is asked once per request, with its number from 0 on.
    pub(crate) async fn start(script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Received>>> = Arc::default();
        let owner = Supervisor::new("server");
        let script: Arc<Script> = Arc::new(script);
        let (connections, log) = (owner.clone(), seen.clone());
        owner.spawn("accept", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log, tls) = (script.clone(), log.clone(), tls.clone());
                connections.spawn("connection", connection(stream, tls, script, log));
            }
        });
        Self { address, seen, _owner: owner }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, script: Arc<Script>, log: Arc<Mutex<Vec<Received>>>) {
    match tls {
        None => serve_plain(stream, &*script, &log).await,
        Some(tls) => {
            if let Ok(mut stream) = tls.accept(stream).await {
                serve(&mut stream, &*script, &log).await;
            }
        }
    }
}

async fn serve_plain(mut stream: TcpStream, script: &Script, log: &Mutex<Vec<Received>>) {
    if serve(&mut stream, script, log).await {
        stream.set_zero_linger().unwrap();
    }
}

/// Serves one connection; returns whether it shall be reset.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, script: &Script, log: &Mutex<Vec<Received>>) -> bool {
    let mut pending = Vec::new();
    while let Some(request) = receive(stream, &mut pending).await {
        let number = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        match script(number, &request) {
            Reply::Bytes(bytes) if stream.write_all(&bytes).await.is_ok() => {}
            Reply::Bytes(_) => return false,
            Reply::BytesAndClose(bytes) => {
                // A failure means that the client is gone, which is its right.
                drop(stream.write_all(&bytes).await);
                drop(stream.shutdown().await);
                return false;
            }
            Reply::Reset => return true,
            Reply::Silence => return std::future::pending().await,
            Reply::Endless(head, rest) => {
                let mut alive = stream.write_all(&head).await.is_ok();
                while alive {
                    alive = stream.write_all(&rest).await.is_ok();
                }
                return false;
            }
            Reply::Drip(head, rest) => {
                let mut alive = stream.write_all(&head).await.is_ok();
                let (mut bytes, mut period) = (rest.iter().cycle(), tokio::time::interval(DRIP_PERIOD));
                while let Some(byte) = bytes.next().filter(|_| alive) {
                    period.tick().await;
                    alive = stream.write_all(&[*byte]).await.is_ok();
                }
                return false;
            }
        }
    }
    false
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, pending: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(pending).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(pending[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into())).collect();
    let length = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    while pending.len() < end + 4 + length {
        if stream.read_buf(pending).await.ok()? == 0 {
            return None;
        }
    }
    let body = pending[end + 4..end + 4 + length].to_vec();
    pending.drain(..end + 4 + length);
    Some(Received { line, headers, body })
}
