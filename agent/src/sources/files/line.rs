//! A line of a plain file: all of it is text.

use crate::sources::tail::assemble::{Form, Line, Slot};

/// Lines as they are.
#[derive(Debug, Default)]
pub(super) struct Plain;

impl Form for Plain {
    #[inline]
    fn parse<'a>(line: &'a [u8], read_at: &'a [u8]) -> Option<Line<'a>> {
        Some(Line { time: read_at, slot: Slot::Other, partial: false, text: line })
    }
}
