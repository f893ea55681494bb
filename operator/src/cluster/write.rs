//! Status, written: only what differs, at most once a second per object, with one field manager.
//!
//! # Guarantees
//! - The last status that was wanted is what is written in the end; what was wanted in between may be skipped.
//! - A write that fails is made again; one to an object that is gone is given up.
//! - Never more than [`AT_ONCE_MAX`] writes at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::convert::{ObjectStatus, kind_name};
use super::keep::applying;
use super::watch::resource;
use super::{GROUP, in_words};
use crate::world::{Kind, ObjectKey};

/// Most writes at a time.
pub const AT_ONCE_MAX: usize = 8;

/// How long an object rests between two writes of its status.
pub const REST: Duration = Duration::from_secs(1);

/// How long an object rests after a write that failed.
const REST_FAILED: Duration = Duration::from_secs(5);

/// A status that is wanted; `None` where the object is gone.
pub type Wanted = (ObjectKey, Option<ObjectStatus>);

#[derive(Debug, Default)]
struct Queue {
    wanted: BTreeMap<ObjectKey, ObjectStatus>,
    resting: BTreeMap<ObjectKey, Instant>,
    /// Written now.
    busy: BTreeSet<ObjectKey>,
}

impl Queue {
    fn take(&mut self, (key, status): Wanted) {
        match status {
            Some(status) => drop(self.wanted.insert(key, status)),
            None => drop(self.wanted.remove(&key)),
        }
    }

    /// Returns what may be written now, and when to look again otherwise.
    fn next(&mut self, now: Instant) -> (Option<(ObjectKey, ObjectStatus)>, Option<Instant>) {
        self.resting.retain(|_, until| *until > now);
        let is_free = |key: &&ObjectKey| !self.busy.contains(*key) && !self.resting.contains_key(*key);
        if let Some(key) = self.wanted.keys().find(is_free).cloned() {
            let status = self.wanted.remove(&key);
            self.busy.insert(key.clone());
            return (status.map(|status| (key, status)), None);
        }
        (None, self.wanted.keys().filter_map(|key| self.resting.get(key)).min().copied())
    }

    fn done(&mut self, key: ObjectKey, status: ObjectStatus, result: &Result<(), kube::Error>, now: Instant) {
        self.busy.remove(&key);
        match result {
            Ok(()) => drop(self.resting.insert(key, now + REST)),
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            Err(error) => {
                tracing::warn!(
                    kind = kind_name(key.kind),
                    namespace = &*key.namespace,
                    name = &*key.name,
                    error = in_words(error),
                    "a status cannot be written; it is tried again"
                );
                self.resting.insert(key.clone(), now + REST_FAILED);
                self.wanted.entry(key).or_insert(status);
            }
        }
    }
}

/// Writes what `wanted` asks for until told to stop, or until nobody can ask any more.
pub async fn run(client: Client, mut wanted: mpsc::Receiver<Wanted>, stop: CancellationToken) {
    let mut queue = Queue::default();
    let mut writes = FuturesUnordered::new();
    loop {
        let mut look_again = None;
        while writes.len() < AT_ONCE_MAX {
            let (next, again) = queue.next(Instant::now());
            look_again = again;
            let Some((key, status)) = next else { break };
            let client = client.clone();
            writes.push(async move {
                let result = write(client, &key, &status).await;
                (key, status, result)
            });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            asked = wanted.recv() => match asked {
                Some(asked) => queue.take(asked),
                None => return,
            },
            Some((key, status, result)) = writes.next() => queue.done(key, status, &result, Instant::now()),
            () = until(look_again) => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn write(client: Client, key: &ObjectKey, status: &ObjectStatus) -> Result<(), kube::Error> {
    let resource = resource(key.kind);
    let api: Api<DynamicObject> = match key.kind {
        Kind::Backend | Kind::MonitoringPipeline => Api::namespaced_with(client, &key.namespace, &resource),
        Kind::ClusterBackend | Kind::ClusterMonitoringPipeline => Api::all_with(client, &resource),
    };
    let status = match status {
        ObjectStatus::Pipeline(status) => serde_json::to_value(status),
        ObjectStatus::Backend(status) => serde_json::to_value(status),
    };
    let object = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": kind_name(key.kind),
        "metadata": {"name": &*key.name}, "status": status.unwrap_or(Value::Null),
    });
    api.patch_status(&key.name, &applying(), &Patch::Apply(object)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::kinds::status::BackendStatus;

    fn key(name: &str) -> ObjectKey {
        ObjectKey { kind: Kind::Backend, namespace: "n".into(), name: name.into() }
    }

    fn status(pipelines: u32) -> ObjectStatus {
        ObjectStatus::Backend(BackendStatus { pipelines: Some(pipelines), ..BackendStatus::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_rests_between_writes_and_the_last_wish_counts() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.take((key("a"), Some(status(1))));
        let (first, _) = queue.next(now);
        assert_eq!(first, Some((key("a"), status(1))));
        queue.take((key("a"), Some(status(2))));
        assert_eq!(queue.next(now).0, None, "it is being written");
        queue.done(key("a"), status(1), &Ok(()), now);
        queue.take((key("a"), Some(status(3))));
        assert_eq!(queue.next(now), (None, Some(now + REST)));
        assert_eq!(queue.next(now + REST).0, Some((key("a"), status(3))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_failed_is_made_again_unless_something_newer_is_wanted() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let failed = || Err(kube::Error::LinesCodecMaxLineLengthExceeded);
        queue.take((key("a"), Some(status(1))));
        queue.next(now);
        queue.done(key("a"), status(1), &failed(), now);
        assert_eq!(queue.next(now + REST_FAILED).0, Some((key("a"), status(1))));
        queue.take((key("a"), Some(status(2))));
        queue.done(key("a"), status(1), &failed(), now);
        assert_eq!(queue.next(now + REST_FAILED).0, Some((key("a"), status(2))), "the newer one");
        queue.take((key("b"), Some(status(1))));
        queue.take((key("b"), None));
        assert_eq!(queue.next(now + REST_FAILED), (None, None), "it is gone");
    }
}
