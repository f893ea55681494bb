//! Conditions against a plain reference: the same meaning written down over trees of values, on generated conditions
//! and generated events (escapes in keys and strings, duplicate keys, absent fields, numbers at their edges).

#![expect(clippy::unwrap_used, reason = "a test, also outside its test functions")]

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use spillway_delivery::condition::{CHARACTERS_MAX, Condition, EvalFailure};
use spillway_delivery::event::{Origin, OriginBuilder};

/// A condition before it is text.
#[derive(Debug, Clone)]
enum Wanted {
    Bare(Vec<&'static str>),
    True(bool),
    Has(Vec<&'static str>),
    HasOrigin(&'static str),
    Not(Box<Wanted>),
    And(Vec<Wanted>),
    Or(Vec<Wanted>),
    Compare(Side, &'static str, Side),
    In(Side, Vec<Constant>),
    Search(Side, &'static str, String),
}

#[derive(Debug, Clone)]
enum Side {
    Constant(Constant),
    Event(Vec<&'static str>),
    Origin(&'static str),
}

#[derive(Debug, Clone)]
enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
}

/// Keys as they mean; how an event writes them is chosen in `written_key`.
const KEYS: [&str; 5] = ["a", "b", "x y", "é\"q", "level"];
/// Keys that `has` can select.
const SELECTABLE: [&str; 4] = ["a", "b", "x y", "level"];
const ORIGIN_FIELDS: [&str; 5] =
    ["origin.pod", "origin.node", "origin.owner.kind", "origin.labels[\"app\"]", "origin.labels[\"none\"]"];
const STRINGS: [&str; 9] = ["", "a", "ab", "b", "é", "\"", "line\nbreak", "warn", "𝄞\\"];
const INTS: [i64; 8] = [0, 1, -1, i64::MIN, i64::MAX, 1 << 53, (1 << 53) + 1, (1 << 53) - 1];
const UINTS: [u64; 4] = [0, 1, u64::MAX, 1 << 63];
const DOUBLES: [f64; 7] = [0.0, 1.0, 1.5, -1.5, 9_007_199_254_740_992.0, 9_223_372_036_854_775_808.0, 1e19];
const NUMBERS: [&str; 18] = [
    "0",
    "-0.0",
    "1",
    "1.0",
    "-1",
    "1.5",
    "15e-1",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "9007199254740992.0",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e400",
    "-1.5",
];

fn constant() -> impl Strategy<Value = Constant> {
    prop_oneof![
        1 => Just(Constant::Null),
        1 => any::<bool>().prop_map(Constant::Bool),
        3 => select(INTS.to_vec()).prop_map(Constant::Int),
        2 => select(UINTS.to_vec()).prop_map(Constant::Uint),
        2 => select(DOUBLES.to_vec()).prop_map(Constant::Double),
        5 => select(STRINGS.to_vec()).prop_map(|text| Constant::String(text.into())),
    ]
}

fn text_constant() -> impl Strategy<Value = Constant> {
    select(STRINGS.to_vec()).prop_map(|text| Constant::String(text.into()))
}

fn path() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(select(KEYS.to_vec()), 1..3)
}

fn event_side() -> impl Strategy<Value = Side> {
    path().prop_map(Side::Event)
}

fn origin_side() -> impl Strategy<Value = Side> {
    select(ORIGIN_FIELDS.to_vec()).prop_map(Side::Origin)
}

fn order() -> impl Strategy<Value = &'static str> {
    select(vec!["<", "<=", ">", ">="])
}

fn equality() -> impl Strategy<Value = &'static str> {
    select(vec!["==", "!="])
}

fn comparison() -> impl Strategy<Value = Wanted> {
    let constant_side = || constant().prop_map(Side::Constant);
    let ordered = constant().prop_filter("null has no order", |constant| !matches!(constant, Constant::Null));
    prop_oneof![
        (event_side(), equality(), constant_side()).prop_map(|(l, op, r)| Wanted::Compare(l, op, r)),
        (constant_side(), equality(), event_side()).prop_map(|(l, op, r)| Wanted::Compare(l, op, r)),
        (event_side(), order(), ordered.prop_map(Side::Constant)).prop_map(|(l, op, r)| Wanted::Compare(l, op, r)),
        (event_side(), prop_oneof![order(), equality()], event_side()).prop_map(|(l, op, r)| Wanted::Compare(l, op, r)),
        (
            origin_side(),
            prop_oneof![order(), equality()],
            prop_oneof![event_side(), origin_side(), text_constant().prop_map(Side::Constant)]
        )
            .prop_map(|(l, op, r)| Wanted::Compare(l, op, r)),
    ]
}

fn leaf() -> impl Strategy<Value = Wanted> {
    let function = select(vec!["startsWith", "endsWith", "contains"]);
    let selected = (prop::collection::vec(select(KEYS.to_vec()), 0..2), select(SELECTABLE.to_vec()));
    prop_oneof![
        6 => comparison(),
        1 => path().prop_map(Wanted::Bare),
        1 => any::<bool>().prop_map(Wanted::True),
        2 => selected.prop_map(|(mut keys, last)| { keys.push(last); Wanted::Has(keys) }),
        1 => select(vec!["origin.pod", "origin.node", "origin.labels.app", "origin.labels.none"]).prop_map(Wanted::HasOrigin),
        2 => (event_side(), prop::collection::vec(constant(), 1..4)).prop_map(|(side, list)| Wanted::In(side, list)),
        1 => (origin_side(), prop::collection::vec(text_constant(), 1..4)).prop_map(|(side, list)| Wanted::In(side, list)),
        2 => (prop_oneof![3 => event_side(), 1 => origin_side()], function, select(STRINGS.to_vec()))
            .prop_map(|(side, function, text)| Wanted::Search(side, function, text.into())),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Wanted::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Wanted::And),
            prop::collection::vec(inner, 2..4).prop_map(Wanted::Or),
        ]
    })
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(out, "\\{character}").unwrap(),
            '\n' => out.push_str("\\n"),
            '𝄞' => out.push_str("\\U0001d11e"),
            _ => out.push(character),
        }
    }
    out + "\""
}

