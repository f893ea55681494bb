//! The contract of Spillway: its kinds, and the one pure function from manifests to a plan.
//!
//! ```text
//! files ─► load ─► compile: YAML tree with positions ─► CRD schema ─► kinds ─► plans, or errors with line and column
//!                                                          ▲
//! kinds (Rust types with bounds, defaults, descriptions) ──┴─► crd_yaml: the committed CRDs
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`kinds`] | what users write, one file per kind; the only source of bounds, defaults and descriptions |
//! | [`crd`] | the CRDs generated from the kinds, in the form Kubernetes accepts |
//! | [`load`] | files and folders into documents, as `kubectl -f` takes them |
//! | [`compile()`] | documents into plans and errors: one bad object is left out, the others are there |
//! | [`manifest`] | the reading beneath: YAML with positions, the check against the schema, the errors |
//! | [`check`] | files and folders, compiled: what a command of that name does |
//! | [`explain`] | what conditions read and cost |
//! | [`paths`] | patterns of paths, of inputs that read files |
//! | [`render`] | errors and warnings for people and for programs |
//! | [`inject`] | a pod that asks for it, with the agent as a sidecar: JSON in, a JSON Patch out |
//! | [`served`] | what agent and operator say to one another about configuration |
//! | [`nodes`] | what a status says of nodes: the words, and who reads them |
//! | [`trials`] | tests of pipelines: events, and what the manifests are to make of them |
//! | [`words`] | errors on one line, and text to stdout |
//!
//! Guarantees: the same documents give the same answer in every place that compiles them; every error of every
//! document is told in one run, each with its line; nothing in a document makes the compiler panic or use more than the
//! bounds that [`manifest`] names.
//!
//! It must not know: clients of backends, the network, tasks, the agent. Only [`load`] reads files ([`check`] through it),
//! and only [`words`] writes, to stdout and stderr.

pub mod check;
pub mod compile;
pub mod crd;
pub mod explain;
pub mod inject;
pub mod kinds;
pub mod load;
pub mod manifest;
pub mod nodes;
pub mod paths;
pub mod render;
pub mod served;
pub mod trials;
pub mod words;

pub use compile::standalone;
pub use compile::{
    BackendPlan, Compiled, ContainerLogsInput, EventsInput, FilesInput, Input, Namespaces, PipelinePlan, Reach,
    compile, compile_standalone, compile_with,
};
pub use crd::crd_yaml;
pub use manifest::{Document, ManifestError};
pub use spillway_backends::{BackendRow, BackendSettings};
