//! Regular expressions of conditions and transforms, in the syntax of RE2.
//!
//! `\d`, `\w`, `\s` and `\b` are ASCII, everything else is about characters: so a program is small where a pattern repeats
//! them, and text of any language goes the fast way. `\p{…}` is refused, look-around and back references are no part of RE2.
//!
//! # Guarantees
//! A search is linear in the text, whatever the pattern: automata alone, no backtracking without a bound. What a pattern means
//! does not depend on which features other crates ask of the same library.
//!
//! # Limits
//! [`PATTERN_CHARACTERS_MAX`], [`NESTING_MAX`] groups in each other, [`GROUPS_MAX`] groups, [`PROGRAM_BYTES_MAX`] for the program
//! and [`CACHE_BYTES_MAX`] for what each thread that searches keeps of the automaton.

use std::fmt;
use std::sync::Arc;

use regex_automata::Input;
use regex_automata::meta::{BuildError, Config, Regex};
use regex_automata::util::primitives::NonMaxUsize;
use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{
    Assertion, AssertionKind, Ast, ClassAscii, ClassAsciiKind, ClassBracketed, ClassPerl, ClassPerlKind, ClassSet,
    ClassSetItem, Flag, Flags, FlagsItem, FlagsItemKind, Group, GroupKind, Span,
};
use regex_syntax::hir::Hir;
use regex_syntax::hir::translate::TranslatorBuilder;

/// Most characters of a pattern.
pub const PATTERN_CHARACTERS_MAX: usize = 1024;

/// Most groups in each other.
const NESTING_MAX: u32 = 32;

/// Most groups of a pattern, with and without a name.
pub const GROUPS_MAX: usize = 32;

/// Most bytes of a compiled program: some 6,000 states, of which a text of 64 KiB visits each at most once a byte.
pub const PROGRAM_BYTES_MAX: usize = 256 << 10;

/// Most bytes of an automaton that one thread keeps, for each direction of the search.
const CACHE_BYTES_MAX: usize = 256 << 10;

/// A compiled pattern; clones share it.
#[derive(Clone)]
pub struct Pattern(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    regex: Regex,
    /// The named groups: what they are called, and which group each is.
    named: Vec<(Box<str>, usize)>,
}

impl Pattern {
    /// Checks `text` and compiles it.
    pub fn compile(text: &str) -> Result<Self, PatternError> {
        let regex = program(&[hir(text)?])?;
        let names = regex.group_info().pattern_names(regex_automata::PatternID::ZERO).enumerate();
        let named = names.filter_map(|(group, name)| Some((name?.into(), group))).collect();
        Ok(Self(Arc::new(Compiled { text: text.into(), regex, named })))
    }

    /// Returns the names of its groups, in their order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.named.iter().map(|(name, _)| &**name)
    }

    /// Returns the pattern as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Returns whether the pattern is found in a text.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        self.0.regex.is_match(text)
    }

    /// Looks for the pattern in a text and says for each named group where it stands; returns whether it was found.
    pub(crate) fn find(&self, text: &[u8], places: &mut Vec<Option<(usize, usize)>>) -> bool {
        let mut slots = [None::<NonMaxUsize>; 2 * (GROUPS_MAX + 1)];
        let slots = &mut slots[..self.0.regex.group_info().slot_len().min(2 * (GROUPS_MAX + 1))];
        if self.0.regex.search_slots(&Input::new(text), slots).is_none() {
            return false;
        }
        let place =
            |group: usize| Some((slots.get(2 * group)?.as_ref()?.get(), slots.get(2 * group + 1)?.as_ref()?.get()));
        places.extend(self.0.named.iter().map(|(_, group)| place(*group)));
        true
    }
}

/// Two patterns are the same when they are written the same.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text()).finish()
    }
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// What is wrong, without the place.
    pub message: String,
    /// The character it is about, from 1, when it is about one.
    pub column: Option<usize>,
}

impl PatternError {
    /// What would be right.
    pub const ALLOWED: &'static str = "the syntax of RE2, without `\\p{…}`";

    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), column: None }
    }

    fn at(message: impl fmt::Display, span: &Span) -> Self {
        Self { message: message.to_string(), column: Some(span.start.column) }
    }
}

