//! Names of fields: a path through the objects of an event, written as a condition writes it behind `event.`.

use std::fmt;

use crate::event::RESERVED_MEMBER;

/// Most keys of a path.
pub const PATH_KEYS_MAX: usize = 16;

/// The path of a field of an event.
///
/// Keys stand between dots (`http.status`); one that holds a dot, a bracket, a quote or white space stands in brackets and
/// double quotes, in which `\"` and `\\` are a quote and a backslash (`labels["app.kubernetes.io/name"]`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath {
    keys: Vec<String>,
}

/// Why a text is not the path of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A key is empty.
    #[error("a key is missing at character {0}")]
    Missing(usize),
    /// A character that cannot stand there.
    #[error("`{0}` cannot stand at character {1}")]
    Character(char, usize),
    /// A bracket or its quote has no end.
    #[error("the bracket at character {0} has no end")]
    Unclosed(usize),
    /// More than [`PATH_KEYS_MAX`] keys.
    #[error("{0} keys, more than {PATH_KEYS_MAX}")]
    Deep(usize),
    /// The member that the agent adds.
    #[error("`{RESERVED_MEMBER}` is the agent's own member, which no event has")]
    Reserved,
}

impl PathError {
    /// What would be right.
    pub const ALLOWED: &'static str = "keys between dots, like `http.status`; one with other characters than letters, \
                                       digits, `_`, `-`, `@`, `/` in brackets and double quotes, like `labels[\"a b\"]`";
}

impl FieldPath {
    /// Reads a path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let mut reader = Reader { text: text.chars().collect(), at: 0 };
        let mut keys = Vec::new();
        loop {
            keys.push(reader.key(keys.is_empty())?);
            if reader.peek().is_none() {
                break;
            }
        }
        if keys.len() > PATH_KEYS_MAX {
            return Err(PathError::Deep(keys.len()));
        }
        if keys[0] == RESERVED_MEMBER {
            return Err(PathError::Reserved);
        }
        Ok(Self { keys })
    }

    /// Returns the keys from the outermost on; there is at least one.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Returns whether one of two paths is the other or leads to it.
    pub fn overlaps(&self, other: &Self) -> bool {
        overlap(&self.keys, &other.keys)
    }
}

/// Returns whether one of two paths is the other or leads to it.
pub(super) fn overlap(one: &[String], other: &[String]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.keys.iter().enumerate() {
            if !key.is_empty() && key.chars().all(is_bare) {
                write!(f, "{}{key}", if index == 0 { "" } else { "." })?;
            } else {
                write!(f, "[\"{}\"]", key.replace('\\', r"\\").replace('"', "\\\""))?;
            }
        }
        Ok(())
    }
}

struct Reader {
    text: Vec<char>,
    at: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    /// Takes a key with the dot or the brackets around it.
    fn key(&mut self, is_first: bool) -> Result<String, PathError> {
        match self.peek() {
            Some('[') => return self.quoted(),
            Some('.') if !is_first => self.at += 1,
            Some(other) if !is_first => return Err(PathError::Character(other, self.at + 1)),
            _ => {}
        }
        let start = self.at;
        while self.peek().is_some_and(is_bare) {
            self.at += 1;
        }
        match self.peek() {
            Some(other) if !matches!(other, '.' | '[') => Err(PathError::Character(other, self.at + 1)),
            _ if self.at == start => Err(PathError::Missing(start + 1)),
            _ => Ok(self.text[start..self.at].iter().collect()),
        }
    }

    fn quoted(&mut self) -> Result<String, PathError> {
        let open = self.at + 1;
        let mut key = String::new();
        self.at += 1;
        self.expect('"', open)?;
        loop {
            let next = self.peek().ok_or(PathError::Unclosed(open))?;
            self.at += 1;
            match next {
                '"' => break,
                '\\' => match self.peek() {
                    Some(escaped @ ('"' | '\\')) => {
                        key.push(escaped);
                        self.at += 1;
                    }
                    Some(other) => return Err(PathError::Character(other, self.at + 1)),
                    None => return Err(PathError::Unclosed(open)),
                },
                other => key.push(other),
            }
        }
        self.expect(']', open)?;
        Ok(key)
    }

    fn expect(&mut self, wanted: char, open: usize) -> Result<(), PathError> {
        match self.peek() {
            Some(found) if found == wanted => {
                self.at += 1;
                Ok(())
            }
            Some(other) => Err(PathError::Character(other, self.at + 1)),
            None => Err(PathError::Unclosed(open)),
        }
    }
}

/// Returns whether a character stands in a key without quotes.
fn is_bare(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-' | '@' | '/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_written() {
        for (text, keys) in [
            ("level", &["level"][..]),
            ("http.status", &["http", "status"]),
            ("@timestamp", &["@timestamp"]),
            (r#"labels["app.kubernetes.io/name"]"#, &["labels", "app.kubernetes.io/name"]),
            (r#"["x y"].z"#, &["x y", "z"]),
            (r#"["q\"\\"]"#, &["q\"\\"]),
            (r#"[""]"#, &[""]),
            ("größe", &["größe"]),
        ] {
            let path = FieldPath::parse(text).unwrap();
            assert_eq!(path.keys(), keys);
            assert_eq!(path.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_path_is_refused_with_its_place() {
        for (text, error) in [
            ("", PathError::Missing(1)),
            ("a.", PathError::Missing(3)),
            (".a", PathError::Missing(1)),
            ("a..b", PathError::Missing(3)),
            ("a b", PathError::Character(' ', 2)),
            ("a[0]", PathError::Character('0', 3)),
            (r#"a["b"#, PathError::Unclosed(2)),
            (r#"a["b""#, PathError::Unclosed(2)),
            (r#"a["b\n"]"#, PathError::Character('n', 6)),
            (r#"a["b"]c"#, PathError::Character('c', 7)),
            ("_spillway", PathError::Reserved),
            (r#"["_spillway"].id"#, PathError::Reserved),
        ] {
            assert_eq!(FieldPath::parse(text), Err(error), "{text}");
        }
        let deep = |keys: usize| FieldPath::parse(&vec!["k"; keys].join(".")).map(|path| path.keys().len());
        assert_eq!(deep(PATH_KEYS_MAX), Ok(PATH_KEYS_MAX));
        assert_eq!(deep(PATH_KEYS_MAX + 1), Err(PathError::Deep(PATH_KEYS_MAX + 1)));
        assert!(FieldPath::parse("a._spillway").is_ok(), "only the event's own member is the agent's");
    }

    #[test]
    fn paths_overlap_when_one_leads_to_the_other() {
        let overlaps = |one: &str, other: &str| {
            let (one, other) = (FieldPath::parse(one).unwrap(), FieldPath::parse(other).unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlaps("a", "a") && overlaps("a", "a.b") && overlaps("a.b", "a.b.c"));
        assert!(!overlaps("a", "ab") && !overlaps("a.b", "a.c") && !overlaps("a.b", "b"));
    }
}
