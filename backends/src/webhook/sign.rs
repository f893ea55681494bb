//! Signatures of requests: HMAC-SHA256 over `<time>.<body>`, in hexadecimal behind `sha256=`. No I/O.
//!
//! The time is in seconds since 1970, as the request's header says it: whoever verifies compares it with his clock, so
//! that an old request cannot be played again.

use aws_lc_rs::hmac;

/// Returns the signature of a body sent at `seconds`.
pub(super) fn signature(secret: &[u8], seconds: i64, body: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(seconds.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let mut text = String::from("sha256=");
    for byte in context.sign().as_ref() {
        // Writing to a String cannot fail.
        _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_openssl_says() {
        // printf '1795428000.{"a":1}' | openssl dgst -sha256 -hmac 'open sesame'
        let expected = "sha256=8e0cc892264dac67241ef287d3fc2ff50fc855798c6c1137e3c5930aae64ffbb";
        assert_eq!(signature(b"open sesame", 1_795_428_000, br#"{"a":1}"#), expected);
        assert_ne!(signature(b"open sesame", 1_795_428_001, br#"{"a":1}"#), expected);
        assert_ne!(signature(b"other", 1_795_428_000, br#"{"a":1}"#), expected);
    }
}
