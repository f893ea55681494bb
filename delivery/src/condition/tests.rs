use std::collections::BTreeMap;
use std::sync::Arc;

mod full;

use super::*;
use crate::event::OriginBuilder;

fn origin() -> Arc<Origin> {
    OriginBuilder {
        pod: Some("etcher-0".into()),
        owner_kind: Some("StatefulSet".into()),
        labels: BTreeMap::from([("app.kubernetes.io/name".into(), "etcher".into())]),
        ..OriginBuilder::default()
    }
    .build()
}

#[track_caller]
#[expect(
    clippy::unwrap_in_result,
    reason = "the result is the condition's, and a condition that does not compile is a bug"
)]
fn eval(condition: &str, event: &str) -> Result<bool, EvalFailure> {
    Condition::compile(condition).unwrap().eval(event.as_bytes(), &origin())
}

#[track_caller]
fn refused(condition: &str) -> String {
    Condition::compile(condition).unwrap_err().to_string()
}

const EVENT: &str =
    r#"{"level":"warn","n":5,"f":2.5,"ok":true,"none":null,"list":[1],"http":{"status":503},"x y":"\u00e9"}"#;

#[test]
fn conditions_hold_or_not() {
    let holds = [
        r#"event.level == "warn""#,
        r#"event["level"] == 'warn' && event["http"].status == 503"#,
        r#"event["x y"] == "é" && event.`x y` == "\u00e9" && event["x y"] > "e""#,
        "event.n == 5 && event.n == 5u && event.n == 5.0 && event.n != 6",
        "event.f > 2 && event.f < 3u && event.f >= 2.5 && event.f <= 2.5",
        r#"event.level in ["info", "warn"] && !(event.level in ["info"])"#,
        r#"event.n in ["5", null, 5u]"#,
        r#"event.level.startsWith("wa") && event.level.endsWith("rn") && event.level.contains("ar")"#,
        r#"!event.level.contains("x") && "warning".contains("arn")"#,
        "has(event.http.status) && !has(event.http.x) && !has(event.x.y) && !has(event.level.x)",
        "has(event.none) && event.none == null && event.n != null",
        "event.ok",
        "event.ok == true && event.ok > false",
        "event.level != 3",
        "event.n < event.http.status",
        "event.list != event.http",
        r#"origin.pod == "etcher-0" && has(origin.pod) && !has(origin.node)"#,
        r#"origin.owner.kind.startsWith("Stateful") && origin.pod > "etcher""#,
        r#"origin.labels["app.kubernetes.io/name"] == "etcher" && !has(origin.labels.app) && !has(origin.annotations.a)"#,
        r#"origin.pod in ["a", "etcher-0"]"#,
        "event.missing == 1 || event.ok",
        "event.ok || event.missing == 1",
        "!(event.missing == 1 && event.n == 6)",
        "!!event.ok",
        "true",
        "(event.n == 5) == true",
        "(event.n == 5) == event.ok",
        r#""prod" == "prod""#,
    ];
    for condition in holds {
        assert_eq!(eval(condition, EVENT), Ok(true), "{condition}");
        assert_eq!(eval(&format!("!({condition})"), EVENT), Ok(false), "{condition}");
    }
}

