//! Makes deliveries for jobs, of the backends as the manifests have them, and makes them anew when their backends are edited.
//!
//! # Guarantees
//! - A job that runs goes to the backend that it began with, as the manifests have that now; never to another of its name.
//! - A job whose backend is removed, or does not grant the namespace of the pipeline any more, ends, and says so.
//! - A backend whose manifest has errors, or cannot be read, or that cannot be made, leaves the job with what it had.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spillway_crds::kinds::CLUSTER;
use spillway_crds::served::Revoked;
use spillway_crds::{BackendPlan, Compiled};
use spillway_delivery::deliver::jobs::{JobTarget, Renewed};
use spillway_delivery::deliver::{DeliverySpec, Engine};
use spillway_delivery::settings::PipelineSettings;

use super::pipelines::Binder;
use crate::config::manifests::Read;

/// Most names that a refusal lists.
const LISTED_MAX: usize = 20;

/// The backends there are.
#[derive(Debug)]
pub(super) struct Workshop {
    binder: Binder,
    known: Mutex<Arc<Known>>,
    /// Of what the delivery of each job was made.
    made: Mutex<BTreeMap<JobName, Made>>,
}

/// Of what the delivery of a job was made.
#[derive(Debug, Clone)]
struct Made {
    plan: BackendPlan,
    /// The file of its manifest.
    file: Arc<str>,
    /// Whether it is of the cluster and granted the pipeline's namespace.
    granted: bool,
}

/// Namespace and name of a pipeline, and the id of one of its jobs.
type JobName = (Arc<str>, Arc<str>, String);

/// What the manifests say.
#[derive(Debug, Clone, Default)]
struct Known {
    /// By namespace and name.
    backends: BTreeMap<(Arc<str>, Arc<str>), BackendPlan>,
    /// What the references of routes mean: namespace, pipeline, route and name into what names a backend for good.
    references: BTreeMap<[Arc<str>; 4], Arc<str>>,
    /// What else of it says whether a backend is there, and for whom.
    compiled: Compiled,
    /// Files whose objects are not known now.
    unread: BTreeSet<Arc<str>>,
    /// What pipelines may not deliver to any more.
    revoked: Vec<Revoked>,
}

impl Workshop {
    pub(super) fn new(binder: Binder) -> Self {
        Self { binder, known: Mutex::default(), made: Mutex::default() }
    }

    /// Takes the backends as they are from now on.
    pub(super) fn set_backends(&self, read: &Read) {
        let known = Known { unread: read.unread.clone(), ..Known::of(&read.compiled, &read.revoked) };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
    }

    fn known(&self) -> Arc<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the delivery of one job; says in words why it cannot.
    pub(super) fn make(&self, target: &JobTarget) -> Result<DeliverySpec, String> {
        let known = self.known();
        self.make_of(target, &known, known.find(target)?)
    }

    /// Gives jobs that run their backends as they are now, and ends those that have none any more.
    pub(super) async fn renew(&self, engine: &Engine) {
        let known = self.known();
        let running = Mutex::new(BTreeSet::new());
        let renewed = |target: &JobTarget| {
            running.lock().unwrap_or_else(PoisonError::into_inner).insert(name_of(target));
            self.renewed(target, &known)
        };
        engine.renew_jobs(&renewed).await;
        let running = running.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.made().retain(|job, _| running.contains(job));
    }

    fn renewed(&self, target: &JobTarget, known: &Known) -> Renewed {
        let mut made = self.made().get(&name_of(target)).cloned();
        if let Some(made) = &mut made {
            if let Some(why) = known.why_gone(target, made) {
                return Renewed::Ends(why);
            }
            if !made.granted && known.grants(target, &made.plan) == Some(true) {
                made.granted = true;
                self.made().insert(name_of(target), made.clone());
            }
        }
        let Some(plan) = known.newer(target, made.as_ref().map(|made| &made.plan)) else { return Renewed::AsItIs };
        match self.make_of(target, known, plan) {
            Ok(spec) => Renewed::To(Box::new(spec)),
            Err(error) => {
                tracing::warn!(job = target.job, error, "job goes on with the backend it had");
                Renewed::AsItIs
            }
        }
    }

    fn made(&self) -> MutexGuard<'_, BTreeMap<JobName, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_of(&self, target: &JobTarget, known: &Known, plan: &BackendPlan) -> Result<DeliverySpec, String> {
        let JobTarget { namespace, pipeline, route, backend, job } = target;
        // A name of its own, so that files and keys of a job and of a delivery never meet.
        let known_as: Arc<str> = format!("{backend}/job-{job}").into();
        let names = (namespace.clone(), pipeline.clone());
        let spec = self.binder.delivery(&names, route, plan, known_as);
        let spec = spec.map_err(|error| format!("backend {backend} cannot be used: {error}"))?;
        self.made().insert(name_of(target), known.made(target, plan));
        Ok(DeliverySpec { backend_name: backend.clone(), ..spec })
    }
}

