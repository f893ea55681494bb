//! One line as a container runtime writes it: `<time> <stream> <P|F> <text>`. Pure.
//!
//! Limit: the time is copied as text after a check of its shape, never computed with; what is copied holds only digits
//! and `-:.+TZ`, so it needs no escaping, and is at most [`TIME_BYTES_MAX`] long.

use memchr::memchr;

use crate::sources::tail::assemble::{Form, Line, Slot, TIME_BYTES_MAX};

/// Lines of container runtimes.
#[derive(Debug, Default)]
pub(super) struct Cri;

impl Form for Cri {
    #[inline]
    fn parse<'a>(line: &'a [u8], _: &'a [u8]) -> Option<Line<'a>> {
        parse(line)
    }
}

/// Takes a line apart, `None` when it is not one of a container runtime.
#[inline]
fn parse(line: &[u8]) -> Option<Line<'_>> {
    parse_usual(line).or_else(|| parse_any(line))
}

/// The form `containerd` writes: nine digits of a second, UTC, every field at a fixed place.
#[inline]
fn parse_usual(line: &[u8]) -> Option<Line<'_>> {
    let (head, text) = line.split_first_chunk::<40>()?;
    let (stamp, rest) = head.split_first_chunk::<32>()?;
    if !has_usual_shape(stamp) || rest[6] != b'F' && rest[6] != b'P' || rest[7] != b' ' {
        return None;
    }
    let slot = match &rest[..6] {
        b"tdout " => Slot::Stdout,
        b"tderr " => Slot::Stderr,
        _ => return None,
    };
    Some(Line { time: &stamp[..30], slot, partial: rest[6] == b'P', text })
}

/// Compares without branches, so that it compiles to a few vector instructions.
#[inline]
fn has_usual_shape(stamp: &[u8; 32]) -> bool {
    const SHAPE: &[u8; 32] = b"0000-00-00T00:00:00.000000000Z s";
    let mut wrong = 0u8;
    for (byte, shape) in stamp.iter().zip(SHAPE) {
        let span = if *shape == b'0' { 9 } else { 0 };
        wrong |= u8::from(byte.wrapping_sub(*shape) > span);
    }
    wrong == 0
}

#[cold]
fn parse_any(line: &[u8]) -> Option<Line<'_>> {
    let (time, rest) = split_word(line, TIME_BYTES_MAX + 1)?;
    let (stream, rest) = split_word(rest, 7)?;
    let slot = match stream {
        b"stdout" => Slot::Stdout,
        b"stderr" => Slot::Stderr,
        _ => return None,
    };
    let (tags, text) = match memchr(b' ', rest) {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    let partial = match tags.split(|byte| *byte == b':').next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    is_rfc3339(time).then_some(Line { time, slot, partial, text })
}

fn split_word(line: &[u8], within: usize) -> Option<(&[u8], &[u8])> {
    let end = memchr(b' ', &line[..line.len().min(within)])?;
    Some((&line[..end], &line[end + 1..]))
}

fn is_rfc3339(time: &[u8]) -> bool {
    let Some((seconds, rest)) = time.split_first_chunk::<19>() else {
        return false;
    };
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    fits(seconds, b"0000-00-00T00:00:00") && (zone == b"Z" || fits(zone, b"+00:00") || fits(zone, b"-00:00"))
}

fn fits(text: &[u8], shape: &[u8]) -> bool {
    text.len() == shape.len()
        && text
            .iter()
            .zip(shape)
            .all(|(byte, shape)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &[u8] = b"2026-01-01T01:01:01.000000001Z";

    #[test]
    fn usual_lines_are_taken_apart() {
        let line = b"2026-01-01T01:01:01.000000001Z stdout F hello world";
        let expected = Line { time: TIME, slot: Slot::Stdout, partial: false, text: b"hello world" };
        assert_eq!(parse_usual(line), Some(expected));
        assert_eq!(parse_any(line), Some(expected));
        let line = b"2026-01-01T01:01:01.000000001Z stderr P ";
        let expected = Line { time: TIME, slot: Slot::Stderr, partial: true, text: b"" };
        assert_eq!(parse_usual(line), Some(expected));
        assert_eq!(parse_any(line), Some(expected));
    }

    #[test]
    fn rarer_forms_are_taken_apart() {
        for time in ["2026-01-01T01:01:01Z", "2026-01-01T01:01:01.5+02:00", "2026-01-01T01:01:01.123456789-11:30"] {
            for (tags, partial) in [("F", false), ("P", true), ("F:x:y", false)] {
                let line = format!("{time} stderr {tags} a b");
                let parsed = parse(line.as_bytes()).unwrap();
                assert_eq!((parsed.time, parsed.partial, parsed.text), (time.as_bytes(), partial, b"a b".as_slice()));
            }
        }
        assert_eq!(parse(b"2026-01-01T01:01:01.000000001Z stdout F").unwrap().text, b"");
    }

    #[test]
    fn other_lines_are_not_taken_for_one() {
        for line in [
            "",
            "hello",
            "2026-01-01T01:01:01.000000001Z stdout X hello",
            "2026-01-01T01:01:01.000000001Z stdin F hello",
            "2026-01-01T01:01:01.0000000012Z stdout F hello",
            "2026-01-01T01:01:01.000000001\" stdout F hello",
            "2026-01-01 01:01:01.000000001Z stdout F hello",
            "2026-01-01T01:01:01.Z stdout F hello",
            r#"{"log":"x","stream":"stdout","time":"2026-01-01T01:01:01Z"}"#,
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