#[test]
fn a_condition_without_an_answer_says_why() {
    use EvalFailure::{Absent, TypeMismatch};
    let failures = [
        ("event.missing == 1", Absent),
        ("event.http.missing != 1", Absent),
        ("event.missing.deeper == 1", Absent),
        ("event.level.deeper == 1", TypeMismatch),
        ("event.none.deeper == 1", TypeMismatch),
        ("event.level", TypeMismatch),
        ("!event.n", TypeMismatch),
        ("event.level && event.ok", TypeMismatch),
        ("event.level < 3", TypeMismatch),
        ("event.none < event.n", TypeMismatch),
        ("event.list == event.list", TypeMismatch),
        ("event.http == event.http", TypeMismatch),
        (r#"event.n.startsWith("5")"#, TypeMismatch),
        (r#"event.list.contains("5")"#, TypeMismatch),
        (r#"event.missing in ["5"]"#, Absent),
        (r#"origin.node == "n""#, Absent),
        (r#"origin.labels["x"] == "n""#, Absent),
        ("event.missing == 1 && event.level < 3", Absent),
        ("event.level < 3 || event.missing == 1", TypeMismatch),
        ("event.ok && event.missing == 1", Absent),
    ];
    for (condition, failure) in failures {
        assert_eq!(eval(condition, EVENT), Err(failure), "{condition}");
    }
    assert_eq!(EvalFailure::ALL.map(EvalFailure::as_str), ["absent", "type_mismatch", "arithmetic", "too_large"]);
}

#[test]
fn the_last_of_equal_keys_counts() {
    assert_eq!(eval("event.a == 2", r#"{"a":1,"a":2}"#), Ok(true));
    assert_eq!(eval("event.a == 2", r#"{"\u0061":1,"a":2}"#), Ok(true));
    assert_eq!(eval("event.a == 2", r#"{"a":1,"\u0061":2}"#), Ok(true));
    assert_eq!(eval("event.a.b == 1", r#"{"a":{"b":1},"a":{}}"#), Err(EvalFailure::Absent));
    assert_eq!(eval("event.a.b == 1", r#"{"a":{"b":1},"a":7}"#), Err(EvalFailure::TypeMismatch));
    assert_eq!(eval("event.a.b == 1 && has(event.a)", r#"{"a":7,"a":{"b":1}}"#), Ok(true));
}

#[test]
fn integers_of_64_bits_are_exact() {
    let event =
        r#"{"max":9223372036854775807,"umax":18446744073709551615,"odd":9007199254740993,"huge":1e400,"zero":-0.0}"#;
    for condition in [
        "event.max == 9223372036854775807 && event.max != 9223372036854775806",
        "event.umax == 18446744073709551615u && event.umax > event.max",
        "event.odd != 9007199254740992.0 && event.odd > 9007199254740992",
        "event.max < 9223372036854775808.0",
        "event.huge > event.umax && event.huge == event.huge",
        "event.zero == 0 && event.zero == 0.0 && event.zero > -1",
        "event.max > -9223372036854775808",
    ] {
        assert_eq!(eval(condition, event), Ok(true), "{condition}");
    }
}

#[test]
fn more_fields_than_the_stack_holds_are_found() {
    let event: Vec<String> = (0..40).map(|n| format!("\"k{n}\":{n}")).collect();
    let condition: Vec<String> = (0..40).map(|n| format!("event.k{n}=={n}")).collect();
    assert_eq!(eval(&condition.join("&&"), &format!("{{{}}}", event.join(","))), Ok(true));
}

#[test]
fn a_text_that_is_no_condition_is_refused_with_its_place() {
    let cases = [
        ("", "unexpected end at character 1"),
        ("event.x ==", "unexpected end at character 11"),
        ("event.x = 3", "syntax error, unexpected `=` at character 9; did you mean `==`?"),
        ("event.x & event.y", "syntax error, unexpected `&` at character 9; did you mean `&&`?"),
        ("event.x and event.y", "syntax error, unexpected `and` at character 9; did you mean `&&`?"),
        ("not event.x", "syntax error, unexpected `event` at character 5"),
        ("(event.x", "expected `)` at the end at character 9"),
        ("event.x == 'a", "string without its closing quote at character 12"),
        ("event.é == 1", "syntax error, unexpected `é` at character 7"),
        ("event.x ==\n  @", "syntax error, unexpected `@` at character 14"),
        ("event.x == 99999999999999999999", "invalid int literal at character 12"),
        ("event.x == 1e400", "invalid double literal at character 12"),
        ("has(event[\"x\"])", "`has` takes a field selected with a dot, like `has(event.a.b)` at character 10"),
    ];
    for (condition, text) in cases {
        assert_eq!(refused(condition), text, "{condition}");
    }
}

#[test]
fn an_unknown_name_is_refused_with_the_nearest() {
    let cases = [
        ("evnet.level == 1", "unknown variable `evnet` at character 1; did you mean `event`?"),
        ("level == 1", "unknown variable `level` at character 1; did you mean `event.level`?"),
        ("true && orign.pod == 'a'", "unknown variable `orign` at character 9; did you mean `origin`?"),
        ("true || x == 1", "unknown variable `x` at character 9; did you mean `event.x`?"),
        ("origin.pood == 'a'", "unknown field `origin.pood` at character 7; did you mean `origin.pod`?"),
        ("origin.podUid == 'a'", "unknown field `origin.podUid` at character 7; did you mean `origin.podUID`?"),
        (
            "origin.owner.knd == 'a'",
            "unknown field `origin.owner.knd` at character 13; did you mean `origin.owner.kind`?",
        ),
        ("origin.label['a'] == 'a'", "unknown field `origin.label.a` at character 13; did you mean `origin.labels`?"),
        ("has(origin.cluster)", "unknown field `origin.cluster` at character 5"),
        ("event.x.startswith('a')", "unknown function `startswith` at character 19; did you mean `startsWith`?"),
        ("hass(event.x)", "unknown function `hass` at character 5; did you mean `has`?"),
        ("event.x.frobnicate()", "unknown function `frobnicate` at character 19"),
    ];
    for (condition, text) in cases {
        assert_eq!(refused(condition), text, "{condition}");
    }
}

#[test]
fn a_comparison_that_can_never_hold_is_refused() {
    let cases = [
        ("origin.pod > 3", "`origin.pod` is a string and `3` is a number: they are in no order at character 12"),
        ("origin.pod == 3", "`origin.pod` is a string and `3` is a number: they are never equal at character 12"),
        ("origin.pod != null", "`origin.pod` is a string and null: they are never equal at character 12"),
        ("\"a\" == 3u", "`\"a\"` is a string and `3u` is a number: they are never equal at character 5"),
        ("event.x < null", "null has no order at character 9"),
        ("(event.x == 1) == 1", "a boolean and `1` is a number: they are never equal at character 16"),
        ("1 < event.x < 5", "a boolean and `5` is a number: they are in no order at character 13"),
        (
            "origin.pod in ['a', 1.5]",
            "`origin.pod` is a string and `1.5` is a number: they are never equal at character 21",
        ),
        (
            "origin.labels['é'] in [true]",
            "`origin.labels[\"é\"]` is a string and `true` is a boolean: they are never equal at character 24",
        ),
        ("event.x in []", "nothing is in an empty list at character 9"),
    ];
    for (condition, text) in cases {
        assert_eq!(refused(condition), text, "{condition}");
    }
}

#[test]
fn what_is_no_boolean_is_refused() {
    let cases = [
        ("1", "`1` is a number, not a condition at character 1"),
        ("'a'", "`\"a\"` is a string, not a condition at character 1"),
        ("origin.pod", "`origin.pod` is a string, not a condition at character 7"),
        ("null", "null, not a condition at character 1"),
        ("event.x && 3", "`3` is a number, not an operand of `&&` at character 12"),
        ("origin.pod || event.x", "`origin.pod` is a string, not an operand of `||` at character 7"),
        ("!'a'", "`\"a\"` is a string, not an operand of `!` at character 2"),
        ("3.contains('a')", "`contains` is for strings, `3` is a number at character 11"),
        ("true.contains('a')", "`contains` is for strings, `true` is a boolean at character 14"),
    ];
    for (condition, text) in cases {
        assert_eq!(refused(condition), text, "{condition}");
    }
}

#[test]
fn the_rest_of_cel_is_refused_by_name() {
    let cases = [
        ("event == 1", "`event` alone is not a value: name a field of it, like `event.level` at character 1"),
        ("origin == 1", "`origin` alone is not a value: name a field of it, like `origin.pod` at character 1"),
        ("has(event)", "`has` takes a field selected with a dot, like `has(event.a.b)` at character 5"),
        ("has(event.x, event.y)", "`has` takes one field selected with a dot, like `has(event.a.b)` at character 4"),
        ("origin.owner == 'a'", "`origin.owner` needs `.kind` or `.name` at character 7"),
        ("origin.labels == 'a'", "`origin.labels` needs a key, like `origin.labels[\"app\"]` at character 7"),
        ("origin.pod.x == 'a'", "`origin.pod` is a string and has no fields at character 11"),
        ("origin.labels.a.b == 'a'", "`origin.labels.a` is a string and has no fields at character 16"),
        ("event.?x == 1", "a field that is read with `?` is followed by `.orValue(...)` at character 6"),
        ("event[?'x'] == 1", "a field that is read with `?` is followed by `.orValue(...)` at character 6"),
        ("event.?x.hasValue()", "`hasValue` is not available in conditions at character 18"),
        (
            "event[event.y] == 1",
            "a key is a constant string, like `event[\"a b\"]`, and an element a number at character 12",
        ),
        ("event.x.map(y, y)[0] == 1", "`map` and `filter` are not available in conditions at character 12"),
        ("event.x.filter(y, y > 1) == 1", "`map` and `filter` are not available in conditions at character 15"),
        ("event.x.split(',')[0] == 'a'", "`split` is not available in conditions at character 14"),
        ("timestamp(event.x) < 1", "`timestamp` is not available in conditions at character 10"),
        ("event.x == [1]", "a list stands only on the right of `in` at character 12"),
        ("event.x == {'a': 1}", "a map is not available in conditions at character 12"),
        ("event.x == a{b: 1}", "a message is not available in conditions at character 13"),
        ("event.x == b'a'", "bytes are not available in conditions at character 12"),
        ("event.x in [event.y]", "a list that is written here is of constants at character 18"),
        ("event.x.endsWith('a', 'b')", "`endsWith` takes one string at character 17"),
        ("contains(event.x, 'a')", "`contains` is called on a field, like `event.x.contains(\"a\")` at character 9"),
        ("(event.x == 1).y", "fields are read from `event` and `origin` only at character 10"),
    ];
    for (condition, text) in cases {
        assert_eq!(refused(condition), text, "{condition}");
    }
}

#[test]
fn length_and_nesting_are_capped() {
    let fits = format!("event.x == \"{}\"", "é".repeat(CHARACTERS_MAX - 13));
    assert_eq!(fits.chars().count(), CHARACTERS_MAX);
    assert!(Condition::compile(&fits).is_ok());
    assert_eq!(refused(&format!("{fits} ")), "1025 characters, more than 1024");

    let nested = |depth| format!("{}event.x{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Condition::compile(&nested(NESTING_MAX)).is_ok());
    assert_eq!(refused(&nested(NESTING_MAX + 1)), "nested deeper than 16 at character 17");
    let signs = |count| format!("{}event.x", "! ".repeat(count));
    assert!(Condition::compile(&signs(NESTING_MAX)).is_ok());
    assert_eq!(refused(&signs(NESTING_MAX + 1)), "nested deeper than 16 at character 33");
    // Brackets in strings and comments are text.
    let text =
        format!("event.x == \"{0}\\\"{0}\" || event.x == r'{0}\\' || event.x == '''{0}' ''' // {0}", "(".repeat(17));
    assert!(Condition::compile(&text).is_ok());

    let chain = format!("event.a{}", "==event.a".repeat(100));
    assert_eq!(refused(&chain), "more than 64 operators inside each other at character 323");
}

#[test]
fn hostile_texts_are_answered() {
    let pieces = [
        "(", "[", "{", "!", "-", "a.", "a?", "a==", "a in ", "\"", "'''", "a(", "a{a:", "\\", "é", "\0", "r'", "//",
        "`", "1e", "0x",
    ];
    for piece in pieces {
        let text: String = piece.chars().cycle().take(CHARACTERS_MAX).collect();
        assert!(Condition::compile(&text).is_err(), "{piece}");
    }
}

#[test]
fn a_condition_shows_its_text_and_is_shared() {
    fn shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let condition = Condition::compile("event.x").unwrap();
    shared(&condition);
    assert_eq!(condition.text(), "event.x");
    assert_eq!(format!("{condition:?}"), "Condition(\"event.x\")");
}

#[test]
fn the_reference_says_what_is_taken_and_what_is_refused() {
    let page = include_str!("../../../docs/reference/conditions.md");
    let lines = |fence: &str| {
        let begin = format!("\n```{fence}\n");
        let blocks = page.split(&begin).skip(1);
        let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines());
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let (taken, not) = (lines("cel"), lines("cel-refused"));
    assert!(taken.len() > 5 && not.len() > 3);
    for condition in taken {
        assert!(Condition::compile(&condition).is_ok(), "{condition}");
    }
    for condition in not {
        assert!(refused(&condition).contains("not available"), "{condition}");
    }
}
