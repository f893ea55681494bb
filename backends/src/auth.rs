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

/// Standard alphabet with padding (RFC 4648, section 4).
#[cfg(feature = "client")]
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    #[test]
    fn base64_agrees_with_the_standard() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
        assert_eq!(api_key_value("Aladdin:open sesame"), "ApiKey QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(api_key_value("QWxh"), "ApiKey QWxh");
        assert_eq!(basic_value("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
