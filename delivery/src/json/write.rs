//! Strings and spliced objects, written.

use super::find::Walk;
use super::text::{plain_blocks_end, plain_end};
use super::validate::is_reserved;

const EMPTY: &[u8] = b"{}";

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    write_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` escaped as the inside of a JSON string: `"`, `\` and control characters, nothing else.
pub fn write_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut start = 0;
    loop {
        let end = plain_end(bytes, plain_blocks_end(bytes, start));
        out.extend_from_slice(&bytes[start..end]);
        let Some(&byte) = bytes.get(end) else { return };
        write_escape(out, byte);
        start = end + 1;
    }
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        0x08 => b'b',
        0x0c => b'f',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        b'"' | b'\\' => byte,
        _ => {
            let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digits[0], digits[1]]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Appends an `event` without its closing brace, and the comma where it has members, so that one more member can follow.
///
/// An event is a valid object that ends with its brace and is `{}` where it has no member
/// ([`Batch`](crate::event::Batch)): so its length alone tells.
#[inline]
pub fn begin_extra_member(out: &mut Vec<u8>, event: &[u8]) {
    out.extend_from_slice(&event[..event.len().saturating_sub(1)]);
    if event.len() > EMPTY.len() {
        out.push(b',');
    }
}

/// Returns how many bytes [`begin_extra_member`] appends for an event of `event_bytes`, which it needs not see.
#[inline]
pub fn extra_member_bytes(event_bytes: usize) -> usize {
    event_bytes.saturating_sub(1) + usize::from(event_bytes > EMPTY.len())
}

/// Appends a valid `object` on one line, without its members named
/// [`RESERVED_MEMBER`](crate::event::RESERVED_MEMBER).
///
/// Raw line breaks, which stand between tokens only, become spaces; every other byte of a member that stays is kept. Without
/// any it is `{}`.
pub fn normalize_into(object: &[u8], out: &mut Vec<u8>) {
    let mut walk = Walk::new(object);
    let open = walk.space(0);
    out.push(b'{');
    let first = out.len();
    // A member is what stands between two commas, with the white space around it.
    let mut start = open + usize::from(walk.byte(open) == b'{');
    loop {
        let at = walk.space(start);
        if walk.byte(at) != b'"' {
            // The object is empty, or the bytes are no object.
            break;
        }
        let (key, escaped, value) = walk.key(at);
        let behind = walk.skip_value(value);
        let end = walk.space(behind);
        if !is_reserved(key, escaped) {
            if out.len() > first {
                out.push(b',');
            }
            push_line(&object[start..end], out);
        }
        if walk.byte(end) != b',' {
            break;
        }
        start = end + 1;
    }
    out.push(b'}');
}

fn push_line(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(bytes);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
