//! The webhook as a process: its certificate from a mounted folder, what is looked up from watches, what sidecars are made of
//! from two files.
//!
//! Expected flow: files and watches beside [`validate`](crate::validate) and [`mutate`](crate::mutate), which judge. It serves as soon as its certificate is
//! there, and is ready once the first listings are complete, and until that certificate is over: before, no pod could be given its
//! sidecar. Who asks all the same until then has objects
//! judged alone, without warnings of references.
//!
//! # Guarantees
//! - It reads Backends, `ClusterBackends`, the labels of namespaces, and where sidecars are given pipelines and `LimitRange`s; it writes
//!   nothing and may read no Secret.
//! - A review asks nobody: it is answered from what the watches brought.
//!
//! # Limits
//! What it holds is one manifest per Backend, the name of each pipeline, the labels of each namespace and six amounts per `LimitRange`.

use std::collections::btree_map::Entry;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use spillway_delivery::supervisor::Supervisor;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Health};
use crate::cli::WebhookFlags;
use crate::cluster;
use crate::cluster::watch::{self, Noted, Over};
use crate::mutate::Sidecars;
use crate::serve::expires::Expires;
use crate::serve::mounted::Mounted;
use crate::validate::endpoint::{Lookup, Stats, Webhook};
use crate::validate::{Known, LIMIT_RANGES_MAX};
use crate::world::{Change, ObjectKey};
use spillway_crds::kinds::Kind;
use spillway_crds::words;

/// What is watched.
const OVER: [Over; 3] = [Over::Ours(Kind::Backend), Over::Ours(Kind::ClusterBackend), Over::Namespaces];

/// What is watched besides where sidecars are given.
const OVER_FOR_PODS: [Over; 2] = [Over::Ours(Kind::MonitoringPipeline), Over::LimitRanges];

/// How soon a certificate that is not there is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts the webhook; its tasks end with `owner`.
pub async fn start(flags: &WebhookFlags, owner: &Arc<Supervisor>) -> anyhow::Result<()> {
    let socket = TcpListener::bind(flags.listen).with_context(|| format!("{} cannot be listened at", flags.listen))?;
    let stats = Stats::default();
    let (admin, health) = admin::serve(flags.admin, |registry| stats.register(registry), owner).await?;
    let client = cluster::connect().await?;
    health.only_before(stats.expires.clone());
    let certificates = Arc::new(mounted(&flags.certificate, &stats.expires).await);
    let sidecars = sidecars(flags).map(Arc::new);
    let for_pods: &[Over] = if sidecars.is_some() { &OVER_FOR_PODS } else { &[] };
    let over = [&OVER[..], for_pods].concat();
    let (lookup, stop) = (Arc::new(Lookup::default()), owner.stopping());
    if let Some(sidecars) = &sidecars {
        owner.spawn("sidecars", Arc::clone(sidecars).keep(stop.clone()));
    }
    let listing = watch::start(&client, owner, &over);
    owner.spawn("lookup", look_up(listing, over.len(), (lookup.clone(), health), stop.clone()));
    owner.spawn("endpoint", serve(Webhook { lookup, sidecars, certificates, stats }, socket, stop));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %flags.listen, admin = %admin, "listening");
    Ok(())
}

/// Reads what sidecars are made of, where they are given.
fn sidecars(flags: &WebhookFlags) -> Option<Sidecars> {
    Some(Sidecars::open(flags.sidecars.as_deref()?, flags.sidecar_ca.as_deref()?))
}

