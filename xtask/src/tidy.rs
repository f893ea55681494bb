//! The project's own checks: what a reader relies on and no compiler checks. Each finding names file and line.
//!
//! | module | holds |
//! | --- | --- |
//! | [`source`] | a Rust file with its comments and literals masked, and which of its lines are test code |
//! | [`sizes`] | lines of files and functions, variants of error enums |
//! | [`code`] | what may not be written: detached tasks, unbounded queues, sleeps in tests, carpets of `allow` |
//! | [`wording`] | module headers, error texts, names of tests |
//! | [`shape`] | the root of the work tree, manifests, the budget of packages, big files |
//! | [`dependencies`] | dependencies that nobody uses |
//! | [`documents`] | documents that name every setting, metric and dependency there is |
//! | [`text`] | links of documents that lead nowhere, host names and machine paths |
//!
//! A rule without a check is deleted; a check that makes a piece of code worse is moved on purpose, here.

mod code;
mod dependencies;
mod documents;
mod shape;
mod sizes;
mod source;
mod text;
mod wording;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use anyhow::bail;

use crate::tidy::source::Source;
use crate::workspace::Workspace;

/// One thing to mend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    text: String,
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Runs every check over every file that is or would be committed.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let files = workspace.files()?;
    let mut texts = Vec::new();
    for path in &files {
        let bytes = std::fs::read(workspace.root().join(path))?;
        if let Ok(text) = String::from_utf8(bytes) {
            texts.push((path.as_str(), text));
        }
    }
    let members = workspace.members()?;
    let sources = source::all(&texts, &members);
    let mut findings = Vec::new();
    for source in &sources {
        check_source(source, &mut findings);
    }
    shape::check(workspace, &files, &members, &mut findings)?;
    for (path, text) in &texts {
        text::check_words(path, text, &mut findings);
        if has_extension(path, "md") {
            text::check_links(path, text, &texts, &mut findings);
        }
    }
    dependencies::check(&texts, &members, &sources, &mut findings);
    documents::check(&texts, &mut findings);
    findings.sort();
    findings.dedup();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings in {} files", findings.len(), files.len());
    }
    println!("    {} files, {} of them Rust: nothing to mend", files.len(), sources.len());
    Ok(())
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn check_source(source: &Source, findings: &mut Vec<Finding>) {
    sizes::check(source, findings);
    code::check(source, findings);
    wording::check(source, findings);
}
