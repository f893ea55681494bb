//! What sidecars are made of; the same for a whole cluster.

use serde::{Deserialize, Serialize};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::quantity::Quantity;
use super::tuning::Tuning;
use super::{Reason, SettingsError, sidecar, tuning};

/// What sidecars are made of; the same for a whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Settings {
    /// The image of the agent.
    pub image: String,
    /// When it is pulled.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,
    /// Where the operator serves configuration: `https://HOST:PORT`.
    pub operator: String,
    /// Where the agent of the node takes what pods send: `https://HOST:PORT`.
    pub node_agent: String,
    /// The user and the group of the sidecar; not root.
    pub run_as_user: u32,
    /// What a sidecar asks for where the pod says nothing.
    pub requests: Amounts,
    /// What it is limited to where the pod says nothing.
    pub limits: Amounts,
    /// The most that a pod may say.
    pub max: Amounts,
    /// Bytes of the volume that holds what is not delivered yet.
    pub spool: Quantity,
    /// Where Backends of namespaces may be, besides what always is and is not.
    #[serde(default)]
    pub destinations: Destinations,
}

/// Where Backends of namespaces may be, besides what always is and is not: as the agents of nodes are told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Destinations {
    /// Networks, addresses and ports that are allowed although they are refused else.
    pub allow: Vec<String>,
    /// Networks and addresses that are refused, too.
    pub deny: Vec<String>,
}

impl Destinations {
    /// Returns whether all of it may be networks, addresses and ports: no names, and nothing that is more than one of them. The
    /// schema of the chart's values looks closer.
    fn is_plain(&self) -> bool {
        let is_plain = |text: &String| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:/".contains(&byte))
        };
        self.allow.iter().chain(&self.deny).all(is_plain)
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub enum PullPolicy {
    /// Each time a container starts.
    Always,
    /// When the node lacks it.
    #[default]
    IfNotPresent,
    /// Not at all.
    Never,
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Of processors.
    pub cpu: Quantity,
    /// Of memory.
    pub memory: Quantity,
}

impl Settings {
    /// Reads settings of JSON, and refuses those of which no sidecar is made: who gives sidecars and who looks for outdated ones
    /// believe the same.
    pub fn read(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = serde_json::from_str(text).map_err(SettingsError::Read)?;
        settings.fault().map_or(Ok(settings), |words| Err(SettingsError::Bounds(words)))
    }

    /// Returns what tells sidecars that are made of these settings from those of others, and of another build that makes them
    /// otherwise: 16 characters. What a pod says for itself makes no difference.
    pub fn revision(&self) -> String {
        let amounts = [self.requests, self.limits].map(sidecar::amounts);
        let made = json!([sidecar::container(self, Tuning::NOTHING, None), sidecar::volumes(self), amounts]);
        format!("{:016x}", xxh3_64(made.to_string().as_bytes()))
    }

    /// Returns why a pod with these annotations would be given no sidecar, where one of them is not known or out of bounds.
    pub fn refuses<'a>(&self, annotations: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Reason> {
        let owned = annotations.map(|(key, value)| (key.to_owned(), Some(value.to_owned()))).collect();
        Tuning::of(&owned, self).err().map(|(reason, _)| reason)
    }

    /// Returns the rule that is broken, if one is.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_https = |url: &str| url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
        let within = |less: Amounts, more: Amounts| less.cpu <= more.cpu && less.memory <= more.memory;
        let rules = [
            (self.image.is_empty(), "`image` is empty"),
            (!is_https(&self.operator), "`operator` is no https:// address"),
            (!is_https(&self.node_agent), "`nodeAgent` is no https:// address"),
            (self.run_as_user == 0, "`runAsUser` is root"),
            (
                self.requests.cpu < tuning::CPU_MIN || self.requests.memory < tuning::MEMORY_MIN,
                "`requests` are too low",
            ),
            (!within(self.requests, self.limits), "`requests` are above `limits`"),
            (!within(self.limits, self.max), "`limits` are above `max`"),
            (self.spool < sidecar::SPOOL_MIN, "`spool` is below 64Mi"),
            (!self.destinations.is_plain(), "`destinations` are no networks, addresses and ports"),
        ];
        rules.into_iter().find_map(|(is_broken, words)| is_broken.then_some(words))
    }
}
