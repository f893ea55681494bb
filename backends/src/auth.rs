//! Ways to prove who one is that several backends share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{Problem, SecretKeyRef};

/// User and password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuth {
    /// Name of the user, without a colon.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^:\x00-\x1F\x7F]+$"))]
    pub username: String,
    /// Where the password is.
    pub password_secret_ref: SecretKeyRef,
}

impl BasicAuth {
    /// Adds what is wrong to `problems`; `path` is where the settings stand (`auth.basic`).
    pub(crate) fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        self.password_secret_ref.check(&format!("{path}.passwordSecretRef"), problems);
        if self.username.is_empty() || self.username.chars().any(|c| c == ':' || c.is_control()) {
            let message = "is empty, or holds a colon or a control character";
            problems.push(Problem::new(format!("{path}.username"), message, "a name without a colon"));
        }
    }
}

/// Returns the value of `Authorization` for a user and a password.
#[cfg(feature = "client")]
pub(crate) fn basic_value(username: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{username}:{password}").as_bytes()))
}

/// Returns the value of `Authorization` for an API key: as the server encodes it, or `<id>:<key>`.
#[cfg(feature = "client")]
pub(crate) fn api_key_value(key: &str) -> String {
    if key.contains(':') { format!("ApiKey {}", base64(key.as_bytes())) } else { format!("ApiKey {key}") }
}

#[cfg(feature = "client")]
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard alphabet with padding (RFC 4648, section 4).
#[cfg(feature = "client")]
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let sextet = (bits >> (18 - 6 * index)) as usize & 63;
            out.push(if index <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    out
}

/// Returns what `text` is the encoding of, with padding or without.
#[cfg(feature = "client")]
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let sextet = u32::try_from(ALPHABET.iter().position(|&other| other == byte)?).ok()?;
        (bits, count) = (bits << 6 | sextet, count + 6);
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_standard() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
            assert_eq!(from_base64(encoded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
        assert_eq!(from_base64("a-b"), None);
        assert_eq!(api_key_value("Aladdin:open sesame"), "ApiKey QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(api_key_value("QWxh"), "ApiKey QWxh");
        assert_eq!(basic_value("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
