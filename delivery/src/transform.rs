//! Transforms: what a pipeline does to its events before they are in its log.
//!
//! # Where they run
//! Behind the door ([`crate::intake`]), for each pipeline by itself: a batch is accepted, its origin filled from the manifest,
//! then shaped here, then its routes are decided and it is appended. So the log holds what will be delivered, conditions of
//! routes see what the transforms made, a retry sends the same bytes again, and a secret that was taken out is in no file.
//! Nothing is shaped twice: neither a replay nor a redrive comes through the door.
//!
//! One is not here: [`multiline`] runs in the source, where lines have a file and a position.
//!
//! # Guarantees
//! - **Bytes.** An event that no transform changes keeps its bytes; of one that is changed, every byte that no transform names
//!   (spaces between two members that are cut aside). It stays a valid object on one line without the agent's own member.
//! - **By meaning.** Of duplicate keys the last one counts. A field that is removed, renamed or set is cut wherever it stands,
//!   so that what the last one hid does not come to light.
//! - **Linear time**, no tree of values: one walk over the raw JSON for all edits that follow each other and touch different
//!   fields, one for each condition, expression and `Keep`.
//! - **Nothing is lost silently.** Each transform counts what came, what it changed, what it dropped and where it failed; what
//!   is dropped is counted by the log, too, with the batch ([`crate::log::Pending::dropped`]).
//! - **What is remembered is what logs have**: buckets, windows and turns are in memory alone, one of each transform; a batch that
//!   is refused leaves no trace in them.
//! - **A failure changes nothing**: a field that cannot be set stays as it was, an event for which a condition has no answer
//!   is not dropped; one that cannot be parsed is where that is told.
//!
//! # Must not know
//! Routes, the log, who counts what for whom.
//!
//! # Limits
//! [`TRANSFORMS_MAX`] of a pipeline, [`FIELDS_MAX`] fields of one, [`PATH_KEYS_MAX`] keys of a path. An event grows to at most
//! [`EVENT_BYTES_MAX`](crate::event::EVENT_BYTES_MAX), a batch to [`BATCH_BYTES_MAX`](crate::event::BATCH_BYTES_MAX), brackets to
//! [`DEPTH_MAX`](crate::json::DEPTH_MAX): what would go beyond fails.

mod batch;
mod chain;
mod counts;
mod edit;
mod gate;
mod keep;
mod lift;
pub mod multiline;
mod parse;
mod path;
mod redact;
mod severity;
mod splice;
mod timestamp;

use std::sync::Arc;

use crate::condition::{Condition, EvalFailure, Expression};

pub use batch::Shaped;
pub use chain::Chain;
pub use counts::Counts;
pub use gate::{Deduplicate, Effects, KEYS_MAX, Looks, RATE_MAX, RateLimit, Sample, WINDOW_MAX};
pub use multiline::Multiline;
pub use parse::{OnError, PATTERN_TEXT_BYTES_MAX, ParseJson, ParseRegex, ParseSeverity, ParseTimestamp};
pub use path::{FieldPath, PATH_KEYS_MAX, PathError};
pub use redact::{Builtin, FINDS_MAX, Finders, FindersError, PATTERNS_MAX, Redact};
pub use severity::SeverityNumbers;
pub use timestamp::{TimeForm, TimeFormat, TimeFormatError};

/// Most transforms of a pipeline.
pub const TRANSFORMS_MAX: usize = 32;

/// Most fields that one transform names.
pub const FIELDS_MAX: usize = 32;

/// One transform, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transform {
    /// Unique within the pipeline.
    pub name: Arc<str>,
    /// What it does.
    pub action: Action,
}

/// What a transform does to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Makes fields of a text that is JSON.
    ParseJson(ParseJson),
    /// Makes fields of what a pattern finds in a text.
    ParseRegex(ParseRegex),
    /// Makes a time in RFC 3339 of one in another form.
    ParseTimestamp(ParseTimestamp),
    /// Makes one of six words of a severity.
    ParseSeverity(ParseSeverity),
    /// Gives fields a value, whether they are there or not. All values are made from the event as it came.
    Set(Vec<SetField>),
    /// Takes fields out.
    Remove(Vec<FieldPath>),
    /// Moves the values of fields, over what is there.
    Rename(Vec<RenameField>),
    /// Takes everything else out.
    Keep(Vec<FieldPath>),
    /// Drops the events for which the condition holds.
    Drop(Condition),
    /// Takes what is secret out of texts.
    Redact(Redact),
    /// Drops all but some of many events.
    Sample(Sample),
    /// Drops what is more than so many events a second.
    RateLimit(RateLimit),
    /// Drops an event that came before.
    Deduplicate(Deduplicate),
    /// Joins lines, in the source that reads them; the first of its list. What comes through the door passes by.
    Multiline(Multiline),
}

/// A field and the value it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetField {
    /// Which field. Objects on the way to it are made.
    pub path: FieldPath,
    /// Its value.
    pub value: SetValue,
}

/// Where the value of a field comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetValue {
    /// This text.
    Text(String),
    /// What the expression says of the event.
    Expression(Expression),
}

/// A field and where its value goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenameField {
    /// The field that is there.
    pub from: FieldPath,
    /// What it is called afterwards. Objects on the way to it are made.
    pub to: FieldPath,
}

