//! A server that answers as a scenario's own function says: hand-made, to force what a real one does rarely.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::http::{read_body, read_headers, read_line};

/// A request as it came.
#[derive(Debug)]
pub struct Request {
    /// Method, path and version.
    pub line: String,
    /// The header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns a header's value, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Status and body of an answer; `None` closes the connection instead.
pub type Reply = Option<(u16, String)>;

/// Listens on a free port of this machine and returns where, as a URL without a path. It ends with the process.
pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> String {
    start_with(move |request| answer(request).map(|(status, body)| (status, "", body)))
}

/// The same, with headers that end in `\r\n` each between status and body.
pub fn start_with(answer: impl Fn(&Request) -> Option<(u16, &'static str, String)> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &*answer));
        }
    });
    url
}

type Answering = dyn Fn(&Request) -> Option<(u16, &'static str, String)> + Send + Sync;

fn serve(stream: TcpStream, answer: &Answering) {
    let Ok(mut answers) = stream.try_clone() else { return };
    let mut stream = BufReader::new(stream);
    while let Ok(request) = read(&mut stream) {
        let Some((status, headers, body)) = answer(&request) else { return };
        let head = format!("HTTP/1.1 {status} As told\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
        if answers.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Request> {
    let line = read_line(stream)?;
    let headers = read_headers(stream)?;
    let body = read_body(stream, &headers)?;
    Ok(Request { line, headers, body })
}
