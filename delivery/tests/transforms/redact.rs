//! `Redact` against the reference, by its bytes, and at its limits.

use proptest::prelude::*;
use proptest::sample::select;
use spillway_delivery::event::EVENT_BYTES_MAX;
use spillway_delivery::transform::{
    Action, Builtin, Counts, Failure, FieldPath, Finders, OnError, PATTERN_TEXT_BYTES_MAX, Redact,
};

use super::{Tree, Wanted, chain, event, origin, paths, paths_of, run};

/// What stands in the place of what was found: a quote is escaped.
const REPLACEMENT: &str = "<\"é>";

/// A pattern of which the reference knows what it finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found {
    Words,
    Signs,
    Start,
    End,
    Pair,
    Clef,
}

impl Found {
    pub(super) fn pattern(self) -> &'static str {
        match self {
            Self::Words => "o[a-z]*",
            Self::Signs => r#"[-"\\\n]"#,
            Self::Start => "(?s)^.b",
            Self::End => r"\bWARN$",
            Self::Pair => "[{]\"?(?<secret>[a-z]+)|ab",
            Self::Clef => r"\x{1d11e}\n?",
        }
    }

    /// Says where it finds something in a text, none in another.
    fn places(self, text: &str) -> Vec<(usize, usize)> {
        let lower = |from: usize| from + text[from..].bytes().take_while(u8::is_ascii_lowercase).count();
        let after =
            |before: &str| text.match_indices(before).map(|(at, _)| (at, at + before.len())).collect::<Vec<_>>();
        match self {
            Self::Words => {
                let mut places: Vec<(usize, usize)> = Vec::new();
                for (at, _) in text.match_indices('o') {
                    if places.last().is_none_or(|(_, end)| *end <= at) {
                        places.push((at, lower(at)));
                    }
                }
                places
            }
            Self::Signs => text
                .char_indices()
                .filter(|(_, sign)| matches!(sign, '-' | '"' | '\\' | '\n'))
                .map(|(at, sign)| (at, at + sign.len_utf8()))
                .collect(),
            Self::Start => {
                let second = text.chars().next().map_or(0, char::len_utf8);
                if text[second..].starts_with('b') { vec![(0, second + 1)] } else { Vec::new() }
            }
            Self::End => {
                let before = text.strip_suffix("WARN");
                let is_word = |before: &str| before.ends_with(|last: char| last.is_ascii_alphanumeric() || last == '_');
                before.filter(|before| !is_word(before)).map(|before| (before.len(), text.len())).into_iter().collect()
            }
            Self::Pair => {
                let mut places = after("ab");
                for open in after("{\"").into_iter().chain(after("{")) {
                    let end = lower(open.1);
                    places.extend((end > open.1).then_some((open.1, end)));
                }
                places
            }
            Self::Clef => {
                let ends = after("𝄞").into_iter();
                ends.map(|(at, end)| (at, end + usize::from(text[end..].starts_with('\n')))).collect()
            }
        }
    }
}

pub(super) fn action(finders: Finders, fields: Vec<FieldPath>) -> Action {
    let (replacement, on_error) = (REPLACEMENT.to_owned(), OnError::Keep);
    Action::Redact(Redact { finders, fields, replacement, on_error })
}

/// Takes out what the patterns find in the texts of these fields, of all where there are none.
pub(super) fn apply(patterns: &[Found], fields: &[Vec<String>], event: &mut Tree) {
    if fields.is_empty() {
        return texts(patterns, event);
    }
    for path in fields {
        let inside = path.iter().try_fold(&mut *event, |tree, key| match tree {
            Tree::Object(members) => members.get_mut(key),
            _ => None,
        });
        inside.into_iter().for_each(|tree| texts(patterns, tree));
    }
}

