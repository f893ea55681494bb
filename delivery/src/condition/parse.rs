//! From text to the parser's tree: the caps before it, the stack under it, its errors in our words.

use cel::parser::Parser;
use cel::{ParseError, ParseErrors};

use super::check::Checker;
use super::node::{Cost, Node};
use super::{CHARACTERS_MAX, ConditionError, NESTING_MAX, PARSER_STACK_BYTES};
use crate::json::Paths;

/// What a text must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// True or false.
    Condition,
    /// Any value.
    Value,
}

/// A checked text.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) node: Node,
    /// What the node's slots are about.
    pub(super) paths: Paths,
    /// The same paths as keys, in order of appearance.
    pub(super) fields: Vec<Vec<String>>,
    /// What it does for each event.
    pub(super) cost: Cost,
}

/// Parses and checks on a thread with room for the parser's recursion; the tree never leaves it.
pub(super) fn on_own_stack(text: &str, wanted: Wanted) -> Result<Parsed, ConditionError> {
    check_caps(text)?;
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("condition".into()).stack_size(PARSER_STACK_BYTES);
        let thread = builder.spawn_scoped(scope, || parse(text, wanted));
        let thread = thread.map_err(|error| ConditionError::new(format!("no thread for the parser: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(ConditionError::new("the parser failed on this text")))
    })
}

fn parse(text: &str, wanted: Wanted) -> Result<Parsed, ConditionError> {
    // For fields that may be absent, and for keys like `a-b`.
    let parser = Parser::default().enable_optional_syntax(true).enable_ident_escape_syntax(true);
    let (expression, source) = parser.parse_with_source_info(text).map_err(|errors| syntax_error(text, &errors))?;
    let checker = Checker::new(&source);
    match wanted {
        Wanted::Condition => checker.condition(&expression),
        Wanted::Value => checker.value(&expression),
    }
}

/// Refuses what is too long or too deep, without building anything.
fn check_caps(text: &str) -> Result<(), ConditionError> {
    let characters = text.chars().count();
    if characters > CHARACTERS_MAX {
        return Err(ConditionError::new(format!("{characters} characters, more than {CHARACTERS_MAX}")));
    }
    let mut scan = CapScan { text: text.chars().collect(), at: 0 };
    let (mut open, mut signs) = (0_usize, 0_usize);
    while let Some(character) = scan.next_outside_strings() {
        match character {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        signs = match character {
            '!' | '-' => signs + 1,
            _ if character.is_whitespace() => signs,
            _ => 0,
        };
        if open.max(signs) > NESTING_MAX {
            return Err(ConditionError::new(format!("nested deeper than {NESTING_MAX}")).at(scan.at));
        }
    }
    Ok(())
}

/// Knows only where strings and comments end. Where it is wrong, the parser's own limits still hold.
struct CapScan {
    text: Vec<char>,
    at: usize,
}

impl CapScan {
    fn next_outside_strings(&mut self) -> Option<char> {
        let character = *self.text.get(self.at)?;
        match character {
            '"' | '\'' => self.skip_string(character),
            '/' if self.text.get(self.at + 1) == Some(&'/') => self.skip_until(|character| character == '\n'),
            _ => self.at += 1,
        }
        Some(character)
    }

    fn skip_until(&mut self, end: impl Fn(char) -> bool) {
        while self.text.get(self.at).is_some_and(|character| !end(*character)) {
            self.at += 1;
        }
        self.at += 1;
    }

    fn skip_string(&mut self, quote: char) {
        let raw = self.text[..self.at].iter().rev().take(2).any(|prefix| matches!(prefix, 'r' | 'R'))
            && self.at.checked_sub(1).is_some_and(|before| matches!(self.text[before], 'r' | 'R' | 'b' | 'B'));
        let triple = self.text[self.at..].starts_with(&[quote; 3]);
        let close = if triple { 3 } else { 1 };
        self.at += close;
        while let Some(&character) = self.text.get(self.at) {
            if self.text[self.at..].starts_with(&[quote; 3][..close]) {
                self.at += close;
                return;
            }
            // A line break ends a string that has one quote; the parser will say so.
            if !triple && character == '\n' {
                return;
            }
            self.at += if character == '\\' && !raw { 2 } else { 1 };
        }
    }
}

/// Says the first thing the parser found, in our words: its own list every token that it would have taken.
fn syntax_error(text: &str, errors: &ParseErrors) -> ConditionError {
    let Some(first) = errors.errors.first() else { return ConditionError::new("syntax error") };
    let column = column(text, first);
    let found = column.and_then(|column| text.chars().nth(column - 1));
    let error = reworded(&first.msg, found);
    match column {
        Some(column) => error.at(column),
        None => error,
    }
}

/// Returns the place in the whole text; the parser counts lines, and columns in characters.
fn column(text: &str, error: &ParseError) -> Option<usize> {
    let (line, column) = (usize::try_from(error.pos.0).ok()?, usize::try_from(error.pos.1).ok()?);
    let lines_before = text.split_inclusive('\n').take(line.checked_sub(1)?);
    Some(lines_before.map(|line| line.chars().count()).sum::<usize>() + column.max(1))
}

fn reworded(message: &str, found: Option<char>) -> ConditionError {
    if message == "invalid argument to has() macro" {
        return ConditionError::new("`has` takes a field selected with a dot, like `has(event.a.b)`");
    }
    let Some(syntax) = message.strip_prefix("Syntax error: ") else {
        return ConditionError::new(message.to_lowercase());
    };
    match found {
        None if syntax.starts_with("missing ") => {
            let expected = syntax.split('\'').nth(1).unwrap_or("more");
            ConditionError::new(format!("expected `{expected}` at the end"))
        }
        None => ConditionError::new("unexpected end"),
        Some('"' | '\'') if syntax.starts_with("token recognition") => {
            ConditionError::new("string without its closing quote")
        }
        Some(found) => {
            let token = offending(syntax, found);
            let meant = operator_meant(&token).map(str::to_owned);
            ConditionError::new(format!("syntax error, unexpected `{token}`")).suggest(meant)
        }
    }
}

/// Returns the token the parser stumbled over, as far as its message shows it.
fn offending(syntax: &str, found: char) -> String {
    let quoted = syntax.strip_prefix("mismatched input '").or_else(|| syntax.strip_prefix("extraneous input '"));
    let token = quoted.and_then(|rest| rest.split_once("' expecting ")).map(|(token, _)| token);
    token.map_or_else(|| found.to_string(), str::to_owned)
}

/// Returns the operator that a sign or a word of other languages stands for.
fn operator_meant(token: &str) -> Option<&'static str> {
    match token {
        "=" => Some("=="),
        "&" | "and" | "AND" => Some("&&"),
        "|" | "or" | "OR" => Some("||"),
        _ => None,
    }
}