fn name_of(target: &JobTarget) -> JobName {
    (target.namespace.clone(), target.pipeline.clone(), target.job.clone())
}

impl Known {
    fn of(compiled: &Compiled, revoked: &[Revoked]) -> Self {
        let backends = compiled.backends.iter().map(|plan| ((plan.namespace.clone(), plan.name.clone()), plan.clone()));
        let references = compiled.pipelines.iter().flat_map(|plan| references(&plan.settings));
        Self {
            backends: backends.collect(),
            references: references.collect(),
            compiled: compiled.clone(),
            unread: BTreeSet::new(),
            revoked: revoked.to_vec(),
        }
    }

    fn is_revoked(&self, namespace: &str, uid: &str) -> bool {
        self.revoked.iter().any(|revoked| revoked.is_about(namespace, uid))
    }

    fn made(&self, target: &JobTarget, plan: &BackendPlan) -> Made {
        let file = self.compiled.objects.get(&plan.label()).cloned().unwrap_or_default();
        Made { plan: plan.clone(), file, granted: self.grants(target, plan) == Some(true) }
    }

    /// Whether a destination of the cluster grants the namespace of a job's pipeline; one of a namespace grants nothing.
    fn grants(&self, target: &JobTarget, plan: &BackendPlan) -> Option<bool> {
        let is_asked = *plan.namespace == *CLUSTER && *target.namespace != *CLUSTER;
        if is_asked { self.compiled.is_granted(&target.namespace, &plan.uid) } else { Some(false) }
    }

    /// Returns why a job can have its backend no more. A manifest with errors, or in a file that cannot be read, says nothing.
    fn why_gone(&self, target: &JobTarget, made: &Made) -> Option<String> {
        let (plan, label) = (&made.plan, made.plan.label());
        let not_granted = || format!("{label} does not grant namespace {} any more", target.namespace);
        if self.is_revoked(&target.namespace, &plan.uid) {
            return Some(not_granted());
        }
        let Some(now) = self.backends.get(&(plan.namespace.clone(), plan.name.clone())) else {
            let is_there = self.compiled.objects.contains_key(&label) || self.unread.contains(&made.file);
            return (!is_there).then(|| format!("{label} is not in the configuration any more"));
        };
        if now.uid != plan.uid {
            return Some(format!("{label} was removed, and another of its name is there"));
        }
        let grants = if made.granted { self.grants(target, plan) } else { None };
        let revoked = grants == Some(false) || (made.granted && grants.is_none() && !self.is_served(target));
        revoked.then(not_granted)
    }

    /// Whether the pipeline of a job is there, good or not: an operator serves none whose grant is revoked.
    fn is_served(&self, target: &JobTarget) -> bool {
        let label = format!("MonitoringPipeline {}/{}", target.namespace, target.pipeline);
        self.compiled.objects.contains_key(&label) || !self.unread.is_empty()
    }

    /// Returns the backend of a job as it is now, where that is not what its delivery was `made` of.
    fn newer(&self, target: &JobTarget, made: Option<&BackendPlan>) -> Option<&BackendPlan> {
        match made {
            Some(made) => self.backends.values().find(|plan| plan.uid == made.uid).filter(|plan| *plan != made),
            None => self.find(target).ok(),
        }
    }

