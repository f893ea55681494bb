//! Control lines: what a client says of its connection, and where its batches end.
//!
//! A control line is one that begins with `{"spillway":` (white space aside). It is looked for as the first line of a connection,
//! and where the client ends its batches itself, as any line. Pure.

use serde::Deserialize;

use crate::sources::pushed::events::KEY_BYTES_MAX;

/// What a control line says.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Control {
    /// How the connection is meant; the first line alone.
    Hello(Hello),
    /// The batch ends here, and has this key.
    End(String),
}

/// How a connection is meant.
#[derive(Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Hello {
    /// Who may send shows it.
    pub(super) token: Option<String>,
    /// The one pipeline that is meant.
    pub(super) pipeline: Option<String>,
    /// What is read back, and who ends batches.
    pub(super) answers: Answers,
}

/// What is read back, and who ends batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answers {
    /// Nothing is; the agent ends batches.
    #[default]
    None,
    /// An answer for each batch; the agent ends them.
    Lines,
    /// An answer for each batch; the client ends them, each with a key.
    Batches,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    spillway: Members,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Members {
    token: Option<String>,
    pipeline: Option<String>,
    answers: Option<Answers>,
    end: Option<String>,
}

/// Returns whether a line is a control line.
pub(super) fn is_control(line: &[u8]) -> bool {
    after(line, b"{").and_then(|rest| after(rest, b"\"spillway\"")).and_then(|rest| after(rest, b":")).is_some()
}

fn after<'l>(line: &'l [u8], what: &[u8]) -> Option<&'l [u8]> {
    line.trim_ascii_start().strip_prefix(what)
}

/// Reads a control line. An error says what was found and what is allowed.
pub(super) fn read(line: &[u8]) -> Result<Control, String> {
    let Written { spillway } = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let Members { token, pipeline, answers, end } = spillway;
    let Some(key) = end else {
        return Ok(Control::Hello(Hello { token, pipeline, answers: answers.unwrap_or_default() }));
    };
    if token.is_some() || pipeline.is_some() || answers.is_some() {
        return Err("`end` stands alone: `token`, `pipeline` and `answers` are for the first line".to_owned());
    }
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("`end` must be a key of 1 to {KEY_BYTES_MAX} visible ASCII characters"));
    }
    Ok(Control::End(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_line_is_known_by_its_beginning() {
        for line in ["{\"spillway\":{}}", " { \"spillway\" : 1", "{\"spillway\":{\"end\":\"k\"},\"a\":1}\r"] {
            assert!(is_control(line.as_bytes()), "{line}");
        }
        for line in [
            "",
            "{}",
            "{\"a\":1,\"spillway\":{}}",
            "{\"spillways\":{}}",
            "{\"spillway\"}",
            "spillway",
            "[\"spillway\":",
        ] {
            assert!(!is_control(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn what_it_says_is_read_or_told_with_what_is_allowed() {
        let said = |line: &str| read(line.as_bytes());
        let hello = Hello { token: None, pipeline: Some("a/b".into()), answers: Answers::Batches };
        assert_eq!(said(r#"{"spillway":{"pipeline":"a/b","answers":"batches"}}"#), Ok(Control::Hello(hello)));
        assert_eq!(said(r#"{"spillway":{}}"#), Ok(Control::Hello(Hello::default())));
        assert_eq!(said(r#"{"spillway":{"end":"k-1"}}"#), Ok(Control::End("k-1".into())));
        for (line, part) in [
            (
                r#"{"spillway":{"answer":"lines"}}"#,
                "unknown field `answer`, expected one of `token`, `pipeline`, `answers`",
            ),
            (r#"{"spillway":{"answers":"all"}}"#, "unknown variant `all`, expected one of `none`, `lines`, `batches`"),
            (r#"{"spillway":{"end":"a b"}}"#, "1 to 256 visible ASCII"),
            (r#"{"spillway":{"end":""}}"#, "1 to 256 visible ASCII"),
            (r#"{"spillway":{"end":"k","pipeline":"a"}}"#, "stands alone"),
            (r#"{"spillway":{},"kind":"x"}"#, "unknown field `kind`"),
            (r#"{"spillway":1}"#, "invalid type"),
            (r#"{"spillway":{"#, "EOF"),
        ] {
            let error = said(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
