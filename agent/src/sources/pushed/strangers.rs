//! What comes to a listener by mistake, told by its first bytes. Pure.

/// Returns whether a first line is that of an HTTP request: what a browser or `curl` sends by mistake, or a page on purpose.
pub(crate) fn is_http(line: &[u8]) -> bool {
    line.trim_ascii_end().rsplit(|byte| *byte == b' ').next().is_some_and(|last| last.starts_with(b"HTTP/1."))
}

/// Returns whether first bytes are those of a client that speaks TLS.
pub(crate) fn is_tls(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x16, 0x03])
}
