//! What is new to an agent: an [`Answer`] that shares the slice it is made of, so that it is copied once, into the body.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use spillway_crds::served::{Answer, Ask, Authorities, Configuration, PodFacts, Revoked, TokenKeys, Version};

use super::Slice;

/// About how many bytes of JSON a pod has besides its labels and annotations.
const POD_BYTES: usize = 200;

/// What is new to an agent.
#[derive(Debug, Clone, Default)]
pub struct News {
    slice: Arc<Slice>,
    version: Option<Version>,
    pods: bool,
    authorities: Option<Arc<Authorities>>,
    behind: bool,
}

impl News {
    /// Returns what of `slice`, given out under `version`, is new to who asks.
    pub(super) fn of(slice: &Arc<Slice>, version: &Version, ask: &Ask) -> Self {
        let is_other = ask.running.as_ref().is_none_or(|running| running.hash != version.hash);
        let is_taken = ask.running.as_ref().is_none_or(|running| version.is_newer(running));
        Self {
            slice: Arc::clone(slice),
            version: (is_other && is_taken).then(|| version.clone()),
            pods: ask.pods.as_ref() != Some(&slice.pods.hash),
            authorities: None,
            behind: is_other && !is_taken,
        }
    }

    /// Returns it with `authorities`, where who asks takes such and has others.
    pub(super) fn with_authorities(self, authorities: &Arc<Authorities>, ask: &Ask) -> Self {
        let is_new = ask.authorities.as_ref().is_some_and(|known| *known != authorities.hash);
        Self { authorities: is_new.then(|| Arc::clone(authorities)), ..self }
    }

    /// Returns it without a configuration.
    pub(super) fn without_configuration(self) -> Self {
        Self { version: None, behind: false, ..self }
    }

    /// Returns whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.version.is_none() && !self.pods && self.authorities.is_none()
    }

    /// Returns whether the agent would not take the configuration that there is, because it runs one that is not older.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Returns about how many bytes its JSON has: those of the texts that it mostly consists of.
    pub(crate) fn bytes_about(&self) -> usize {
        let Configuration { manifests, secrets, .. } = &self.slice.configuration;
        let of_configuration = || {
            let manifests = manifests.iter().map(|text| text.len());
            manifests.chain(secrets.iter().map(|secret| secret.value.len())).sum::<usize>()
        };
        let of_pods = || {
            let marks = |pod: &PodFacts| {
                pod.labels
                    .iter()
                    .chain(pod.annotations.iter())
                    .map(|(key, value)| key.len() + value.len())
                    .sum::<usize>()
            };
            self.slice.pods.pods.iter().map(|pod| POD_BYTES + marks(pod)).sum::<usize>()
        };
        self.version.as_ref().map_or(0, |_| of_configuration()) + if self.pods { of_pods() } else { 0 }
    }

    /// Returns it as the JSON of the [`Answer`] that it is: what stands before the secrets, the secrets, and the rest.
    pub(crate) fn to_json(&self) -> serde_json::Result<[Vec<u8>; 3]> {
        let Configuration { version: _, manifests, namespaces, secrets, tickets: _, revoked, token_keys } =
            &self.slice.configuration;
        let [mut before, mut apart, mut after] = [b"{".to_vec(), Vec::new(), Vec::new()];
        if let Some(authorities) = &self.authorities {
            before.extend_from_slice(b"\"authorities\":");
            serde_json::to_writer(&mut before, &**authorities)?;
            if self.version.is_some() || self.pods {
                before.push(b',');
            }
        }
        if let Some(version) = &self.version {
            before.extend_from_slice(b"\"configuration\":");
            let tickets = &self.tickets();
            let rest = WithoutSecrets { version, manifests, namespaces, tickets, revoked, token_keys };
            serde_json::to_writer(&mut before, &rest)?;
            before.pop();
            before.extend_from_slice(b",\"secrets\":");
            serde_json::to_writer(&mut apart, secrets)?;
            after.extend_from_slice(if self.pods { b"}," } else { b"}" });
        }
        if self.pods {
            after.extend_from_slice(b"\"pods\":");
            serde_json::to_writer(&mut after, &self.slice.pods)?;
        }
        after.push(b'}');
        Ok([before, apart, after])
    }

    fn tickets(&self) -> BTreeMap<String, String> {
        let tickets = self.slice.tickets.as_ref();
        tickets.map(|tickets| tickets.of(self.slice.objects.keys())).unwrap_or_default()
    }

    /// Returns it as an answer of its own.
    pub fn to_answer(&self) -> Answer {
        let configuration = self.version.clone().map(|version| {
            let tickets = self.tickets();
            Configuration { version, tickets, ..self.slice.configuration.clone() }
        });
        let authorities = self.authorities.as_deref().cloned();
        Answer { configuration, pods: self.pods.then(|| self.slice.pods.clone()), authorities }
    }
}

/// A [`Configuration`] without its secrets, that owns nothing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WithoutSecrets<'a, M> {
    version: &'a Version,
    manifests: &'a M,
    namespaces: &'a BTreeMap<String, BTreeMap<String, String>>,
    tickets: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "<[Revoked]>::is_empty")]
    revoked: &'a [Revoked],
    token_keys: &'a Option<Arc<TokenKeys>>,
}
