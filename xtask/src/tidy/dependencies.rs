//! Dependencies that nobody uses: each is named in the code of the crate that asks for it, each of the workspace by a crate.

use crate::tidy::Finding;
use crate::tidy::source::Source;

/// Dependencies that a crate needs without naming them, each with its reason.
const UNNAMED: &[(&str, &str)] = &[
    // The one place that chooses the version of Kubernetes' types for `kube`.
    ("crds", "k8s-openapi"),
];

/// Checks the manifests of the members and of the workspace.
pub(super) fn check(texts: &[(&str, String)], members: &[String], sources: &[Source], findings: &mut Vec<Finding>) {
    let manifest = |path: &str| texts.iter().find(|(name, _)| *name == path).map_or("", |(_, text)| text.as_str());
    for member in members {
        let path = format!("{member}/Cargo.toml");
        let folder = format!("{member}/");
        for name in table(manifest(&path), &["[dependencies]", "[dev-dependencies]"]) {
            let in_code = name.replace('-', "_");
            let of_member = sources.iter().filter(|source| source.path.starts_with(&folder));
            let is_named = of_member.into_iter().any(|source| source.words(&in_code).next().is_some());
            if !is_named && !UNNAMED.contains(&(member.as_str(), name)) {
                findings.push(Finding::new(&path, 1, format!("asks for `{name}`, which none of its files names")));
            }
        }
    }
    let asked = |name: &str| {
        let lines = members.iter().flat_map(|member| manifest(&format!("{member}/Cargo.toml")).lines());
        lines.into_iter().any(|line| line.split(['.', ' ', '=']).next() == Some(name))
    };
    for name in table(manifest("Cargo.toml"), &["[workspace.dependencies]"]).filter(|name| !asked(name)) {
        findings.push(Finding::new("Cargo.toml", 1, format!("lists `{name}`, which no crate asks for")));
    }
}

/// Returns the names in tables of a manifest.
pub(super) fn table<'a>(manifest: &'a str, headings: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let mut inside = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            inside = headings.contains(&line);
        }
        let name = line.split(['.', ' ', '=']).next()?;
        (inside && line.contains('=') && !line.starts_with(['#', '['])).then_some(name)
    })
}
