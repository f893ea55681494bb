//! What goes beyond comparisons: arithmetic, choices, what may be absent, texts, lists.

use super::*;

const ORDER: &str = r#"{"qty":3,"price":2.5,"big":9223372036854775807,"text":" \u00c9tch-07 ","tags":["hot","n\u00e9w",7],
    "items":[{"id":1,"ok":true},{"id":2,"ok":false},{"id":2}],"map":{"a":1,"b":null,"\u0061":2},"empty":[],"zero":0,"n":"12","huge":1e400}"#;

#[test]
fn they_hold_or_not() {
    let holds = [
        "event.qty + 2 == 5 && event.qty - 5 == -2 && event.qty * event.price == 7.5 && -event.qty == -3",
        "event.qty / 2 == 1 && event.qty % 2 == 1 && -7 / 2 == -3 && event.price / 2 == 1.25 && 1 + 2 * 3 == 7",
        "event.big + 1 == 9223372036854775808u && event.big - 1 < event.big",
        "event.qty > 2 ? event.price == 2.5 : false",
        "(event.zero == 0 ? event.qty : event.missing) == 3",
        "event.?missing.orValue(7) == 7 && event.?qty.orValue(7) == 3 && event[?'qty'].orValue(7) == 3",
        "event.?map.b.orValue(1) == null && event.?a.?b.orValue('x') == 'x' && event.?qty.x.orValue(1) == 1",
        "origin.?node.orValue('none') == 'none' && origin.?pod.orValue('none') == 'etcher-0'",
        "event.text.trim() == 'Étch-07' && event.text.trim().lowerAscii() == 'Étch-07' && 'aB'.upperAscii() == 'AB'",
        "event.text.matches('^ .tch-[0-9]{2} $') && !event.text.matches('^x') && origin.pod.matches('er-')",
        "event.text.contains(string(0) + '7') && event.text.contains(event.n) == false",
        "size(event.text) == 9 && event.tags.size() == 3 && size(event.map) == 2 && size(event.empty) == 0 && size('é') == 1",
        "string(event.qty) == '3' && string(2.0) == '2' && string(event.price) == '2.5' && string(true) == 'true'",
        "int(event.n) == 12 && int(2.9) == 2 && int(-2.9) == -2 && double('2.5') == event.price && double(event.qty) == 3.0",
        "event.tags[0] == 'hot' && event.tags[1] == 'néw' && event.items[1].id == 2 && event.items[2]['id'] == 2",
        "has(event.items[0].ok) && !has(event.items[2].ok) && !has(event.items[9].ok) && !has(event.tags[0].x)",
        "'hot' in event.tags && 7 in event.tags && !('cold' in event.tags) && 'a' in event.map && !('c' in event.map)",
        "event.items.exists(i, i.id == 2) && event.items.all(i, i.id > 0) && event.items.exists_one(i, i.id == 1)",
        "!event.items.exists_one(i, i.id == 2) && event.empty.all(i, i == 1) && !event.empty.exists(i, true)",
        "event.tags.exists(t, t == 'hot' && event.qty == 3) && event.items.exists(i, i.?ok.orValue(true))",
        "event.items.exists(i, has(i.ok) && !i.ok) && event.items[0].?none.orValue(1) == 1",
        // One that decides does so whatever fails beside it.
        "event.items.exists(i, i.ok) && !event.items.all(i, i.ok)",
        "event.map.a == 2",
    ];
    for condition in holds {
        assert_eq!(eval(condition, ORDER), Ok(true), "{condition}");
        assert_eq!(eval(&format!("!({condition})"), ORDER), Ok(false), "{condition}");
    }
}

