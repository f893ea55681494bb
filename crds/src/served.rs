//! What an agent asks of the operator, and what it is answered: the protocol of served configuration.
//!
//! One request over TLS, repeated: `POST` [`PATH`] with an [`Ask`], answered with an [`Answer`] at once where something is
//! new to the agent, else as soon as something is, else after [`Ask::wait_seconds`] with nothing new in it. The node is
//! never asked for: it is the node claim of the token that the agent shows (`Authorization: Bearer`, audience
//! [`AUDIENCE`]), so that no agent can ask for another node's slice. A sidecar asks in the same way, and its slice is that of the
//! pod of its token: the pipeline that the pod asked for and its own facts, and with [`NODE_AGENT`] in the place of destinations that
//! are for the agent of the node.
//!
//! ```text
//! agent ── Ask {running: nothing} ──────────────────────────► operator
//!       ◄─ Answer {configuration (e7, g1, hash a), pods} ────
//!       ── Ask {running: a, refused: […], pods: hash p} ────►   the acknowledgement, and it waits
//!       ◄─ Answer {configuration (e7, g2, hash b)} ──────────   a change, as soon as there is one
//! ```
//!
//! # Guarantees
//! - The configuration is made of manifests, so that operator and agent compile with one function. The operator leaves
//!   out what does not compile; an agent that refuses one all the same says so, and runs the others.
//! - An agent takes a configuration that is [newer](Version::is_newer) than its own and no other: epochs count leaders,
//!   generations count changes of one leader.
//! - [`Version::hash`] covers everything but the tickets and the values of secrets, whose versions it covers: it can be shown
//!   and logged.
//! - A grant that is withdrawn is named ([`Configuration::revoked`]): what went for it does not drain.
//! - An agent that trusts the operator by a file of authorities is told of the others to come, over the TLS that it trusts
//!   already ([`Ask::authorities`]), and acknowledges them with the next ask; who does not say that it takes them gets none.
//! - Unknown fields are ignored on both sides: neighbouring minor versions understand each other. What changes meaning gets
//!   a new number in [`PROTOCOL`]; an ask of another number is refused with both, and its agent runs on as it is.
//!
//! # Limits
//! An ask has at most [`ASK_BYTES_MAX`], that of a sidecar [`SIDECAR_ASK_BYTES_MAX`], an answer [`ANSWER_BYTES_MAX`]: a pipeline
//! that does not fit is left out by the operator and says so. A value of a Secret has at most [`SECRET_VALUE_BYTES_MAX`]: a larger
//! one is not served.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::kinds::CLUSTER;
use crate::kinds::labels::{Labelled, Labels};

/// The `ClusterBackend` that a sidecar has in the place of what only the agent of its node may deliver to: that agent.
pub const NODE_AGENT: &str = "node-agent";

/// Its manifest. It leads nowhere: who takes it for what it says holds what is for it.
pub const NODE_AGENT_MANIFEST: &str = r#"{"apiVersion":"spillway.dev/v1alpha1","kind":"ClusterBackend","metadata":{"name":"node-agent"},"spec":{"allowedNamespaces":{"selector":{}},"http":{"url":"https://node-agent.invalid"},"type":"HTTP"}}"#;

/// The header of a `421` that names where who leads may be asked, as `ADDRESS:PORT`; its certificate is for the same names.
pub const LEADER: &str = "spillway-leader";

/// Where an operator answers.
pub const PATH: &str = "/v1/configuration";

/// The audience of the token that an agent shows.
pub const AUDIENCE: &str = "spillway";

/// The audience of the token that a pod shows to the agent of its node: of no use at the operator.
pub const DOOR_AUDIENCE: &str = "spillway-agent";

/// The version of this protocol. In 1, what an agent holds was believed without a ticket.
pub const PROTOCOL: u32 = 2;

/// The Lease that says which replica of the controller leads, in its own namespace, unless it is told otherwise.
pub const LEASE: &str = "spillway-controller";

/// The mark (annotation or label) with the value `false` on a pod that keeps its container logs out of every pipeline. The
/// annotation counts where both are there: see [`logs_mark`].
pub const LOGS_MARK: &str = "spillway.dev/logs";

