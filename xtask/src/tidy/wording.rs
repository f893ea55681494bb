//! How things are said: module headers, error texts, names of tests.

use crate::tidy::Finding;
use crate::tidy::source::Source;

/// Checks one file.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if source.path.contains("/src/") && !source.is_test && !source.text.starts_with("//!") {
        let text = "no header: the first line says in `//!` what this file guarantees";
        findings.push(Finding::new(&source.path, 1, text));
    }
    for (at, _) in source.masked.match_indices("fn test_").filter(|(at, _)| source.in_test(*at)) {
        let text = "a test is named after the fact it shows, without `test_`";
        findings.push(Finding::new(&source.path, source.line_of(at), text));
    }
    for (at, _) in source.masked.match_indices("#[error(\"") {
        check_error(source, at, findings);
    }
}

/// Checks one `#[error("…")]`: a lower-case fragment without a full stop that does not repeat its source.
fn check_error(source: &Source, at: usize, findings: &mut Vec<Finding>) {
    let open = at + "#[error(\"".len();
    let Some(length) = source.masked[open..].find('"') else {
        return;
    };
    let text = &source.text[open..open + length];
    let mut complain = |what: &str| {
        findings.push(Finding::new(&source.path, source.line_of(at), format!("error text \"{text}\": {what}")));
    };
    if starts_like_a_sentence(text) {
        complain("starts in lower case");
    }
    if text.ends_with('.') && !text.ends_with("..") {
        complain("has no full stop");
    }
    if text.contains("{source}") || text.contains("{source:") {
        complain("does not repeat its source: whoever prints the chain would print it twice");
    }
    let behind = source.masked[open + length..].find('(').map(|offset| &source.masked[open + length + offset..]);
    let field = behind.map(|rest| rest[1..].trim_start());
    let wraps = field.is_some_and(|rest| rest.starts_with("#[from]") || rest.starts_with("#[source]"));
    let own = source.masked[open + length..].find([',', '{', '}']);
    let paren = source.masked[open + length..].find('(');
    if wraps && paren < own && text.contains("{0") {
        complain("does not repeat its source: whoever prints the chain would print it twice");
    }
}

/// Returns whether the first word is a capitalised one; acronyms (`TLS`, `HTTP`) are as they are.
fn starts_like_a_sentence(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(char::is_uppercase) && letters.next().is_some_and(char::is_lowercase)
}
