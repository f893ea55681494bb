//! What a command `check` does in every program that has one: manifests of files and folders, compiled, and what cannot be read
//! among the errors.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;

use crate::load::{LoadError, load};
use crate::manifest::Reason;
use crate::{Compiled, Document, ManifestError, compile, compile_standalone};

/// Reads and compiles the manifests of files and folders. What cannot be read is among the errors.
pub fn read(paths: &[PathBuf]) -> Compiled {
    read_by(paths, compile)
}

/// Reads and compiles them as [`read`] does; what an agent without an operator refuses of them is among the warnings.
pub fn read_standalone(paths: &[PathBuf]) -> Compiled {
    read_by(paths, compile_standalone)
}

fn read_by(paths: &[PathBuf], compile: impl FnOnce(&[Document]) -> Compiled) -> Compiled {
    let loaded = load(paths);
    let mut compiled = compile(&loaded.documents);
    let unread: Vec<ManifestError> = loaded.errors.iter().map(unread).collect();
    compiled.errors.splice(0..0, unread);
    compiled
}

/// Returns what could not be read as an error about its file, with its causes.
pub fn unread(error: &LoadError) -> ManifestError {
    let (path, line, column) = match error {
        LoadError::NotText { path, line, column } => (path, *line, *column),
        LoadError::Read { path, .. }
        | LoadError::NoManifest { path }
        | LoadError::NotAFile { path }
        | LoadError::TooLarge { path }
        | LoadError::TooMany { path } => (path, 1, 1),
    };
    let mut message = match error {
        LoadError::NotText { .. } => "not UTF-8".into(),
        error => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        write!(message, ": {cause}").unwrap_or_default();
        source = cause.source();
    }
    ManifestError { line, column, ..of_file(&path.to_string_lossy(), &message) }
}

/// Returns an error about a file as a whole.
pub fn of_file(file: &str, message: &str) -> ManifestError {
    ManifestError {
        file: file.into(),
        line: 1,
        column: 1,
        object: String::new(),
        field: String::new(),
        refers_to: None,
        reason: Reason::Invalid,
        message: message.to_owned(),
        found: None,
        allowed: None,
        suggestion: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_an_error_with_its_cause() {
        let compiled = read(&["/nowhere/at/all".into()]);
        let text = compiled.errors[0].to_string();
        assert!(text.starts_with("/nowhere/at/all:1:1: cannot read /nowhere/at/all: No such file"), "{text}");
    }
}
