//! One dead letter, as it is stored and as it is read.
//!
//! Stored as a JSON object on one line with `reason`, `route`, `backend`, `id`, `received` and, always last, the `event`
//! byte for byte. Its origin is the frame's. Reasons come from servers: they are cut to one line of at most 256 bytes, and
//! what looks like a credential in them is left out, since some servers say what they were sent.

use std::borrow::Cow;
use std::io::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::backend::{OutEvent, one_line};
use crate::clock::{UnixNanos, write_rfc3339};
use crate::event::{EventId, Origin};
use crate::json;

/// Words in front of a credential, in lower case.
const CREDENTIAL_WORDS: [&str; 6] = ["bearer ", "basic ", "apikey ", "password=", "token=", "signature="];

/// What stands for a credential.
const LEFT_OUT: &str = "[left out]";

/// A dead letter, read.
#[derive(Debug, Clone)]
pub struct Letter<'a> {
    /// Why the backend refused it.
    pub reason: Cow<'a, str>,
    /// The route it went down.
    pub route: Cow<'a, str>,
    /// The backend that refused it, as the route names it.
    pub backend: Cow<'a, str>,
    /// The event's name.
    pub id: EventId,
    /// When the event was received.
    pub received: UnixNanos,
    /// The event.
    pub event: &'a [u8],
}

/// The stored form.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    route: Cow<'a, str>,
    #[serde(borrow)]
    backend: Cow<'a, str>,
    id: EventId,
    #[serde(borrow)]
    received: Cow<'a, str>,
    #[serde(borrow)]
    event: &'a RawValue,
}

impl<'a> Letter<'a> {
    /// Reads a letter; `None` where the bytes are none.
    pub fn read(stored: &'a [u8]) -> Option<Self> {
        let Stored { reason, route, backend, id, received, event } = serde_json::from_slice(stored).ok()?;
        let received = received.parse::<jiff::Timestamp>().ok()?.as_nanosecond();
        let received = i64::try_from(received).ok()?;
        Some(Self { reason, route, backend, id, received, event: event.get().as_bytes() })
    }

    /// Returns where the event begins and ends in the stored letter, which has `len` bytes: it is the last member.
    pub(in crate::deliver) fn event_span(&self, len: usize) -> (usize, usize) {
        let end = len.saturating_sub(1);
        (end.saturating_sub(self.event.len()), end)
    }

    /// Appends the letter as people and programs are shown it: one JSON object on one line, without a line break.
    pub fn write(&self, out: &mut Vec<u8>, origin: &Origin, rejected: UnixNanos) {
        out.extend_from_slice(b"{\"id\":\"");
        self.id.write(out);
        for (name, value) in
            [("\",\"route\":", &self.route), (",\"backend\":", &self.backend), (",\"reason\":", &self.reason)]
        {
            out.extend_from_slice(name.as_bytes());
            json::write_string(out, value);
        }
        out.extend_from_slice(b",\"received\":\"");
        write_rfc3339(out, self.received);
        out.extend_from_slice(b"\",\"rejected\":\"");
        write_rfc3339(out, rejected);
        out.extend_from_slice(b"\",\"origin\":");
        out.extend_from_slice(origin.json());
        out.extend_from_slice(b",\"event\":");
        out.extend_from_slice(self.event);
        out.push(b'}');
    }
}

/// Appends the stored form of an event that `backend` refused.
pub(super) fn write(out: &mut Vec<u8>, event: OutEvent<'_>, (route, backend): (&str, &str), reason: &str) {
    for (name, value) in [("{\"reason\":", reason), (",\"route\":", route), (",\"backend\":", backend)] {
        out.extend_from_slice(name.as_bytes());
        json::write_string(out, value);
    }
    out.extend_from_slice(b",\"id\":\"");
    event.id.write(out);
    out.extend_from_slice(b"\",\"received\":\"");
    write_rfc3339(out, event.received);
    out.extend_from_slice(b"\",\"event\":");
    out.extend_from_slice(event.bytes);
    out.push(b'}');
}

