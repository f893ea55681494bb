//! Transforms against a plain reference: the same meaning written down over trees that `serde_json` reads, on generated
//! transforms and generated events (escapes in keys and strings, duplicate keys, absent fields, numbers at their edges, white
//! space, deep nesting).

#![expect(clippy::unwrap_used, reason = "a test, also outside its test functions")]

mod gates;
mod redact;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::value::RawValue;
use spillway_delivery::condition::{Condition, Expression};
use spillway_delivery::event::{BATCH_BYTES_MAX, Batch, BatchBuilder, EVENT_BYTES_MAX, Origin, OriginBuilder};
use spillway_delivery::json::{DEPTH_MAX, normalize_into, validate_object};
use spillway_delivery::pattern::Pattern;
use spillway_delivery::transform::{
    Action, Chain, Counts, Failure, FieldPath, Finders, OnError, PATTERN_TEXT_BYTES_MAX, ParseJson, ParseRegex,
    ParseSeverity, ParseTimestamp, RenameField, SetField, SetValue, SeverityNumbers, Shaped, TimeForm, TimeFormat,
    Transform,
};

// ── The reference ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// A value of an event by its meaning: of duplicate keys the last one, strings without their escapes; numbers and words as
/// they are written.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Object(BTreeMap<String, Tree>),
    Array(Vec<Tree>),
    Text(String),
    Other(String),
}

impl Tree {
    fn read(json: &str) -> Self {
        match json.trim_start().as_bytes().first() {
            Some(b'{') => {
                let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(json).unwrap();
                Self::Object(members.into_iter().map(|(key, value)| (key, Self::read(value.get()))).collect())
            }
            Some(b'[') => {
                let elements: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
                Self::Array(elements.iter().map(|element| Self::read(element.get())).collect())
            }
            Some(b'"') => Self::Text(serde_json::from_str(json).unwrap()),
            _ => Self::Other(json.trim().to_owned()),
        }
    }

    fn get(&self, path: &[String]) -> Result<&Self, Failure> {
        path.iter().try_fold(self, |tree, key| match tree {
            Self::Object(members) => members.get(key).ok_or(Failure::Absent),
            _ => Err(Failure::TypeMismatch),
        })
    }

    fn take(&mut self, path: &[String]) -> Option<Self> {
        let Self::Object(members) = self else { return None };
        match path {
            [last] => members.remove(last),
            [first, rest @ ..] => members.get_mut(first)?.take(rest),
            [] => None,
        }
    }

    fn set(&mut self, path: &[String], value: Self) -> Result<(), Failure> {
        let Self::Object(members) = self else { return Err(Failure::TypeMismatch) };
        match path {
            [last] => drop(members.insert(last.clone(), value)),
            [first, rest @ ..] => {
                let fresh = || Self::Object(BTreeMap::new());
                members.entry(first.clone()).or_insert_with(fresh).set(rest, value)?;
            }
            [] => {}
        }
        Ok(())
    }
}

fn origin() -> Arc<Origin> {
    OriginBuilder { pod: Some("etcher-0".into()), ..OriginBuilder::default() }.build()
}

/// A transform before it is one.
#[derive(Debug, Clone)]
enum Wanted {
    Set(Vec<(Vec<String>, Value)>),
    Remove(Vec<Vec<String>>),
    Rename(Vec<(Vec<String>, Vec<String>)>),
    Keep(Vec<Vec<String>>),
    DropWhereText(Vec<String>, &'static str),
    DropWhere(Vec<String>),
    Parse(Parsed, Vec<Vec<String>>, OnError),
    Redact(Vec<redact::Found>, Vec<Vec<String>>),
}

/// What is parsed; the first path is that of the source.
#[derive(Debug, Clone, Copy)]
enum Parsed {
    /// Members of the event.
    Lifted,
    /// The value of the second path, or of the first.
    Json,
    /// `a-b` into the second and the third path, the latter where it is there.
    Pair,
    /// Seconds.
    Time,
    Severity,
}

/// What a field is set to.
#[derive(Debug, Clone)]
enum Value {
    Text(&'static str),
    Copy(Vec<String>),
    IsOne(Vec<String>),
    Pod,
    Node,
}

impl Value {
    fn tree(&self, event: &Tree) -> Result<Tree, Failure> {
        match self {
            Self::Text(text) => Ok(Tree::Text((*text).into())),
            Self::Copy(path) => event.get(path).cloned(),
            Self::IsOne(path) => Ok(Tree::Other((event.get(path)? == &Tree::Text("one".into())).to_string())),
            Self::Pod => Ok(Tree::Text("etcher-0".into())),
            Self::Node => Err(Failure::Absent),
        }
    }

