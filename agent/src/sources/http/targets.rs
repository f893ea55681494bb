//! Which pipelines take what is sent here, and the way to them.

use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::event::{Batch, IdempotencyKey, Origin, OriginBuilder};
use spillway_delivery::intake::{Accepted, Intake, Pipeline, RefusalReason, SubmitError};

use super::answer::Refused;

/// What a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// Every pipeline that takes the sender.
    All,
    /// The one of this name.
    One(TargetName),
}

/// A request's events, ready to be kept.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    pub(super) payload: Bytes,
    pub(super) ends: Vec<u32>,
    pub(super) received: UnixNanos,
    pub(super) key: Option<IdempotencyKey>,
}

/// What [`Door::submit`] returns.
pub(super) type Submitted<'a> = Pin<Box<dyn Future<Output = Result<Accepted, SubmitError>> + Send + 'a>>;

/// The intake as this source sees it, so that its tests need no log.
pub(super) trait Door: Send + Sync + 'static {
    /// Returns the pipelines that take the sender now.
    fn names(&self) -> Arc<[TargetName]>;

    /// Keeps the events in every selected pipeline or in none; see [`Intake::submit`].
    fn submit(&self, selection: Selection, submission: Submission) -> Submitted<'_>;
}

/// A pipeline's name as a request may write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetName {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

/// Finds the pipelines that a request means: the one it names, as `name` or `namespace/name`, else all.
pub(super) fn select(names: &[TargetName], wanted: Option<&str>) -> Result<Selection, Refused> {
    let unprocessable = |code, message: String| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, code, message);
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

/// Which pipelines take what is sent here; changes while the source runs. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct HttpTargets(Arc<RwLock<Arc<Known>>>);

#[derive(Debug)]
struct Known {
    names: Arc<[TargetName]>,
    pipelines: Vec<Arc<Pipeline>>,
}

impl Default for Known {
    fn default() -> Self {
        Self { names: Arc::from([]), pipelines: Vec::new() }
    }
}

impl HttpTargets {
    /// Takes events for `pipelines` and no others from now on; a request that is being read goes by what counts at its end.
    pub fn set(&self, mut pipelines: Vec<Arc<Pipeline>>) {
        // The same order for every request at every time, so that two never wait for each other's keys.
        pipelines.sort_by(|one, other| one.uid().cmp(other.uid()));
        let names = pipelines.iter().map(|target| TargetName::of(target)).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Known { names, pipelines });
    }

    fn now(&self) -> Arc<Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TargetName {
    fn of(pipeline: &Pipeline) -> Self {
        Self { namespace: pipeline.namespace().clone(), name: pipeline.name().clone() }
    }
}

/// The pipelines of the process, behind the intake: one call for all that a request means, whatever their manifests add
/// to the origin.
pub(super) struct Pipelines {
    intake: Intake,
    targets: HttpTargets,
    /// What this source knows of every sender.
    origin: Arc<Origin>,
}

impl Pipelines {
    /// Returns the door to `targets`.
    pub(super) fn new(intake: Intake, targets: HttpTargets) -> Self {
        let origin = OriginBuilder { source: Some("http".to_owned()), ..OriginBuilder::default() }.build();
        Self { intake, targets, origin }
    }
}

impl Door for Pipelines {
    fn names(&self) -> Arc<[TargetName]> {
        self.targets.now().names.clone()
    }

    fn submit(&self, selection: Selection, submission: Submission) -> Submitted<'_> {
        let known = self.targets.now();
        let Submission { payload, ends, received, key } = submission;
        let batch = Batch { payload, ends, origin: self.origin.clone(), received, position: None, key };
        Box::pin(async move {
            let targets = match &selection {
                Selection::All => &known.pipelines[..],
                Selection::One(name) => {
                    let at = known.names.iter().position(|known| known == name);
                    at.map_or(&[][..], |at| &known.pipelines[at..=at])
                }
            };
            if targets.is_empty() {
                return Err(removed(&selection));
            }
            self.intake.submit(targets, batch).await
        })
    }
}

/// Says that what a request means was removed while the request was read.
fn removed(selection: &Selection) -> SubmitError {
    let pipeline = match selection {
        Selection::All => "*".into(),
        Selection::One(target) => target.name.clone(),
    };
    SubmitError::Refused { pipeline, reason: RefusalReason::Removed, retry_after: Duration::from_secs(1) }
}
