//! By what events are told apart: values by their meaning, as one number.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::condition::Expression;
use crate::json::{Found, Number, Paths, Value};
use crate::transform::edit::Subject;
use crate::transform::{Failure, FieldPath};

/// So that nobody outside can make two keys that are one here.
static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// What makes the key of an event.
#[derive(Debug)]
pub(super) struct Key {
    expression: Option<Expression>,
    /// Fields, and the slot of each.
    fields: Option<(Paths, Vec<usize>)>,
}

/// Memory of a `Key`, used for one event after the other.
#[derive(Debug, Default)]
pub(super) struct KeyScratch {
    /// What the expression says, as JSON.
    value: Vec<u8>,
    found: Vec<Found>,
    /// The values of the key, each with its kind and its length before it.
    values: Vec<u8>,
}

impl Key {
    pub(super) fn new(expression: Option<Expression>, fields: &[FieldPath]) -> Self {
        let fields = (!fields.is_empty()).then(|| {
            let paths = Paths::new(fields.iter().map(FieldPath::keys));
            let slots = fields.iter().filter_map(|field| paths.slot(field.keys())).collect();
            (paths, slots)
        });
        Self { expression, fields }
    }

    /// Returns the key of an event, `None` where all have the same. Of several fields some may be absent; that none is there is a
    /// failure.
    pub(super) fn read(&self, subject: Subject<'_>, scratch: &mut KeyScratch) -> Result<Option<u128>, Failure> {
        if self.expression.is_none() && self.fields.is_none() {
            return Ok(None);
        }
        let KeyScratch { value, found, values } = scratch;
        values.clear();
        if let Some(expression) = &self.expression {
            value.clear();
            expression.write(subject.event, subject.origin, value)?;
            push(values, value);
        }
        if let Some((paths, slots)) = &self.fields {
            found.resize(paths.slots(), Found::Absent);
            paths.find(subject.event, found);
            for slot in slots {
                match found[*slot].of(subject.event) {
                    Some(value) => push(values, value),
                    None => values.push(ABSENT),
                }
            }
            let is_there = |slot: &usize| matches!(found[*slot], Found::At { .. });
            if !slots.iter().any(is_there) {
                let is_blocked = slots.iter().any(|slot| found[*slot] == Found::Blocked);
                return Err(if is_blocked { Failure::TypeMismatch } else { Failure::Absent });
            }
        }
        Ok(Some(xxh3_128_with_seed(values, *SEED)))
    }
}

/// Returns where below `out_of` the key that was read last stands: the same in every process.
pub(super) fn sample_point(scratch: &KeyScratch, out_of: u32) -> u32 {
    ((u128::from(xxh3_64(&scratch.values)) * u128::from(out_of)) >> 64) as u32
}

const ABSENT: u8 = 0;
const INTEGER: u8 = 1;
const TEXT: u8 = 2;
const WRITTEN: u8 = 3;

/// Appends a value so that two are the same bytes when they mean the same: texts without their escapes, integers of 64 bits by
/// value, all others as they are written.
fn push(values: &mut Vec<u8>, value: &[u8]) {
    let mut framed = |kind: u8, bytes: &[u8]| {
        values.push(kind);
        values.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        values.extend_from_slice(bytes);
    };
    match Value::read(value) {
        Value::String(text) => framed(TEXT, &text.unescape()),
        Value::Number(Number::Int(integer)) => framed(INTEGER, &i128::from(integer).to_le_bytes()),
        Value::Number(Number::Uint(integer)) => framed(INTEGER, &i128::from(integer).to_le_bytes()),
        _ => framed(WRITTEN, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(value: &str) -> Vec<u8> {
        let mut values = Vec::new();
        push(&mut values, value.as_bytes());
        values
    }

    #[test]
    fn values_are_the_same_when_they_mean_the_same() {
        for (one, other, same) in [
            (r#""a\u0062""#, r#""ab""#, true),
            ("12", "\"12\"", false),
            ("-0", "0", true),
            ("1", "1.0", false),
            ("18446744073709551615", "18446744073709551615", true),
            ("18446744073709551616", "18446744073709551617", false),
            ("null", "\"null\"", false),
            ("[1]", "[1]", true),
            ("[1]", "[1 ]", false),
            ("true", "false", false),
        ] {
            assert_eq!(values(one) == values(other), same, "{one} and {other}");
        }
    }

    #[test]
    fn no_two_lists_of_values_are_the_same_bytes() {
        let joined = |list: &[&str]| list.iter().flat_map(|value| values(value)).collect::<Vec<u8>>();
        assert_ne!(joined(&["\"a\"", "\"b\""]), joined(&["\"ab\"", "\"\""]));
        assert_ne!(joined(&["\"\""]), joined(&["\"\"", "\"\""]));
    }
}