    fn compiled(&self) -> SetValue {
        let expression = match self {
            Self::Text(text) => return SetValue::Text((*text).into()),
            Self::Copy(path) => written(path),
            Self::IsOne(path) => format!("{} == \"one\"", written(path)),
            Self::Pod => "origin.pod".into(),
            Self::Node => "origin.node".into(),
        };
        SetValue::Expression(Expression::compile(&expression).unwrap())
    }
}

/// Writes a path as an expression does.
fn written(path: &[String]) -> String {
    path.iter().fold("event".to_owned(), |text, key| {
        text + &format!("[\"{}\"]", key.replace('\\', r"\\").replace('"', "\\\"").replace('\n', "\\n"))
    })
}

/// Writes a path as a manifest does.
fn field(path: &[String]) -> FieldPath {
    let text = path
        .iter()
        .fold(String::new(), |text, key| text + &format!("[\"{}\"]", key.replace('\\', r"\\").replace('"', "\\\"")));
    FieldPath::parse(&text).unwrap()
}

impl Wanted {
    fn action(&self) -> Action {
        match self {
            Self::Set(fields) => {
                let of = |(path, value): &(Vec<String>, Value)| SetField { path: field(path), value: value.compiled() };
                Action::Set(fields.iter().map(of).collect())
            }
            Self::Remove(paths) => Action::Remove(paths.iter().map(|path| field(path)).collect()),
            Self::Rename(fields) => {
                let of = |(from, to): &(Vec<String>, Vec<String>)| RenameField { from: field(from), to: field(to) };
                Action::Rename(fields.iter().map(of).collect())
            }
            Self::Keep(paths) => Action::Keep(paths.iter().map(|path| field(path)).collect()),
            Self::DropWhereText(path, text) => {
                Action::Drop(Condition::compile(&format!("{} == \"{text}\"", written(path))).unwrap())
            }
            Self::DropWhere(path) => Action::Drop(Condition::compile(&written(path)).unwrap()),
            Self::Parse(parsed, paths, on_error) => parsed.action(paths.iter().map(|path| field(path)), *on_error),
            Self::Redact(patterns, paths) => {
                let texts: Vec<&str> = patterns.iter().map(|found| found.pattern()).collect();
                redact::action(Finders::compile(&[], &texts).unwrap(), paths.iter().map(|path| field(path)).collect())
            }
        }
    }

    /// Returns what is left, and why not all could be done.
    fn apply(&self, event: &Tree) -> (Option<Tree>, Option<Failure>) {
        let mut failure = None;
        let mut note = |result: Result<(), Failure>| failure = failure.or(result.err());
        let mut after = event.clone();
        match self {
            Self::Set(fields) => fields.iter().for_each(|(path, value)| {
                note(value.tree(event).and_then(|value| try_set(&mut after, path, value)));
            }),
            Self::Remove(paths) => paths.iter().for_each(|path| drop(after.take(path))),
            Self::Rename(fields) => fields.iter().for_each(|(from, to)| {
                let before = after.clone();
                if let Some(value) = after.take(from)
                    && let Err(why) = try_set(&mut after, to, value)
                {
                    note(Err(why));
                    after = before;
                }
            }),
            Self::Redact(patterns, paths) => redact::apply(patterns, paths, &mut after),
            Self::Keep(paths) => {
                after = Tree::Object(BTreeMap::new());
                for path in paths {
                    if let Ok(value) = event.get(path) {
                        after.set(path, value.clone()).unwrap();
                    }
                }
            }
            Self::DropWhereText(path, text) => match event.get(path) {
                Ok(Tree::Text(found)) if found == text => return (None, None),
                Ok(_) => {}
                Err(why) => note(Err(why)),
            },
            Self::DropWhere(path) => match event.get(path) {
                Ok(Tree::Other(word)) if word == "true" => return (None, None),
                Ok(Tree::Other(word)) if word == "false" => {}
                Ok(_) => note(Err(Failure::TypeMismatch)),
                Err(why) => note(Err(why)),
            },
            Self::Parse(parsed, paths, on_error) => {
                match event.get(&paths[0]).and_then(|value| parsed.read(value)) {
                    Ok(values) => parsed.place(&mut after, paths, values, &mut note),
                    Err(why) => note(Err(why)),
                }
                if failure.is_some() && *on_error == OnError::Drop {
                    return (None, failure);
                }
            }
        }
        (Some(after), failure)
    }
}

impl Parsed {
    fn action(self, mut paths: impl Iterator<Item = FieldPath>, on_error: OnError) -> Action {
        let field = paths.next().unwrap();
        let mut target = || paths.next().unwrap_or_else(|| field.clone());
        match self {
            Self::Lifted => Action::ParseJson(ParseJson { field, into: None, on_error }),
            Self::Json => Action::ParseJson(ParseJson { into: Some(target()), field, on_error }),
            Self::Pair => {
                let pattern = Pattern::compile("^(?<first>[a-z]+)(?:-(?<second>.*))?$").unwrap();
                Action::ParseRegex(ParseRegex {
                    fields: vec![target(), paths.next().unwrap()],
                    field,
                    pattern,
                    on_error,
                })
            }
            Self::Time => {
                let format = TimeFormat::new(TimeForm::UnixSeconds, None).unwrap();
                Action::ParseTimestamp(ParseTimestamp { into: target(), field, format, on_error })
            }
            Self::Severity => {
                let numbers = Some(SeverityNumbers::Syslog);
                Action::ParseSeverity(ParseSeverity { into: target(), field, numbers, on_error })
            }
        }
    }

