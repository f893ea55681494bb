//! What is new to an agent: an [`Answer`] that shares the slice it is made of, so that it is copied once, into the body.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};
use spillway_crds::served::{Answer, Ask, Configuration, Pods, ServedSecret, Version};

use super::Slice;

/// What is new to an agent. Serialises as the [`Answer`] that it is.
#[derive(Debug, Clone, Default)]
pub struct News {
    slice: Arc<Slice>,
    version: Option<Version>,
    pods: bool,
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
            behind: is_other && !is_taken,
        }
    }

    /// Returns whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.version.is_none() && !self.pods
    }

    /// Returns whether the agent would not take the configuration that there is, because it runs one that is not older.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Returns it as an answer of its own.
    pub fn to_answer(&self) -> Answer {
        let configuration = self.version.clone().map(|version| {
            let Configuration { version: _, manifests, namespaces, secrets } = self.slice.configuration.clone();
            Configuration { version, manifests, namespaces, secrets }
        });
        Answer { configuration, pods: self.pods.then(|| self.slice.pods.clone()) }
    }
}

/// An [`Answer`] that owns nothing.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Borrowed<'a> {
    configuration: Option<BorrowedConfiguration<'a>>,
    pods: Option<&'a Pods>,
}

/// A [`Configuration`] that owns nothing.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct BorrowedConfiguration<'a> {
    version: &'a Version,
    manifests: &'a [Arc<str>],
    namespaces: &'a BTreeMap<String, BTreeMap<String, String>>,
    secrets: &'a [ServedSecret],
}

impl Serialize for News {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Configuration { version: _, manifests, namespaces, secrets } = &self.slice.configuration;
        let configuration =
            self.version.as_ref().map(|version| BorrowedConfiguration { version, manifests, namespaces, secrets });
        Borrowed { configuration, pods: self.pods.then_some(&self.slice.pods) }.serialize(serializer)
    }
}
