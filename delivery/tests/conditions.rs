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
    SearchFor(Side, &'static str, Side),
    Choice(Box<[Wanted; 3]>),
    Within(Side, Vec<&'static str>),
    /// For how many elements of a list a comparison with a constant holds.
    Each(Vec<&'static str>, &'static str, &'static str, Constant),
}

#[derive(Debug, Clone)]
enum Side {
    Constant(Constant),
    Event(Vec<&'static str>),
    Origin(&'static str),
    Operate(Box<Side>, &'static str, Box<Side>),
    OrValue(Vec<&'static str>, Constant),
    Size(Vec<&'static str>),
    Element(Vec<&'static str>, usize),
    /// A function of a field's text.
    Text(Vec<&'static str>, &'static str),
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

fn number() -> impl Strategy<Value = Constant> {
    prop_oneof![
        3 => select(INTS.to_vec()).prop_map(Constant::Int),
        1 => select(UINTS.to_vec()).prop_map(Constant::Uint),
        2 => select(DOUBLES.to_vec()).prop_map(Constant::Double),
    ]
}

/// What is made of fields and numbers, and is a number or nothing.
fn made_number() -> impl Strategy<Value = Side> {
    let operator = select(vec!["-", "*", "/", "%", "+"]);
    let side = || prop_oneof![2 => event_side(), 1 => number().prop_map(Side::Constant)];
    // One of two is a number, so that the result is known to be one.
    let operation = (side(), operator, number(), any::<bool>()).prop_map(|(side, operator, number, turned)| {
        let (side, number) = (Box::new(side), Box::new(Side::Constant(number)));
        if turned { Side::Operate(number, operator, side) } else { Side::Operate(side, operator, number) }
    });
    prop_oneof![4 => operation, 1 => path().prop_map(Side::Size)]
}

/// What is read from the event in another way than by its path alone.
fn read_otherwise() -> impl Strategy<Value = Side> {
    let text = select(vec!["lowerAscii", "upperAscii", "trim"]);
    let joined = (event_side(), event_side()).prop_map(|(left, right)| Side::Operate(left.into(), "+", right.into()));
    prop_oneof![
        3 => (path(), constant()).prop_map(|(path, constant)| Side::OrValue(path, constant)),
        2 => (path(), 0..3_usize).prop_map(|(path, index)| Side::Element(path, index)),
        1 => joined,
        1 => (path(), text).prop_map(|(path, function)| Side::Text(path, function)),
    ]
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
        (made_number(), prop_oneof![order(), equality()], prop_oneof![event_side(), number().prop_map(Side::Constant)])
            .prop_map(|(l, op, r)| Wanted::Compare(l, op, r)),
        (read_otherwise(), equality(), prop_oneof![event_side(), text_constant().prop_map(Side::Constant)])
            .prop_map(|(l, op, r)| Wanted::Compare(l, op, r)),
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
        1 => (event_side(), select(vec!["startsWith", "endsWith", "contains"]), event_side())
            .prop_map(|(side, function, wanted)| Wanted::SearchFor(side, function, wanted)),
        2 => (prop_oneof![event_side(), constant().prop_map(Side::Constant)], path())
            .prop_map(|(side, path)| Wanted::Within(side, path)),
        2 => (path(), select(vec!["all", "exists", "exists_one"]), equality(), constant())
            .prop_map(|(path, quantity, operator, constant)| Wanted::Each(path, quantity, operator, constant)),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Wanted::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Wanted::And),
            [inner.clone(), inner.clone(), inner.clone()].prop_map(|parts| Wanted::Choice(Box::new(parts))),
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
            Self::Operate(left, operator, right) => format!("({} {operator} {})", left.written(), right.written()),
            Self::OrValue(path, constant) => {
                let (last, before) = path.split_last().unwrap();
                let before = if before.is_empty() { "event".into() } else { written_path(before) };
                format!("{before}[?{}].orValue({})", quoted(last), constant.written())
            }
            Self::Size(path) => format!("size({})", written_path(path)),
            Self::Element(path, index) => format!("{}[{index}]", written_path(path)),
            Self::Text(path, function) => format!("{}.{function}()", written_path(path)),
        }
    }

    fn value(&self, event: &Value) -> Result<Value, EvalFailure> {
        let read_text = |path: &[&str]| read(event, path)?.as_str().ok_or(EvalFailure::TypeMismatch);
        match self {
            Self::Constant(constant) => Ok(constant.value()),
            Self::Event(path) => read(event, path).cloned(),
            Self::Origin(field) => origin_value(field).ok_or(EvalFailure::Absent).map(Value::from),
            Self::Operate(left, operator, right) => operate(&left.value(event)?, operator, &right.value(event)?),
            Self::OrValue(path, constant) => Ok(read(event, path).cloned().unwrap_or_else(|_| constant.value())),
            Self::Size(path) => match read(event, path)? {
                Value::String(text) => Ok(text.chars().count().into()),
                Value::Array(list) => Ok(list.len().into()),
                Value::Object(object) => Ok(object.len().into()),
                _ => Err(EvalFailure::TypeMismatch),
            },
            Self::Element(path, index) => {
                let list = read(event, path)?.as_array().ok_or(EvalFailure::TypeMismatch)?;
                list.get(*index).cloned().ok_or(EvalFailure::Absent)
            }
            Self::Text(path, "lowerAscii") => Ok(read_text(path)?.to_ascii_lowercase().into()),
            Self::Text(path, "upperAscii") => Ok(read_text(path)?.to_ascii_uppercase().into()),
            Self::Text(path, _) => Ok(read_text(path)?.trim().into()),
        }
    }
}

/// `left operator right` by its meaning: exact between integers, floats otherwise.
fn operate(left: &Value, operator: &str, right: &Value) -> Result<Value, EvalFailure> {
    if let (Value::String(left), Value::String(right), "+") = (left, right, operator) {
        return Ok(format!("{left}{right}").into());
    }
    let (Value::Number(left), Value::Number(right)) = (left, right) else { return Err(EvalFailure::TypeMismatch) };
    if let (Some(left), Some(right)) = (left.as_i128(), right.as_i128()) {
        let exact = match operator {
            "+" => left + right,
            "-" => left - right,
            "*" => left.checked_mul(right).ok_or(EvalFailure::Arithmetic)?,
            _ if right == 0 => return Err(EvalFailure::Arithmetic),
            "/" => left / right,
            _ => left % right,
        };
        let int = i64::try_from(exact).map(Value::from).ok();
        return int.or_else(|| u64::try_from(exact).map(Value::from).ok()).ok_or(EvalFailure::Arithmetic);
    }
    // What stands for a number beyond `f64` in the tree is infinite.
    let float = |number: &serde_json::Number| {
        let float = number.as_f64().unwrap();
        if float >= 1e300 { f64::INFINITY } else { float }
    };
    let (left, right) = (float(left), float(right));
    let result = match operator {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        "/" => left / right,
        _ => return Err(EvalFailure::TypeMismatch),
    };
    if result.is_finite() { Ok(result.into()) } else { Err(EvalFailure::Arithmetic) }
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
            Self::SearchFor(side, function, wanted) => format!("{}.{function}({})", side.written(), wanted.written()),
            Self::Choice(parts) => {
                let [condition, yes, no] = &**parts;
                format!("(({}) ? ({}) : ({}))", condition.written(), yes.written(), no.written())
            }
            Self::Within(side, path) => format!("{} in {}", side.written(), written_path(path)),
            Self::Each(path, quantity, operator, constant) => {
                format!("{}.{quantity}(x, x {operator} {})", written_path(path), constant.written())
            }
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
                Ok(search(value, function, text))
            }
            Self::SearchFor(side, function, wanted) => {
                let (value, wanted) = (side.value(event)?, wanted.value(event)?);
                let (Some(value), Some(wanted)) = (value.as_str(), wanted.as_str()) else {
                    return Err(EvalFailure::TypeMismatch);
                };
                Ok(search(value, function, wanted))
            }
            Self::Choice(parts) => {
                let [condition, yes, no] = &**parts;
                if condition.evaluate(event)? { yes.evaluate(event) } else { no.evaluate(event) }
            }
            Self::Within(side, path) => {
                let value = side.value(event)?;
                match read(event, path)? {
                    Value::Array(list) => {
                        let results: Vec<_> = list.iter().map(|element| compare(&value, "==", element)).collect();
                        let failure = results.iter().find_map(|result| result.err());
                        if results.contains(&Ok(true)) { Ok(true) } else { failure.map_or(Ok(false), Err) }
                    }
                    Value::Object(object) => Ok(object.contains_key(value.as_str().ok_or(EvalFailure::TypeMismatch)?)),
                    _ => Err(EvalFailure::TypeMismatch),
                }
            }
            Self::Each(path, quantity, operator, constant) => {
                let list = read(event, path)?.as_array().ok_or(EvalFailure::TypeMismatch)?;
                let results: Vec<_> =
                    list.iter().map(|element| compare(element, operator, &constant.value())).collect();
                let failure = results.iter().find_map(|result| result.err());
                match *quantity {
                    "all" if results.contains(&Ok(false)) => Ok(false),
                    "exists" if results.contains(&Ok(true)) => Ok(true),
                    _ if let Some(failure) = failure => Err(failure),
                    "exists_one" => Ok(results.iter().filter(|result| **result == Ok(true)).count() == 1),
                    quantity => Ok(quantity == "all"),
                }
            }
        }
    }
}

fn search(value: &str, function: &str, text: &str) -> bool {
    match function {
        "startsWith" => value.starts_with(text),
        "endsWith" => value.ends_with(text),
        _ => value.contains(text),
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
        2 => select(vec!["null", "true", "false", "[]", "[1, \"}\"]", "[ \"\\u0061\",1.0 ,{}, null,[2]]", "{}"]).prop_map(str::to_owned),
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
