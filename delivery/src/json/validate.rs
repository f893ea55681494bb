//! The strict check, one pass.

use super::marks::Marks;
use super::text::{Text, hex4};
use super::{DEPTH_MAX, JsonError};
use crate::event::RESERVED_MEMBER;

/// What the check of an object learned on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Where its `{` is.
    pub start: usize,
    /// The place behind its `}`.
    pub end: usize,
    /// A raw `\n` or `\r` stands between its tokens.
    pub has_line_break: bool,
    /// It has a member named [`RESERVED_MEMBER`], however the name is written.
    pub has_reserved: bool,
}

impl ObjectInfo {
    /// Returns whether the object is one line without the reserved member, so that its bytes are the event.
    pub fn is_plain(&self) -> bool {
        !self.has_line_break && !self.has_reserved
    }
}

/// Checks that `bytes` are exactly one JSON object, white space around it allowed.
pub fn validate_object(bytes: &[u8]) -> Result<ObjectInfo, JsonError> {
    let mut scanner = Scanner::new(bytes, 0);
    scanner.space();
    scanner.object_only().map_err(|fault| scanner.error(fault))
}

/// Why the scanner stopped where it stands.
pub(super) type Fault = &'static str;

pub(super) const END: Fault = "unexpected end of input";
pub(super) const VALUE: Fault = "expected a value";
const DEPTH: Fault = "nested deeper than 128";
const UTF8: Fault = "invalid UTF-8";

/// A place in the bytes and the brackets open there.
#[derive(Debug)]
pub(super) struct Scanner<'b> {
    bytes: &'b [u8],
    pub(super) at: usize,
    /// One bit for each open bracket, the innermost lowest: 1 for an object.
    brackets: u128,
    depth: u32,
    marks: Marks,
    line_break: bool,
    reserved: bool,
}

impl<'b> Scanner<'b> {
    pub(super) fn new(bytes: &'b [u8], at: usize) -> Self {
        Self { bytes, at, brackets: 0, depth: 0, marks: Marks::new(bytes, at), line_break: false, reserved: false }
    }

    /// Returns the byte here; 0, which is in no JSON, at the end.
    #[inline]
    pub(super) fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Skips white space.
    #[inline]
    pub(super) fn space(&mut self) {
        if self.byte() <= b' ' {
            self.space_run();
        }
    }

