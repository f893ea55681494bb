//! The verdict on an object of ours at `kubectl apply`: what the compiler says of it, before it is stored.
//!
//! Expected flow: an API server posts an `AdmissionReview`; [`review`] answers it. [`endpoint`] carries the two.
//!
//! # Guarantees
//! - A pure function of the request and of what is [`Known`]: nothing is asked, nothing is written, so that a dry run gets the
//!   same answer; whoever asks, the answer holds no secret and nothing of another namespace.
//! - An object that is wrong in itself is denied, with the field, what was found, what is allowed and the nearest name. One
//!   whose references lead nowhere is allowed with a warning: what it names may come later.
//! - Allowed without a look: deletions, subresources, objects that are being deleted, updates that leave `spec` as it is, kinds
//!   that are not ours. What stands in the cluster can always be relabelled and removed, whatever the compiler has learned.
//! - It judges `apiVersion`, `kind`, the name and `spec`; the rest of the metadata is the API server's.
//!
//! # It must not know
//! The API server, last good versions, agents: the authority is the controller, and this webhook fails open.
//!
//! # Limits
//! Those of [`review`](crate::review); [`ERRORS_TOLD_MAX`] errors and as many warnings, each warning of
//! [`WARNING_BYTES_MAX`]; [`BACKENDS_MAX`] backends of the namespace and of the cluster that references are looked up in.

pub mod endpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spillway_crds::inject::{DEFAULT_LABEL, LimitRange, Offer};
use spillway_crds::manifest::Reason;
use spillway_crds::{Document, ManifestError, Namespaces, compile_with};

use crate::review::{Answered, Request, ReviewError, read};
use crate::world::ObjectKey;
use spillway_crds::kinds::Kind;

/// Most errors or warnings that are told of one object.
pub const ERRORS_TOLD_MAX: usize = 10;

/// Most bytes of a warning; an API server cuts what is longer.
pub const WARNING_BYTES_MAX: usize = 256;

/// Most backends that the references of one pipeline are looked up in.
pub const BACKENDS_MAX: usize = 1000;

/// Most `LimitRange`s of a namespace that are known; more limit nothing, but the API server goes by them.
pub const LIMIT_RANGES_MAX: usize = 64;

/// How the document under review is called; nobody is shown it.
const FILE: &str = "object";

/// What references are looked up in.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Manifests of `Backend`s and `ClusterBackend`s, as JSON.
    pub backends: BTreeMap<ObjectKey, Arc<str>>,
    /// The names of pipelines, by their namespaces.
    pub pipelines: BTreeMap<Arc<str>, BTreeSet<String>>,
    /// Namespaces and their labels.
    pub namespaces: Namespaces,
    /// What `LimitRange`s of namespaces allow containers, by their names; [`LIMIT_RANGES_MAX`] of each.
    pub limits: BTreeMap<Arc<str>, BTreeMap<Arc<str>, LimitRange>>,
}

/// What is said of the object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// That of the request.
    pub uid: String,
    /// Whether it is stored.
    pub allowed: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Denial>,
    /// What its author should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Why an object is not stored, as the `Status` of an API server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    status: &'static str,
    reason: &'static str,
    code: u16,
    /// Every error, one a line.
    pub message: String,
}

/// As much of an object as is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

/// What is compiled of the object under review.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Judged<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: JudgedMetadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct JudgedMetadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

/// Answers a review. References are looked up in `known`, and not judged without it.
pub fn review(body: &[u8], known: Option<&Known>) -> Result<Answered<Verdict>, ReviewError> {
    let request = read(body)?;
    let (status, warnings) = match judged(&request) {
        Some((object, kind)) => verdict(&request, object, kind, known),
        None => (None, Vec::new()),
    };
    Ok(Answered::new(Verdict { uid: request.uid, allowed: status.is_none(), status, warnings }))
}

/// Returns the object of a request, where it is one to judge.
fn judged<'r, 'a>(request: &'r Request<Object<'a>>) -> Option<(&'r Object<'a>, Kind)> {
    let object = request.object.as_ref()?;
    let is_of_interest = matches!(&*request.operation, "CREATE" | "UPDATE")
        && request.is_whole()
        && object.metadata.deletion_timestamp.is_none();
    let is_changed = request.old_object.as_ref().is_none_or(|old| !is_same(old.spec, object.spec));
    let kind = match &*object.kind {
        "Backend" => Kind::Backend,
        "ClusterBackend" => Kind::ClusterBackend,
        "MonitoringPipeline" => Kind::MonitoringPipeline,
        "ClusterMonitoringPipeline" => Kind::ClusterMonitoringPipeline,
        _ => return None,
    };
    let is_ours = object.api_version.split('/').next() == Some(spillway_crds::kinds::GROUP);
    (is_of_interest && is_changed && is_ours).then_some((object, kind))
}

