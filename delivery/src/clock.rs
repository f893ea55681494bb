//! Wall time, from one place.
//!
//! Two kinds of time, never mixed. **Monotonic** time drives every wait, expiry and back-off: it is
//! `tokio::time::Instant`, so a test can pause it. **Wall** time only labels things (the time of receipt, `{date}` in a
//! key); it may step back an hour at any moment and nothing may break when it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::UNIX_EPOCH;

/// Nanoseconds since the Unix epoch, UTC. Covers the years 1678 to 2262.
pub type UnixNanos = i64;

/// Reads wall time. Cheap to clone; a clone of a manual clock is the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that stands still at `now` until it is set.
    pub fn manual(now: UnixNanos) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(now))) }
    }

    /// Sets a manual clock, forwards or backwards; does nothing to the machine's clock.
    pub fn set(&self, now: UnixNanos) {
        if let Some(manual) = &self.manual {
            manual.store(now, Ordering::Relaxed);
        }
    }

    /// Returns the wall time.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> UnixNanos {
        match &self.manual {
            Some(manual) => manual.load(Ordering::Relaxed),
            None => match std::time::SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
                Err(before) => -i64::try_from(before.duration().as_nanos()).unwrap_or(i64::MAX),
            },
        }
    }
}

/// Appends `nanos` as RFC 3339 in UTC with nine digits (`2026-11-23T10:04:12.000000001Z`) to `out`.
pub fn write_rfc3339(out: &mut Vec<u8>, nanos: UnixNanos) {
    let secs = nanos.div_euclid(1_000_000_000);
    let sub = nanos.rem_euclid(1_000_000_000);
    let (year, month, day) = civil_from_days(secs.div_euclid(86_400));
    let of_day = secs.rem_euclid(86_400);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    put_digits(&mut text[0..4], year);
    put_digits(&mut text[5..7], month);
    put_digits(&mut text[8..10], day);
    put_digits(&mut text[11..13], of_day / 3600);
    put_digits(&mut text[14..16], of_day / 60 % 60);
    put_digits(&mut text[17..19], of_day % 60);
    put_digits(&mut text[20..29], sub);
    out.extend_from_slice(&text);
}

fn put_digits(out: &mut [u8], mut value: i64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Days since the epoch to (year, month, day), proleptic Gregorian (algorithm: Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(nanos: UnixNanos) -> String {
        let mut out = Vec::new();
        write_rfc3339(&mut out, nanos);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc3339_agrees_with_a_calendar_library() {
        for nanos in [0, 1, 951_782_400_000_000_000, 1_709_164_799_999_999_999, -1, 4_102_444_800_000_000_000] {
            let expected = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            let parsed: jiff::Timestamp = text(nanos).parse().unwrap();
            assert_eq!(parsed, expected, "{}", text(nanos));
        }
    }

    #[test]
    fn a_manual_clock_goes_back_when_told() {
        let clock = Clock::manual(10);
        clock.clone().set(3);
        assert_eq!(clock.now(), 3);
    }
}
