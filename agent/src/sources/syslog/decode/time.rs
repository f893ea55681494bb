//! Times as messages write them. Pure.
//!
//! It guarantees: a time that does not exist, or that 64 bits of nanoseconds cannot tell, is none.

use spillway_delivery::clock::UnixNanos;

const NANOS: i128 = 1_000_000_000;

/// A day and a time of day, without a zone.
#[derive(Debug, Clone, Copy)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    /// Since midnight.
    nanos: i128,
}

/// Returns the number that digits are; none where there are no digits, others, or more than eight.
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    let is_one = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_one.then(|| digits.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
}

/// Returns what a time of RFC 3339 is, as RFC 5424 writes it: `2026-11-30T10:04:12.123456+01:00`, up to nine digits of a fraction.
pub(super) fn rfc3339(text: &[u8]) -> Option<UnixNanos> {
    let (date, rest) = text.split_at_checked(11)?;
    let [_, _, _, _, b'-', _, _, b'-', _, _, b'T'] = date else { return None };
    let field = |span: std::ops::Range<usize>| number(&date[span]).map(i64::from);
    let (nanos, zone) = of_day(rest)?;
    let civil = Civil { year: field(0..4)?, month: field(5..7)?, day: field(8..10)?, nanos };
    civil.unix_nanos(zone_seconds(zone)?)
}

/// What the time of RFC 3164 at the beginning of a text is, and how many bytes it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bsd {
    pub(super) time: UnixNanos,
    pub(super) bytes: usize,
}

/// Reads `Nov 30 10:04:12`, taken for UTC in the year that brings it nearest to the time of receipt; `Nov 30 2026 10:04:12` tells
/// its year, and both may have a fraction.
pub(super) fn bsd(text: &[u8], received: UnixNanos) -> Option<Bsd> {
    let mut parts = Parts { text, at: 0 };
    let month = month(parts.word()?)?;
    // A day of one digit has a space in front, or a zero, or nothing.
    let padded = usize::from(parts.rest().starts_with(b" "));
    parts.at += padded;
    let day = parts.word().filter(|day| (1..=2 - padded).contains(&day.len())).and_then(number)?;
    let year = match parts.rest() {
        [_, _, _, _, b' ', ..] => Some(parts.word().and_then(number)?),
        _ => None,
    };
    let clock = parts.rest();
    let clock = &clock[..memchr::memchr(b' ', clock).unwrap_or(clock.len())];
    let (nanos, behind) = of_day(clock)?;
    if !behind.is_empty() {
        return None;
    }
    let of = |year: i64| Civil { year, month, day: day.into(), nanos }.unix_nanos(0);
    let time = match year {
        Some(year) => of(year.into())?,
        None => nearest(of, received)?,
    };
    Some(Bsd { time, bytes: parts.at + clock.len() })
}

/// Returns the one of the times of a day in the years around `received` that is nearest to it; the 29th of February may have none.
fn nearest(of: impl Fn(i64) -> Option<UnixNanos>, received: UnixNanos) -> Option<UnixNanos> {
    // Off by one at most, as a year has 365.2425 days.
    let year = 1970 + received.div_euclid(31_556_952_000_000_000);
    let around = (year - 2..=year + 2).filter_map(of);
    around.min_by_key(|time| time.abs_diff(received))
}

/// Words with one space between them.
struct Parts<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Parts<'t> {
    fn rest(&self) -> &'t [u8] {
        &self.text[self.at..]
    }

    /// Takes a short word and the space behind it.
    fn word(&mut self) -> Option<&'t [u8]> {
        let rest = self.rest();
        let length = rest.iter().take(5).position(|byte| *byte == b' ')?;
        self.at += length + 1;
        Some(&rest[..length])
    }
}

fn month(name: &[u8]) -> Option<i64> {
    const NAMES: [&[u8]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    NAMES.iter().position(|known| *known == name).map(|index| index as i64 + 1)
}

/// Reads `10:04:12.5`; returns the nanoseconds since midnight and what stands behind.
fn of_day(text: &[u8]) -> Option<(i128, &[u8])> {
    let (clock, rest) = text.split_at_checked(8)?;
    let [_, _, b':', _, _, b':', _, _] = clock else { return None };
    let below = |span: std::ops::Range<usize>, bound: u32| number(&clock[span]).filter(|value| *value < bound);
    let seconds = (below(0..2, 24)? * 60 + below(3..5, 60)?) * 60 + below(6..8, 60)?;
    let mut nanos = i128::from(seconds) * NANOS;
    let Some(fraction) = rest.strip_prefix(b".") else { return Some((nanos, rest)) };
    let digits = fraction.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&digits) {
        return None;
    }
    let mut unit = NANOS;
    for digit in &fraction[..digits] {
        unit /= 10;
        nanos += i128::from(digit - b'0') * unit;
    }
    Some((nanos, &fraction[digits..]))
}

