//! The lowered condition and its meaning.

use std::cmp::Ordering;

use memchr::memmem::Finder;

use super::EvalFailure;
use crate::event::{Origin, OriginField};
use crate::json::{Found, Number, Paths, Text, Value, write_string};

/// A checked expression.
#[derive(Debug)]
pub(super) enum Node {
    /// The same for every event.
    Constant(Constant),
    /// The field of the event in this slot of the walk.
    Event(usize),
    /// A field of the origin.
    Origin(OriginField),
    /// Whether the slot holds a value.
    HasEvent(usize),
    /// Whether the origin has the field.
    HasOrigin(OriginField),
    /// The opposite.
    Not(Box<Node>),
    /// `&&` of all, at least two.
    All(Vec<Node>),
    /// `||` of all, at least two.
    Any(Vec<Node>),
    /// A comparison.
    Compare(Box<Node>, Relation, Box<Node>),
    /// Whether the value equals one of these.
    In(Box<Node>, Vec<Constant>),
    /// A search in a string.
    Search(Box<Node>, Search),
}

/// A constant, ready to be compared.
#[derive(Debug)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Number(Number),
    String(Box<str>),
}

/// A relation between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    Different,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is searched, and where in a string.
#[derive(Debug)]
pub(super) enum Search {
    Start(Box<[u8]>),
    End(Box<[u8]>),
    Anywhere(Box<Finder<'static>>),
}

/// A value while it is looked at.
#[derive(Clone, Copy)]
enum Seen<'v> {
    Null,
    Bool(bool),
    Number(Number),
    /// A string of the event, maybe with escapes.
    Text(Text<'v>),
    /// A string as it is.
    Plain(&'v str),
    Array,
    Object,
}

/// Slots that need no allocation: few conditions name more fields.
const SLOTS_ON_STACK: usize = 8;

/// Evaluates a condition; a value that is no boolean is a type mismatch.
pub(super) fn evaluate(node: &Node, paths: &Paths, event: &[u8], origin: &Origin) -> Result<bool, EvalFailure> {
    over(paths, event, origin, |evaluation| evaluation.decide(node))
}

/// Evaluates an expression and appends its value as JSON: that of a field as it is written in the event.
pub(super) fn write(
    node: &Node,
    paths: &Paths,
    (event, origin): (&[u8], &Origin),
    out: &mut Vec<u8>,
) -> Result<(), EvalFailure> {
    over(paths, event, origin, |evaluation| {
        if let Node::Event(slot) = node {
            out.extend_from_slice(evaluation.event_bytes(*slot)?);
            return Ok(());
        }
        write_seen(evaluation.value(node)?, out);
        Ok(())
    })
}

fn write_seen(seen: Seen<'_>, out: &mut Vec<u8>) {
    let text = match seen {
        Seen::Plain(text) => return write_string(out, text),
        Seen::Bool(true) => "true".into(),
        Seen::Bool(false) => "false".into(),
        Seen::Number(Number::Int(int)) => int.to_string(),
        Seen::Number(Number::Uint(uint)) => uint.to_string(),
        // The shortest text that reads back as the number, always with a fraction or an exponent.
        Seen::Number(Number::Float(float)) => format!("{float:?}"),
        // But for the constant, these are values of fields, which are copied.
        Seen::Null | Seen::Text(_) | Seen::Array | Seen::Object => "null".into(),
    };
    out.extend_from_slice(text.as_bytes());
}

/// Makes the places for what the walk finds, and evaluates.
fn over<'e, T>(
    paths: &'e Paths,
    event: &'e [u8],
    origin: &'e Origin,
    evaluated: impl FnOnce(&mut Evaluation<'e, '_>) -> Result<T, EvalFailure>,
) -> Result<T, EvalFailure> {
    let slots = paths.slots();
    let mut few = [Found::Absent; SLOTS_ON_STACK];
    let mut many = Vec::new();
    let found = if slots <= SLOTS_ON_STACK {
        &mut few[..slots]
    } else {
        many.resize(slots, Found::Absent);
        &mut many[..]
    };
    evaluated(&mut Evaluation { event, origin, paths, found, walked: false })
}

struct Evaluation<'e, 'f> {
    event: &'e [u8],
    origin: &'e Origin,
    paths: &'e Paths,
    found: &'f mut [Found],
    walked: bool,
}

impl<'e> Evaluation<'e, '_> {
    fn decide(&mut self, node: &'e Node) -> Result<bool, EvalFailure> {
        match self.value(node)? {
            Seen::Bool(decided) => Ok(decided),
            _ => Err(EvalFailure::TypeMismatch),
        }
    }