    fn read(self, value: &Tree) -> Result<Vec<Option<Tree>>, Failure> {
        let (text, is_text) = match value {
            Tree::Text(text) => (text, true),
            Tree::Other(word) if matches!(self, Self::Time | Self::Severity) && word.parse::<f64>().is_ok() => {
                (word, false)
            }
            _ => return Err(Failure::TypeMismatch),
        };
        let text_tree = |text: &str| Some(Tree::Text(text.to_owned()));
        match self {
            Self::Lifted | Self::Json => {
                let value: Box<RawValue> = serde_json::from_str(text).map_err(|_| Failure::Unparsed)?;
                let tree = Tree::read(value.get());
                let fits = matches!(self, Self::Json) || matches!(tree, Tree::Object(_));
                if fits { Ok(vec![Some(tree)]) } else { Err(Failure::Unparsed) }
            }
            Self::Pair => {
                let (first, second) =
                    text.split_once('-').map_or((&**text, None), |(first, second)| (first, Some(second)));
                let fits = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_lowercase());
                let fits = fits && second.is_none_or(|second| !second.contains('\n'));
                if fits { Ok(vec![text_tree(first), second.and_then(text_tree)]) } else { Err(Failure::Unparsed) }
            }
            Self::Time => match &**text {
                "0" | "-0.0" => Ok(vec![text_tree("1970-01-01T00:00:00.000000000Z")]),
                "0.10" => Ok(vec![text_tree("1970-01-01T00:00:00.100000000Z")]),
                "7" => Ok(vec![text_tree("1970-01-01T00:00:07.000000000Z")]),
                "12" => Ok(vec![text_tree("1970-01-01T00:00:12.000000000Z")]),
                _ => Err(Failure::Unparsed),
            },
            Self::Severity => match (&**text, is_text) {
                ("0", _) => Ok(vec![text_tree("fatal")]),
                ("7", _) => Ok(vec![text_tree("debug")]),
                ("WARN", true) => Ok(vec![text_tree("warn")]),
                _ => Err(Failure::Unparsed),
            },
        }
    }

