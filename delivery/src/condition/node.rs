//! The lowered condition: a tree of its own, and what it costs.

use super::operate::{Function, Operator, Place, Search};
use crate::event::OriginField;
use crate::json::Number;
use crate::pattern::Pattern;

/// A checked expression.
#[derive(Debug)]
pub(super) enum Node {
    /// The same for every event.
    Constant(Constant),
    /// The field of the event in this slot of the walk.
    Event(usize),
    /// A field of the origin.
    Origin(OriginField),
    /// The element that is looked at by a macro.
    Variable,
    /// What stands at a key of an object that is not read by its path alone.
    Member(Box<Node>, Box<str>),
    /// An element of an array.
    Element(Box<Node>, usize),
    /// Whether something is there.
    Has(Box<Node>),
    /// The first; the second where nothing is there.
    OrValue(Box<Node>, Box<Node>),
    /// The opposite.
    Not(Box<Node>),
    /// `&&` of all, at least two.
    All(Vec<Node>),
    /// `||` of all, at least two.
    Any(Vec<Node>),
    /// The second where the first holds, else the third.
    Choice(Box<[Node; 3]>),
    /// A comparison.
    Compare(Box<Node>, Relation, Box<Node>),
    /// Whether the value equals one of these.
    In(Box<Node>, Vec<Constant>),
    /// Whether the value is an element of the array, or a key of the object.
    Within(Box<Node>, Box<Node>),
    /// A search in a string.
    Search(Box<Node>, Search),
    /// A search in the first for the second.
    SearchFor(Box<Node>, Place, Box<Node>),
    /// A search with a regular expression.
    Matches(Box<Node>, Pattern),
    /// A function of one value.
    Call(Function, Box<Node>),
    /// Two values and what is made of them.
    Operate(Box<Node>, Operator, Box<Node>),
    /// What holds for the elements of an array.
    Each(Box<Node>, Quantity, Box<Node>),
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

/// For how many elements a condition is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    All,
    Some,
    One,
}

/// What a condition does for each event, the cheapest first. Each is linear in the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// It looks at the origin alone: the event is not read.
    Origin,
    /// One walk over the event.
    Walk,
    /// The walk, and a pass over each text, list or object that it looks into.
    Text,
    /// The same, and a text goes through an automaton, byte by byte.
    Pattern,
    /// The same, for each element of a list, [`LIST_ELEMENTS_MAX`](super::LIST_ELEMENTS_MAX) at most.
    List,
}

impl Cost {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Origin => "origin",
            Self::Walk => "walk",
            Self::Text => "text",
            Self::Pattern => "pattern",
            Self::List => "list",
        }
    }
}

impl Node {
    /// Returns what it is made of.
    fn operands_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Constant(_) | Self::Event(_) | Self::Origin(_) | Self::Variable => Vec::new(),
            Self::Member(one, _)
            | Self::Element(one, _)
            | Self::Has(one)
            | Self::Not(one)
            | Self::In(one, _)
            | Self::Search(one, _)
            | Self::Matches(one, _)
            | Self::Call(_, one) => vec![one],
            Self::All(all) | Self::Any(all) => all.iter_mut().collect(),
            Self::Choice(three) => three.iter_mut().collect(),
            Self::OrValue(one, other)
            | Self::Compare(one, _, other)
            | Self::Within(one, other)
            | Self::SearchFor(one, _, other)
            | Self::Operate(one, _, other)
            | Self::Each(one, _, other) => vec![one, other],
        }
    }

    /// Puts the slot of the walk in the place of the number of every field of the event; returns what the whole does for each event.
    pub(super) fn settle(&mut self, slots: &[usize]) -> Cost {
        if let Self::Event(index) = self {
            *index = slots[*index];
            return Cost::Walk;
        }
        let of_operands = self.operands_mut().into_iter().map(|operand| operand.settle(slots)).max();
        let own = match self {
            Self::Each(..) => Cost::List,
            Self::Matches(..) => Cost::Pattern,
            Self::Member(..)
            | Self::Element(..)
            | Self::Within(..)
            | Self::Search(..)
            | Self::SearchFor(..)
            | Self::Call(..)
            | Self::Operate(_, Operator::Add, _) => Cost::Text,
            // An element is a part of the event.
            Self::Variable => return Cost::Walk,
            _ => Cost::Origin,
        };
        match of_operands {
            None | Some(Cost::Origin) => Cost::Origin,
            Some(most) => most.max(own),
        }
    }
}
