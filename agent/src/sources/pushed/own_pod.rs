//! The sender at a listener of a sidecar: whoever reaches it is the pod that it sits in, since it listens on loopback and a pod
//! shares that with nobody.
//!
//! # Guarantees
//! - What is known of the sender is what the operator tells of the pod. Nothing of it comes from what is sent.
//! - Until the operator has told of the pod, and of what it runs, there is no sender, and nothing is said of pipelines.

use super::sender::{Sender, Way};
use super::targets::PushTargets;
use crate::pods::PodsReceiver;

/// The pod, as the operator tells of it.
#[derive(Debug, Clone)]
pub struct OwnPod {
    /// Where it is told: one alone.
    pub pods: PodsReceiver,
    /// The name of its node.
    pub node: Option<String>,
}

impl OwnPod {
    /// Returns the pod as it sends to `targets`; what is missing where it may not yet.
    pub(crate) fn sender(&self, way: Way, targets: &PushTargets) -> Result<Sender, &'static str> {
        let told = self.pods.borrow().clone();
        let pod = told.as_ref().and_then(|told| told.pods.only());
        let pod = pod.ok_or("the operator has not told of this pod yet, nothing was kept")?;
        if !targets.are_known() {
            return Err("the operator has not told of pipelines yet, nothing was kept");
        }
        Ok(Sender::pod(way, pod, self.node.as_deref().unwrap_or_default()))
    }
}
