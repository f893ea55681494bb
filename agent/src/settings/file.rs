//! The configuration file: keys and values with the place they were written at.
//!
//! Values stay text, as on the command line, so that one function judges them wherever they come from. Limits: a file
//! of [`FILE_BYTES_MAX`]; a list of [`LIST_MAX`] entries.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::SettingError;
use super::list::{self, SETTINGS};

/// Most bytes of a configuration file: 64 KiB, a thousand times what one needs.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Most entries of a list in it.
const LIST_MAX: usize = 1024;

/// A configuration file, read and its keys checked.
#[derive(Debug, Default)]
pub struct ConfigFile {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// One key with its value, and where the value stands.
#[derive(Debug)]
pub(super) struct Entry {
    key: String,
    /// One text, or those of a list.
    pub(super) texts: Vec<String>,
    /// Counts from 1.
    pub(super) line: u64,
    /// Counts from 1.
    pub(super) column: u64,
}

impl ConfigFile {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, SettingError> {
        let unreadable = |source| SettingError::FileRead { path: path.into(), source };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(std::io::Error::other(format!(
                "found {size} bytes, allowed: at most {FILE_BYTES_MAX}"
            ))));
        }
        Self::parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Parses `text` as if it stood in the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SettingError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self { path: path.into(), entries: Vec::new() });
        }
        let document: Document = serde_saphyr::from_str(text).map_err(|error| SettingError::FileParse {
            path: path.into(),
            line: error.location().map_or(1, |place| place.line()),
            column: error.location().map_or(1, |place| place.column()),
            message: first_line(&error.without_snippet().to_string()).into(),
        })?;
        let mut entries: Vec<Entry> = Vec::new();
        for (key, value) in document.0 {
            let (line, column) = (value.referenced.line(), value.referenced.column());
            if entries.iter().any(|entry| entry.key == key) {
                let message = format!("key `{key}` stands twice").into();
                return Err(SettingError::FileParse { path: path.into(), line, column, message });
            }
            if !SETTINGS.iter().any(|setting| setting.key == key) {
                let nearest = list::nearest_key(&key);
                return Err(SettingError::UnknownKey { path: path.into(), line, column, found: key, nearest });
            }
            entries.push(Entry { key, texts: value.value.0, line, column });
        }
        Ok(Self { path: path.into(), entries })
    }

    /// Returns where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the file says about `key`.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }
}

/// The parser repeats the place behind the message, and may draw the line below it.
fn first_line(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default();
    line.split_once(" at line ").map_or(line, |(message, _)| message)
}

struct Document(Vec<(String, Spanned<Texts>)>);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
                let mut entries: Vec<(String, Spanned<Texts>)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Document(entries))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// A scalar as it would stand on the command line, or a list of them.
#[derive(Debug)]
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextsVisitor)
    }
}

struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, or a list of texts")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Texts, E> {
        Ok(Texts(vec![value.into()]))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Texts, E> {
        // YAML reads a bare `off` as false in some dialects; it means the same here.
        Ok(Texts(vec![if value { "true".into() } else { "off".into() }]))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Texts, E> {
        Ok(Texts(vec![value.to_string()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            if texts.len() == LIST_MAX {
                return Err(A::Error::custom(format!("a list holds at most {LIST_MAX} entries")));
            }
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}
