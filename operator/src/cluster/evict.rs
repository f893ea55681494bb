//! Evictions: pods that lack the sidecar that they asked for, one after the other.
//!
//! # Guarantees
//! - The Eviction API alone is asked: a disruption budget that forbids it is obeyed, and nothing is deleted.
//! - The pod that was meant, by its `metadata.uid`, or none.
//! - Who does not lead evicts nothing.
//!
//! # It must not know
//! Which pod, and when: that is [`repair`](crate::repair)'s.
//!
//! # Limits
//! One at a time; [`QUEUE_MAX`] wait.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::in_words;
use super::lease::Leading;
use crate::repair::{Eviction, Outcome};

/// Most evictions, and outcomes of them, that wait: there is one at a time.
pub const QUEUE_MAX: usize = 1;

/// Evicts what is asked for until told to stop, and says what came of it.
pub async fn run(
    client: Client,
    leading: watch::Receiver<Leading>,
    mut asked: mpsc::Receiver<Eviction>,
    outcomes: mpsc::Sender<(Eviction, Outcome)>,
    stop: CancellationToken,
) {
    loop {
        let eviction = tokio::select! {
            () = stop.cancelled() => return,
            eviction = asked.recv() => match eviction {
                Some(eviction) => eviction,
                None => return,
            },
        };
        let outcome = if leading.borrow().is_some() { evict(&client, &eviction).await } else { Outcome::Gone };
        if outcomes.send((eviction, outcome)).await.is_err() {
            return;
        }
    }
}

async fn evict(client: &Client, eviction: &Eviction) -> Outcome {
    let Eviction { namespace, pod, uid, .. } = eviction;
    let preconditions = Preconditions { uid: Some(uid.to_string()), ..Preconditions::default() };
    // Not with `Api::evict`: it writes options under a name that API servers pass over, so that any pod of the name would go.
    let asked = policy::Eviction {
        delete_options: Some(DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() }),
        metadata: ObjectMeta { name: Some(pod.to_string()), ..ObjectMeta::default() },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let result = api.create_subresource::<_, Value>("eviction", pod, &PostParams::default(), &asked).await;
    let outcome = match &result {
        Ok(_) => Outcome::Evicted,
        Err(kube::Error::Api(status)) => outcome_of(status.code),
        Err(_) => Outcome::Failed,
    };
    let error = result.as_ref().err().map(in_words);
    match outcome {
        Outcome::Evicted => tracing::info!(%namespace, %pod, "evicted, so that it is made anew with its sidecar"),
        Outcome::Held => tracing::info!(%namespace, %pod, error, "a disruption budget forbids the eviction for now"),
        Outcome::Gone => tracing::info!(%namespace, %pod, error, "gone before it was evicted"),
        Outcome::Failed => tracing::warn!(%namespace, %pod, error, "cannot be evicted; it is tried again"),
    }
    outcome
}

fn outcome_of(code: u16) -> Outcome {
    match code {
        429 => Outcome::Held,
        404 | 409 => Outcome::Gone,
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;
    use crate::cluster::hand_made::{answer, refused};

    /// Evicts a pod of an API server that answers so; returns what came of it, and the question.
    async fn evicted(code: u16, is_leading: bool) -> (Outcome, Option<(String, Value)>) {
        let (ask, mut asked) = mpsc::channel(1);
        let service = service_fn(move |request: http::Request<Body>| {
            let ask = ask.clone();
            async move {
                let path = format!("{} {}", request.method(), request.uri().path());
                let body = request.into_body().collect_bytes().await.unwrap();
                ask.send((path, serde_json::from_slice(&body).unwrap())).await.unwrap();
                let good = || answer(201, &json!({"kind": "Status", "status": "Success", "code": 201}));
                Ok::<_, Infallible>(if code == 201 { good() } else { refused(code, "no") })
            }
        });
        let (wish, wishes) = mpsc::channel(QUEUE_MAX);
        let (outcomes, mut said) = mpsc::channel(QUEUE_MAX);
        let (_lead, leading) = watch::channel(is_leading.then_some(1));
        wish.send(Eviction { namespace: "a".into(), pod: "p".into(), uid: "u".into(), maker: "m".into() })
            .await
            .unwrap();
        drop(wish);
        run(Client::new(service, "default"), leading, wishes, outcomes, CancellationToken::new()).await;
        (said.recv().await.unwrap().1, asked.recv().await)
    }

    #[tokio::test]
    async fn the_eviction_api_is_asked_for_that_very_pod() {
        let (outcome, asked) = evicted(201, true).await;
        let (path, body) = asked.unwrap();
        assert_eq!((outcome, &*path), (Outcome::Evicted, "POST /api/v1/namespaces/a/pods/p/eviction"));
        assert_eq!(body["deleteOptions"]["preconditions"]["uid"], "u", "{body}");
    }

    #[tokio::test]
    async fn what_the_api_server_answers_is_told_apart() {
        for (code, outcome) in
            [(429, Outcome::Held), (404, Outcome::Gone), (409, Outcome::Gone), (403, Outcome::Failed)]
        {
            assert_eq!(evicted(code, true).await.0, outcome, "{code}");
        }
    }

    #[tokio::test]
    async fn who_does_not_lead_evicts_nothing() {
        assert_eq!(evicted(201, false).await, (Outcome::Gone, None));
    }
}