/// Most seconds that an answer may be waited for.
pub const WAIT_SECONDS_MAX: u32 = 60;

/// Most bytes of an ask, before compression.
pub const ASK_BYTES_MAX: usize = 1 << 20;

/// Most bytes of an ask of a sidecar, which runs one pipeline.
pub const SIDECAR_ASK_BYTES_MAX: usize = 32 << 10;

/// Most bytes of an answer, before compression.
pub const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Most bytes of a value of a Secret that an agent is served: credentials and certificates have some thousand.
pub const SECRET_VALUE_BYTES_MAX: usize = 256 << 10;

/// Most bytes of the reason of a refusal; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 1024;

/// The [`fault`](BackendReport::fault) of a backend that this agent does not connect to, as its rules say.
pub const FORBIDDEN: &str = "forbidden";

/// What an agent says and asks.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Ask {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The agent's id, which lives as long as its data directory.
    pub agent: String,
    /// The version of its program.
    pub version: String,
    /// How long an answer without news may be put off; at most [`WAIT_SECONDS_MAX`].
    pub wait_seconds: u32,
    /// The configuration that it runs; `None` when it has none. To name one is to acknowledge it.
    pub running: Option<Version>,
    /// What of that configuration it does not run, by object; everything else of it is applied.
    pub refused: Vec<Refused>,
    /// The pipelines of which it still holds events: they stay in its configuration until these are delivered, also when
    /// nothing on its node feeds them any more.
    pub holding: Vec<Held>,
    /// How the backends of its routes are; those that are not named are healthy.
    pub backends: Vec<BackendReport>,
    /// The hash of the pod facts it holds; `None` when it has none.
    pub pods: Option<String>,
    /// The hash of the [`Authorities`] it trusts, empty when it was told of none; `None` from one that takes none, as older
    /// agents do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
}

/// Which configuration.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Counts leaders.
    pub epoch: u64,
    /// Counts what one leader gave out for this node.
    pub generation: u64,
    /// Names the content.
    pub hash: String,
}

/// An object that an agent does not run as it was served.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Refused {
    /// `MonitoringPipeline <namespace>/<name>`, as errors name it.
    pub object: String,
    /// Why, at most [`REASON_BYTES_MAX`]; never the value of a secret.
    pub reason: String,
    /// Whether an older version of it runs on.
    pub kept: bool,
}

/// A pipeline of which an agent holds events.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
pub struct Held {
    /// The pipeline, as [`Refused::object`] names it.
    pub object: String,
    /// What [`Configuration::tickets`] gave for it; without it nothing is believed.
    pub ticket: String,
}

/// How one backend of one route is, on one agent.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BackendReport {
    /// The pipeline, as [`Refused::object`] names it.
    pub object: String,
    /// Name of the route.
    pub route: String,
    /// What the reference names for good: `<namespace>.<name>`, the namespace empty for a `ClusterBackend`.
    pub backend: String,
    /// Its state.
    pub state: BackendCondition,
    /// What kind of fault that is, in the word that metrics have for it: [`FORBIDDEN`] is one that waiting does not mend. Empty
    /// where an older agent does not say.
    #[serde(default)]
    pub fault: String,
    /// What the last attempt said, on one line; never the value of a secret.
    #[serde(default)]
    pub error: String,
    /// Since when, seconds since 1970.
    #[serde(default)]
    pub since_unix_seconds: u64,
}

/// The states of a backend that are worth a word.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendCondition {
    /// Attempts fail, others are made.
    Retrying,
    /// So many attempts failed that it is left alone for a while.
    Unreachable,
}

/// What is new to the agent that asked.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    /// What it is to run; `None` when it runs that.
    pub configuration: Option<Configuration>,
    /// The pods of its node; `None` when it knows them.
    pub pods: Option<Pods>,
    /// Who issues the certificates of operators; `None` when it knows, and from older operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<Authorities>,
}

/// Who issues the certificates of operators, now and next: what an agent trusts besides what is mounted.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Authorities {
    /// Names the content.
    pub hash: String,
    /// Their certificates; they take the place of those told of before.
    pub certificates: Vec<AuthorityCertificate>,
}

