//! Sizes: what is too long to be read at once. Test code is not counted.

use crate::tidy::Finding;
use crate::tidy::source::{Source, closing_brace};

/// Most lines of a file, comments counted, test code not.
pub(super) const FILE_LINES_MAX: usize = 500;
/// Most lines of a function from its name to its closing brace, without blank and comment lines.
pub(super) const FUNCTION_LINES_MAX: usize = 70;
/// Most variants of an enum of errors.
pub(super) const ERROR_VARIANTS_MAX: usize = 8;

/// Checks the sizes of one file.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if source.is_test {
        return;
    }
    let tests: usize = source.tests.iter().map(|(start, end)| source.line_of(*end) - source.line_of(*start) + 1).sum();
    let lines = source.text.lines().count().saturating_sub(tests);
    if lines > FILE_LINES_MAX {
        let text = format!("{lines} lines without tests; at most {FILE_LINES_MAX}");
        findings.push(Finding::new(&source.path, 1, text));
    }
    for at in source.words("fn") {
        check_function(source, at, findings);
    }
    for at in source.words("enum") {
        check_enum(source, at, findings);
    }
}

fn check_function(source: &Source, at: usize, findings: &mut Vec<Finding>) {
    let masked = &source.masked;
    let Some(open) = body(masked, at).filter(|_| !source.in_test(at)) else {
        return;
    };
    let whole = &masked[at..closing_brace(masked, open)];
    let lines = whole.lines().filter(|line| !line.trim().is_empty()).count();
    if lines > FUNCTION_LINES_MAX {
        let name = whole[2..].split(['(', '<']).next().unwrap_or_default().trim();
        let text = format!("function `{name}` has {lines} lines; at most {FUNCTION_LINES_MAX}");
        findings.push(Finding::new(&source.path, source.line_of(at), text));
    }
}

/// Returns where the body of the function at `at` opens; `None` for a declaration or a function type.
fn body(masked: &str, at: usize) -> Option<usize> {
    if !masked[at + 2..].starts_with(' ') {
        return None;
    }
    let mut depth = 0_i32;
    for (offset, byte) in masked.as_bytes()[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at + offset),
            b';' | b',' | b'=' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

fn check_enum(source: &Source, at: usize, findings: &mut Vec<Finding>) {
    let Some(open) = source.masked[at..].find('{').map(|offset| at + offset) else {
        return;
    };
    let variants = source.masked[open..closing_brace(&source.masked, open)].matches("#[error(").count();
    if variants > ERROR_VARIANTS_MAX {
        let text = format!("an enum of {variants} errors; at most {ERROR_VARIANTS_MAX}, one enum per module");
        findings.push(Finding::new(&source.path, source.line_of(at), text));
    }
}
