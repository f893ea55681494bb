//! Keys that sign tokens as a cluster does, for tests. Nothing of it is in a program.

#![expect(clippy::unwrap_used, reason = "tests alone use it, and fail by it")]

use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The time of these tokens, in seconds since 1970.
pub const NOW: i64 = 1_800_000_000;
/// Who issues them.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A key that signs tokens, under an id.
#[derive(Debug)]
pub struct Signer {
    pub(crate) kid: &'static str,
    pub(crate) pair: Pair,
}

#[derive(Debug)]
pub(crate) enum Pair {
    Rsa(RsaKeyPair),
    Ec(&'static str, EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// One of RSA.
pub static RSA: LazyLock<Signer> = LazyLock::new(|| rsa("rsa"));
/// One with the id of [`RSA`] that nobody publishes.
pub static FOREIGN: LazyLock<Signer> = LazyLock::new(|| rsa("rsa"));
/// One of the curve P-256.
pub static P256: LazyLock<Signer> = LazyLock::new(|| {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    Signer { kid: "p256", pair: Pair::Ec("P-256", pair) }
});
/// One of the curve P-384.
pub static P384: LazyLock<Signer> = LazyLock::new(|| {
    let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    Signer { kid: "p384", pair: Pair::Ec("P-384", pair) }
});
/// One of Ed25519.
pub static ED: LazyLock<Signer> =
    LazyLock::new(|| Signer { kid: "ed", pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()) });

fn rsa(kid: &'static str) -> Signer {
    Signer { kid, pair: Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()) }
}

pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn algorithm(&self) -> &'static str {
        match &self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec("P-256", _) => "ES256",
            Pair::Ec(..) => "ES384",
            Pair::Ed(_) => "EdDSA",
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Pair::Ec(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// Returns a signed token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm(), "kid": self.kid}), claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", base64(header.to_string()), base64(claims.to_string()));
        let signature = base64(self.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// Returns the public half as a cluster publishes it.
    pub fn jwk(&self) -> Value {
        let mut jwk = json!({"use": "sig", "kid": self.kid, "alg": self.algorithm()});
        let members = match &self.pair {
            Pair::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "n": base64(public.n), "e": base64(public.e)})
            }
            Pair::Ec(curve, pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({"kty": "EC", "crv": curve, "x": base64(x), "y": base64(y)})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": base64(pair.public_key())}),
        };
        jwk.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        jwk
    }
}

/// What a kubelet is given for a pod of the agents.
pub fn claims(pod_uid: &str, node: &str) -> Value {
    json!({
        "iss": ISSUER,
        "aud": ["spillway"],
        "exp": NOW + 3600,
        "iat": NOW - 60,
        "nbf": NOW - 60,
        "jti": "0b7ad8a5-6d2c-4b54-9d3e-5d2f3a4c1b6d",
        "sub": "system:serviceaccount:spillway-system:spillway-agent",
        "kubernetes.io": {
            "namespace": "spillway-system",
            "serviceaccount": {"name": "spillway-agent", "uid": "sa-uid"},
            "pod": {"name": "spillway-agent-x", "uid": pod_uid},
            "node": {"name": node, "uid": "node-uid"},
        },
    })
}

/// Returns the set that a cluster publishes: every key but [`FOREIGN`].
pub fn jwks() -> String {
    json!({"keys": [RSA.jwk(), P256.jwk(), P384.jwk(), ED.jwk()]}).to_string()
}
