//! Where messages begin and end in a stream: RFC 6587, both ways of it. Pure.
//!
//! A message that has its number of bytes in front, one space, and `<`, is **counted**; any other is a **line**, which ends with `\n`.
//! A stream whose first message is a line that begins with `<` has lines alone: what looks like a count in it is text of its
//! messages, behind a relay of anybody's. In any other each message is framed by itself, since a count that lies leaves its text.
//!
//! So a count that is none (negative, with a zero in front, beyond [`COUNT_MAX`], with nothing like a message behind it) makes a line
//! of what it stands in, whose text is kept; and a count that lies makes one message of more or less, behind which lines begin.
//!
//! # Guarantees
//! A frame costs no more memory than [`MESSAGE_BYTES_MAX`] and the read buffer: what is beyond is thrown away as it comes, and
//! counted. A byte is searched for a line break once.

use std::ops::Range;

use memchr::memchr;

use super::decode::MESSAGE_BYTES_MAX;

/// Longest message that is counted: what a sender may throw away of its own by a count that lies.
pub const COUNT_MAX: usize = 16 << 20;

/// Most digits of a count: those of [`COUNT_MAX`].
const COUNT_DIGITS_MAX: usize = 8;

/// How the next message is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// It cannot be told yet.
    More,
    /// A count of so many bytes, with the space behind it, and what it says.
    Counted {
        /// Bytes of the count and its space.
        head: usize,
        /// Bytes of the message.
        bytes: usize,
    },
    /// A line.
    Line,
}

/// Returns how the message at the beginning of `bytes` is framed.
pub fn head(bytes: &[u8]) -> Head {
    match bytes.first() {
        None => return Head::More,
        Some(b'1'..=b'9') => {}
        Some(_) => return Head::Line,
    }
    let digits = bytes.iter().take(COUNT_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_digit()).count();
    if digits > COUNT_DIGITS_MAX {
        return Head::Line;
    }
    match &bytes[digits..] {
        [] | [b' '] => Head::More,
        [b' ', b'<', ..] => {
            let count = bytes[..digits].iter().fold(0, |count, digit| count * 10 + usize::from(digit - b'0'));
            if count > COUNT_MAX { Head::Line } else { Head::Counted { head: digits + 1, bytes: count } }
        }
        _ => Head::Line,
    }
}

/// A message in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// Where it is.
    pub(super) span: Range<usize>,
    /// Bytes behind it that were thrown away.
    pub(super) over: usize,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counted(usize),
    Line,
}

/// Finds messages in a buffer that is filled and emptied by another.
#[derive(Debug, Default)]
pub(super) struct Framer {
    /// Data in `start..end` of the buffer.
    pub(super) start: usize,
    pub(super) end: usize,
    /// Up to where there is no line break.
    searched: usize,
    /// Bytes thrown away of the message that is under way.
    over: usize,
    /// How it is framed, once that is known.
    kind: Option<Kind>,
    /// Whether there are lines alone; `None` before the first message.
    are_lines: Option<bool>,
}

impl Framer {
    /// Returns whether a part of a message is there.
    pub(super) fn is_inside(&self) -> bool {
        self.kind.is_some() || self.end > self.start
    }

