//! The key of what is kept on disk, and what it seals: AES-256-GCM under a random nonce, bound to the words beside it.
//!
//! Must not know: what is sealed. Guarantees: no error and no debug output holds a key, or what was sealed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Most bytes of a key's file: base64 and a line break.
const FILE_BYTES_MAX: u64 = 64;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be read.
    #[error("key {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its file holds something else.
    #[error(
        "key {path}: found {found} bytes that are no key, allowed: {KEY_BYTES} bytes, or base64 of {KEY_BYTES} bytes"
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// How many bytes it has.
        found: u64,
    },
}

/// Seals and opens.
pub struct StateKey(RandomizedNonceKey);

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(not shown)")
    }
}

impl StateKey {
    /// Reads the key in a file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Read { path: path.to_owned(), source };
        let found = std::fs::metadata(path).map_err(unreadable)?.len();
        let no_key = || KeyError::NoKey { path: path.to_owned(), found };
        if found > FILE_BYTES_MAX {
            return Err(no_key());
        }
        Self::of(&std::fs::read(path).map_err(unreadable)?).ok_or_else(no_key)
    }

    /// Returns the key that `bytes` are, or are in base64.
    fn of(bytes: &[u8]) -> Option<Self> {
        let decoded = match bytes.len() {
            KEY_BYTES => bytes.to_vec(),
            _ => STANDARD.decode(bytes.trim_ascii()).ok()?,
        };
        RandomizedNonceKey::new(&AES_256_GCM, &decoded).ok().map(Self)
    }

    /// Returns `plain` sealed, in base64; it opens beside the same `words` only. `None` when the system has no random numbers.
    pub(super) fn seal(&self, words: &str, mut plain: Vec<u8>) -> Option<String> {
        let nonce = self.0.seal_in_place_append_tag(Aad::from(words), &mut plain).ok()?;
        Some(STANDARD.encode([&nonce.as_ref()[..], &plain].concat()))
    }

    /// Returns what was sealed beside `words`; `None` when it was not sealed so, or not by this key.
    pub(super) fn open(&self, words: &str, sealed: &str) -> Option<Vec<u8>> {
        let mut sealed = STANDARD.decode(sealed).ok()?;
        let (nonce, text) = sealed.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        self.0.open_in_place(nonce, Aad::from(words), text).ok().map(|plain| plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; KEY_BYTES] = *b"0123456789abcdef0123456789abcdef";

    #[test]
    fn only_the_same_key_beside_the_same_words_opens() {
        let key = StateKey::of(&KEY).unwrap();
        let sealed = key.seal("hash 1", b"canary".to_vec()).unwrap();
        assert_eq!(key.open("hash 1", &sealed).as_deref(), Some(&b"canary"[..]));
        assert_eq!(key.open("hash 2", &sealed), None);
        assert_eq!(StateKey::of(&[7; KEY_BYTES]).unwrap().open("hash 1", &sealed), None);
        for damaged in ["", "AAAA", "not base64", &sealed[..sealed.len() - 4]] {
            assert_eq!(key.open("hash 1", damaged), None, "{damaged}");
        }
        assert_ne!(key.seal("hash 1", b"canary".to_vec()).unwrap(), sealed, "a nonce is used once");
        assert!(!format!("{key:?} {sealed}").contains("canary"));
    }

    #[test]
    fn a_key_is_thirty_two_bytes_or_base64_of_them() {
        let sealed = StateKey::of(&KEY).unwrap().seal("w", b"x".to_vec()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, format!("{}\n", STANDARD.encode(KEY))).unwrap();
        assert!(StateKey::read(&path).unwrap().open("w", &sealed).is_some());
        std::fs::write(&path, KEY).unwrap();
        assert!(StateKey::read(&path).unwrap().open("w", &sealed).is_some());
        for wrong in [&b""[..], b"short", &[b'x'; 33], &[b'x'; 4096]] {
            std::fs::write(&path, wrong).unwrap();
            let error = StateKey::read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("found {} bytes that are no key", wrong.len())), "{error}");
        }
        assert!(matches!(StateKey::read(&folder.path().join("none")), Err(KeyError::Read { .. })));
    }
}
