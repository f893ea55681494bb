//! What is looked for in texts: kinds that are known, and patterns.

use std::fmt;
use std::sync::Arc;

use regex_automata::Input;
use regex_automata::meta::Regex;
use regex_automata::util::primitives::NonMaxUsize;
use regex_syntax::hir::{Hir, HirKind, Repetition};

use super::builtin::{Builtin, Sieve, cards};
use crate::pattern::{self, GROUPS_MAX, PatternError};

/// Most patterns of one `Redact`.
pub const PATTERNS_MAX: usize = 16;

/// Most things that one pattern finds in one text; behind them the text goes whole. A search may look at all of the text to find
/// one letter, so that without a limit time would grow with its square.
pub const FINDS_MAX: usize = 128;

/// The group that is meant where it finds something; the rest stays.
const SECRET: &str = "secret";

/// Kinds and patterns, compiled; clones share them.
#[derive(Clone)]
pub struct Finders(Arc<Compiled>);

struct Compiled {
    known: Vec<(Builtin, Sieve, Option<Search>)>,
    patterns: Vec<(Box<str>, Search)>,
    /// All patterns at once, without what they say of the place: finds something wherever one of them does, in whatever the text
    /// stands.
    sieve: Option<Regex>,
}

/// Which of them may find something: a bit for each kind, and [`PATTERNS`] for all patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Suspected(u16);

const PATTERNS: u16 = 1 << Builtin::ALL.len();

impl Suspected {
    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_patterns(self) -> bool {
        self.0 & PATTERNS != 0
    }

    pub(super) fn without_patterns(self) -> Self {
        Self(self.0 & !PATTERNS)
    }

    fn of(builtin: Builtin) -> Self {
        Self(1 << builtin as u16)
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// One pattern.
struct Search {
    regex: Regex,
    /// The group that is meant where it finds something, 0 for all that is found.
    group: usize,
}

/// What of a `Redact` is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct FindersError {
    /// Which pattern; `None` where it is about all of them.
    pub index: Option<usize>,
    /// Why.
    pub error: PatternError,
}

impl Finders {
    /// Compiles what is looked for.
    pub fn compile(known: &[Builtin], patterns: &[impl AsRef<str>]) -> Result<Self, FindersError> {
        let all = |error| FindersError { index: None, error };
        if patterns.len() > PATTERNS_MAX {
            return Err(all(PatternError::new(format!("{} patterns, more than {PATTERNS_MAX}", patterns.len()))));
        }
        let known = known.iter().map(|builtin| {
            let search = builtin.pattern().map(|pattern| Search::of(&pattern::hir(pattern)?)).transpose();
            Ok((*builtin, builtin.sieve(), search.map_err(all)?))
        });
        let known: Vec<_> = known.collect::<Result<_, _>>()?;
        let (mut searches, mut anywhere) = (Vec::new(), Vec::new());
        for (index, text) in patterns.iter().enumerate() {
            let text = text.as_ref();
            let at = |error| FindersError { index: Some(index), error };
            let hir = pattern::hir(text).map_err(at)?;
            if hir.properties().minimum_len() == Some(0) {
                return Err(at(PatternError::new("it finds a text of no characters, too")));
            }
            searches.push((text.into(), Search::of(&hir).map_err(at)?));
            anywhere.push(without_places(&hir));
        }
        let sieve = if anywhere.is_empty() { None } else { Some(pattern::program(&anywhere).map_err(all)?) };
        Ok(Self(Arc::new(Compiled { known, patterns: searches, sieve })))
    }

    /// Returns what may be found in these bytes, or in any part of them.
    pub(super) fn suspected(&self, bytes: &[u8]) -> Suspected {
        let Suspected(known) = self.suspected_of(Suspected(u16::MAX), bytes);
        Suspected(known | if self.patterns_may_find(bytes) { PATTERNS } else { 0 })
    }

    /// Returns whether a pattern may find something in these bytes.
    pub(super) fn patterns_may_find(&self, bytes: &[u8]) -> bool {
        self.0.sieve.as_ref().is_some_and(|sieve| sieve.is_match(bytes))
    }

    /// Returns what of `suspected` may be found in a part of the bytes that it was told of.
    pub(super) fn narrowed(&self, suspected: Suspected, part: &[u8]) -> Suspected {
        if suspected.is_none() {
            return suspected;
        }
        Suspected(self.suspected_of(suspected, part).0 | suspected.0 & PATTERNS)
    }

    /// The same of the kinds alone.
    fn suspected_of(&self, among: Suspected, bytes: &[u8]) -> Suspected {
        let mut suspected = 0;
        for (builtin, sieve, _) in &self.0.known {
            let bit = Suspected::of(*builtin);
            if among.has(bit) && sieve.passes(bytes) {
                suspected |= bit.0;
            }
        }
        Suspected(suspected)
    }

