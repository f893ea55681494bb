//! `Backend` and `ClusterBackend`: one destination, and how batches are formed and sent to it.
//!
//! The types and their members follow from the list of `backends/src/lib.rs`; the rules that go with them are added in
//! `crd.rs`.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spillway_backends::BackendSettings;

use super::LABEL_PATTERN;
use super::selector::LabelSelector;
use super::status::BackendStatus;
use crate::manifest::rules;

/// One kind of destination: what is its own, then what every destination has, the members out of the list of backends.
macro_rules! destination_kind {
    (
        $(#[$about:meta])*
        $spec:ident { $($own:tt)* }
        $(#[doc = $what:literal] $module:ident: $variant:ident($settings:ident) as $type:literal in $member:literal, $need:ident;)*
    ) => {
        #[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[kube(
            group = "spillway.dev",
            version = "v1alpha1",
            category = "spillway",
            status = "BackendStatus",
            derive = "PartialEq",
            selectable = ".spec.type",
            validation = rules::name_rule(),
            printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether data can flow."}"#,
            printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Why it is ready or not."}"#,
            printcolumn = r#"{"name":"Type","type":"string","jsonPath":".spec.type","description":"Which kind of destination it is."}"#,
            printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message","description":"What the reason means here."}"#,
            printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation."}"#
        )]
        $(#[$about])*
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $spec {
            $($own)*

            #[doc = concat!(
                "Which kind of destination it is. It never changes: what is held for a destination cannot go to another.",
                " The member of the same name in camelCase holds its settings.",
                $(" `", $type, "`:", $what, ".",)*
            )]
            #[x_kube(validation = rules::immutable("type", "create a new object"))]
            pub r#type: BackendType,

            $(
                #[doc = concat!("Settings of type `", $type, "`:", $what, ".", member!($need about))]
                #[serde(default, rename = $member, skip_serializing_if = "Option::is_none")]
                pub $module: Option<spillway_backends::$settings>,
            )*

            /// What a delivered event carries besides itself: `Full` (one member `_spillway` with `id`, `origin`, `pipeline`
            /// and `received`) or `None` (the event alone, byte for byte). Default: `Full`.
            #[serde(default)]
            pub metadata: MetadataSpec,

            /// How batches are formed, sent and tried again.
            #[serde(default)]
            pub delivery: DeliverySpec,
        }
    };
}

/// The types of destination, and what follows from a type.
macro_rules! destination_types {
    ($(#[doc = $what:literal] $module:ident: $variant:ident($settings:ident) as $type:literal in $member:literal, $need:ident;)*) => {
        /// The kinds of destination.
        #[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
        pub enum BackendType {
            $(
                #[doc = $what]
                #[serde(rename = $type)]
                $variant,
            )*
        }

        impl BackendSpec {
            /// Returns the settings of its type; `None` when the member that the type needs is not there.
            pub fn settings(&self) -> Option<BackendSettings> {
                Some(match self.r#type {
                    $(BackendType::$variant => BackendSettings::$variant(member!($need self.$module)),)*
                })
            }
        }

        impl ClusterBackendSpec {
            /// Returns what it has in common with a `Backend`.
            pub fn into_destination(self) -> BackendSpec {
                BackendSpec {
                    r#type: self.r#type,
                    $($module: self.$module,)*
                    metadata: self.metadata,
                    delivery: self.delivery,
                }
            }
        }
    };
}

/// What a member that is needed, or that is not, says and gives.
macro_rules! member {
    (needed about) => {
        " It must be there with this type."
    };
    (optional about) => {
        " It may be left out where all of it is default."
    };
    (needed $self:ident.$module:ident) => {
        $self.$module.clone()?
    };
    (optional $self:ident.$module:ident) => {
        $self.$module.clone().unwrap_or_default()
    };
}

/// Everything here that follows from the list of backends.
macro_rules! destinations {
    ($($row:tt)*) => {
        destination_types! { $($row)* }

        destination_kind! {
            /// One destination: `type` and, unless all of it is default, the member of that name.
            #[kube(
                kind = "Backend",
                plural = "backends",
                shortname = "mbe",
                namespaced,
                doc = "A destination that the pipelines of its namespace may name in their routes."
            )]
            BackendSpec {}
            $($row)*
        }

        destination_kind! {
            /// One destination of a cluster: who may use it, and what a `Backend` has.
            #[kube(
                kind = "ClusterBackend",
                plural = "clusterbackends",
                shortname = "cmbe",
                doc = "A destination that every `ClusterMonitoringPipeline` may name in its routes, and the pipelines of the \
                       namespaces that it grants."
            )]
            ClusterBackendSpec {
                /// Namespaces whose pipelines may name this destination. Default: `{}`, none. A `ClusterMonitoringPipeline`
                /// needs no grant. Example: `{selector: {matchLabels: {tier: prod}}}`.
                #[serde(default)]
                pub allowed_namespaces: AllowedNamespaces,

                /// The namespace whose Secrets the `…SecretRef`s of this object name. Needed where there is one. Default: none.
                /// Example: `spillway-system`.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
                pub secret_namespace: Option<String>,
            }
            $($row)*
        }
    };
}

spillway_backends::backend_list!(destinations);

