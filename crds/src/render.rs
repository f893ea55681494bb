//! What `check` prints: for people one line an error, for programs one JSON object.

use std::fmt::Write as _;

use serde::Serialize;

use crate::compile::Compiled;
use crate::explain::Explained;
use crate::manifest::ManifestError;
use crate::nodes::counted;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    pipelines: Vec<&'a str>,
    backends: Vec<&'a str>,
    errors: &'a [ManifestError],
    warnings: &'a [ManifestError],
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<&'a [Explained]>,
}

/// Returns one line an error and a warning, place first, and a line that sums up.
pub fn human(compiled: &Compiled) -> String {
    let mut out = String::new();
    let told = |word, list: &[ManifestError], out: &mut String| {
        for error in list {
            // Writing to a String cannot fail.
            _ = writeln!(out, "{word}: {error}");
        }
    };
    told("error", &compiled.errors, &mut out);
    told("warning", &compiled.warnings, &mut out);
    out + &summary(compiled)
}

/// Returns the line that sums up.
pub fn summary(compiled: &Compiled) -> String {
    let counts = [
        counted(compiled.pipelines.len(), "pipeline"),
        counted(compiled.backends.len(), "backend"),
        counted(compiled.errors.len(), "error"),
        counted(compiled.warnings.len(), "warning"),
    ];
    counts.join(", ") + "\n"
}

/// Returns one JSON object: `pipelines` and `backends` (the good ones, `<namespace>.<name>`), `errors`, `warnings`, and `conditions`
/// where they are to be explained.
pub fn json(compiled: &Compiled, conditions: Option<&[Explained]>) -> String {
    let report = Report {
        pipelines: compiled.pipelines.iter().map(|plan| &*plan.settings.uid).collect(),
        backends: compiled.backends.iter().map(|plan| &*plan.uid).collect(),
        errors: &compiled.errors,
        warnings: &compiled.warnings,
        conditions,
    };
    let mut out = serde_json::to_string_pretty(&report).expect("a report is lists of text and numbers");
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, compile};

    const ONE_GOOD_ONE_BAD: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: good}
spec: {type: Stdout}
---
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: bad}
spec: {type: Stdou}
";

    #[test]
    fn people_get_lines_and_programs_get_json() {
        let compiled = compile(&[Document::new("a.yaml", ONE_GOOD_ONE_BAD)]);
        let types = spillway_backends::BackendSettings::type_names().map(|name| format!("`{name}`"));
        let types = types.collect::<Vec<_>>().join(", ");
        assert_eq!(
            human(&compiled),
            format!(
                "error: a.yaml:9:14: Backend default/bad: spec.type: unknown value; found \"Stdou\"; allowed: {types}; \
                 help: did you mean `Stdout`?\n0 pipelines, 1 backend, 1 error, 0 warnings\n"
            )
        );
        let report: serde_json::Value = serde_json::from_str(&json(&compiled, None)).unwrap();
        assert_eq!(report["backends"][0], "default.good");
        let error = &report["errors"][0];
        assert_eq!((&error["line"], &error["column"], &error["suggestion"]), (&9.into(), &14.into(), &"Stdout".into()));
    }
}