/// Reads `Z` or `+01:00`.
fn zone_seconds(zone: &[u8]) -> Option<i64> {
    let (sign, clock) = match zone {
        b"Z" => return Some(0),
        [b'+', clock @ ..] => (1, clock),
        [b'-', clock @ ..] => (-1, clock),
        _ => return None,
    };
    let [_, _, b':', _, _] = clock else { return None };
    let hours = number(&clock[..2]).filter(|hours| *hours < 24)?;
    let minutes = number(&clock[3..]).filter(|minutes| *minutes < 60)?;
    Some(sign * i64::from(hours * 60 + minutes) * 60)
}

impl Civil {
    /// Returns the moment in a zone so many seconds east.
    fn unix_nanos(self, zone_seconds: i64) -> Option<UnixNanos> {
        let Self { year, month, day, nanos } = self;
        if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
            return None;
        }
        let seconds = i128::from(days_since_1970(year, month, day) * 86_400 - zone_seconds);
        i64::try_from(seconds * NANOS + nanos).ok()
    }
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch, proleptic Gregorian (algorithm: Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `days_from_civil`).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_index = (month + 9) % 12;
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-30T20:00:00Z.
    const RECEIVED: UnixNanos = 1_796_068_800_000_000_000;

    fn shown(nanos: UnixNanos) -> String {
        jiff::Timestamp::from_nanosecond(nanos.into()).unwrap().to_string()
    }

    #[test]
    fn times_of_rfc_5424_are_those_of_a_calendar_library() {
        assert_eq!(shown(RECEIVED), "2026-11-30T20:00:00Z");
        for text in [
            "1985-04-12T23:20:50.52Z",
            "2003-08-24T05:14:15.000003-07:00",
            "2026-11-30T10:04:12+01:00",
            "2024-02-29T00:00:00.123456789-23:59",
            "1970-01-01T00:00:00Z",
            "1678-01-01T00:00:00Z",
            "2262-01-01T00:00:00.999999999+23:59",
        ] {
            let expected: jiff::Timestamp = text.parse().unwrap();
            assert_eq!(rfc3339(text.as_bytes()).map(shown), Some(expected.to_string()), "{text}");
        }
        for text in [
            "",
            "-",
            "2026-11-30",
            "2026-11-30T10:04:12",
            "2026-11-30 10:04:12Z",
            "2026-11-30t10:04:12z",
            "2026-02-29T10:04:12Z",
            "2026-13-01T10:04:12Z",
            "2026-11-31T10:04:12Z",
            "2026-11-30T24:00:00Z",
            "2026-11-30T10:04:60Z",
            "2026-11-30T10:04:12.Z",
            "2026-11-30T10:04:12.1234567890Z",
            "2026-11-30T10:04:12+0100",
            "2026-11-30T10:04:12+24:00",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "+026-11-30T10:04:12Z",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_year_is_the_nearest_to_its_receipt() {
        let read = |text: &str, received| bsd(text.as_bytes(), received).map(|bsd| (shown(bsd.time), bsd.bytes));
        let of = |text: &str| read(text, RECEIVED);
        assert_eq!(of("Nov 30 20:00:01 host"), Some(("2026-11-30T20:00:01Z".into(), 15)));
        assert_eq!(of("Nov  3 01:02:03"), Some(("2026-11-03T01:02:03Z".into(), 15)));
        assert_eq!(of("Nov 3 01:02:03.25 x"), Some(("2026-11-03T01:02:03.25Z".into(), 17)));
        assert_eq!(of("Nov 03 2019 01:02:03 x"), Some(("2019-11-03T01:02:03Z".into(), 20)));
        // A clock that is ahead, over the end of a year; a message that waited over it.
        assert_eq!(of("Jan  1 00:00:00").unwrap().0, "2027-01-01T00:00:00Z");
        let new_year = 1_798_761_600_000_000_000;
        assert_eq!(shown(new_year), "2027-01-01T00:00:00Z");
        assert_eq!(read("Dec 31 23:59:59", new_year).unwrap().0, "2026-12-31T23:59:59Z");
        // Half a year each way.
        assert_eq!(of("Jun  2 00:00:00").unwrap().0, "2026-06-02T00:00:00Z");
        assert_eq!(of("Jun  1 00:00:00").unwrap().0, "2027-06-01T00:00:00Z");
        // A leap day is in a leap year, or nowhere near.
        assert_eq!(of("Feb 29 12:00:00").unwrap().0, "2028-02-29T12:00:00Z");
        assert_eq!(of("Feb 30 12:00:00"), None);
        for text in [
            "",
            "Nov",
            "Nov 30",
            "Nov 30 ",
            "Nov 30 20:00",
            "nov 30 20:00:00",
            "Nov 0 20:00:00",
            "Nov 030 20:00:00",
            "Nov  30 20:00:00",
            "Nov 30 20:00:00:",
            "Nov 30 20:00:00Z x",
            "Nov 30 20:00:60",
            "Nov 30 20:00:00. x",
            "Nov 30 20x6 20:00:00",
            "2026-11-30T10:04:12Z",
        ] {
            assert_eq!(of(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_time_of_receipt_at_the_ends_of_all_time_is_no_trouble() {
        for received in [i64::MIN, -1, 0, i64::MAX] {
            bsd(b"Jul  1 00:00:00", received);
        }
    }
}