/// Waits for a certificate that is not there yet.
async fn mounted(folder: &Path, expires: &Expires) -> Mounted {
    let mut told = String::new();
    loop {
        match Mounted::read(folder, expires.clone()) {
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

/// Lets reviews look up what the watches bring, from the end of their first listings; it is ready from then on.
async fn look_up(
    mut notes: mpsc::Receiver<Noted>,
    listings: usize,
    (lookup, health): (Arc<Lookup>, Arc<Health>),
    stop: CancellationToken,
) {
    let (mut listed, mut synced) = (Some(Known::default()), 0);
    while let Some(Some(note)) = stop.run_until_cancelled(notes.recv()).await {
        if let Noted::Synced(_) = note {
            synced += 1;
            if synced == listings {
                lookup.replace(listed.take());
                health.set_ready();
                tracing::info!("ready: references are looked up");
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
        Noted::Object(key, _) if key.kind == Kind::MonitoringPipeline => {
            known.pipelines.entry(Arc::from(&*key.namespace)).or_default().insert(key.name.to_string());
        }
        Noted::Gone(key) if key.kind == Kind::MonitoringPipeline => forget(known, &key),
        Noted::Object(key, both) => drop(known.backends.insert(key, both.0.text)),
        Noted::Gone(key) => drop(known.backends.remove(&key)),
        Noted::World(Change::Namespace(name, Some(labels))) => known.namespaces.insert(&name, labels),
        Noted::World(Change::Namespace(name, None)) => known.namespaces.remove(&name),
        Noted::LimitRange([namespace, name], Some(limits)) => {
            let ranges = known.limits.entry(namespace).or_default();
            if ranges.len() < LIMIT_RANGES_MAX || ranges.contains_key(&name) {
                ranges.insert(name, limits);
            }
        }
        Noted::LimitRange([namespace, name], None) => {
            let Entry::Occupied(mut ranges) = known.limits.entry(namespace) else { return };
            ranges.get_mut().remove(&name);
            if ranges.get().is_empty() {
                ranges.remove();
            }
        }
        Noted::World(_) | Noted::Good(..) | Noted::GoodGone(..) | Noted::Synced(_) => {}
    }
}

fn forget(known: &mut Known, key: &ObjectKey) {
    let Some(names) = known.pipelines.get_mut(&*key.namespace) else { return };
    names.remove(&*key.name);
    if names.is_empty() {
        known.pipelines.remove(&*key.namespace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::convert::ObjectStatus;
    use crate::validate::review;
    use crate::world::Manifest;
    use serde_json::json;
    use spillway_crds::inject::LimitRange;
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

    #[test]
    fn pipelines_come_and_go() {
        let mut known = Known::default();
        let key = ObjectKey::new(Kind::MonitoringPipeline, "fab12", "jobs");
        let Noted::Object(_, both) = backend("any") else { panic!("an object") };
        take(&mut known, Noted::Object(key.clone(), both));
        assert!(known.offer("fab12").pipelines.contains("jobs") && known.backends.is_empty());
        take(&mut known, Noted::Gone(key.clone()));
        take(&mut known, Noted::Gone(key));
        assert!(known.offer("fab12").pipelines.is_empty() && known.pipelines.is_empty());
    }

    #[test]
    fn limit_ranges_come_and_go_and_the_tightest_counts() {
        let mut known = Known::default();
        let range = |max: &str| LimitRange::of(&json!({"limits": [{"type": "Container", "max": {"cpu": max}}]}));
        let mut note = |name: &str, limits| {
            take(&mut known, Noted::LimitRange(["fab12".into(), name.into()], limits));
            (known.offer("fab12").limits, known.limits.len())
        };
        assert_eq!(note("a", Some(range("1"))), (range("1"), 1));
        assert_eq!(note("b", Some(range("100m"))), (range("100m"), 1));
        assert_eq!(note("b", Some(range("2"))), (range("1"), 1));
        for number in 0..LIMIT_RANGES_MAX {
            note(&format!("more-{number:03}"), Some(range("3")));
        }
        assert_eq!(note("more-063", Some(range("1m"))).0, range("1"), "one too many is not known");
        assert_eq!(note("a", None).0, range("2"));
        assert_eq!(known.offer("fab13").limits, LimitRange::default());
        for range in known.limits["fab12"].keys().cloned().collect::<Vec<_>>() {
            take(&mut known, Noted::LimitRange(["fab12".into(), range], None));
        }
        assert!(known.limits.is_empty());
    }

    #[tokio::test]
    async fn it_is_ready_and_judges_references_once_every_listing_is_complete_and_follows_what_changes() {
        let (out, notes) = mpsc::channel(16);
        let (lookup, health) = (Arc::new(Lookup::default()), Arc::<Health>::default());
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
                counts.push((health.is_ready(), warnings(&lookup)));
            }
            drop(out);
            counts
        };
        let (counts, ()) =
            tokio::join!(counts, look_up(notes, 3, (lookup.clone(), health.clone()), CancellationToken::new()));
        let expected = [(false, 0), (false, 0), (false, 0), (true, 1), (true, 0), (true, 1)];
        assert_eq!(counts, expected, "ready or not, and warnings");
    }
}
