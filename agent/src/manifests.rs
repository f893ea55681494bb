//! Manifests from files: read and compiled, what is wrong with its place, what is left out.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;

use spillway_crds::load::{LoadError, load};
use spillway_crds::manifest::Reason;
use spillway_crds::{Compiled, ManifestError, compile};

use crate::status::Excluded;

/// Reads and compiles the manifests of files and folders. What cannot be read is among the errors.
pub fn read(paths: &[PathBuf]) -> Compiled {
    let loaded = load(paths);
    let mut compiled = compile(&loaded.documents);
    let unread: Vec<ManifestError> = loaded.errors.iter().map(unread).collect();
    compiled.errors.splice(0..0, unread);
    compiled
}

/// Returns what is not run, errors of one object together, in the order of the errors.
pub fn excluded(errors: &[ManifestError]) -> Vec<Excluded> {
    let mut excluded: Vec<Excluded> = Vec::new();
    for error in errors {
        let object = object_of(error);
        match excluded.iter_mut().find(|known| known.object == object) {
            Some(known) => known.errors.push(error.to_string()),
            None => excluded.push(Excluded { object, errors: vec![error.to_string()], kept: false }),
        }
    }
    excluded
}

/// Returns what an error is about: its object, or the file where it has none.
pub(crate) fn object_of(error: &ManifestError) -> String {
    if error.object.is_empty() { error.file.to_string() } else { error.object.clone() }
}

pub(crate) fn unread(error: &LoadError) -> ManifestError {
    let (path, line, column) = match error {
        LoadError::NotText { path, line, column } => (path, *line, *column),
        LoadError::Read { path, .. }
        | LoadError::NoManifest { path }
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
pub(crate) fn of_file(file: &str, message: &str) -> ManifestError {
    ManifestError {
        file: file.into(),
        line: 1,
        column: 1,
        object: String::new(),
        field: String::new(),
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
        let excluded = excluded(&compiled.errors);
        assert_eq!(excluded[0].object, "/nowhere/at/all");
    }

    #[test]
    fn errors_of_one_object_stand_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let bad =
            "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: bad}\nspec: {type: Stdou, x: 1}\n";
        std::fs::write(&path, bad).unwrap();
        let excluded = excluded(&read(&[path]).errors);
        assert_eq!(excluded.len(), 1, "{excluded:?}");
        assert_eq!(excluded[0].object, "Backend default/bad");
        assert!(excluded[0].errors[0].contains("did you mean `Stdout`?"), "{excluded:?}");
    }
}
