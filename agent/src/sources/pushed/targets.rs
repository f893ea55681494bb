//! Which pipelines take what is sent here, and the way to them.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use spillway_crds::Reach;
use spillway_crds::kinds::selector::LabelSelector;
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::event::{Batch, IdempotencyKey};
use spillway_delivery::intake::{Accepted, Intake, Pipeline, RefusalReason, SubmitError};

use super::sender::Sender;

/// What a sender names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// Every pipeline that takes the sender.
    All,
    /// The one of this name.
    One(TargetName),
    /// One route of it: the sender has asked the conditions.
    Route(TargetName, String),
}

/// Events that are ready to be kept.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    pub(crate) payload: Bytes,
    pub(crate) ends: Vec<u32>,
    pub(crate) received: UnixNanos,
    pub(crate) key: Option<IdempotencyKey>,
}

/// What [`Door::submit`] returns.
pub(crate) type Submitted<'a> = Pin<Box<dyn Future<Output = Result<Accepted, SubmitError>> + Send + 'a>>;

/// The intake as sources of pushed events see it, so that their tests need no log.
pub(crate) trait Door: Send + Sync + 'static {
    /// Returns the pipelines that take the sender now.
    fn names(&self, sender: &Sender) -> Vec<TargetName>;

    /// Keeps the events in every selected pipeline or in none; see [`Intake::submit`].
    fn submit(&self, sender: &Sender, selection: Selection, submission: Submission) -> Submitted<'_>;
}

/// A pipeline's name as a request may write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetName {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// Why no pipeline is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotSelected {
    /// Stable, as answers and counters have it.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// Finds the pipelines that a sender means: the one it names, as `name` or `namespace/name`, else all.
pub(crate) fn select(names: &[TargetName], wanted: Option<&str>) -> Result<Selection, NotSelected> {
    let unprocessable = |code, message: String| NotSelected { code, message };
    if names.is_empty() {
        return Err(unprocessable("no_pipeline", "no pipeline takes events from this sender".to_owned()));
    }
    let Some(wanted) = wanted else {
        return Ok(Selection::All);
    };
    let (namespace, name) = match wanted.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, wanted),
    };
    let mut found = names
        .iter()
        .filter(|target| *target.name == *name && namespace.is_none_or(|namespace| *target.namespace == *namespace));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(Selection::One(one.clone())),
        (Some(one), Some(other)) => {
            let (one, other) = (&one.namespace, &other.namespace);
            let message = format!(
                "several pipelines are called {name:?}, say which: \"{one}/{name}\", or \"{other}/{name}\", or another"
            );
            Err(unprocessable("ambiguous_pipeline", message))
        }
        (None, _) => Err(unprocessable("unknown_pipeline", unknown(names, namespace, name))),
    }
}

/// Returns the pipeline that is named in full.
pub(crate) fn named(names: &[TargetName], wanted: Option<&str>) -> Option<TargetName> {
    let wanted = full_name(wanted);
    names.iter().find(|target| wanted == Some((&*target.namespace, &*target.name))).cloned()
}

/// Returns namespace and name.
pub(crate) fn full_name(wanted: Option<&str>) -> Option<(&str, &str)> {
    wanted.and_then(|wanted| wanted.split_once('/'))
}

fn unknown(names: &[TargetName], namespace: Option<&str>, name: &str) -> String {
    let written = |target: &TargetName| match namespace {
        Some(_) => format!("{}/{}", target.namespace, target.name),
        None => target.name.to_string(),
    };
    let wanted = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    let nearest = names.iter().map(written).min_by_key(|known| strsim::damerau_levenshtein(known, &wanted));
    let hint = nearest.map_or_else(String::new, |known| format!(", the nearest name is {known:?}"));
    format!("no pipeline that takes events from this sender is called {wanted:?}{hint}")
}

/// Which pods a pipeline takes events of.
#[derive(Debug, Clone)]
pub struct Takes {
    /// Of which namespaces.
    pub namespaces: Reach,
    /// With which labels, by input.
    pub pods: Vec<LabelSelector>,
    /// Whether it takes those of whoever shows no token, too.
    pub is_open: bool,
}

/// Which pipelines take what is sent here; changes while the source runs. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct PushTargets(Arc<RwLock<Known>>);

