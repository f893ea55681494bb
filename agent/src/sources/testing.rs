//! What the tests of several sources share: random numbers, the files of a listener, a wait for what tasks do, and senders of some habits.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;

use super::pushed::security::TlsFiles;

/// A small generator; the same seed makes the same run (xorshift; Marsaglia, 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    /// Returns one of as many places.
    pub(crate) fn place(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }
}

/// The token in the folder of [`Files`].
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A folder with a certificate for `localhost`, its key, and a token.
pub(crate) struct Files {
    folder: tempfile::TempDir,
    roots: rustls::RootCertStore,
}

impl Files {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        Self { folder, roots }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn tls(&self) -> TlsFiles {
        TlsFiles { certificate: Some(self.path("cert")), key: Some(self.path("key")) }
    }

    /// Returns a client that trusts the certificate and offers these protocols.
    pub(crate) fn connector(&self, protocols: &[&[u8]]) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.unwrap().with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// Lets other tasks go on until `holds`, and fails with what is `seen` when that never comes.
pub(crate) async fn until(holds: impl Fn() -> bool, seen: &impl fmt::Debug) {
    for _ in 0..1_000_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never came: {seen:?}");
}

/// Lets paused time go by: whatever is due in between comes to its end, in its order, however slow the machine is.
pub(crate) async fn time_goes_by(time: Duration) {
    // Panics where time is not paused: nobody waits here for real.
    tokio::time::advance(Duration::ZERO).await;
    let mut ticks = tokio::time::interval(time);
    ticks.tick().await;
    ticks.tick().await;
}

/// Writes `line` again and again while nobody has to read for that; returns how many bytes were taken.
pub(crate) async fn fill(client: &mut DuplexStream, line: &[u8]) -> usize {
    let mut written = 0;
    while let Some(Ok(())) = client.write_all(line).now_or_never() {
        written += line.len();
        tokio::task::yield_now().await;
    }
    written
}

/// Writes `text` every `pause` until the other side takes no more.
pub(crate) async fn write_on(mut writer: impl AsyncWrite + Unpin, text: &[u8], pause: Duration) {
    let mut ticks = tokio::time::interval(pause);
    while writer.write_all(text).await.is_ok() {
        ticks.tick().await;
    }
}

/// Has a sender write `text` every ten milliseconds while `stopping` goes on; returns what comes of that, once the sender's
/// connection is ended.
pub(crate) async fn written_to_at_a_stop<T>(client: DuplexStream, text: &str, stopping: impl Future<Output = T>) -> T {
    let (mut reader, writer) = tokio::io::split(client);
    let reading = async { reader.read_to_end(&mut Vec::new()).await.unwrap() };
    tokio::select! {
        (stopped, _) = async { tokio::join!(stopping, reading) } => stopped,
        () = write_on(writer, text.as_bytes(), Duration::from_millis(10)) => panic!("the writer ended"),
    }
}

/// Sends all of `bytes`, closes, and returns all that is read until the other side is closed, too.
pub(crate) async fn exchange(client: impl AsyncRead + AsyncWrite, bytes: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(client);
    let writing = async {
        // A source that refuses early may close before all is written.
        if writer.write_all(bytes).await.is_ok() {
            writer.shutdown().await.unwrap();
        }
    };
    let mut answer = Vec::new();
    let ((), read) = tokio::join!(writing, reader.read_to_end(&mut answer));
    read.unwrap();
    answer
}

/// Returns the count of that name.
pub(crate) fn named(counts: impl IntoIterator<Item = (&'static str, u64)>, name: &str) -> u64 {
    let found = counts.into_iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("nothing is named {name}")).1
}
