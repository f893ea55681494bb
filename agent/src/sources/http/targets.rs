//! Which pipelines take what is sent here, and the way to them.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use spillway_delivery::clock::UnixNanos;
use spillway_delivery::event::{Batch, IdempotencyKey, Origin, OriginBuilder};
use spillway_delivery::intake::{Accepted, Intake, Pipeline, SubmitError};

use super::answer::Refused;

/// What a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// Every pipeline that takes the sender.
    All,
    /// The one of this index.
    One(usize),
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
    /// Returns the pipelines that take the sender; their order gives [`Selection::One`] its meaning.
    fn names(&self) -> &[TargetName];

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
    let mut found = names.iter().enumerate().filter(|(_, target)| {
        *target.name == *name && namespace.is_none_or(|namespace| *target.namespace == *namespace)
    });
    match (found.next(), found.next()) {
        (Some((index, _)), None) => Ok(Selection::One(index)),
        (Some((_, one)), Some((_, other))) => {
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

/// The pipelines of the process, behind the intake: one call for all that a request means, whatever their manifests add
/// to the origin.
pub(super) struct Pipelines {
    intake: Intake,
    names: Vec<TargetName>,
    targets: Vec<Arc<Pipeline>>,
    /// What this source knows of every sender.
    origin: Arc<Origin>,
}

impl Pipelines {
    /// Returns the door to `targets`.
    pub(super) fn new(intake: Intake, targets: Vec<Arc<Pipeline>>) -> Self {
        let names = targets.iter().map(|target| target.settings());
        let names = names.map(|known| TargetName { namespace: known.namespace.clone(), name: known.name.clone() });
        let names = names.collect();
        let origin = OriginBuilder { source: Some("http".to_owned()), ..OriginBuilder::default() }.build();
        Self { intake, names, targets, origin }
    }
}

impl Door for Pipelines {
    fn names(&self) -> &[TargetName] {
        &self.names
    }

    fn submit(&self, selection: Selection, submission: Submission) -> Submitted<'_> {
        let targets = match selection {
            Selection::All => &self.targets[..],
            Selection::One(index) => &self.targets[index..=index],
        };
        let Submission { payload, ends, received, key } = submission;
        let batch = Batch { payload, ends, origin: self.origin.clone(), received, position: None, key };
        Box::pin(self.intake.submit(targets, batch))
    }
}