    fn place(
        self,
        after: &mut Tree,
        paths: &[Vec<String>],
        values: Vec<Option<Tree>>,
        note: &mut dyn FnMut(Result<(), Failure>),
    ) {
        match self {
            Self::Lifted => {
                after.take(&paths[0]);
                let Some(Some(Tree::Object(members))) = values.into_iter().next() else { unreachable!() };
                for (key, value) in members.into_iter().filter(|(key, _)| key != "_spillway") {
                    after.set(&[key], value).unwrap();
                }
            }
            Self::Json if paths.len() > 1 => {
                let before = after.clone();
                after.take(&paths[0]);
                let placed = try_set(after, &paths[1], values.into_iter().flatten().next().unwrap());
                if placed.is_err() {
                    *after = before;
                }
                note(placed);
            }
            _ => {
                let targets = if paths.len() > 1 { &paths[1..] } else { paths };
                for (path, value) in targets.iter().zip(values) {
                    value.into_iter().for_each(|value| note(try_set(after, path, value)));
                }
            }
        }
    }
}

/// Sets a field, or changes nothing.
fn try_set(tree: &mut Tree, path: &[String], value: Tree) -> Result<(), Failure> {
    let mut after = tree.clone();
    after.set(path, value)?;
    *tree = after;
    Ok(())
}

// ── What is generated ───────────────────────────────────────────────────────────────────────────────────────────────────

/// Keys as they mean; how an event writes them is chosen when it is written.
const KEYS: [&str; 6] = ["a", "b", "c", "x y", "é\"q", "d.e"];
const SCALARS: [&str; 25] = [
    "7",
    "\"WARN\"",
    "\"ab-c\"",
    "\"ab\"",
    "\"b-\\\"\\n\"",
    "\"{\\\"a\\\":{\\\"b\\\":\\\"WARN\\\"},\\n\\\"_spillway\\\":1, \\\"\\\\u0062\\\":[7 ]}\"",
    "\" { } \"",
    "\"[1,\\n2]\"",
    "\"{\\\"a\\\":1}x\"",
    "0",
    "-0.0",
    "1E+400",
    "-9223372036854775808",
    "18446744073709551616",
    "0.10",
    "true",
    "false",
    "null",
    "\"\"",
    "\"one\"",
    "\"o\\u006ee\"",
    "\"}],{[\"",
    "\"\\\\\"",
    "\"\\\"\"",
    "\"\\ud834\\udd1e\\n\"",
];
const SPACES: [&str; 6] = ["", "", "", " ", "\t", "  "];

/// An event before it is text.
#[derive(Debug, Clone)]
enum Source {
    Scalar(&'static str),
    Array(Vec<Source>),
    Object(Vec<(&'static str, bool, Source)>),
    Deep(usize),
}

impl Source {
    fn write(&self, space: &mut impl FnMut() -> &'static str, out: &mut String) {
        match self {
            Self::Scalar(text) => out.push_str(text),
            Self::Deep(depth) => {
                out.extend(std::iter::repeat_n('[', *depth));
                out.extend(std::iter::repeat_n(']', *depth));
            }
            Self::Array(elements) => {
                out.push('[');
                for (index, element) in elements.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    out.push_str(space());
                    element.write(space, out);
                    out.push_str(space());
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (key, escaped, value)) in members.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { "," });
                    out.push_str(space());
                    write_key(key, *escaped, out);
                    out.push_str(space());
                    out.push(':');
                    out.push_str(space());
                    value.write(space, out);
                    out.push_str(space());
                }
                out.push_str(space());
                out.push('}');
            }
        }
    }
}

fn write_key(key: &str, escaped: bool, out: &mut String) {
    out.push('"');
    for (index, character) in key.chars().enumerate() {
        match character {
            '"' => out.push_str("\\\""),
            _ if escaped && index == 0 => write!(out, "\\u{:04x}", u32::from(character)).unwrap(),
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn source() -> impl Strategy<Value = Source> {
    let leaf = prop_oneof![
        8 => select(SCALARS.to_vec()).prop_map(Source::Scalar),
        1 => (1..4_usize).prop_map(Source::Deep),
    ];
    let value = leaf.prop_recursive(4, 24, 5, |inner| {
        let members = prop::collection::vec((select(KEYS.to_vec()), prop::bool::weighted(0.2), inner.clone()), 0..5);
        prop_oneof![
            3 => members.prop_map(Source::Object),
            1 => prop::collection::vec(inner, 0..3).prop_map(Source::Array),
        ]
    });
    prop::collection::vec((select(KEYS.to_vec()), prop::bool::weighted(0.2), value), 0..7).prop_map(Source::Object)
}

fn event() -> impl Strategy<Value = String> {
    (source(), prop::collection::vec(select(SPACES.to_vec()), 7)).prop_map(|(source, spaces)| {
        let mut turn = 0;
        let mut space = || {
            turn += 1;
            spaces[turn % spaces.len()]
        };
        let (mut out, mut event) = (String::new(), Vec::new());
        source.write(&mut space, &mut out);
        normalize_into(out.as_bytes(), &mut event);
        String::from_utf8_lossy(&event).into_owned()
    })
}

fn path() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(select(KEYS.to_vec()).prop_map(str::to_owned), 1..4)
}

/// Paths none of which leads to another.
fn paths(most: usize) -> impl Strategy<Value = Vec<Vec<String>>> {
    prop::collection::vec(path(), 1..=most).prop_map(apart)
}

fn apart(paths: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let mut kept: Vec<Vec<String>> = Vec::new();
    for path in paths {
        if kept.iter().all(|other| !other.starts_with(&path) && !path.starts_with(other)) {
            kept.push(path);
        }
    }
    kept
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => select(vec!["12", "", "a \"b\"\n\\", "é𝄞"]).prop_map(Value::Text),
        3 => path().prop_map(Value::Copy),
        1 => path().prop_map(Value::IsOne),
        1 => Just(Value::Pod),
        1 => Just(Value::Node),
    ]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![
        3 => (paths(4), prop::collection::vec(value(), 4))
            .prop_map(|(paths, values)| Wanted::Set(paths.into_iter().zip(values).collect())),
        3 => paths(4).prop_map(Wanted::Remove),
        3 => paths(6).prop_map(|paths| {
            let pairs = paths.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            Wanted::Rename(pairs.collect())
        }),
        1 => paths(5).prop_map(Wanted::Keep),
        1 => path().prop_map(|path| Wanted::DropWhereText(path, "one")),
        1 => path().prop_map(Wanted::DropWhere),
        4 => parsed(),
        3 => redact::wanted(),
    ]
}

fn parsed() -> impl Strategy<Value = Wanted> {
    let parsed = select(vec![Parsed::Lifted, Parsed::Json, Parsed::Pair, Parsed::Time, Parsed::Severity]);
    // Most sources stand near to where values are.
    let source = prop_oneof![3 => prop::collection::vec(select(vec!["a".to_owned(), "b".to_owned()]), 1), 1 => path()];
    let targets = prop::collection::vec(path(), 4);
    (parsed, source, targets, select(vec![OnError::Keep, OnError::Keep, OnError::Drop])).prop_map(
        |(parsed, source, targets, on_error)| {
            let paths = apart(std::iter::once(source).chain(targets).collect());
            let most = match parsed {
                Parsed::Lifted => 1,
                Parsed::Pair => 3,
                _ => 2,
            };
            match parsed {
                // Two fields besides the source are needed.
                Parsed::Pair if paths.len() < 3 => Wanted::Parse(Parsed::Lifted, paths[..1].to_vec(), on_error),
                _ => Wanted::Parse(parsed, paths.into_iter().take(most).collect(), on_error),
            }
        },
    )
}

fn transforms(actions: impl IntoIterator<Item = Action>) -> Vec<Transform> {
    let named = |(index, action)| Transform { name: format!("t{index}").into(), action };
    actions.into_iter().enumerate().map(named).collect()
}

fn chain(actions: impl IntoIterator<Item = Action>) -> Chain {
    Chain::new(&transforms(actions))
}

fn batch(events: &[String]) -> Batch {
    let mut builder = BatchBuilder::default();
    events.iter().for_each(|event| builder.push(event.as_bytes()));
    builder.build(origin(), 7)
}

fn texts(batch: &Batch) -> Vec<String> {
    batch.events().map(|event| String::from_utf8(event.to_vec()).unwrap()).collect()
}

// ── Properties ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Checks events against the reference: what is left, in order; and for each transform what came, was dropped and failed.
fn check(wanted: &[Wanted], events: &[String]) {
    let chain = chain(wanted.iter().map(Wanted::action));
    let Shaped { batch: shaped, dropped, counts, .. } = chain.shape(&batch(events), &origin());
    let mut expected_counts = vec![Counts::default(); wanted.len()];
    let mut expected = Vec::new();
    for event in events {
        let mut tree = Some(Tree::read(event));
        for (wanted, counts) in wanted.iter().zip(&mut expected_counts) {
            let Some(before) = tree else { break };
            let (after, failure) = wanted.apply(&before);
            counts.events += 1;
            counts.dropped += u64::from(after.is_none());
            if let Some(failure) = failure {
                counts.failed[failure as usize] += 1;
            }
            tree = after;
        }
        let applied = chain.apply(event.as_bytes(), &origin()).map(|event| String::from_utf8(event).unwrap());
        assert_eq!(applied.as_deref().map(Tree::read), tree, "{event}");
        expected.extend(applied);
    }
    assert_eq!(texts(&shaped), expected);
    assert_eq!(dropped as usize, events.len() - expected.len());
    for (counts, expected) in counts.iter().zip(&expected_counts) {
        assert_eq!(Counts { changed: 0, ..*counts }, *expected);
    }
    for event in &expected {
        assert!(validate_object(event.as_bytes()).is_ok_and(|info| info.is_plain()), "{event}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn transforms_mean_what_they_mean_over_trees(
        wanted in prop::collection::vec(wanted(), 1..6),
        events in prop::collection::vec(event(), 1..6),
    ) {
        check(&wanted, &events);
    }

    #[test]
    fn what_is_removed_is_nowhere_in_the_bytes(paths in paths(3), event in event()) {
        let chain = chain([Wanted::Remove(paths.clone()).action()]);
        let after = String::from_utf8(chain.apply(event.as_bytes(), &origin()).unwrap()).unwrap();
        // Removed twice is removed once: nothing that a duplicate hid came to light.
        prop_assert_eq!(chain.apply(after.as_bytes(), &origin()).unwrap(), after.as_bytes());
        for path in paths {
            prop_assert!(Tree::read(&after).get(&path).is_err());
        }
    }
}

// ── Bytes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn paths_of(names: &[&str]) -> Vec<FieldPath> {
    names.iter().map(|name| FieldPath::parse(name).unwrap()).collect()
}

fn remove(names: &[&str]) -> Action {
    Action::Remove(paths_of(names))
}

fn keep(names: &[&str]) -> Action {
    Action::Keep(paths_of(names))
}

fn set(fields: &[(&str, &str)]) -> Action {
    let of = |(name, text): &(&str, &str)| SetField {
        path: FieldPath::parse(name).unwrap(),
        value: SetValue::Text((*text).into()),
    };
    Action::Set(fields.iter().map(of).collect())
}

fn compute(name: &str, expression: &str) -> Action {
    let value = SetValue::Expression(Expression::compile(expression).unwrap());
    Action::Set(vec![SetField { path: FieldPath::parse(name).unwrap(), value }])
}

fn rename(fields: &[(&str, &str)]) -> Action {
    let path = |name: &str| FieldPath::parse(name).unwrap();
    Action::Rename(fields.iter().map(|(from, to)| RenameField { from: path(from), to: path(to) }).collect())
}

fn drop_when(condition: &str) -> Action {
    Action::Drop(Condition::compile(condition).unwrap())
}

/// Returns the event as it is afterwards, and what each transform did.
fn run(actions: impl IntoIterator<Item = Action>, event: &str) -> (Vec<String>, Vec<Counts>) {
    let shaped = chain(actions).shape(&batch(&[event.to_owned()]), &origin());
    (texts(&shaped.batch), shaped.counts)
}

#[test]
fn bytes_that_no_transform_names_stay() {
    for (action, before, after) in [
        (remove(&["a"]), r#"{ "a" : 1 , "b" : [1,  2] }"#, r#"{"b" : [1,  2] }"#),
        (remove(&["b"]), r#"{ "a" : 1 , "b" : [1,  2] }"#, r#"{ "a" : 1 }"#),
        (remove(&["a", "b"]), r#"{ "a" : 1 , "b" : [1,  2] }"#, "{}"),
        (remove(&["a"]), r#"{ "a" : 1 }"#, "{}"),
        (remove(&["b"]), r#"{"a":1,"b":2,"c":3,"b":4}"#, r#"{"a":1,"c":3}"#),
        (remove(&["a"]), r#"{"a":1,"a":2,"b":{"a":3}}"#, r#"{"b":{"a":3}}"#),
        (remove(&["a.b"]), r#"{"a":{"b":1},"a":{"b":2,"c":3}}"#, r#"{"a":{},"a":{"c":3}}"#),
        (remove(&["a"]), r#"{"\u0061":1,"b":1e400}"#, r#"{"b":1e400}"#),
        (set(&[("a", "x")]), "{}", r#"{"a":"x"}"#),
        (set(&[("a", "x")]), r#"{"b":1.00 }"#, r#"{"b":1.00 ,"a":"x"}"#),
        (set(&[("a", "x")]), r#"{"a": {"b":[]}, "c":1}"#, r#"{"a": "x", "c":1}"#),
        (set(&[("a", "x")]), r#"{"a":1,"b":2,"a":3}"#, r#"{"b":2,"a":"x"}"#),
        (set(&[("a.b.c", "x"), ("a.b.d", "y"), ("a.e", "z")]), "{}", r#"{"a":{"b":{"c":"x","d":"y"},"e":"z"}}"#),
        (
            set(&[("a.b.c", "x"), ("a.b.d", "y")]),
            r#"{"a":{"k":1},"l":2}"#,
            r#"{"a":{"k":1,"b":{"c":"x","d":"y"}},"l":2}"#,
        ),
        (set(&[("a.b", "x")]), r#"{"a":{},"a":{ }}"#, r#"{"a":{},"a":{ "b":"x"}}"#),
        (rename(&[("a", "b")]), r#"{"a":{"x" : 1},"c":2}"#, r#"{"c":2,"b":{"x" : 1}}"#),
        (rename(&[("a", "b")]), r#"{"b":1,"a":2.50}"#, r#"{"b":2.50}"#),
        (rename(&[("a.b", "a.c")]), r#"{"a":{"b":1}}"#, r#"{"a":{"c":1}}"#),
        (keep(&["b.c", "a"]), r#"{"a":1 , "b":{"x":1,"c": 2},"z":3}"#, r#"{"a":1,"b":{"c": 2}}"#),
        (keep(&["b.c", "b.d.e"]), r#"{"b":{"c":1},"b":{"d":{"e":2,"f":3},"c":4}}"#, r#"{"b":{"d":{"e":2},"c":4}}"#),
        (keep(&["q"]), r#"{"a":1}"#, "{}"),
        (compute("late", "event.ms > 500"), r#"{"ms":612}"#, r#"{"ms":612,"late":true}"#),
        (compute("copy.of", "event.o"), r#"{"o":[1 ,{}]}"#, r#"{"o":[1 ,{}],"copy":{"of":[1 ,{}]}}"#),
    ] {
        let (events, counts) = run([action.clone()], before);
        assert_eq!(events, [after], "{action:?} of {before}");
        assert_eq!(counts, [Counts { events: 1, changed: 1, ..Counts::default() }], "{action:?} of {before}");
    }
}

fn parse_json(name: &str, into: Option<&str>) -> Action {
    let path = |name| FieldPath::parse(name).unwrap();
    Action::ParseJson(ParseJson { field: path(name), into: into.map(path), on_error: OnError::Keep })
}

fn parse_regex(name: &str, pattern: &str) -> Action {
    let pattern = Pattern::compile(pattern).unwrap();
    let fields = pattern.names().map(|name| FieldPath::parse(name).unwrap()).collect();
    let field = FieldPath::parse(name).unwrap();
    Action::ParseRegex(ParseRegex { field, pattern, fields, on_error: OnError::Drop })
}

#[test]
fn what_is_parsed_keeps_its_bytes_and_those_around_it() {
    for (action, before, after) in [
        (parse_json("m", None), r#"{ "a" : 1 , "m":"{\"x\": [1.00,  2]}" }"#, r#"{"a" : 1,"x": [1.00,  2]}"#),
        (parse_json("m", None), r#"{"m":"{}"}"#, "{}"),
        (parse_json("m", None), r#"{"m":"{\"_spillway\":{}}"}"#, "{}"),
        (parse_json("m", None), r#"{"m":"\n{\"m\":\n\"new\"}\n","b":2}"#, r#"{"b":2,"m": "new"}"#),
        (parse_json("m", None), r#"{"\u0061":1,"a":2,"m":"{\"a\":3}","b":4}"#, r#"{"b":4,"a":3}"#),
        (parse_json("m", None), r#"{"m":"hidden","m":"{\"a\":3,\"a\":4}"}"#, r#"{"a":3,"a":4}"#),
        (parse_json("o.m", None), r#"{"o":{"m":"{\"a\":1}"},"a":0}"#, r#"{"o":{},"a":1}"#),
        (parse_json("m", Some("o.m")), r#"{"m":"[1,\n 2.0]","b":2}"#, r#"{"b":2,"o":{"m":[1,  2.0]}}"#),
        (parse_json("m", Some("m")), r#"{"m":"\"x\"","b":2}"#, r#"{"m":"x","b":2}"#),
        (parse_json("m", Some("m")), r#"{"m":" -1E5 "}"#, r#"{"m":-1E5}"#),
        (parse_json("m", Some("d")), r#"{"m":"{\"_spillway\":1}"}"#, r#"{"d":{"_spillway":1}}"#),
        (parse_regex("m", r"^(?<m>\S+) (?<a.b>.*)$"), r#"{"m":"x \"\u00e9\n"}"#, ""),
        (parse_regex("m", r"(?s)^(?<m>\S+) (?<a.b>.*)$"), r#"{"m":"x \"\u00e9\n"}"#, r#"{"m":"x","a":{"b":"\"é\n"}}"#),
        (parse_regex("m", "(?<a>x)|(?<b>y)"), r#"{"m":"y","a":1}"#, r#"{"m":"y","a":1,"b":"y"}"#),
    ] {
        let (events, counts) = run([action.clone()], before);
        assert_eq!(events.first().map_or("", |event| event), after, "{action:?} of {before}");
        let expected = match after {
            "" => Counts { events: 1, dropped: 1, failed: [0, 0, 0, 0, 1, 0, 0], ..Counts::default() },
            _ => Counts { events: 1, changed: 1, ..Counts::default() },
        };
        assert_eq!(counts, [expected], "{action:?} of {before}");
    }
}

#[test]
fn what_is_dropped_since_it_cannot_be_parsed_comes_to_no_later_transform() {
    let actions = [set(&[("s", "x")]), parse_regex("m", "(?<a>y)"), set(&[("t", "x")])];
    let (events, counts) = run(actions, r#"{"m":"z"}"#);
    assert!(events.is_empty());
    assert_eq!(counts[0], Counts { events: 1, changed: 1, ..Counts::default() });
    assert_eq!(counts[1], Counts { events: 1, dropped: 1, failed: [0, 0, 0, 0, 1, 0, 0], ..Counts::default() });
    assert_eq!(counts[2], Counts::default());
}

#[test]
fn what_changes_nothing_shares_the_bytes_of_the_batch() {
    let before = batch(&[r#"{"a": 1}"#.to_owned(), r#"{"a":2,"b":{"c":3}}"#.to_owned()]);
    let chain = chain([remove(&["x", "b.x"]), rename(&[("y", "a")]), keep(&["a", "b"]), drop_when("event.a == 7")]);
    // `Keep` writes anew, and finds that nothing is different.
    let shaped = chain.shape(&batch(&[r#"{"a": 1}"#.to_owned()]), &origin());
    assert_eq!(texts(&shaped.batch), [r#"{"a": 1}"#]);
    let shaped = chain.shape(&before, &origin());
    assert_eq!(shaped.batch.payload.as_ptr(), before.payload.as_ptr());
    assert!(shaped.counts.iter().all(|counts| counts.events == 2 && counts.changed == 0 && counts.failed == [0; 7]));
}

#[test]
fn a_field_that_cannot_be_set_stays_and_the_others_are_set() {
    let fields = [("kept", "\"y\""), ("a.b.c", "\"x\""), ("none", "event.absent")];
    let all = fields.map(|(name, text)| match compute(name, text) {
        Action::Set(mut fields) => fields.remove(0),
        other => panic!("{other:?}"),
    });
    let (events, counts) = run([Action::Set(all.into())], r#"{"a":7}"#);
    assert_eq!(events, [r#"{"a":7,"kept":"y"}"#]);
    let mut expected = Counts { events: 1, changed: 1, ..Counts::default() };
    expected.failed[Failure::TypeMismatch as usize] = 1;
    assert_eq!(counts, [expected], "one failure for an event: the first");
}

#[test]
fn a_condition_without_an_answer_drops_nothing() {
    let (events, counts) = run([drop_when("event.level != \"error\"")], r#"{"message":"x"}"#);
    assert_eq!(events.len(), 1);
    assert_eq!((counts[0].dropped, counts[0].failed[Failure::Absent as usize]), (0, 1));
}

#[test]
fn what_is_dropped_comes_to_no_later_transform() {
    let before = batch(&[r#"{"n":1}"#.to_owned(), r#"{"n":2}"#.to_owned(), r#"{"n":3}"#.to_owned()]);
    let shaped = chain([drop_when("event.n == 2"), set(&[("s", "x")])]).shape(&before, &origin());
    assert_eq!(texts(&shaped.batch), [r#"{"n":1,"s":"x"}"#, r#"{"n":3,"s":"x"}"#]);
    assert_eq!((shaped.dropped, shaped.counts[0].dropped, shaped.counts[1].events), (1, 1, 2));
}

#[test]
fn the_order_of_transforms_counts_where_they_touch_the_same_fields() {
    let event = r#"{"a":1,"b":2}"#;
    for (actions, after) in [
        (vec![rename(&[("a", "c")]), rename(&[("b", "a")]), rename(&[("c", "b")])], r#"{"a":2,"b":1}"#),
        (vec![set(&[("c", "x")]), compute("d", "event.c")], r#"{"a":1,"b":2,"c":"x","d":"x"}"#),
        (vec![compute("d", "event.a"), remove(&["a"])], r#"{"b":2,"d":1}"#),
        (vec![remove(&["a"]), compute("d", "has(event.a)")], r#"{"b":2,"d":false}"#),
        (vec![set(&[("o.x", "1")]), rename(&[("o", "p")])], r#"{"a":1,"b":2,"p":{"x":"1"}}"#),
    ] {
        assert_eq!(run(actions, event).0, [after]);
    }
}

// ── Limits ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn an_event_grows_to_its_limit_and_not_beyond() {
    let event = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let grown = r#","b":"12""#.len();
    let (events, counts) = run([set(&[("b", "12")])], &event(EVENT_BYTES_MAX - grown));
    assert_eq!((events[0].len(), counts[0].changed), (EVENT_BYTES_MAX, 1));
    let whole = event(EVENT_BYTES_MAX - grown + 1);
    let (events, counts) = run([set(&[("b", "12")]), remove(&["a"])], &whole);
    assert_eq!((counts[0].changed, counts[0].failed[Failure::TooLarge as usize]), (0, 1));
    assert_eq!(events, ["{}"], "what takes away is not hindered by what adds");
    let (events, counts) = run([rename(&[("a", "z")])], &event(EVENT_BYTES_MAX - 1));
    assert_eq!((events[0].len(), counts[0].changed), (EVENT_BYTES_MAX - 1, 1), "a move needs no room beside it");
}

#[test]
fn a_batch_grows_to_its_limit_and_not_beyond() {
    let event = format!("{{\"a\":\"{}\"}}", "x".repeat(BATCH_BYTES_MAX / 32 - 9));
    let before = batch(&vec![event; 32]);
    assert_eq!(before.payload.len(), BATCH_BYTES_MAX);
    // Each event becomes twice as large where there is room; those behind it always have theirs.
    let chain = chain([compute("b", "event.a"), drop_when("event.a == \"\"")]);
    let shaped = chain.shape(&before, &origin());
    assert_eq!(shaped.batch.len(), 32);
    assert_eq!(shaped.counts[0].failed[Failure::TooLarge as usize], 32);
    let shaped = chain.shape(&batch(&texts(&before)[..17]), &origin());
    assert!(shaped.batch.payload.len() <= BATCH_BYTES_MAX);
    assert_eq!((shaped.batch.len(), shaped.counts[0].changed), (17, 15), "there is room for fifteen more halves");
}

#[test]
fn what_is_parsed_grows_to_the_limits_and_not_beyond() {
    let pad = "z".repeat(EVENT_BYTES_MAX - 100);
    let (_, counts) = run([parse_regex("m", "(?<a>x+)")], &format!("{{\"p\":\"{pad}\",\"m\":\"{}\"}}", "x".repeat(70)));
    assert_eq!((counts[0].dropped, counts[0].failed[Failure::TooLarge as usize]), (1, 1));
    // Room that an event gives up by going is room for it.
    let pad = "z".repeat(EVENT_BYTES_MAX - 50);
    let (events, counts) =
        run([parse_json("m", Some("elsewhere.far.away"))], &format!("{{\"p\":\"{pad}\",\"m\":\"[1]\"}}"));
    assert_eq!((events[0].len() <= EVENT_BYTES_MAX, counts[0].changed), (true, 1));
    for (bytes, failed) in [(PATTERN_TEXT_BYTES_MAX, 0), (PATTERN_TEXT_BYTES_MAX + 1, 1)] {
        let (_, counts) = run([parse_regex("m", "^(?<a>x)")], &format!("{{\"m\":\"{}\"}}", "x".repeat(bytes)));
        assert_eq!(counts[0].failed[Failure::TooLarge as usize], failed);
    }
    let nested = |brackets: usize| format!("{{\"m\":\"{}{}\"}}", "[".repeat(brackets), "]".repeat(brackets));
    for (into, brackets, fits) in [("a", 127, true), ("a.b", 126, true), ("a.b", 127, false)] {
        let (_, counts) = run([parse_json("m", Some(into))], &nested(brackets));
        assert_eq!(counts[0].changed, u64::from(fits), "{into} {brackets}");
    }
}

#[test]
fn brackets_are_not_nested_deeper_than_the_limit() {
    let depth = DEPTH_MAX as usize;
    let nested = |brackets: usize| format!("{{\"a\":{}{}}}", "[".repeat(brackets), "]".repeat(brackets));
    for (keys, brackets, fits) in [("b", depth - 1, true), ("b.c", depth - 2, true), ("b.c", depth - 1, false)] {
        for action in [rename(&[("a", keys)]), compute(keys, "event.a")] {
            let (events, counts) = run([action], &nested(brackets));
            validate_object(events[0].as_bytes()).unwrap();
            let failed = counts[0].failed[Failure::TooDeep as usize];
            assert_eq!((counts[0].changed, failed), (u64::from(fits), u64::from(!fits)), "{keys} {brackets}");
        }
    }
}

#[test]
fn an_event_of_nothing_but_one_key_is_shaped() {
    let mut event = String::from("{\"b\":0");
    (0..40_000).for_each(|number| write!(event, ",\"a\":{{\"b\":{number}}}").unwrap());
    event.push('}');
    let (events, _) = run([set(&[("a.c", "x")]), remove(&["b", "q.b"])], &event);
    assert!(events[0].ends_with(r#","a":{"b":39999,"c":"x"}}"#));
    assert_eq!(run([remove(&["a"])], &event).0, [r#"{"b":0}"#]);
    assert_eq!(run([keep(&["a.b"])], &event).0, [r#"{"a":{"b":39999}}"#]);
}

#[test]
fn bytes_that_are_no_object_do_no_harm() {
    let chain = chain([
        set(&[("a.b", "x"), ("c", "y")]),
        remove(&["d"]),
        keep(&["a", "c.d"]),
        rename(&[("a", "e")]),
        drop_when("event.a.b == \"never\""),
        parse_json("a", None),
        parse_json("a", Some("f")),
        parse_regex("a.b", "(?<g>.)"),
    ]);
    for bytes in [
        "",
        " ",
        "[]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":{\"b\":1",
        "{\"a\":{\"b\":\"",
        "}",
        "{\"a\":1,,}",
        "{\"c\":{\"d\":}}}",
    ] {
        chain.apply(bytes.as_bytes(), &origin());
    }
}
