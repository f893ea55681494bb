//! `<34>Oct 11 22:14:15 host su[4711]: text`, from behind the priority: what RFC 3164 found, and what is sent since. Pure.
//!
//! Nothing of it is sure but the priority, so that each part is taken only where it can be nothing else: a time that is one, behind
//! it one word (the host, `-` for none) unless that is the tag, and a tag that ends with `:` or has brackets (without `:` where a relay
//! has made it of a message of RFC 5424). What is not taken is text.

use memchr::memchr;
use spillway_delivery::clock::UnixNanos;

use super::{Format, Parsed, time};

/// Most bytes of a tag, and of what stands in its brackets: RFC 3164 has 32 for both, programs are called longer.
const TAG_BYTES_MAX: usize = 128;

/// Most bytes of the name of a host.
const HOSTNAME_BYTES_MAX: usize = 255;

/// Reads what stands behind the priority.
pub(super) fn parse(text: &[u8], received: UnixNanos) -> Parsed<'_> {
    let message = Parsed { format: Format::Rfc3164, ..Parsed::raw(text, None) };
    let Some((time, timestamp, rest)) = timestamp(text, received) else { return message };
    let message = Parsed { time: Some(time), timestamp, message: rest, ..message };
    let Some(space) = memchr(b' ', rest) else { return with_tag(message) };
    let word = &rest[..space];
    let is_host =
        (1..=HOSTNAME_BYTES_MAX).contains(&word.len()) && !word.ends_with(b":") && memchr(b'[', word).is_none();
    if !is_host {
        return with_tag(message);
    }
    with_tag(Parsed { hostname: Some(word).filter(|word| *word != b"-"), message: &rest[space + 1..], ..message })
}

/// A time, its text where that says no year and no zone, and what stands behind it.
type Timed<'m> = (UnixNanos, Option<&'m [u8]>, &'m [u8]);

fn timestamp(text: &[u8], received: UnixNanos) -> Option<Timed<'_>> {
    let behind = |bytes: usize| text[bytes..].strip_prefix(b" ").unwrap_or(&text[bytes..]);
    if let Some(bsd) = time::bsd(text, received) {
        return Some((bsd.time, Some(&text[..bsd.bytes]), behind(bsd.bytes)));
    }
    let length = text.iter().take(40).position(|byte| *byte == b' ').unwrap_or(text.len().min(40));
    time::rfc3339(&text[..length]).map(|time| (time, None, behind(length)))
}

/// Takes `su:`, `su[4711]:` or `su[4711]` and the space behind it off the text.
fn with_tag(message: Parsed<'_>) -> Parsed<'_> {
    let text = message.message;
    let ends = |byte: &u8| matches!(byte, b' ' | b':' | b'[');
    let Some(length) = text.iter().take(TAG_BYTES_MAX + 1).position(ends).filter(|length| *length > 0) else {
        return message;
    };
    let (app_name, rest) = text.split_at(length);
    let (proc_id, rest) = match rest {
        [b'[', inside @ ..] => {
            let ends = |byte: &u8| matches!(byte, b' ' | b']');
            match inside.iter().take(TAG_BYTES_MAX + 1).position(ends) {
                Some(length) if inside[length] == b']' => (Some(&inside[..length]), &inside[length + 1..]),
                _ => return message,
            }
        }
        rest => (None, rest),
    };
    let rest = match rest {
        [b':', rest @ ..] => rest,
        [] | [b' ', ..] if proc_id.is_some() => rest,
        _ => return message,
    };
    let proc_id = proc_id.filter(|proc_id| !proc_id.is_empty());
    Parsed { app_name: Some(app_name), proc_id, message: rest.strip_prefix(b" ").unwrap_or(rest), ..message }
}
