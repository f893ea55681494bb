//! One question to the operator and its answer, bounded in time and size.
//!
//! # Guarantees
//! - The token's file is read for each question, and the authorities' file when it changed. Authorities that the operator told of
//!   ([`Client::trust`]) count beside those of the file, and only where there is such a file and TLS.
//! - An answer costs at most [`ANSWER_BYTES_MAX`], on its way and unpacked; what is larger, cut or odd is an error.
//! - Where a replica names the one that leads, that is asked from then on, under the same name and with the same
//!   authorities, until it does not answer.
//! - No error holds anything of an answer that was to hold a configuration.
//!
//! # Must not know
//! What is done with an answer, and when to ask again.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::write::MultiGzDecoder;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Response, Url};
use spillway_crds::served::{ANSWER_BYTES_MAX, ASK_BYTES_MAX, Answer, Ask, LEADER, SIDECAR_ASK_BYTES_MAX};
use spillway_delivery::secret::Secret;

use crate::settings::OperatorSettings;
use crate::status::plain;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Longest wait for a connection to the replica that another named: it may be gone.
const CONNECT_LEADER_MAX: Duration = Duration::from_secs(2);
/// How long a connection may be silent before the other machine is looked for: one that is gone says nothing, and an answer
/// may be waited for much longer than another replica needs to lead.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// How long such a look may stay without an answer.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How much longer than asked an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Most bytes of the files of token and authorities.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Most characters that are told of a refusal.
const TOLD_CHARS_MAX: usize = 200;
/// Longest pause that an operator may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// A file that is needed cannot be used.
    #[error("{what} {path} cannot be used: {why}")]
    File {
        /// What it is to hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Nothing came, or it broke off.
    #[error("the operator cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// Another replica leads.
    #[error("this operator does not lead")]
    NotLeader,
    /// The operator understood and does not want to.
    #[error("the operator answers {status}: {told}")]
    Refused {
        /// The status.
        status: u16,
        /// What it says.
        told: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is larger than any may be.
    #[error("the operator's answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// The answer is none of this protocol.
    #[error("the operator's answer is not understood: {0}")]
    Garbled(String),
    /// The configuration it offers is older than the one that runs.
    #[error("the operator offers an older configuration ({offered}) than the one that runs ({running})")]
    Older {
        /// Epoch and generation of the one.
        offered: String,
        /// Epoch and generation of the other.
        running: String,
    },
}

/// Asks one operator.
#[derive(Debug)]
pub struct Client {
    settings: OperatorSettings,
    /// The replica that was named as the one that leads.
    leader: Option<SocketAddr>,
    made: Option<(reqwest::Client, FileVersion)>,
    /// The authorities that the operator told of, in PEM.
    told: String,
}

/// What changes when a file is written or replaced; `None` where no file is used.
type FileVersion = Option<(u64, u64, u64, (i64, i64))>;

impl Client {
    /// Returns a client that has not asked yet.
    pub fn new(settings: OperatorSettings) -> Self {
        Self { settings, leader: None, made: None, told: String::new() }
    }

    /// Returns where it asks.
    pub fn operator(&self) -> String {
        self.settings.url.origin().ascii_serialization()
    }

    /// Returns the most bytes that the operator takes of an ask.
    pub fn ask_bytes_max(&self) -> usize {
        if self.settings.sidecar.is_some() { SIDECAR_ASK_BYTES_MAX } else { ASK_BYTES_MAX }
    }

    /// Returns whether authorities are taken that the operator tells of: who trusts those of the machine, or asks without TLS,
    /// has nothing to add them to.
    pub fn takes_authorities(&self) -> bool {
        self.settings.ca.is_some() && self.settings.url.scheme() == "https"
    }

    /// Trusts these, in PEM, besides those of the file; from the next question on.
    pub fn trust(&mut self, authorities: String) {
        if self.takes_authorities() && self.told != authorities {
            self.told = authorities;
            self.made = None;
        }
    }

    /// Asks once, and waits for the answer as long as `ask` says.
    ///
    /// # Cancel safety
    /// May be cancelled: an answer that is lost is given again to the next question.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer, AskError> {
        let answered = self.attempt(ask).await;
        match &answered {
            Ok(_) | Err(AskError::NotLeader) => {}
            // Whoever can be met is asked next.
            Err(_) if self.leader.is_some() => self.lead_to(None),
            Err(_) => {}
        }
        answered
    }

    async fn attempt(&mut self, ask: &Ask) -> Result<Answer, AskError> {
        let token = token(&self.settings.token)?;
        let within = Duration::from_secs(ask.wait_seconds.into()) + ANSWER_MAX;
        // Plain data with texts as keys, which always serialises.
        let body = serde_json::to_vec(ask).unwrap_or_default();
        let request =
            self.client()?.post(at(&self.settings.url, self.leader)).timeout(within).bearer_auth(token.reveal());
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT_ENCODING, "gzip").body(body);
        let unreachable = |error: reqwest::Error| AskError::Unreachable(error.without_url());
        let response = request.send().await.map_err(unreachable)?;
        match response.status().as_u16() {
            200 => {}
            421 => {
                // The next question takes a new connection, and with it another replica.
                let named = response.headers().get(LEADER).and_then(|value| value.to_str().ok()?.parse().ok());
                self.lead_to(named.filter(|named| Some(*named) != self.leader));
                return Err(AskError::NotLeader);
            }
            status => return Err(refused(status, response).await),
        }
        let body = body_of(response).await?;
        serde_json::from_slice(&body).map_err(|error| AskError::Garbled(super::place_of(&error)))
    }

    /// Asks that replica next, or whoever can be met; over a new connection.
    fn lead_to(&mut self, leader: Option<SocketAddr>) {
        self.leader = leader;
        self.made = None;
    }

    /// Returns the client, made anew when the authorities changed.
    fn client(&mut self) -> Result<reqwest::Client, AskError> {
        let version = self.settings.ca.as_deref().and_then(version);
        if let Some((client, made_of)) = &self.made
            && *made_of == version
        {
            return Ok(client.clone());
        }
        let client = make(&self.settings, self.leader, &self.told)?;
        self.made = Some((client.clone(), version));
        Ok(client)
    }
}

