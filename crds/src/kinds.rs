//! The kinds that users write, group `spillway.dev`, version `v1alpha1`.
//!
//! Each type is the single source of its bounds, defaults and descriptions: the CRD is generated from it, and manifests
//! are checked against that CRD wherever they are read. What is not here does not exist yet: an unknown field is an error.

#![expect(unreachable_pub, reason = "the derive of KubeSchema copies the struct, `pub` and all, into a function")]

pub mod backend;
mod kind;
pub mod labels;
pub mod monitoring_pipeline;
pub mod selector;
pub mod status;
pub mod transform;

pub use backend::{Backend, BackendSpec, ClusterBackend, ClusterBackendSpec};
pub use kind::Kind;
pub use monitoring_pipeline::{
    ClusterMonitoringPipeline, ClusterMonitoringPipelineSpec, MonitoringPipeline, MonitoringPipelineSpec,
};

/// The API group of every kind.
pub const GROUP: &str = "spillway.dev";

/// The version of every kind.
pub const VERSION: &str = "v1alpha1";

/// What stands in place of a namespace for objects of the cluster: no namespace can have this name.
pub const CLUSTER: &str = "_cluster";

/// A name of a part of an object, as Kubernetes names containers and ports (RFC 1123 label).
pub(crate) const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A name of an object (RFC 1123 subdomain).
pub(crate) const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Longest name of an object of ours, so that `<namespace>.<name>` and names derived from it fit everywhere.
pub(crate) const NAME_CHARS_MAX: u64 = 63;
