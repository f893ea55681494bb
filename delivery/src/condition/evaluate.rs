//! What a lowered condition means.

use std::borrow::Cow;

use super::node::{Node, Quantity};
use super::seen::{Seen, equal};
use super::{EvalFailure, LIST_ELEMENTS_MAX, WORK_BYTES_MIN, WORK_FACTOR};
use crate::event::Origin;
use crate::json::{Found, Paths, each_element, value_at_key};

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
    over(paths, event, origin, |evaluation| evaluation.write(node, out))
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
    let work_left = WORK_BYTES_MIN + WORK_FACTOR * event.len();
    evaluated(&mut Evaluation { event, origin, paths, found, walked: false, element: b"null", work_left })
}

struct Evaluation<'e, 'f> {
    event: &'e [u8],
    origin: &'e Origin,
    paths: &'e Paths,
    found: &'f mut [Found],
    walked: bool,
    /// What [`Node::Variable`] is.
    element: &'e [u8],
    /// How many bytes may be looked at besides those of the walk.
    work_left: usize,
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
            Node::Event(slot) => Seen::read(self.event_bytes(*slot)?),
            Node::Origin(field) => Seen::Plain(Cow::Borrowed(self.origin.get(field).ok_or(EvalFailure::Absent)?)),
            Node::Not(operand) => Seen::Bool(!self.decide(operand)?),
            Node::All(operands) => Seen::Bool(self.logic(operands, false)?),
            Node::Any(operands) => Seen::Bool(self.logic(operands, true)?),
            Node::Compare(left, relation, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                // What is compared with a constant ends with it.
                if let (Seen::Text(_), Seen::Text(_)) = (&left, &right) {
                    self.work(left.bytes_written() + right.bytes_written())?;
                }
                Seen::Bool(relation.holds(&left, &right)?)
            }
            Node::In(operand, constants) => {
                let value = self.value(operand)?;
                Seen::Bool(constants.iter().any(|constant| equal(&value, &constant.seen()) == Ok(true)))
            }
            Node::Search(operand, search) => {
                let value = self.value(operand)?;
                self.work(value.bytes_written())?;
                Seen::Bool(search.found_in(&value)?)
            }
            other => return self.other_value(other),
        })
    }

    /// What is asked for less often: not in the way of the rest.
    #[inline(never)]
    fn other_value(&mut self, node: &'e Node) -> Result<Seen<'e>, EvalFailure> {
        Ok(match node {
            Node::Has(operand) => Seen::Bool(self.is_there(operand)),
            Node::OrValue(operand, or) => match self.value(operand) {
                Ok(value) => value,
                Err(_) => self.value(or)?,
            },
            Node::Choice(parts) => {
                let [condition, yes, no] = &**parts;
                let chosen = if self.decide(condition)? { yes } else { no };
                self.value(chosen)?
            }
            Node::Within(operand, list) => {
                let (value, list) = (self.value(operand)?, self.value(list)?);
                self.work(list.bytes_written())?;
                Seen::Bool(is_within(&value, &list)?)
            }
            Node::SearchFor(operand, place, wanted) => {
                let (value, wanted) = (self.value(operand)?, self.value(wanted)?);
                self.work(value.bytes_written() + wanted.bytes_written())?;
                Seen::Bool(place.found(&wanted.bytes()?, &value.bytes()?))
            }
            Node::Matches(operand, pattern) => {
                let value = self.value(operand)?;
                self.work(value.bytes_written())?;
                Seen::Bool(pattern.is_in(&value.bytes()?))
            }
            Node::Call(function, operand) => {
                let value = self.value(operand)?;
                self.work(value.bytes_written())?;
                function.of(value)?
            }
            Node::Operate(left, operator, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.work(left.bytes_written() + right.bytes_written())?;
                operator.of(left, right)?
            }
            Node::Each(list, quantity, condition) => Seen::Bool(self.each(list, *quantity, condition)?),
            node => match self.bytes(node) {
                Some(bytes) => Seen::read(bytes?),
                None => self.value(node)?,
            },
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

    /// A macro over the elements of an array; for all and for some, one that decides does so whatever fails beside it.
    fn each(&mut self, list: &'e Node, quantity: Quantity, condition: &'e Node) -> Result<bool, EvalFailure> {
        let Seen::Array(list) = self.value(list)? else { return Err(EvalFailure::TypeMismatch) };
        self.work(list.len())?;
        let (mut left, mut hold, mut failure, mut decided) = (LIST_ELEMENTS_MAX, 0, None, None);
        each_element(list, |element| {
            if left == 0 {
                failure = Some(EvalFailure::TooLarge);
                return false;
            }
            left -= 1;
            self.element = element;
            match self.decide(condition) {
                Ok(holds) => {
                    hold += usize::from(holds);
                    decided = quantity.decided_by(holds);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
            decided.is_none()
        });
        match (decided, failure) {
            (Some(decided), _) => Ok(decided),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(quantity == Quantity::All || quantity == Quantity::One && hold == 1),
        }
    }

    /// Returns whether something is there.
    fn is_there(&mut self, node: &'e Node) -> bool {
        match node {
            Node::Event(slot) => matches!(self.slot(*slot), Found::At { .. }),
            Node::Origin(field) => self.origin.get(field).is_some(),
            node => self.bytes(node).is_some_and(|bytes| bytes.is_ok()),
        }
    }

    /// Returns the bytes of what stands in the event; `None` for what is made.
    fn bytes(&mut self, node: &'e Node) -> Option<Result<&'e [u8], EvalFailure>> {
        match node {
            Node::Event(slot) => Some(self.event_bytes(*slot)),
            Node::Variable => Some(Ok(self.element)),
            Node::Member(of, key) => Some(self.member(of, key)),
            Node::Element(of, index) => Some(self.element(of, *index)),
            _ => None,
        }
    }

    fn member(&mut self, of: &'e Node, key: &str) -> Result<&'e [u8], EvalFailure> {
        let Seen::Object(object) = self.value(of)? else { return Err(EvalFailure::TypeMismatch) };
        self.work(object.len())?;
        value_at_key(object, key).ok_or(EvalFailure::Absent)
    }

    fn element(&mut self, of: &'e Node, index: usize) -> Result<&'e [u8], EvalFailure> {
        let Seen::Array(list) = self.value(of)? else { return Err(EvalFailure::TypeMismatch) };
        self.work(list.len())?;
        let (mut before, mut found) = (index, None);
        each_element(list, |element| {
            found = (before == 0).then_some(element);
            before = before.saturating_sub(1);
            found.is_none()
        });
        found.ok_or(EvalFailure::Absent)
    }

    /// Appends a value as JSON; what is a field keeps every digit.
    fn write(&mut self, node: &'e Node, out: &mut Vec<u8>) -> Result<(), EvalFailure> {
        match node {
            Node::OrValue(operand, or) => self.write(operand, out).or_else(|_| self.write(or, out)),
            Node::Choice(parts) => {
                let [condition, yes, no] = &**parts;
                let chosen = if self.decide(condition)? { yes } else { no };
                self.write(chosen, out)
            }
            node => {
                match self.bytes(node) {
                    Some(bytes) => out.extend_from_slice(bytes?),
                    None => self.value(node)?.write(out),
                }
                Ok(())
            }
        }
    }

    /// Takes what so many bytes cost.
    fn work(&mut self, bytes: usize) -> Result<(), EvalFailure> {
        self.work_left = self.work_left.checked_sub(bytes).ok_or(EvalFailure::TooLarge)?;
        Ok(())
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
}

impl Quantity {
    /// Returns what one element decides for all of them.
    fn decided_by(self, holds: bool) -> Option<bool> {
        match self {
            Self::All => (!holds).then_some(false),
            Self::Some => holds.then_some(true),
            Self::One => None,
        }
    }
}

/// Returns whether a value is an element of an array, or a key of an object.
fn is_within(value: &Seen<'_>, list: &Seen<'_>) -> Result<bool, EvalFailure> {
    match list {
        Seen::Array(list) => {
            let (mut is_there, mut failure) = (false, None);
            each_element(list, |element| {
                match equal(value, &Seen::read(element)) {
                    Ok(is_equal) => is_there = is_equal,
                    Err(error) => failure = failure.or(Some(error)),
                }
                !is_there
            });
            if is_there { Ok(true) } else { failure.map_or(Ok(false), Err) }
        }
        Seen::Object(object) => {
            let key = value.bytes()?;
            let key = std::str::from_utf8(&key).map_err(|_| EvalFailure::TypeMismatch)?;
            Ok(value_at_key(object, key).is_some())
        }
        _ => Err(EvalFailure::TypeMismatch),
    }
}
