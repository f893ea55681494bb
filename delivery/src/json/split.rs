//! The elements of an array, one by one.

use std::ops::Range;

use super::JsonError;
use super::validate::{ObjectInfo, Scanner, VALUE};

/// One element of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Where it is in the body.
    pub span: Range<usize>,
    /// What [`validate_object`](super::validate_object) would say, offsets in the body; `None` when it is valid JSON but
    /// no object.
    pub object: Option<ObjectInfo>,
}

/// Returns the elements of the array that `body` is, white space around it allowed.
///
/// Each is checked as it is yielded. The first fault is yielded as an error and ends the iterator: behind it nothing
/// says where the next element starts.
pub fn split_values(body: &[u8]) -> Elements<'_> {
    Elements { scanner: Scanner::new(body), bytes: body.len(), next: Next::Array }
}

/// The iterator of [`split_values`].
#[derive(Debug)]
pub struct Elements<'b> {
    scanner: Scanner<'b>,
    bytes: usize,
    next: Next,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    /// The bracket of the array.
    Array,
    /// What follows the element that ended here.
    Behind(usize),
    Nothing,
}

/// A step of the scan: the end of the array is `Some(None)`, a fault `None`.
type Step = Option<Option<Element>>;

impl Iterator for Elements<'_> {
    type Item = Result<Element, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = match self.next {
            Next::Nothing => return None,
            Next::Array => self.first(),
            Next::Behind(at) => self.following(at),
        };
        self.next = match &step {
            Some(Some(element)) => Next::Behind(element.span.end),
            _ => Next::Nothing,
        };
        step.ok_or_else(|| self.scanner.fault()).transpose()
    }
}

impl Elements<'_> {
    fn first(&mut self) -> Step {
        let at = self.scanner.space(0);
        if self.scanner.byte(at) != b'[' {
            return self.scanner.fail(at, "expected an array");
        }
        let at = self.scanner.space(at + 1);
        if self.scanner.byte(at) == b']' { self.end(at) } else { self.element(at, "expected a value or `]`") }
    }

    fn following(&mut self, at: usize) -> Step {
        let at = self.scanner.space(at);
        match self.scanner.byte(at) {
            b',' => {
                let at = self.scanner.space(at + 1);
                self.element(at, VALUE)
            }
            b']' => self.end(at),
            _ => self.scanner.fail(at, "expected `,` or `]`"),
        }
    }

    fn end(&mut self, at: usize) -> Step {
        let end = self.scanner.space(at + 1);
        if end < self.bytes { self.scanner.fail(end, "unexpected text after the array") } else { Some(None) }
    }

    fn element(&mut self, at: usize, expected: &'static str) -> Step {
        let first = self.scanner.byte(at);
        if matches!(first, b',' | b']') {
            return self.scanner.fail(at, expected);
        }
        let info = self.scanner.value(at)?;
        Some(Some(Element { span: info.start..info.end, object: (first == b'{').then_some(info) }))
    }
}
