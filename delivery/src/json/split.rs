//! The elements of an array, one by one.

use std::ops::Range;

use super::JsonError;
use super::validate::{Fault, ObjectInfo, Scanner, VALUE};

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
    Elements { scanner: Scanner::new(body, 0), next: Next::Array, bytes: body.len() }
}

/// The iterator of [`split_values`].
#[derive(Debug)]
pub struct Elements<'b> {
    scanner: Scanner<'b>,
    next: Next,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Array,
    CommaOrEnd,
    Nothing,
}

impl Iterator for Elements<'_> {
    type Item = Result<Element, JsonError>;

    fn next(&mut self) -> Option<Self::Item> {
        let element = match self.next {
            Next::Nothing => return None,
            Next::Array => self.first(),
            Next::CommaOrEnd => self.following(),
        };
        self.next = if matches!(element, Ok(Some(_))) { Next::CommaOrEnd } else { Next::Nothing };
        element.map_err(|fault| self.scanner.error(fault)).transpose()
    }
}

impl Elements<'_> {
    fn first(&mut self) -> Result<Option<Element>, Fault> {
        self.scanner.space();
        if self.scanner.byte() != b'[' {
            return Err("expected an array");
        }
        self.step();
        if self.scanner.byte() == b']' {
            return self.end();
        }
        self.element("expected a value or `]`").map(Some)
    }

    fn following(&mut self) -> Result<Option<Element>, Fault> {
        self.scanner.space();
        match self.scanner.byte() {
            b',' => {
                self.step();
                self.element(VALUE).map(Some)
            }
            b']' => self.end(),
            _ => Err("expected `,` or `]`"),
        }
    }

    fn step(&mut self) {
        self.scanner.at += 1;
        self.scanner.space();
    }

    fn end(&mut self) -> Result<Option<Element>, Fault> {
        self.step();
        if self.scanner.at < self.bytes { Err("unexpected text after the array") } else { Ok(None) }
    }

    fn element(&mut self, expected: Fault) -> Result<Element, Fault> {
        let is_object = self.scanner.byte() == b'{';
        if matches!(self.scanner.byte(), b',' | b']') {
            return Err(expected);
        }
        let info = self.scanner.value()?;
        Ok(Element { span: info.start..info.end, object: is_object.then_some(info) })
    }
}
