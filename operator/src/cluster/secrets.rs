//! Secrets by name: `get` and nothing else, so that the operator never sees one that no Backend names.
//!
//! # Guarantees
//! - One that is named for the first time is read at once; after that each is read again as often as told (every 30 s unless
//!   asked otherwise), so that a rotated value is in use within a minute.
//! - One that is not there, or may not be read, is told as absent with its reason, and looked for again.
//! - Values are in no log line and no error.
//!
//! # Limits
//! [`AT_ONCE_MAX`] reads at a time and [`PER_SECOND_MAX`] a second for what is read again. With more than that allows
//! (120 Secrets every 30 s) the pause grows with their number instead of the load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::in_words;
use crate::world::{Change, SecretData, SecretName};

/// Most reads at a time.
pub const AT_ONCE_MAX: usize = 8;

/// Most reads a second of what was read before.
pub const PER_SECOND_MAX: u32 = 4;

/// Reads what `wanted` names until told to stop, each again after `again`; every read is sent as a change, also one that found
/// the same.
pub async fn read(
    client: Client,
    again: Duration,
    mut wanted: watch::Receiver<BTreeSet<SecretName>>,
    out: mpsc::Sender<Change>,
    stop: CancellationToken,
) {
    let mut due: BTreeMap<SecretName, Instant> = BTreeMap::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        due.retain(|name, _| names.contains(name));
        let new: Vec<SecretName> = names.iter().filter(|name| !due.contains_key(*name)).cloned().collect();
        if !new.is_empty() {
            let reads = futures_util::stream::iter(new.clone()).map(|name| look(client.clone(), name));
            let found: Vec<Change> = reads.buffer_unordered(AT_ONCE_MAX).collect().await;
            let next = Instant::now() + again;
            due.extend(new.into_iter().map(|name| (name, next)));
            for change in found {
                if out.send(change).await.is_err() {
                    return;
                }
            }
        }
        let next = due.iter().min_by_key(|(_, at)| **at).map(|(name, at)| (name.clone(), *at));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            name = wait_for(next) => {
                let change = look(client.clone(), name.clone()).await;
                due.insert(name, Instant::now() + again);
                // The others wait their turn: so many a second at most.
                let pause = Instant::now() + Duration::from_secs(1) / PER_SECOND_MAX;
                due.values_mut().for_each(|at| *at = (*at).max(pause));
                if out.send(change).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn wait_for(next: Option<(SecretName, Instant)>) -> SecretName {
    let Some((name, at)) = next else { return std::future::pending().await };
    sleep_until(at).await;
    name
}

async fn look(client: Client, name: SecretName) -> Change {
    let api: Api<Secret> = Api::namespaced(client, &name.0);
    let data = match api.get_opt(&name.1).await {
        Ok(found) => found.map(|secret| SecretData {
            version: secret.metadata.resource_version.unwrap_or_default().into(),
            values: secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(),
        }),
        Err(error) => {
            tracing::warn!(namespace = &*name.0, name = &*name.1, error = in_words(&error), "a Secret cannot be read");
            None
        }
    };
    Change::Secret(name, data)
}
