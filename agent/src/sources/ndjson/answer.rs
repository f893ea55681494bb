//! What a client reads: JSON objects, one on each line.

use std::time::Duration;

use serde::Serialize;
use spillway_delivery::intake::SubmitError;

use super::limits::Limit;
use crate::sources::pushed::events::{self, Fault, Refusals};
use crate::sources::pushed::targets::NotSelected;

/// Which lines an answer is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    /// All up to this one that no answer before was about.
    pub(super) line: u64,
    /// The key that the client gave them.
    pub(super) key: Option<String>,
}

/// Why lines were not kept, or a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Stable.
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) pipeline: Option<String>,
    /// When it may be otherwise, as far as that is known.
    pub(super) retry_after: Option<Duration>,
    pub(super) hope: Hope,
}

/// Whether lines that were not kept may be kept later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hope {
    /// A repeat has the same end.
    None,
    /// There is no pipeline for them; one may be on its way.
    Pipeline,
    /// The pipeline takes nothing now.
    Later,
    /// One pipeline has them and another one has not: only a repeat with a key is exact.
    Half,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Item<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
}

/// One refused event.
#[derive(Serialize)]
struct Item<'a> {
    index: usize,
    line: usize,
    column: usize,
    code: &'a str,
    message: &'a str,
}

impl<'a> Item<'a> {
    fn of(refusal: &'a events::Refusal) -> Self {
        let Fault { code, line, column, message } = &refusal.fault;
        Self { index: refusal.index, line: *line, column: *column, code: code.as_str(), message }
    }
}

impl Refusal {
    /// Returns a refusal without hope.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), pipeline: None, retry_after: None, hope: Hope::None }
    }

    /// Returns what a limit means.
    pub(super) fn limit(limit: Limit) -> Self {
        Self::new(limit.as_str(), limit.message())
    }

    /// Says when it may be otherwise.
    pub(super) fn after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

impl From<NotSelected> for Refusal {
    fn from(why: NotSelected) -> Self {
        Self { hope: Hope::Pipeline, ..Self::new(why.code, why.message) }
    }
}

impl From<&SubmitError> for Refusal {
    fn from(error: &SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Refused { pipeline, reason, retry_after } => Self {
                pipeline: Some(pipeline.to_string()),
                retry_after: Some(*retry_after),
                hope: Hope::Later,
                ..Self::new(reason.as_str(), message)
            },
            SubmitError::KeyReused => Self::new("key_reused", message),
            SubmitError::Unknown { pipeline } => Self {
                pipeline: Some(pipeline.to_string()),
                retry_after: Some(Duration::from_secs(1)),
                hope: Hope::Half,
                ..Self::new("unknown", message)
            },
        }
    }
}

/// Returns the answer for lines of which so many events were kept.
pub(super) fn settled(about: &About, accepted: u64, refusals: &Refusals) -> Vec<u8> {
    let refused = refusals.total();
    line(&Answer {
        accepted: Some(accepted),
        refused: (refused > 0).then_some(refused),
        errors: refusals.listed.iter().map(Item::of).collect(),
        ..of(Some(about))
    })
}

/// Returns the answer for lines of which nothing was kept, or, where it is about none, the last of a connection.
pub(super) fn refused(about: Option<&About>, refusal: &Refusal) -> Vec<u8> {
    let seconds = |wait: Duration| (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
    line(&Answer {
        code: Some(refusal.code),
        message: Some(&refusal.message),
        pipeline: refusal.pipeline.as_deref(),
        retry_after_seconds: refusal.retry_after.map(seconds),
        ..of(about)
    })
}

fn of(about: Option<&About>) -> Answer<'_> {
    Answer {
        line: about.map(|about| about.line),
        key: about.and_then(|about| about.key.as_deref()),
        accepted: None,
        refused: None,
        errors: Vec::new(),
        code: None,
        message: None,
        pipeline: None,
        retry_after_seconds: None,
    }
}

fn line(answer: &Answer<'_>) -> Vec<u8> {
    // Plain structs of strings and numbers always have a JSON form.
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    line
}
