//! Messages as objects of JSON, written by their tables.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use spillway_delivery::clock::write_rfc3339;
use spillway_delivery::event::EVENT_BYTES_MAX;
use spillway_delivery::json;

use super::schema::{self, Field, Kind, Message};
use super::wire::{Fields, Value, WireError, varint};
use super::write::{Around, DEPTH_MAX, Refusal};

/// Why something of a record was not written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    Refused(Refusal),
    Wire(WireError),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

pub(super) type Wrote = Result<(), Fault>;

/// Where an event is written.
pub(super) struct Out {
    pub(super) bytes: Vec<u8>,
    /// Where the event begins.
    pub(super) start: usize,
}

impl Out {
    pub(super) fn event(
        &mut self,
        message: &'static Message,
        record: &[u8],
        head: &[u8],
        around: &Around<'_>,
    ) -> Wrote {
        self.bytes.push(b'{');
        self.bytes.extend_from_slice(head);
        self.members(message, record, DEPTH_MAX)?;
        for member in [around.resource, around.scope] {
            self.bytes.extend_from_slice(member);
            if !member.is_empty() {
                self.bytes.push(b',');
            }
        }
        if let Some(url) = around.schema_url {
            self.name("schema_url");
            self.text(url)?;
            self.bytes.push(b',');
        }
        self.close(b'}');
        if self.bytes.len() - self.start > EVENT_BYTES_MAX {
            return Err(Fault::Refused(Refusal::TooLarge));
        }
        self.bytes.push(b'\n');
        Ok(())
    }

    /// Puts a bracket in the place of the last comma.
    fn close(&mut self, bracket: u8) {
        match self.bytes.last_mut() {
            Some(last) if *last == b',' => *last = bracket,
            _ => self.bytes.push(bracket),
        }
    }

    pub(super) fn name(&mut self, name: &str) {
        self.quoted(name);
        self.bytes.push(b':');
    }

    pub(super) fn quoted(&mut self, text: &str) {
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(b'"');
    }

    pub(super) fn object(&mut self, message: &'static Message, bytes: &[u8], depth: u32) -> Wrote {
        self.bytes.push(b'{');
        self.members(message, bytes, depth)?;
        self.close(b'}');
        Ok(())
    }

    /// Writes what is set of a message, each with a comma behind it.
    pub(super) fn members(&mut self, message: &'static Message, bytes: &[u8], depth: u32) -> Wrote {
        let mut begun = 0_u32;
        let mut fields = Fields::of(bytes);
        while let Some(field) = fields.next() {
            let (number, value) = field?;
            let known = message.fields.iter().enumerate().find(|(_, known)| known.number == number);
            let Some((index, field)) = known.filter(|(_, known)| !known.name.is_empty()) else { continue };
            if !field.is_repeated {
                self.member(field, value, depth)?;
            } else if begun & 1 << index == 0 {
                begun |= 1 << index;
                self.list(field, value, fields.clone(), depth)?;
            }
            if self.bytes.len() - self.start > EVENT_BYTES_MAX {
                return Err(Fault::Refused(Refusal::TooLarge));
            }
        }
        Ok(())
    }

    fn member(&mut self, field: &Field, value: Value<'_>, depth: u32) -> Wrote {
        let before = self.bytes.len();
        match (field.kind, value) {
            // A text is what people look for as the message.
            (Kind::Any, Value::Bytes(bytes)) if field.name == "body" && is_text(bytes) => self.name("message"),
            _ => self.name(field.name),
        }
        let begun = self.bytes.len();
        self.value(field.kind, value, depth)?;
        if self.bytes.len() == begun {
            // It says nothing.
            self.bytes.truncate(before);
        } else {
            self.bytes.push(b',');
        }
        Ok(())
    }

    /// Writes all values of a field that may come more than once, wherever they stand.
    fn list(&mut self, field: &Field, first: Value<'_>, rest: Fields<'_>, depth: u32) -> Wrote {
        let is_object = matches!(field.kind, Kind::Attributes);
        self.name(field.name);
        self.bytes.push(if is_object { b'{' } else { b'[' });
        let others = rest.filter_map(|other| match other {
            Ok((number, value)) => (number == field.number).then_some(Ok(value)),
            Err(error) => Some(Err(error)),
        });
        for value in std::iter::once(Ok(first)).chain(others) {
            self.element(field.kind, value?, depth)?;
            if self.bytes.len() - self.start > EVENT_BYTES_MAX {
                return Err(Fault::Refused(Refusal::TooLarge));
            }
        }
        self.close(if is_object { b'}' } else { b']' });
        self.bytes.push(b',');
        Ok(())
    }

