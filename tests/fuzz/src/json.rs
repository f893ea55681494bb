//! The strict check, the walk and the normal form of JSON, beside `serde_json`.

use serde::de::IgnoredAny;
use serde_json::Value;
use spillway_delivery::event::RESERVED_MEMBER;
use spillway_delivery::json::{DEPTH_MAX, Found, Paths, normalize_into, validate_object};

/// Paths that are looked for, their keys likely in what is generated.
const PATHS: [&[&str]; 5] = [&["a"], &["b"], &["a", "b"], &["a", "a", "c"], &["é"]];

/// What `serde_json` says of bytes.
enum Theirs {
    /// A value.
    Value(Value),
    /// It is JSON, with a number that has no place in an `f64`.
    Beyond,
    /// It is nested as deep as theirs goes, and ours may go a level deeper.
    Deep,
    /// It is not JSON.
    Not,
}

fn read(bytes: &[u8]) -> Theirs {
    match serde_json::from_slice(bytes) {
        Ok(value) => Theirs::Value(value),
        Err(error) if error.to_string().starts_with("recursion limit") => Theirs::Deep,
        Err(error) if error.to_string().starts_with("number out of range") => {
            if serde_json::from_slice::<IgnoredAny>(bytes).is_ok() { Theirs::Beyond } else { Theirs::Not }
        }
        Err(_) => Theirs::Not,
    }
}

/// See the table of [the crate](crate).
///
/// # Panics
/// Where it does not hold.
pub fn check(bytes: &[u8]) {
    let paths = Paths::new(PATHS);
    let mut found = vec![Found::Absent; paths.slots()];
    // Whatever it is, this does no harm.
    paths.find(bytes, &mut found);
    assert!(found.iter().all(|found| found.of(bytes).is_none_or(|value| value.len() <= bytes.len())));
    let ours = validate_object(bytes);
    let value = match read(bytes) {
        Theirs::Value(value) => value,
        Theirs::Beyond | Theirs::Deep => return,
        Theirs::Not => {
            assert!(ours.is_err(), "no JSON, and taken: {}", bytes.escape_ascii());
            return;
        }
    };
    assert_eq!(ours.is_ok(), value.is_object(), "{}: {ours:?}", bytes.escape_ascii());
    let Ok(info) = ours else { return };
    assert!(depth(&value) <= DEPTH_MAX as usize);
    let object = &bytes[info.start..info.end];
    paths.find(object, &mut found);
    for path in PATHS {
        let theirs = path.iter().try_fold(&value, |value, key| value.as_object()?.get(*key));
        let ours = paths.slot(path).and_then(|slot| found[slot].of(object));
        let ours = ours.map(|bytes| serde_json::from_slice::<Value>(bytes).expect("a value is JSON"));
        assert_eq!(ours.as_ref(), theirs, "{path:?} of {}", object.escape_ascii());
    }
    let mut normal = Vec::new();
    normalize_into(object, &mut normal);
    let info = validate_object(&normal).expect("the normal form is an object");
    assert!(info.is_plain(), "{}", normal.escape_ascii());
    let mut expected = value;
    expected.as_object_mut().expect("it is an object").remove(RESERVED_MEMBER);
    let normal: Value = serde_json::from_slice(&normal).expect("the normal form is JSON");
    assert_eq!(normal, expected);
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
