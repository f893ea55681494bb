//! What is made of values: numbers from numbers, texts from texts, and one from the other.
//!
//! Integers are exact: a result that fits neither `i64` nor `u64` is a failure, as is a division by zero. Where one of two numbers is
//! a float the result is one, and a failure where it is not finite.

use std::borrow::Cow;
use std::collections::BTreeSet;

use memchr::memmem::{self, Finder};

use super::seen::Seen;
use super::{EvalFailure, TEXT_BYTES_MAX};
use crate::json::{Number, Text, each_element, each_member};

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// A function of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// Characters of a text, elements of an array, keys of an object.
    Size,
    LowerAscii,
    UpperAscii,
    /// Without white space at both ends.
    Trim,
    /// As a text.
    String,
    /// As an integer: a float without its fraction, a text that is one.
    Int,
    /// As a float.
    Double,
    /// The negative.
    Negate,
}

/// Where in a text something is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Start,
    End,
    Anywhere,
}

/// What is looked for, and where in a text.
#[derive(Debug)]
pub(super) enum Search {
    Start(Box<[u8]>),
    End(Box<[u8]>),
    Anywhere(Box<Finder<'static>>),
}

impl Search {
    pub(super) fn new(place: Place, text: &str) -> Self {
        match place {
            Place::Start => Self::Start(text.as_bytes().into()),
            Place::End => Self::End(text.as_bytes().into()),
            Place::Anywhere => Self::Anywhere(Box::new(Finder::new(text).into_owned())),
        }
    }

    pub(super) fn found_in(&self, value: &Seen<'_>) -> Result<bool, EvalFailure> {
        let text = value.bytes()?;
        Ok(match self {
            Self::Start(start) => text.starts_with(start),
            Self::End(end) => text.ends_with(end),
            Self::Anywhere(finder) => finder.find(&text).is_some(),
        })
    }
}

impl Place {
    pub(super) fn found(self, wanted: &[u8], text: &[u8]) -> bool {
        match self {
            Self::Start => text.starts_with(wanted),
            Self::End => text.ends_with(wanted),
            Self::Anywhere => memmem::find(text, wanted).is_some(),
        }
    }
}

impl Operator {
    pub(super) fn of<'v>(self, left: Seen<'v>, right: Seen<'v>) -> Result<Seen<'v>, EvalFailure> {
        match (&left, &right) {
            (Seen::Number(left), Seen::Number(right)) => self.of_numbers(*left, *right).map(Seen::Number),
            (Seen::Plain(_) | Seen::Text(_), Seen::Plain(_) | Seen::Text(_)) if self == Self::Add => {
                let (left, right) = (left.text()?, right.text()?);
                if left.len() + right.len() > TEXT_BYTES_MAX {
                    return Err(EvalFailure::TooLarge);
                }
                Ok(Seen::Plain(left + right))
            }
            _ => Err(EvalFailure::TypeMismatch),
        }
    }

    fn of_numbers(self, left: Number, right: Number) -> Result<Number, EvalFailure> {
        let (left, right) = match (left.integer(), right.integer()) {
            (Ok(left), Ok(right)) => {
                let exact = match self {
                    Self::Add => left.checked_add(right),
                    Self::Subtract => left.checked_sub(right),
                    Self::Multiply => left.checked_mul(right),
                    Self::Divide => left.checked_div(right),
                    Self::Remainder => left.checked_rem(right),
                };
                return exact.and_then(Number::from_integer).ok_or(EvalFailure::Arithmetic);
            }
            (left, right) => (float(left), float(right)),
        };
        finite(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => return Err(EvalFailure::TypeMismatch),
        })
    }
}