/// Reads a pattern.
pub(crate) fn hir(text: &str) -> Result<Hir, PatternError> {
    let characters = text.chars().count();
    if characters > PATTERN_CHARACTERS_MAX {
        return Err(PatternError::new(format!("{characters} characters, more than {PATTERN_CHARACTERS_MAX}")));
    }
    let parsed = ParserBuilder::new().nest_limit(NESTING_MAX).build().parse(text);
    let mut ast = parsed.map_err(|error| PatternError::at(error.kind(), error.span()))?;
    ascii(&mut ast)?;
    let translated = TranslatorBuilder::new().utf8(true).build().translate(text, &ast);
    let hir = translated.map_err(|error| PatternError::at(error.kind(), error.span()))?;
    let groups = hir.properties().explicit_captures_len();
    if groups > GROUPS_MAX {
        return Err(PatternError::new(format!("{groups} groups, more than {GROUPS_MAX}; `(?:…)` is none")));
    }
    Ok(hir)
}

/// Compiles patterns that are looked for at once.
pub(crate) fn program(patterns: &[Hir]) -> Result<Regex, PatternError> {
    let config = Config::new()
        .nfa_size_limit(Some(PROGRAM_BYTES_MAX))
        .onepass_size_limit(Some(PROGRAM_BYTES_MAX))
        .hybrid_cache_capacity(CACHE_BYTES_MAX)
        .dfa(false);
    let refused = |error: BuildError| {
        PatternError::new(match error.size_limit() {
            Some(_) => format!("its program is larger than {} KiB", PROGRAM_BYTES_MAX >> 10),
            None => format!("it cannot be compiled: {error}"),
        })
    };
    Regex::builder().configure(config).build_many_from_hir(patterns).map_err(refused)
}

/// Makes `\d`, `\w`, `\s` and `\b` ASCII, as in RE2; by default they would be Unicode's. The depth is that of the parser.
fn ascii(ast: &mut Ast) -> Result<(), PatternError> {
    match ast {
        Ast::Empty(_) | Ast::Flags(_) | Ast::Literal(_) | Ast::Dot(_) => Ok(()),
        Ast::Assertion(assertion) => {
            if is_about_words(&assertion.kind) {
                *ast = without_unicode((**assertion).clone());
            }
            Ok(())
        }
        Ast::ClassUnicode(class) => Err(no_unicode_class(&class.span)),
        Ast::ClassPerl(class) => {
            let (span, negated) = (class.span, class.negated);
            let kind = ClassSet::Item(ClassSetItem::Ascii(ClassAscii { negated: false, ..ascii_class(class) }));
            *ast = Ast::class_bracketed(ClassBracketed { span, negated, kind });
            Ok(())
        }
        Ast::ClassBracketed(class) => ascii_set(&mut class.kind),
        Ast::Repetition(repetition) => ascii(&mut repetition.ast),
        Ast::Group(group) => ascii(&mut group.ast),
        Ast::Alternation(alternation) => alternation.asts.iter_mut().try_for_each(ascii),
        Ast::Concat(concat) => concat.asts.iter_mut().try_for_each(ascii),
    }
}

fn ascii_set(set: &mut ClassSet) -> Result<(), PatternError> {
    match set {
        ClassSet::Item(item) => ascii_item(item),
        ClassSet::BinaryOp(operation) => {
            ascii_set(&mut operation.lhs)?;
            ascii_set(&mut operation.rhs)
        }
    }
}

fn ascii_item(item: &mut ClassSetItem) -> Result<(), PatternError> {
    match item {
        ClassSetItem::Perl(class) => *item = ClassSetItem::Ascii(ascii_class(class)),
        ClassSetItem::Unicode(class) => return Err(no_unicode_class(&class.span)),
        ClassSetItem::Bracketed(class) => return ascii_set(&mut class.kind),
        ClassSetItem::Union(union) => return union.items.iter_mut().try_for_each(ascii_item),
        ClassSetItem::Empty(_) | ClassSetItem::Literal(_) | ClassSetItem::Range(_) | ClassSetItem::Ascii(_) => {}
    }
    Ok(())
}

fn ascii_class(class: &ClassPerl) -> ClassAscii {
    let kind = match class.kind {
        ClassPerlKind::Digit => ClassAsciiKind::Digit,
        ClassPerlKind::Space => ClassAsciiKind::Space,
        ClassPerlKind::Word => ClassAsciiKind::Word,
    };
    ClassAscii { span: class.span, kind, negated: class.negated }
}

fn no_unicode_class(span: &Span) -> PatternError {
    PatternError::at("`\\p` is not available", span)
}

fn is_about_words(kind: &AssertionKind) -> bool {
    !matches!(
        kind,
        AssertionKind::StartLine | AssertionKind::EndLine | AssertionKind::StartText | AssertionKind::EndText
    )
}

