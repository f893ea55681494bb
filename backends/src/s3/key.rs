//! The template of an object's key: what it may hold, and why it is refused.
//!
//! Guarantees that `{id}` stands in a parsed key, so that no two objects meet, and that no component of it is empty, `.` or
//! `..`, which the URL of a request would lose.

use crate::settings::Problem;
use crate::template::{Grammar, Piece, Template};

/// What a key may hold.
pub(super) static GRAMMAR: Grammar = Grammar {
    text_bytes_max: 512,
    value_bytes_max: 255,
    takes_id: true,
    takes_event: true,
    lowers: false,
    literal: |b| is_plain(b) || b == b'/',
    literal_allowed: "letters, digits and ._@+=:,~-, components that are not empty, '.' or '..', joined by '/'",
    value: is_plain,
    noun: "part of a key",
};

fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"._@+=:,~-".contains(&b)
}

/// Parses and checks `text`.
pub(super) fn parse(text: &str) -> Result<Template, Problem> {
    let wrong = |message: String, allowed: String| Problem::new("key", message, allowed);
    let template =
        Template::parse(text, &GRAMMAR).map_err(|error| wrong(error.to_string(), error.allowed(&GRAMMAR)))?;
    // Placeholders hold no slash and never render to nothing: the text has the components of every key.
    if let Some(part) = text.split('/').find(|part| matches!(*part, "" | "." | "..")) {
        return Err(wrong(format!("has the component {part:?}"), GRAMMAR.literal_allowed.into()));
    }
    if !template.pieces().contains(&Piece::Id) {
        let message = "holds no {id}: two objects would have one key".to_owned();
        return Err(wrong(message, "a template with {id}, such as {namespace}/{date}/{id}.ndjson".into()));
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_needs_an_id_and_a_prefix_and_whole_components() {
        for (text, wrong) in [
            ("{id}", None),
            ("jobs/{date}/{hour}/{id}.ndjson.gz", None),
            ("{namespace}/dt={date}/pod={origin.pod}/{event.kind}-{id}", None),
            ("jobs/{date}", Some("holds no {id}")),
            ("", Some("empty")),
            ("/{id}", Some("component")),
            ("a//{id}", Some("component")),
            ("a/{id}/", Some("component")),
            ("a/../{id}", Some("component")),
            ("./{id}", Some("component")),
            ("{event.kind}/{id}", Some("before any prefix")),
            ("{origin.pod}/{id}", Some("before any prefix")),
            ("a b/{id}", Some("cannot stand")),
            ("a\n{id}", Some("cannot stand")),
            ("a/{nope}/{id}", Some("not known")),
            ("a?x={id}", Some("cannot stand")),
        ] {
            let problem = parse(text).err();
            assert_eq!(problem.is_some(), wrong.is_some(), "{text}: {problem:?}");
            if let (Some(problem), Some(wrong)) = (problem, wrong) {
                assert!(problem.message.contains(wrong) && problem.path == "key", "{text}: {problem}");
            }
        }
    }
}
