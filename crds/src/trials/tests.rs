use super::*;
use crate::{Document, compile};

const PIPELINE: &str = r#"
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: etch-line, namespace: fab12}
spec:
  inputs: [{name: in, type: Events, events: {}}]
  transforms:
  - {name: site, type: Set, set: {fields: [{name: site, value: fab12}]}}
  - {name: number, type: Set, set: {fields: [{name: next, valueExpression: event.wafer + 1}]}}
  - {name: quiet, type: Drop, drop: {when: 'has(event.level) && event.level == "debug"'}}
  - {name: once, type: Deduplicate, deduplicate: {fields: [wafer], windowSeconds: 60, when: has(event.wafer)}}
  routes:
  - {name: lake, backendRefs: [{name: out}]}
  - {name: pager, match: 'event.level == "error" && origin.pod.startsWith("etcher")', backendRefs: [{name: out}]}
---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: out, namespace: fab12}
spec: {type: Stdout}
"#;

/// Tries a file of tests: its outcomes as `name` or `name: failure`, and errors.
fn tried(text: &str) -> (Vec<String>, Vec<String>) {
    let compiled = compile(&[Document::new("p.yaml", PIPELINE)]);
    assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
    let mut errors = Vec::new();
    let outcomes = match read(&Document::new("t.yaml", text)) {
        Ok(file) => run(&file, &compiled, &mut errors),
        Err(wrong) => {
            errors = wrong;
            Vec::new()
        }
    };
    let told = |outcome: Outcome| match &outcome.failures[..] {
        [] => vec![outcome.name],
        failures => failures.iter().map(|failure| format!("{}: {failure}", outcome.name)).collect(),
    };
    (outcomes.into_iter().flat_map(told).collect(), errors.iter().map(ToString::to_string).collect())
}

fn of_events(events: &str) -> (Vec<String>, Vec<String>) {
    tried(&format!("tests: [{{name: t, pipeline: etch-line, origin: {{pod: etcher-0}}, events: [{events}]}}]"))
}

#[test]
fn what_holds_passes() {
    let text = r#"
manifests: [pipelines/]
tests:
- name: an error goes to both
  pipeline: fab12/etch-line
  origin: {pod: etcher-0, owner: {kind: StatefulSet, name: etcher}, labels: {app: etcher}}
  events:
  - event: {level: error, wafer: 7, big: 12345678901234567890, deep: {list: [1, 2.50, null, true, "x"]}}
    expect:
      dropped: false
      routes: [pager, lake]
      event: {level: error, wafer: 7, big: 12345678901234567890, deep: {list: [1, 2.50, null, true, "x"]}, site: fab12, next: 8}
      fields: {site: fab12, deep.list: [1, 2.50, null, true, x]}
      absent: [other, deep.none]
  - json: '{"level": "info"}'
    origin: {pod: other-1}
    expect: {routes: [lake]}
- name: a debug line is dropped
  pipeline: etch-line
  events: [{event: {level: debug}, expect: {dropped: true}}]
"#;
    let (outcomes, errors) = tried(text);
    assert_eq!((outcomes, errors), (vec!["an error goes to both".into(), "a debug line is dropped".into()], vec![]));
}

#[test]
fn time_passes_as_the_events_say_and_a_test_begins_anew() {
    let event = |after: u32, dropped: bool| {
        format!("{{event: {{wafer: 1, level: a}}, afterSeconds: {after}, expect: {{dropped: {dropped}}}}}")
    };
    let events = [event(0, false), event(59, true), event(1, false), event(3600, false), event(0, true)].join(", ");
    let one = format!("{{name: t, pipeline: etch-line, events: [{events}]}}");
    assert_eq!(tried(&format!("tests: [{one}, {one}]")), (vec!["t".to_owned(), "t".to_owned()], vec![]));
}

