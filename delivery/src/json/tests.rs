use std::cmp::Ordering;

use proptest::prelude::*;
use proptest::sample::select;
use serde::de::IgnoredAny;
use serde_json::Value as Tree;
use serde_json::value::RawValue;

use super::*;

const RESERVED: &str = crate::event::RESERVED_MEMBER;

fn space() -> impl Strategy<Value = &'static str> {
    select(&["", "", "", "", " ", "\n", "\r\n", "\t "][..])
}

fn key() -> impl Strategy<Value = String> {
    let keys = ["a", "\\u0061", "b", "c", "", "é", "\\u00e9", "_spillway", "\\u005fspill\\u0077ay", "_spillwa", "\\\""];
    select(keys.to_vec()).prop_map(|key| format!("\"{key}\""))
}

fn string() -> impl Strategy<Value = String> {
    let pieces = [
        "a",
        "}",
        "]",
        "{",
        ",",
        " ",
        "é",
        "\u{2028}",
        "𝄞",
        "some longer plain text",
        "\\n",
        "\\\"",
        "\\\\",
        "\\/",
        "\\u0000",
        "\\u00E9",
        "\\ud834\\udd1e",
        "\u{7f}",
    ];
    prop::collection::vec(select(pieces.to_vec()), 0..6).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn scalar() -> impl Strategy<Value = String> {
    let scalars = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-0.0",
        "1",
        "-1.5",
        "2e3",
        "1E-2",
        "9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
    ];
    prop_oneof![select(scalars.to_vec()).prop_map(str::to_owned), string()]
}

fn object_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (space(), key(), space(), space(), value, space());
    let member = member.prop_map(|(a, key, b, c, value, d)| format!("{a}{key}{b}:{c}{value}{d}"));
    (space(), prop::collection::vec(member, 0..5)).prop_map(|(space, members)| match members.len() {
        0 => format!("{{{space}}}"),
        _ => format!("{{{}}}", members.join(",")),
    })
}

fn array_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let element = (space(), value, space()).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
    prop::collection::vec(element, 0..5).prop_map(|elements| format!("[{}]", elements.join(",")))
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 40, 5, |inner| prop_oneof![object_of(inner.clone()), array_of(inner)])
}

fn object() -> impl Strategy<Value = String> {
    object_of(value())
}

/// Bytes that are nearly JSON: a few bytes replaced, put in, taken out, or the end cut off.
fn damaged(json: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let bytes: Vec<u8> = b"{}[]:,\"\\u0d8Ee+-. \n\x00\x1f\x7f\x80\xc3\xa9\xed\xff/tn".to_vec();
    let damage = (any::<prop::sample::Index>(), select(bytes), 0..4_u8);
    (json, prop::collection::vec(damage, 1..4)).prop_map(|(json, damages)| {
        let mut bytes = json.into_bytes();
        for (index, byte, kind) in damages {
            let at = index.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => bytes[at] = byte,
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(bytes.len() / 2)),
            }
        }
        bytes
    })
}

/// Tokens in any order.
fn tokens() -> impl Strategy<Value = Vec<u8>> {
    let tokens: [&[u8]; 26] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"a\"",
        b"\"b\":1",
        b"null",
        b"tru",
        b"true",
        b"0",
        b"00",
        b"-",
        b"1.",
        b".5",
        b"1e",
        b"1e5",
        b" ",
        b"\n",
        b"\"",
        b"\\",
        b"\"\\ud800\"",
        b"\"\\udc00\\ud800\"",
        b"\"\xc3\"",
        b"\"\\u12\"",
    ];
    prop::collection::vec(select(tokens.to_vec()), 0..12).prop_map(|tokens| tokens.concat())
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        object().prop_map(String::into_bytes),
        damaged(object()),
        damaged(array_of(value())),
        tokens(),
        tokens().prop_map(|tokens| [b"{\"a\":".as_slice(), &tokens, b"}"].concat()),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

