//! The operator of Spillway: what stands in a cluster becomes what its agents run, and what they say becomes its status.
//!
//! ```text
//! API server ─watch─► cluster ─► world ─► render ─┬─► hub ─► serve ◄──long poll── agents
//!                        ▲                        │            │ reports
//!                        └──────── status ◄───────┴────────────┘
//! ```
//!
//! | module | holds |
//! | --- | --- |
//! | [`world`] | what the cluster holds that concerns us: objects, namespaces, pods, nodes, secrets. Pure |
//! | [`texts`] | names, labels and manifests, each held once. Pure |
//! | [`place`] | where an agent runs: on a node, or in a pod. Pure |
//! | [`reason`] | the words that verdicts and conditions say why with. Pure |
//! | [`render`] | the world into a verdict per object and a slice per place. Pure |
//! | [`hub`] | slices given out and reports taken in: between rendering and serving. Pure |
//! | [`repair`] | pods that lack the sidecar that they asked for: counted, told, evicted. Pure |
//! | [`reports`] | what agents said last. Pure |
//! | [`serve`] | the endpoint that agents ask: TLS, tokens, long polls |
//! | [`succession`] | one authority of ours after the other. Pure |
//! | [`tickets`] | proofs that a pipeline was given to a place. Pure |
//! | [`review`] | the envelope of what a webhook is asked and answers. Pure |
//! | [`validate`] | the webhook for our own kinds: the compiler's verdict at `kubectl apply` |
//! | [`mutate`] | the webhook for pods: a sidecar for those that ask |
//! | [`status`] | verdicts and reports into the status of every object. Pure |
//! | [`mod@webhook`] | the process around that: its certificate, its watches |
//! | [`controller`] | the loop that holds them together; `run`, `cli`, `admin` are the process around it |
//! | [`cluster`] | the API server: watches, the Lease, last good versions, status writes |
//!
//! # It must not know
//! Clients of backends: it never sends an event anywhere. Only [`cluster`] talks to the API server.

pub mod admin;
pub mod cli;
pub mod cluster;
pub mod controller;
pub mod hub;
pub mod mutate;
pub mod place;
pub mod reason;
pub mod render;
pub mod repair;
pub mod reports;
pub mod review;
pub mod run;
pub mod serve;
pub mod status;
pub mod succession;
pub mod texts;
pub mod tickets;
pub mod validate;
pub mod webhook;
pub mod world;
