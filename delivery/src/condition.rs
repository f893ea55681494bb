//! Conditions and expressions: CEL, checked when it arrives and lowered to a tree of its own.
//!
//! | available | as in |
//! | --- | --- |
//! | fields | `event.http.status`, `event["x y"]`, `event.items[0].id`, `origin.pod`, `origin.owner.kind`, `origin.labels["app"]` |
//! | constants | `"text"`, `3`, `3u`, `2.5`, `true`, `null` |
//! | comparisons | `==` `!=` `<` `<=` `>` `>=`; `event.level in ["warn", "error"]`, `"x" in event.tags` |
//! | logic | `&&` `\|\|` `!` `? :` and parentheses |
//! | arithmetic | `+` `-` `*` `/` `%`; `+` joins strings, too |
//! | what may be absent | `has(event.a.b)`; `event.?a.b.orValue(0)` |
//! | strings | `.startsWith("a")` `.endsWith("a")` `.contains("a")` `.matches("a.*")` `.lowerAscii()` `.upperAscii()` `.trim()` |
//! | of any value | `size(event.a)`, `string(event.a)`, `int(event.a)`, `double(event.a)` |
//! | lists | `event.items.all(i, i > 1)`, `.exists(i, i.ok)`, `.exists_one(i, i == 1)` |
//!
//! The meaning is CEL's. Numbers compare by value across their types, 64-bit integers exactly. `==` of different types
//! is false, an order of different types is a failure. `&&` and `||` are symmetric over failures: what one side decides
//! is decided, `false && <failure>` is false in both orders; so are `all` and `exists`. A string is ordered by code point.
//! Differences, on purpose:
//!
//! - `has` never fails: it says whether something is there at the path, also when nothing is there on the way. `orValue` goes by the
//!   same.
//! - Two arrays or two objects are not compared: a failure.
//! - Numbers of JSON have no type: an operator takes two integers as such and any other two as floats. What does not fit 64 bits, or is
//!   not finite, is a failure.
//! - Macros are for lists, not for the keys of objects.
//!
//! Fields of an event are dynamic: what they are is known at [`Condition::eval`]. What can be known before is refused by
//! [`Condition::compile`]: unknown names, with the nearest one; comparisons that can never hold, since fields of an
//! origin are strings; what is not a condition; and all of CEL that is not above, by name.
//!
//! An [`Expression`] is the same with any value: a field, a constant, or what a condition says of the event.
//!
//! It guarantees: evaluation is linear in the event, whatever the condition ([`Cost`] says how much of it is looked at); one lazy walk
//! for all fields of a condition, no walk when the origin decides, and no allocation unless a string with escapes is compared or a
//! string is made. Of duplicate keys the last one counts. There is no interpreter beside the tree: everything is lowered.
//!
//! It must not know routes, metrics, or who counts a failure.
//!
//! Limits, checked before the parser sees the text: [`CHARACTERS_MAX`], [`NESTING_MAX`] (brackets, and signs in a row). Of a list a macro
//! looks at [`LIST_ELEMENTS_MAX`] elements, and stands in no other macro; a string that is made has [`TEXT_BYTES_MAX`] at most. All that
//! is looked at besides the walk, however often, is [`WORK_FACTOR`] times the event and [`WORK_BYTES_MIN`] more.
//! The parser is the `cel` crate's grammar-generated one: its other one is hidden from the documentation and gives no
//! positions. It is recursive, so it runs on a thread of its own with [`PARSER_STACK_BYTES`], and a panic there is an
//! error here. It takes tens of microseconds, and some 30 ms for the worst texts tried, once for each condition.

mod check;
mod evaluate;
mod expression;
mod names;
mod node;
mod operate;
mod origin;
mod parse;
mod seen;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::event::{EVENT_BYTES_MAX, Origin};
use crate::json::Paths;
pub use expression::Expression;
pub use node::Cost;
use node::Node;
use parse::Wanted;

/// What conditions are made of, for whoever was refused.
pub const AVAILABLE: &str = "fields of `event` and `origin`, constants, `==` `!=` `<` `<=` `>` `>=`, `in`, `&&` `||` `!` `? :`, \
                             `+` `-` `*` `/` `%`, `has()`, `.?x.orValue()`, `.contains()`, `.startsWith()`, `.endsWith()`, \
                             `.matches()`, `.lowerAscii()`, `.upperAscii()`, `.trim()`, `size()`, `string()`, `int()`, \
                             `double()`, `.all()`, `.exists()`, `.exists_one()`";

