//! Transforms of a pipeline: what is done to its events before they are in its log.
//!
//! The rules that tie `type` to its member are added in `crd.rs`, from the list in `manifest/rules.rs`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LABEL_PATTERN;
use crate::manifest::rules;

mod gate;
mod multiline;
mod parse;
mod redact;

pub use gate::{DeduplicateSpec, RateLimitSpec, SampleSpec};
pub use multiline::{MultilineSpec, PresetSpec};
pub use parse::{
    OnErrorSpec, ParseJsonSpec, ParseRegexSpec, ParseSeveritySpec, ParseTimestampSpec, SeverityNumbersSpec,
    TimeFormatSpec,
};
pub use redact::{BuiltinSpec, RedactSpec};

/// One transform: `type` and the member of that name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TransformSpec {
    /// Name of the transform, unique in the pipeline: lower-case letters, digits and `-`, at most 63. Example: `site`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,

    /// What it does: `ParseJSON` (makes fields of a text that is JSON), `ParseRegex` (makes fields of what a pattern finds in a
    /// text), `ParseTimestamp` and `ParseSeverity` (write a time and a severity in one form), `Set` (gives fields a value),
    /// `Remove` (takes fields out), `Rename` (moves fields), `Keep` (takes all other fields out), `Drop` (drops events,
    /// counted), `Redact` (takes secrets out of texts), `Sample` (keeps some of many events), `RateLimit` (keeps so many events a
    /// second), `Deduplicate` (drops events that came before) or `Multiline` (joins lines of files that belong together; the first
    /// of the list). The member of the same name, with a small letter first, holds its settings.
    pub r#type: TransformType,

    /// Settings of a transform of type `ParseJSON`. It must be there with this type.
    #[serde(default, rename = "parseJSON", skip_serializing_if = "Option::is_none")]
    pub parse_json: Option<ParseJsonSpec>,

    /// Settings of a transform of type `ParseRegex`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parse_regex: Option<ParseRegexSpec>,

    /// Settings of a transform of type `ParseTimestamp`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parse_timestamp: Option<ParseTimestampSpec>,

    /// Settings of a transform of type `ParseSeverity`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parse_severity: Option<ParseSeveritySpec>,

    /// Settings of a transform of type `Set`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetSpec>,

    /// Settings of a transform of type `Remove`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<RemoveSpec>,

    /// Settings of a transform of type `Rename`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rename: Option<RenameSpec>,

    /// Settings of a transform of type `Keep`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<KeepSpec>,

    /// Settings of a transform of type `Drop`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<DropSpec>,

    /// Settings of a transform of type `Redact`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redact: Option<RedactSpec>,

    /// Settings of a transform of type `Sample`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleSpec>,

    /// Settings of a transform of type `RateLimit`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,

    /// Settings of a transform of type `Deduplicate`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deduplicate: Option<DeduplicateSpec>,

    /// Settings of a transform of type `Multiline`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multiline: Option<MultilineSpec>,
}

/// The kinds of transform.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformType {
    /// Makes fields of a text that is JSON.
    #[serde(rename = "ParseJSON")]
    ParseJson,
    /// Makes fields of what a pattern finds in a text.
    ParseRegex,
    /// Writes a time in one form.
    ParseTimestamp,
    /// Writes a severity in one form.
    ParseSeverity,
    /// Gives fields a value.
    Set,
    /// Takes fields out.
    Remove,
    /// Moves fields.
    Rename,
    /// Takes all other fields out.
    Keep,
    /// Drops events.
    Drop,
    /// Takes secrets out of texts.
    Redact,
    /// Keeps some of many events.
    Sample,
    /// Keeps so many events a second.
    RateLimit,
    /// Drops events that came before.
    Deduplicate,
    /// Joins lines of files.
    Multiline,
}

/// Settings of a transform of type `Set`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetSpec {
    /// The fields that get a value, 1 to 32. All values are made from the event as it comes to this transform. A field whose
    /// value cannot be made stays as it is, counted. Example: `[{name: fab, value: "12"}]`.
    #[schemars(length(min = 1, max = 32))]
    pub fields: Vec<SetFieldSpec>,
}

/// One field and its value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::value_or_expression())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetFieldSpec {
    /// The field, as a condition writes it behind `event.`; objects on the way to it are made. Example: `http.status`.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,

    /// Its value: this text; left out where `valueExpression` is there. Example: `"12"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,

    /// Its value: what this expression over `event.<path>` and `origin.<field>` says, at most 1024 characters; left out where
    /// `value` is there. A field is copied as it is. Example: `event.ms > 500`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub value_expression: Option<String>,
}

/// Settings of a transform of type `Remove`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoveSpec {
    /// The fields that are taken out, 1 to 32, as a condition writes them behind `event.`. Example: `[password, http.cookie]`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub fields: Vec<String>,
}

/// Settings of a transform of type `Rename`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenameSpec {
    /// The fields that move, 1 to 32. One that is not there is left alone. Example: `[{from: msg, to: message}]`.
    #[schemars(length(min = 1, max = 32))]
    pub fields: Vec<RenameFieldSpec>,
}

/// One field and its new name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenameFieldSpec {
    /// The field that is there, as a condition writes it behind `event.`. Example: `msg`.
    #[schemars(length(min = 1, max = 256))]
    pub from: String,

    /// What it is called afterwards; what is there already goes, and objects on the way to it are made. Example: `message`.
    #[schemars(length(min = 1, max = 256))]
    pub to: String,
}

/// Settings of a transform of type `Keep`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepSpec {
    /// The fields that stay, 1 to 32, as a condition writes them behind `event.`; all others go. Example: `[time, http.status]`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub fields: Vec<String>,
}

/// Settings of a transform of type `Drop`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DropSpec {
    /// Condition over `event.<path>` and `origin.<field>`, at most 1024 characters; an event for which it holds is dropped and
    /// counted, one for which it cannot be evaluated is not dropped. Example: `event.level == "debug"`.
    #[schemars(length(min = 1, max = 1024))]
    pub when: String,
}