impl Function {
    pub(super) fn of(self, value: Seen<'_>) -> Result<Seen<'_>, EvalFailure> {
        Ok(match self {
            Self::Size => Seen::Number(Number::Uint(size(&value)?)),
            Self::LowerAscii => Seen::Plain(changed(value.text()?, u8::is_ascii_uppercase, str::to_ascii_lowercase)),
            Self::UpperAscii => Seen::Plain(changed(value.text()?, u8::is_ascii_lowercase, str::to_ascii_uppercase)),
            Self::Trim => Seen::Plain(match value.text()? {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            }),
            Self::String => Seen::Plain(string(value)?),
            Self::Int => Seen::Number(integer(value)?),
            Self::Double => Seen::Number(double(value)?),
            Self::Negate => Seen::Number(negative(value.number()?)?),
        })
    }
}

fn changed(text: Cow<'_, str>, is_other: impl Fn(&u8) -> bool, change: impl Fn(&str) -> String) -> Cow<'_, str> {
    if text.as_bytes().iter().any(is_other) { Cow::Owned(change(&text)) } else { text }
}

fn size(value: &Seen<'_>) -> Result<u64, EvalFailure> {
    let size = match value {
        // A byte that goes on with a character (10xxxxxx) does not start one.
        Seen::Plain(_) | Seen::Text(_) => value.bytes()?.iter().filter(|byte| **byte & 0xc0 != 0x80).count(),
        Seen::Array(bytes) => {
            let mut count = 0;
            each_element(bytes, |_| {
                count += 1;
                true
            });
            count
        }
        Seen::Object(bytes) => {
            let mut keys = BTreeSet::new();
            each_member(bytes, |key, _, _| {
                keys.insert(Text::from_raw(key).unescape());
            });
            keys.len()
        }
        _ => return Err(EvalFailure::TypeMismatch),
    };
    Ok(size as u64)
}

fn string(value: Seen<'_>) -> Result<Cow<'_, str>, EvalFailure> {
    Ok(match value {
        Seen::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Seen::Number(Number::Int(int)) => Cow::Owned(int.to_string()),
        Seen::Number(Number::Uint(uint)) => Cow::Owned(uint.to_string()),
        Seen::Number(Number::Float(float)) if !float.is_finite() => return Err(EvalFailure::Arithmetic),
        // Whole ones without a fraction, as CEL writes them.
        Seen::Number(Number::Float(float)) if float.abs() < 1e15 => Cow::Owned(float.to_string()),
        Seen::Number(Number::Float(float)) => Cow::Owned(format!("{float:?}")),
        other => other.text()?,
    })
}

fn integer(value: Seen<'_>) -> Result<Number, EvalFailure> {
    match value {
        Seen::Number(number) => match number.integer() {
            Ok(_) => Ok(number),
            // A cast of what is no integer saturates beyond 64 bits, and of what is no number is zero.
            Err(float) if float.is_finite() => Number::from_integer(float as i128).ok_or(EvalFailure::Arithmetic),
            Err(_) => Err(EvalFailure::Arithmetic),
        },
        other => {
            let text = other.text()?;
            let parsed = text.parse::<i64>().map(Number::Int).or_else(|_| text.parse::<u64>().map(Number::Uint));
            parsed.map_err(|_| EvalFailure::TypeMismatch)
        }
    }
}

fn double(value: Seen<'_>) -> Result<Number, EvalFailure> {
    match value {
        Seen::Number(number) => finite(float(number.integer())),
        other => finite(other.text()?.parse().map_err(|_| EvalFailure::TypeMismatch)?),
    }
}

fn negative(number: Number) -> Result<Number, EvalFailure> {
    match number.integer() {
        Ok(integer) => Number::from_integer(-integer).ok_or(EvalFailure::Arithmetic),
        Err(float) => finite(-float),
    }
}

fn float(number: Result<i128, f64>) -> f64 {
    number.map_or_else(|float| float, |integer| integer as f64)
}

fn finite(float: f64) -> Result<Number, EvalFailure> {
    if float.is_finite() { Ok(Number::Float(float)) } else { Err(EvalFailure::Arithmetic) }
}
