//! Documents whose links lead somewhere, and files that name no host of a registry and no path of one machine.

use std::path::{Component, Path, PathBuf};

use crate::tidy::Finding;

/// Host names that belong to nobody's documentation: whoever builds this has registries of his own.
/// Written in two halves, so that this file passes its own check.
const HOSTS: &[(&str, &str)] = &[
    ("static.crates", ".io"),
    ("index.crates", ".io"),
    ("pypi", ".org"),
    ("files.pythonhosted", ".org"),
    ("registry.npmjs", ".org"),
    ("proxy.golang", ".org"),
    ("repo.maven.apache", ".org"),
    ("deb.debian", ".org"),
];

/// Folders of one machine.
const MACHINE_FOLDERS: &[(&str, &str)] = &[("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/")];

/// Checks the words of one file.
pub(super) fn check_words(path: &str, text: &str, findings: &mut Vec<Finding>) {
    if path == "Cargo.lock" {
        return;
    }
    for (index, line) in text.lines().enumerate() {
        for host in HOSTS.iter().map(|(head, tail)| format!("{head}{tail}")) {
            if line.contains(&host) {
                findings.push(Finding::new(path, index + 1, format!("names the registry host {host}")));
            }
        }
        for folder in MACHINE_FOLDERS.iter().map(|(head, tail)| format!("{head}{tail}")) {
            let absolute = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                before.is_none_or(|letter| !letter.is_alphanumeric() && !"_-.}/~$".contains(letter))
            };
            if line.match_indices(&folder).any(absolute) {
                findings.push(Finding::new(path, index + 1, format!("names the machine folder {folder}")));
            }
        }
    }
}

/// Checks the relative links of one document: the file is there, and so is the heading behind `#`.
pub(super) fn check_links(path: &str, text: &str, texts: &[(&str, String)], findings: &mut Vec<Finding>) {
    for (line, target) in links(text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let there = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
        let folder = format!("{there}/");
        let document = texts.iter().find(|(name, _)| *name == there).map(|(_, text)| text.as_str());
        if document.is_none() && !texts.iter().any(|(name, _)| name.starts_with(&folder)) {
            findings.push(Finding::new(path, line, format!("link to `{target}`: no such file")));
            continue;
        }
        let found = document.is_some_and(|text| headings(text).any(|anchor| anchor == heading));
        if !heading.is_empty() && !found {
            findings.push(Finding::new(path, line, format!("link to `{target}`: no such heading")));
        }
    }
}

/// Returns the lines outside code blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!fence && !in_code).then_some((index + 1, line))
    })
}

fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        line.match_indices("](").filter_map(move |(at, _)| {
            let target = line[at + 2..].split([')', ' ']).next()?;
            // Behind an odd number of backticks it is code.
            let is_code = line[..at].matches('`').count() % 2 == 1;
            (!target.is_empty() && !is_code).then_some((number, target))
        })
    })
}

/// Returns the anchors of a document's headings: lower case, words joined by `-`, punctuation gone.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    })
}

/// Returns `link`, written in the document `from`, as a path below the root.
fn resolve(from: &str, link: &str) -> String {
    let mut path = PathBuf::new();
    let joined = Path::new(from).parent().unwrap_or(Path::new("")).join(link);
    for part in joined.components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path.to_string_lossy().into_owned()
}
