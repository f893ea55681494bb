//! A body, or lines one by one, become the lines of a batch; what is no event is refused by itself.
//!
//! # The form of a body
//! Its bytes decide, not its content type. White space in front is skipped. `[` begins **one array** of events. Else it
//! is **NDJSON**, one event on each line, blank lines skipped, unless its first line is no whole object and either the
//! whole body is **one object** over several lines, or the second line does not begin with `{` (then it was meant as
//! one object, or as nothing at all, and is refused as a whole: lines inside a broken object are not events).
//!
//! # What is refused alone, and what with all the rest
//! A line of NDJSON that is malformed, no object, too deep or too large is refused alone. In an array that is so for
//! elements that are no object or too large; a fault of syntax or depth ends an array, because behind it nothing says
//! where the next element begins, so all of it is refused.
//!
//! # Bytes
//! An event keeps its bytes, but for raw line breaks between its tokens, which become spaces, and members `_spillway`,
//! which are taken out. NDJSON is made into the batch in place: where every line is an event as it should be, nothing
//! is copied at all.

use std::ops::Range;

use memchr::memchr;
use spillway_delivery::event::{BATCH_EVENTS_MAX, EVENT_BYTES_MAX};
use spillway_delivery::json::{self, JsonError, ObjectInfo};

use super::tally::listed;

/// Most refused events that an answer lists; the rest is counted.
pub(crate) const REFUSALS_LISTED_MAX: usize = 100;

/// Most bytes of an idempotency key.
pub(crate) const KEY_BYTES_MAX: usize = 256;

/// The events of a body as the lines of a batch.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The events, each with its `\n`.
    pub(crate) payload: Vec<u8>,
    /// Where each ends.
    pub(crate) ends: Vec<u32>,
    /// What was refused.
    pub(crate) refusals: Refusals,
}

impl Events {
    /// Returns how many events there were, good and bad.
    pub(crate) fn seen(&self) -> usize {
        self.ends.len() + self.refusals.total()
    }

    /// Adds the event that a line is, or what is wrong with it; nothing for a blank one. `number` counts lines from 1.
    pub(crate) fn push_line(&mut self, line: &[u8], number: usize) {
        if first_byte(line).is_none() {
            return;
        }
        match json::validate_object(line) {
            Ok(info) => push_element(self, &line[info.start..info.end], info.is_plain()),
            Err(error) => self.refusals.add_line(self.seen(), (line, number), &error),
        }
    }

    /// Adds that a line had so many bytes, which are too many.
    pub(crate) fn push_too_large(&mut self, bytes: usize, number: usize) {
        self.refusals.add_too_large(self.seen(), number, bytes);
    }
}

/// The refused events of a body: the first [`REFUSALS_LISTED_MAX`], and how many by code.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) listed: Vec<Refusal>,
    pub(crate) counts: [usize; RefusalCode::ALL.len()],
}

/// Why one event was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Counts the events of the body from 0.
    pub(crate) index: usize,
    pub(crate) fault: Fault,
}

/// What is wrong, and where in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: RefusalCode,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// What was expected and what was found, its place in front.
    pub(crate) message: String,
}

/// The kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// No JSON.
    Malformed,
    /// JSON, and no object.
    NotAnObject,
    /// No UTF-8.
    InvalidUtf8,
    /// Nested too deep.
    TooDeep,
    /// Too long.
    TooLarge,
}

impl RefusalCode {
    /// Every code, in the order of their discriminants.
    pub(crate) const ALL: [Self; 5] =
        [Self::Malformed, Self::NotAnObject, Self::InvalidUtf8, Self::TooDeep, Self::TooLarge];

    /// Returns the code as answers and metrics name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotAnObject => "not_an_object",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "event_too_large",
        }
    }
}

listed!(RefusalCode, named);

impl Refusals {
    /// Returns how many events were refused.
    pub(crate) fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Counts a line that is no event.
    fn add_line(&mut self, index: usize, (line, number): (&[u8], usize), error: &JsonError) {
        let place = Place { offset: 0, line: number, column: 1 };
        self.add(index, code_of(line, error), || place.fault(line, error));
    }

    /// Counts a line of so many bytes, which are too many.
    fn add_too_large(&mut self, index: usize, number: usize, bytes: usize) {
        let place = Place { offset: 0, line: number, column: 1 };
        self.add(index, RefusalCode::TooLarge, || place.too_large(bytes));
    }

