//! A certificate that is kept elsewhere and mounted here: two files, read again when they change.
//!
//! Expected flow: a kubelet mounts a Secret of type `kubernetes.io/tls` as a folder and swaps its files when the Secret
//! changes. [`Mounted::keep`] looks every [`LOOK_EVERY`]: the kubelet itself takes up to a minute to swap.
//!
//! # Guarantees
//! - A change drops no connection: those that are open go on with the certificate they began with.
//! - Files that cannot be read, or do not belong together, are told once and change nothing: what was shown is shown on.
//! - The private key is in no error and in no debug output.
//!
//! # It must not know
//! Who issues and renews: it never writes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use spillway_crds::words;
use tokio_util::sync::CancellationToken;

use super::certificates::{CertificateError, LeafPem, Served, Shown, read_pair, server_config, validity};
use super::expires::Expires;

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The names of the files, as Secrets of type `kubernetes.io/tls` have them.
pub const FILES: [&str; 2] = ["tls.crt", "tls.key"];

/// Most bytes that are read of a file.
const FILE_BYTES_MAX: u64 = 128 * 1024;

/// Why no certificate is shown.
#[derive(Debug, thiserror::Error)]
pub enum MountedError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What they hold is of no use.
    #[error("{} holds no certificate with its key", folder.display())]
    Use {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: CertificateError,
    },
}

/// The certificate of a folder.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    shown: Mutex<LeafPem>,
    served: Served,
    expires: Expires,
}

impl Mounted {
    /// Reads what lies in `folder`, and says in `expires` when what is shown is over.
    pub fn read(folder: &Path, expires: Expires) -> Result<Self, MountedError> {
        let pair = read(folder)?;
        let served = Served(RustlsConfig::from_config(tls(folder, &pair)?));
        expires.set(end(folder, &pair)?);
        Ok(Self { folder: folder.to_owned(), shown: Mutex::new(pair), served, expires })
    }

    /// Reads it again; returns whether another one is shown now.
    pub fn look(&self) -> Result<bool, MountedError> {
        let pair = read(&self.folder)?;
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown == pair {
            return Ok(false);
        }
        let (config, end) = (tls(&self.folder, &pair)?, end(&self.folder, &pair)?);
        self.served.0.reload_from_config(config);
        self.expires.set(end);
        *shown = pair;
        Ok(true)
    }
}

impl Shown for Mounted {
    fn tls(&self) -> RustlsConfig {
        self.served.0.clone()
    }

    async fn keep(&self, stop: CancellationToken) {
        let (mut told, mut is_over) = (String::new(), false);
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match self.look() {
                Ok(changed) => {
                    told.clear();
                    if changed {
                        tracing::info!(folder = %self.folder.display(), "another certificate is shown");
                    }
                }
                Err(error) => {
                    let text = words::of_error(&error);
                    if text != told {
                        tracing::warn!(error = text, "the certificate is not read anew; the one before is shown on");
                        told = text;
                    }
                }
            }
            if self.expires.is_over() && !is_over {
                tracing::error!(folder = %self.folder.display(), "the certificate that is shown is over: nobody takes it");
            }
            is_over = self.expires.is_over();
        }
    }
}

fn end(folder: &Path, pair: &LeafPem) -> Result<Timestamp, MountedError> {
    let end = validity(&pair.certificate).map(|(_, end)| end);
    end.map_err(|source| MountedError::Use { folder: folder.to_owned(), source })
}

fn read(folder: &Path) -> Result<LeafPem, MountedError> {
    let text = |name: &str| {
        let path = folder.join(name);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
        read.map(|_| text).map_err(|source| MountedError::Read { path, source })
    };
    Ok(LeafPem { certificate: text(FILES[0])?, key: text(FILES[1])? })
}

fn tls(folder: &Path, pair: &LeafPem) -> Result<Arc<rustls::ServerConfig>, MountedError> {
    let config = read_pair(&pair.certificate, &pair.key)
        .and_then(|(chain, key)| server_config(chain, key).map_err(CertificateError::Tls));
    config.map(Arc::new).map_err(|source| MountedError::Use { folder: folder.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::certificates::{Authority, LEAF_VALID};
    use spillway_delivery::clock::Clock;

    fn leaf() -> LeafPem {
        let now = Timestamp::constant(1_800_000_000, 0);
        Authority::generate(now).unwrap().issue_pem(&["localhost".into()], now).unwrap()
    }

    fn write(folder: &Path, leaf: &LeafPem) {
        std::fs::write(folder.join(FILES[0]), &leaf.certificate).unwrap();
        std::fs::write(folder.join(FILES[1]), &leaf.key).unwrap();
    }

    #[test]
    fn another_pair_is_shown_and_one_that_does_not_fit_is_not() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &leaf());
        let mounted = Mounted::read(folder.path(), Expires::default()).unwrap();
        let first = mounted.tls().get_inner();
        assert!(!mounted.look().unwrap());
        // Half of a swap, which a kubelet never shows.
        let second = leaf();
        std::fs::write(folder.path().join(FILES[0]), &second.certificate).unwrap();
        let error = words::of_error(&mounted.look().unwrap_err());
        assert!(error.contains("holds no certificate with its key: the certificate cannot be served"), "{error}");
        assert!(Arc::ptr_eq(&mounted.tls().get_inner(), &first));
        write(folder.path(), &second);
        assert!(mounted.look().unwrap());
        assert!(!Arc::ptr_eq(&mounted.tls().get_inner(), &first));
    }

    #[test]
    fn the_end_of_what_is_shown_is_known_and_moves_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_800_000_000_000_000_000);
        let expires = Expires::new(clock.clone());
        assert!(!expires.is_over(), "there is none yet");
        let begin = |seconds: i64| {
            let now = Timestamp::from_second(1_800_000_000 + seconds).unwrap();
            write(folder.path(), &Authority::generate(now).unwrap().issue_pem(&["localhost".into()], now).unwrap());
        };
        begin(0);
        let mounted = Mounted::read(folder.path(), expires.clone()).unwrap();
        let valid = i64::try_from(LEAF_VALID.as_secs()).unwrap();
        let go_to = |seconds: i64| clock.set((1_800_000_000 + seconds) * 1_000_000_000);
        go_to(valid - 1);
        assert!(!expires.is_over());
        go_to(valid);
        assert!(expires.is_over());
        begin(valid);
        assert!(mounted.look().unwrap() && !expires.is_over());
        let mut registry = prometheus_client::registry::Registry::with_prefix("spillway_operator");
        registry.register_collector(Box::new(expires));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = "spillway_operator_certificate_expiry_timestamp_seconds{certificate=\"leaf\"} 1805184000";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn what_is_missing_is_told_by_its_name_and_the_key_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let error = words::of_error(&Mounted::read(folder.path(), Expires::default()).unwrap_err());
        assert!(error.contains("tls.crt cannot be read: No such file"), "{error}");
        let leaf = leaf();
        write(folder.path(), &leaf);
        let shown = format!("{:?}", Mounted::read(folder.path(), Expires::default()).unwrap());
        assert!(!shown.contains(leaf.key.lines().nth(1).unwrap()));
    }
}