/// Which namespaces may use an object of the cluster.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedNamespaces {
    /// Which namespaces, by their labels. Default: absent, none. `{}` is every namespace. Every namespace has the label
    /// `kubernetes.io/metadata.name` with its name. Example: `{matchLabels: {tier: prod}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What a delivered event carries besides itself.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetadataSpec {
    /// One member `_spillway`.
    #[default]
    Full,
    /// Nothing.
    None,
}

/// How batches are formed and sent.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliverySpec {
    /// How large a batch may get and how long it may wait for that.
    #[serde(default)]
    pub batch: BatchSpec,

    /// Most batches under way at once, 1 to 64; the number grows to it from 1 as the destination bears it, and 1 keeps the
    /// order of events. Default: 4.
    #[serde(default = "in_flight")]
    #[schemars(range(min = 1, max = 64))]
    pub max_in_flight: u32,

    /// How long one attempt may take, in seconds, 1 to 600. Default: 30.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 600))]
    pub timeout_seconds: u32,

    /// When a batch that could not be delivered is tried again.
    #[serde(default)]
    pub retry: RetrySpec,

    /// When a destination that fails is left alone for a while.
    #[serde(default)]
    pub circuit_breaker: CircuitBreakerSpec,

    /// How much the destination is given in a second, by each agent and route. Default: absent, without limit.
    /// Example: `{bytesPerSecond: 52428800}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
}

impl Default for DeliverySpec {
    fn default() -> Self {
        Self {
            batch: BatchSpec::default(),
            max_in_flight: in_flight(),
            timeout_seconds: timeout_seconds(),
            retry: RetrySpec::default(),
            circuit_breaker: CircuitBreakerSpec::default(),
            rate_limit: None,
        }
    }
}

/// How large a batch may get.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchSpec {
    /// Most bytes of events in one batch, 1024 to 67108864 (64 MiB); one larger event is a batch of its own.
    /// Default: 4194304 (4 MiB).
    #[serde(default = "batch_bytes")]
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub max_bytes: u32,

    /// Most events of one batch, 1 to 100000. Default: 10000.
    #[serde(default = "batch_events")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_events: u32,

    /// How long a batch waits to fill up, in milliseconds, 0 to 60000. `Filesystem` and `Stdout` never wait. Default: 200.
    #[serde(default = "batch_wait_milliseconds")]
    #[schemars(range(min = 0, max = 60_000))]
    pub max_wait_milliseconds: u32,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self { max_bytes: batch_bytes(), max_events: batch_events(), max_wait_milliseconds: batch_wait_milliseconds() }
    }
}

/// When a batch is tried again. The wait doubles from `initialMilliseconds` to `maxSeconds`, with full jitter.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::initial_at_most_max())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// First wait, in milliseconds, 10 to 60000. Default: 200.
    #[serde(default = "retry_initial_milliseconds")]
    #[schemars(range(min = 10, max = 60_000))]
    pub initial_milliseconds: u32,

    /// Longest wait, in seconds, 1 to 3600. Default: 60.
    #[serde(default = "retry_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_seconds: u32,

    /// Attempts before the events of a batch are given up, 1 to 1000000. Default: absent, without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_attempts: Option<u32>,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self { initial_milliseconds: retry_initial_milliseconds(), max_seconds: retry_seconds(), max_attempts: None }
    }
}

/// How much a destination is given in a second, repeats counted. A batch may be larger than that; the next one waits.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSpec {
    /// Most bytes of events, 1024 to 1099511627776 (1 TiB). Default: absent, without limit. Example: 52428800.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_099_511_627_776_u64))]
    pub bytes_per_second: Option<u64>,

    /// Most events, 1 to 1000000000. Default: absent, without limit. Example: 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub events_per_second: Option<u64>,
}

/// When a destination that fails is left alone: the breaker opens, nothing is sent for a while, then one batch decides.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreakerSpec {
    /// Failed attempts in a row that open it, 1 to 1000. Default: 5.
    #[serde(default = "breaker_failures")]
    #[schemars(range(min = 1, max = 1000))]
    pub consecutive_failures: u32,

    /// Part of the last 32 attempts that opens it when they failed, in percent, 1 to 100; of fewer than 10 attempts it
    /// says nothing. Default: 50.
    #[serde(default = "breaker_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_ratio_percent: u32,

    /// How long it stays open before one batch may try, in seconds, 1 to 3600; up to a fifth less at random, and longer
    /// where the destination asks for it with `Retry-After`. Default: 30.
    #[serde(default = "breaker_open_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub open_seconds: u32,
}

impl Default for CircuitBreakerSpec {
    fn default() -> Self {
        Self {
            consecutive_failures: breaker_failures(),
            failure_ratio_percent: breaker_percent(),
            open_seconds: breaker_open_seconds(),
        }
    }
}

fn in_flight() -> u32 {
    4
}

fn timeout_seconds() -> u32 {
    30
}

fn batch_bytes() -> u32 {
    4 << 20
}

fn batch_events() -> u32 {
    10_000
}

fn batch_wait_milliseconds() -> u32 {
    200
}

fn retry_initial_milliseconds() -> u32 {
    200
}

fn retry_seconds() -> u32 {
    60
}

fn breaker_failures() -> u32 {
    5
}

fn breaker_percent() -> u32 {
    50
}

fn breaker_open_seconds() -> u32 {
    30
}
