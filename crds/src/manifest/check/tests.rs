use serde_json::json;

use super::*;
use crate::manifest::tree::read;

fn schema() -> Json {
    json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]+$"},
            "count": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
            "on": {"type": "boolean", "default": false},
            "mode": {"type": "string", "enum": ["Fast", "Slow"], "default": "Fast"},
            "inner": {"type": "object", "default": {}, "properties": {"deep": {"type": "integer", "default": 7, "minimum": 0, "maximum": 9}}},
            "tags": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 3}},
            "parts": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["kind", "name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "kind": {"type": "string", "enum": ["A", "B"], "default": "A"}, "name": {"type": "string"}}}},
            "labels": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "string", "maxLength": 2}},
            "way": {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": {"x": {"type": "object"}, "y": {"type": "object"}}},
        },
    })
}

fn run(text: &str) -> (Json, Vec<String>) {
    let root = read(text).into_iter().next().unwrap().root.unwrap();
    let mut problems = Vec::new();
    let value = check(&root, &schema(), "", &mut problems);
    let told = problems.into_iter().map(|problem| problem.of(&"f".into(), "").to_string()).collect();
    (value, told)
}

fn told(text: &str) -> Vec<String> {
    run(text).1
}

#[test]
fn defaults_are_filled_in_at_every_depth() {
    let (value, told) = run("name: a\non: null\n");
    assert_eq!(told, [""; 0]);
    assert_eq!(value, json!({"name": "a", "count": 3, "on": false, "mode": "Fast", "inner": {"deep": 7}}));
    assert_eq!(run("name: a\nparts: [{name: x}]\ninner: {}\n").0["parts"], json!([{"kind": "A", "name": "x"}]));
}

#[test]
fn each_error_has_its_place_and_what_is_allowed() {
    for (text, expected) in [
        ("{}", "f:1:1: name: missing field; allowed: text of 1 to 5 characters matching ^[a-z]+$"),
        (
            "name: toolong",
            "f:1:7: name: wrong length; found 7 characters; allowed: text of 1 to 5 characters matching ^[a-z]+$",
        ),
        (
            "name: A",
            "f:1:7: name: not of the form that is needed; found \"A\"; allowed: text of 1 to 5 characters matching ^[a-z]+$",
        ),
        (
            "name: 12",
            "f:1:7: name: wrong type; found the number 12; allowed: text of 1 to 5 characters matching ^[a-z]+$; help: did you mean `\"12\"`?",
        ),
        (
            "name: no",
            "f:1:7: name: wrong type; found the boolean no; allowed: text of 1 to 5 characters matching ^[a-z]+$; help: did you mean `\"no\"`?",
        ),
        ("{name: a, count: 11}", "f:1:18: count: out of bounds; found 11; allowed: an integer from 1 to 10"),
        (
            "{name: a, count: \"4\"}",
            "f:1:18: count: wrong type; found \"4\"; allowed: an integer from 1 to 10; help: did you mean `4`?",
        ),
        ("{name: a, count: 1.5}", "f:1:18: count: wrong type; found the number 1.5; allowed: an integer from 1 to 10"),
        (
            "{name: a, count: 99999999999999999999}",
            "f:1:18: count: wrong type; found the number 99999999999999999999; allowed: an integer from 1 to 10",
        ),
        ("{name: a, on: maybe}", "f:1:15: on: wrong type; found \"maybe\"; allowed: `true` or `false`"),
        (
            "{name: a, mode: fast}",
            "f:1:17: mode: unknown value; found \"fast\"; allowed: `Fast`, `Slow`; help: did you mean `Fast`?",
        ),
        (
            "{name: a, inner: {dep: 1}}",
            "f:1:19: inner.dep: unknown field; found \"dep\"; allowed: `deep`; help: did you mean `deep`?",
        ),
        ("{name: a, inner: []}", "f:1:18: inner: wrong type; found a list of 0; allowed: an object with `deep`"),
        ("{name: a, tags: [a, b, a]}", "f:1:24: tags[2]: duplicate of item [0] of the list; found \"a\""),
        ("{name: a, tags: [a, b, c, d]}", "f:1:17: tags: out of bounds; found 4; allowed: a list of at most 3 items"),
        (
            "{name: a, tags: x}",
            "f:1:17: tags: wrong type; found \"x\"; allowed: a list of at most 3 items; help: did you mean `[x]`?",
        ),
        ("{name: a, tags: }", "f:1:15: tags: wrong type; found nothing (null); allowed: a list of at most 3 items"),
        (
            "{name: a, parts: [{name: x}, {kind: A, name: x}]}",
            "f:1:46: parts[1].name: duplicate of item [0] of the list; found \"A x\"",
        ),
        ("{name: a, labels: {a: b, c: d}}", "f:1:19: labels: out of bounds; found 2; allowed: an object of at most 1"),
        (
            "{name: a, labels: {a: bcd}}",
            "f:1:23: labels.a: wrong length; found 3 characters; allowed: text of at most 2 characters",
        ),
        ("{name: a, way: {}}", "f:1:16: way: out of bounds; found 0; allowed: exactly one of `x`, `y`"),
        (
            "{name: a, way: {x: }}",
            "f:1:18: way.x: wrong type; found nothing (null); allowed: an object; help: did you mean `{}`?",
        ),
    ] {
        assert_eq!(told(text), [expected], "{text}");
    }
}

#[test]
fn the_same_name_of_another_kind_is_no_duplicate() {
    assert_eq!(told("{name: a, parts: [{name: x}, {kind: B, name: x}]}"), [""; 0]);
}

#[test]
fn all_errors_are_told_in_one_run() {
    assert_eq!(told("{nam: a, count: 0, tags: [a, a], inner: {x: 1, y: 2}}").len(), 6);
}

#[test]
fn a_whole_number_written_as_a_float_is_an_integer() {
    let (value, told) = run("{name: a, count: 1e1}");
    assert_eq!((value["count"].as_i64(), told.len()), (Some(10), 0));
}

#[test]
fn patterns_match_as_kubernetes_matches_them() {
    assert!(matches("b", "abc"), "a pattern is not anchored");
    assert!(!matches(r"^\d$", "٣"), "classes are ASCII");
    assert!(matches("^[^/]+$", "ä"), "other text is taken by a negated class");
    assert!(regex("(").is_none());
}
