//! The keys that a cluster publishes for its tokens, replaceable while requests are verified.
//!
//! # Limits
//! A key that is of no use here (encryption, an algorithm we do not take, broken) is left out and counted; the others count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most keys of a set; a cluster in the middle of a rotation has two or three.
pub const KEYS_MAX: usize = 64;

/// Most bytes of a set.
const SET_BYTES_MAX: usize = 256 * 1024;

/// How often fresh keys are asked for because of tokens that name unknown ones.
pub const WANTED_EVERY: Duration = Duration::from_secs(10);

/// The algorithms that are taken.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// Why a set was not taken; the one before counts on.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It is no set.
    #[error("the key set cannot be read")]
    Read(#[source] serde_json::Error),
    /// It is too large.
    #[error("the key set has {bytes} bytes, at most {SET_BYTES_MAX} are taken")]
    TooLarge {
        /// How large.
        bytes: usize,
    },
    /// No key of it is of use.
    #[error(
        "none of the {found} keys of the set is of use, one of RS256, ES256, ES384 and EdDSA with a `kid` is needed"
    )]
    NoneOfUse {
        /// How many there are.
        found: usize,
    },
}

/// The keys of a cluster, by their ids.
#[derive(Debug, Default)]
pub struct Keys {
    by_id: RwLock<BTreeMap<String, Arc<Key>>>,
    wanted: Notify,
    asked: Mutex<Option<Instant>>,
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Takes the keys of `jwks` (RFC 7517) in place of those before. Returns how many were left out.
    pub fn replace(&self, jwks: &str) -> Result<usize, KeysError> {
        if jwks.len() > SET_BYTES_MAX {
            return Err(KeysError::TooLarge { bytes: jwks.len() });
        }
        let Set { keys } = serde_json::from_str(jwks).map_err(KeysError::Read)?;
        let found = keys.len();
        let mut taken = BTreeMap::new();
        for (id, key) in keys.into_iter().take(KEYS_MAX).filter_map(key) {
            taken.entry(id).or_insert(Arc::new(key));
        }
        if taken.is_empty() {
            return Err(KeysError::NoneOfUse { found });
        }
        let left_out = found - taken.len();
        *self.by_id.write().unwrap_or_else(PoisonError::into_inner) = taken;
        Ok(left_out)
    }

    /// Resolves when a token named a key that is not known, at most once in [`WANTED_EVERY`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Returns a key, and asks for fresh ones where it is not known.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Key>> {
        let key = self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        if key.is_none() {
            self.ask();
        }
        key
    }

    fn ask(&self) {
        let now = Instant::now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|before| now.duration_since(before) >= WANTED_EVERY) {
            *asked = Some(now);
            self.wanted.notify_one();
        }
    }
}

/// Returns a key of a set with its id, where it is of use.
fn key(value: serde_json::Value) -> Option<(String, Key)> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let by_kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => Algorithm::ES384,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let algorithm = match jwk.common.key_algorithm {
        Some(named) => Algorithm::try_from(named).ok()?,
        None => by_kind,
    };
    let is_use = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    if !is_use || algorithm != by_kind || !ALGORITHMS.contains(&algorithm) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Key { algorithm, key }))
}
