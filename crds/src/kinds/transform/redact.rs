//! Settings of the transform that takes secrets out.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OnErrorSpec;
use crate::manifest::rules;

/// Settings of a transform of type `Redact`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::builtin_or_patterns())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedactSpec {
    /// What is looked for that is known: `AWSAccessKey` (the id of an access key), `BearerToken` (what follows the word `Bearer`),
    /// `CreditCard` (a number whose check digit is right), `Email`, `IPv4`, `JWT`, `PrivateKey` (in PEM) and `URLPassword` (between
    /// the user and the host). Default: none; `builtin` or `patterns` must be there. Example: `[JWT, CreditCard]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub builtin: Vec<BuiltinSpec>,

    /// Patterns that are looked for besides, in the syntax of RE2, at most 16 of at most 1024 characters. What a group named
    /// `secret` finds is meant where it finds something, else all that the pattern finds. Default: none. Example: `['tok_[a-z0-9]+']`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)), extend("x-kubernetes-list-type" = "set"))]
    pub patterns: Vec<String>,

    /// The fields whose texts are looked at, at any depth in them, at most 32, as a condition writes them behind `event.`; without
    /// it all texts of the event. Example: `[message, http.url]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "set"))]
    pub fields: Vec<String>,

    /// What stands in the place of what is found. Default: `[redacted]`.
    #[serde(default = "default_replacement")]
    #[schemars(length(max = 256))]
    pub replacement: String,

    /// What becomes of an event with a text that is too long for `patterns`, above 64 KiB, or without room for `replacement`:
    /// `Keep` (it goes on; such a text is not looked at for patterns) or `Drop` (it is dropped). It is counted in either case.
    /// Default: `Keep`.
    #[serde(default)]
    pub on_error: OnErrorSpec,
}

fn default_replacement() -> String {
    "[redacted]".to_owned()
}

/// What is known to be secret, or personal.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinSpec {
    /// `AKIA` or `ASIA` and 16 characters.
    #[serde(rename = "AWSAccessKey")]
    AwsAccessKey,
    /// 16 characters or more behind `Bearer`.
    BearerToken,
    /// 13 to 19 digits, also in groups.
    CreditCard,
    /// `ann@example.test`.
    Email,
    /// `10.0.0.1`.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// `eyJ….….…`.
    #[serde(rename = "JWT")]
    Jwt,
    /// `-----BEGIN PRIVATE KEY-----` up to its end.
    PrivateKey,
    /// The password in `postgres://ann:password@host`.
    #[serde(rename = "URLPassword")]
    UrlPassword,
}