/// Returns where `url` is, asked at `leader` where one was named. A name stays, since the certificate is for it.
fn at(url: &Url, leader: Option<SocketAddr>) -> Url {
    let mut url = url.clone();
    let Some(leader) = leader else { return url };
    // Neither fails for a URL with a host.
    if url.domain().is_none() {
        url.set_ip_host(leader.ip()).ok();
    }
    url.set_port(Some(leader.port())).ok();
    url
}

fn make(settings: &OperatorSettings, leader: Option<SocketAddr>, told: &str) -> Result<reqwest::Client, AskError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("spillway-agent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(leader.map_or(CONNECT_MAX, |_| CONNECT_LEADER_MAX))
        .tcp_keepalive(SILENT_MAX)
        .tcp_keepalive_interval(SILENT_MAX)
        .tcp_user_timeout(GONE_AFTER)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(1);
    if let (Some(leader), Some(name)) = (leader, settings.url.domain()) {
        builder = builder.resolve(name, leader);
    }
    let what = "the operator's certificate authority";
    if let Some(path) = settings.ca.as_deref() {
        let unusable = |why: String| AskError::File { what, path: path.to_owned(), why };
        let pem = read(what, path)?;
        let mut trusted = Certificate::from_pem_bundle(&pem).map_err(|error| unusable(error.to_string()))?;
        if trusted.is_empty() {
            return Err(unusable("it holds no certificate".to_owned()));
        }
        trusted.extend(Certificate::from_pem_bundle(told.as_bytes()).unwrap_or_default());
        builder = builder.tls_certs_only(trusted);
    }
    builder.build().map_err(AskError::Unreachable)
}

fn token(path: &Path) -> Result<Secret, AskError> {
    let what = "the operator's token";
    let unusable = |why: &str| AskError::File { what, path: path.to_owned(), why: why.to_owned() };
    let bytes = read(what, path)?;
    let text = std::str::from_utf8(bytes.trim_ascii()).map_err(|_| unusable("it is not text"))?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unusable("it does not hold one token of visible characters"));
    }
    Ok(Secret::new(text))
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, AskError> {
    let unusable = |why: String| AskError::File { what, path: path.to_owned(), why };
    let found = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?.len();
    if found > FILE_BYTES_MAX {
        return Err(unusable(format!("found {found} bytes, allowed: at most {FILE_BYTES_MAX}")));
    }
    std::fs::read(path).map_err(|error| unusable(error.to_string()))
}

fn version(path: &Path) -> FileVersion {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino(), meta.len(), (meta.mtime(), meta.mtime_nsec())))
}

