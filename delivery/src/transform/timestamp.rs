//! `ParseTimestamp`: the forms in which programs write a time, as nanoseconds of UTC.
//!
//! A time without a zone is in none but the one that is told: nothing is taken from the machine. A time beyond the years 1678 to
//! 2262 is none.

use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::Offset;
use jiff::{Timestamp, Zoned};

use crate::clock::UnixNanos;

/// How a time is written, and where the clock stood that tells no zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat {
    form: TimeForm,
    zone: Option<Offset>,
}

/// The forms of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeForm {
    /// `2026-11-29T10:04:12.123+01:00`; a space for the `T`, a comma before the fraction and no zone are fine.
    Rfc3339,
    /// `Sun, 29 Nov 2026 10:04:12 +0100`, of mails and HTTP.
    Rfc2822,
    /// `29/Nov/2026:10:04:12 +0100`, of web servers.
    CommonLog,
    /// `Nov 29 10:04:12`, of RFC 3164: the year is the one that brings it nearest to the time of receipt.
    Syslog,
    /// Seconds since 1970, a number or a text, with a fraction or without.
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMilliseconds,
    /// Microseconds since 1970.
    UnixMicroseconds,
    /// Nanoseconds since 1970.
    UnixNanoseconds,
    /// As strptime(3) reads it.
    Layout(String),
}

/// Why there is no such format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeFormatError {
    /// A zone is no offset.
    #[error("not an offset from UTC")]
    Zone,
    /// Times of this form tell no zone, and none is given.
    #[error("times of this form tell no zone")]
    ZoneMissing,
    /// What cannot be read.
    #[error("times of this layout cannot be read: {0}")]
    Layout(String),
}

impl TimeFormat {
    /// Checks a form, and a zone: `UTC`, or an offset such as `+01:00`.
    pub fn new(form: TimeForm, zone: Option<&str>) -> Result<Self, TimeFormatError> {
        let zone = zone.map(|text| offset(text).ok_or(TimeFormatError::Zone)).transpose()?;
        let tells_zone = match &form {
            TimeForm::Syslog => false,
            TimeForm::Layout(layout) => tells_zone(layout)?,
            _ => true,
        };
        if !tells_zone && zone.is_none() {
            return Err(TimeFormatError::ZoneMissing);
        }
        Ok(Self { form, zone })
    }

    /// Returns when a text or a number is; `received` is when its event came.
    pub(super) fn read(&self, text: &str, received: UnixNanos) -> Option<UnixNanos> {
        let text = text.trim_ascii();
        let time = match &self.form {
            TimeForm::Rfc3339 => match text.parse::<Timestamp>() {
                Ok(time) => time,
                Err(_) => self.at_zone(text.parse().ok()?)?,
            },
            TimeForm::Rfc2822 => rfc2822::parse(text).ok()?.timestamp(),
            TimeForm::CommonLog => Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", text).ok()?,
            TimeForm::Syslog => self.nearest(text, received)?,
            TimeForm::UnixSeconds => return scaled(text, 9),
            TimeForm::UnixMilliseconds => return scaled(text, 6),
            TimeForm::UnixMicroseconds => return scaled(text, 3),
            TimeForm::UnixNanoseconds => return scaled(text, 0),
            TimeForm::Layout(layout) => {
                let parts = BrokenDownTime::parse(layout, text).ok()?;
                match parts.to_timestamp() {
                    Ok(time) => time,
                    Err(_) => self.at_zone(parts.to_datetime().ok()?)?,
                }
            }
        };
        UnixNanos::try_from(time.as_nanosecond()).ok()
    }

    fn at_zone(&self, time: DateTime) -> Option<Timestamp> {
        self.zone?.to_timestamp(time).ok()
    }

    /// Reads a time without a year.
    fn nearest(&self, text: &str, received: UnixNanos) -> Option<Timestamp> {
        let now = Timestamp::from_nanosecond(i128::from(received)).ok()?;
        let this_year = self.zone?.to_datetime(now).year();
        let of_year = |year: i16| {
            let mut parts = BrokenDownTime::parse("%b %e %H:%M:%S%.f", text).ok()?;
            parts.set_year(Some(year)).ok()?;
            self.at_zone(parts.to_datetime().ok()?)
        };
        // The 29th of February is in none of them but a leap year.
        let years = [this_year - 1, this_year, this_year + 1];
        years.into_iter().filter_map(of_year).min_by_key(|time| (time.as_nanosecond() - now.as_nanosecond()).abs())
    }
}

