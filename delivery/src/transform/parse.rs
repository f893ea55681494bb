//! What text says, as fields: settings of the transforms that parse, and what they read of one value.

use super::severity::{SeverityNumbers, severity};
use super::timestamp::TimeFormat;
use super::{Failure, FieldPath};
use crate::clock::{UnixNanos, write_rfc3339};
use crate::json::{Value, split_values, write_string};
use crate::pattern::Pattern;

/// Most bytes of a text that is looked at for a pattern: what is longer is no line that somebody wrote a pattern for, and would
/// keep a thread for seconds with a pattern that is made to.
pub const PATTERN_TEXT_BYTES_MAX: usize = 64 << 10;

/// What becomes of an event that cannot be parsed. It is counted in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// It goes on as it is.
    #[default]
    Keep,
    /// It is dropped.
    Drop,
}

/// Reads a text that is JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseJson {
    /// The text. It goes where it could be read.
    pub field: FieldPath,
    /// Which field the value becomes. Without one it is an object, and its members become those of the event.
    pub into: Option<FieldPath>,
    /// What becomes of an event where that cannot be.
    pub on_error: OnError,
}

/// Looks for a pattern in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseRegex {
    /// The text. It stays.
    pub field: FieldPath,
    /// What is looked for.
    pub pattern: Pattern,
    /// By named group, which field its text becomes.
    pub fields: Vec<FieldPath>,
    /// What becomes of an event where it is not found.
    pub on_error: OnError,
}

/// Reads a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseTimestamp {
    /// A text or a number. It stays, unless `into` is the same field.
    pub field: FieldPath,
    /// Which field it becomes, in RFC 3339 and UTC.
    pub into: FieldPath,
    /// How it is written.
    pub format: TimeFormat,
    /// What becomes of an event where it cannot be read.
    pub on_error: OnError,
}

/// Reads a severity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSeverity {
    /// A text or a number. It stays, unless `into` is the same field.
    pub field: FieldPath,
    /// Which field it becomes: one of `trace`, `debug`, `info`, `warn`, `error`, `fatal`.
    pub into: FieldPath,
    /// What numbers mean; without it they mean nothing.
    pub numbers: Option<SeverityNumbers>,
    /// What becomes of an event where it cannot be read.
    pub on_error: OnError,
}

/// How the value of a field is read.
#[derive(Debug, Clone)]
pub(super) enum Parser {
    Json,
    Regex(Pattern),
    Timestamp(TimeFormat),
    Severity(Option<SeverityNumbers>),
}

impl Parser {
    /// Appends to `out` what a value says, as JSON, and to `places`, which is empty, where each field of it stands there; `None`
    /// is one that it does not tell.
    pub(super) fn read(
        &self,
        value: &[u8],
        received: UnixNanos,
        out: &mut Vec<u8>,
        places: &mut Vec<Option<(usize, usize)>>,
    ) -> Result<(), Failure> {
        let start = out.len();
        match self {
            Self::Json => read_json(Value::read(value), out)?,
            Self::Regex(pattern) => return read_pattern(pattern, Value::read(value), out, places),
            Self::Severity(numbers) => write_string(out, severity(Value::read(value), *numbers)?),
            Self::Timestamp(format) => {
                let nanos = read_time(format, value, received)?;
                out.push(b'"');
                write_rfc3339(out, nanos);
                out.push(b'"');
            }
        }
        places.push(Some((start, out.len())));
        Ok(())
    }
}

fn read_json(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    let Value::String(text) = value else { return Err(Failure::TypeMismatch) };
    let text = text.unescape();
    // Any value is the one element of an array.
    let mut array = Vec::with_capacity(text.len() + 2);
    array.push(b'[');
    array.extend_from_slice(&text);
    array.push(b']');
    let mut elements = split_values(&array);
    let (Some(Ok(element)), None) = (elements.next(), elements.next()) else { return Err(Failure::Unparsed) };
    // A line break stands between tokens only.
    let on_one_line = array[element.span].iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte });
    out.extend(on_one_line);
    Ok(())
}

fn read_time(format: &TimeFormat, value: &[u8], received: UnixNanos) -> Result<UnixNanos, Failure> {
    let text = match (Value::read(value), value) {
        (Value::String(text), _) => text.unescape(),
        (Value::Number(_), number) => number.into(),
        _ => return Err(Failure::TypeMismatch),
    };
    let text = std::str::from_utf8(&text).map_err(|_| Failure::Unparsed)?;
    format.read(text, received).ok_or(Failure::Unparsed)
}

fn read_pattern(
    pattern: &Pattern,
    value: Value<'_>,
    out: &mut Vec<u8>,
    places: &mut Vec<Option<(usize, usize)>>,
) -> Result<(), Failure> {
    let Value::String(text) = value else { return Err(Failure::TypeMismatch) };
    let text = text.unescape();
    if text.len() > PATTERN_TEXT_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    if !pattern.find(&text, places) {
        return Err(Failure::Unparsed);
    }
    for place in places.iter_mut() {
        let Some((start, end)) = *place else { continue };
        let start_out = out.len();
        write_string(out, &String::from_utf8_lossy(&text[start..end]));
        *place = Some((start_out, out.len()));
    }
    Ok(())
}
