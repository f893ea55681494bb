//! `MonitoringPipeline` and `ClusterMonitoringPipeline`: what is taken in, how safely it is held, and where it goes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::LabelSelector;
use super::status::PipelineStatus;
use super::transform::TransformSpec;
use super::{LABEL_PATTERN, NAME_PATTERN};
use crate::manifest::rules;

/// One kind of pipeline: what is its own, then what every pipeline has.
macro_rules! pipeline_kind {
    ($(#[$about:meta])* $spec:ident { $($own:tt)* }) => {
        #[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
        #[kube(
            group = "spillway.dev",
            version = "v1alpha1",
            category = "spillway",
            status = "PipelineStatus",
            derive = "PartialEq",
            validation = rules::name_rule(),
            printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status","description":"Whether data can flow."}"#,
            printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","description":"Why it is ready or not."}"#,
            printcolumn = r#"{"name":"Durability","type":"string","jsonPath":".spec.durability","description":"What an acknowledged event survives."}"#,
            printcolumn = r#"{"name":"Agents","type":"integer","priority":1,"jsonPath":".status.agents.programmed","description":"On how many agents it runs as it is now."}"#,
            printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Ready\")].message","description":"What the reason means here."}"#,
            printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp","description":"Time since creation."}"#
        )]
        $(#[$about])*
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $spec {
            $($own)*

            /// Stops intake and delivery, keeps what is held, and answers senders with `503`. Default: `false`.
            #[serde(default)]
            pub suspend: bool,

            /// What is added to the `origin` of every event of this pipeline. It never overrides what the agent knows.
            /// Example: `{siteID: fab12, instanceID: etch-07}`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub origin: Option<OriginSpec>,

            /// Where the data comes from, 1 to 16 inputs. Example: `[{name: pushed, type: Events}]`.
            #[schemars(length(min = 1, max = 16))]
            pub inputs: Vec<InputSpec>,

            /// What is done to its events before they are stored and their routes decided, in this order, at most 32.
            /// Default: `[]`, nothing. Example: `[{name: quiet, type: Drop, drop: {when: 'event.level == "debug"'}}]`.
            #[serde(default)]
            #[schemars(length(max = 32))]
            pub transforms: Vec<TransformSpec>,

            /// What an acknowledged event survives: `Disk` (power loss: it is synced before the sender is answered), `Process`
            /// (the end of the process: it is in the page cache) or `Memory` (an end of the process that is not SIGKILL or a
            /// crash; files are written only when a backend falls behind). Default: `Disk`.
            #[serde(default)]
            pub durability: DurabilitySpec,

            /// How much the pipeline's log may hold, and for how long it keeps what is delivered.
            #[serde(default)]
            pub buffer: BufferSpec,

            /// How much the pipeline's dead letters may hold: events that a backend refused for good.
            #[serde(default)]
            pub dead_letters: DeadLettersSpec,

            /// How long a removed pipeline, route or backend reference may still deliver what it holds, in seconds of running
            /// time; what is left then becomes dead letters, as far as they have room. Default: 300.
            #[serde(default = "drain_seconds")]
            #[schemars(range(min = 0, max = 86_400))]
            pub drain_seconds: u64,

            /// Where events go, 1 to 64 routes. An event goes down every route whose `match` holds.
            /// Example: `[{name: everything, backendRefs: [{name: archive}]}]`.
            #[schemars(length(min = 1, max = 64))]
            pub routes: Vec<RouteSpec>,
        }
    };
}

pipeline_kind! {
    /// What is taken in, how safely it is held until it is delivered, and which backends it goes to.
    #[kube(
        kind = "MonitoringPipeline",
        plural = "monitoringpipelines",
        shortname = "mpl",
        namespaced,
        doc = "Takes monitoring data in, holds it durably, and delivers it to every backend its routes name. Data of one \
               namespace only."
    )]
    MonitoringPipelineSpec {
        /// What is done about pods that asked for a sidecar with this pipeline and have none, or an outdated one: `Tell` (in the
        /// status, in an Event of what made the pod, and in metrics) or `Recreate` (told, and evicted one after the other, as far
        /// as disruption budgets allow it and the administrator enabled it, so that what made them makes them anew; never pods
        /// of Jobs or of nobody). Default: `Tell`.
        #[serde(default)]
        pub remediation: RemediationSpec,
    }
}

