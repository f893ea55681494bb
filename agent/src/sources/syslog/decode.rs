//! A message of syslog becomes an event: RFC 5424, RFC 3164 as it is really sent, and what is neither. Pure: bytes in, bytes out.
//!
//! # Guarantees
//! - Whatever the bytes are, an event comes out: a JSON object on one line, with its `\n`, of at most [`event_bytes_max`] bytes. Time
//!   and memory are linear in the message.
//! - Nothing of a message is left out but what frames it: the line break or NUL at its end, the byte order mark in front of a text,
//!   the one space behind a tag. What cannot be read stands in `message` as it came, and `malformed` says why.
//! - Nothing a message says is taken for what the agent knows: `peer` is written by the agent alone.
//!
//! # Errors
//! None: [`Decoded`] says what was wrong, for counters.
//!
//! # Limits
//! [`MESSAGE_BYTES_MAX`] for a message; the bounds of structured data stand in [`structured`].

mod rfc3164;
mod rfc5424;
mod structured;
mod time;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use spillway_delivery::clock::{UnixNanos, write_rfc3339};
use spillway_delivery::event::EVENT_BYTES_MAX;
use spillway_delivery::json;

use structured::Structured;

use crate::sources::pushed::tally::listed;

/// Most bytes of a message; who reads it cuts what is longer. A byte escapes to six at most, so that its event is one.
pub const MESSAGE_BYTES_MAX: usize = 128 << 10;

/// Most bytes of an event beside its texts: names of members, two times, numbers (350), and `peer` ([`PEER_BYTES_MAX`]).
const FRAME_BYTES_MAX: usize = 1 << 10;

/// Most bytes of `peer`: an address (45), and a name ([`PEER_NAME_CHARS_MAX`] escaped to six bytes each).
const PEER_BYTES_MAX: usize = 600;

/// Most characters of the name in a certificate; names of hosts end at 253, and these at what fits.
const PEER_NAME_CHARS_MAX: usize = 80;

const _: () = assert!(FRAME_BYTES_MAX >= 350 + PEER_BYTES_MAX);
const _: () = assert!(event_bytes_max(MESSAGE_BYTES_MAX) <= EVENT_BYTES_MAX);

/// Returns the most bytes that the event of a message of so many bytes has, its line break included.
pub const fn event_bytes_max(message_bytes: usize) -> usize {
    FRAME_BYTES_MAX + 6 * message_bytes
}

/// Who sent a message, as far as the agent knows it: a member of each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    member: Vec<u8>,
}

impl Peer {
    /// Returns somebody at an address, with the name in its certificate where it has shown one.
    pub fn new(address: IpAddr, name: Option<&str>) -> Self {
        let mut member = br#","peer":{"address":""#.to_vec();
        member.extend_from_slice(address.to_canonical().to_string().as_bytes());
        member.push(b'"');
        if let Some(name) = name {
            let name: String = name.chars().take(PEER_NAME_CHARS_MAX).collect();
            member.extend_from_slice(br#","name":"#);
            json::write_string(&mut member, &name);
        }
        member.push(b'}');
        Self { member }
    }
}

/// What is known of a message beside its bytes.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// When it came.
    pub received: UnixNanos,
    /// Who sent it.
    pub peer: &'a Peer,
    /// Whether it is whole.
    pub end: End,
}

/// Where a message ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where its sender ended it.
    Whole,
    /// At the limit: so many bytes behind it are gone.
    TooLong(u64),
    /// In its midst: no more came.
    Half,
}

/// What is wrong with a message, in the order in which `malformed` names the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Its connection ended in its midst.
    Half,
    /// It is longer than it may be, and cut.
    TooLong,
    /// It does not begin with a priority, `<0>` to `<191>`.
    Priority,
    /// It begins as RFC 5424 has it, and ends within the header.
    Header,
    /// Its time cannot be read.
    Time,
    /// Its structured data cannot be read.
    StructuredData,
    /// Bytes of it are no UTF-8, and became U+FFFD.
    InvalidUtf8,
}

impl Malformed {
    /// Every kind, in the order of their discriminants.
    pub const ALL: [Self; 7] =
        [Self::Half, Self::TooLong, Self::Priority, Self::Header, Self::Time, Self::StructuredData, Self::InvalidUtf8];

    /// Returns the name as events and metrics have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::TooLong => "too_long",
            Self::Priority => "priority",
            Self::Header => "header",
            Self::Time => "time",
            Self::StructuredData => "structured_data",
            Self::InvalidUtf8 => "invalid_utf8",
        }
    }
}

listed!(Malformed, named);

/// What was wrong with a message; nothing, mostly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decoded(u8);

impl Decoded {
    /// Returns all that was wrong.
    pub fn malformed(self) -> impl Iterator<Item = Malformed> {
        Malformed::ALL.into_iter().filter(move |one| self.0 & (1 << *one as u8) != 0)
    }

    fn add(&mut self, one: Malformed) {
        self.0 |= 1 << one as u8;
    }
}

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Rfc5424,
    Rfc3164,
    Raw,
}

/// A message taken apart; every text is a part of it.
#[derive(Debug)]
struct Parsed<'m> {
    format: Format,
    priority: Option<u8>,
    /// When it was sent, by itself.
    time: Option<UnixNanos>,
    /// What it says of that, where `time` does not say all of it.
    timestamp: Option<&'m [u8]>,
    hostname: Option<&'m [u8]>,
    app_name: Option<&'m [u8]>,
    proc_id: Option<&'m [u8]>,
    msg_id: Option<&'m [u8]>,
    structured: Structured<'m>,
    message: &'m [u8],
    malformed: Option<Malformed>,
}