async fn refused(status: u16, mut response: Response) -> AskError {
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    // What is said against a question is short; of a longer text the beginning is told.
    let told = response.chunk().await.ok().flatten().unwrap_or_default();
    let told: String = String::from_utf8_lossy(&told).trim().chars().take(TOLD_CHARS_MAX).collect();
    AskError::Refused { status, told: plain(&told), retry_after }
}

/// Returns the body as it was before compression.
async fn body_of(mut response: Response) -> Result<Vec<u8>, AskError> {
    let encoding = response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    let mut body = match encoding.as_deref() {
        None | Some(b"" | b"identity") => Body::Plain(Capped::default()),
        Some(b"gzip") => Body::Gzip(Box::new(MultiGzDecoder::new(Capped::default()))),
        Some(_) => return Err(AskError::Garbled("it has a content encoding that was not asked for".to_owned())),
    };
    let mut wire = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| AskError::Unreachable(error.without_url()))? {
        wire += chunk.len();
        if wire > ANSWER_BYTES_MAX {
            return Err(AskError::TooLarge);
        }
        body.write(&chunk)?;
    }
    body.finish()
}

enum Body {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

impl Body {
    fn write(&mut self, chunk: &[u8]) -> Result<(), AskError> {
        let written = match self {
            Self::Plain(capped) => capped.write_all(chunk),
            Self::Gzip(decoder) => decoder.write_all(chunk),
        };
        written.map_err(|error| unpacked(&error))
    }

    fn finish(self) -> Result<Vec<u8>, AskError> {
        match self {
            Self::Plain(capped) => Ok(capped.0),
            Self::Gzip(decoder) => decoder.finish().map(|capped| capped.0).map_err(|error| unpacked(&error)),
        }
    }
}

fn unpacked(error: &io::Error) -> AskError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => AskError::TooLarge,
        _ => AskError::Garbled("it cannot be unpacked".to_owned()),
    }
}

/// Takes as many bytes as an answer may have.
#[derive(Default)]
struct Capped(Vec<u8>);

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(parts: &[&[u8]]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        parts.iter().for_each(|part| encoder.write_all(part).unwrap());
        encoder.finish().unwrap()
    }

    fn unpack(packed: &[u8]) -> Result<Vec<u8>, AskError> {
        let mut body = Body::Gzip(Box::new(MultiGzDecoder::new(Capped::default())));
        packed.chunks(1000).try_for_each(|chunk| body.write(chunk))?;
        body.finish()
    }

    #[test]
    fn an_answer_is_unpacked_up_to_the_bound_and_not_beyond() {
        assert_eq!(unpack(&gzip(&[b"{}"])).unwrap(), b"{}");
        let zeros = vec![0; 1 << 20];
        let parts: Vec<&[u8]> = vec![&zeros; ANSWER_BYTES_MAX >> 20];
        assert_eq!(unpack(&gzip(&parts)).unwrap().len(), ANSWER_BYTES_MAX);
        assert!(matches!(unpack(&gzip(&[&parts[..], &[b"x"]].concat())), Err(AskError::TooLarge)));
        let good = gzip(&[b"{\"pods\":null}"]);
        for odd in [&good[..good.len() - 5], b"no gzip at all"] {
            assert!(matches!(unpack(odd), Err(AskError::Garbled(_))));
        }
    }

    #[test]
    fn who_leads_is_asked_under_the_name_that_its_certificate_has() {
        let leader: SocketAddr = "10.0.0.7:8443".parse().unwrap();
        let asked = |url: &str| at(&url.parse().unwrap(), Some(leader)).to_string();
        assert_eq!(asked("https://spillway-controller.own.svc/v1"), "https://spillway-controller.own.svc:8443/v1");
        assert_eq!(asked("https://192.0.2.1:443/v1"), "https://10.0.0.7:8443/v1");
        assert_eq!(at(&"https://own.svc/v1".parse().unwrap(), None).as_str(), "https://own.svc/v1");
    }

    #[test]
    fn a_token_is_one_visible_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(token(&path).unwrap_err().to_string().starts_with("the operator's token "));
        std::fs::write(&path, "eyJh.b-c\n").unwrap();
        assert_eq!(token(&path).unwrap().reveal(), "eyJh.b-c");
        for odd in ["", "\n", "two words", "a\u{1}b", "\u{e9}"] {
            std::fs::write(&path, odd).unwrap();
            let error = token(&path).unwrap_err();
            assert!(matches!(error, AskError::File { .. }), "{error}");
        }
    }
}