    fn space_run(&mut self) {
        loop {
            match self.byte() {
                b' ' | b'\t' => {}
                b'\n' | b'\r' => self.line_break = true,
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Returns the error for a fault here; at the end of the bytes that is what is wrong, whatever was expected.
    pub(super) fn error(&self, fault: Fault) -> JsonError {
        let at_end = self.at >= self.bytes.len() && fault != UTF8;
        JsonError { offset: self.at.min(self.bytes.len()), reason: if at_end { END } else { fault } }
    }

    fn object_only(&mut self) -> Result<ObjectInfo, Fault> {
        if self.byte() != b'{' {
            return Err("expected an object");
        }
        let info = self.value()?;
        self.space();
        if self.at < self.bytes.len() {
            return Err("unexpected text after the object");
        }
        Ok(info)
    }

    /// Checks one value that starts here and moves behind it. The flags are about this value.
    pub(super) fn value(&mut self) -> Result<ObjectInfo, Fault> {
        let start = self.at;
        self.line_break = false;
        self.reserved = false;
        loop {
            let opened = self.open()?;
            if !opened && !self.close()? {
                break;
            }
        }
        self.utf8(start)?;
        Ok(ObjectInfo { start, end: self.at, has_line_break: self.line_break, has_reserved: self.reserved })
    }

    fn utf8(&mut self, start: usize) -> Result<(), Fault> {
        if self.bytes[start..self.at].is_ascii() {
            return Ok(());
        }
        std::str::from_utf8(&self.bytes[start..self.at]).map(drop).map_err(|error| {
            self.at = start + error.valid_up_to();
            UTF8
        })
    }

    /// Takes a scalar whole, or a bracket up to the first value inside; returns whether such a value follows.
    #[inline]
    fn open(&mut self) -> Result<bool, Fault> {
        match self.byte() {
            b'"' => self.string().map(|_| false),
            b'{' => self.open_object(),
            b'[' => self.open_array(),
            b'-' | b'0'..=b'9' => self.number().map(|()| false),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => Err(VALUE),
        }
    }

    fn open_object(&mut self) -> Result<bool, Fault> {
        self.push(1)?;
        if self.byte() == b'}' {
            self.pop();
            return Ok(false);
        }
        self.key("expected a key in double quotes or `}`")?;
        Ok(true)
    }

    fn open_array(&mut self) -> Result<bool, Fault> {
        self.push(0)?;
        if self.byte() == b']' {
            self.pop();
            return Ok(false);
        }
        if self.byte() == b',' {
            return Err("expected a value or `]`");
        }
        Ok(true)
    }

    /// Goes on behind a value: closes brackets until another value follows; returns false when none is open any more.
    #[inline]
    fn close(&mut self) -> Result<bool, Fault> {
        while self.depth > 0 {
            self.space();
            let in_object = self.brackets & 1 == 1;
            match self.byte() {
                b',' => {
                    self.at += 1;
                    self.space();
                    if in_object {
                        self.key("expected a key in double quotes")?;
                    }
                    return Ok(true);
                }
                b'}' if in_object => self.pop(),
                b']' if !in_object => self.pop(),
                _ if in_object => return Err("expected `,` or `}`"),
                _ => return Err("expected `,` or `]`"),
            }
        }
        Ok(false)
    }

    #[inline]
    fn push(&mut self, bracket: u128) -> Result<(), Fault> {
        if self.depth == DEPTH_MAX {
            return Err(DEPTH);
        }
        self.depth += 1;
        self.brackets = self.brackets << 1 | bracket;
        self.at += 1;
        self.space();
        Ok(())
    }

    #[inline]
    fn pop(&mut self) {
        self.depth -= 1;
        self.brackets >>= 1;
        self.at += 1;
    }

    /// Takes a key, its colon, and the space up to the value.
    #[inline]
    fn key(&mut self, expected: Fault) -> Result<(), Fault> {
        if self.byte() != b'"' {
            return Err(expected);
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        if self.depth == 1 {
            let key = &self.bytes[start..self.at - 1];
            self.reserved |= is_reserved(key, escaped);
        }
        self.space();
        if self.byte() != b':' {
            return Err("expected `:`");
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// Takes a string from its quote on; returns whether it has escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, Fault> {
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at = self.marks.next(self.bytes, self.at);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => self.escape()?,
                _ => return Err("control character in a string"),
            }
            escaped = true;
        }
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => return self.unicode_escape(),
            Some(_) => return Err("invalid escape in a string"),
            None => {
                self.at += 1;
                return Err(END);
            }
        }
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<(), Fault> {
        const HALF: Fault = "half a surrogate pair in a string";
        let first = self.hex4()?;
        match first {
            0xd800..0xdc00 => {
                let second = self.bytes.get(self.at + 6..self.at + 8).filter(|next| next == br"\u");
                if second.is_none() {
                    return Err(HALF);
                }
                self.at += 6;
                if !(0xdc00..0xe000).contains(&self.hex4()?) {
                    return Err(HALF);
                }
            }
            0xdc00..0xe000 => return Err(HALF),
            _ => {}
        }
        self.at += 6;
        Ok(())
    }

    fn hex4(&self) -> Result<u16, Fault> {
        hex4(self.bytes, self.at + 2).ok_or("expected four hexadecimal digits after `\\u`")
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        if self.byte() == b'0' {
            self.at += 1;
            if self.byte().is_ascii_digit() {
                return Err("leading zero in a number");
            }
        } else {
            self.digits()?;
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if self.byte() | 0x20 == b'e' {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == start { Err("expected a digit") } else { Ok(()) }
    }

    fn literal(&mut self, text: &[u8]) -> Result<bool, Fault> {
        let here = self.bytes.get(self.at..self.at + text.len());
        if here != Some(text) {
            return Err(VALUE);
        }
        self.at += text.len();
        Ok(false)
    }
}

/// Returns whether a key as written is the reserved one.
#[inline]
pub(super) fn is_reserved(key: &[u8], escaped: bool) -> bool {
    if escaped { Text::from_raw(key).is(RESERVED_MEMBER.as_bytes()) } else { key == RESERVED_MEMBER.as_bytes() }
}