/// The certificate of an authority.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorityCertificate {
    /// In PEM.
    pub pem: String,
    /// When it counts no longer, seconds since 1970.
    pub until_unix_seconds: u64,
}

/// Everything an agent runs.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    /// Which one this is.
    pub version: Version,
    /// Manifests as JSON, with `apiVersion`, `kind`, `metadata` (namespace, name, generation) and `spec`; sorted.
    pub manifests: Vec<Arc<str>>,
    /// The labels of the namespaces that selectors among the manifests may speak of.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The keys of Secrets that the manifests name. One that is not there is not in the cluster.
    pub secrets: Vec<ServedSecret>,
    /// For each pipeline, as errors name it, what proves that it was given to this node. An agent keeps that of a pipeline of
    /// which it holds events, and shows it in [`Ask::holding`]. Not covered by the hash: it follows from node and name.
    pub tickets: BTreeMap<String, String>,
    /// What pipelines of a namespace may not deliver to, although they say so or did: a grant that was withdrawn. What an agent
    /// still holds for it is not delivered any more. An older agent does not know of it, and delivers for the time that the
    /// pipeline said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Revoked>,
    /// What tokens of pods are verified with; only where one of the pipelines takes events of pods.
    pub token_keys: Option<Arc<TokenKeys>>,
}

/// A `ClusterBackend` that grants a namespace nothing.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
pub struct Revoked {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name of the `ClusterBackend`.
    pub backend: Arc<str>,
}

impl Revoked {
    /// Returns whether it is about deliveries of pipelines of that namespace to what names a backend for good.
    pub fn is_about(&self, namespace: &str, backend_uid: &str) -> bool {
        let name = backend_uid.split_once('.').filter(|(of, _)| *of == CLUSTER).map(|(_, name)| name);
        *self.namespace == *namespace && name == Some(&*self.backend)
    }
}

/// Who signs the tokens of pods, and with which keys.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenKeys {
    /// What tokens name as their issuer.
    pub issuer: String,
    /// The keys that the cluster publishes, as a JSON Web Key Set (RFC 7517).
    pub keys: String,
}

/// One key of a Secret.
#[derive(Serialize, Deserialize, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServedSecret {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// The key in it.
    pub key: String,
    /// Changes whenever the value may have changed.
    pub version: String,
    /// The value, in base64.
    pub value: Arc<str>,
}

/// The pods of a node.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Pods {
    /// Names the content.
    pub hash: String,
    /// In the order of their uids.
    pub pods: Vec<Arc<PodFacts>>,
}

/// What selection and origin need to know of a pod.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFacts {
    /// Its uid, as the kubelet's paths have it (that of a static pod is its `kubernetes.io/config.hash`).
    pub uid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations `spillway.dev/…` and those that conditions of its pipelines name.
    pub annotations: Labels,
    /// Whether it ended: it was deleted, or none of its containers will run again. It is told of for a while, as its logs are
    /// still read; nothing that is shown in its name counts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_ended: bool,
    /// What made it: the Deployment rather than its `ReplicaSet`, the `CronJob` rather than its Job where that can be told.
    pub owner: Option<Owner>,
}

/// What made a pod.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// Its kind. Example: `Deployment`.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Where a pod has [`LOGS_MARK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkedBy {
    /// An annotation.
    Annotation,
    /// A label, and no annotation.
    Label,
}

/// Returns the value of [`LOGS_MARK`] that counts, and where it stands.
pub fn logs_mark<'a>(annotations: &'a dyn Labelled, labels: &'a dyn Labelled) -> Option<(MarkedBy, &'a str)> {
    let places = [(MarkedBy::Annotation, annotations), (MarkedBy::Label, labels)];
    places.into_iter().find_map(|(place, marks)| Some((place, marks.value(LOGS_MARK)?)))
}

/// Returns what keeps the logs of a pod out of every pipeline; `None` where nothing does.
pub fn keeps_logs_out(annotations: &dyn Labelled, labels: &dyn Labelled) -> Option<MarkedBy> {
    logs_mark(annotations, labels).filter(|(_, value)| *value == "false").map(|(place, _)| place)
}