/// Most characters of a condition.
pub const CHARACTERS_MAX: usize = 1024;

/// Most brackets open at once, and most signs (`!`, `-`) in a row.
pub const NESTING_MAX: usize = 16;

/// Most elements of a list that a macro looks at. A longer one that is not decided by then is a failure.
pub const LIST_ELEMENTS_MAX: usize = 128;

/// Largest number of an element that a condition names.
pub const ELEMENT_MAX: usize = 65_535;

/// Most bytes of a string that `+` makes: as many as an event may have.
pub const TEXT_BYTES_MAX: usize = EVENT_BYTES_MAX;

/// How many bytes an evaluation may look at besides its walk, for each byte of the event.
pub const WORK_FACTOR: usize = 16;

/// And at least.
pub const WORK_BYTES_MIN: usize = 64 << 10;

/// Stack of the thread a condition is parsed on: 16 MiB, eight times the usual; only what the parser touches is memory.
pub const PARSER_STACK_BYTES: usize = 16 << 20;

/// A compiled condition; clones share it.
#[derive(Clone)]
pub struct Condition(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    node: Node,
    paths: Paths,
    /// The fields of the event that it reads.
    fields: Vec<Vec<String>>,
    cost: Cost,
}

impl Compiled {
    fn of(text: &str, wanted: Wanted) -> Result<Self, ConditionError> {
        let parse::Parsed { node, paths, fields, cost } = parse::on_own_stack(text, wanted)?;
        Ok(Self { text: text.into(), node, paths, fields, cost })
    }
}

impl Condition {
    /// Checks `text` and compiles it. Blocks for the parser's time, so not for the hot path.
    pub fn compile(text: &str) -> Result<Self, ConditionError> {
        Ok(Self(Arc::new(Compiled::of(text, Wanted::Condition)?)))
    }

    /// Returns whether the condition holds for an event (a valid JSON object) of this origin.
    pub fn eval(&self, event: &[u8], origin: &Origin) -> Result<bool, EvalFailure> {
        evaluate::evaluate(&self.0.node, &self.0.paths, event, origin)
    }

    /// Returns the condition as it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Returns the paths of the event that it reads.
    pub fn fields(&self) -> &[Vec<String>] {
        &self.0.fields
    }

    /// Returns what it does for each event.
    pub fn cost(&self) -> Cost {
        self.0.cost
    }
}

/// Two conditions are the same when they are written the same.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.text() == other.text()
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text()).finish()
    }
}

/// Why a condition has no answer for an event. Who asks counts it and takes it as false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EvalFailure {
    /// A field is not there.
    #[error("absent field")]
    Absent,
    /// A value, or one on the way to it, has a type for which the operation means nothing.
    #[error("type mismatch")]
    TypeMismatch,
    /// A number that is made does not fit: an overflow, or a division by zero.
    #[error("arithmetic")]
    Arithmetic,
    /// A list or a text is longer than the bound.
    #[error("too large")]
    TooLarge,
}

impl EvalFailure {
    /// Every failure.
    pub const ALL: [Self; 4] = [Self::Absent, Self::TypeMismatch, Self::Arithmetic, Self::TooLarge];

    /// Returns the failure as a label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::TypeMismatch => "type_mismatch",
            Self::Arithmetic => "arithmetic",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionError {
    /// What is wrong, without the place and without the suggestion.
    pub message: String,
    /// The character it is about, from 1, when it is about one.
    pub column: Option<usize>,
    /// What was probably meant in its place.
    pub suggestion: Option<String>,
}

impl ConditionError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), column: None, suggestion: None }
    }

    fn at(self, column: usize) -> Self {
        Self { column: Some(column), ..self }
    }

    fn suggest(self, suggestion: Option<String>) -> Self {
        Self { suggestion, ..self }
    }
}

impl std::error::Error for ConditionError {}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(column) = self.column {
            write!(f, " at character {column}")?;
        }
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        Ok(())
    }
}

/// Returns the name nearest to `wrong`, `None` when none is near: a third of its characters may be wrong.
fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = wrong.to_lowercase();
    let far = wrong.chars().count().div_ceil(3);
    let distances = names.into_iter().map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name));
    distances.filter(|(distance, _)| *distance <= far).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}
