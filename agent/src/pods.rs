//! The pods of this node as the operator tells of them: labels, annotations, owners, by uid.
//!
//! Guarantees: one table for all who look, replaced as a whole; who waits is woken by a new one. What is not in the newest
//! table is unknown, or gone. Must not know: who asks, and where tables come from.

use std::collections::HashMap;
use std::sync::Arc;

use spillway_crds::served::{PodFacts, Pods, TokenKeys};
use tokio::sync::watch;
use tokio::time::Instant;

/// The pods of a node.
#[derive(Debug, Clone, Default)]
pub struct NodePods {
    /// The uid of a static pod is a hash of its manifest, which others may share, and an annotation that any pod may have.
    by_uid: HashMap<Arc<str>, Vec<Arc<PodFacts>>>,
}

/// The newest table.
#[derive(Debug, Clone)]
pub struct Told {
    /// The table.
    pub pods: Arc<NodePods>,
    /// When the operator last said that it is the newest; `None` while it is the one that an earlier process kept.
    pub confirmed: Option<Instant>,
}

/// Where the newest table is; `None` until there is one.
pub type PodsReceiver = watch::Receiver<Option<Told>>;

/// Where the newest table is put.
pub type PodsSender = watch::Sender<Option<Told>>;

/// Where the newest keys are that tokens of pods are verified with; `None` until there are any.
pub type TokenKeysReceiver = watch::Receiver<Option<Arc<TokenKeys>>>;

/// Where the newest keys are put.
pub type TokenKeysSender = watch::Sender<Option<Arc<TokenKeys>>>;

impl NodePods {
    /// Returns the table of what was told.
    pub fn new(pods: Pods) -> Self {
        let mut by_uid: HashMap<Arc<str>, Vec<_>> = HashMap::with_capacity(pods.pods.len());
        for pod in pods.pods {
            by_uid.entry(pod.uid.clone()).or_default().push(pod);
        }
        Self { by_uid }
    }

    /// Returns what is known of the pod with this uid, if it is the one of this namespace and name.
    pub fn get(&self, uid: &str, namespace: &str, name: &str) -> Option<&Arc<PodFacts>> {
        self.by_uid.get(uid)?.iter().find(|pod| *pod.namespace == *namespace && *pod.name == *name)
    }

    /// Returns the pod, where there is one and no other: a sidecar is told of its own alone.
    pub fn only(&self) -> Option<&Arc<PodFacts>> {
        let mut all = self.by_uid.values().flatten();
        all.next().filter(|_| all.next().is_none())
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.by_uid.values().map(Vec::len).sum()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_uid.is_empty()
    }
}

/// Returns whether a pod wants its logs to be left alone.
pub fn opts_out(pod: &PodFacts) -> bool {
    pod.keeps_logs_out()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::served::LOGS_MARK;

    #[test]
    fn a_pod_is_found_by_uid_namespace_and_name() {
        let pod = PodFacts { uid: "u".into(), namespace: "a".into(), name: "b".into(), ..PodFacts::default() };
        let table = NodePods::new(Pods { hash: String::new(), pods: vec![Arc::new(pod)] });
        assert_eq!((table.len(), table.is_empty()), (1, false));
        assert!(table.get("u", "a", "b").is_some() && table.only().is_some());
        assert!(
            table.get("u", "a", "c").is_none()
                && table.get("u", "c", "b").is_none()
                && table.get("v", "a", "b").is_none()
        );
    }

    #[test]
    fn a_pod_that_claims_the_uid_of_another_one_does_not_hide_it() {
        let pod = |namespace: &str| PodFacts {
            uid: "u".into(),
            namespace: namespace.into(),
            name: "b".into(),
            ..PodFacts::default()
        };
        let table = NodePods::new(Pods { hash: String::new(), pods: ["a", "c"].map(|one| pod(one).into()).into() });
        assert_eq!((table.len(), table.only()), (2, None));
        assert_eq!(["a", "c"].map(|one| table.get("u", one, "b").unwrap().namespace.to_string()), ["a", "c"]);
    }

    #[test]
    fn only_the_word_false_opts_out() {
        let pod = |value: &str| PodFacts { annotations: [(LOGS_MARK, value)].into(), ..PodFacts::default() };
        assert!(opts_out(&pod("false")) && !opts_out(&pod("true")) && !opts_out(&PodFacts::default()));
    }
}
