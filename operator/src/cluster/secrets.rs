//! Secrets by name: `get` and nothing else, so that the operator never sees one that no Backend names.
//!
//! # Guarantees
//! - One that is named for the first time is read at once; after that each is read again as often as told (every 30 s unless
//!   asked otherwise), so that a rotated value is in use within a minute.
//! - One that is not there, or may not be read, is told as absent with its reason, and looked for again.
//! - An API server that does not answer, or answers something else, takes nothing away: what was read last goes on, and it is asked
//!   again soon. One that was never read is told as absent after [`UNANSWERED_MAX`] tries, so that nothing else waits for it.
//! - Values are in no log line and no error.
//!
//! # Limits
//! [`AT_ONCE_MAX`] reads at a time and [`PER_SECOND_MAX`] a second for what is read again. With more than that allows
//! (120 Secrets every 30 s) the pause grows with their number instead of the load. A read takes [`READ_MAX`] at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::in_words;
use crate::world::{Change, SecretData, SecretName};

/// Most reads at a time.
pub const AT_ONCE_MAX: usize = 8;

/// Most reads a second of what was read before.
pub const PER_SECOND_MAX: u32 = 4;

/// How long a read may take.
pub const READ_MAX: Duration = Duration::from_secs(10);

/// How often in a row one that was never read is asked for in vain before it counts as absent: 15 s, if the API server refuses at
/// once.
pub const UNANSWERED_MAX: u32 = 5;

/// How soon one is asked for again after the first read in vain; twice as long each time, and as long as always at most.
const AGAIN_SOON: Duration = Duration::from_secs(1);

/// Reads what `wanted` names until told to stop, each again after `again`; every read is sent as a change, also one that found
/// the same.
pub async fn read(
    client: Client,
    again: Duration,
    mut wanted: watch::Receiver<BTreeSet<SecretName>>,
    out: mpsc::Sender<Change>,
    stop: CancellationToken,
) {
    let mut turns: BTreeMap<SecretName, Turn> = BTreeMap::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        turns.retain(|name, _| names.contains(name));
        let new: Vec<SecretName> = names.iter().filter(|name| !turns.contains_key(*name)).cloned().collect();
        let mut found: Vec<(SecretName, Found)> = Vec::new();
        if new.is_empty() {
            let next = turns.iter().min_by_key(|(_, turn)| turn.at).map(|(name, turn)| (name.clone(), turn.at));
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wanted.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                name = wait_for(next) => found.push(look(&client, name).await),
            }
            // The others wait their turn: so many a second at most.
            let pause = Instant::now() + Duration::from_secs(1) / PER_SECOND_MAX;
            turns.values_mut().for_each(|turn| turn.at = turn.at.max(pause));
        } else {
            let reads = futures_util::stream::iter(new).map(|name| look(&client, name));
            found = reads.buffer_unordered(AT_ONCE_MAX).collect().await;
        }
        for (name, found) in found {
            let turn = turns.entry(name.clone()).or_insert_with(Turn::first);
            if let Some(change) = turn.note(name, found, again)
                && out.send(change).await.is_err()
            {
                return;
            }
        }
    }
}

/// When one is read next, and what became of it until now.
struct Turn {
    at: Instant,
    /// Whether something was told of it.
    is_told: bool,
    /// How often in a row it was asked for in vain.
    in_vain: u32,
}

/// What a read found.
enum Found {
    There(SecretData),
    /// It is not there, or may not be read.
    Absent,
    /// Nothing is known of it.
    Unanswered,
}

impl Turn {
    fn first() -> Self {
        Self { at: Instant::now(), is_told: false, in_vain: 0 }
    }

    /// Takes note of what a read found; returns what is to be told, if something is.
    fn note(&mut self, name: SecretName, found: Found, again: Duration) -> Option<Change> {
        let now = Instant::now();
        let data = match found {
            Found::There(data) => Some(data),
            Found::Absent => None,
            Found::Unanswered => {
                let wait = AGAIN_SOON.saturating_mul(1 << self.in_vain.min(16)).min(again);
                self.in_vain = self.in_vain.saturating_add(1);
                self.at = now + wait;
                if self.is_told || self.in_vain < UNANSWERED_MAX {
                    return None;
                }
                self.is_told = true;
                return Some(Change::Secret(name, None));
            }
        };
        *self = Self { at: now + again, is_told: true, in_vain: 0 };
        Some(Change::Secret(name, data))
    }
}

