//! A batch of events as bytes, who made it, and how one event is named.
//!
//! A batch is one arena: every event is a JSON object on **one line**, followed by `\n`, and `ends` says where each line
//! ends. Whoever makes a batch guarantees that (the JSON was validated, line breaks between tokens became spaces, a
//! `_spillway` member was taken out); nobody looks again. Selection, the log and every encoder share the arena.

mod arena;
mod batch;
mod origin;

pub use arena::{Arenas, KEPT_BYTES_MAX, KEPT_BYTES_MIN};
pub use batch::{Batch, BatchBuilder, IdempotencyKey, Position};
pub use origin::{Origin, OriginBuilder, OriginField};

/// Most bytes of one event, its line break left out: 1 MiB. What is longer is refused by the door it came to.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// Most payload bytes of one batch, and so of one request and of one frame of the log: 16 MiB.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// Most events of one batch: 2^20 - 1.
pub const BATCH_EVENTS_MAX: usize = (1 << 20) - 1;

/// The member an agent adds to a delivered event, and strips from one that arrives.
pub const RESERVED_MEMBER: &str = "_spillway";

/// Names one event for good: the incarnation of the log that took it, and its sequence there.
///
/// Written as 16 hexadecimal digits, `-`, and the sequence in hexadecimal without leading zeros. An incarnation is drawn
/// anew each time a log is opened, so an id never names two events, even after a crash that lost an unsynced tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct EventId {
    /// Random, drawn when the log was opened.
    pub incarnation: u64,
    /// Counts the events of a log from 1; gaps are possible, repeats are not.
    pub seq: u64,
}

impl EventId {
    /// Most bytes of a written id.
    pub const TEXT_BYTES_MAX: usize = 33;

    /// Appends the id's text to `out`.
    pub fn write(self, out: &mut Vec<u8>) {
        self.write_incarnation(out);
        Self::write_seq(self.seq, out);
    }

    /// Appends what of the id's text stands before the sequence: the same for all events of an incarnation.
    pub fn write_incarnation(self, out: &mut Vec<u8>) {
        let mut text = [0u8; 17];
        for (index, digit) in text[..16].iter_mut().enumerate() {
            *digit = DIGITS[(self.incarnation >> (60 - 4 * index)) as usize & 15];
        }
        text[16] = b'-';
        out.extend_from_slice(&text);
    }

    /// Appends what of an id's text stands behind the dash: the sequence.
    #[inline]
    pub fn write_seq(seq: u64, out: &mut Vec<u8>) {
        let mut text = [0u8; 16];
        let digits = Self::seq_digits(seq);
        for (index, digit) in text[..digits].iter_mut().enumerate() {
            *digit = DIGITS[(seq >> (4 * (digits - 1 - index))) as usize & 15];
        }
        out.extend_from_slice(&text[..digits]);
    }

    /// Returns how many bytes [`EventId::write_seq`] appends.
    #[inline]
    pub(crate) fn seq_digits(seq: u64) -> usize {
        (67 - (seq | 1).leading_zeros() as usize) / 4
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{:x}", self.incarnation, self.seq)
    }
}

/// What is not the name of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no event id: 16 hexadecimal digits, `-`, and a hexadecimal number")]
pub struct NoEventId(String);

impl std::str::FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<Self, NoEventId> {
        let hexadecimal = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        let read = || {
            let (incarnation, seq) = text.split_once('-').filter(|(incarnation, _)| incarnation.len() == 16)?;
            Some(Self { incarnation: hexadecimal(incarnation)?, seq: hexadecimal(seq)? })
        };
        read().ok_or_else(|| NoEventId(crate::backend::one_line(text)))
    }
}

impl TryFrom<String> for EventId {
    type Error = NoEventId;

    fn try_from(text: String) -> Result<Self, NoEventId> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        for seq in [0, 9, u64::MAX] {
            let id = EventId { incarnation: 0xab, seq };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in
            ["", "-", "00000000000000ab", "ab-1", "00000000000000ab-", "+0000000000000ab-1", "00000000000000ab-x"]
        {
            assert!(text.parse::<EventId>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_is_written_as_it_is_displayed() {
        for seq in [0, 1, 15, 16, 255, 0x1234_5678, u64::MAX] {
            let id = EventId { incarnation: 0x00ab_cdef_0123_4567, seq };
            let mut out = Vec::new();
            id.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), id.to_string());
        }
    }
}