    /// Counts a refusal; `fault` is made only if it is still listed.
    fn add(&mut self, index: usize, code: RefusalCode, fault: impl FnOnce() -> Fault) {
        self.counts[code as usize] += 1;
        if self.listed.len() < REFUSALS_LISTED_MAX {
            self.listed.push(Refusal { index, fault: fault() });
        }
    }
}

/// Why no event of a body can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// There is nothing but white space.
    Empty,
    /// It is in none of the forms.
    Malformed(Fault),
    /// It holds more events than a batch.
    TooManyEvents,
}

/// Returns whether [`parse`] needs as much memory again.
pub(crate) fn needs_copy(body: &[u8]) -> bool {
    first_byte(body).is_some_and(|at| body[at] == b'[')
}

/// Makes the events of `body`.
pub(crate) fn parse(body: Vec<u8>) -> Result<Events, BodyError> {
    let start = first_byte(&body).ok_or(BodyError::Empty)?;
    if body[start] == b'[' {
        return parse_array(&body);
    }
    match form(&body, start) {
        Form::Lines => parse_lines(body),
        Form::Object(info) => Ok(parse_object(body, &info)),
        Form::Broken(error) => Err(BodyError::Malformed(Place::start().fault(&body, &error))),
    }
}

/// What a body that is no array is.
enum Form {
    Lines,
    Object(ObjectInfo),
    Broken(JsonError),
}

fn form(body: &[u8], start: usize) -> Form {
    let first = start + memchr(b'\n', &body[start..]).unwrap_or(body.len() - start);
    let second = first_byte(&body[first..]).map(|at| body[first + at]);
    if second.is_none() || json::validate_object(&body[start..first]).is_ok() {
        return Form::Lines;
    }
    match json::validate_object(body) {
        Ok(info) => Form::Object(info),
        Err(_) if second == Some(b'{') => Form::Lines,
        Err(error) => Form::Broken(error),
    }
}

fn parse_object(body: Vec<u8>, info: &ObjectInfo) -> Events {
    let mut arena = Arena::new(body);
    if info.end - info.start > EVENT_BYTES_MAX {
        let mut place = Place::start();
        place.advance(&arena.bytes, info.start);
        arena.refusals.add(0, RefusalCode::TooLarge, || place.too_large(info.end - info.start));
    } else {
        arena.keep(0, info);
    }
    arena.finish()
}

fn parse_lines(body: Vec<u8>) -> Result<Events, BodyError> {
    let mut arena = Arena::new(body);
    let bytes = arena.bytes.len();
    let (mut at, mut line) = (0, 0);
    while at < bytes {
        let end = memchr(b'\n', &arena.bytes[at..]).map_or(bytes, |length| at + length);
        line += 1;
        arena.line(at..end, line)?;
        at = end + 1;
    }
    Ok(arena.finish())
}

/// Events that move to the front of the body they came in. What was written never reaches what is still to be read: an
/// event is not longer than it was, and its line break takes the place of what divided it from the next.
struct Arena {
    bytes: Vec<u8>,
    written: usize,
    ends: Vec<u32>,
    refusals: Refusals,
    scratch: Vec<u8>,
}

impl Arena {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0, ends: Vec::new(), refusals: Refusals::default(), scratch: Vec::new() }
    }

    fn line(&mut self, span: Range<usize>, number: usize) -> Result<(), BodyError> {
        let line = &self.bytes[span.clone()];
        if first_byte(line).is_none() {
            return Ok(());
        }
        let index = self.ends.len() + self.refusals.total();
        if index == BATCH_EVENTS_MAX {
            return Err(BodyError::TooManyEvents);
        }
        if line.len() > EVENT_BYTES_MAX && line.trim_ascii().len() > EVENT_BYTES_MAX {
            self.refusals.add_too_large(index, number, line.len());
            return Ok(());
        }
        match json::validate_object(line) {
            Ok(info) => self.keep(span.start, &info),
            Err(error) => self.refusals.add_line(index, (line, number), &error),
        }
        Ok(())
    }

    /// Keeps the object that `info` found in the bytes from `base` on.
    fn keep(&mut self, base: usize, info: &ObjectInfo) {
        let span = base + info.start..base + info.end;
        if info.is_plain() {
            let length = span.len();
            if span.start != self.written {
                self.bytes.copy_within(span, self.written);
            }
            self.written += length;
        } else {
            self.scratch.clear();
            json::normalize_into(&self.bytes[span], &mut self.scratch);
            self.bytes[self.written..self.written + self.scratch.len()].copy_from_slice(&self.scratch);
            self.written += self.scratch.len();
        }
        match self.bytes.get_mut(self.written) {
            Some(byte) => *byte = b'\n',
            None => self.bytes.push(b'\n'),
        }
        self.written += 1;
        self.ends.push(self.written as u32);
    }

    fn finish(mut self) -> Events {
        self.bytes.truncate(self.written);
        Events { payload: self.bytes, ends: self.ends, refusals: self.refusals }
    }
}

