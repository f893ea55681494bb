//! The certificates of other processes (the webhook, agents at their doors), and that API servers trust the webhook's: kept by
//! the leader, so that these may read no Secret and write nothing.
//!
//! Expected flow: the leader looks at both again and again, every 30 s unless asked otherwise. A leaf that is not there, is not
//! ours, lacks a name or ends within [`RENEW_BEFORE`](crate::serve::certificates::RENEW_BEFORE) is issued anew into its Secret
//! ([`SECRET`], [`DOOR_SECRET`]), which the kubelet mounts into the process. The certificates of our CA are applied as the
//! `caBundle` of the configurations that name the webhook's Service: a field of ours alone, so that whoever applies the rest
//! (Helm, Argo CD, `kubectl`) sees no drift.
//!
//! # Guarantees
//! - Nothing is written while both are as they should be.
//! - Of two authorities, both are trusted before the certificate is one of the next.
//! - A configuration that is not there, or names another Service, is left alone.
//! - What fails is told once per cause and tried again; without a certificate the webhook fails open.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::{ByteString, ClusterResourceScope};
use kube::Client;
use kube::Resource;
use kube::api::{Api, ObjectMeta, Patch};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spillway_delivery::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::in_words;
use super::keep::{MANAGED_BY, applying};
use super::lease::Leading;
use crate::serve::certificates::{self, Certificates, LeafPem};
use crate::serve::mounted::FILES;
use crate::succession;

/// The Secret of the webhook's certificate.
pub const SECRET: &str = "spillway-webhook-tls";

/// The Secret of the certificate that agents show at their doors.
pub const DOOR_SECRET: &str = "spillway-agent-tls";

/// Why they are not as they should be.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("no certificate can be issued")]
    Issue(#[source] certificates::CertificateError),
    #[error("the API server does not do it")]
    Ask(#[source] kube::Error),
}

/// A configuration of webhooks.
trait Configuration: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + DeserializeOwned {
    const KIND: &'static str;

    /// Returns the name of each webhook, and where it is.
    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for ValidatingWebhookConfiguration {
    const KIND: &'static str = "ValidatingWebhookConfiguration";

    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (&*hook.name, &hook.client_config)).collect()
    }
}

impl Configuration for MutatingWebhookConfiguration {
    const KIND: &'static str = "MutatingWebhookConfiguration";

    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (&*hook.name, &hook.client_config)).collect()
    }
}

/// What is kept.
#[derive(Debug)]
pub struct Keeper {
    /// The namespace of the webhook's Service, and ours.
    pub namespace: String,
    /// The Secret of the certificate.
    pub secret: &'static str,
    /// The webhook's Service.
    pub service: String,
    /// The configuration that names it; none where somebody else looks after that.
    pub configuration: Option<String>,
    /// The configuration of pods that names it; none where no sidecars are given.
    pub pods_configuration: Option<String>,
    /// The names of its certificate.
    pub names: Vec<String>,
    /// How often both are looked at.
    pub again: Duration,
    /// Who issues.
    pub certificates: Arc<Certificates>,
    /// The time.
    pub clock: Clock,
}