#[test]
fn what_does_not_hold_says_what_was_found_and_why() {
    let cases = [
        (
            "{event: {level: error, wafer: 1}, expect: {routes: [lake]}}",
            "t: event 1: routes: expected lake, found lake, pager",
        ),
        (
            "{event: {wafer: 1}, expect: {routes: [pager]}}",
            "t: event 1: routes: expected pager, found lake (`match` of route `pager` has no answer: absent field)",
        ),
        (
            "{event: {level: info}, expect: {fields: {next: 1}}}",
            "t: event 1: next: expected 1, found nothing in {\"level\":\"info\",\"site\":\"fab12\"} (transform `number` failed: absent)",
        ),
        ("{event: {level: info, wafer: 1}, expect: {fields: {next: 3}}}", "t: event 1: next: expected 3, found 2"),
        (
            "{event: {level: info, wafer: 1}, expect: {absent: [site]}}",
            "t: event 1: site: expected nothing, found \"fab12\"",
        ),
        ("{event: {level: debug, wafer: 1}, expect: {routes: []}}", "t: event 1: dropped, and not expected to be"),
    ];
    for (event, failure) in cases {
        assert_eq!(of_events(event), (vec![failure.to_owned()], vec![]), "{event}");
    }
    let (outcomes, _) = of_events("{json: '{\"wafer\":1,\"big\":1e400}', expect: {absent: [secret]}}");
    assert!(outcomes[0].starts_with("t: event 1: what it became cannot be looked into: "), "{outcomes:?}");
    let (outcomes, _) = of_events("{event: {level: a, wafer: 1}, expect: {dropped: true}}");
    assert!(outcomes[0].starts_with("t: event 1: expected to be dropped, and is {"), "{outcomes:?}");
    let (outcomes, _) = of_events("{event: {level: a, wafer: 1}, expect: {event: {level: a}}}");
    assert!(outcomes[0].starts_with("t: event 1: event: expected {\"level\":\"a\"}, found {"), "{outcomes:?}");
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_place() {
    let cases = [
        ("", "t.yaml:1:1: a file of tests holds `tests`; found nothing"),
        ("tests: []", "t.yaml:1:8: tests: out of bounds; found 0; allowed: a list of 1 to 1000 items"),
        (
            "test: []",
            "t.yaml:1:1: test: unknown field; found \"test\"; allowed: `manifests`, `tests`; help: did you mean `tests`?",
        ),
        (
            "tests: [{name: a, pipeline: etch-line}]",
            "t.yaml:1:9: tests[0].events: missing field; allowed: a list of 1 to 1000 items",
        ),
    ];
    for (text, error) in cases {
        let (outcomes, errors) = tried(text);
        assert_eq!(outcomes, [""; 0]);
        assert_eq!(errors.first().map(String::as_str), Some(error), "{text}");
    }
    let of_events = |events: &str| of_events(events).1.join("\n");
    let event = "{event: {a: 1}, expect: {rotues: [lake]}}";
    assert!(of_events(event).contains("events[0].expect.rotues: unknown field"), "{}", of_events(event));
    assert!(of_events(event).ends_with("did you mean `routes`?"), "{}", of_events(event));
    let event = "{event: {a: 1}, expect: {routes: [lak]}}";
    let told = "the pipeline has no such route; found \"lak\"; allowed: `lake`, `pager`; help: did you mean `lake`?";
    assert!(of_events(event).ends_with(told), "{}", of_events(event));
    let event = "{event: {a: 1}, json: '{}', expect: {dropped: true}}";
    assert!(of_events(event).contains("must have one of `event` and `json`"), "{}", of_events(event));
    let event = "{json: '{\"a\"', expect: {dropped: true}}";
    assert!(of_events(event).contains("not an event: "), "{}", of_events(event));
    let event = "{event: [1], expect: {dropped: true}}";
    assert!(of_events(event).contains("not an event: "), "{}", of_events(event));
    for (event, told) in [
        (
            "{event: {}, expect: {dropped: true, absent: [a]}}",
            "expect.absent: an event that is dropped has no routes and no fields",
        ),
        ("{event: {}, expect: {absent: []}}", "expect.absent: out of bounds"),
        ("{event: {}, expect: {fields: {}}}", "expect.fields: out of bounds"),
        ("{event: {}, expect: {}}", "expect: out of bounds"),
        ("{event: {a: .inf}, expect: {dropped: true}}", "not an event: "),
        ("{event: {}, expect: {fields: {a: .inf}}}", "expect.fields: no JSON: "),
    ] {
        assert!(of_events(event).contains(told), "{event}: {}", of_events(event));
    }
    let event = "{event: {}, expect: {absent: ['a..b']}}";
    assert!(of_events(event).contains("expect.absent"), "{}", of_events(event));
    let (_, errors) = tried("tests: [{name: t, pipeline: etch-lin, events: [{event: {}, expect: {dropped: true}}]}]");
    assert!(errors[0].ends_with("allowed: `etch-line`; help: did you mean `etch-line`?"), "{errors:?}");
}

#[test]
fn what_is_printed_sums_up() {
    let outcome = |name: &str, failures: &[&str]| Outcome {
        file: "t.yaml".into(),
        line: 3,
        name: name.into(),
        failures: failures.iter().map(|&failure| failure.to_owned()).collect(),
        note: failures.is_empty().then_some("of a part"),
    };
    let outcomes = [outcome("good", &[]), outcome("bad", &["event 1: x", "event 2: y"])];
    let text = "ok      good\n        note: of a part\nFAILED  bad (t.yaml:3)\n        event 1: x\n        event 2: y\n\
                1 passed, 1 failed, 0 errors\n";
    assert_eq!(human(&outcomes, &[]), text);
    let report: serde_json::Value = serde_json::from_str(&json(&outcomes, &[])).unwrap();
    assert_eq!((&report["passed"], &report["failed"], &report["tests"][1]["line"]), (&1.into(), &1.into(), &3.into()));
}

#[test]
fn a_test_of_a_pipeline_that_joins_lines_says_what_it_does_not_show() {
    let joins = PIPELINE
        .replace("{name: in, type: Events, events: {}}", "{name: in, type: ContainerLogs}")
        .replace("transforms:", "transforms:\n  - {name: trace, type: Multiline, multiline: {presets: [Java]}}");
    let text = "tests: [{name: t, pipeline: etch-line, events: [{event: {wafer: 1}, expect: {dropped: false}}]}]";
    let Ok(file) = read(&Document::new("t.yaml", text)) else { panic!("{text}") };
    for (manifest, note) in [(PIPELINE, None), (&*joins, Some(JOINS_LINES))] {
        let compiled = compile(&[Document::new("p.yaml", manifest)]);
        assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
        let outcomes = run(&file, &compiled, &mut Vec::new());
        assert_eq!((outcomes[0].note, outcomes[0].failures.len()), (note, 0));
    }
}