/// The pipelines; `None` until they were told for the first time.
type Known = Option<Arc<Vec<Target>>>;

#[derive(Debug)]
struct Target {
    name: TargetName,
    pipeline: Arc<Pipeline>,
    /// `None` where whoever gets here may send.
    takes: Option<Takes>,
}

impl PushTargets {
    /// Takes events for `pipelines` and no others from now on, of whoever gets here; a request that is being read goes by what
    /// counts at its end.
    pub fn set(&self, pipelines: Vec<Arc<Pipeline>>) {
        self.replace(pipelines.into_iter().map(|pipeline| (pipeline, None)).collect());
    }

    /// The same, of pods that these pipelines take events of.
    pub fn set_for_pods(&self, pipelines: Vec<(Arc<Pipeline>, Takes)>) {
        self.replace(pipelines.into_iter().map(|(pipeline, takes)| (pipeline, Some(takes))).collect());
    }

    fn replace(&self, mut pipelines: Vec<(Arc<Pipeline>, Option<Takes>)>) {
        // The same order for every request at every time, so that two never wait for each other's keys.
        pipelines.sort_by(|(one, _), (other, _)| one.uid().cmp(other.uid()));
        let target =
            |(pipeline, takes): (Arc<Pipeline>, _)| Target { name: TargetName::of(&pipeline), pipeline, takes };
        let targets = Arc::new(pipelines.into_iter().map(target).collect());
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(targets);
    }

    /// Returns whether it was said which pipelines there are.
    pub(crate) fn are_known(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn now(&self) -> Arc<Vec<Target>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }
}

impl Target {
    /// Returns whether the sender may send here.
    fn takes(&self, sender: &Sender) -> bool {
        match (&self.takes, &sender.pod) {
            (None, None) => !sender.is_unverified,
            (Some(takes), Some(pod)) => {
                takes.namespaces.takes(&pod.namespace) && takes.pods.iter().any(|pods| pods.matches(&pod.labels))
            }
            // A list for pods is for no other, but who is known to be unknown; one for anybody is for no pod.
            (Some(takes), None) => takes.is_open && sender.is_unverified,
            (None, Some(_)) => false,
        }
    }
}

impl TargetName {
    fn of(pipeline: &Pipeline) -> Self {
        Self { namespace: pipeline.namespace().clone(), name: pipeline.name().clone() }
    }
}

/// The pipelines of the process, behind the intake: one call for all that a request means, whatever their manifests add
/// to the origin.
pub(crate) struct Pipelines {
    intake: Intake,
    targets: PushTargets,
}

impl Pipelines {
    /// Returns the door to `targets`.
    pub(crate) fn new(intake: Intake, targets: PushTargets) -> Self {
        Self { intake, targets }
    }
}

impl Door for Pipelines {
    fn names(&self, sender: &Sender) -> Vec<TargetName> {
        self.targets.now().iter().filter(|target| target.takes(sender)).map(|target| target.name.clone()).collect()
    }

    fn submit(&self, sender: &Sender, selection: Selection, submission: Submission) -> Submitted<'_> {
        let is_meant = |target: &&Target| match &selection {
            Selection::All => true,
            Selection::One(name) | Selection::Route(name, _) => target.name == *name,
        };
        let known = self.targets.now();
        let meant = known.iter().filter(|target| target.takes(sender)).filter(is_meant);
        let targets: Vec<Arc<Pipeline>> = meant.map(|target| target.pipeline.clone()).collect();
        let Submission { payload, ends, received, key } = submission;
        let batch = Batch { payload, ends, origin: sender.origin.clone(), received, position: None, key };
        Box::pin(async move {
            if targets.is_empty() {
                return Err(removed(&selection));
            }
            match (&selection, targets.first()) {
                (Selection::Route(_, route), Some(pipeline)) => {
                    self.intake.submit_to_route(pipeline, route, batch).await
                }
                _ => self.intake.submit(&targets, batch).await,
            }
        })
    }
}

/// Says that what a request means was removed while the request was read.
fn removed(selection: &Selection) -> SubmitError {
    let pipeline = match selection {
        Selection::All => "*".into(),
        Selection::One(target) | Selection::Route(target, _) => target.name.clone(),
    };
    SubmitError::Refused { pipeline, reason: RefusalReason::Removed, retry_after: Duration::from_secs(1) }
}
