//! What `test` prints: for people a line a test, for programs one JSON object.

use std::fmt::Write as _;

use serde_json::json;

use super::Outcome;
use crate::manifest::ManifestError;

/// Returns errors, a line for each test with what failed below it, and a line that sums up.
pub fn human(outcomes: &[Outcome], errors: &[ManifestError]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    for error in errors {
        _ = writeln!(out, "error: {error}");
    }
    for Outcome { file, line, name, failures, note } in outcomes {
        _ = match &failures[..] {
            [] => writeln!(out, "ok      {name}"),
            _ => writeln!(out, "FAILED  {name} ({file}:{line})"),
        };
        if let Some(note) = note {
            _ = writeln!(out, "        note: {note}");
        }
        for failure in failures {
            _ = writeln!(out, "        {failure}");
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
    _ = writeln!(out, "{} passed, {failed} failed, {} errors", outcomes.len() - failed, errors.len());
    out
}

/// Returns one JSON object: `tests`, `passed`, `failed`, `errors`.
pub fn json(outcomes: &[Outcome], errors: &[ManifestError]) -> String {
    let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
    let report = json!({"tests": outcomes, "passed": outcomes.len() - failed, "failed": failed, "errors": errors});
    format!("{report:#}\n")
}
