//! The webhook as a process: its certificate from a mounted folder, what references are looked up in from three watches.
//!
//! Expected flow: files and watches beside [`validate`](crate::validate), which judges. It serves as soon as its certificate is
//! there; until the first listings are complete, objects are judged alone and references are not warned of.
//!
//! # Guarantees
//! - It reads Backends, `ClusterBackends` and the labels of namespaces, writes nothing and may read no Secret.
//! - A review asks nobody: it is answered from what the watches brought.
//!
//! # Limits
//! What it holds is one manifest per Backend and the labels of each namespace.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use spillway_delivery::supervisor::Supervisor;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::cli::WebhookFlags;
use crate::cluster::watch::{self, Noted, Over};
use crate::serve::mounted::Mounted;
use crate::validate::Known;
use crate::validate::endpoint::{Lookup, Stats, Webhook};
use crate::world::Change;
use spillway_crds::kinds::Kind;
use spillway_crds::words;

/// What is watched.
const OVER: [Over; 3] = [Over::Ours(Kind::Backend), Over::Ours(Kind::ClusterBackend), Over::Namespaces];

/// How soon a certificate that is not there is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts the webhook; its tasks end with `owner`.
pub async fn start(flags: &WebhookFlags, owner: &Arc<Supervisor>) -> anyhow::Result<()> {
    let socket = TcpListener::bind(flags.listen).with_context(|| format!("{} cannot be listened at", flags.listen))?;
    let stats = Stats::default();
    let (admin, health) = admin::serve(flags.admin, |registry| stats.register(registry), owner).await?;
    let client = Client::try_default().await.context("no way to the API server is known")?;
    let certificates = Arc::new(mounted(&flags.certificate).await);
    let (lookup, stop) = (Arc::new(Lookup::default()), owner.stopping());
    owner.spawn("lookup", look_up(watch::start(&client, owner, &OVER), lookup.clone(), stop.clone()));
    owner.spawn("endpoint", serve(Webhook { lookup, certificates, stats }, socket, stop));
    health.set_ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %flags.listen, admin = %admin, "ready");
    Ok(())
}

/// Waits for a certificate that is not there yet.
async fn mounted(folder: &Path) -> Mounted {
    let mut told = String::new();
    loop {
        match Mounted::read(folder) {
            Ok(mounted) => return mounted,
            Err(error) => {
                let text = words::of_error(&error);
                if text != told {
                    tracing::warn!(error = text, "no certificate yet; the leader of the controller issues it");
                    told = text;
                }
                sleep_until(Instant::now() + AGAIN).await;
            }
        }
    }
}

async fn serve(webhook: Webhook, socket: TcpListener, stop: CancellationToken) {
    if let Err(error) = webhook.run(socket, stop).await {
        tracing::error!(%error, "the endpoint of reviews ended");
    }
}

/// Lets reviews look up what the watches bring, from the end of their first listings.
async fn look_up(mut notes: mpsc::Receiver<Noted>, lookup: Arc<Lookup>, stop: CancellationToken) {
    let (mut listed, mut synced) = (Some(Known::default()), 0);
    while let Some(Some(note)) = stop.run_until_cancelled(notes.recv()).await {
        if let Noted::Synced(_) = note {
            synced += 1;
            if synced == OVER.len() {
                tracing::info!("references are looked up");
                lookup.replace(listed.take());
            }
            continue;
        }
        match &mut listed {
            Some(known) => take(known, note),
            None => lookup.change(|known| take(known, note)),
        }
    }
}

fn take(known: &mut Known, note: Noted) {
    match note {
        Noted::Object(key, both) => drop(known.backends.insert(key, both.0.text)),
        Noted::Gone(key) => drop(known.backends.remove(&key)),
        Noted::World(Change::Namespace(name, Some(labels))) => known.namespaces.insert(&name, labels),
        Noted::World(Change::Namespace(name, None)) => known.namespaces.remove(&name),
        Noted::World(_) | Noted::Good(..) | Noted::GoodGone(..) | Noted::Synced(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::convert::ObjectStatus;
    use crate::validate::review;
    use crate::world::{Manifest, ObjectKey};
    use serde_json::json;
    use spillway_crds::kinds::status::BackendStatus;

    fn backend(name: &str) -> Noted {
        let text = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "Backend",
            "metadata": {"name": name, "namespace": "fab12"}, "spec": {"type": "Stdout"}});
        let manifest = Manifest { uid: "u".into(), generation: 1, text: text.to_string().into(), last_good: None };
        Noted::Object(key(name), Box::new((manifest, ObjectStatus::Backend(BackendStatus::default()).to_text())))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::Backend, "fab12", name)
    }

    fn warnings(lookup: &Lookup) -> usize {
        let object = json!({"apiVersion": "spillway.dev/v1alpha1", "kind": "MonitoringPipeline",
            "metadata": {"name": "jobs", "namespace": "fab12"}, "spec": {"inputs": [{"name": "pushed", "type": "Events"}],
                "routes": [{"name": "all", "backendRefs": [{"name": "search"}]}]}});
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "CREATE", "name": "jobs", "namespace": "fab12", "object": object}});
        let known = lookup.known();
        review(body.to_string().as_bytes(), known.as_deref()).unwrap().response.warnings.len()
    }

    #[tokio::test]
    async fn references_are_judged_once_every_listing_is_complete_and_follow_what_changes() {
        let (out, notes) = mpsc::channel(16);
        let lookup = Arc::new(Lookup::default());
        let counts = async {
            let mut counts = Vec::new();
            let end = |over| Noted::Synced(over);
            for note in [
                backend("other"),
                end("backends"),
                end("clusterbackends"),
                end("namespaces"),
                backend("search"),
                Noted::Gone(key("search")),
            ] {
                out.send(note).await.unwrap();
                // Taken once there is room for as many as before.
                let free = out.reserve_many(16).await.unwrap();
                drop(free);
                tokio::task::yield_now().await;
                counts.push(warnings(&lookup));
            }
            drop(out);
            counts
        };
        let (counts, ()) = tokio::join!(counts, look_up(notes, lookup.clone(), CancellationToken::new()));
        assert_eq!(counts, [0, 0, 0, 1, 0, 1]);
    }
}