#[test]
fn what_has_no_answer_says_why() {
    use EvalFailure::{Absent, Arithmetic, TooLarge, TypeMismatch};
    let failures = [
        ("event.qty / event.zero == 1", Arithmetic),
        ("event.qty % 0 == 1", Arithmetic),
        ("event.price / 0 == 1", Arithmetic),
        ("event.big * event.big > 1", Arithmetic),
        ("-event.big - 2 < 0", Arithmetic),
        ("int(1e300) == 1", Arithmetic),
        ("event.price % 2 == 0", TypeMismatch),
        ("event.text + 1 == 1", TypeMismatch),
        ("event.qty + event.text == ''", TypeMismatch),
        ("-event.text == 1", TypeMismatch),
        ("event.missing + 1 == 2", Absent),
        ("event.qty ? true : false", TypeMismatch),
        ("event.?missing.orValue(event.none) == 1", Absent),
        ("event.qty.matches('3')", TypeMismatch),
        ("size(event.qty) == 1", TypeMismatch),
        ("int(event.text) == 1", TypeMismatch),
        ("event.tags[3] == 1", Absent),
        ("event.map[0] == 1", TypeMismatch),
        ("event.tags[0].x == 1", TypeMismatch),
        ("event.items[2].ok", Absent),
        ("1 in event.qty", TypeMismatch),
        ("event.items[0] in event.items", TypeMismatch),
        ("string(event.huge) == 'inf'", Arithmetic),
        ("1 in event.map", TypeMismatch),
        ("event.map.exists(k, true)", TypeMismatch),
        ("event.items.all(i, i.ok != null)", Absent),
        ("event.items.exists(i, i.id + i.ok == 1)", TypeMismatch),
        ("event.items.exists_one(i, i.ok)", Absent),
    ];
    for (condition, failure) in failures {
        assert_eq!(eval(condition, ORDER), Err(failure), "{condition}");
    }
    let long = |elements: usize, last: &str| format!(r#"{{"a":[{}{last}]}}"#, "0,".repeat(elements - 1));
    assert_eq!(eval("event.a.exists(x, x == 1)", &long(LIST_ELEMENTS_MAX, "1")), Ok(true));
    assert_eq!(eval("event.a.exists(x, x == 1)", &long(LIST_ELEMENTS_MAX + 1, "1")), Err(TooLarge));
    assert_eq!(eval("event.a.all(x, x == 1)", &long(LIST_ELEMENTS_MAX + 1, "1")), Ok(false), "it is decided before");
    assert_eq!(eval("1 in event.a", &long(10 * LIST_ELEMENTS_MAX, "1")), Ok(true));
    // However often something large is looked at, it is so many times the event at most.
    let large =
        format!(r#"{{"l":[{}0],"t":"{}","s":[{}0]}}"#, "0,".repeat(99), "x".repeat(200_000), "0,".repeat(50_000));
    for condition in [
        "event.l.exists(i, event.t.contains('y'))",
        "event.l.exists(i, event.t.matches('y'))",
        "event.l.all(i, event.t == event.t)",
        "event.l.exists(i, size(event.s) == i)",
        "event.l.exists(i, 1 in event.s)",
        "event.l.exists(i, event.s[50000] == 1)",
        "event.l.exists(i, event.t + 'x' == 'y')",
    ] {
        assert_eq!(eval(condition, &large), Err(TooLarge), "{condition}");
    }
    assert_eq!(eval("event.l.all(i, i == 0) && !event.t.contains('y') && size(event.s) == 50001", &large), Ok(true));
    let half = format!(r#"{{"a":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX / 2 + 1));
    assert_eq!(eval("event.a + event.a == 'x'", &half), Err(TooLarge));
}

#[test]
fn what_can_be_known_before_is_refused() {
    let cases = [
        (
            "event.x + true == 1",
            "`+` is for two numbers or two strings: `event.x` is a field and `true` is a boolean at character 9",
        ),
        (
            "'a' + 1 == 'a1'",
            "`+` is for two numbers or two strings: `\"a\"` is a string and `1` is a number at character 5",
        ),
        ("event.x - 'a' == 1", "`-` is for numbers, `\"a\"` is a string at character 11"),
        ("-origin.pod == 1", "`-` is for numbers, `origin.pod` is a string at character 8"),
        ("event.x + 1", "a number, not a condition at character 9"),
        ("event.x + 1 == 'a'", "a number and `\"a\"` is a string: they are never equal at character 13"),
        ("size(event.x)", "a number, not a condition at character 5"),
        ("size(3) == 1", "`size` is for strings, lists and objects, `3` is a number at character 5"),
        ("size() == 1", "`size` takes one string, list or object, like `size(event.a)` at character 5"),
        ("origin.pod ? true : false", "`origin.pod` is a string, not what stands before `?` at character 7"),
        ("true ? 1 : 2", "a number, not a condition at character 6"),
        ("event.x.matches('(')", "no regular expression: unclosed group at its character 1 at character 17"),
        ("event.x.matches(event.y)", "`matches` takes one constant string, a regular expression at character 16"),
        ("matches(event.x, 'a')", "`matches` is called on a field, like `event.x.matches(\"a.*\")` at character 8"),
        ("event.x.trim(1) == 'a'", "`trim` takes nothing at character 13"),
        ("event.x.startsWith(3)", "`startsWith` takes one string, `3` is a number at character 20"),
        ("int(true) == 1", "`int` is for strings and numbers, `true` is a boolean at character 4"),
        ("event.x.orValue(1) == 1", OR_VALUE),
        ("has(event.?x.y)", "`has` never fails: its field is written without `?` at character 4"),
        ("event.x in [?'a']", "an element with `?` is not available in conditions at character 9"),
        ("event.x in origin.pod", "`in` takes a list, `origin.pod` is a string at character 18"),
        ("event[0] == 1", "`event` alone is not a value: name a field of it, like `event.level` at character 6"),
        ("event.x[-1] == 1", "the number of an element is from 0 to 65535 at character 10"),
        ("origin.pod[0] == 'a'", "the fields of `origin` are strings and have no elements at character 11"),
        (
            "event.a.exists(x)",
            "`exists` takes a name for an element and a condition: `event.a.exists(x, x > 1)` at character 15",
        ),
        ("event.a.exists(x, 3)", "`3` is a number, not a condition at character 19"),
        ("event.a.exists(x, y == 1)", "unknown variable `y` at character 19; did you mean `x`?"),
        ("event.a.exists(x, true) && x == 1", "unknown variable `x` at character 28; did you mean `event.x`?"),
        (
            "event.a.exists(event, event == 1)",
            "`event` is what an element of the list would be called: take another name at character 15",
        ),
        (
            "origin.pod.exists(x, x == 'a')",
            "`all`, `exists` and `exists_one` are for lists, `origin.pod` is a string at character 18",
        ),
        (
            "event.a.exists(x, event.b.all(y, y == x))",
            "a macro inside another: what that costs is not linear in the event at character 30",
        ),
    ];
    for (condition, text) in cases {
        assert_eq!(refused(condition), text, "{condition}");
    }
}

const OR_VALUE: &str =
    "`orValue` is for a field that is read with `?`, and takes one value: `event.?a.orValue(0)` at character 16";

#[test]
fn a_condition_says_what_it_costs_and_reads() {
    let cases = [
        ("origin.pod.contains('a')", Cost::Origin),
        ("event.a.b == 1 && event.c > event.a.b - 2 * 3", Cost::Walk),
        ("event.a.contains('x') || event.b == 1", Cost::Text),
        ("event.a in event.b", Cost::Text),
        ("size(event.a) > 1 && origin.pod.matches('a')", Cost::Text),
        ("event.a.matches('x.*y')", Cost::Pattern),
        ("event.a.exists(x, x == 1)", Cost::List),
    ];
    for (condition, cost) in cases {
        assert_eq!(Condition::compile(condition).unwrap().cost(), cost, "{condition}");
    }
    let condition = Condition::compile("event.a.b == 1 && has(event.c[0].d) && event.e.all(x, x.f)").unwrap();
    assert_eq!(condition.fields(), [vec!["a", "b"], vec!["c"], vec!["e"]]);
}
