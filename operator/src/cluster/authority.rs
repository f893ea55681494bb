//! Our CA in the cluster: read again and again by every replica, and replaced in time by the one that leads.
//!
//! Expected flow: [`find`] at the start, then [`Keeper::run`]. What happens next to the Secret says [`succession`]; this looks
//! every 30 s unless asked otherwise, writes it, and tells of it: the `ConfigMap` that is mounted, agents that are
//! connected ([`Hub::tell`]), and whoever asks [`Certificates`].
//!
//! # Guarantees
//! - The Secret is the truth. It is written by compare-and-swap alone, so that of two that lead for a moment one changes
//!   nothing; who follows takes what it reads there.
//! - No replica issues from an authority that it did not find in the `ConfigMap` in the same look, and a certificate goes from
//!   there only after it has gone from the Secret. The `ConfigMap` is read before the Secret and written over that version alone,
//!   so that nobody writes an older list over a newer one.
//! - What cannot be read or written changes nothing, is told once per cause, and is tried again.
//!
//! # Limits
//! One that follows shows what the authority before issued for up to the time between two looks: that is trusted still.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{Api, Patch, PostParams};
use serde_json::json;
use spillway_crds::served::Authorities;
use spillway_delivery::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::keep::{CA, MANAGED_BY, applying, secret};
use super::lease::Leading;
use super::{FIELD_MANAGER, in_words};
use crate::hub::Hub;
use crate::serve::certificates::{self, Authority, CertificateError, Certificates};
use crate::serve::stats::Authorities as Stats;
use crate::succession::{self, ASKED, Change, Stored, Told};
use crate::tickets::Tickets;

/// The key of the `ConfigMap`.
const FILE: &str = "ca.crt";

