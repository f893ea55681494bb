//! Transforms against a plain reference: the same meaning written down over trees that `serde_json` reads, on generated
//! transforms and generated events (escapes in keys and strings, duplicate keys, absent fields, numbers at their edges, white
//! space, deep nesting).

#![expect(clippy::unwrap_used, reason = "a test, also outside its test functions")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::value::RawValue;
use spillway_delivery::condition::{Condition, Expression};
use spillway_delivery::event::{BATCH_BYTES_MAX, Batch, BatchBuilder, EVENT_BYTES_MAX, Origin, OriginBuilder};
use spillway_delivery::json::{DEPTH_MAX, normalize_into, validate_object};
use spillway_delivery::transform::{
    Action, Chain, Counts, Failure, FieldPath, RenameField, SetField, SetValue, Shaped, Transform,
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
        }
        (Some(after), failure)
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
const SCALARS: [&str; 16] = [
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
    ]
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
    let Shaped { batch: shaped, dropped, counts } = chain.shape(&batch(events), &origin());
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

#[test]
fn what_changes_nothing_shares_the_bytes_of_the_batch() {
    let before = batch(&[r#"{"a": 1}"#.to_owned(), r#"{"a":2,"b":{"c":3}}"#.to_owned()]);
    let chain = chain([remove(&["x", "b.x"]), rename(&[("y", "a")]), keep(&["a", "b"]), drop_when("event.a == 7")]);
    // `Keep` writes anew, and finds that nothing is different.
    let shaped = chain.shape(&batch(&[r#"{"a": 1}"#.to_owned()]), &origin());
    assert_eq!(texts(&shaped.batch), [r#"{"a": 1}"#]);
    let shaped = chain.shape(&before, &origin());
    assert_eq!(shaped.batch.payload.as_ptr(), before.payload.as_ptr());
    assert!(shaped.counts.iter().all(|counts| counts.events == 2 && counts.changed == 0 && counts.failed == [0; 4]));
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
