//! Structured data of RFC 5424: `[a@1 b="c" d="e"][f@1]`. Pure.
//!
//! # Limits
//! [`ELEMENTS_MAX`] elements and [`PARAMS_MAX`] parameters; a message with more has structured data that cannot be read, which stays
//! in its text.

use super::Writer;

/// Most elements of a message.
const ELEMENTS_MAX: usize = 64;

/// Most parameters of a message, over all of its elements.
const PARAMS_MAX: usize = 1024;

/// The elements of a message.
#[derive(Debug, Default)]
pub(super) struct Structured<'m> {
    elements: Vec<Element<'m>>,
}

#[derive(Debug)]
struct Element<'m> {
    id: &'m [u8],
    params: Vec<Param<'m>>,
}

#[derive(Debug)]
struct Param<'m> {
    name: &'m [u8],
    /// As it is written, escapes included.
    value: &'m [u8],
}

impl<'m> Structured<'m> {
    /// Reads what stands at the beginning of `text`, `-` for nothing; returns it with the text behind, or `None` where it cannot be
    /// read.
    pub(super) fn parse(text: &'m [u8]) -> Option<(Self, &'m [u8])> {
        let (structured, behind) = match text.strip_prefix(b"-") {
            Some(behind) => (Self::default(), behind),
            None => Self::elements(text)?,
        };
        match behind {
            [] => Some((structured, behind)),
            [b' ', message @ ..] => Some((structured, message)),
            _ => None,
        }
    }

    fn elements(text: &'m [u8]) -> Option<(Self, &'m [u8])> {
        let (mut elements, mut rest, mut params_left) = (Vec::<Element<'m>>::new(), text, PARAMS_MAX);
        while let Some(inside) = rest.strip_prefix(b"[") {
            if elements.len() == ELEMENTS_MAX {
                return None;
            }
            let (id, mut inner) = name(inside)?;
            if elements.iter().any(|other| other.id == id) {
                return None;
            }
            let mut params = Vec::new();
            loop {
                match inner {
                    [b']', behind @ ..] => {
                        rest = behind;
                        break;
                    }
                    [b' ', param @ ..] => {
                        params_left = params_left.checked_sub(1)?;
                        let (param, behind) = Param::parse(param)?;
                        params.push(param);
                        inner = behind;
                    }
                    _ => return None,
                }
            }
            elements.push(Element { id, params });
        }
        (!elements.is_empty()).then_some((Self { elements }, rest))
    }

    /// Writes the member `structured_data`, if there is any: an object of objects. A name that comes more than once in an element
    /// has a list of its values, in their order.
    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        if self.elements.is_empty() {
            return;
        }
        writer.name("structured_data");
        for (index, element) in self.elements.iter().enumerate() {
            writer.out.push(if index == 0 { b'{' } else { b',' });
            writer.string(element.id);
            writer.out.push(b':');
            element.write(writer);
        }
        writer.out.push(b'}');
    }
}

impl Element<'_> {
    fn write(&self, writer: &mut Writer<'_>) {
        let mut params: Vec<&Param<'_>> = self.params.iter().collect();
        params.sort_by_key(|param| param.name);
        writer.out.push(b'{');
        for (index, alike) in params.chunk_by(|one, other| one.name == other.name).enumerate() {
            if index > 0 {
                writer.out.push(b',');
            }
            writer.string(alike[0].name);
            writer.out.push(b':');
            match alike {
                [one] => one.write(writer),
                several => write_list(several, writer),
            }
        }
        writer.out.push(b'}');
    }
}

fn write_list(params: &[&Param<'_>], writer: &mut Writer<'_>) {
    for (index, param) in params.iter().enumerate() {
        writer.out.push(if index == 0 { b'[' } else { b',' });
        param.write(writer);
    }
    writer.out.push(b']');
}

impl<'m> Param<'m> {
    fn parse(text: &'m [u8]) -> Option<(Self, &'m [u8])> {
        let (name, rest) = name(text)?;
        let value = rest.strip_prefix(b"=\"")?;
        let mut at = 0;
        loop {
            at += memchr::memchr2(b'"', b'\\', &value[at..])?;
            if value[at] == b'"' {
                break;
            }
            // What is escaped cannot end the value.
            at += 2;
            if at > value.len() {
                return None;
            }
        }
        Some((Self { name, value: &value[..at] }, &value[at + 1..]))
    }

    /// Writes the value without the escapes of `"`, `\` and `]`; a `\` before anything else is one.
    fn write(&self, writer: &mut Writer<'_>) {
        if memchr::memchr(b'\\', self.value).is_none() {
            return writer.string(self.value);
        }
        let mut plain = Vec::with_capacity(self.value.len());
        let mut rest = self.value;
        while let Some((first, behind)) = rest.split_first() {
            rest = match (first, behind) {
                (b'\\', [escaped @ (b'"' | b'\\' | b']'), behind @ ..]) => {
                    plain.push(*escaped);
                    behind
                }
                _ => {
                    plain.push(*first);
                    behind
                }
            };
        }
        writer.string(&plain);
    }
}

/// Takes the name at the beginning: visible ASCII but `=`, `]` and `"`.
fn name(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let is_part = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"');
    let length = text.iter().position(|byte| !is_part(byte)).unwrap_or(text.len());
    (length > 0).then(|| text.split_at(length))
}