/// Why an authority is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The Secret is of no use.
    #[error("what Secret {CA} holds cannot be used as our CA; delete it to have a new one")]
    Use(#[from] CertificateError),
    /// The API server does not do it.
    #[error("the API server does not do it")]
    Ask(#[from] kube::Error),
    /// What is to be trusted is not where agents find it.
    #[error("the authority of Secret {CA} is not in ConfigMap {CA}")]
    Unpublished,
}

/// What stands in the cluster at the start.
#[derive(Debug)]
pub struct Found {
    /// Who issues.
    pub authority: Authority,
    /// Whom others are to trust.
    pub trusted: Authorities,
    /// Of pipelines that are held.
    pub tickets: Tickets,
}

/// Returns our CA, made where there is none; agents find it in the `ConfigMap`.
pub async fn find(client: &Client, namespace: &str, now: Timestamp) -> Result<Found, AuthorityError> {
    let map = published(client, namespace).await?;
    let made = Stored::first(&Authority::generate(now)?);
    let stored = stored(&secret(client, namespace, CA, || made.into_parts().0).await?);
    let (authority, trusted) = (stored.current(now)?, stored.trusted(now)?);
    if !holds(map.as_ref(), authority.certificate_pem()) {
        publish(client, namespace, map.as_ref(), &trusted).await?;
    }
    let tickets = stored.tickets(&authority);
    Ok(Found { authority, trusted, tickets })
}

/// Keeps it.
#[derive(Debug)]
pub struct Keeper {
    /// Where the Secret and the `ConfigMap` are.
    pub namespace: String,
    /// How often both are looked at.
    pub again: Duration,
    /// Who issues.
    pub certificates: Arc<Certificates>,
    /// Where agents are told.
    pub hub: Arc<Hub>,
    /// What is counted.
    pub stats: Stats,
    /// The time.
    pub clock: Clock,
}

/// What this leader saw published, by its hash, and since when.
type Seen = Option<(String, Timestamp)>;

impl Keeper {
    /// Looks until told to stop. Says in `settled` that this replica leads once it has looked since it does: before that it may
    /// know an authority of yesterday.
    pub async fn run(
        self,
        client: Client,
        mut leading: watch::Receiver<Leading>,
        settled: watch::Sender<Leading>,
        stop: CancellationToken,
    ) {
        let (mut seen, mut told) = (None, String::new());
        loop {
            let leads = *leading.borrow_and_update();
            seen = seen.filter(|_| leads.is_some());
            let settle = |leads| settled.send_if_modified(|settled| std::mem::replace(settled, leads) != leads);
            if leads.is_none() {
                settle(None);
            }
            let looked = self.look(&client, leads, &mut seen).await;
            match &looked {
                Ok(_) => {
                    told.clear();
                    settle(leads);
                }
                Err(error) => tell(error, &mut told),
            }
            if matches!(looked, Ok(Some(_))) && !stop.is_cancelled() {
                // What was changed is to be told of.
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(Instant::now() + self.again) => {}
                changed = leading.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes what stands in the cluster; where it leads, tells of it and makes the next change, which it returns.
    async fn look(&self, client: &Client, leads: Leading, seen: &mut Seen) -> Result<Option<Change>, AuthorityError> {
        let map = published(client, &self.namespace).await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &self.namespace);
        let secret = secrets.get(CA).await?;
        let (stored, now) = (stored(&secret), certificates::now(&self.clock));
        let trusted = Arc::new(stored.trusted(now)?);
        if leads.is_some() && text(map.as_ref()) != Some(&succession::bundle(&trusted.certificates)) {
            *seen = None;
            publish(client, &self.namespace, map.as_ref(), &trusted).await?;
        } else if !holds(map.as_ref(), stored.current(now)?.certificate_pem()) {
            return Err(AuthorityError::Unpublished);
        }
        self.follow(stored.current(now)?, &trusted)?;
        let Some(epoch) = leads else {
            self.stats.unaware(None);
            return Ok(None);
        };
        self.hub.tell(epoch, &trusted);
        let since = seen.take().filter(|(hash, _)| *hash == trusted.hash).map_or(now, |(_, since)| since);
        *seen = Some((trusted.hash.clone(), since));
        let told = Told { since, agents: self.hub.knowing(&trusted.hash, now) };
        self.stats.unaware(told.agents.filter(|_| stored.successor(now).is_some()));
        let Some((next, change)) = stored.next(now, Some(told))? else { return Ok(None) };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match secrets.replace(CA, &params, &with(secret, next)).await {
            Ok(written) => {
                self.stats.changed(change);
                self.note(change, &written, told);
                Ok(Some(change))
            }
            // Somebody else was faster; what it is now is seen at the next look.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Issues from `current`, and has `trusted` trusted.
    fn follow(&self, current: Authority, trusted: &Arc<Authorities>) -> Result<(), CertificateError> {
        self.certificates.trust(trusted.clone());
        let expires = current.expires();
        if current.certificate_pem() != self.certificates.authority().certificate_pem() {
            self.certificates.replace(current)?;
            tracing::info!(%expires, "another authority issues our certificates");
        }
        Ok(())
    }

    /// Says once what changed.
    fn note(&self, change: Change, written: &Secret, told: Told) {
        let now = certificates::now(&self.clock);
        let stored = stored(written);
        let expires =
            |authority: Option<Authority>| authority.map(|authority| tracing::field::display(authority.expires()));
        let agents = told.agents.unwrap_or_default();
        match change {
            Change::Made => {
                tracing::info!(
                    expires = expires(stored.successor(now)),
                    "made a successor of our CA: agents are told of it"
                );
            }
            Change::Used if agents.acknowledged < agents.live => tracing::warn!(
                expires = expires(stored.current(now).ok()),
                agents.live,
                agents.acknowledged,
                "the successor of our CA is used; agents that did not say that they trust it find it mounted"
            ),
            Change::Used => {
                tracing::info!(
                    expires = expires(stored.current(now).ok()),
                    agents.live,
                    "the successor of our CA is used"
                );
            }
            Change::Dropped => tracing::info!("the CA before is trusted no longer"),
        }
    }
}

async fn published(client: &Client, namespace: &str) -> kube::Result<Option<ConfigMap>> {
    Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(CA).await
}

/// Writes what is to be trusted over `found`, and over no later version of it.
async fn publish(
    client: &Client,
    namespace: &str,
    found: Option<&ConfigMap>,
    trusted: &Authorities,
) -> kube::Result<()> {
    let version = found.and_then(|found| found.metadata.resource_version.clone());
    let mut map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": CA, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
        "data": {FILE: succession::bundle(&trusted.certificates)},
    });
    if let Some(version) = version {
        map["metadata"]["resourceVersion"] = json!(version);
    }
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    api.patch(CA, &applying(), &Patch::Apply(map)).await?;
    let certificates = trusted.certificates.len();
    tracing::info!(namespace, name = CA, certificates, "gave agents the certificates of our CA");
    Ok(())
}

fn text(map: Option<&ConfigMap>) -> Option<&String> {
    map?.data.as_ref()?.get(FILE)
}

fn holds(map: Option<&ConfigMap>, certificate: &str) -> bool {
    text(map).is_some_and(|text| text.contains(certificate.trim()))
}

fn stored(secret: &Secret) -> Stored {
    let values = secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    let annotations = secret.metadata.annotations.as_ref();
    Stored::new(values.collect(), annotations.and_then(|annotations| annotations.get(ASKED)).cloned())
}

/// Returns the Secret as it is, with what it is to hold.
fn with(mut secret: Secret, next: Stored) -> Secret {
    let (values, asked) = next.into_parts();
    secret.data = Some(values.into_iter().map(|(key, value)| (key, ByteString(value))).collect());
    let annotations: &mut BTreeMap<_, _> = secret.metadata.annotations.get_or_insert_default();
    match asked {
        Some(asked) => annotations.insert(ASKED.to_owned(), asked),
        None => annotations.remove(ASKED),
    };
    secret
}

fn tell(error: &AuthorityError, told: &mut String) {
    let cause = match error {
        AuthorityError::Ask(cause) => in_words(cause),
        error => spillway_crds::words::of_error(error),
    };
    if cause != *told {
        tracing::warn!(error = cause, "our CA cannot be looked after; what was issued goes on, and it is tried again");
        *told = cause;
    }
}

#[cfg(test)]
mod tests;
