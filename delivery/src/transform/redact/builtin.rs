//! What `Redact` knows to look for without a pattern, and how bytes are told quickly that hold none of it.

use std::ops::Range;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};

/// A kind of secret, or of what is personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Builtin {
    /// The id of an access key of AWS.
    AwsAccessKey,
    /// What follows the word `Bearer`.
    BearerToken,
    /// The number of a credit card, whose check digit is right.
    CreditCard,
    /// An address of e-mail.
    Email,
    /// An address of IPv4.
    Ipv4,
    /// A JSON web token.
    Jwt,
    /// A private key in PEM.
    PrivateKey,
    /// The password in a URL.
    UrlPassword,
}

impl Builtin {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 8] = [
        Self::AwsAccessKey,
        Self::BearerToken,
        Self::CreditCard,
        Self::Email,
        Self::Ipv4,
        Self::Jwt,
        Self::PrivateKey,
        Self::UrlPassword,
    ];

    /// Returns its pattern; `None` where code looks for it. Of what a pattern with a group `secret` finds, the
    /// group is meant.
    pub(super) fn pattern(self) -> Option<&'static str> {
        Some(match self {
            Self::CreditCard => return None,
            Self::AwsAccessKey => "(?:AKIA|ASIA)[A-Z0-9]{16}",
            // Words that follow in plain text are shorter.
            Self::BearerToken => "(?:[Bb]earer|BEARER) +(?<secret>[A-Za-z0-9._~+/=-]{16,})",
            Self::Email => {
                r#"[^\x00-\x20\x7f@<>()\[\]{},:;"'\\/=&?|`]+@(?:[A-Za-z0-9\x{80}-\x{10ffff}-]+\.)+[A-Za-z\x{80}-\x{10ffff}][A-Za-z0-9\x{80}-\x{10ffff}-]+"#
            }
            // What stands behind it is not looked at: of `10.0.0.256` a part goes rather than nothing of `10.0.0.1_eth0`.
            Self::Ipv4 => {
                r"(?:^|[^0-9.])(?<secret>(?:(?:25[0-5]|2[0-4]\d|[01]?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|[01]?\d?\d))"
            }
            Self::Jwt => r"eyJ[A-Za-z0-9_=-]{6,}(?:\.[A-Za-z0-9_=-]*){2,4}",
            Self::PrivateKey => {
                r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|$)"
            }
            // Up to the last `@`: a name of a user, and a password, may have one.
            Self::UrlPassword => r"://[^\s/?#:]*:(?<secret>[^\s/]+)@",
        })
    }

    pub(super) fn sieve(self) -> Sieve {
        let any = |words: &[&'static str]| Sieve::AnyOf(words.iter().map(|word| Finder::new(*word)).collect());
        match self {
            Self::AwsAccessKey => any(&["AKIA", "ASIA"]),
            Self::BearerToken => any(&["earer ", "EARER "]),
            Self::CreditCard => Sieve::Digits,
            Self::Email => Sieve::At,
            Self::Ipv4 => Sieve::Dots,
            Self::Jwt => any(&["eyJ"]),
            Self::PrivateKey => any(&["PRIVATE KEY"]),
            Self::UrlPassword => any(&["://"]),
        }
    }
}

/// What bytes must have to hold a kind; they may have it and hold none.
#[derive(Debug)]
pub(super) enum Sieve {
    /// One of these words.
    AnyOf(Vec<Finder<'static>>),
    /// An `@`.
    At,
    /// Three dots between digits near to each other.
    Dots,
    /// [`DIGITS_MIN`] digits with nothing but one separator between two of them.
    Digits,
}

impl Sieve {
    /// Returns whether the bytes may hold it.
    pub(super) fn passes(&self, bytes: &[u8]) -> bool {
        match self {
            Self::AnyOf(words) => words.iter().any(|word| word.find(bytes).is_some()),
            Self::At => memchr(b'@', bytes).is_some(),
            Self::Dots => memchr_iter(b'.', bytes).any(|dot| starts_address(bytes, dot)),
            Self::Digits => digit_run(bytes, 0).is_some(),
        }
    }
}

/// Returns whether a dot may be the first one of an address.
fn starts_address(bytes: &[u8], dot: usize) -> bool {
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = dot;
    for _ in 0..2 {
        let digits = (1..=3).take_while(|ahead| digit(at + ahead)).count();
        if digits == 0 || bytes.get(at + digits + 1) != Some(&b'.') {
            return false;
        }
        at += digits + 1;
    }
    dot > 0 && digit(dot - 1) && digit(at + 1)
}

/// Fewest digits of a card.
const DIGITS_MIN: usize = 13;

/// Most digits of a card.
const DIGITS_MAX: usize = 19;

/// Fewest digits between two separators; what is grouped more finely is a time, or a phone number.
const GROUP_DIGITS_MIN: usize = 4;

/// Returns the next run of digits, spaces and dashes at or behind a place that has as many digits as a card.
///
/// A run is at least as long as a card has digits, so that most bytes need no look.
fn digit_run(bytes: &[u8], from: usize) -> Option<Range<usize>> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b' ' | b'-');
    let mut at = from + DIGITS_MIN - 1;
    while let Some(byte) = bytes.get(at) {
        if !is_part(byte) {
            at += DIGITS_MIN;
            continue;
        }
        let before = bytes[from..at].iter().rev().take_while(|byte| is_part(byte)).count();
        let behind = bytes[at..].iter().take_while(|byte| is_part(byte)).count();
        let run = at - before..at + behind;
        if bytes[run.clone()].iter().filter(|byte| byte.is_ascii_digit()).count() >= DIGITS_MIN {
            return Some(run);
        }
        at = run.end + DIGITS_MIN;
    }
    None
}

