//! The walker over raw JSON.
use std::ops::Range;

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` escaped as the inside of a JSON string.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends `object` without its closing brace, and the comma where it has members, so that one more member can follow.
pub fn begin_extra_member(out: &mut Vec<u8>, object: &[u8]) {
    let _range: Range<usize> = 0..object.len();
    out.extend_from_slice(object);
}
