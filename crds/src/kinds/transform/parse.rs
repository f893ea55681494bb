//! Settings of transforms that parse.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::manifest::rules;

/// What becomes of an event that cannot be parsed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnErrorSpec {
    /// It goes on as it is, counted.
    #[default]
    Keep,
    /// It is dropped, counted.
    Drop,
}

/// Settings of a transform of type `ParseJSON`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParseJsonSpec {
    /// The field whose text is JSON, as a condition writes it behind `event.`. It goes where it could be read. Example:
    /// `message`.
    #[schemars(length(min = 1, max = 256))]
    pub field: String,

    /// The field that the value becomes, whatever it is; without it the text is an object, and its members become those of the
    /// event, over what is there. Example: `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub into: Option<String>,

    /// What becomes of an event where that cannot be: `Keep` (it goes on as it is) or `Drop` (it is dropped). It is counted in
    /// either case. Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

/// Settings of a transform of type `ParseRegex`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParseRegexSpec {
    /// The field whose text is looked at, up to 64 KiB, as a condition writes it behind `event.`. It stays. Example: `message`.
    #[schemars(length(min = 1, max = 256))]
    pub field: String,

    /// What is looked for, in the syntax of RE2, at most 1024 characters. What a named group finds becomes the field of that
    /// name, which may have dots. Example: `^(?<level>\w+) (?<http.status>\d+)`.
    #[schemars(length(min = 1, max = 1024))]
    pub pattern: String,

    /// What becomes of an event where it is not found: `Keep` (it goes on as it is) or `Drop` (it is dropped). It is counted in
    /// either case. Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

/// Settings of a transform of type `ParseTimestamp`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::layout_with_format(), validation = rules::zone_needed())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParseTimestampSpec {
    /// The field that is a time, a text or a number, as a condition writes it behind `event.`. Example: `ts`.
    #[schemars(length(min = 1, max = 256))]
    pub field: String,

    /// The field that it becomes, in RFC 3339 with nanoseconds and in UTC. Default: `field` itself. Example: `time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub into: Option<String>,

    /// How it is written: `RFC3339` (also with a space for the `T`, a comma before the fraction, or without a zone), `RFC2822`
    /// (mails, HTTP), `CommonLog` (web servers), `Syslog` (RFC 3164; its year is the one nearest to the time of receipt),
    /// `UnixSeconds`, `UnixMilliseconds`, `UnixMicroseconds`, `UnixNanoseconds`, or `Layout` (as `layout` says).
    pub format: TimeFormatSpec,

    /// How a time of format `Layout` is written, with the letters of strptime(3). It must be there with this format, and is
    /// left out with any other. Example: `%d.%m.%Y %H:%M:%S`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub layout: Option<String>,

    /// The zone of times that tell none: `UTC`, or an offset from it. It must be there with format `Syslog`, and with a `layout`
    /// without `%z`. Example: `"+01:00"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = r"^(UTC|[+-](0[0-9]|1[0-4]):[0-5][0-9])$"))]
    pub zone: Option<String>,

    /// What becomes of an event whose time cannot be read: `Keep` (it goes on as it is) or `Drop` (it is dropped). It is counted
    /// in either case. Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

/// The forms of a time.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFormatSpec {
    /// `2026-11-29T10:04:12.123+01:00`.
    #[serde(rename = "RFC3339")]
    Rfc3339,
    /// `Sun, 29 Nov 2026 10:04:12 +0100`.
    #[serde(rename = "RFC2822")]
    Rfc2822,
    /// `29/Nov/2026:10:04:12 +0100`.
    CommonLog,
    /// `Nov 29 10:04:12`.
    Syslog,
    /// Seconds since 1970.
    UnixSeconds,
    /// Milliseconds since 1970.
    UnixMilliseconds,
    /// Microseconds since 1970.
    UnixMicroseconds,
    /// Nanoseconds since 1970.
    UnixNanoseconds,
    /// As `layout` says.
    Layout,
}

/// Settings of a transform of type `ParseSeverity`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParseSeveritySpec {
    /// The field that is a severity, a word in any case or a number, as a condition writes it behind `event.`. Example: `level`.
    #[schemars(length(min = 1, max = 256))]
    pub field: String,

    /// The field that it becomes: one of `trace`, `debug`, `info`, `warn`, `error` and `fatal`. Default: `field` itself. Example:
    /// `severity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub into: Option<String>,

    /// What numbers mean: those of `Syslog` (0 to 7), `Pino` (10 to 60), `Python` (10 to 50) or `OpenTelemetry` (1 to 24); without
    /// it a number cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<SeverityNumbersSpec>,

    /// What becomes of an event whose severity cannot be read: `Keep` (it goes on as it is) or `Drop` (it is dropped). It is
    /// counted in either case. Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

/// What numbers mean; without it nothing.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeverityNumbersSpec {
    /// 0 (emergency) to 7 (debug).
    Syslog,
    /// 10 (trace) to 60 (fatal).
    Pino,
    /// 10 (debug) to 50 (critical).
    Python,
    /// 1 (trace) to 24 (fatal).
    OpenTelemetry,
}