fn written_path(keys: &[&str]) -> String {
    keys.iter().fold("event".to_owned(), |path, key| match *key {
        "a" | "b" | "level" => format!("{path}.{key}"),
        _ => format!("{path}[{}]", quoted(key)),
    })
}

impl Constant {
    fn written(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => format!("{value}u"),
            Self::Double(value) => format!("{value:?}"),
            Self::String(text) => quoted(text),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Uint(value) => (*value).into(),
            Self::Double(value) => (*value).into(),
            Self::String(text) => text.as_str().into(),
        }
    }
}

impl Side {
    fn written(&self) -> String {
        match self {
            Self::Constant(constant) => constant.written(),
            Self::Event(path) => written_path(path),
            Self::Origin(field) => (*field).into(),
        }
    }

    fn value(&self, event: &Value) -> Result<Value, EvalFailure> {
        match self {
            Self::Constant(constant) => Ok(constant.value()),
            Self::Event(path) => read(event, path).cloned(),
            Self::Origin(field) => origin_value(field).ok_or(EvalFailure::Absent).map(Value::from),
        }
    }
}

impl Wanted {
    fn written(&self) -> String {
        let all = |inner: &[Wanted], with: &str| {
            let parts: Vec<String> = inner.iter().map(|inner| format!("({})", inner.written())).collect();
            parts.join(with)
        };
        match self {
            Self::Bare(path) => written_path(path),
            Self::True(value) => value.to_string(),
            Self::Has(path) => {
                let (last, before) = path.split_last().unwrap();
                format!("has({}.{})", written_path(before), if *last == "x y" { "`x y`" } else { last })
            }
            Self::HasOrigin(field) => format!("has({field})"),
            Self::Not(inner) => format!("!({})", inner.written()),
            Self::And(inner) => all(inner, " && "),
            Self::Or(inner) => all(inner, "||"),
            Self::Compare(left, operator, right) => format!("{} {operator} {}", left.written(), right.written()),
            Self::In(side, list) => {
                let list: Vec<String> = list.iter().map(Constant::written).collect();
                format!("{} in [{}]", side.written(), list.join(", "))
            }
            Self::Search(side, function, text) => format!("{}.{function}({})", side.written(), quoted(text)),
        }
    }

    fn evaluate(&self, event: &Value) -> Result<bool, EvalFailure> {
        match self {
            Self::Bare(path) => read(event, path)?.as_bool().ok_or(EvalFailure::TypeMismatch),
            Self::True(value) => Ok(*value),
            Self::Has(path) => Ok(read(event, path).is_ok()),
            Self::HasOrigin(field) => Ok(origin_value(field).is_some()),
            Self::Not(inner) => inner.evaluate(event).map(|value| !value),
            Self::And(inner) => logic(inner, event, false),
            Self::Or(inner) => logic(inner, event, true),
            Self::Compare(left, operator, right) => compare(&left.value(event)?, operator, &right.value(event)?),
            Self::In(side, list) => {
                let value = side.value(event)?;
                Ok(list.iter().any(|constant| compare(&value, "==", &constant.value()) == Ok(true)))
            }
            Self::Search(side, function, text) => {
                let value = side.value(event)?;
                let value = value.as_str().ok_or(EvalFailure::TypeMismatch)?;
                Ok(match *function {
                    "startsWith" => value.starts_with(text),
                    "endsWith" => value.ends_with(text),
                    _ => value.contains(text),
                })
            }
        }
    }
}

