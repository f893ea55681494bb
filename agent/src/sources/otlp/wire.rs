//! Messages of protobuf, read field by field where they lie.
//!
//! It guarantees: no allocation, no recursion, no panic on any bytes; what is cut off or no message is an error with its place.
//! Groups, which proto3 does not have, are an error. Source: the encoding guide of Protocol Buffers.

/// What a field holds as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// An integer, a truth value, or one of an enumeration.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// A text, bytes, another message, or numbers one after the other.
    Bytes(&'a [u8]),
}

/// Bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WireError(pub(super) &'static str);

/// The fields of a message in the order of its bytes; ends behind an error.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Returns the fields of `message`.
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), WireError> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError("a field has a number that is too large"))?;
        if number == 0 {
            return Err(WireError("a field has the number 0"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Fixed64(u64::from_le_bytes(*self.take()?)),
            2 => {
                let length = varint(&mut self.rest)?;
                let split = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
                let (bytes, rest) = split.ok_or(CUT)?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(*self.take()?)),
            _ => return Err(WireError("a field is of a kind that proto3 does not have")),
        };
        Ok((number, value))
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

const CUT: WireError = WireError("it ends in the middle of a field");

/// Takes a varint from the front of `rest`.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0;
    for (index, byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 { CUT } else { WireError("a number has more than ten bytes") })
}

/// Appends a varint.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field of bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field of an integer.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

/// Appends a field of eight bytes.
pub(super) fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field of four bytes.
pub(super) fn put_fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    put_varint(out, u64::from(number) << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read_again() {
        let mut out = Vec::new();
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            put_number(&mut out, 1, value);
            put_fixed64(&mut out, 2, value);
            put_fixed32(&mut out, 300, value as u32);
            put_bytes(&mut out, 15, &value.to_le_bytes());
            let fields: Result<Vec<_>, _> = Fields::of(&out).collect();
            let bytes = value.to_le_bytes();
            let expected = [
                (1, Value::Varint(value)),
                (2, Value::Fixed64(value)),
                (300, Value::Fixed32(value as u32)),
                (15, Value::Bytes(&bytes)),
            ];
            assert_eq!(fields.unwrap(), expected);
            out.clear();
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error_and_then_the_end() {
        for (bytes, why) in [
            (&b"\x08"[..], "ends in the middle"),
            (b"\x08\xff\xff", "ends in the middle"),
            (b"\x0a\x05abcd", "ends in the middle"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends in the middle"),
            (b"\x09abcdefg", "ends in the middle"),
            (b"\x0dabc", "ends in the middle"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more than ten bytes"),
            (b"\x00\x01", "number 0"),
            (b"\x0b", "proto3"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x00", "too large"),
        ] {
            let mut fields = Fields::of(bytes);
            let error = fields.next().unwrap().unwrap_err().to_string();
            assert!(error.contains(why), "{bytes:?}: {error}");
            assert!(fields.next().is_none());
        }
    }
}