/// Calls `found` with every number of a card in a text, from the left, until it returns false.
pub(super) fn cards(text: &[u8], mut found: impl FnMut(usize, usize) -> bool) {
    let mut from = 0;
    while let Some(run) = digit_run(text, from) {
        from = run.end;
        let mut at = run.start;
        while at < run.end {
            let is_inside = at > 0 && text[at - 1].is_ascii_digit();
            match if is_inside { None } else { card_at(&text[..run.end], at) } {
                Some(end) => {
                    if !found(at, end) {
                        return;
                    }
                    at = end;
                }
                None => at += 1,
            }
        }
    }
}

/// Returns the end of the longest number of a card that begins at a place: groups of digits as they are, never a part of one.
fn card_at(text: &[u8], start: usize) -> Option<usize> {
    let mut digits = [0; DIGITS_MAX];
    let (mut count, mut group, mut at, mut end) = (0, 0, start, None);
    while let Some(byte) = text.get(at) {
        if byte.is_ascii_digit() {
            if count == DIGITS_MAX {
                return end;
            }
            digits[count] = byte - b'0';
            (count, group) = (count + 1, group + 1);
        } else if group < GROUP_DIGITS_MIN {
            return end;
        } else {
            group = 0;
        }
        at += 1;
        let is_whole = group > 0 && !text.get(at).is_some_and(u8::is_ascii_digit);
        if is_whole && is_card(&digits[..count]) {
            end = Some(at);
        }
    }
    end
}

/// Returns whether digits are as many as those of a card that begins so, and their check digit is right (Luhn).
fn is_card(digits: &[u8]) -> bool {
    let fits = matches!(
        (digits.first(), digits.len()),
        (Some(3), 14..=19) | (Some(4), 13 | 16 | 19) | (Some(5 | 6), 16..=19) | (Some(2), 16)
    );
    let sum = || {
        let doubled = |(index, digit): (usize, &u8)| match (index % 2, digit * 2) {
            (0, _) => *digit,
            (_, twice @ 10..) => twice - 9,
            (_, twice) => twice,
        };
        digits.iter().rev().enumerate().map(doubled).map(u32::from).sum::<u32>()
    };
    fits && sum().is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        cards(text.as_bytes(), |start, end| {
            found.push(&text[start..end]);
            true
        });
        assert!(found.is_empty() || Sieve::Digits.passes(text.as_bytes()), "{text}");
        found
    }

    #[test]
    fn cards_are_found_however_they_are_grouped() {
        for (text, expected) in [
            ("4111111111111111", &["4111111111111111"][..]),
            ("card 4111 1111 1111 1111 of ann", &["4111 1111 1111 1111"]),
            ("4111-1111-1111-1111,5500 0000 0000 0004", &["4111-1111-1111-1111", "5500 0000 0000 0004"]),
            ("1 4111 1111 1111 1111 2", &["4111 1111 1111 1111"]),
            ("3782 822463 10005", &["3782 822463 10005"]),
            ("x4222222222222y", &["4222222222222"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_card_stays() {
        for text in [
            "4111111111111112",
            "14111111111111111",
            "41111111111111110",
            "4111  1111 1111 1111",
            "41 11 11 11 11 11 11 11",
            "1795946652250000000",
            "2026-11-29 10-04-12 123456",
            "0000000000000000",
            "411111111111",
            "",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn a_card_is_found_wherever_it_stands() {
        for before in 0..30 {
            let text = format!("{}4111111111111111.", "x".repeat(before));
            assert_eq!(found(&text), ["4111111111111111"], "{text}");
            let text = format!("{}4111 1111 1111 1111 - ", "x 1 ".repeat(before));
            assert_eq!(found(&text), ["4111 1111 1111 1111"], "{text}");
        }
    }

    #[test]
    fn a_long_run_of_digits_ends() {
        let text = "4111 ".repeat(200_000);
        cards(text.as_bytes(), |_, _| true);
        cards("4".repeat(1 << 20).as_bytes(), |_, _| true);
        cards("- ".repeat(1 << 19).as_bytes(), |_, _| true);
    }

    #[test]
    fn addresses_pass_their_sieve() {
        for (text, passes) in [
            ("10.0.0.1", true),
            ("a 1.2.3.4.5", true),
            ("1.5", false),
            ("v1.2.3", false),
            ("1..2.3", false),
            ("...", false),
        ] {
            assert_eq!(Sieve::Dots.passes(text.as_bytes()), passes, "{text}");
        }
    }
}
