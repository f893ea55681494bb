//! OTLP's JSON becomes the same request in protobuf, so that there is one way from a request to events.
//!
//! It guarantees: one pass, no tree of values; at most [`REQUEST_BYTES_MAX`] bytes are made; errors name line and column.
//!
//! Source: the JSON encoding of OTLP 1.x: lower camel case, ids in hexadecimal digits, integers of 64 bits as texts or numbers,
//! enumerations as numbers. What is not known is passed over.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::REQUEST_BYTES_MAX;
use super::schema::{self, Field, Kind, Message};
use super::wire::{put_bytes, put_fixed32, put_fixed64, put_number, put_varint};

/// Returns the message that `json` is.
pub(super) fn to_wire(message: &'static Message, json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Object { message, out: &mut out }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(out)
}

/// An object that is a message.
struct Object<'a> {
    message: &'static Message,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match self.message.fields.iter().find(|field| field.json == key) {
                Some(field) => map.next_value_seed(Member { field, out: self.out, is_element: false })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            if self.out.len() > REQUEST_BYTES_MAX {
                return Err(A::Error::custom(format_args!("the request takes more than {REQUEST_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }
}

/// The value of a field, or one of several.
struct Member<'a> {
    field: &'static Field,
    out: &'a mut Vec<u8>,
    is_element: bool,
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Member<'_> {
    /// Puts a number of up to 64 bits, given as it is on the wire where it is signed.
    fn put_integer<E: Error>(&mut self, value: i128) -> Result<(), E> {
        let wrong = || E::custom(format_args!("{value} is out of the range of `{}`", self.field.json));
        let number = self.field.number;
        match self.field.kind {
            Kind::Uint | Kind::Enum(_) => {
                let value = u64::try_from(value).map_err(|_| wrong())?;
                put_number(self.out, number, value);
            }
            Kind::Fixed64 | Kind::Time => {
                let value = u64::try_from(value).map_err(|_| wrong())?;
                put_fixed64(self.out, number, value);
            }
            Kind::Fixed32 => {
                let value = u32::try_from(value).map_err(|_| wrong())?;
                put_fixed32(self.out, number, value);
            }
            Kind::Int => {
                let value = i64::try_from(value).map_err(|_| wrong())?;
                put_number(self.out, number, value as u64);
            }
            Kind::Sfixed64 => {
                let value = i64::try_from(value).map_err(|_| wrong())?;
                put_fixed64(self.out, number, value as u64);
            }
            Kind::Sint => {
                let value = i32::try_from(value).map_err(|_| wrong())?;
                put_number(self.out, number, u64::from(((value << 1) ^ (value >> 31)) as u32));
            }
            Kind::Double => put_fixed64(self.out, number, (value as f64).to_bits()),
            _ => return Err(self.unexpected("a number")),
        }
        Ok(())
    }

    fn unexpected<E: Error>(&self, found: &str) -> E {
        E::custom(format_args!("`{}` cannot be {found}", self.field.json))
    }

    /// Returns the message of an object here.
    fn message(&self) -> Option<&'static Message> {
        match self.field.kind {
            Kind::Message(message) => Some(message),
            Kind::Any => Some(&schema::ANY_VALUE),
            Kind::Attributes => Some(&schema::KEY_VALUE),
            _ => None,
        }
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the value of `{}`", self.field.json)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.field.kind {
            Kind::Bool => put_number(self.out, self.field.number, u64::from(value)),
            _ => return Err(self.unexpected("a truth value")),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.put_integer(i128::from(value))
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.put_integer(i128::from(value))
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => {
                put_fixed64(self.out, self.field.number, value.to_bits());
                Ok(())
            }
            // 1e3 is an integer, too.
            _ if value.fract() == 0.0 && value.abs() < 1e18 => self.put_integer(value as i128),
            _ => Err(self.unexpected("a number that is no integer")),
        }
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        let number = self.field.number;
        match self.field.kind {
            Kind::Text => put_bytes(self.out, number, text.as_bytes()),
            Kind::Hex => {
                let bytes = hex(text).ok_or_else(|| self.unexpected("a text that is not of hexadecimal digits"))?;
                put_bytes(self.out, number, &bytes);
            }
            Kind::Base64 => {
                let bytes = STANDARD.decode(text).map_err(|_| self.unexpected("a text that is not base64"))?;
                put_bytes(self.out, number, &bytes);
            }
            Kind::Double => {
                let value = text.parse::<f64>().map_err(|_| self.unexpected("a text that is no number"))?;
                put_fixed64(self.out, number, value.to_bits());
            }
            Kind::Bool | Kind::Message(_) | Kind::Any | Kind::Attributes => return Err(self.unexpected("a text")),
            _ => {
                let value = text.parse::<i128>().map_err(|_| self.unexpected("a text that is no integer"))?;
                return self.put_integer(value);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        if !self.field.is_repeated || self.is_element {
            return Err(self.unexpected("a list"));
        }
        if self.message().is_some() {
            while values.next_element_seed(Member { field: self.field, out: self.out, is_element: true })?.is_some() {}
            return Ok(());
        }
        // Numbers, which stand packed behind each other: each is put as a field, and loses its tag.
        let (mut packed, mut one) = (Vec::new(), Vec::new());
        while values.next_element_seed(Member { field: self.field, out: &mut one, is_element: true })?.is_some() {
            let mut rest = &one[..];
            super::wire::varint(&mut rest).map_err(A::Error::custom)?;
            packed.extend_from_slice(rest);
            one.clear();
            if packed.len() > REQUEST_BYTES_MAX {
                return Err(A::Error::custom(format_args!("the request takes more than {REQUEST_BYTES_MAX} bytes")));
            }
        }
        put_bytes(self.out, self.field.number, &packed);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Some(message) = self.message() else { return Err(self.unexpected("an object")) };
        let mut inner = Vec::new();
        Object { message, out: &mut inner }.visit_map(map)?;
        put_varint(self.out, u64::from(self.field.number) << 3 | 2);
        put_varint(self.out, inner.len() as u64);
        self.out.append(&mut inner);
        Ok(())
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4 | digit(*low)?) as u8)).collect()
}
