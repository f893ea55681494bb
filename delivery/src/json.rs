//! The walker over raw JSON: checks, finds, splices; never a tree of values.
//!
//! It guarantees: one pass over the bytes, no recursion (the stack of open brackets is 128 bits), no allocation except
//! for strings written with escapes, no panic and no endless loop on any bytes. [`validate_object`] and
//! [`split_values`] are strict RFC 8259 with two additions: the bytes are UTF-8, and a `\u` escape of half a surrogate
//! pair is refused, as `serde_json` does when it reads a string: such a string has no meaning in Unicode. A number may
//! be of any size; only who reads it decides what it means ([`Number`]).
//!
//! Everything else expects a **valid** object and then trusts it: keys and strings end at their quote, no control
//! character stands inside one. On other bytes the answers mean nothing, yet they come, within bounds.
//!
//! Duplicate keys: the last one wins, as in nearly every parser (`serde_json::Value`, Go, JavaScript), so a walk never
//! stops at the first hit. Keys are compared by meaning: `"\u0061"` is `"a"`.
//!
//! It must not know who asks: no HTTP status, no condition, no origin.
//!
//! Limits: [`DEPTH_MAX`] open brackets (one bit each of a `u128`); spans are `u32`, since an event has at most
//! [`EVENT_BYTES_MAX`](crate::event::EVENT_BYTES_MAX) bytes (1 MiB) and a body at most 16 MiB.

mod find;
mod marks;
mod members;
mod split;
mod text;
mod texts;
mod validate;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use find::{Found, Paths};
pub(crate) use members::{Live, Member, Members, depth, each_element, each_member, value_at_key};
pub use split::{Element, Elements, split_values};
pub use text::Text;
pub(crate) use texts::each_text;
pub use validate::{ObjectInfo, validate_object};
pub use value::{Number, Value};
pub use write::{begin_extra_member, extra_member_bytes, normalize_into, write_escaped, write_string};

/// Most brackets open at once; the object itself is the first.
pub const DEPTH_MAX: u32 = u128::BITS;

/// Where bytes stop being the JSON that was asked for, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {offset}")]
pub struct JsonError {
    /// Counts bytes from the start of what was given.
    pub offset: usize,
    /// What is wrong, or what was expected there.
    pub reason: &'static str,
}

/// Returns the line and the column of a byte, both from 1, the column in characters.
pub fn line_column(body: &[u8], offset: usize) -> (usize, usize) {
    let before = &body[..offset.min(body.len())];
    let start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
    let lines = memchr::memchr_iter(b'\n', before).count();
    // A byte that goes on with a character (10xxxxxx) does not start one.
    let characters = before[start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    (lines + 1, characters + 1)
}