    fn value(&mut self, node: &'e Node) -> Result<Seen<'e>, EvalFailure> {
        Ok(match node {
            Node::Constant(constant) => constant.seen(),
            Node::Event(slot) => self.event_field(*slot)?,
            Node::Origin(field) => Seen::Plain(self.origin.get(field).ok_or(EvalFailure::Absent)?),
            Node::HasEvent(slot) => Seen::Bool(matches!(self.slot(*slot), Found::At { .. })),
            Node::HasOrigin(field) => Seen::Bool(self.origin.get(field).is_some()),
            Node::Not(operand) => Seen::Bool(!self.decide(operand)?),
            Node::All(operands) => Seen::Bool(self.logic(operands, false)?),
            Node::Any(operands) => Seen::Bool(self.logic(operands, true)?),
            Node::Compare(left, relation, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                Seen::Bool(relation.holds(left, right)?)
            }
            Node::In(operand, constants) => {
                let value = self.value(operand)?;
                Seen::Bool(constants.iter().any(|constant| equal(value, constant.seen()) == Ok(true)))
            }
            Node::Search(operand, search) => Seen::Bool(search.found_in(self.value(operand)?)?),
        })
    }

    /// `&&` and `||`: one operand with the `deciding` value decides, whatever fails beside it.
    fn logic(&mut self, operands: &'e [Node], deciding: bool) -> Result<bool, EvalFailure> {
        let mut failure = None;
        for operand in operands {
            match self.decide(operand) {
                Ok(value) if value == deciding => return Ok(deciding),
                Ok(_) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(!deciding), Err)
    }

    fn slot(&mut self, slot: usize) -> Found {
        if !self.walked {
            self.paths.find(self.event, self.found);
            self.walked = true;
        }
        self.found[slot]
    }

    /// Returns the bytes of a field.
    fn event_bytes(&mut self, slot: usize) -> Result<&'e [u8], EvalFailure> {
        let found = self.slot(slot);
        let failure = if found == Found::Blocked { EvalFailure::TypeMismatch } else { EvalFailure::Absent };
        found.of(self.event).ok_or(failure)
    }

    fn event_field(&mut self, slot: usize) -> Result<Seen<'e>, EvalFailure> {
        Ok(match Value::read(self.event_bytes(slot)?) {
            Value::Null => Seen::Null,
            Value::Bool(value) => Seen::Bool(value),
            Value::Number(number) => Seen::Number(number),
            Value::String(text) => Seen::Text(text),
            Value::Array(_) => Seen::Array,
            Value::Object(_) => Seen::Object,
        })
    }
}

impl Constant {
    fn seen(&self) -> Seen<'_> {
        match self {
            Self::Null => Seen::Null,
            Self::Bool(value) => Seen::Bool(*value),
            Self::Number(number) => Seen::Number(*number),
            Self::String(text) => Seen::Plain(text),
        }
    }
}

impl Relation {
    fn holds(self, left: Seen<'_>, right: Seen<'_>) -> Result<bool, EvalFailure> {
        Ok(match self {
            Self::Equal => equal(left, right)?,
            Self::Different => !equal(left, right)?,
            Self::Less => order(left, right)?.is_lt(),
            Self::LessOrEqual => order(left, right)?.is_le(),
            Self::Greater => order(left, right)?.is_gt(),
            Self::GreaterOrEqual => order(left, right)?.is_ge(),
        })
    }
}

/// Values of different types are different; arrays and objects are not compared with their like.
fn equal(left: Seen<'_>, right: Seen<'_>) -> Result<bool, EvalFailure> {
    Ok(match (left, right) {
        (Seen::Null, Seen::Null) => true,
        (Seen::Bool(left), Seen::Bool(right)) => left == right,
        (Seen::Number(left), Seen::Number(right)) => left.compare(right) == Some(Ordering::Equal),
        (Seen::Plain(left), Seen::Plain(right)) => left == right,
        (Seen::Text(text), Seen::Plain(plain)) | (Seen::Plain(plain), Seen::Text(text)) => text.is(plain.as_bytes()),
        (Seen::Text(left), Seen::Text(right)) => left.is(&right.unescape()),
        (Seen::Array, Seen::Array) | (Seen::Object, Seen::Object) => return Err(EvalFailure::TypeMismatch),
        _ => false,
    })
}

/// Strings are ordered by code point, which is the order of their UTF-8.
fn order(left: Seen<'_>, right: Seen<'_>) -> Result<Ordering, EvalFailure> {
    let ordering = match (left, right) {
        (Seen::Bool(left), Seen::Bool(right)) => Some(left.cmp(&right)),
        (Seen::Number(left), Seen::Number(right)) => left.compare(right),
        (Seen::Plain(left), Seen::Plain(right)) => Some(left.cmp(right)),
        (Seen::Text(left), Seen::Plain(right)) => Some((*left.unescape()).cmp(right.as_bytes())),
        (Seen::Plain(left), Seen::Text(right)) => Some(left.as_bytes().cmp(&right.unescape())),
        (Seen::Text(left), Seen::Text(right)) => Some(left.unescape().cmp(&right.unescape())),
        _ => None,
    };
    ordering.ok_or(EvalFailure::TypeMismatch)
}

impl Search {
    fn found_in(&self, value: Seen<'_>) -> Result<bool, EvalFailure> {
        match value {
            Seen::Plain(text) => Ok(self.matches(text.as_bytes())),
            Seen::Text(text) => Ok(self.matches(&text.unescape())),
            _ => Err(EvalFailure::TypeMismatch),
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Start(start) => text.starts_with(start),
            Self::End(end) => text.ends_with(end),
            Self::Anywhere(finder) => finder.find(text).is_some(),
        }
    }
}