/// Returns whether two specs say the same, in whatever order of their fields.
fn is_same(before: Option<&RawValue>, after: Option<&RawValue>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return before.is_none() && after.is_none() };
    let value = |raw: &RawValue| serde_json::from_str::<serde_json::Value>(raw.get());
    before.get() == after.get() || matches!((value(before), value(after)), (Ok(before), Ok(after)) if before == after)
}

fn verdict(
    request: &Request<Object<'_>>,
    object: &Object<'_>,
    kind: Kind,
    known: Option<&Known>,
) -> (Option<Denial>, Vec<String>) {
    let is_of_cluster = matches!(kind, Kind::ClusterBackend | Kind::ClusterMonitoringPipeline);
    let namespace = request.namespace.as_deref().filter(|namespace| !is_of_cluster && !namespace.is_empty());
    // A name that is still to be generated is good.
    let name = [object.metadata.name.as_deref(), request.name.as_deref()];
    let name = name.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or("generated");
    let metadata = JudgedMetadata { name, namespace };
    let judged = Judged { api_version: &object.api_version, kind: &object.kind, metadata, spec: object.spec };
    // Text alone is written, and that cannot fail.
    let mut documents = vec![Document::new(FILE, serde_json::to_string(&judged).unwrap_or_default())];
    let mut namespaces = Namespaces::default();
    if let Some(known) = known.filter(|_| matches!(kind, Kind::MonitoringPipeline | Kind::ClusterMonitoringPipeline)) {
        documents.extend(known.within_reach(namespace.unwrap_or_default()));
        namespaces = known.namespaces.clone();
    }
    let compiled = compile_with(&documents, namespaces);
    let of_object = |error: &&ManifestError| &*error.file == FILE;
    let (wrong, unresolved): (Vec<_>, Vec<_>) =
        compiled.errors.iter().filter(of_object).partition(|error| error.reason == Reason::Invalid);
    let unresolved = unresolved.into_iter().filter(|_| known.is_some());
    let warned = unresolved.chain(compiled.warnings.iter().filter(of_object).filter(|_| known.is_some()));
    let warnings = warned.take(ERRORS_TOLD_MAX).map(|error| cut(error.words(), WARNING_BYTES_MAX)).collect();
    (denial(&wrong), warnings)
}

fn denial(errors: &[&ManifestError]) -> Option<Denial> {
    if errors.is_empty() {
        return None;
    }
    let mut lines: Vec<String> = errors.iter().take(ERRORS_TOLD_MAX).map(|error| error.words()).collect();
    if let Some(more) = errors.len().checked_sub(ERRORS_TOLD_MAX).filter(|more| *more > 0) {
        lines.push(format!("and {more} more"));
    }
    Some(Denial { status: "Failure", reason: "Invalid", code: 422, message: lines.join("\n") })
}

fn cut(mut text: String, bytes_max: usize) -> String {
    const MARK: &str = "…";
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max - MARK.len()));
        text.push_str(MARK);
    }
    text
}

impl Known {
    /// Returns what a namespace has for its pods.
    pub fn offer(&self, namespace: &str) -> Offer {
        let default = self.namespaces.labels(namespace).and_then(|labels| labels.get(DEFAULT_LABEL).cloned());
        let ranges = self.limits.get(namespace).into_iter().flat_map(BTreeMap::values).copied();
        let limits = ranges.fold(LimitRange::default(), LimitRange::and);
        Offer { pipelines: self.pipelines.get(namespace).cloned().unwrap_or_default(), default, limits }
    }

    /// Returns the backends that a pipeline of `namespace` could name.
    fn within_reach(&self, namespace: &str) -> impl Iterator<Item = Document> {
        let is_within_reach = move |key: &ObjectKey| match key.kind {
            Kind::Backend => *key.namespace == *namespace,
            Kind::ClusterBackend => true,
            Kind::MonitoringPipeline | Kind::ClusterMonitoringPipeline => false,
        };
        let texts = self.backends.iter().filter(move |(key, _)| is_within_reach(key)).take(BACKENDS_MAX);
        texts.map(|(_, text)| Document::new("known", &**text))
    }
}

#[cfg(test)]
mod tests;