fn texts(patterns: &[Found], tree: &mut Tree) {
    match tree {
        Tree::Object(members) => members.values_mut().for_each(|value| texts(patterns, value)),
        Tree::Array(elements) => elements.iter_mut().for_each(|value| texts(patterns, value)),
        Tree::Text(text) => {
            let mut is_found = vec![0; text.len()];
            let mut places: Vec<(usize, usize)> = patterns.iter().flat_map(|pattern| pattern.places(text)).collect();
            places.sort_unstable();
            // Which of those that were joined each byte is of, from 1.
            let (mut number, mut last) = (0, 0);
            for (start, end) in places {
                number += usize::from(number == 0 || start >= last);
                last = end.max(last);
                is_found[start..end].fill(number);
            }
            let mut out = String::new();
            for (at, character) in text.char_indices() {
                match is_found[at] {
                    0 => out.push(character),
                    number if at == 0 || is_found[at - 1] != number => out.push_str(REPLACEMENT),
                    _ => {}
                }
            }
            *text = out;
        }
        Tree::Other(_) => {}
    }
}

pub(super) fn wanted() -> impl Strategy<Value = Wanted> {
    let all = vec![Found::Words, Found::Signs, Found::Start, Found::End, Found::Pair, Found::Clef];
    let fields = prop_oneof![1 => Just(Vec::new()), 1 => paths(3)];
    (prop::collection::vec(select(all), 1..4), fields).prop_map(|(patterns, fields)| Wanted::Redact(patterns, fields))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_redacted_is_nowhere_in_the_bytes(event in event()) {
        let finders = Finders::compile(&[], &["one", "WARN"]).unwrap();
        let redact = Redact { finders, fields: Vec::new(), replacement: String::new(), on_error: OnError::Keep };
        let chain = chain([Action::Redact(redact)]);
        let after = String::from_utf8(chain.apply(event.as_bytes(), &origin()).unwrap()).unwrap();
        // Duplicates that count for nothing are bytes as well.
        prop_assert!(!after.contains("one") && !after.contains("WARN") && !after.contains("o\\u006ee"), "{}", after);
        prop_assert_eq!(chain.apply(after.as_bytes(), &origin()).unwrap(), after.as_bytes());
    }
}

fn redact(known: &[Builtin], patterns: &[&str], fields: &[&str]) -> Redact {
    let finders = Finders::compile(known, patterns).unwrap();
    Redact { finders, fields: paths_of(fields), replacement: "[redacted]".into(), on_error: OnError::Keep }
}

