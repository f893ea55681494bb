//! The envelope of what an API server asks a webhook and is answered: `AdmissionReview` of `admission.k8s.io/v1`.
//!
//! Expected flow: [`read`] takes the request out of it, the webhook in question judges, [`Answered::new`] puts its answer back.
//! Each webhook says for itself how much of an object it reads, and what an answer holds.
//!
//! It must not know: which kinds there are, and what is thought of them.
//!
//! # Limits
//! A review of [`REVIEW_BYTES_MAX`], whose request has a uid of at most 256 bytes.

use serde::{Deserialize, Serialize};

/// Most bytes of a review: what an API server takes in one request, and holds of it.
pub const REVIEW_BYTES_MAX: usize = 3 << 20;

/// Longest uid of a review.
const UID_BYTES_MAX: usize = 256;

/// The group and version of reviews.
const API_VERSION: &str = "admission.k8s.io/v1";

/// The kind of reviews.
const KIND: &str = "AdmissionReview";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is no JSON of the form that is needed.
    #[error("not an {KIND}")]
    Read(#[source] serde_json::Error),
    /// It is of another kind or version.
    #[error("expected {KIND} of {API_VERSION}")]
    Other,
    /// There is no request in it, or none that could be answered.
    #[error("the review holds no request with a uid of at most {UID_BYTES_MAX} bytes")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
struct Review<O> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request<O>>,
}

/// What is asked, with as much of an object as `O` reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub(crate) struct Request<O> {
    /// Names the request; its answer has the same.
    pub(crate) uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub(crate) operation: String,
    /// What it is about.
    #[serde(default)]
    pub(crate) resource: Resource,
    #[serde(default)]
    sub_resource: Option<String>,
    /// The name, unless it is still to be generated.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The namespace, of what has one.
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    /// The object as it shall be.
    pub(crate) object: Option<O>,
    /// The object as it is.
    pub(crate) old_object: Option<O>,
}

/// What a request is about.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Resource {
    /// The group, empty for the core of Kubernetes.
    #[serde(default)]
    pub(crate) group: String,
    /// The plural name.
    #[serde(default)]
    pub(crate) resource: String,
}

impl<O> Request<O> {
    /// Returns whether it is about an object and not about a part of one, such as `status`.
    pub(crate) fn is_whole(&self) -> bool {
        self.sub_resource.as_deref().unwrap_or_default().is_empty()
    }
}

/// An answered review.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answered<A> {
    api_version: &'static str,
    kind: &'static str,
    /// The answer.
    pub response: A,
}

impl<A> Answered<A> {
    /// Puts an answer into its envelope.
    pub(crate) fn new(response: A) -> Self {
        Self { api_version: API_VERSION, kind: KIND, response }
    }
}

/// Returns the request of a review.
pub(crate) fn read<'b, O: Deserialize<'b>>(body: &'b [u8]) -> Result<Request<O>, ReviewError> {
    let Review { api_version, kind, request } = serde_json::from_slice(body).map_err(ReviewError::Read)?;
    if (&*api_version, &*kind) != (API_VERSION, KIND) {
        return Err(ReviewError::Other);
    }
    let is_answerable = |request: &Request<O>| (1..=UID_BYTES_MAX).contains(&request.uid.len());
    request.filter(is_answerable).ok_or(ReviewError::NoRequest)
}
