//! Who asks: the projected service account token that a pod shows, verified with the cluster's published keys alone. The operator
//! so knows its agents, and an agent the pods of its node.
//!
//! Expected flow: [`Keys::replace`] with what `/openid/v1/jwks` answers, again whenever [`Keys::wanted`] resolves;
//! [`Verifier::verify`] for every request; then the caller looks whether the pod is there and has any business with it.
//!
//! # Guarantees
//! - A token counts only when a published key signed it with the algorithm of that key, when it was issued by this cluster for
//!   the audience that is asked for, now, and is bound to a pod on a node. What a token says is looked at after its signature
//!   alone.
//! - `none` and every symmetric algorithm is no algorithm.
//! - A refusal is one line for the log and never holds the token.
//!
//! # It must not know
//! Where keys come from, which pods there are, what is asked.
//!
//! # Limits
//! Tokens of [`TOKEN_BYTES_MAX`], clocks [`LEEWAY_SECONDS`] apart, [`KEYS_MAX`] keys, one call for fresh keys in
//! [`WANTED_EVERY`] however many tokens name unknown ones.

mod keys;
#[cfg(any(test, feature = "testing"))]
pub mod signing;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

pub use keys::{KEYS_MAX, Keys, KeysError, WANTED_EVERY};

/// Most bytes of a token; those of real clusters are about 1,200.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How far apart the clocks of who issues and who verifies may be.
pub const LEEWAY_SECONDS: i64 = 60;

/// Longest piece of an unverified or foreign text in a log line.
const SHOWN_CHARS_MAX: usize = 80;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name of the pod.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
    /// The name of the node that the pod is on.
    pub node: String,
    /// The namespace of the pod and its service account.
    pub namespace: String,
    /// When the token was made, seconds since 1970; long ago where it does not say.
    pub issued: i64,
}

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("no token, expected `Authorization: Bearer` with a service account token of audience `{audience}`")]
    Missing {
        /// The audience that is asked for.
        audience: &'static str,
    },
    /// It is no token.
    #[error("not a token: {0}")]
    Malformed(&'static str),
    /// Nobody known signs with this key.
    #[error("signed with a key that the cluster does not publish: {0}")]
    Key(String),
    /// The key did not sign this.
    #[error("the signature does not fit")]
    Signature,
    /// A claim of a token that is genuine does not hold here.
    #[error("{claim}: {found}, {allowed}")]
    Claim {
        /// Which.
        claim: &'static str,
        /// What it says.
        found: String,
        /// What is taken.
        allowed: String,
    },
    /// It is bound to no pod that is here.
    #[error("pod {pod} on node {node} has no business here: {problem}")]
    Pod {
        /// `<namespace>/<name>`, and the uid.
        pod: String,
        /// The node of the token.
        node: String,
        /// What is known of it.
        problem: &'static str,
    },
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    keys: Arc<Keys>,
    issuer: String,
    audience: &'static str,
}

/// What of the claims is looked at.
#[derive(Debug, Clone, Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: i64,
    #[serde(default)]
    iat: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(rename = "kubernetes.io", default)]
    bound: Option<Bound>,
}

/// One audience or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// What the token is bound to.
#[derive(Debug, Clone, Deserialize)]
struct Bound {
    namespace: String,
    #[serde(default)]
    pod: Option<Named>,
    #[serde(default)]
    node: Option<Named>,
}

#[derive(Debug, Clone, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Refusal {
    /// Returns a word for metrics and for who reads the answer.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "token-missing",
            Self::Malformed(_) => "token-malformed",
            Self::Key(_) => "key-unknown",
            Self::Signature => "signature",
            Self::Claim { claim, .. } => match *claim {
                "iss" => "issuer",
                "aud" => "audience",
                "exp" => "expired",
                "nbf" => "not-yet-valid",
                _ => "not-bound",
            },
            Self::Pod { .. } => "pod",
        }
    }

    /// Returns whether another token might do; else this one is genuine and its bearer has no business here.
    pub fn is_about_the_token(&self) -> bool {
        !matches!(self, Self::Pod { .. })
    }
}

