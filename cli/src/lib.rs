//! `kubectl spillway`: what a person asks of a cluster that runs Spillway.
//!
//! | module | holds |
//! | --- | --- |
//! | [`check`] | manifests of files, as an agent compiles them |
//! | [`validate`] | what stands in the cluster, compiled the same way |
//! | [`status`] | the pipelines in a table: ready, why not, on how many agents |
//! | [`inject`] | a pod of a file with its sidecar, as the webhook gives it |
//! | [`trace`] | one pod, step by step: why are its logs not there |
//! | [`cluster`] | the API server: the one module that talks to it |
//! | [`objects`] | objects of ours as far as they are read. Pure |
//! | [`cli`], [`exit`], [`table`] | flags, exit codes, columns |
//!
//! # Guarantees
//! - It reads and never writes, and never reads a Secret.
//! - What may not be read is told and the rest is there: a tenant sees what a tenant may see.
//!
//! # It must not know
//! Clients of backends, and how operator and agent are built: it reads what they leave in the cluster.

pub mod check;
pub mod cli;
pub mod cluster;
pub mod exit;
pub mod inject;
pub mod objects;
pub mod status;
pub mod table;
pub mod trace;
pub mod validate;
