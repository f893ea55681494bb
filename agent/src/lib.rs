//! The agent: sources in, pipelines over durable logs, backends out; as a plain process, no Kubernetes needed.
//!
//! ```text
//! main ─► cli ─► settings ─► run ─► manifests ─► pipelines ─► sources ─► (signal) ─► drain
//!                             └──► overview ◄── admin (livez, readyz, metrics, v1/status) ◄── status
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`cli`] | what a user may write on the command line |
//! | [`settings`] | the one way from what was written to what is used |
//! | [`run`] | the life of the process: open, announce, run, drain in the order of the flow |
//! | [`manifests`] | manifests from files, compiled |
//! | [`config`] | manifests of a running agent: read again, held against what runs |
//! | [`sources`] | where data comes from |
//! | [`pods`] | the pods of the node, as the operator tells of them |
//! | [`overview`] | what the process is and does now |
//! | [`admin`], [`metrics`] | the endpoint that tells it |
//! | [`check`], [`trials`], [`status`], [`inspect`], [`dead_letters`], [`jobs`], [`round_trip`] | the other subcommands |
//! | [`ask`] | how they ask a running agent |
//! | [`exit`], [`logging`], [`table`] | exit codes and failures, log lines, text in columns |
//!
//! Invariants: all state is passed along, there are no globals; every task has an owner that awaits it; nothing on
//! stdout but what a command was asked for.

pub mod admin;
pub mod ask;
pub mod check;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod exit;
pub mod inspect;
pub mod jobs;
pub mod logging;
pub mod manifests;
pub mod metrics;
pub mod overview;
pub mod pods;
pub mod round_trip;
pub mod run;
pub mod settings;
pub mod sources;
pub mod status;
pub mod table;
pub mod trials;
