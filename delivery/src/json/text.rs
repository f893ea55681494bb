//! Strings: what they mean.

use std::borrow::Cow;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = ONES * 0x80;
const QUOTES: u64 = ONES * b'"' as u64;
const BACKSLASHES: u64 = ONES * b'\\' as u64;
const SPACES: u64 = ONES * b' ' as u64;

/// Returns the first place from `at` on that holds a quote, a backslash or a control character, or the length.
///
/// Eight bytes at a time: subtracting makes the high bit of a byte that was smaller, and the lowest such bit is exact
/// (a borrow can only spoil bytes above it).
#[inline]
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let special = special_bytes(u64::from_le_bytes(*chunk));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &u8| *byte != b'"' && *byte != b'\\' && *byte >= b' ';
    at + bytes[at..].iter().take_while(|byte| is_plain(byte)).count()
}

/// Bytes that are looked at together where a text is long.
const BLOCK: usize = 32;

/// Returns the end of the whole blocks from `at` on without a quote, a backslash and a control character.
///
/// Each of the three makes one of three values zero, and the least value of a block tells: the one form of this question that
/// compiles to a handful of vector instructions.
#[inline]
pub(super) fn plain_blocks_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>) {
        let least = |byte: &u8| (byte ^ b'"').min(byte ^ b'\\').min(byte & !31);
        if block.iter().map(least).fold(u8::MAX, u8::min) == 0 {
            break;
        }
        at += BLOCK;
    }
    at
}

#[inline]
fn special_bytes(word: u64) -> u64 {
    let quotes = (word ^ QUOTES).wrapping_sub(ONES);
    let backslashes = (word ^ BACKSLASHES).wrapping_sub(ONES);
    let controls = word.wrapping_sub(SPACES);
    (quotes | backslashes | controls) & !word & HIGH_BITS
}

/// A string of an event as it is written there, without its quotes; unescaped only when asked.
#[derive(Debug, Clone, Copy)]
pub struct Text<'e> {
    raw: &'e [u8],
}

/// The longest way to write one byte of a string: `\u0041`.
const ESCAPED_BYTES_MAX: usize = 6;

impl<'e> Text<'e> {
    /// Returns the text whose inside is written as `raw`.
    pub fn from_raw(raw: &'e [u8]) -> Self {
        Self { raw }
    }

    /// Returns its inside as it is written.
    pub(crate) fn raw(self) -> &'e [u8] {
        self.raw
    }

    /// Returns what it means, in UTF-8; borrowed when it is written without escapes.
    pub fn unescape(self) -> Cow<'e, [u8]> {
        match memchr::memchr(b'\\', self.raw) {
            None => Cow::Borrowed(self.raw),
            Some(first) => Cow::Owned(unescape_from(self.raw, first)),
        }
    }

    /// Returns whether it means `text`; allocates only for a string with escapes that may still be equal.
    #[inline]
    pub fn is(self, text: &[u8]) -> bool {
        // An escape is always longer than what it means: of equal length, only a string without escapes is equal.
        if self.raw.len() <= text.len() {
            return self.raw == text && memchr::memchr(b'\\', text).is_none();
        }
        self.raw.len() <= text.len() * ESCAPED_BYTES_MAX && self.unescape_differs() && *self.unescape() == *text
    }

    fn unescape_differs(self) -> bool {
        memchr::memchr(b'\\', self.raw).is_some()
    }
}

fn unescape_from(raw: &[u8], first: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    out.extend_from_slice(&raw[..first]);
    let mut at = first;
    while at < raw.len() {
        at = unescape_one(raw, at, &mut out);
        let next = memchr::memchr(b'\\', &raw[at..]).map_or(raw.len(), |plain| at + plain);
        out.extend_from_slice(&raw[at..next]);
        at = next;
    }
    out
}

/// Appends the meaning of the escape at `at`, and returns the place behind it.
fn unescape_one(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let plain = match raw.get(at + 1) {
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'u') => return unescape_unicode(raw, at, out),
        Some(&byte) => byte,
        None => return raw.len(),
    };
    out.push(plain);
    at + 2
}

fn unescape_unicode(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let mut end = at + 6;
    let first = u32::from(hex4(raw, at + 2).unwrap_or(0));
    let code = if (0xd800..0xdc00).contains(&first) && raw.get(end..end + 2) == Some(br"\u") {
        let second = u32::from(hex4(raw, end + 2).unwrap_or(0));
        end += 6;
        0x10000 + ((first - 0xd800) << 10) + (second.wrapping_sub(0xdc00) & 0x3ff)
    } else {
        first
    };
    let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    end.min(raw.len())
}

/// Returns the four hexadecimal digits at `at`.
pub(super) fn hex4(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..)?.first_chunk::<4>()?;
    let mut value = 0;
    for &digit in digits {
        value = value << 4 | char::from(digit).to_digit(16)? as u16;
    }
    Some(value)
}
