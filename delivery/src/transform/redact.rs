//! `Redact`: what is secret in texts, taken out.
//!
//! An event is looked at whole first, as the bytes it is: where none of them can be the start of anything that is looked for, and
//! no text is written with escapes, that is all. Else each text is looked at by itself, as it means.
//!
//! # Guarantees
//! - **By meaning.** A text with escapes is searched unescaped, and written escaped again. Of a field every member goes through,
//!   also one that a later duplicate hides: its bytes are stored, too.
//! - **All that is found goes.** Each pattern sees the text as it came; what two of them find and that overlaps goes as one.
//! - **Linear time**, also for patterns that find much: behind [`FINDS_MAX`] finds of one pattern the rest of the text goes whole.
//! - **It never fails for want of room**: where the replacement does not fit, what is found goes without one.

mod builtin;
mod finders;

use std::borrow::Cow;

use memchr::memchr;

use super::chain::Verdict;
use super::counts::Counts;
use super::edit::Subject;
use super::parse::{OnError, PATTERN_TEXT_BYTES_MAX};
use super::{Failure, FieldPath};
use crate::json::{Members, Paths, Text, each_text, write_escaped};

pub use builtin::Builtin;
pub use finders::{FINDS_MAX, Finders, FindersError, PATTERNS_MAX};

/// Takes what is secret out of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redact {
    /// What is looked for.
    pub finders: Finders,
    /// Whose texts are looked at, at any depth; those of the whole event where none is told.
    pub fields: Vec<FieldPath>,
    /// What stands in its place.
    pub replacement: String,
    /// What becomes of an event of which not everything could be looked at.
    pub on_error: OnError,
}

/// The transform, compiled.
#[derive(Debug)]
pub(super) struct Redactor {
    finders: Finders,
    /// The fields, and by slot whether it is one; `None` for the whole event.
    fields: Option<(Paths, Vec<bool>)>,
    /// As it stands between quotes.
    replacement: Box<[u8]>,
    on_error: OnError,
}

/// Memory of a `Redactor`, used for one event after the other.
#[derive(Debug, Default)]
pub(super) struct RedactScratch {
    members: Members,
    /// Where the texts stand that are looked at.
    texts: Vec<(usize, usize)>,
    /// What was found in one of them.
    found: Vec<(usize, usize)>,
}

impl Redactor {
    /// Returns what does that.
    pub(super) fn new(redact: &Redact) -> Self {
        let fields = (!redact.fields.is_empty()).then(|| {
            let paths = Paths::new(redact.fields.iter().map(FieldPath::keys));
            let mut is_field = vec![false; paths.slots()];
            redact.fields.iter().filter_map(|field| paths.slot(field.keys())).for_each(|slot| is_field[slot] = true);
            (paths, is_field)
        });
        let mut replacement = Vec::new();
        write_escaped(&mut replacement, &redact.replacement);
        let on_error = redact.on_error;
        Self { finders: redact.finders.clone(), fields, replacement: replacement.into(), on_error }
    }

    /// Writes the event as it is afterwards to `out` where it is another one.
    pub(super) fn run(
        &self,
        subject: Subject<'_>,
        scratch: &mut RedactScratch,
        out: &mut Vec<u8>,
        counts: &mut Counts,
    ) -> Verdict {
        let suspected = self.finders.suspected(subject.event);
        if suspected.is_none() && memchr(b'\\', subject.event).is_none() {
            counts.event(false, None);
            return Verdict::Same;
        }
        self.texts(subject.event, scratch);
        let RedactScratch { texts, found, .. } = scratch;
        let mut writing = Writing { redactor: self, subject, out, at: 0, bytes: subject.event.len() };
        let mut failure = None;
        for (start, end) in texts.iter().copied() {
            let text = Text::from_raw(subject.event.get(start..end).unwrap_or_default()).unescape();
            let mut here = match &text {
                Cow::Borrowed(text) => self.finders.narrowed(suspected, text),
                Cow::Owned(text) => self.finders.suspected(text),
            };
            if text.len() > PATTERN_TEXT_BYTES_MAX && here.has_patterns() {
                // What was suspected of the event may stand in another text of it.
                if self.finders.patterns_may_find(&text) {
                    failure = Some(Failure::TooLarge);
                }
                here = here.without_patterns();
            }
            self.finders.find(&text, here, found);
            if !found.is_empty() {
                failure = failure.or(writing.text((start, end), &text, found).err());
            }
        }
        let changed = writing.finish();
        match (failure, self.on_error) {
            (Some(_), OnError::Drop) => {
                counts.dropped_event(failure);
                return Verdict::Dropped;
            }
            _ => counts.event(changed, failure),
        }
        if changed { Verdict::Changed } else { Verdict::Same }
    }

    /// Lists the texts that are looked at, in the order of their bytes.
    fn texts(&self, event: &[u8], scratch: &mut RedactScratch) {
        let RedactScratch { members, texts, .. } = scratch;
        texts.clear();
        let Some((paths, is_field)) = &self.fields else {
            each_text(event, |start, end| texts.push((start, end)));
            return;
        };
        paths.members(event, members);
        for member in members.list.iter().filter(|member| is_field[member.slot]) {
            let (start, end) = (member.value as usize, member.end as usize);
            let value = event.get(start..end).unwrap_or_default();
            each_text(value, |from, to| texts.push((start + from, start + to)));
        }
    }
}

/// An event on its way to `out`.
struct Writing<'e, 'o> {
    redactor: &'e Redactor,
    subject: Subject<'e>,
    out: &'o mut Vec<u8>,
    /// Everything of the event before is written.
    at: usize,
    /// How many bytes the event will have.
    bytes: usize,
}

#[expect(clippy::ptr_arg, reason = "whether a text is borrowed says how it is written")]
impl Writing<'_, '_> {
    /// Writes the event up to a text and the text without what was found there; fails where there is no room for what shall
    /// stand in its place.
    fn text(
        &mut self,
        (start, end): (usize, usize),
        text: &Cow<'_, [u8]>,
        found: &[(usize, usize)],
    ) -> Result<(), Failure> {
        self.out.extend_from_slice(&self.subject.event[self.at..start]);
        self.at = end;
        let (written, before) = (self.out.len(), self.bytes - (end - start));
        self.without(text, found, &self.redactor.replacement);
        let fits = before + self.out.len() - written <= self.subject.bytes_max;
        if !fits {
            self.out.truncate(written);
            self.without(text, found, b"");
        }
        self.bytes = before + self.out.len() - written;
        if fits { Ok(()) } else { Err(Failure::TooLarge) }
    }

    fn without(&mut self, text: &Cow<'_, [u8]>, found: &[(usize, usize)], replacement: &[u8]) {
        let mut at = 0;
        for (start, end) in found.iter().copied() {
            self.part(text, at, start);
            self.out.extend_from_slice(replacement);
            at = end;
        }
        self.part(text, at, text.len());
    }

    fn part(&mut self, text: &Cow<'_, [u8]>, from: usize, to: usize) {
        let part = text.get(from..to).unwrap_or_default();
        match text {
            // Written without escapes, so that it is what stands in the event.
            Cow::Borrowed(_) => self.out.extend_from_slice(part),
            Cow::Owned(_) => write_escaped(self.out, &String::from_utf8_lossy(part)),
        }
    }

    /// Writes the rest of the event where any of it was written; returns whether.
    fn finish(self) -> bool {
        let changed = self.at > 0;
        if changed {
            self.out.extend_from_slice(&self.subject.event[self.at..]);
        }
        changed
    }
}