    /// Takes the next whole message.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Option<Frame> {
        let kind = match self.kind {
            Some(kind) => kind,
            None => self.begin(&bytes[self.start..self.end])?,
        };
        let there = self.end - self.start;
        // What is there of the message, and where the next one begins.
        let (length, next) = match kind {
            Kind::Counted(total) => {
                let length = total - self.over;
                (Some(length).filter(|length| there >= *length), length)
            }
            Kind::Line => {
                let found = memchr(b'\n', &bytes[self.searched..self.end]);
                let length = found.map(|behind| self.searched + behind - self.start);
                self.searched = self.end;
                (length, length.unwrap_or_default() + 1)
            }
        };
        let Some(length) = length else {
            self.throw_away();
            return None;
        };
        let frame = self.frame(length);
        self.start += next;
        self.searched = self.start;
        Some(frame)
    }

    /// Takes what is there of a message, once no more comes. Says whether it is a line, which ends with its stream.
    pub(super) fn last(&mut self) -> Option<(Frame, bool)> {
        if !self.is_inside() {
            return None;
        }
        let is_line = !matches!(self.kind, Some(Kind::Counted(_)));
        let frame = self.frame(self.end - self.start);
        (self.start, self.searched) = (self.end, self.end);
        Some((frame, is_line))
    }

    /// Notes that what was at `start` is at 0 now.
    pub(super) fn moved(&mut self) {
        let by = std::mem::take(&mut self.start);
        self.end -= by;
        self.searched = self.searched.saturating_sub(by);
    }

    fn begin(&mut self, bytes: &[u8]) -> Option<Kind> {
        let head = if self.are_lines == Some(true) && !bytes.is_empty() { Head::Line } else { head(bytes) };
        let kind = match head {
            Head::More => return None,
            Head::Counted { head, bytes } => {
                self.start += head;
                Kind::Counted(bytes)
            }
            Head::Line => Kind::Line,
        };
        if let Some(first) = bytes.first().filter(|first| !b"\r\n\0".contains(first)) {
            self.are_lines.get_or_insert(*first == b'<');
        }
        self.searched = self.start;
        self.kind = Some(kind);
        Some(kind)
    }

    /// Ends the message under way with so many bytes of the buffer.
    fn frame(&mut self, length: usize) -> Frame {
        let kept = length.min(MESSAGE_BYTES_MAX);
        let over = std::mem::take(&mut self.over) + length - kept;
        self.kind = None;
        Frame { span: self.start..self.start + kept, over }
    }

    /// Throws away what is there beyond the longest message.
    fn throw_away(&mut self) {
        let end = self.end.min(self.start + MESSAGE_BYTES_MAX);
        self.over += self.end - end;
        (self.end, self.searched) = (end, self.searched.min(end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_one_only_in_front_of_a_message() {
        for (text, head_of) in [
            (&b""[..], Head::More),
            (b"1", Head::More),
            (b"12", Head::More),
            (b"12 ", Head::More),
            (b"12 <", Head::Counted { head: 3, bytes: 12 }),
            (b"16777216 <", Head::Counted { head: 9, bytes: COUNT_MAX }),
            (b"16777217 <", Head::Line),
            (b"99999999 <", Head::Line),
            (b"99999999", Head::More),
            (b"999999999", Head::Line),
            (b"18446744073709551617 <", Head::Line),
            (b"0 <", Head::Line),
            (b"012 <", Head::Line),
            (b"-5 <", Head::Line),
            (b"+5 <", Head::Line),
            (b" 5 <", Head::Line),
            (b"5  <", Head::Line),
            (b"5\t<", Head::Line),
            (b"5<", Head::Line),
            (b"12 apples", Head::Line),
            (b"<13>", Head::Line),
            (b"\0", Head::Line),
            (b"\n", Head::Line),
        ] {
            assert_eq!(head(text), head_of, "{:?}", String::from_utf8_lossy(text));
        }
    }

    /// What `text` is cut into, as it comes in pieces; the last is what was there at the end.
    fn frames(text: &[u8], piece: usize) -> Vec<(Vec<u8>, usize, bool)> {
        let (mut framer, mut buffer, mut found) = (Framer::default(), Vec::new(), Vec::new());
        let mut take = |framer: &mut Framer, buffer: &[u8]| {
            while let Some(frame) = framer.next(buffer) {
                found.push((buffer[frame.span].to_vec(), frame.over, true));
            }
        };
        for piece in text.chunks(piece) {
            buffer.drain(..framer.start);
            framer.moved();
            buffer.truncate(framer.end);
            buffer.extend_from_slice(piece);
            framer.end = buffer.len();
            take(&mut framer, &buffer);
            assert!(framer.end - framer.start <= MESSAGE_BYTES_MAX.max(COUNT_DIGITS_MAX + 1));
        }
        if let Some((frame, is_whole)) = framer.last() {
            found.push((buffer[frame.span].to_vec(), frame.over, is_whole));
        }
        assert!(!framer.is_inside());
        found
    }

    #[test]
    fn messages_are_the_same_wherever_the_pieces_end() {
        let whole = |text: &[u8]| (text.to_vec(), 0, true);
        let long = vec![b'x'; MESSAGE_BYTES_MAX + 1000];
        let counted = [format!("{} <1>", long.len() + 3).as_bytes(), &long].concat();
        let text = [
            b"5 <13>a5 <1>ab7 <13>c\nd\n".to_vec(),
            counted,
            b"<2>".to_vec(),
            long,
            b"\n007 <13>x\n-5 <13>y\n3 <4>z\n".to_vec(),
            b"2026-11-30 text\n99999999 <13>w\n50 <13>half".to_vec(),
        ]
        .concat();
        let cut = |head: &[u8]| {
            let mut kept = head.to_vec();
            kept.resize(MESSAGE_BYTES_MAX, b'x');
            (kept, 1003, true)
        };
        let wanted = [
            whole(b"<13>a"),
            whole(b"<1>ab"),
            whole(b"<13>c\nd"),
            whole(b""),
            cut(b"<1>"),
            cut(b"<2>"),
            whole(b"007 <13>x"),
            whole(b"-5 <13>y"),
            whole(b"<4>"),
            whole(b"z"),
            whole(b"2026-11-30 text"),
            whole(b"99999999 <13>w"),
            (b"<13>half".to_vec(), 0, false),
        ];
        for piece in [1, 2, 3, 7, 1000, 4096, MESSAGE_BYTES_MAX, 1 << 20] {
            assert!(frames(&text, piece) == wanted, "{piece}");
        }
    }

    #[test]
    fn where_lines_came_first_what_looks_like_a_count_is_text() {
        let whole = |text: &[u8]| (text.to_vec(), 0, true);
        for (text, second) in
            [(&b"\r\n<13>a\n900 <13>b\n<13>c\n"[..], &b"900 <13>b"[..]), (b"\n<13>a\n1 <13>\n<13>c", b"1 <13>")]
        {
            for piece in [1, 2, 3, 7, 1000] {
                let found: Vec<_> = frames(text, piece).into_iter().filter(|(frame, ..)| frame.len() > 1).collect();
                assert_eq!(found, [whole(b"<13>a"), whole(second), whole(b"<13>c")], "{piece}");
            }
        }
        // A count that lies leaves text, which is none of a stream of lines.
        assert_eq!(frames(b"7 <13>abcd\n5 <13>b", 3)[1..], [whole(b"d"), whole(b"<13>b")]);
    }

    #[test]
    fn whatever_the_bytes_are_they_are_cut_alike_and_only_frames_are_left_out() {
        const PIECES: [&[u8]; 10] = [b"1", b"2", b"0", b" ", b"<", b"<13>", b"\n", b"a", b"-", b"7 <13>ab"];
        let mut random = crate::sources::testing::Random::new(5);
        for _ in 0..5000 {
            let mut text = Vec::new();
            (0..random.place(40)).for_each(|_| text.extend_from_slice(PIECES[random.place(PIECES.len())]));
            let whole = frames(&text, text.len().max(1));
            for piece in [1, 2, 3, 5] {
                assert_eq!(frames(&text, piece), whole, "{:?}", String::from_utf8_lossy(&text));
            }
            // In their order they stand in the text, with nothing between them but counts and line breaks.
            let mut rest = &text[..];
            for (frame, _, _) in &whole {
                let at = (0..=rest.len()).find(|at| rest[*at..].starts_with(frame)).unwrap();
                assert!(rest[..at].iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'\n')));
                rest = &rest[at + frame.len()..];
            }
            assert!(rest.iter().all(|byte| *byte == b'\n'), "{:?}", String::from_utf8_lossy(rest));
        }
    }

    #[test]
    fn a_line_without_an_end_is_whole_at_the_end_of_the_stream() {
        assert_eq!(frames(b"<13>a", 2), [(b"<13>a".to_vec(), 0, true)]);
        assert_eq!(frames(b"12", 1), [(b"12".to_vec(), 0, true)], "nor is half a count lost");
        assert_eq!(frames(b"12 <", 1), [(b"<".to_vec(), 0, false)]);
        assert_eq!(frames(b"", 1), []);
    }
}
