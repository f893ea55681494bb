//! The token that senders show, read from a file that may be replaced at any time.
//!
//! The file is looked at again when a request comes, at most once in [`RECHECK_EVERY`]. A file that cannot be read, or
//! holds no token, leaves the last good one in force and is told in the log once for each change: a token that is being
//! written must not lock senders out.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spillway_delivery::secret::Secret;
use tokio::time::Instant;

/// Fewest bytes of a token: 128 bits in hexadecimal are 32.
const TOKEN_BYTES_MIN: usize = 16;

/// Most bytes of a token.
const TOKEN_BYTES_MAX: usize = 4096;

/// How long a replaced token may still count.
const RECHECK_EVERY: Duration = Duration::from_secs(1);

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold a token.
    #[error(
        "{path} must hold one token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters and nothing else"
    )]
    Invalid {
        /// The file.
        path: PathBuf,
    },
}

/// A token and the file it came from.
#[derive(Debug)]
pub(crate) struct TokenFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    token: Secret,
    version: Option<Version>,
    /// Whether this version could not be used.
    is_refused: bool,
    checked: Instant,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl TokenFile {
    /// Reads the file.
    pub(crate) fn open(path: &Path) -> Result<Self, TokenError> {
        let version = version(path);
        let state = State { token: read(path)?, version, is_refused: false, checked: Instant::now() };
        Ok(Self { path: path.to_owned(), state: Mutex::new(state) })
    }

    /// Returns whether `shown` is the token, in a time that does not depend on where they differ.
    pub(crate) fn matches(&self, shown: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= RECHECK_EVERY {
            state.checked = Instant::now();
            self.refresh(&mut state);
        }
        equal(state.token.reveal().as_bytes(), shown)
    }

    fn refresh(&self, state: &mut State) {
        let version = version(&self.path);
        if version == state.version && !state.is_refused {
            return;
        }
        // Only what was read is known: one that is made readable later is the same file.
        let is_told = state.is_refused && version == state.version;
        state.version = version;
        match read(&self.path) {
            Ok(token) => {
                tracing::info!(path = %self.path.display(), "token file read again");
                (state.token, state.is_refused) = (token, false);
            }
            Err(error) => {
                state.is_refused = true;
                if !is_told {
                    tracing::warn!(%error, "token file cannot be used, the last token stays in force");
                }
            }
        }
    }
}

fn version(path: &Path) -> Option<Version> {
    let metadata = std::fs::metadata(path).ok()?;
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    Some(Version { inode: metadata.ino(), bytes: metadata.len(), modified })
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES_MAX as u64 + 3).read_to_string(&mut text))
        .map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
    let token = Secret::new(&text);
    let length = token.reveal().len();
    let visible = token.reveal().bytes().all(|byte| byte.is_ascii_graphic());
    if visible && (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&length) {
        Ok(token)
    } else {
        Err(TokenError::Invalid { path: path.to_owned() })
    }
}

/// Compares without an early end; only the length may show.
fn equal(token: &[u8], shown: &[u8]) -> bool {
    let different = token.iter().zip(shown).fold(0, |different, (one, other)| black_box(different | (one ^ other)));
    token.len() == shown.len() && different == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "0123456789abcdef";
    const SECOND: &str = "fedcba9876543210";

    #[tokio::test(start_paused = true)]
    async fn a_replaced_token_counts_after_a_second_and_a_broken_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, format!("{FIRST}\n")).unwrap();
        let file = TokenFile::open(&path).unwrap();
        assert!(file.matches(FIRST.as_bytes()));
        assert!(!file.matches(SECOND.as_bytes()));
        let next = folder.path().join("next");
        std::fs::write(&next, SECOND).unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert!(file.matches(FIRST.as_bytes()), "looked at again at most once in a second");
        tokio::time::advance(RECHECK_EVERY).await;
        assert!(file.matches(SECOND.as_bytes()));
        assert!(!file.matches(FIRST.as_bytes()));
        std::fs::write(&path, "short").unwrap();
        tokio::time::advance(RECHECK_EVERY).await;
        assert!(file.matches(SECOND.as_bytes()));
        assert!(!file.matches(b"short"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_used_is_looked_at_again_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let (path, kept) = (folder.path().join("token"), folder.path().join("kept"));
        std::fs::write(&path, FIRST).unwrap();
        let file = TokenFile::open(&path).unwrap();
        std::fs::write(&kept, SECOND).unwrap();
        std::fs::rename(&kept, &path).unwrap();
        // As a file of another user, or a process without file descriptors: the version is known, and nothing can be read.
        {
            let mut state = file.state.lock().unwrap();
            (state.version, state.is_refused) = (version(&path), true);
        }
        tokio::time::advance(RECHECK_EVERY).await;
        assert!(file.matches(SECOND.as_bytes()));
    }

    #[test]
    fn a_file_without_a_token_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for bad in ["", "\n", "too short", "0123456789 abcdef", "0123456789abcdef\nsecond line", &"x".repeat(5000)] {
            std::fs::write(&path, bad).unwrap();
            let error = TokenFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("must hold one token"), "{bad:?}: {error}");
            assert!(!error.contains("0123456789"), "{error}");
        }
        assert!(matches!(TokenFile::open(&folder.path().join("none")), Err(TokenError::Read { .. })));
    }

    #[test]
    fn tokens_are_equal_only_to_themselves() {
        assert!(equal(b"abc", b"abc"));
        for other in [&b"abd"[..], b"ab", b"abcd", b""] {
            assert!(!equal(b"abc", other));
        }
    }
}
