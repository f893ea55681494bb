//! The API server: what is read from it, and the little that is written to it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`convert`] | objects of Kubernetes into what the world knows of them. Pure |
//! | [`slim`] | objects of Kubernetes as far as they are read. Pure |
//! | [`watch`] | watches over our kinds, last good versions, namespaces, pods, nodes |
//! | [`secrets`] | Secrets by name, read again on a bounded schedule |
//! | [`lease`] | who leads, and the epoch |
//! | [`authority`] | our CA and its successor, and where they are trusted |
//! | [`keep`] | our own small objects: what agents get mounted, last good versions |
//! | [`keys`] | the keys that tokens are verified with |
//! | [`events`] | Events about our objects and makers of pods, one for each cause |
//! | [`evict`] | evictions of pods without the sidecar that they asked for |
//! | [`queue`] | what is to be written, the last wish of each object at a bounded rate |
//! | [`webhook`] | the webhook's certificate, and that API servers trust it |
//! | [`mod@write`] | status |
//!
//! # Guarantees
//! - `get` alone for Secrets of others; nothing of a user's object is written but its status, and Events about it. Pods are
//!   evicted where that is enabled.
//! - In a quiet hour nothing is written but the Lease (and the webhook's certificate, every twenty days, and a successor of our
//!   CA, every ten years).
//! - An API server that is away stops nothing: watches go on from where they were, writes are made again, what was read goes on.

pub mod authority;
pub mod convert;
pub mod events;
pub mod evict;
#[cfg(test)]
mod hand_made;
pub mod keep;
pub mod keys;
pub mod lease;
pub mod queue;
pub mod secrets;
pub mod slim;
pub mod watch;
pub mod webhook;
pub mod write;

use anyhow::Context;
use kube::{Client, Config};
use spillway_crds::words;

/// The name under which our fields are managed.
pub const FIELD_MANAGER: &str = "spillway-operator";

/// The API group of our kinds.
pub const GROUP: &str = "spillway.dev";

/// Returns the way to the API server that this machine is set up with.
///
/// It asks once. Whoever asks takes "too many requests" (429, which is also how a disruption budget answers), 503 and 504 as what they
/// are, and asks again at its own pace, which is bounded, told and stops with the process. The retries that the crate has by default
/// go on for up to fifteen times and a thousand seconds within one call, which nobody sees.
///
/// # Errors
/// What is wrong with the kubeconfig, or with the account that is mounted.
pub async fn connect() -> anyhow::Result<Client> {
    let mut config = Config::infer().await.context("no way to the API server is known")?;
    config.default_retry = false;
    Client::try_from(config).context("no client can be made of the way to the API server")
}

/// Returns an error of the API server in one line, without what it repeats.
pub(crate) fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({} {})", status.message, status.code, status.reason),
        error => words::of_error(error),
    }
}