impl PodFacts {
    /// Returns whether the pod wants its logs to be left alone.
    pub fn keeps_logs_out(&self) -> bool {
        keeps_logs_out(&self.annotations, &self.labels).is_some()
    }
}

impl Version {
    /// Returns whether an agent that runs `running` takes this one: a later epoch, or a later generation of the same.
    pub fn is_newer(&self, running: &Self) -> bool {
        (self.epoch, self.generation) > (running.epoch, running.generation)
    }
}

impl fmt::Debug for ServedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, key, version, value: _ } = self;
        write!(f, "ServedSecret({namespace}/{name}/{key} version {version}, value not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_version_adds_is_ignored_and_what_an_older_one_lacks_has_a_default() {
        let ask: Ask = serde_json::from_str(r#"{"agent":"a","later":{"x":1},"running":null}"#).unwrap();
        assert_eq!(ask, Ask { agent: "a".into(), ..Ask::default() });
        let answer: Answer =
            serde_json::from_str(r#"{"configuration":{"version":{"epoch":1,"generation":2,"hash":"h"}}}"#).unwrap();
        assert_eq!((answer.configuration.unwrap().version.generation, answer.authorities), (2, None));
        // Who takes no authorities says nothing of them, and who has none to tell of, neither.
        let silent = [serde_json::to_string(&Ask::default()), serde_json::to_string(&Answer::default())];
        assert!(silent.iter().flatten().all(|text| !text.contains("authorities")), "{silent:?}");
    }

    #[test]
    fn what_is_revoked_is_of_one_namespace_and_one_backend_of_the_cluster() {
        let revoked = Revoked { namespace: "a".into(), backend: "lake.west".into() };
        assert!(revoked.is_about("a", "_cluster.lake.west"));
        for (namespace, uid) in [("b", "_cluster.lake.west"), ("a", "_cluster.lake"), ("a", "a.lake.west"), ("a", "x")]
        {
            assert!(!revoked.is_about(namespace, uid), "{namespace} {uid}");
        }
        let configuration = Configuration { revoked: vec![revoked], ..Configuration::default() };
        let text = serde_json::to_string(&configuration).unwrap();
        assert!(text.contains(r#""revoked":[{"namespace":"a","backend":"lake.west"}]"#), "{text}");
        assert!(!serde_json::to_string(&Configuration::default()).unwrap().contains("revoked"));
        assert_eq!(
            serde_json::from_str::<Configuration>(r#"{"version":{"epoch":1,"generation":1,"hash":""}}"#)
                .unwrap()
                .revoked,
            []
        );
    }

    #[test]
    fn an_annotation_counts_before_a_label_and_only_false_keeps_logs_out() {
        let mark =
            |value: Option<&'static str>| -> Labels { value.map(|value| (LOGS_MARK, value)).into_iter().collect() };
        for (annotation, label, expected) in [
            (None, None, None),
            (Some("false"), None, Some(MarkedBy::Annotation)),
            (None, Some("false"), Some(MarkedBy::Label)),
            (Some("true"), Some("false"), None),
            (Some("false"), Some("true"), Some(MarkedBy::Annotation)),
            (None, Some("no"), None),
        ] {
            let pod = PodFacts { annotations: mark(annotation), labels: mark(label), ..PodFacts::default() };
            assert_eq!(keeps_logs_out(&pod.annotations, &pod.labels), expected, "{annotation:?} {label:?}");
            assert_eq!(pod.keeps_logs_out(), expected.is_some());
        }
    }

    #[test]
    fn epochs_order_before_generations() {
        let version = |epoch, generation| Version { epoch, generation, hash: String::new() };
        assert!(version(2, 1).is_newer(&version(1, 9)));
        assert!(version(1, 10).is_newer(&version(1, 9)));
        assert!(!version(1, 9).is_newer(&version(1, 9)));
        assert!(!version(1, 9).is_newer(&version(2, 1)));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = ServedSecret { name: "api".into(), value: "aHVudGVyMg==".into(), ..ServedSecret::default() };
        let shown = format!("{secret:?}");
        assert!(shown.contains("api") && !shown.contains("aHVudGVyMg"), "{shown}");
    }
}