    fn element(&mut self, kind: Kind, value: Value<'_>, depth: u32) -> Wrote {
        match (kind, value) {
            (Kind::Attributes, Value::Bytes(pair)) => return self.pair(pair, depth),
            // Numbers stand packed behind each other.
            (Kind::Double | Kind::Fixed64, Value::Bytes(packed)) => {
                let (numbers, []) = packed.as_chunks::<8>() else {
                    return Err(WireError("packed numbers end in the middle").into());
                };
                for number in numbers {
                    self.value(kind, Value::Fixed64(u64::from_le_bytes(*number)), depth)?;
                    self.bytes.push(b',');
                }
                return Ok(());
            }
            (Kind::Uint, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let number = varint(&mut packed)?;
                    self.value(kind, Value::Varint(number), depth)?;
                    self.bytes.push(b',');
                }
                return Ok(());
            }
            _ => self.value(kind, value, depth)?,
        }
        self.bytes.push(b',');
        Ok(())
    }

    /// Writes a key and its value, with a comma behind it.
    fn pair(&mut self, pair: &[u8], depth: u32) -> Wrote {
        let (mut key, mut value) = (&[][..], &[][..]);
        for field in Fields::of(pair) {
            match field? {
                (1, Value::Bytes(bytes)) => key = bytes,
                (2, Value::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        self.text(key)?;
        self.bytes.push(b':');
        self.any(value, depth)?;
        self.bytes.push(b',');
        Ok(())
    }

    /// Writes a value; nothing where it says nothing. A value of another kind than it must be is passed over, as a field that is
    /// not known.
    fn value(&mut self, kind: Kind, value: Value<'_>, depth: u32) -> Wrote {
        match (kind, value) {
            (Kind::Text, Value::Bytes(text)) if !text.is_empty() => return self.text(text),
            (Kind::Hex, Value::Bytes(bytes)) if !bytes.is_empty() => {
                self.check_room(2 * bytes.len())?;
                self.bytes.push(b'"');
                for byte in bytes {
                    let digits = [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
                    self.bytes.extend_from_slice(&digits);
                }
                self.bytes.push(b'"');
            }
            (Kind::Base64, Value::Bytes(bytes)) => {
                self.check_room(bytes.len())?;
                self.quoted(&STANDARD.encode(bytes));
            }
            (Kind::Bool, Value::Varint(value)) => {
                self.bytes.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }
            (Kind::Uint, Value::Varint(value)) | (Kind::Fixed64, Value::Fixed64(value)) => self.number(&value),
            (Kind::Fixed32, Value::Fixed32(value)) => self.number(&value),
            (Kind::Int, Value::Varint(value)) | (Kind::Sfixed64, Value::Fixed64(value)) => self.number(&(value as i64)),
            (Kind::Sint, Value::Varint(value)) => self.number(&((value >> 1) as i64 ^ -((value & 1) as i64))),
            (Kind::Double, Value::Fixed64(bits)) => self.double(f64::from_bits(bits)),
            (Kind::Time, Value::Fixed64(nanos)) if nanos > 0 => {
                let nanos = i64::try_from(nanos).map_err(|_| Fault::Refused(Refusal::Time))?;
                self.bytes.push(b'"');
                write_rfc3339(&mut self.bytes, nanos);
                self.bytes.push(b'"');
            }
            (Kind::Enum(names), Value::Varint(value)) if value > 0 => {
                match usize::try_from(value).ok().and_then(|index| names.get(index)) {
                    Some(name) => self.quoted(name),
                    // One of a later version of the protocol.
                    None => self.number(&value),
                }
            }
            (Kind::Message(message), Value::Bytes(bytes)) => return self.object(message, bytes, depth),
            (Kind::Any, Value::Bytes(bytes)) => return self.any(bytes, depth),
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self, value: &impl serde::Serialize) {
        // A number always has a form, and memory takes it.
        serde_json::to_writer(&mut self.bytes, value).ok();
    }

    /// Writes a number; JSON has none that are infinite or none at all, so these are texts, as OTLP's JSON has them.
    fn double(&mut self, value: f64) {
        match value {
            _ if value.is_finite() => self.number(&value),
            _ if value.is_nan() => self.quoted("NaN"),
            _ if value > 0.0 => self.quoted("Infinity"),
            _ => self.quoted("-Infinity"),
        }
    }

    /// Writes a text. What is no UTF-8, which the protocol forbids, is replaced.
    fn text(&mut self, bytes: &[u8]) -> Wrote {
        self.check_room(bytes.len())?;
        json::write_string(&mut self.bytes, &String::from_utf8_lossy(bytes));
        Ok(())
    }

    /// Looks at what is to be written before it is: a request may be one text.
    fn check_room(&self, bytes: usize) -> Wrote {
        let is_small = self.bytes.len() - self.start + bytes <= EVENT_BYTES_MAX;
        if is_small { Ok(()) } else { Err(Fault::Refused(Refusal::TooLarge)) }
    }

    /// Writes an `AnyValue`; of several the last counts, and none is `null`.
    fn any(&mut self, bytes: &[u8], depth: u32) -> Wrote {
        let Some(depth) = depth.checked_sub(1) else { return Err(Fault::Refused(Refusal::TooDeep)) };
        let mut last = None;
        for field in Fields::of(bytes) {
            let (number, value) = field?;
            last = schema::ANY_VALUE.field(number).map(|field| (field, value)).or(last);
        }
        let begun = self.bytes.len();
        match last {
            Some((Field { number: 1, .. }, Value::Bytes(text))) => self.text(text)?,
            Some((Field { number: 5, .. }, Value::Bytes(values))) => self.values(values, b'[', depth)?,
            Some((Field { number: 6, .. }, Value::Bytes(values))) => self.values(values, b'{', depth)?,
            Some((field, value)) => self.value(field.kind, value, depth)?,
            None => {}
        }
        if self.bytes.len() == begun {
            self.bytes.extend_from_slice(b"null");
        }
        Ok(())
    }

    /// Writes the values of an array, or of an object.
    fn values(&mut self, bytes: &[u8], open: u8, depth: u32) -> Wrote {
        self.bytes.push(open);
        for field in Fields::of(bytes) {
            let (1, Value::Bytes(value)) = field? else { continue };
            if open == b'[' {
                self.any(value, depth)?;
                self.bytes.push(b',');
            } else {
                self.pair(value, depth)?;
            }
            self.check_room(0)?;
        }
        self.close(if open == b'[' { b']' } else { b'}' });
        Ok(())
    }
}

fn is_text(any: &[u8]) -> bool {
    let last = Fields::of(any).flatten().filter(|(number, _)| schema::ANY_VALUE.field(*number).is_some()).last();
    matches!(last, Some((1, Value::Bytes(_))))
}