impl Verifier {
    /// Returns one for tokens of `issuer` for `audience`.
    pub fn new(keys: Arc<Keys>, issuer: &str, audience: &'static str) -> Self {
        Self { keys, issuer: issuer.to_owned(), audience }
    }

    /// Returns who sent these headers at `now`.
    pub fn verify(&self, headers: &HeaderMap, now: Timestamp) -> Result<Identity, Refusal> {
        let token = bearer(headers, self.audience)?;
        let claims = self.signed(token)?;
        self.check(&claims, now.as_second())?;
        identity(claims)
    }

    /// Returns what a published key signed.
    fn signed(&self, token: &str) -> Result<Claims, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::Malformed("its header cannot be read"))?;
        let Some(kid) = header.kid else { return Err(Refusal::Malformed("its header names no key (`kid`)")) };
        let Some(key) = self.keys.find(&kid) else { return Err(Refusal::Key(shown(&kid))) };
        if header.alg != key.algorithm {
            return Err(Refusal::Malformed("its algorithm is not the one of its key"));
        }
        // Claims are checked below, by our clock and with words of ours.
        let mut validation = Validation::new(key.algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        decode::<Claims>(token, &key.key, &validation).map(|token| token.claims).map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::Json(_) => Refusal::Malformed("its claims cannot be read"),
            _ => Refusal::Signature,
        })
    }

    fn check(&self, claims: &Claims, now: i64) -> Result<(), Refusal> {
        let refused = |claim, found: String, allowed: String| Err(Refusal::Claim { claim, found, allowed });
        if claims.iss != self.issuer {
            return refused("iss", shown(&claims.iss), format!("expected {:?}", self.issuer));
        }
        if !claims.aud.contains(self.audience) {
            return refused("aud", claims.aud.shown(), format!("expected {:?}", self.audience));
        }
        if now >= claims.exp.saturating_add(LEEWAY_SECONDS) {
            return refused("exp", told(claims.exp), format!("it is {}", told(now)));
        }
        if let Some(nbf) = claims.nbf.filter(|nbf| now < nbf.saturating_sub(LEEWAY_SECONDS)) {
            return refused("nbf", told(nbf), format!("it is {}", told(now)));
        }
        Ok(())
    }
}

impl Identity {
    /// Returns why the pod has no business here.
    pub fn refused(&self, problem: &'static str) -> Refusal {
        let pod = shown(&format!("{}/{} ({})", self.namespace, self.pod, self.pod_uid));
        Refusal::Pod { pod, node: shown(&self.node), problem }
    }
}

impl Audience {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::One(one) => shown(one),
            Self::Many(many) => shown(&many.join(", ")),
        }
    }
}

/// Returns who it is.
fn identity(Claims { bound, iat, .. }: Claims) -> Result<Identity, Refusal> {
    let refused = |found: &str| Refusal::Claim {
        claim: "kubernetes.io",
        found: found.to_owned(),
        allowed: "expected a token that is bound to a pod and its node (Kubernetes 1.33)".to_owned(),
    };
    let Some(Bound { namespace, pod, node }) = bound else { return Err(refused("absent")) };
    let Some(pod) = pod.filter(|pod| !pod.uid.is_empty()) else { return Err(refused("no pod")) };
    let Some(node) = node.filter(|node| !node.name.is_empty()) else { return Err(refused("no node")) };
    Ok(Identity { pod: pod.name, pod_uid: pod.uid, node: node.name, namespace, issued: iat })
}

/// Returns the token of these headers.
fn bearer<'h>(headers: &'h HeaderMap, audience: &'static str) -> Result<&'h str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::Missing { audience })?;
    if values.next().is_some() {
        return Err(Refusal::Malformed("there are two `Authorization` headers"));
    }
    if value.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::Malformed("it is too long"));
    }
    let text = value.to_str().map_err(|_| Refusal::Malformed("it is not text"))?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::Missing { audience })?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Missing { audience });
    }
    Ok(token.trim_matches(' '))
}

/// Returns a foreign text as a log line may show it.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() { format!("{short:?} (cut)") } else { format!("{short:?}") }
}

/// Returns seconds since 1970 as a time.
fn told(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}

#[cfg(test)]
mod tests;