pipeline_kind! {
    /// Which namespaces, what is taken in, how safely it is held until it is delivered, and which backends it goes to.
    #[kube(
        kind = "ClusterMonitoringPipeline",
        plural = "clustermonitoringpipelines",
        shortname = "cmpl",
        doc = "Takes monitoring data of many namespaces in, holds it durably, and delivers it to every `ClusterBackend` its \
               routes name."
    )]
    ClusterMonitoringPipelineSpec {
        /// The namespaces whose data is taken, by their labels. `{}` is every namespace. Every namespace has the label
        /// `kubernetes.io/metadata.name` with its name. Example: `{matchLabels: {tier: prod}}`.
        pub namespace_selector: LabelSelector,
    }
}

impl ClusterMonitoringPipelineSpec {
    /// Returns whose data it takes, and what it has in common with a `MonitoringPipeline`.
    pub fn into_parts(self) -> (LabelSelector, MonitoringPipelineSpec) {
        let Self {
            namespace_selector,
            suspend,
            origin,
            inputs,
            transforms,
            durability,
            buffer,
            dead_letters,
            drain_seconds,
            routes,
        } = self;
        let common = MonitoringPipelineSpec {
            remediation: RemediationSpec::Tell,
            suspend,
            origin,
            inputs,
            transforms,
            durability,
            buffer,
            dead_letters,
            drain_seconds,
            routes,
        };
        (namespace_selector, common)
    }
}

fn drain_seconds() -> u64 {
    300
}

/// What a pipeline adds to the origin of its events.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginSpec {
    /// Name of the site, readable as `origin.siteID`. Default: none. Example: `fab12`.
    #[serde(default, rename = "siteID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub site_id: Option<String>,

    /// Name of the machine or installation, readable as `origin.instanceID`. Default: none. Example: `etch-07`.
    #[serde(default, rename = "instanceID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub instance_id: Option<String>,

    /// Name of the application, readable as `origin.app`. Default: none. Example: `etcher`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub app: Option<String>,

    /// Version of the application, readable as `origin.appVersion`. Quote it, so that it is text. Default: none. Example: `"2.4"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub app_version: Option<String>,
}

/// One input: `type` and, unless all of it is default, the member of that name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::member_only_with("ContainerLogs", "containerLogs"))]
#[x_kube(validation = rules::member_only_with("Events", "events"))]
#[x_kube(validation = rules::member_only_with("Files", "files"))]
#[x_kube(validation = rules::member_needed_with("Files", "files"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputSpec {
    /// Name of the input, unique in the pipeline: lower-case letters, digits and `-`, at most 63. Example: `logs`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,

    /// Which kind of input it is: `ContainerLogs` (the log files of pods on the agent's node), `Events` (pushed to
    /// the agent, over HTTP, as OTLP, as lines over TCP and a Unix socket, or as syslog) or `Files` (files of lines on the
    /// machine, of an agent without an operator). The member of the same name in camelCase holds its settings.
    pub r#type: InputType,

    /// Settings of an input of type `ContainerLogs`. Default: every container of every pod of the pipeline's namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_logs: Option<ContainerLogsSpec>,

    /// Settings of an input of type `Events`. Default: every pod of the pipeline's namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsSpec>,

    /// Settings of an input of type `Files`. It must be there with this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesSpec>,
}

/// The kinds of input.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputType {
    /// The log files of pods on the agent's node.
    ContainerLogs,
    /// Pushed to the agent, over HTTP, as lines over TCP and a Unix socket, or as syslog.
    Events,
    /// Files of lines on the machine.
    Files,
}

/// Settings of an input of type `ContainerLogs`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerLogsSpec {
    /// Which pods of the pipeline's namespaces, by their labels. Default: `{}`, every pod.
    /// Example: `{matchLabels: {app: etcher}}`.
    #[serde(default)]
    pub pod_selector: LabelSelector,

    /// Which containers of those pods, by name, at most 64. Default: `[]`, every container. Example: `[main]`.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub containers: Vec<String>,

    /// Where reading starts in a file seen for the first time: `Beginning` or `End`. Afterwards the agent goes on where
    /// it was. Default: `Beginning`.
    #[serde(default)]
    pub start_at: StartAt,
}