fn without_unicode(assertion: Assertion) -> Ast {
    let span = assertion.span;
    let item = |kind| FlagsItem { span, kind };
    let items = vec![item(FlagsItemKind::Negation), item(FlagsItemKind::Flag(Flag::Unicode))];
    let kind = GroupKind::NonCapturing(Flags { span, items });
    Ast::group(Group { span, kind, ast: Box::new(Ast::assertion(assertion)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns what the named groups are in a text; `None` where the pattern is not found.
    fn found<'t>(pattern: &str, text: &'t str) -> Option<Vec<Option<&'t str>>> {
        let mut places = Vec::new();
        let pattern = Pattern::compile(pattern).unwrap();
        pattern.find(text.as_bytes(), &mut places).then(|| {
            assert_eq!(places.len(), pattern.names().len());
            places.into_iter().map(|place| place.map(|(start, end)| &text[start..end])).collect()
        })
    }

    #[test]
    fn named_groups_are_found() {
        assert_eq!(found("(?<a>x+)-(y)?(?P<b>z)?", "--xx-y"), Some(vec![Some("xx"), None]));
        assert_eq!(found("(?<a>x+)-(y)?(?P<b>z)?", "--x-yz"), Some(vec![Some("x"), Some("z")]));
        assert_eq!(found("^(?<a>x)$", "xy"), None);
        assert_eq!(found("(?<a>)", ""), Some(vec![Some("")]));
        assert_eq!(found("a", "a"), Some(vec![]));
    }

    #[test]
    fn classes_are_ascii_and_the_rest_is_about_characters() {
        for (pattern, text, group) in [
            (r"^(?<a>.)", "é1", Some("é")),
            (r"(?<a>\d+)", "٣4", Some("4")),
            (r"(?<a>[\d_]+)", "٣4_", Some("4_")),
            (r"(?<a>[^\d]+)", "4٣", Some("٣")),
            (r"(?<a>\D)", "٣", Some("٣")),
            (r"(?<a>[\D&&[^a]])", "a٣", Some("٣")),
            (r"(?<a>\w+)", "éa_1", Some("a_1")),
            (r"(?<a>\W+)", "aé-", Some("é-")),
            (r"(?<a>\s)", "\u{a0}", None),
            (r"\b(?<a>\w)", "éa", Some("a")),
            (r"(?<a>é)\B", "é", Some("é")),
            (r"(?i)(?<a>É+)", "éÉ", Some("éÉ")),
            (r"(?<a>[à-ü]+)", "aéü", Some("éü")),
            (r"(?s)(?<a>a.b)", "a\nb", Some("a\nb")),
            (r"(?m)^(?<a>b)$", "a\nb", Some("b")),
        ] {
            assert_eq!(found(pattern, text), group.map(|group| vec![Some(group)]), "{pattern} in {text}");
        }
    }

    #[test]
    fn what_is_refused_is_said_with_its_place() {
        let many = "(a)".repeat(GROUPS_MAX + 1);
        let deep = format!("{}{}", "(?:".repeat(40), ")".repeat(40));
        for (pattern, message, column) in [
            ("a(b", "unclosed group", Some(2)),
            ("é[", "unclosed character class", Some(2)),
            ("(?=a)", "look-around, including look-ahead and look-behind, is not supported", Some(1)),
            (r"(a)\1", "backreferences are not supported", Some(4)),
            (r"a\p{Greek}", "`\\p` is not available", Some(2)),
            (r"[a\pL]", "`\\p` is not available", Some(3)),
            ("(?<a>x)(?<a>y)", "duplicate capture group name", Some(11)),
            ("(?-u:.)", "pattern can match invalid UTF-8", Some(6)),
            (r"(\w{1000}){1000}", "its program is larger than 256 KiB", None),
            (&many, "33 groups, more than 32; `(?:…)` is none", None),
            (&deep, "exceed the maximum number of nested parentheses/brackets (32)", Some(97)),
            (&"é".repeat(1025), "1025 characters, more than 1024", None),
        ] {
            let error = Pattern::compile(pattern).unwrap_err();
            assert_eq!((&*error.message, error.column), (message, column), "{pattern}");
        }
    }

    #[test]
    fn patterns_that_hurt_others_end() {
        // Each would take ages where a search goes back.
        let text = "x".repeat(64 << 10);
        for pattern in ["(x+x+)+y", "(x*)*y", "^(x|x)*(?<a>y)$", "(?:x?){60}x{60}(?<a>y)", "(.*)(.*)(.*)(.*)(?<a>[^x])"]
        {
            assert_eq!(found(pattern, &text), None, "{pattern}");
        }
        assert_eq!(found("(?<a>(x|xx)+)$", &text), Some(vec![Some(&*text)]));
    }
}
