//! `ParseSeverity`: the words and numbers that programs have for how bad something is, as one of six words.

use super::Failure;
use crate::json::{Number, Value};

/// What numbers mean, which differs from one kind of program to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeverityNumbers {
    /// 0 (emergency) to 7 (debug), RFC 5424.
    Syslog,
    /// 10 (trace) to 60 (fatal) by tens, also of bunyan.
    Pino,
    /// 10 (debug) to 50 (critical) by tens, of the module `logging`.
    Python,
    /// 1 (trace) to 24 (fatal), four of each.
    OpenTelemetry,
}

/// What is written, from the least on.
const WORDS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// What is read besides, in lower case, and which of [`WORDS`] it is.
const SYNONYMS: [(&str, usize); 29] = [
    ("t", 0),
    ("trc", 0),
    ("verbose", 0),
    ("finest", 0),
    ("finer", 0),
    ("d", 1),
    ("dbg", 1),
    ("fine", 1),
    ("config", 1),
    ("i", 2),
    ("inf", 2),
    ("information", 2),
    ("informational", 2),
    ("notice", 2),
    ("w", 3),
    ("wrn", 3),
    ("warning", 3),
    ("e", 4),
    ("err", 4),
    ("severe", 4),
    ("f", 5),
    ("ftl", 5),
    ("c", 5),
    ("crit", 5),
    ("critical", 5),
    ("alert", 5),
    ("emerg", 5),
    ("emergency", 5),
    ("panic", 5),
];

/// Returns the word for a value of an event.
pub(super) fn severity(value: Value<'_>, numbers: Option<SeverityNumbers>) -> Result<&'static str, Failure> {
    let found = match value {
        Value::Number(Number::Int(number)) => of_number(number, numbers),
        Value::Number(_) => None,
        Value::String(text) => {
            let text = text.unescape();
            let text = text.trim_ascii();
            match std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
                Some(number) => of_number(number, numbers),
                None => of_word(text),
            }
        }
        _ => return Err(Failure::TypeMismatch),
    };
    found.map(|index| WORDS[index]).ok_or(Failure::Unparsed)
}

fn of_word(text: &[u8]) -> Option<usize> {
    let is = |word: &str| word.as_bytes().eq_ignore_ascii_case(text);
    WORDS.iter().position(|word| is(word)).or_else(|| {
        let synonym = SYNONYMS.iter().find(|(word, _)| is(word));
        synonym.map(|(_, index)| *index)
    })
}

fn of_number(number: i64, numbers: Option<SeverityNumbers>) -> Option<usize> {
    match (numbers?, number) {
        (SeverityNumbers::Syslog, 0..=2) => Some(5),
        (SeverityNumbers::Syslog, 3) => Some(4),
        (SeverityNumbers::Syslog, 4) => Some(3),
        (SeverityNumbers::Syslog, 5 | 6) => Some(2),
        (SeverityNumbers::Syslog, 7) => Some(1),
        // One in between, as libraries allow, is the level below it.
        (SeverityNumbers::Pino, 1..=100) => Some((number / 10 - 1).clamp(0, 5) as usize),
        (SeverityNumbers::Python, 1..=100) => Some((number / 10).clamp(0, 5) as usize),
        (SeverityNumbers::OpenTelemetry, 1..=24) => Some((number - 1) as usize / 4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, numbers: Option<SeverityNumbers>) -> Result<&'static str, Failure> {
        severity(Value::read(json.as_bytes()), numbers)
    }

    #[test]
    fn words_are_read_in_any_case() {
        for (json, word) in [
            (r#""TRACE""#, "trace"),
            (r#""Debug""#, "debug"),
            (r#"" INFO\t""#, "info"),
            (r#""Warning""#, "warn"),
            (r#""\u0065rr""#, "error"),
            (r#""E""#, "error"),
            (r#""CRITICAL""#, "fatal"),
            (r#""notice""#, "info"),
        ] {
            assert_eq!(read(json, None), Ok(word), "{json}");
        }
        assert_eq!(read(r#""warnung""#, None), Err(Failure::Unparsed));
        assert_eq!(read(r#""""#, None), Err(Failure::Unparsed));
        assert_eq!(read("true", None), Err(Failure::TypeMismatch));
        assert_eq!(read("[]", None), Err(Failure::TypeMismatch));
    }

    #[test]
    fn numbers_mean_what_is_said_and_nothing_by_themselves() {
        use SeverityNumbers::{OpenTelemetry, Pino, Python, Syslog};
        let of = |numbers, range: std::ops::RangeInclusive<i64>| {
            range.map(|number| read(&number.to_string(), Some(numbers)).unwrap_or("-")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(Syslog, -1..=8), "- fatal fatal fatal error warn info info debug -");
        assert_eq!(of(OpenTelemetry, 0..=9), "- trace trace trace trace debug debug debug debug info");
        assert_eq!(of(OpenTelemetry, 20..=25), "error fatal fatal fatal fatal -");
        for (number, pino, python) in [
            (0, None, None),
            (5, Some("trace"), Some("trace")),
            (10, Some("trace"), Some("debug")),
            (30, Some("info"), Some("warn")),
            (35, Some("info"), Some("warn")),
            (50, Some("error"), Some("fatal")),
            (60, Some("fatal"), Some("fatal")),
            (101, None, None),
        ] {
            let text = format!("\"{number}\"");
            assert_eq!((read(&text, Some(Pino)).ok(), read(&text, Some(Python)).ok()), (pino, python), "{number}");
        }
        assert_eq!(read("3", None), Err(Failure::Unparsed));
        assert_eq!(read("3.0", Some(Syslog)), Err(Failure::Unparsed));
    }
}