/// Settings of an input of type `Files`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilesSpec {
    /// Which files, by patterns of their absolute paths, 1 to 64: `*` stands for any characters of a name, `?` for one,
    /// `**` as a whole name for any number of directories. Only regular files; links below the part without `*` and `?` are
    /// not followed. Example: `["/var/log/tool/*.log"]`.
    #[schemars(length(min = 1, max = 64), inner(length(min = 2, max = 1024), regex(pattern = PATH_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub include: Vec<String>,

    /// Where reading starts in files that are there when their pattern is seen for the first time: `Beginning` or `End`. Files
    /// that appear later are read from their beginning, and the agent goes on where it was. Default: `Beginning`.
    #[serde(default)]
    pub start_at: StartAt,
}

/// Absolute, without empty names.
const PATH_PATTERN: &str = "^(/[^/]+)+$";

/// Where reading starts in a file seen for the first time.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartAt {
    /// Everything that is in the file.
    #[default]
    Beginning,
    /// Only what is appended from now on.
    End,
}

/// Settings of an input of type `Events`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EventsSpec {
    /// Which pods of the pipeline's namespaces may send, by their labels. In a cluster the sender is the pod whose token is
    /// shown. Default: `{}`, every pod. Example: `{matchLabels: {app: etcher}}`.
    #[serde(default)]
    pub pod_selector: LabelSelector,

    /// Who may send at the door of an agent in a cluster: `PodToken` (pods that show a token) or `None` (whoever reaches the
    /// door without a token, too; it must name the pipeline, and `origin.source` is `unverified`). Default: `PodToken`.
    #[serde(default)]
    pub authentication: EventsAuthentication,
}

/// Who may send events at the door of an agent.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventsAuthentication {
    /// Pods that show a token of their service account.
    #[default]
    PodToken,
    /// Whoever shows none, too.
    None,
}

/// What an acknowledged event survives.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DurabilitySpec {
    /// Power loss.
    #[default]
    Disk,
    /// The end of the process, also by SIGKILL.
    Process,
    /// The end of the process where that was told to end. SIGKILL and a crash take what only memory holds: at most
    /// 24 MiB, a quarter of `buffer.maxBytes` where that is less. With `retainSeconds` what leaves memory is written.
    Memory,
}

/// What is done about pods that asked for a sidecar and do not have what they asked for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemediationSpec {
    /// They are told.
    #[default]
    Tell,
    /// They are told, and evicted so that they are made anew.
    Recreate,
}

/// How much a pipeline's log may hold.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BufferSpec {
    /// Most bytes the log may take on disk, 16 MiB to 16 TiB. Retained data counts in it and goes first; when all of it
    /// is held for a backend, senders are asked to wait. Default: 1073741824 (1 GiB).
    #[serde(default = "buffer_bytes")]
    #[schemars(range(min = 16_777_216, max = 17_592_186_044_416_u64))]
    pub max_bytes: u64,

    /// How long delivered data is kept for replay, in seconds of running time. Default: 0, not at all. Example: 86400.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub retain_seconds: u64,
}

impl Default for BufferSpec {
    fn default() -> Self {
        Self { max_bytes: buffer_bytes(), retain_seconds: 0 }
    }
}

fn buffer_bytes() -> u64 {
    1 << 30
}

/// How much a pipeline's dead letters may hold.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLettersSpec {
    /// Most bytes the dead letters may take on disk, 4 MiB to 1 TiB; what is refused for good beyond that is dropped,
    /// counted. Default: 67108864 (64 MiB).
    #[serde(default = "dead_letters_bytes")]
    #[schemars(range(min = 4_194_304, max = 1_099_511_627_776_u64))]
    pub max_bytes: u64,
}

impl Default for DeadLettersSpec {
    fn default() -> Self {
        Self { max_bytes: dead_letters_bytes() }
    }
}

