//! `<34>1 2003-10-11T22:14:15.003Z host app 4711 ID47 [a@1 b="c"] text`, from the version on: RFC 5424. Pure.
//!
//! Lengths of names are those of the message, not those of the standard (48 characters of a program's name are less than what
//! programs are called); a field of `-` is none.

use memchr::memchr;

use super::structured::Structured;
use super::{Format, Malformed, Parsed, time};

/// The byte order mark in front of a text that is UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads what stands behind `<34>1 `. Where the header has an end, there is a message.
pub(super) fn parse(header: &[u8]) -> Result<Parsed<'_>, Malformed> {
    let mut rest = header;
    let mut field = || {
        let length = memchr(b' ', rest).filter(|length| *length > 0).ok_or(Malformed::Header)?;
        let (field, behind) = rest.split_at(length);
        rest = &behind[1..];
        Ok(field)
    };
    let (timestamp, hostname, app_name, proc_id, msg_id) = (field()?, field()?, field()?, field()?, field()?);
    let said = |field| Some(field).filter(|field| *field != b"-");
    let time = said(timestamp).map(|timestamp| time::rfc3339(timestamp).ok_or(timestamp));
    let (structured, message, is_read) = match Structured::parse(rest) {
        Some((structured, message)) => (structured, message, true),
        None => (Structured::default(), rest, false),
    };
    let malformed = match time {
        Some(Err(_)) => Some(Malformed::Time),
        _ => (!is_read).then_some(Malformed::StructuredData),
    };
    Ok(Parsed {
        format: Format::Rfc5424,
        priority: None,
        time: time.and_then(Result::ok),
        timestamp: time.and_then(Result::err),
        hostname: said(hostname),
        app_name: said(app_name),
        proc_id: said(proc_id),
        msg_id: said(msg_id),
        structured,
        message: message.strip_prefix(MARK).unwrap_or(message),
        malformed,
    })
}