fn parse_array(body: &[u8]) -> Result<Events, BodyError> {
    let mut events = Events { payload: Vec::with_capacity(body.len()), ..Events::default() };
    let mut place = Place::start();
    for (index, element) in json::split_values(body).enumerate() {
        let element = element.map_err(|error| BodyError::Malformed(place.fault(body, &error)))?;
        if index == BATCH_EVENTS_MAX {
            return Err(BodyError::TooManyEvents);
        }
        let span = element.span;
        match element.object {
            Some(info) if span.len() <= EVENT_BYTES_MAX => push_element(&mut events, &body[span], info.is_plain()),
            Some(_) => events.refusals.add(index, RefusalCode::TooLarge, || {
                place.advance(body, span.start);
                place.too_large(span.len())
            }),
            None => events.refusals.add(index, RefusalCode::NotAnObject, || {
                place.advance(body, span.start);
                place.fault(body, &JsonError { offset: span.start, reason: "expected an object" })
            }),
        }
    }
    Ok(events)
}

fn push_element(events: &mut Events, element: &[u8], plain: bool) {
    if plain {
        events.payload.extend_from_slice(element);
    } else {
        json::normalize_into(element, &mut events.payload);
    }
    events.payload.push(b'\n');
    events.ends.push(events.payload.len() as u32);
}

/// A place in a body that only moves forwards, so that many faults of one body cost one pass.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: usize,
    line: usize,
    column: usize,
}

impl Place {
    fn start() -> Self {
        Self { offset: 0, line: 1, column: 1 }
    }

    fn advance(&mut self, body: &[u8], to: usize) {
        let passed = &body[self.offset..to];
        let (lines, columns) = json::line_column(passed, passed.len());
        self.column = if lines == 1 { self.column + columns - 1 } else { columns };
        self.line += lines - 1;
        self.offset = to;
    }

    /// Returns the fault that `error` is; its offset counts from the start of `body`.
    fn fault(mut self, body: &[u8], error: &JsonError) -> Fault {
        self.advance(body, error.offset);
        let Self { line, column, .. } = self;
        let reason = error.reason;
        let found = match body.get(error.offset) {
            None => String::new(),
            Some(byte @ b'!'..=b'~') => format!(", found `{}`", char::from(*byte)),
            Some(b' ') => ", found a space".to_owned(),
            Some(b'\n' | b'\r') => ", found a line break".to_owned(),
            Some(byte) => format!(", found byte 0x{byte:02X}"),
        };
        let message = format!("line {line}, column {column}: {reason}{found}");
        Fault { code: code_of(body, error), line, column, message }
    }

    fn too_large(self, bytes: usize) -> Fault {
        let Self { line, column, .. } = self;
        let message = format!("line {line}, column {column}: the event has {bytes} bytes, at most {EVENT_BYTES_MAX}");
        Fault { code: RefusalCode::TooLarge, line, column, message }
    }
}

/// Returns the kind of a fault. A value of JSON that is no object is told from text that is no JSON by its first byte.
fn code_of(body: &[u8], error: &JsonError) -> RefusalCode {
    match (error.reason, body.get(error.offset)) {
        ("expected an object", Some(b'"' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')) => RefusalCode::NotAnObject,
        ("invalid UTF-8", _) => RefusalCode::InvalidUtf8,
        (reason, _) if reason.starts_with("nested deeper than") => RefusalCode::TooDeep,
        _ => RefusalCode::Malformed,
    }
}

/// Returns the place of the first byte that is no white space of JSON.
fn first_byte(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
}