impl<'m> Parsed<'m> {
    /// Returns a message of which nothing is known but its text.
    fn raw(message: &'m [u8], malformed: Option<Malformed>) -> Self {
        Self {
            format: Format::Raw,
            priority: None,
            time: None,
            timestamp: None,
            hostname: None,
            app_name: None,
            proc_id: None,
            msg_id: None,
            structured: Structured::default(),
            message,
            malformed,
        }
    }
}

/// Returns a message without the line breaks and NULs at its end; nothing is left of one that has nothing to say.
pub fn trimmed(message: &[u8]) -> &[u8] {
    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
    let kept = message.iter().rposition(|byte| !ends(byte)).map_or(0, |last| last + 1);
    &message[..kept]
}

/// Appends the event of a message, with its line break, to `out`.
///
/// A message beyond [`MESSAGE_BYTES_MAX`] is cut there.
pub fn decode(message: &[u8], about: &About<'_>, out: &mut Vec<u8>) -> Decoded {
    let (message, end) = match message.split_at_checked(MESSAGE_BYTES_MAX) {
        Some((head, rest)) if !rest.is_empty() => (head, End::TooLong(rest.len() as u64)),
        _ => (message, about.end),
    };
    let message = trimmed(message);
    let parsed = match priority(message) {
        None => Parsed::raw(message, Some(Malformed::Priority)),
        Some((priority, rest)) => {
            // A text of RFC 3164 may begin with a 1; one that says when it was sent is taken at its word.
            let says_when = |header: &&[u8]| matches!(header, [] | [b'0'..=b'9' | b'-', ..]);
            let parsed = match rest.strip_prefix(b"1 ").filter(says_when) {
                Some(header) => rfc5424::parse(header).unwrap_or_else(|why| Parsed::raw(message, Some(why))),
                None => rfc3164::parse(rest, about.received),
            };
            Parsed { priority: Some(priority), ..parsed }
        }
    };
    write(&parsed, about, end, out)
}

/// Takes `<0>` to `<191>` off.
fn priority(message: &[u8]) -> Option<(u8, &[u8])> {
    let rest = message.strip_prefix(b"<")?;
    let digits = rest.iter().take(4).position(|byte| *byte == b'>').filter(|digits| *digits > 0)?;
    let (digits, rest) = (&rest[..digits], &rest[digits + 1..]);
    let value = time::number(digits).filter(|value| *value <= 191)?;
    // `<007>` is none by both standards, `<0>` is one.
    (digits.len() == 1 || digits[0] != b'0').then_some((value as u8, rest))
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

fn write(parsed: &Parsed<'_>, about: &About<'_>, end: End, out: &mut Vec<u8>) -> Decoded {
    let mut writer = Writer { out, is_utf8: true };
    writer.out.extend_from_slice(br#"{"message":""#);
    writer.text(parsed.message);
    writer.out.extend_from_slice(br#"","time":""#);
    write_rfc3339(writer.out, parsed.time.unwrap_or(about.received));
    writer.out.extend_from_slice(br#"","format":""#);
    writer.out.extend_from_slice(match parsed.format {
        Format::Rfc5424 => b"rfc5424",
        Format::Rfc3164 => b"rfc3164",
        Format::Raw => b"raw",
    });
    writer.out.push(b'"');
    if let Some(priority) = parsed.priority {
        writer.priority(priority);
    }
    for (name, value) in [
        ("timestamp", parsed.timestamp),
        ("hostname", parsed.hostname),
        ("app_name", parsed.app_name),
        ("proc_id", parsed.proc_id),
        ("msg_id", parsed.msg_id),
    ] {
        if let Some(value) = value {
            writer.member(name, value);
        }
    }
    parsed.structured.write(&mut writer);
    let mut decoded = Decoded::default();
    match end {
        End::Whole => {}
        End::TooLong(bytes) => {
            decoded.add(Malformed::TooLong);
            writer.number("cut_bytes", bytes);
        }
        End::Half => decoded.add(Malformed::Half),
    }
    if let Some(one) = parsed.malformed {
        decoded.add(one);
    }
    if !writer.is_utf8 {
        decoded.add(Malformed::InvalidUtf8);
    }
    if let Some(first) = decoded.malformed().next() {
        writer.member("malformed", first.as_str().as_bytes());
    }
    out.extend_from_slice(&about.peer.member);
    out.extend_from_slice(b"}\n");
    decoded
}

/// Writes members of an event.
struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// Whether all texts were UTF-8 so far.
    is_utf8: bool,
}

impl Writer<'_> {
    /// Appends the inside of a string; what is no UTF-8 becomes U+FFFD.
    fn text(&mut self, text: &[u8]) {
        if let Ok(text) = std::str::from_utf8(text) {
            return json::write_escaped(self.out, text);
        }
        self.is_utf8 = false;
        for chunk in text.utf8_chunks() {
            json::write_escaped(self.out, chunk.valid());
            if !chunk.invalid().is_empty() {
                self.out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }

    fn string(&mut self, text: &[u8]) {
        self.out.push(b'"');
        self.text(text);
        self.out.push(b'"');
    }

    /// Appends one more member.
    fn member(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.string(value);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn priority(&mut self, priority: u8) {
        let (facility, severity) = (priority / 8, priority % 8);
        // `priority` is at most 191.
        let facility_name = FACILITIES.get(usize::from(facility)).copied().unwrap_or_default();
        self.member("facility", facility_name.as_bytes());
        self.member("severity", SEVERITIES[usize::from(severity)].as_bytes());
        self.number("facility_code", facility.into());
        self.number("severity_code", severity.into());
    }
}