#[test]
fn what_is_found_goes_and_all_other_bytes_stay() {
    for (known, patterns, fields, before, after) in [
        (
            &[Builtin::Email][..],
            &[][..],
            &[][..],
            r#"{ "a" : "to ann@example.test", "b" : [1.00,  {"c":"x"}] }"#,
            r#"{ "a" : "to [redacted]", "b" : [1.00,  {"c":"x"}] }"#,
        ),
        (&[], &["é\n"], &[], r#"{"a":"1\u00e9\n2\/","b":"\/"}"#, r#"{"a":"1[redacted]2/","b":"\/"}"#),
        (
            &[],
            &["x\""],
            &["a"],
            r#"{"a":{"b":["x\"","y"],"x":"x"},"c":"x\""}"#,
            r#"{"a":{"b":["[redacted]","y"],"x":"x"},"c":"x\""}"#,
        ),
        (
            &[],
            &["x"],
            &["a.b"],
            r#"{"a":{"b":"x"},"a":{"b":"x","b":1},"b":"x"}"#,
            r#"{"a":{"b":"[redacted]"},"a":{"b":"[redacted]","b":1},"b":"x"}"#,
        ),
        (&[], &["(?i)key"], &[], r#"{"key":"KEY"}"#, r#"{"key":"[redacted]"}"#),
        (&[Builtin::Email], &[], &[], r#"{"a":"ann\u0040example.test"}"#, r#"{"a":"[redacted]"}"#),
        (&[Builtin::Jwt, Builtin::Ipv4], &["x"], &[], r#"{"a":"10.0.0.1 x"}"#, r#"{"a":"[redacted] [redacted]"}"#),
        (&[], &["^a$"], &[], r#"{"a":"a","b":"ab"}"#, r#"{"a":"[redacted]","b":"ab"}"#),
    ] {
        let (events, counts) = run([Action::Redact(redact(known, patterns, fields))], before);
        assert_eq!(events, [after], "{known:?} {patterns:?} of {before}");
        assert_eq!(counts, [Counts { events: 1, changed: 1, ..Counts::default() }], "{before}");
    }
}

#[test]
fn what_is_no_text_stays() {
    let event = r#"{"a":4111111111111111,"b":true,"c":null,"4111111111111111":[{}],"d":"411111111111111"}"#;
    for fields in [&[][..], &["a", "b", "c", "d", "e.f", "a.x"]] {
        let (events, counts) = run([Action::Redact(redact(&[Builtin::CreditCard], &["1{13,14}"], fields))], event);
        assert_eq!(events.len(), 1);
        let expected = event.replace("\"d\":\"411111111111111\"", "\"d\":\"4[redacted]\"");
        assert_eq!(events[0], expected);
        assert_eq!(counts, [Counts { events: 1, changed: 1, ..Counts::default() }]);
    }
}

#[test]
fn what_fits_nowhere_goes_without_a_replacement() {
    let event = format!("{{\"a\":\"{}\",\"b\":\"x1\\n\"}}", "z".repeat(EVENT_BYTES_MAX - 21));
    let (events, counts) = run([Action::Redact(redact(&[], &["x[0-9]"], &["b"]))], &event);
    assert!(events[0].ends_with("\"b\":\"\\n\"}"), "never in the clear");
    assert_eq!((counts[0].changed, counts[0].failed[Failure::TooLarge as usize]), (1, 1));
    let dropping = Redact { on_error: OnError::Drop, ..redact(&[], &["x[0-9]"], &["b"]) };
    let (events, counts) = run([Action::Redact(dropping)], &event);
    assert_eq!((events.len(), counts[0].dropped), (0, 1));
}

#[test]
fn a_text_that_is_too_long_is_looked_at_for_what_is_known_alone() {
    let event = |bytes: usize| format!("{{\"a\":\"tok_1 {}a@b.cd\"}}", "z ".repeat(bytes / 2));
    let redact = redact(&[Builtin::Email], &["tok_[0-9]"], &[]);
    let (events, counts) = run([Action::Redact(redact.clone())], &event(PATTERN_TEXT_BYTES_MAX - 100));
    assert!(!events[0].contains("tok_1") && !events[0].contains('@'));
    assert_eq!(counts[0].failed, [0; 7]);
    let (events, counts) = run([Action::Redact(redact.clone())], &event(PATTERN_TEXT_BYTES_MAX));
    assert!(events[0].contains("tok_1") && !events[0].contains('@'));
    assert_eq!((counts[0].changed, counts[0].failed[Failure::TooLarge as usize]), (1, 1));
    let (events, _) =
        run([Action::Redact(Redact { on_error: OnError::Drop, ..redact })], &event(PATTERN_TEXT_BYTES_MAX));
    assert!(events.is_empty());
    let quiet = event(PATTERN_TEXT_BYTES_MAX).replace("tok_", "");
    let (_, counts) = run([Action::Redact(self::redact(&[], &["tok_[0-9]"], &[]))], &quiet);
    assert_eq!(counts[0].failed, [0; 7], "where nothing can be found, nothing fails");
    let beside = quiet.replace('}', ",\"b\":\"tok_1\"}");
    let (events, counts) = run([Action::Redact(self::redact(&[], &["tok_[0-9]"], &[]))], &beside);
    assert!(events[0].ends_with("\"b\":\"[redacted]\"}"));
    assert_eq!(
        (counts[0].changed, counts[0].failed),
        (1, [0; 7]),
        "what is found beside it is no matter of the large one"
    );
}