fn logic(inner: &[Wanted], event: &Value, deciding: bool) -> Result<bool, EvalFailure> {
    let results: Vec<_> = inner.iter().map(|inner| inner.evaluate(event)).collect();
    if results.contains(&Ok(deciding)) {
        return Ok(deciding);
    }
    results.into_iter().find(Result::is_err).unwrap_or(Ok(!deciding))
}

fn read<'v>(event: &'v Value, path: &[&str]) -> Result<&'v Value, EvalFailure> {
    path.iter().try_fold(event, |value, key| {
        value.as_object().ok_or(EvalFailure::TypeMismatch)?.get(*key).ok_or(EvalFailure::Absent)
    })
}

fn compare(left: &Value, operator: &str, right: &Value) -> Result<bool, EvalFailure> {
    let ordering = match (left, right) {
        (Value::Number(left), Value::Number(right)) => Some(order_of(left, right)),
        (Value::String(left), Value::String(right)) => Some(left.chars().cmp(right.chars())),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Null, Value::Null) if matches!(operator, "==" | "!=") => Some(Ordering::Equal),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            return Err(EvalFailure::TypeMismatch);
        }
        _ => None,
    };
    match (operator, ordering) {
        ("==", ordering) => Ok(ordering == Some(Ordering::Equal)),
        ("!=", ordering) => Ok(ordering != Some(Ordering::Equal)),
        (_, None) => Err(EvalFailure::TypeMismatch),
        ("<", Some(ordering)) => Ok(ordering.is_lt()),
        ("<=", Some(ordering)) => Ok(ordering.is_le()),
        (">", Some(ordering)) => Ok(ordering.is_gt()),
        (_, Some(ordering)) => Ok(ordering.is_ge()),
    }
}

/// Rounding to `f64` keeps the order, so what differs there differs; what is equal there is whole, or both are floats.
fn order_of(left: &serde_json::Number, right: &serde_json::Number) -> Ordering {
    let (left_float, right_float) = (left.as_f64().unwrap(), right.as_f64().unwrap());
    left_float.partial_cmp(&right_float).unwrap().then_with(|| {
        let whole = |number: &serde_json::Number, float: f64| number.as_i128().unwrap_or(float as i128);
        whole(left, left_float).cmp(&whole(right, right_float))
    })
}

fn origin() -> Arc<Origin> {
    OriginBuilder {
        pod: Some("ab".into()),
        owner_kind: Some("warn".into()),
        labels: BTreeMap::from([("app".into(), "é".into())]),
        ..OriginBuilder::default()
    }
    .build()
}

fn origin_value(field: &str) -> Option<&'static str> {
    match field {
        "origin.pod" => Some("ab"),
        "origin.owner.kind" => Some("warn"),
        "origin.labels[\"app\"]" | "origin.labels.app" => Some("é"),
        _ => None,
    }
}

/// One of the ways to write a string in JSON.
fn written_string(text: &str, way: u8) -> String {
    let mut out = String::from("\"");
    for (index, character) in text.chars().enumerate() {
        let plain = !matches!(character, '"' | '\\' | '\n');
        match (way as usize + index) % 3 {
            0 | 1 if plain => out.push(character),
            0 if character == '\n' => out.push_str("\\n"),
            0 => write!(out, "\\{character}").unwrap(),
            _ => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| write!(out, "\\u{unit:04x}").unwrap()),
        }
    }
    out + "\""
}

fn event_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => select(NUMBERS.to_vec()).prop_map(str::to_owned),
        4 => (select(STRINGS.to_vec()), 0..3_u8).prop_map(|(text, way)| written_string(text, way)),
        2 => select(vec!["null", "true", "false", "[]", "[1, \"}\"]", "{}"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| event_of(inner).boxed())
}

fn event_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let space = select(vec!["", "", " "]);
    let member = (select(KEYS.to_vec()), 0..3_u8, space, value).prop_map(|(key, way, space, value)| {
        format!("{space}{}{space}:{space}{value}{space}", written_string(key, way))
    });
    prop::collection::vec(member, 0..7).prop_map(|members| format!("{{{}}}", members.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_global_rejects: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn a_condition_means_what_the_reference_says(
        wanted in wanted(),
        events in prop::collection::vec(event_of(event_value()), 1..8),
    ) {
        let text = wanted.written();
        prop_assume!(text.chars().count() <= CHARACTERS_MAX);
        let condition = Condition::compile(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let origin = origin();
        for event in events {
            // The tree cannot hold numbers beyond `f64`; any other that is greater than all constants stands for them.
            let tree: Value = serde_json::from_str(&event.replace("1e400", "1e300")).unwrap();
            prop_assert_eq!(condition.eval(event.as_bytes(), &origin), wanted.evaluate(&tree), "{} on {}", text, event);
        }
    }
}