/// Returns the offset that a zone is.
fn offset(text: &str) -> Option<Offset> {
    if text == "UTC" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match text.as_bytes() {
        [b'+', ..] => (1, &text[1..]),
        [b'-', ..] => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse::<i32>().ok().filter(|_| is_number(text));
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 14 && minutes < 60).then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok())?
}

/// Returns whether times of a layout tell their zone. What it writes must be what it reads, or it would never read anything.
fn tells_zone(layout: &str) -> Result<bool, TimeFormatError> {
    let wrong = |error: jiff::Error| TimeFormatError::Layout(error.to_string());
    let zone = Offset::constant(1).to_time_zone();
    let some = Zoned::new(Timestamp::UNIX_EPOCH, zone);
    let text = strtime::format(layout, &some).map_err(wrong)?;
    let parts = BrokenDownTime::parse(layout, &text).map_err(wrong)?;
    if parts.to_timestamp().is_ok() {
        return Ok(true);
    }
    parts.to_datetime().map(|_| false).map_err(wrong)
}

/// Returns a decimal number times ten to the power of `digits`, its fraction cut off there.
fn scaled(text: &str, digits: usize) -> Option<UnixNanos> {
    if text.bytes().any(|byte| matches!(byte, b'e' | b'E')) {
        // Some libraries write seconds so; no digit is told beyond what a float has.
        let nanos = (text.parse::<f64>().ok()? * 10_f64.powi(digits as i32)).round();
        return (nanos.abs() < 9.2e18).then_some(nanos as UnixNanos);
    }
    let (negative, digits_of) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits_of.split_once('.').unwrap_or((digits_of, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let kept = &fraction[..fraction.len().min(digits)];
    let mut nanos = whole.parse::<UnixNanos>().ok()?;
    for digit in kept.bytes().chain(std::iter::repeat(b'0')).take(digits) {
        nanos = nanos.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(if negative { -nanos } else { nanos })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::write_rfc3339;

    /// 2026-11-29T10:04:12Z.
    const RECEIVED: UnixNanos = 1_795_946_652_000_000_000;

    fn read_at(form: TimeForm, zone: Option<&str>, text: &str, received: UnixNanos) -> Option<String> {
        let nanos = TimeFormat::new(form, zone).unwrap().read(text, received)?;
        let mut out = Vec::new();
        write_rfc3339(&mut out, nanos);
        Some(String::from_utf8(out).unwrap())
    }

    fn read(form: TimeForm, zone: Option<&str>, text: &str) -> Option<String> {
        read_at(form, zone, text, RECEIVED)
    }

    #[test]
    fn forms_are_read_as_they_are_written() {
        use TimeForm::{CommonLog, Rfc2822, Rfc3339, UnixMicroseconds, UnixMilliseconds, UnixNanoseconds, UnixSeconds};
        let layout = |text: &str| TimeForm::Layout(text.into());
        for (form, zone, text, time) in [
            (Rfc3339, None, "2026-11-29T10:04:12Z", "2026-11-29T10:04:12.000000000Z"),
            (Rfc3339, Some("-05:00"), "2026-11-29T10:04:12.5+01:00", "2026-11-29T09:04:12.500000000Z"),
            (Rfc3339, Some("+01:00"), "2026-11-29 10:04:12,123", "2026-11-29T09:04:12.123000000Z"),
            (Rfc3339, None, " 2026-11-29t10:04:12.123456789z ", "2026-11-29T10:04:12.123456789Z"),
            (Rfc2822, None, "Sun, 29 Nov 2026 10:04:12 +0100", "2026-11-29T09:04:12.000000000Z"),
            (Rfc2822, None, "Sun, 29 Nov 2026 10:04:12 GMT", "2026-11-29T10:04:12.000000000Z"),
            (CommonLog, None, "29/Nov/2026:10:04:12 +0130", "2026-11-29T08:34:12.000000000Z"),
            (UnixSeconds, None, "1795946652", "2026-11-29T10:04:12.000000000Z"),
            (UnixSeconds, None, "1795946652.0123456789", "2026-11-29T10:04:12.012345678Z"),
            (UnixSeconds, None, "1.795946652e9", "2026-11-29T10:04:12.000000000Z"),
            (UnixSeconds, None, "-1.5", "1969-12-31T23:59:58.500000000Z"),
            (UnixMilliseconds, None, "1795946652123", "2026-11-29T10:04:12.123000000Z"),
            (UnixMicroseconds, None, "1795946652123456", "2026-11-29T10:04:12.123456000Z"),
            (UnixNanoseconds, None, "1795946652123456789", "2026-11-29T10:04:12.123456789Z"),
            (layout("%d.%m.%Y %H:%M:%S"), Some("+01:00"), "29.11.2026 10:04:12", "2026-11-29T09:04:12.000000000Z"),
            (layout("%Y/%m/%d %H:%M:%S%.f %z"), None, "2026/11/29 10:04:12.25 -0500", "2026-11-29T15:04:12.250000000Z"),
            (layout("%d.%m.%Y"), Some("UTC"), "29.11.2026", "2026-11-29T00:00:00.000000000Z"),
        ] {
            assert_eq!(read(form.clone(), zone, text).as_deref(), Some(time), "{form:?} of {text}");
        }
    }

    #[test]
    fn what_is_no_time_of_the_form_is_none() {
        use TimeForm::{CommonLog, Rfc2822, Rfc3339, Syslog, UnixNanoseconds, UnixSeconds};
        for (form, zone, text) in [
            (Rfc3339, None, "2026-11-29T10:04:12"),
            (Rfc3339, None, "2026-13-29T10:04:12Z"),
            (Rfc3339, Some("UTC"), "1795946652"),
            (Rfc3339, Some("UTC"), ""),
            (Rfc3339, None, "9999-01-01T00:00:00Z"),
            (Rfc2822, None, "Mon, 29 Nov 2026 10:04:12 +0100"),
            (CommonLog, None, "29/Nov/2026:10:04:12"),
            (Syslog, Some("UTC"), "Nov 31 10:04:12"),
            (UnixSeconds, None, "1."),
            (UnixSeconds, None, "+1"),
            (UnixSeconds, None, "1e400"),
            (UnixSeconds, None, "é"),
            (UnixSeconds, None, "99999999999"),
            (UnixNanoseconds, None, "99999999999999999999"),
            (TimeForm::Layout("%Y-%m-%d %H:%M".into()), Some("UTC"), "2026-11-29 10:04:12"),
        ] {
            assert_eq!(read(form.clone(), zone, text), None, "{form:?} of {text}");
        }
    }

    #[test]
    fn a_time_without_a_year_is_the_one_nearest_to_its_receipt() {
        let nanos = |text: &str| text.parse::<Timestamp>().unwrap().as_nanosecond() as UnixNanos;
        for (received, text, zone, time) in [
            ("2026-11-29T10:04:12Z", "Nov 29 11:04:11", "+01:00", Some("2026-11-29T10:04:11.000000000Z")),
            ("2027-01-01T00:00:05Z", "Dec 31 23:59:59", "UTC", Some("2026-12-31T23:59:59.000000000Z")),
            ("2026-12-31T23:59:55Z", "Jan  1 00:00:01", "UTC", Some("2027-01-01T00:00:01.000000000Z")),
            ("2028-03-01T00:00:00Z", "Feb 29 10:00:00.5", "UTC", Some("2028-02-29T10:00:00.500000000Z")),
            ("2026-03-01T00:00:00Z", "Feb 29 10:00:00", "UTC", None),
        ] {
            assert_eq!(read_at(TimeForm::Syslog, Some(zone), text, nanos(received)).as_deref(), time, "{text}");
        }
    }

    #[test]
    fn a_zone_is_an_offset_and_is_told_where_times_tell_none() {
        let layout = |text: &str| TimeForm::Layout(text.into());
        for zone in ["Z", "01:00", "+1:00", "+15:00", "+01:60", "Europe/Berlin", "+01", "++1:00", "é"] {
            assert_eq!(TimeFormat::new(TimeForm::Rfc3339, Some(zone)), Err(TimeFormatError::Zone), "{zone}");
        }
        for form in [TimeForm::Syslog, layout("%Y-%m-%d %H:%M:%S")] {
            assert_eq!(TimeFormat::new(form.clone(), None), Err(TimeFormatError::ZoneMissing));
            assert!(TimeFormat::new(form, Some("-09:30")).is_ok());
        }
        for wrong in ["%H:%M", "%Y %Q", "%", "time", "%Y-%m-%d %Z"] {
            let error = TimeFormat::new(layout(wrong), Some("UTC")).unwrap_err();
            assert!(matches!(error, TimeFormatError::Layout(_)), "{wrong}: {error}");
        }
    }
}