/// Returns a server's reason as it may be kept.
pub(super) fn clean(reason: &str) -> String {
    let mut line = one_line(reason);
    for word in CREDENTIAL_WORDS {
        let mut from = 0;
        while let Some(found) = line[from..].to_ascii_lowercase().find(word) {
            let start = from + found + word.len();
            let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '&' | '}' | ')' | '<');
            let end = line[start..].find(ends).map_or(line.len(), |length| start + length);
            from = start;
            if end > start {
                line.replace_range(start..end, LEFT_OUT);
                from += LEFT_OUT.len();
            }
        }
    }
    one_line(&line)
}

/// Returns what is alike in reasons that differ only by numbers, ids and quoted values: what people group by.
pub fn gist(reason: &str) -> String {
    let mut out = Vec::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if word == 0 {
            let length = first.len_utf8();
            out.write_all(&rest.as_bytes()[..length]).unwrap_or_default();
            rest = &rest[length..];
            continue;
        }
        // A status such as `HTTP 400` stays; an id or a number does not.
        let digits = rest[..word].bytes().filter(u8::is_ascii_digit).count();
        let status = digits == 3 && word == 3 && (out.is_empty() || out.ends_with(b"HTTP "));
        match digits {
            0 => out.extend_from_slice(&rest.as_bytes()[..word]),
            _ if status => out.extend_from_slice(&rest.as_bytes()[..word]),
            _ => out.push(b'#'),
        }
        rest = &rest[word..];
    }
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        let origin: Arc<Origin> = Arc::default();
        let id = EventId { incarnation: 7, seq: 9 };
        let event =
            OutEvent { id, bytes: br#"{"a": "\u00e9}" }"#, origin: &origin, received: 1_763_892_252_000_000_001 };
        let mut stored = Vec::new();
        write(&mut stored, event, ("all \"of\" it", "b"), "no\\t");
        let letter = Letter::read(&stored).unwrap();
        assert_eq!((&*letter.route, &*letter.backend, &*letter.reason), ("all \"of\" it", "b", "no\\t"));
        assert_eq!((letter.id, letter.received, letter.event), (id, event.received, event.bytes));
        let (start, end) = letter.event_span(stored.len());
        assert_eq!(&stored[start..end], event.bytes);
        let mut shown = Vec::new();
        letter.write(&mut shown, &origin, 0);
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        assert_eq!((&shown["id"], &shown["event"]["a"]), (&"0000000000000007-9".into(), &"é}".into()));
        assert!(Letter::read(b"{}").is_none() && Letter::read(&stored[..stored.len() - 1]).is_none());
    }

    #[test]
    fn reasons_are_one_bounded_line_without_credentials() {
        assert_eq!(clean("a\r\nb\x1b[31m"), "a  b [31m");
        assert_eq!(clean(&"é".repeat(500)).len(), 256);
        let echoed =
            "HTTP 400: got authorization: Bearer canary-1, \"Basic Y2FuYXJ5\" ?token=canary-2&x=1 password=canary-3";
        let kept = clean(echoed);
        assert!(!kept.contains("canary") && !kept.contains("Y2Fu"), "{kept}");
        assert!(kept.contains("x=1") && kept.starts_with("HTTP 400: got authorization: Bearer [left out], "), "{kept}");
        assert_eq!(clean("bearer"), "bearer");
    }

    #[test]
    fn reasons_that_differ_by_ids_and_numbers_have_one_gist() {
        let one = gist("HTTP 400: field [ms] of document 'a81b-7' has 17 digits");
        assert_eq!(one, "HTTP 400: field [ms] of document '#-#' has # digits");
        assert_eq!(gist("HTTP 400: field [ms] of document '9-12' has 3 digits"), one);
        assert_eq!(gist("é€ 12"), "é€ #");
    }
}