/// What `serde_json` says. It refuses numbers beyond `f64`, which are JSON: `None` when only the syntax is known.
fn read_by_serde(bytes: &[u8]) -> Result<Option<Tree>, ()> {
    match serde_json::from_slice(bytes) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.to_string().starts_with("number out of range") => {
            serde_json::from_slice::<IgnoredAny>(bytes).map(|_| None).map_err(drop)
        }
        Err(_) => Err(()),
    }
}

fn descend<'t>(tree: &'t Tree, path: &[String]) -> Result<&'t Tree, Found> {
    path.iter().try_fold(tree, |tree, key| tree.as_object().ok_or(Found::Blocked)?.get(key).ok_or(Found::Absent))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_object_is_valid_when_serde_says_so(bytes in any_bytes()) {
        let ours = validate_object(&bytes);
        match read_by_serde(&bytes) {
            Ok(Some(tree)) => prop_assert_eq!(ours.is_ok(), tree.is_object(), "{:?} {:?}", bytes.escape_ascii().to_string(), ours),
            Ok(None) => {}
            Err(()) => prop_assert!(ours.is_err(), "{}", bytes.escape_ascii()),
        }
        if let Err(error) = ours {
            prop_assert!(error.offset <= bytes.len());
        }
    }

    #[test]
    fn an_object_is_described(before in space(), json in object(), after in space()) {
        let bytes = format!("{before}{json}{after}").into_bytes();
        let info = validate_object(&bytes).unwrap();
        let tree: Tree = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(&bytes[info.start..info.end], json.as_bytes());
        let breaks = format!("{before}{json}").contains(['\n', '\r']);
        prop_assert!(!json.contains(['\n', '\r']) || info.has_line_break);
        prop_assert!(!info.has_line_break || breaks || after.contains('\n'));
        prop_assert_eq!(info.has_reserved, tree.as_object().unwrap().contains_key(RESERVED));
        prop_assert_eq!(info.is_blank, tree.as_object().unwrap().is_empty() && json != "{}");
    }

    #[test]
    fn a_normalized_object_lacks_only_the_reserved_member(json in object()) {
        let mut out = Vec::new();
        normalize_into(json.as_bytes(), &mut out);
        let mut expected: Tree = serde_json::from_str(&json).unwrap();
        expected.as_object_mut().unwrap().remove(RESERVED);
        prop_assert_eq!(&serde_json::from_slice::<Tree>(&out).unwrap(), &expected, "{}", out.escape_ascii());
        prop_assert!(validate_object(&out).unwrap().is_plain());
        if validate_object(json.as_bytes()).unwrap().is_plain() {
            prop_assert_eq!(&out[..], json.as_bytes());
        }
    }

    #[test]
    fn an_object_takes_one_more_member(json in object()) {
        let (mut event, mut out) = (Vec::new(), Vec::new());
        normalize_into(json.as_bytes(), &mut event);
        begin_extra_member(&mut out, &event);
        prop_assert_eq!(extra_member_bytes(event.len()), out.len());
        out.extend_from_slice(b"\"more\":1}");
        let mut expected: Tree = serde_json::from_slice(&event).unwrap();
        expected["more"] = 1.into();
        prop_assert_eq!(serde_json::from_slice::<Tree>(&out).unwrap(), expected);
    }

    #[test]
    fn fields_are_found_as_serde_finds_them(
        json in object(),
        paths in prop::collection::vec(prop::collection::vec(select(&["a", "b", "c", "", "é", "\""][..]), 1..4), 0..6),
    ) {
        let paths: Vec<Vec<String>> = paths.iter().map(|path| path.iter().copied().map(str::to_owned).collect()).collect();
        let compiled = Paths::new(&paths);
        let mut found = vec![Found::Blocked; compiled.slots()];
        compiled.find(json.as_bytes(), &mut found);
        let tree: Tree = serde_json::from_str(&json).unwrap();
        for path in &paths {
            let found = found[compiled.slot(path).unwrap()];
            match descend(&tree, path) {
                Ok(value) => {
                    let bytes = found.of(json.as_bytes()).unwrap();
                    prop_assert_eq!(&serde_json::from_slice::<Tree>(bytes).unwrap(), value, "{:?} in {}", path, json);
                    prop_assert_eq!(bytes.trim_ascii(), bytes);
                }
                Err(expected) => prop_assert_eq!(found, expected, "{:?} in {}", path, json),
            }
        }
    }

    #[test]
    fn a_string_means_what_serde_reads(json in string(), other in string()) {
        let raw = &json.as_bytes()[1..json.len() - 1];
        let (meant, other): (String, String) = (serde_json::from_str(&json).unwrap(), serde_json::from_str(&other).unwrap());
        let text = Text::from_raw(raw);
        prop_assert_eq!(&*text.unescape(), meant.as_bytes());
        prop_assert!(text.is(meant.as_bytes()));
        prop_assert_eq!(text.is(other.as_bytes()), meant == other);
    }

    #[test]
    fn a_string_is_written_as_serde_writes_it(text in any::<String>(), plain in "[ -~\u{0}-\u{1f}]{0,40}") {
        for text in [text, plain] {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn an_array_is_split_as_serde_splits_it(bytes in prop_oneof![
        array_of(value()).prop_map(String::into_bytes), damaged(array_of(value())), tokens(),
        tokens().prop_map(|tokens| [b"[".as_slice(), &tokens, b"]"].concat()),
    ]) {
        let ours: Result<Vec<Element>, JsonError> = split_values(&bytes).collect();
        match read_by_serde(&bytes) {
            Ok(Some(Tree::Array(trees))) => {
                let raw: Vec<&RawValue> = serde_json::from_slice(&bytes).unwrap();
                let ours = ours.unwrap();
                prop_assert_eq!(ours.len(), trees.len());
                for ((element, raw), tree) in ours.iter().zip(raw).zip(trees) {
                    let span = &bytes[element.span.clone()];
                    prop_assert_eq!(span, raw.get().as_bytes());
                    prop_assert_eq!(element.object.is_some(), tree.is_object());
                    if let Some(info) = element.object {
                        let alone = validate_object(span).unwrap();
                        prop_assert_eq!(info.start..info.end, element.span.clone());
                        let flags = |info: &ObjectInfo| (info.has_line_break, info.has_reserved, info.is_blank);
                        prop_assert_eq!(flags(&info), flags(&alone));
                    }
                }
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(()) => prop_assert!(ours.is_err(), "{}", bytes.escape_ascii()),
        }
    }

    #[test]
    fn bytes_that_are_no_json_do_no_harm(bytes in any_bytes()) {
        let paths = Paths::new([vec!["a"], vec!["a", "b"], vec!["b", "a", "c"]]);
        let mut found = vec![Found::Absent; paths.slots()];
        paths.find(&bytes, &mut found);
        for found in found {
            let _of = found.of(&bytes).map(Value::read);
        }
        let mut out = Vec::new();
        normalize_into(&bytes, &mut out);
        prop_assert!(out.len() <= bytes.len() + 2);
        begin_extra_member(&mut out, &bytes);
        let _text = Text::from_raw(&bytes).unescape();
    }
}

#[test]
fn a_fault_is_named_with_its_place() {
    let cases: [(&[u8], usize, &str); 32] = [
        (b"", 0, "unexpected end of input"),
        (b"  ", 2, "unexpected end of input"),
        (b"[1]", 0, "expected an object"),
        (b"{", 1, "unexpected end of input"),
        (b"{1", 1, "expected a key in double quotes or `}`"),
        (b"{\"a\":1,}", 7, "expected a key in double quotes"),
        (b"{\"a\" 1}", 5, "expected `:`"),
        (b"{\"a\":}", 5, "expected a value"),
        (b"{\"a\":1 \"b\":2}", 7, "expected `,` or `}`"),
        (b"{\"a\":[1 2]}", 8, "expected `,` or `]`"),
        (b"{\"a\":[,]}", 6, "expected a value or `]`"),
        (b"{\"a\":[1}", 7, "expected `,` or `]`"),
        (b"{\"a\":1]", 6, "expected `,` or `}`"),
        (b"{} x", 3, "unexpected text after the object"),
        (b"{}\0", 2, "unexpected text after the object"),
        (b"{\"a\":\"b\nc\"}", 7, "control character in a string"),
        (b"{\"a\":\"long enough text \0 and on\"}", 23, "control character in a string"),
        (b"{\"a\":\"", 6, "unexpected end of input"),
        (b"{\"a\":\"\\x\"}", 6, "invalid escape in a string"),
        (b"{\"a\":\"\\", 7, "unexpected end of input"),
        (b"{\"a\":\"\\u12g4\"}", 6, "expected four hexadecimal digits after `\\u`"),
        (b"{\"a\":\"\\ud800\"}", 6, "half a surrogate pair in a string"),
        (b"{\"a\":\"\\udc00\"}", 6, "half a surrogate pair in a string"),
        (b"{\"a\":\"\\ud800\\u0041\"}", 12, "half a surrogate pair in a string"),
        (b"{\"a\":\"\xc3(\"}", 6, "invalid UTF-8"),
        (b"{\"a\xff\":1}", 3, "invalid UTF-8"),
        (b"{\"a\":01}", 6, "leading zero in a number"),
        (b"{\"a\":-}", 6, "expected a digit"),
        (b"{\"a\":1.}", 7, "expected a digit"),
        (b"{\"a\":1e+}", 8, "expected a digit"),
        (b"{\"a\":nul}", 5, "expected a value"),
        (b"\xef\xbb\xbf{}", 0, "expected an object"),
    ];
    for (bytes, offset, reason) in cases {
        assert_eq!(validate_object(bytes), Err(JsonError { offset, reason }), "{}", bytes.escape_ascii());
    }
    assert_eq!(JsonError { offset: 3, reason: "expected `:`" }.to_string(), "expected `:` at byte 3");
}

#[test]
fn an_array_ends_at_its_first_fault() {
    let split = |body: &str| split_values(body.as_bytes()).map(|e| e.map(|e| e.span)).collect::<Vec<_>>();
    let fault = |offset, reason| Err(JsonError { offset, reason });
    assert_eq!(split("[]"), []);
    assert_eq!(split(" [ {} , 1\n] "), [Ok(3..5), Ok(8..9)]);
    assert_eq!(split("[{},{\"a\"}, {}]"), [Ok(1..3), fault(8, "expected `:`")]);
    assert_eq!(split("[1,]"), [Ok(1..2), fault(3, "expected a value")]);
    assert_eq!(split("[,1]"), [fault(1, "expected a value or `]`")]);
    assert_eq!(split("[1 2]"), [Ok(1..2), fault(3, "expected `,` or `]`")]);
    assert_eq!(split("[1"), [Ok(1..2), fault(2, "unexpected end of input")]);
    assert_eq!(split("[1]x"), [Ok(1..2), fault(3, "unexpected text after the array")]);
    assert_eq!(split("{}"), [fault(0, "expected an array")]);
    assert_eq!(split(""), [fault(0, "unexpected end of input")]);
}

#[test]
fn brackets_nest_to_the_limit() {
    let nested = |arrays: usize| format!("{{\"a\":{}{}}}", "[".repeat(arrays), "]".repeat(arrays));
    let most = DEPTH_MAX as usize - 1;
    assert!(validate_object(nested(most).as_bytes()).is_ok());
    let fault = JsonError { offset: 5 + most, reason: "nested deeper than 128" };
    assert_eq!(validate_object(nested(most + 1).as_bytes()), Err(fault));
    assert_eq!(validate_object(nested(10_000).as_bytes()), Err(fault));

    // The finder trusts its input and has no limit of its own, but no recursion either.
    let paths = Paths::new([["b"]]);
    let mut found = vec![Found::Absent; paths.slots()];
    let json = format!("{{\"a\":{}{},\"b\":7}}", "[".repeat(100_000), "]".repeat(100_000));
    paths.find(json.as_bytes(), &mut found);
    assert_eq!(found[1].of(json.as_bytes()), Some(b"7".as_slice()));
}

#[test]
fn a_number_beyond_doubles_is_valid() {
    assert!(validate_object(b"{\"a\":1e400,\"b\":-1e-400}").is_ok());
    assert!(matches!(Value::read(b"1e400"), Value::Number(Number::Float(float)) if float == f64::INFINITY));
}

#[test]
fn numbers_compare_by_value() {
    use Ordering::{Equal, Greater, Less};
    let cases = [
        ("1", "1.0", Equal),
        ("-0.0", "0", Equal),
        ("-0", "0", Equal),
        ("9007199254740993", "9007199254740992", Greater),
        ("9007199254740993", "9007199254740992.0", Greater),
        ("9007199254740991", "9007199254740992.0", Less),
        ("9223372036854775807", "9223372036854775808", Less),
        ("9223372036854775807", "9223372036854775807.0", Less),
        ("-9223372036854775808", "-9223372036854775808.0", Equal),
        ("-9223372036854775808", "-9223372036854775809", Equal),
        ("18446744073709551615", "18446744073709551616", Less),
        ("18446744073709551615", "-1", Greater),
        ("1", "1.5", Less),
        ("2", "1.5", Greater),
        ("-1", "-1.5", Greater),
        ("-2", "-1.5", Less),
        ("0", "-0.5", Greater),
        ("0", "5e-324", Less),
        ("1e400", "18446744073709551615", Greater),
        ("-1e400", "-9223372036854775808", Less),
        ("1e400", "1e500", Equal),
    ];
    for (left, right, order) in cases {
        let (left, right) = (Number::read(left.as_bytes()), Number::read(right.as_bytes()));
        assert_eq!(left.compare(right), Some(order), "{left:?} {right:?}");
        assert_eq!(right.compare(left), Some(order.reverse()), "{right:?} {left:?}");
    }
    assert_eq!(Number::Uint(1).compare(Number::Int(1)), Some(Equal));
    assert_eq!(Number::Int(1).compare(Number::Float(f64::NAN)), None);
}

#[test]
fn a_place_has_a_line_and_a_column() {
    let body = "{\"a\":1}\nné𝄞x".as_bytes();
    assert_eq!(line_column(body, 0), (1, 1));
    assert_eq!(line_column(body, 7), (1, 8));
    assert_eq!(line_column(body, 8), (2, 1));
    assert_eq!(line_column(body, 15), (2, 4));
    assert_eq!(line_column(body, 999), (2, 5));
}

#[test]
fn one_more_member_needs_a_comma_only_behind_others() {
    let begun = |object: &str| {
        let mut out = Vec::new();
        begin_extra_member(&mut out, object.as_bytes());
        String::from_utf8(out).unwrap()
    };
    assert_eq!(begun("{}"), "{");
    assert_eq!(begun("{\"a\":1 }"), "{\"a\":1 ,");
    assert_eq!(begun("{\"a\":{}}"), "{\"a\":{},");
}

#[test]
fn the_reserved_member_goes_with_the_right_comma() {
    let normalized = |object: &str| {
        let mut out = Vec::new();
        normalize_into(object.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(normalized("{\"_spillway\":{\"id\":1}}"), "{}");
    assert_eq!(normalized("{\"_spillway\":1,\"a\":2}"), "{\"a\":2}");
    assert_eq!(normalized("{\"a\":2,\"\\u005fspillway\":[1,2]}"), "{\"a\":2}");
    assert_eq!(normalized("{\"a\":2, \"_spillway\":1 ,\"b\":3, \"_spillway\":1}"), "{\"a\":2,\"b\":3}");
    assert_eq!(normalized("{\"a\":{\"_spillway\":1}}"), "{\"a\":{\"_spillway\":1}}");
    assert_eq!(normalized("{\n\t\"a\": 1\r\n}"), "{ \t\"a\": 1  }");
    assert_eq!(normalized("{ \n }"), "{}");
}

#[test]
fn a_character_is_escaped_wherever_it_stands() {
    for length in 0..=100 {
        for (at, character) in (0..length).flat_map(|at| ['"', '\\', '\0', '\x1f', ' ', 'é'].map(|one| (at, one))) {
            let text: String = (0..length).map(|place| if place == at { character } else { 'a' }).collect();
            let mut out = Vec::new();
            write_string(&mut out, &text);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