    /// Lists what is found in a text, from the left, none in another.
    pub(super) fn find(&self, text: &[u8], suspected: Suspected, found: &mut Vec<(usize, usize)>) {
        found.clear();
        for (builtin, _, search) in &self.0.known {
            match search {
                _ if !suspected.has(Suspected::of(*builtin)) => {}
                Some(search) => search.find(text, found),
                None => find_cards(text, found),
            }
        }
        if suspected.has_patterns() {
            self.0.patterns.iter().for_each(|(_, search)| search.find(text, found));
        }
        join(found);
    }

    fn named(&self) -> (Vec<Builtin>, Vec<&str>) {
        let known = self.0.known.iter().map(|(builtin, ..)| *builtin).collect();
        (known, self.0.patterns.iter().map(|(text, _)| &**text).collect())
    }
}

/// Finders are the same when they are told the same.
impl PartialEq for Finders {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.named() == other.named()
    }
}

impl Eq for Finders {}

impl fmt::Debug for Finders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (known, patterns) = self.named();
        f.debug_tuple("Finders").field(&known).field(&patterns).finish()
    }
}

impl Search {
    fn of(hir: &Hir) -> Result<Self, PatternError> {
        let regex = pattern::program(std::slice::from_ref(hir))?;
        let group = regex.group_info().to_index(regex_automata::PatternID::ZERO, SECRET).unwrap_or(0);
        Ok(Self { regex, group })
    }

    /// Adds what is found in a text.
    fn find(&self, text: &[u8], found: &mut Vec<(usize, usize)>) {
        let mut slots = [None::<NonMaxUsize>; 2 * (GROUPS_MAX + 1)];
        let slots = &mut slots[..2 * (self.group + 1).min(GROUPS_MAX + 1)];
        let mut input = Input::new(text);
        for _ in 0..FINDS_MAX {
            if self.regex.search_slots(&input, slots).is_none() {
                return;
            }
            let place = |group: usize| Some((slots[2 * group]?.get(), slots[2 * group + 1]?.get()));
            let Some(whole) = place(0) else { return };
            found.push(place(self.group).filter(|(start, end)| start < end).unwrap_or(whole));
            // No pattern finds nothing at all, so that this goes on.
            input.set_start(whole.1);
        }
        let from = input.start();
        if self.regex.search_slots(&input, slots).is_some() {
            found.push((from, text.len()));
        }
    }
}

fn find_cards(text: &[u8], found: &mut Vec<(usize, usize)>) {
    let mut count = 0;
    cards(text, |start, end| {
        count += 1;
        let is_last = count > FINDS_MAX;
        found.push((start, if is_last { text.len() } else { end }));
        !is_last
    });
}

/// Sorts, and makes one of those that overlap.
fn join(found: &mut Vec<(usize, usize)>) {
    found.sort_unstable();
    found.dedup_by(|next, before| {
        let overlaps = next.0 < before.1;
        if overlaps {
            before.1 = before.1.max(next.1);
        }
        overlaps
    });
}