impl Keeper {
    /// Keeps both while this replica leads, until told to stop.
    pub async fn run(self, client: Client, mut leading: watch::Receiver<Leading>, stop: CancellationToken) {
        let mut told = String::new();
        loop {
            let leads = leading.borrow_and_update().is_some();
            if leads {
                match self.look(&client).await {
                    Ok(()) => told.clear(),
                    Err(error) => tell(&error, &mut told),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(Instant::now() + self.again), if leads => {}
                changed = leading.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn look(&self, client: &Client) -> Result<(), KeepError> {
        // Before a certificate that only the next authority issues.
        self.trust(client).await.map_err(KeepError::Ask)?;
        self.certificate(client).await
    }

    async fn certificate(&self, client: &Client) -> Result<(), KeepError> {
        let api: Api<Secret> = Api::namespaced(client.clone(), &self.namespace);
        let found = api.get_opt(self.secret).await.map_err(KeepError::Ask)?.map(stored);
        let (authority, now) = (self.certificates.authority(), self.now());
        if found.is_some_and(|leaf| authority.is_of_use(&leaf, &self.names, now)) {
            return Ok(());
        }
        let leaf = authority.issue_pem(&self.names, now).map_err(KeepError::Issue)?;
        api.patch(self.secret, &applying(), &Patch::Apply(secret(self.secret, leaf))).await.map_err(KeepError::Ask)?;
        tracing::info!(namespace = self.namespace, name = self.secret, "issued a certificate");
        Ok(())
    }

    async fn trust(&self, client: &Client) -> kube::Result<()> {
        if let Some(name) = &self.configuration {
            self.trust_in::<ValidatingWebhookConfiguration>(client, name).await?;
        }
        if let Some(name) = &self.pods_configuration {
            self.trust_in::<MutatingWebhookConfiguration>(client, name).await?;
        }
        Ok(())
    }

    async fn trust_in<T: Configuration>(&self, client: &Client, name: &str) -> kube::Result<()> {
        let api: Api<T> = Api::all(client.clone());
        let Some(found) = api.get_opt(name).await? else { return Ok(()) };
        let bundle = succession::bundle(&self.certificates.trusted().certificates);
        if let Some(patch) = self.trusting(&found, bundle) {
            api.patch(name, &applying(), &Patch::Apply(patch)).await?;
            tracing::info!(name, kind = T::KIND, "gave API servers our CA for the webhook");
        }
        Ok(())
    }

    /// Returns what is to be applied; `None` where it stands there already.
    fn trusting<T: Configuration>(&self, found: &T, bundle: String) -> Option<Value> {
        let bundle = ByteString(bundle.into_bytes());
        let is_ours = |(_, client): &(&str, &WebhookClientConfig)| {
            let service = client.service.as_ref();
            service.is_some_and(|service| service.namespace == self.namespace && service.name == self.service)
        };
        let ours: Vec<_> = found.hooks().into_iter().filter(is_ours).collect();
        // All of them, also those that have it: what is not applied again is given up.
        let hooks: Vec<_> =
            ours.iter().map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": bundle}})).collect();
        let is_stale = ours.iter().any(|(_, client)| client.ca_bundle.as_ref() != Some(&bundle));
        is_stale.then(|| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": T::KIND,
                "metadata": {"name": found.meta().name}, "webhooks": hooks,
            })
        })
    }

    fn now(&self) -> Timestamp {
        certificates::now(&self.clock)
    }
}

fn tell(error: &KeepError, told: &mut String) {
    let cause = match error {
        KeepError::Ask(cause) => in_words(cause),
        KeepError::Issue(cause) => cause.to_string(),
    };
    let text = format!("{error}: {cause}");
    if text != *told {
        tracing::warn!(
            error = text,
            "the certificate of another process is not kept; it is tried again (without one the webhook takes objects unseen, and no \
             agent starts with a door)"
        );
        *told = text;
    }
}

fn stored(secret: Secret) -> LeafPem {
    let data = secret.data.unwrap_or_default();
    let [certificate, key] = FILES
        .map(|name| data.get(name).map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default());
    LeafPem { certificate, key }
}

fn secret(name: &str, LeafPem { certificate, key }: LeafPem) -> Secret {
    let values = [certificate, key].map(|text| ByteString(text.into_bytes()));
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(FILES.map(str::to_owned).into_iter().zip(values).collect()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::certificates::Authority;

    fn keeper() -> Keeper {
        let clock = Clock::manual(1_800_000_000_000_000_000);
        let authority = Authority::generate(certificates::now(&clock)).unwrap();
        Keeper {
            namespace: "own".to_owned(),
            secret: SECRET,
            service: "hook".to_owned(),
            configuration: Some("it".to_owned()),
            pods_configuration: None,
            names: vec!["hook.own.svc".to_owned()],
            again: Duration::from_secs(30),
            certificates: Arc::new(Certificates::new(authority, vec!["x".into()], clock.clone()).unwrap()),
            clock,
        }
    }

    fn configuration(services: &[(&str, &str)], bundle: Option<&str>) -> ValidatingWebhookConfiguration {
        let hook = |(place, service): (usize, &(&str, &str))| {
            let bundle = bundle.map(|text| ByteString(text.as_bytes().to_vec()));
            json!({"name": format!("{place}.test"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"namespace": service.0, "name": service.1}, "caBundle": bundle}})
        };
        let hooks: Vec<_> = services.iter().enumerate().map(hook).collect();
        serde_json::from_value(json!({"metadata": {"name": "it"}, "webhooks": hooks})).unwrap()
    }

    #[test]
    fn what_names_our_service_is_given_our_authority_and_nothing_else_is_touched() {
        let keeper = keeper();
        let found = configuration(&[("own", "hook"), ("other", "hook"), ("own", "another")], None);
        let patch = keeper.trusting(&found, "CA".to_owned()).unwrap();
        assert_eq!(patch["webhooks"], json!([{"name": "0.test", "clientConfig": {"caBundle": "Q0E="}}]));
        assert_eq!(keeper.trusting(&configuration(&[("own", "hook")], Some("CA")), "CA".to_owned()), None);
        assert!(keeper.trusting(&configuration(&[("own", "hook")], Some("old")), "CA".to_owned()).is_some());
        assert_eq!(keeper.trusting(&configuration(&[("other", "hook")], None), "CA".to_owned()), None);
    }

    #[test]
    fn a_configuration_of_pods_is_given_it_too() {
        let mut of_pods = serde_json::to_value(configuration(&[("own", "hook"), ("x", "y")], None)).unwrap();
        of_pods["kind"] = "MutatingWebhookConfiguration".into();
        let found: MutatingWebhookConfiguration = serde_json::from_value(of_pods).unwrap();
        let patch = keeper().trusting(&found, "CA".to_owned()).unwrap();
        assert_eq!(patch["kind"], "MutatingWebhookConfiguration");
        assert_eq!(patch["webhooks"], json!([{"name": "0.test", "clientConfig": {"caBundle": "Q0E="}}]));
        assert_eq!(patch["metadata"], json!({"name": "it"}));
    }

    #[test]
    fn what_is_stored_is_found_again_and_is_of_use() {
        let keeper = keeper();
        let authority = keeper.certificates.authority();
        let leaf = authority.issue_pem(&keeper.names, keeper.now()).unwrap();
        let found = stored(secret(SECRET, leaf.clone()));
        assert_eq!(found, leaf);
        assert!(authority.is_of_use(&found, &keeper.names, keeper.now()));
        assert!(!authority.is_of_use(&stored(Secret::default()), &keeper.names, keeper.now()));
    }
}
