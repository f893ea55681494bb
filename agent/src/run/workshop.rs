//! Makes deliveries for jobs, of the backends as the manifests have them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use spillway_crds::kinds::CLUSTER;
use spillway_crds::{BackendPlan, Compiled};
use spillway_delivery::deliver::DeliverySpec;
use spillway_delivery::deliver::jobs::JobTarget;
use spillway_delivery::settings::PipelineSettings;

use super::pipelines::Binder;

/// Most names that a refusal lists.
const LISTED_MAX: usize = 20;

/// The backends there are.
#[derive(Debug)]
pub(super) struct Workshop {
    binder: Binder,
    known: Mutex<Known>,
}

/// What the manifests say.
#[derive(Debug, Clone, Default)]
struct Known {
    /// By namespace and name.
    backends: BTreeMap<(Arc<str>, Arc<str>), BackendPlan>,
    /// What the references of routes mean: namespace, pipeline, route and name into what names a backend for good.
    references: BTreeMap<[Arc<str>; 4], Arc<str>>,
}

impl Workshop {
    pub(super) fn new(binder: Binder) -> Self {
        Self { binder, known: Mutex::default() }
    }

    /// Takes the backends as they are from now on.
    pub(super) fn set_backends(&self, compiled: &Compiled) {
        let backends = compiled.backends.iter().map(|plan| ((plan.namespace.clone(), plan.name.clone()), plan.clone()));
        let references = compiled.pipelines.iter().flat_map(|plan| references(&plan.settings));
        let known = Known { backends: backends.collect(), references: references.collect() };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Makes the delivery of one job; says in words why it cannot.
    pub(super) fn make(&self, target: &JobTarget) -> Result<DeliverySpec, String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let JobTarget { namespace, pipeline, route, backend, job } = target;
        let plan = known.find(target)?;
        // A name of its own, so that files and keys of a job and of a delivery never meet.
        let known_as: Arc<str> = format!("{backend}/job-{job}").into();
        let names = (namespace.clone(), pipeline.clone());
        let spec = self.binder.delivery(&names, route, plan, known_as);
        let spec = spec.map_err(|error| format!("backend {backend} cannot be used: {error}"))?;
        Ok(DeliverySpec { backend_name: backend.clone(), ..spec })
    }
}

impl Known {
    /// Returns the backend that the route means by its name, else the one of the pipeline's namespace, else the one of the
    /// cluster: manifests of files are the machine's own, so whoever runs it may send to any.
    fn find(&self, target: &JobTarget) -> Result<&BackendPlan, String> {
        let JobTarget { namespace, pipeline, route, backend, .. } = target;
        let meant = self.references.get(&[namespace.clone(), pipeline.clone(), route.clone(), backend.clone()]);
        let referred = meant.and_then(|uid| self.backends.values().find(|plan| plan.uid == *uid));
        let places: [Arc<str>; 2] = [namespace.clone(), CLUSTER.into()];
        let named = || places.iter().find_map(|place| self.backends.get(&(place.clone(), backend.clone())));
        referred.or_else(named).ok_or_else(|| {
            let found = self.backends.keys().filter(|(of, _)| places.contains(of)).map(|(_, name)| &**name);
            let found: BTreeSet<&str> = found.collect();
            let found: Vec<&str> = found.into_iter().take(LISTED_MAX).collect();
            let missing = match &**namespace {
                CLUSTER => format!("no ClusterBackend {backend}"),
                _ => format!("no Backend {backend} in namespace {namespace}, and no ClusterBackend of this name"),
            };
            format!("{missing}; found: {}", if found.is_empty() { "none".to_owned() } else { found.join(", ") })
        })
    }
}

fn references(settings: &PipelineSettings) -> impl Iterator<Item = ([Arc<str>; 4], Arc<str>)> {
    settings.routes.iter().flat_map(move |route| {
        route.backends.iter().map(move |reference| {
            let key = [&settings.namespace, &settings.name, &route.name, &reference.name];
            (key.map(Arc::clone), reference.uid.clone())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::{Document, compile};

    const MANIFESTS: &str = "\
apiVersion: spillway.dev/v1alpha1
kind: Backend
metadata: {name: lake}
spec: {type: Stdout}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: lake}
spec: {type: Blackhole, allowedNamespaces: {selector: {}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ClusterBackend
metadata: {name: other}
spec: {type: Blackhole}
---
apiVersion: spillway.dev/v1alpha1
kind: MonitoringPipeline
metadata: {name: jobs}
spec:
  inputs: [{name: in, type: Events}]
  routes:
  - {name: own, backendRefs: [{name: lake}]}
  - {name: shared, backendRefs: [{kind: ClusterBackend, name: lake}]}
";

    #[test]
    fn a_job_goes_to_what_its_route_means_by_the_name() {
        let compiled = compile(&[Document::new("a.yaml", MANIFESTS)]);
        assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
        let backends = compiled.backends.iter().map(|plan| ((plan.namespace.clone(), plan.name.clone()), plan.clone()));
        let references = compiled.pipelines.iter().flat_map(|plan| references(&plan.settings));
        let known = Known { backends: backends.collect(), references: references.collect() };
        let found_from = |namespace: &str, route: &str, backend: &str| {
            let target = JobTarget {
                namespace: namespace.into(),
                pipeline: "jobs".into(),
                route: route.into(),
                backend: backend.into(),
                job: "1".into(),
            };
            known.find(&target).map(|plan| plan.uid.to_string())
        };
        let found = |route: &str, backend: &str| found_from("default", route, backend);
        assert_eq!(found("own", "lake").as_deref(), Ok("default.lake"));
        assert_eq!(found("shared", "lake").as_deref(), Ok("_cluster.lake"));
        assert_eq!(found("own", "other").as_deref(), Ok("_cluster.other"));
        assert_eq!(
            found("own", "sea").unwrap_err(),
            "no Backend sea in namespace default, and no ClusterBackend of this name; found: lake, other"
        );
        assert_eq!(found_from(CLUSTER, "own", "lake").as_deref(), Ok("_cluster.lake"));
        assert_eq!(found_from(CLUSTER, "own", "sea").unwrap_err(), "no ClusterBackend sea; found: lake, other");
    }
}
