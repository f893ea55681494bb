//! Manifests, from text to plans or errors.

use spillway_crds::{Document, ManifestError, compile_standalone};

/// The name of the file.
const FILE: &str = "fuzz.yaml";

/// See the table of [the crate](crate).
///
/// # Panics
/// Where it does not hold.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let documents = [Document::new(FILE, text)];
    let compiled = compile_standalone(&documents);
    let lines = text.split('\n').count();
    let is_there = |error: &ManifestError| {
        assert_eq!(&*error.file, FILE);
        assert!((1..=lines + 1).contains(&error.line) && error.column >= 1, "{error:?} of {lines} lines");
        assert!(!error.to_string().is_empty());
    };
    compiled.errors.iter().for_each(is_there);
    compiled.warnings.iter().for_each(is_there);
    // The same text is the same plan.
    let again = compile_standalone(&documents);
    assert_eq!(compiled.errors, again.errors);
    assert_eq!(compiled.pipelines.len(), again.pipelines.len());
    assert_eq!(compiled.backends.len(), again.backends.len());
}
