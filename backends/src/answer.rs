//! What the answers of HTTP servers say, whatever they answer to. No I/O.

use std::time::Duration;

use spillway_delivery::clock::UnixNanos;

/// Longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Most characters of an answer that a reason repeats.
const REASON_CHARS_MAX: usize = 200;

/// Stands where a text was cut: what is in front may be half of something.
pub(crate) const CUT: char = '…';

/// Returns the beginning of a server's text on one line.
pub(crate) fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut line: String = text.chars().take(REASON_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(REASON_CHARS_MAX).is_some() {
        line.push(CUT);
    }
    line.trim().to_owned()
}

/// Returns how long a `Retry-After` asks to wait: seconds, or a date of the future.
pub(crate) fn parse_retry_after(text: &str, now: UnixNanos) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        let nanos = date.as_nanosecond() - i128::from(now);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_one_line() {
        assert_eq!(one_line(b"bad\r\n\x1b[31mline"), "bad   [31mline");
        let cut = one_line(&[0xff; 4000]);
        assert_eq!((cut.chars().count(), cut.ends_with(CUT)), (REASON_CHARS_MAX + 1, true));
        assert_eq!(one_line(&[b'x'; REASON_CHARS_MAX]).len(), REASON_CHARS_MAX);
        assert_eq!(one_line(b" \n "), "");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = 784_111_777_000_000_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:40:37 GMT", Some(0)),
            ("Fri, 06 Nov 2099 08:40:37 GMT", Some(3600)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(parse_retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
