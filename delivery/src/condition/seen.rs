//! Values while they are looked at, and what holds between two of them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::EvalFailure;
use super::node::{Constant, Relation};
use crate::json::{Number, Text, Value, write_string};

/// A value while it is looked at. None is copied out of the event but a text that an operation made.
#[derive(Debug)]
pub(super) enum Seen<'v> {
    Null,
    Bool(bool),
    Number(Number),
    /// A string of the event, maybe with escapes.
    Text(Text<'v>),
    /// A string as it is: of a condition, of the origin, or made.
    Plain(Cow<'v, str>),
    Array(&'v [u8]),
    Object(&'v [u8]),
}

impl<'v> Seen<'v> {
    /// Reads the bytes of one valid value.
    #[inline]
    pub(super) fn read(bytes: &'v [u8]) -> Self {
        match Value::read(bytes) {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(bytes) => Self::Array(bytes),
            Value::Object(bytes) => Self::Object(bytes),
        }
    }

    /// Returns as how many bytes it is written, where that may be many.
    pub(super) fn bytes_written(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Text(text) => text.raw().len(),
            Self::Array(bytes) | Self::Object(bytes) => bytes.len(),
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
        }
    }

    /// Returns the text of a string, unescaped.
    pub(super) fn text(self) -> Result<Cow<'v, str>, EvalFailure> {
        match self {
            Self::Plain(text) => Ok(text),
            Self::Text(text) => match text.unescape() {
                // What was checked as JSON is UTF-8, and so is what it means.
                Cow::Borrowed(bytes) => {
                    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| EvalFailure::TypeMismatch)
                }
                Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| EvalFailure::TypeMismatch),
            },
            _ => Err(EvalFailure::TypeMismatch),
        }
    }

    /// Returns the bytes of a string, unescaped.
    pub(super) fn bytes(&self) -> Result<Cow<'_, [u8]>, EvalFailure> {
        match self {
            Self::Plain(text) => Ok(Cow::Borrowed(text.as_bytes())),
            Self::Text(text) => Ok(text.unescape()),
            _ => Err(EvalFailure::TypeMismatch),
        }
    }

    pub(super) fn number(&self) -> Result<Number, EvalFailure> {
        if let Self::Number(number) = self { Ok(*number) } else { Err(EvalFailure::TypeMismatch) }
    }

    /// Appends it as JSON: that of a field as it is written.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let text = match self {
            Self::Plain(text) => return write_string(out, text),
            Self::Text(text) => {
                out.push(b'"');
                out.extend_from_slice(text.raw());
                out.push(b'"');
                return;
            }
            Self::Array(bytes) | Self::Object(bytes) => return out.extend_from_slice(bytes),
            Self::Null => "null".into(),
            Self::Bool(true) => "true".into(),
            Self::Bool(false) => "false".into(),
            Self::Number(Number::Int(int)) => int.to_string(),
            Self::Number(Number::Uint(uint)) => uint.to_string(),
            // The shortest text that reads back as the number, always with a fraction or an exponent.
            Self::Number(Number::Float(float)) => format!("{float:?}"),
        };
        out.extend_from_slice(text.as_bytes());
    }
}

impl Constant {
    pub(super) fn seen(&self) -> Seen<'_> {
        match self {
            Self::Null => Seen::Null,
            Self::Bool(value) => Seen::Bool(*value),
            Self::Number(number) => Seen::Number(*number),
            Self::String(text) => Seen::Plain(Cow::Borrowed(text)),
        }
    }
}

impl Relation {
    pub(super) fn holds(self, left: &Seen<'_>, right: &Seen<'_>) -> Result<bool, EvalFailure> {
        Ok(match self {
            Self::Equal => equal(left, right)?,
            Self::Different => !equal(left, right)?,
            Self::Less => order(left, right)?.is_lt(),
            Self::LessOrEqual => order(left, right)?.is_le(),
            Self::Greater => order(left, right)?.is_gt(),
            Self::GreaterOrEqual => order(left, right)?.is_ge(),
        })
    }
}

/// Values of different types are different; arrays and objects are not compared with their like.
pub(super) fn equal(left: &Seen<'_>, right: &Seen<'_>) -> Result<bool, EvalFailure> {
    Ok(match (left, right) {
        (Seen::Null, Seen::Null) => true,
        (Seen::Bool(left), Seen::Bool(right)) => left == right,
        (Seen::Number(left), Seen::Number(right)) => left.compare(*right) == Some(Ordering::Equal),
        (Seen::Plain(left), Seen::Plain(right)) => left == right,
        (Seen::Text(text), Seen::Plain(plain)) | (Seen::Plain(plain), Seen::Text(text)) => text.is(plain.as_bytes()),
        (Seen::Text(left), Seen::Text(right)) => left.is(&right.unescape()),
        (Seen::Array(_), Seen::Array(_)) | (Seen::Object(_), Seen::Object(_)) => return Err(EvalFailure::TypeMismatch),
        _ => false,
    })
}

/// Strings are ordered by code point, which is the order of their UTF-8.
fn order(left: &Seen<'_>, right: &Seen<'_>) -> Result<Ordering, EvalFailure> {
    let ordering = match (left, right) {
        (Seen::Bool(left), Seen::Bool(right)) => Some(left.cmp(right)),
        (Seen::Number(left), Seen::Number(right)) => left.compare(*right),
        (Seen::Plain(_) | Seen::Text(_), Seen::Plain(_) | Seen::Text(_)) => Some(left.bytes()?.cmp(&right.bytes()?)),
        _ => None,
    };
    ordering.ok_or(EvalFailure::TypeMismatch)
}