/// Returns the pattern without its anchors and word boundaries, and without its groups.
fn without_places(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
        HirKind::Capture(capture) => without_places(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(without_places).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(without_places).collect()),
        HirKind::Repetition(repetition) => {
            let sub = Box::new(without_places(&repetition.sub));
            Hir::repetition(Repetition { sub, ..repetition.clone() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what is found in a text; the sieve lets it through wherever the text stands.
    fn found<'t>(known: &[Builtin], patterns: &[&str], text: &'t str) -> Vec<&'t str> {
        let finders = Finders::compile(known, patterns).unwrap();
        let mut found = Vec::new();
        finders.find(text.as_bytes(), Suspected(u16::MAX), &mut found);
        if !found.is_empty() {
            for around in [text.to_owned(), format!("{{\"a\":\"{text}\"}}")] {
                let mut again = Vec::new();
                finders.find(text.as_bytes(), finders.suspected(around.as_bytes()), &mut again);
                assert_eq!(again, found, "{around}");
            }
        }
        found.into_iter().map(|(start, end)| &text[start..end]).collect()
    }

    #[test]
    fn what_is_known_is_found() {
        for (builtin, text, expected) in [
            (Builtin::AwsAccessKey, "key=AKIAIOSFODNN7EXAMPLE,", &["AKIAIOSFODNN7EXAMPLE"][..]),
            (Builtin::AwsAccessKey, "AKIAIOSFODNN7", &[]),
            (Builtin::BearerToken, "Authorization: Bearer abcdefghijklmnop.qr==", &["abcdefghijklmnop.qr=="]),
            (Builtin::BearerToken, "bearer of bad news, BEARER authentication", &[]),
            (Builtin::CreditCard, "4111 1111 1111 1111", &["4111 1111 1111 1111"]),
            (
                Builtin::Email,
                "from ann.b+c@mail.example.test to <é@exämple.test>",
                &["ann.b+c@mail.example.test", "é@exämple.test"],
            ),
            (Builtin::Email, "user=bob@example.test", &["bob@example.test"]),
            (Builtin::Email, "@here a@b a@b.c", &[]),
            (Builtin::Ipv4, "10.0.0.1:80 and 255.255.255.255", &["10.0.0.1", "255.255.255.255"]),
            (Builtin::Ipv4, "256.0.0.1 1.2.3 1234.1.1.1", &[]),
            (Builtin::Ipv4, "ip_10.0.0.1_eth0,v192.168.001.010 10.0.0.2", &["10.0.0.1", "192.168.001.010", "10.0.0.2"]),
            (Builtin::Jwt, "t=eyJhbGciOiJI.eyJzdWIi.SflKxw_-; eyJx.y", &["eyJhbGciOiJI.eyJzdWIi.SflKxw_-"]),
            (Builtin::Jwt, "_eyJhbGciOiJI.a.b.c.d!", &["eyJhbGciOiJI.a.b.c.d"]),
            (
                Builtin::PrivateKey,
                "x -----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- y -----BEGIN PRIVATE KEY-----\nMII",
                &[
                    "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----",
                    "-----BEGIN PRIVATE KEY-----\nMII",
                ],
            ),
            (Builtin::PrivateKey, "-----BEGIN PUBLIC KEY-----", &[]),
            (Builtin::UrlPassword, "postgres://ann:s3cr:et@db/x http://a:80/b", &["s3cr:et"]),
            (Builtin::UrlPassword, "pg://ann:p@ssw0rd@db/x smtp://ann@example.test:pw@mail", &["p@ssw0rd", "pw"]),
        ] {
            assert_eq!(found(&[builtin], &[], text), expected, "{builtin:?} in {text}");
        }
    }

    #[test]
    fn of_a_pattern_with_a_secret_the_rest_stays() {
        assert_eq!(found(&[], &[r"password=(?<secret>\S+)"], "password=a password=b;"), ["a", "b;"]);
        assert_eq!(found(&[], &["x(?<secret>y)?"], "x xy"), ["x", "y"]);
        assert_eq!(found(&[], &["^tok_[a-z0-9]+$"], "tok_1 tok_2"), [""; 0]);
        assert_eq!(found(&[], &["^tok_[a-z0-9]+$", r"\bk_2\b"], "tok_2"), ["tok_2"]);
    }

    #[test]
    fn what_overlaps_is_one() {
        assert_eq!(found(&[], &["abc", "cd", "x"], "abcdxx"), ["abcd", "x", "x"]);
        assert_eq!(found(&[Builtin::Email], &["@example"], "a@example.test"), ["a@example.test"]);
    }

    #[test]
    fn much_that_is_found_goes_with_the_rest() {
        let text = "ab".repeat(2 * FINDS_MAX);
        let some = found(&[], &["a"], &text);
        assert_eq!((some.len(), some[FINDS_MAX].len()), (FINDS_MAX + 1, text.len() - 2 * FINDS_MAX + 1));
        assert_eq!(found(&[], &["a"], &text[..2 * FINDS_MAX]).len(), FINDS_MAX, "no more than is told");
        let cards = "4111111111111111,".repeat(FINDS_MAX + 9);
        assert_eq!(found(&[Builtin::CreditCard], &[], &cards).last().map(|rest| rest.len()), Some(17 * 9));
    }

    #[test]
    fn patterns_that_hurt_others_end() {
        let text = "a".repeat(64 << 10);
        for pattern in ["a.*z|a", "(a+a+)+z", "(?:a?){60}a{60}", "(a|aa)+$", "a{0,50}z?a", "[^z]*?z|a"] {
            assert!(found(&[], &[pattern], &text).len() <= FINDS_MAX + 1, "{pattern}");
        }
        assert_eq!(found(&Builtin::ALL, &[], &"eyJ@://:1.".repeat(6 << 10)).len(), FINDS_MAX + 1);
    }

    #[test]
    fn what_is_refused_is_told_of_its_pattern() {
        let refused = |patterns: &[&str]| Finders::compile(&[Builtin::Jwt], patterns).unwrap_err();
        let told = |patterns: &[&str]| {
            let FindersError { index, error } = refused(patterns);
            (index, error.message, error.column)
        };
        assert_eq!(told(&["a", "b("]), (Some(1), "unclosed group".into(), Some(2)));
        assert_eq!(told(&["a*"]), (Some(0), "it finds a text of no characters, too".into(), None));
        assert_eq!(told(&[r"\w{1000}{9}"]), (Some(0), "its program is larger than 256 KiB".into(), None));
        assert_eq!(told(&["a"; PATTERNS_MAX + 1]).1, "17 patterns, more than 16");
        let large = ["[a-z]{2000}w", "[a-z]{2000}x", "[a-z]{2000}y", "[a-z]{2000}z"];
        assert_eq!(told(&large), (None, "its program is larger than 256 KiB".into(), None));
    }

    #[test]
    fn they_are_the_same_when_told_the_same() {
        let of = |known: &[Builtin], patterns: &[&str]| Finders::compile(known, patterns).unwrap();
        assert_eq!(of(&[Builtin::Jwt], &["a"]), of(&[Builtin::Jwt], &["a"]));
        assert_ne!(of(&[Builtin::Jwt], &["a"]), of(&[Builtin::Jwt], &["b"]));
        assert_ne!(of(&[Builtin::Jwt], &[]), of(&[Builtin::Email], &[]));
    }
}