    /// Returns the backend that the route means by its name, else the one of the pipeline's namespace, else the one of the
    /// cluster: manifests of files are the machine's own, so whoever runs it may send to any.
    fn find(&self, target: &JobTarget) -> Result<&BackendPlan, String> {
        let JobTarget { namespace, pipeline, route, backend, .. } = target;
        let meant = self.references.get(&[namespace.clone(), pipeline.clone(), route.clone(), backend.clone()]);
        let referred = meant.and_then(|uid| self.backends.values().find(|plan| plan.uid == *uid));
        let places: [Arc<str>; 2] = [namespace.clone(), CLUSTER.into()];
        let named = || places.iter().find_map(|place| self.backends.get(&(place.clone(), backend.clone())));
        let may_use = |plan: &&BackendPlan| !self.is_revoked(namespace, &plan.uid);
        referred.or_else(named).filter(may_use).ok_or_else(|| {
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

    fn known(text: &str) -> Known {
        Known::of(&compile(&[Document::new("a.yaml", text)]), &[])
    }

    fn target(namespace: &str, route: &str, backend: &str) -> JobTarget {
        JobTarget {
            namespace: namespace.into(),
            pipeline: "jobs".into(),
            route: route.into(),
            backend: backend.into(),
            job: "1".into(),
        }
    }

    #[test]
    fn a_job_goes_over_when_its_own_backend_is_edited_and_never_to_another_of_its_name() {
        let before = known(MANIFESTS);
        let job = target("default", "shared", "lake");
        let made = before.find(&job).unwrap().clone();
        assert_eq!((&*made.uid, before.newer(&job, Some(&made))), ("_cluster.lake", None));
        // The pipeline is left out, so that nothing says what its route means.
        let edited =
            MANIFESTS.replace("{type: Blackhole, allowed", "{type: Stdout, allowed").replace("name: own", "nam: own");
        let now = known(&edited);
        assert_eq!(now.find(&job).map(|plan| &*plan.uid), Ok("default.lake"));
        assert_eq!(now.newer(&job, Some(&made)).map(|plan| (&*plan.uid, plan != &made)), Some(("_cluster.lake", true)));
        let gone = known(
            &MANIFESTS
                .replace("kind: ClusterBackend\nmetadata: {name: lake}", "kind: ClusterBackend\nmetadata: {name: sea}"),
        );
        assert_eq!(gone.newer(&job, Some(&made)), None);
        // One that began without a backend takes what its name means.
        assert_eq!(before.newer(&job, None), Some(&made));
    }

    #[test]
    fn a_job_ends_when_its_backend_is_removed_or_its_grant_is_and_for_no_error_in_a_manifest() {
        const NAMESPACE: &str =
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {tier: one}}\n";
        let manifests = MANIFESTS.replace("selector: {}", "selector: {matchLabels: {tier: one}}") + NAMESPACE;
        let before = known(&manifests);
        let made = |target: &JobTarget| before.made(target, before.find(target).unwrap());
        let (own, shared) = (target("default", "own", "lake"), target("default", "shared", "lake"));
        let other = target("default", "own", "other");
        let why = |text: &str, target: &JobTarget| known(text).why_gone(target, &made(target));
        let say = |text: &str| Some(text.to_owned());
        for target in [&own, &shared, &other] {
            assert_eq!(why(&manifests, target), None, "{target:?}");
        }
        assert_eq!((made(&own).granted, made(&shared).granted, made(&other).granted), (false, true, false));
        // Gone, each for its own jobs alone.
        let sea = |kind: &str| {
            let [before, after] = ["lake", "sea"].map(|name| format!("\nkind: {kind}\nmetadata: {{name: {name}}}"));
            manifests.replace(&before, &after)
        };
        assert_eq!(why(&sea("Backend"), &own), say("Backend default/lake is not in the configuration any more"));
        assert_eq!(why(&sea("Backend"), &shared), None);
        assert_eq!(
            why(&sea("ClusterBackend"), &shared),
            say("ClusterBackend lake is not in the configuration any more")
        );
        // There, and bad: it may be mended.
        assert_eq!(why(&manifests.replace("{type: Stdout}", "{type: Stdin}"), &own), None);
        // In a file that is not YAML now.
        let unread = Known { unread: BTreeSet::from(["a.yaml".into()]), ..known("") };
        assert_eq!(unread.why_gone(&own, &made(&own)), None);
        assert_eq!(
            known("").why_gone(&own, &made(&own)),
            say("Backend default/lake is not in the configuration any more")
        );
        // No grant any more: by its selector, by the labels of the namespace, or because the pipeline is not served now.
        let revoked = say("ClusterBackend lake does not grant namespace default any more");
        assert_eq!(why(&manifests.replace("matchLabels: {tier: one}", "matchLabels: {tier: two}"), &shared), revoked);
        assert_eq!(why(&manifests.replace("labels: {tier: one}}\n", "labels: {tier: two}}\n"), &shared), revoked);
        let untold = manifests.replace(NAMESPACE, "");
        assert_eq!(why(&untold, &shared), None, "labels that are not known say nothing");
        assert_eq!(why(&untold.replace("metadata: {name: jobs}", "metadata: {name: tasks}"), &shared), revoked);
        // One that was never granted has nothing to lose: whoever runs the machine sends where they like.
        assert_eq!(why(&manifests.replace("tier: one", "tier: two"), &other), None);
    }

    #[test]
    fn a_job_goes_to_what_its_route_means_by_the_name() {
        let compiled = compile(&[Document::new("a.yaml", MANIFESTS)]);
        assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
        let known = Known::of(&compiled, &[]);
        let found_from = |namespace: &str, route: &str, backend: &str| {
            known.find(&target(namespace, route, backend)).map(|plan| plan.uid.to_string())
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