impl Action {
    /// Returns the name of its type, as manifests write it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::ParseJson(_) => "ParseJSON",
            Self::ParseRegex(_) => "ParseRegex",
            Self::ParseTimestamp(_) => "ParseTimestamp",
            Self::ParseSeverity(_) => "ParseSeverity",
            Self::Set(_) => "Set",
            Self::Remove(_) => "Remove",
            Self::Rename(_) => "Rename",
            Self::Keep(_) => "Keep",
            Self::Drop(_) => "Drop",
            Self::Redact(_) => "Redact",
            Self::Sample(_) => "Sample",
            Self::RateLimit(_) => "RateLimit",
            Self::Deduplicate(_) => "Deduplicate",
            Self::Multiline(_) => "Multiline",
        }
    }

    /// Returns the fields it names, in order: those of `Rename` in pairs, what is parsed before what it becomes.
    pub fn paths(&self) -> Vec<&FieldPath> {
        match self {
            Self::ParseJson(parse) => std::iter::once(&parse.field).chain(&parse.into).collect(),
            Self::ParseRegex(parse) => std::iter::once(&parse.field).chain(&parse.fields).collect(),
            Self::ParseTimestamp(parse) => vec![&parse.field, &parse.into],
            Self::ParseSeverity(parse) => vec![&parse.field, &parse.into],
            Self::Set(fields) => fields.iter().map(|field| &field.path).collect(),
            Self::Remove(paths) | Self::Keep(paths) => paths.iter().collect(),
            Self::Rename(fields) => fields.iter().flat_map(|field| [&field.from, &field.to]).collect(),
            Self::Redact(redact) => redact.fields.iter().collect(),
            Self::Deduplicate(deduplicate) => deduplicate.fields.iter().collect(),
            Self::Drop(_) | Self::Sample(_) | Self::RateLimit(_) | Self::Multiline(_) => Vec::new(),
        }
    }

    /// Returns the field that it parses, the first of its paths.
    pub(crate) fn source(&self) -> Option<&FieldPath> {
        match self {
            Self::ParseJson(parse) => Some(&parse.field),
            Self::ParseRegex(parse) => Some(&parse.field),
            Self::ParseTimestamp(parse) => Some(&parse.field),
            Self::ParseSeverity(parse) => Some(&parse.field),
            _ => None,
        }
    }

    /// Returns the condition of which it depends whether it does anything to an event.
    pub fn when(&self) -> Option<&Condition> {
        match self {
            Self::Drop(condition) => Some(condition),
            Self::Sample(sample) => sample.looks.when.as_ref(),
            Self::RateLimit(limit) => limit.looks.when.as_ref(),
            Self::Deduplicate(deduplicate) => deduplicate.looks.when.as_ref(),
            _ => None,
        }
    }

    /// Returns what becomes of an event for which it fails.
    pub(crate) fn on_error(&self) -> OnError {
        match self {
            Self::ParseJson(parse) => parse.on_error,
            Self::ParseRegex(parse) => parse.on_error,
            Self::ParseTimestamp(parse) => parse.on_error,
            Self::ParseSeverity(parse) => parse.on_error,
            _ => OnError::Keep,
        }
    }

    /// Returns the first two of [`Action::paths`] of which one is the other or leads to it: what the transform would do then
    /// is not defined. What is parsed may be what it becomes.
    pub fn conflict(&self) -> Option<(usize, usize)> {
        let (paths, parses) = (self.paths(), self.source().is_some());
        let conflict = |earlier: usize, later: usize| {
            let in_place = parses && earlier == 0 && paths[0] == paths[later];
            paths[earlier].overlaps(paths[later]) && !in_place
        };
        let of = |later: usize| (0..later).find(|earlier| conflict(*earlier, later)).map(|one| (one, later));
        (0..paths.len()).find_map(of)
    }
}

/// Why a transform could not do what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// A field that an expression or a condition reads is not there.
    Absent,
    /// A value has a type for which it means nothing, or a value on the way to a field is no object.
    TypeMismatch,
    /// The event, or its batch, would grow beyond its limit.
    TooLarge,
    /// Brackets would be nested deeper than their limit.
    TooDeep,
    /// A text or a number is not what is to be read.
    Unparsed,
    /// There are more keys than a transform may remember.
    TooManyKeys,
    /// A number that an expression or a condition makes does not fit, or is divided by zero.
    Arithmetic,
}

impl Failure {
    /// Every failure, in the order of its number.
    pub const ALL: [Self; 7] = [
        Self::Absent,
        Self::TypeMismatch,
        Self::TooLarge,
        Self::TooDeep,
        Self::Unparsed,
        Self::TooManyKeys,
        Self::Arithmetic,
    ];

    /// Returns the failure as a label of a metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::TypeMismatch => "type_mismatch",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::Unparsed => "unparsed",
            Self::TooManyKeys => "too_many_keys",
            Self::Arithmetic => "arithmetic",
        }
    }
}

impl From<EvalFailure> for Failure {
    fn from(failure: EvalFailure) -> Self {
        match failure {
            EvalFailure::Absent => Self::Absent,
            EvalFailure::TypeMismatch => Self::TypeMismatch,
            EvalFailure::Arithmetic => Self::Arithmetic,
            EvalFailure::TooLarge => Self::TooLarge,
        }
    }
}
