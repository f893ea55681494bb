//! Makes deliveries for jobs, of the backends as the manifests have them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use spillway_crds::BackendPlan;
use spillway_delivery::deliver::DeliverySpec;
use spillway_delivery::deliver::jobs::JobTarget;

use super::pipelines::Binder;

/// Most names that a refusal lists.
const LISTED_MAX: usize = 20;

/// Namespace and name of a backend.
type Name = (Arc<str>, Arc<str>);

/// The backends there are.
#[derive(Debug)]
pub(super) struct Workshop {
    binder: Binder,
    backends: Mutex<BTreeMap<Name, BackendPlan>>,
}

impl Workshop {
    pub(super) fn new(binder: Binder) -> Self {
        Self { binder, backends: Mutex::default() }
    }

    /// Takes the backends as they are from now on.
    pub(super) fn set_backends(&self, plans: &[BackendPlan]) {
        let by_name = plans.iter().map(|plan| ((plan.namespace.clone(), plan.name.clone()), plan.clone()));
        *self.backends.lock().unwrap_or_else(PoisonError::into_inner) = by_name.collect();
    }

    /// Makes the delivery of one job; says in words why it cannot.
    pub(super) fn make(&self, target: &JobTarget) -> Result<DeliverySpec, String> {
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let JobTarget { namespace, pipeline, route, backend, job } = target;
        let Some(plan) = backends.get(&(namespace.clone(), backend.clone())) else {
            let found = backends.keys().filter(|(of, _)| of == namespace).map(|(_, name)| &**name);
            let found: Vec<&str> = found.take(LISTED_MAX).collect();
            return Err(format!("no backend {backend} is in namespace {namespace}; found: {}", found.join(", ")));
        };
        // A name of its own, so that files and keys of a job and of a delivery never meet.
        let known_as: Arc<str> = format!("{backend}/job-{job}").into();
        let names = (namespace.clone(), pipeline.clone());
        let spec = self.binder.delivery(&names, route, plan, known_as);
        let spec = spec.map_err(|error| format!("backend {backend} cannot be used: {error}"))?;
        Ok(DeliverySpec { backend_name: backend.clone(), ..spec })
    }
}