fn dead_letters_bytes() -> u64 {
    64 << 20
}

/// One route: which events, and to which backends.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = rules::only_first_healthy("failback"))]
#[x_kube(validation = rules::only_first_healthy("whenBehind"))]
#[x_kube(validation = rules::priority_refused(), validation = rules::when_behind_refused())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Name of the route, unique in the pipeline: lower-case letters, digits and `-`, at most 63. Example: `errors`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub name: String,

    /// Condition over `event.<path>` and `origin.<field>`, at most 1024 characters; an event for which it cannot be
    /// evaluated does not match. Default: every event. Example: `event.level in ["error", "fatal"]`.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub condition: Option<String>,

    /// How the backends share the work: `All` (each of them gets every event of the route) or `FirstHealthy` (the one of
    /// the lowest `priority` that is healthy gets what none has; when its circuit breaker opens, the next one goes on with
    /// everything that is held). Default: `All`.
    #[serde(default)]
    pub strategy: Strategy,

    /// With `FirstHealthy`, what becomes of events that another backend got once the first one is healthy again: `Leave`
    /// (they stay where they are) or `Backfill` (the first one gets them too; the log keeps them until then, but lets them
    /// go, counted, when it is full). Default: `Leave`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FailbackSpec")]
    pub failback: Option<FailbackSpec>,

    /// With `FirstHealthy`, what happens when no backend has taken so much that the log is full, or its volume: `Block`
    /// (intake stops until one has caught up; nothing is lost) or `DropOldest` (the oldest events are given up, counted, and
    /// intake goes on). With `All` each reference says so itself. Default: `Block`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WhenBehind")]
    pub when_behind: Option<WhenBehind>,

    /// The backends of the route, 1 to 16. Example: `[{name: archive}]`.
    #[schemars(length(min = 1, max = 16))]
    pub backend_refs: Vec<BackendRefSpec>,

    /// What becomes of an event that a backend of this route refuses for good: `DeadLetter` (it is kept with the reason,
    /// to be looked at and sent again) or `Drop` (it is dropped, counted). Default: `DeadLetter`.
    #[serde(default)]
    pub on_undeliverable: OnUndeliverableSpec,
}

/// What becomes of an event that its backend refuses for good.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUndeliverableSpec {
    /// It is kept with the reason.
    #[default]
    DeadLetter,
    /// It is dropped, counted.
    Drop,
}

/// How the backends of a route share the work.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Each backend gets every event of the route.
    #[default]
    All,
    /// The healthy backend of the lowest priority gets what none has.
    FirstHealthy,
}

/// What becomes of events that another backend got once the first one is healthy again.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailbackSpec {
    /// They stay where they are.
    #[default]
    Leave,
    /// The first one gets them too.
    Backfill,
}

/// One reference from a route to a backend.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRefSpec {
    /// Kind of the object referred to: `Backend` (of the pipeline's namespace) or `ClusterBackend` (one that grants the
    /// pipeline's namespace). Default: `Backend`.
    #[serde(default)]
    pub kind: BackendRefKind,

    /// Name of the object referred to, unique in the route whatever its kind. Example: `archive`.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// What happens when this backend is so far behind that the log is full, or its volume: `Block` (intake stops until
    /// it has caught up; nothing is lost) or `DropOldest` (this reference gives up its own oldest events, counted, and
    /// intake goes on). With strategy `FirstHealthy` the route says so. Default: `Block`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WhenBehind")]
    pub when_behind: Option<WhenBehind>,

    /// With strategy `FirstHealthy`, which backend comes first: the lowest number; of equal numbers the one that stands
    /// first in the list. Default: 0. Example: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<u32>,
}

/// The kinds a reference may name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendRefKind {
    /// A `Backend` of the pipeline's namespace.
    #[default]
    Backend,
    /// A `ClusterBackend` that grants the pipeline's namespace.
    ClusterBackend,
}

/// What happens when a backend is so far behind that the log is full.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenBehind {
    /// Intake stops until it has caught up.
    #[default]
    Block,
    /// This reference gives up its own oldest events, counted; intake goes on.
    DropOldest,
}
