//! `ParseJSON` without `into`: the members of an object that stands in a text become members of the event.
//!
//! They come last and count: a member of the event with a key of theirs goes, wherever it stands. One that is the agent's own is
//! taken out, as at the door.

use std::borrow::Cow;

use super::chain::Verdict;
use super::counts::Counts;
use super::edit::{EditScratch, Program, Subject};
use super::parse::{OnError, ParseJson};
use super::{Action, Failure, Transform};
use crate::json::{Live, Text, Value, each_member, normalize_into, validate_object};

/// The transform.
#[derive(Debug)]
pub(super) struct Lift {
    /// Takes the text out.
    cut: Program,
    on_error: OnError,
}

/// Memory of a `Lift`, used for one event after the other.
#[derive(Debug, Default)]
pub(super) struct LiftScratch {
    cut: EditScratch,
    /// The event without the text.
    rest: Vec<u8>,
    /// The object on one line.
    object: Vec<u8>,
}

impl Lift {
    /// Returns what lifts the members of that field.
    pub(super) fn new(parse: &ParseJson) -> Option<Self> {
        let remove = Transform { name: "".into(), action: Action::Remove(vec![parse.field.clone()]) };
        Some(Self { cut: Program::new(&[remove], &[0])?, on_error: parse.on_error })
    }

    /// Writes the event as it is afterwards to `out` where it is another one.
    pub(super) fn run(
        &self,
        subject: Subject<'_>,
        scratch: &mut LiftScratch,
        out: &mut Vec<u8>,
        counts: &mut Counts,
    ) -> Verdict {
        let done = self.lift(subject, scratch, out);
        match done {
            Ok(()) => counts.event(true, None),
            Err(_) => out.clear(),
        }
        match (done, self.on_error) {
            (Ok(()), _) => Verdict::Changed,
            (Err(failure), OnError::Keep) => {
                counts.event(false, Some(failure));
                Verdict::Same
            }
            (Err(failure), OnError::Drop) => {
                counts.dropped_event(Some(failure));
                Verdict::Dropped
            }
        }
    }

    fn lift(&self, subject: Subject<'_>, scratch: &mut LiftScratch, out: &mut Vec<u8>) -> Result<(), Failure> {
        let LiftScratch { cut, rest, object } = scratch;
        rest.clear();
        object.clear();
        self.cut.run(subject, cut, rest, &mut [Counts::default()]);
        let Some(member) = cut.members.at(self.cut.slots() - 1) else {
            let blocked = cut.members.live.last() == Some(&Live::Blocked);
            return Err(if blocked { Failure::TypeMismatch } else { Failure::Absent });
        };
        let value = Value::read(&subject.event[member.value as usize..member.end as usize]);
        let Value::String(text) = value else { return Err(Failure::TypeMismatch) };
        let text = text.unescape();
        validate_object(&text).map_err(|_| Failure::Unparsed)?;
        normalize_into(&text, object);
        merge(rest, object, out);
        if out.len() > subject.bytes_max { Err(Failure::TooLarge) } else { Ok(()) }
    }
}

/// Appends the members of `event` that `object` does not have, and those of `object`.
fn merge(event: &[u8], object: &[u8], out: &mut Vec<u8>) {
    let mut keys: Vec<Cow<'_, [u8]>> = Vec::new();
    each_member(object, |key, _, _| keys.push(Text::from_raw(key).unescape()));
    keys.sort_unstable();
    out.push(b'{');
    let mut any = false;
    each_member(event, |key, _, member| {
        if keys.binary_search(&Text::from_raw(key).unescape()).is_err() {
            comma(&mut any, out);
            out.extend_from_slice(member);
        }
    });
    if let [b'{', inside @ .., b'}'] = object
        && !inside.is_empty()
    {
        comma(&mut any, out);
        out.extend_from_slice(inside);
    }
    out.push(b'}');
}

fn comma(any: &mut bool, out: &mut Vec<u8>) {
    if std::mem::replace(any, true) {
        out.push(b',');
    }
}