async fn wait_for(next: Option<(SecretName, Instant)>) -> SecretName {
    let Some((name, at)) = next else { return std::future::pending().await };
    sleep_until(at).await;
    name
}

async fn look(client: &Client, name: SecretName) -> (SecretName, Found) {
    let api: Api<Secret> = Api::namespaced(client.clone(), &name.0);
    let error = match timeout(READ_MAX, api.get_opt(&name.1)).await {
        Ok(Ok(Some(secret))) => {
            let data = SecretData {
                version: secret.metadata.resource_version.unwrap_or_default().into(),
                values: secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect(),
            };
            return (name, Found::There(data));
        }
        Ok(Ok(None)) => return (name, Found::Absent),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let may_not = matches!(&error, Some(kube::Error::Api(status)) if matches!(status.code, 403 | 404));
    let error = error.map_or_else(|| "no answer in time".to_owned(), |error| in_words(&error));
    tracing::warn!(namespace = &*name.0, name = &*name.1, error, "a Secret cannot be read");
    (name, if may_not { Found::Absent } else { Found::Unanswered })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;
    use crate::cluster::hand_made::{answer, refused};

    /// A hand-made API server with the Secret `a/s`, and what is told of it by the one that reads it.
    struct Stage {
        code: watch::Sender<u16>,
        asked: watch::Receiver<u32>,
        told: mpsc::Receiver<Change>,
    }

    impl Stage {
        /// Returns whether the Secret is there, as it is told next.
        async fn is_there(&mut self) -> bool {
            let Some(Change::Secret(_, data)) = self.told.recv().await else { panic!("nothing is told") };
            data.is_some()
        }

        /// Waits until the API server was asked so often again; nothing is told meanwhile.
        async fn asked_again(&mut self, times: u32) {
            let until = *self.asked.borrow() + times;
            tokio::select! {
                biased;
                change = self.told.recv() => panic!("told: {}", change.is_some()),
                asked = self.asked.wait_for(|count| *count >= until) => drop(asked.expect("it is read")),
            }
        }

        fn answers(&self, code: u16) {
            self.code.send_replace(code);
        }
    }

    /// Has the Secret read of an API server that answers so, for as long as `script` takes.
    async fn stage(code: u16, script: impl AsyncFnOnce(Stage)) {
        let (code, codes) = watch::channel(code);
        let (ask, asked) = watch::channel(0);
        let service = service_fn(move |_: http::Request<Body>| {
            ask.send_modify(|count| *count += 1);
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"token": "dDE="},
                "metadata": {"name": "s", "namespace": "a", "resourceVersion": "7"}});
            let code = *codes.borrow();
            let answer = if code == 200 { answer(200, &secret) } else { refused(code, "no") };
            async move { Ok::<_, Infallible>(answer) }
        });
        let (_names, wanted) = watch::channel(BTreeSet::from([("a".into(), "s".into())]));
        let (out, told) = mpsc::channel(1);
        let client = Client::new(service, "a");
        tokio::select! {
            () = read(client, Duration::from_secs(30), wanted, out, CancellationToken::new()) => panic!("it ended"),
            () = script(Stage { code, asked, told }) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_fails_takes_nothing_away() {
        stage(200, async |mut stage| {
            assert!(stage.is_there().await);
            for code in [429, 500, 503, 504, 401] {
                stage.answers(code);
                stage.asked_again(2 * UNANSWERED_MAX).await;
                stage.answers(200);
                assert!(stage.is_there().await, "{code}");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_read_any_more_or_is_gone_is_absent() {
        for code in [403, 404] {
            stage(200, async |mut stage| {
                assert!(stage.is_there().await);
                stage.answers(code);
                assert!(!stage.is_there().await, "{code}");
                stage.answers(200);
                assert!(stage.is_there().await, "{code}");
            })
            .await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_never_read_is_waited_for_and_then_keeps_nothing_waiting() {
        stage(503, async |mut stage| {
            let began = Instant::now();
            assert!(!stage.is_there().await);
            assert_eq!((*stage.asked.borrow(), began.elapsed().as_secs()), (UNANSWERED_MAX, 15));
            stage.answers(200);
            assert!(stage.is_there().await, "it is asked for all the same");
        })
        .await;
    }
}
