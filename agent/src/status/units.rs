//! Figures as people read them.

use spillway_delivery::clock::{UnixNanos, write_rfc3339};

const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/// Returns a size with its unit: `512 B`, `1.5 MiB`.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn bytes(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        // What would round to 1024.0 is shown in the next unit.
        if size < 1023.95 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// Returns the span from `then` to `now` in its two largest units; 0 when the clock stepped back.
pub fn age(then: UnixNanos, now: UnixNanos) -> String {
    let seconds = now.saturating_sub(then).max(0) / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Returns a span as short as a column wants it: `59s`, `59m59s`, `23h59m`, `365d23h`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Returns a moment to the second, UTC: `2026-11-23T10:04:12Z`.
pub fn time(nanos: UnixNanos) -> String {
    let mut text = Vec::with_capacity(30);
    write_rfc3339(&mut text, nanos.div_euclid(1_000_000_000).saturating_mul(1_000_000_000));
    let text = String::from_utf8(text).unwrap_or_default();
    text.replace(".000000000Z", "Z")
}

/// Returns a count with its noun: `1 event`, `2 events`.
pub fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Returns `text` with nothing in it that a terminal would obey.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_their_unit() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (1 << 30, "1.0 GiB")];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn ages_show_two_units_and_never_go_below_zero() {
        let second = 1_000_000_000;
        for (seconds, text) in [(59, "59 s"), (61, "1 min 1 s"), (3_720, "1 h 2 min"), (90_000, "1 d 1 h")] {
            assert_eq!(age(5, 5 + seconds * second), text);
        }
        assert_eq!(age(5 * second, 0), "0 s");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3599, "59m59s"), (86_399, "23h59m"), (31_618_800, "365d23h")] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn times_are_utc_to_the_second() {
        assert_eq!(time(1_763_892_252_999_999_999), "2025-11-23T10:04:12Z");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([counted(0, "event"), counted(1, "event")], ["0 events", "1 event"]);
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(plain("a\x1b[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
    }
}
