//! The configuration carried out: what the manifests say becomes what runs, at the start and at each change.
//!
//! # Guarantees
//! - Per pipeline all or nothing: what cannot be applied is refused with its reason, and its last good version runs on.
//! - A pipeline that goes is taken from its sources first; one that comes is given to them last.
//! - A backend that is edited is edited for the jobs that run, too.
//! - What a pipeline may not deliver to any more, as the operator says, gets nothing from then on: what went for it does not drain.
//! - One log line per reading that changed or refused something.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use spillway_crds::{BackendPlan, ManifestError};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::Engine;
use spillway_delivery::settings::PipelineUid;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use super::intake::{Opened, Sources};
use super::pipelines::{Backends, Binder};
use super::workshop::Workshop;
use super::{Parts, Served};
use crate::config::diff::{Action, Unit, Units, diff};
use crate::config::manifests::{Read, Reading};
use crate::config::state::ReloadResult;
use crate::exit::Failure;
use crate::manifests::excluded;
use crate::overview::Overview;
use crate::settings::Settings;
use crate::status::Excluded;

/// What runs, and what it came from.
#[derive(Debug)]
pub(super) struct Live {
    feed: Feed,
    binder: Binder,
    workshop: Arc<Workshop>,
    engine: Arc<Engine>,
    overview: Arc<Overview>,
    clock: Clock,
    sources: Sources,
    running: Units,
    opened: BTreeMap<PipelineUid, Opened>,
    /// Something good could not be applied: it is tried again at the next look.
    again: bool,
}

/// What one reading did, in words.
#[derive(Debug, Default)]
struct Done {
    added: Vec<String>,
    changed: Vec<String>,
    removed: Vec<String>,
    refused: Vec<Excluded>,
}

impl Live {
    /// Returns the configuration of a process in which nothing runs yet.
    pub(super) fn new(
        parts: &Parts,
        settings: &Settings,
        clock: &Clock,
        (feed, served): (Feed, Option<Served>),
    ) -> Self {
        let binder = Binder::new(settings, clock, parts.engine.agent_id(), served.as_ref());
        Self {
            feed,
            workshop: Arc::new(Workshop::new(binder.clone())),
            binder,
            engine: parts.engine.clone(),
            overview: parts.overview.clone(),
            clock: clock.clone(),
            sources: Sources::new(parts, settings, clock, served),
            running: Units::new(),
            opened: BTreeMap::new(),
            again: false,
        }
    }

    /// Starts what there is to begin with. One pipeline that cannot be opened is left out and the others run; where one is
    /// needed and none runs, there is nothing to do.
    pub(super) async fn start(&mut self, needs_pipeline: bool) -> Result<(), Failure> {
        let workshop = self.workshop.clone();
        self.engine.serve_jobs(Arc::new(move |target| workshop.make(target))).await;
        if let Some(read) = self.feed.first().await {
            self.carry_out(&read).await;
        }
        let refused = self.overview.excluded();
        if let (true, true, Some(first)) = (needs_pipeline, self.running.is_empty(), refused.last()) {
            let error = anyhow!("no pipeline can be opened; {}: {}", first.object, first.errors.join("; "));
            return Err(Failure::failed("no-pipeline", error));
        }
        Ok(())
    }

    /// Returns what binds references to backends.
    pub(super) fn binder(&self) -> &Binder {
        &self.binder
    }

    /// Returns the sources.
    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Returns how many pipelines run.
    pub(super) fn pipelines(&self) -> usize {
        self.running.len()
    }

    /// Returns how many backends they refer to.
    pub(super) fn backends(&self) -> usize {
        self.backend_plans().len()
    }

    /// Carries out whatever comes, until told to stop.
    pub(super) async fn follow(mut self, stop: CancellationToken) {
        loop {
            let reading = tokio::select! {
                () = stop.cancelled() => return,
                reading = self.feed.next(self.again) => reading,
            };
            match reading {
                Reading::Same => {}
                Reading::Unbelievable(errors) => self.disbelieve(&errors),
                Reading::Read(read) => self.carry_out(&read).await,
            }
        }
    }

    /// Keeps everything as it is.
    fn disbelieve(&mut self, errors: &[ManifestError]) {
        for error in errors {
            tracing::error!(%error, "manifests are not there; everything runs on as it was");
        }
        let mut refused = excluded(errors);
        refused.iter_mut().for_each(|one| one.kept = true);
        self.overview.set_excluded(refused);
        self.note(ReloadResult::Refused, 0);
    }

    async fn carry_out(&mut self, read: &Read) {
        let began = Instant::now();
        let diff = diff(&self.running, read);
        let mut done = Done { refused: diff.refused, ..Done::default() };
        self.again = false;
        self.workshop.set_backends(read);
        let backends = Backends::of(read);
        let removed = diff.actions.iter().filter_map(|action| match action {
            Action::Remove(uid) => Some(uid.clone()),
            _ => None,
        });
        self.remove(removed.collect(), &mut done).await;
        for action in diff.actions {
            let (unit, change) = match action {
                Action::Add(unit) => (unit, None),
                Action::Edit(unit, change) => (unit, Some(change)),
                Action::Remove(_) => continue,
            };
            match self.binder.apply(&self.engine, &unit, change.as_ref(), &backends).await {
                Ok(pipeline) => {
                    match change {
                        Some(change) => done.changed.push(format!("{} ({})", name(&unit), change.what.join(", "))),
                        None => done.added.push(name(&unit)),
                    }
                    let uid = unit.plan.settings.uid.clone();
                    let (namespaces, inputs) = (unit.plan.namespaces.clone(), unit.plan.inputs.clone());
                    self.opened.insert(uid.clone(), Opened { pipeline, namespaces, inputs });
                    self.running.insert(uid, *unit);
                }
                Err(error) => self.refuse(&unit, &error, &mut done),
            }
        }
        if !read.revoked.is_empty() {
            let is_revoked = |namespace: &str, uid: &str| read.revoked.iter().any(|one| one.is_about(namespace, uid));
            self.engine.revoke(is_revoked).await;
        }
        self.workshop.renew(&self.engine).await;
        self.sources.follow(&self.opened).await;
        self.tell(done, read, began.elapsed());
        self.feed.applied(&read.compiled, &self.overview.excluded());
    }

    async fn remove(&mut self, uids: Vec<PipelineUid>, done: &mut Done) {
        if uids.is_empty() {
            return;
        }
        for uid in &uids {
            self.opened.remove(uid);
            done.removed.extend(self.running.remove(uid).map(|unit| name(&unit)));
        }
        self.sources.follow(&self.opened).await;
        for uid in &uids {
            self.engine.remove(uid).await;
        }
    }

    fn refuse(&mut self, unit: &Unit, error: &anyhow::Error, done: &mut Done) {
        self.again = true;
        let (object, error) = (unit.label(), format!("{error:#}"));
        let kept = self.running.contains_key(&unit.plan.settings.uid);
        tracing::error!(%object, %error, kept, "pipeline cannot be applied");
        done.refused.push(Excluded { object, errors: vec![error], kept });
    }

    /// One line for what was done, and the rest for whoever asks.
    fn tell(&mut self, done: Done, read: &Read, took: Duration) {
        let changes = done.added.len() + done.changed.len() + done.removed.len();
        let before = self.overview.excluded();
        let is_news = done.refused != before;
        let result = match (done.refused.is_empty(), changes) {
            (false, _) => ReloadResult::Refused,
            (true, 0) => ReloadResult::Unchanged,
            (true, _) => ReloadResult::Applied,
        };
        let config = self.note(result, changes);
        let refused: Vec<&str> = done.refused.iter().map(|one| one.object.as_str()).collect();
        if changes > 0 || is_news {
            tracing::info!(
                generation = config.0, hash = %config.1, added = done.added.join("; "), changed = done.changed.join("; "),
                removed = done.removed.join("; "), refused = refused.join("; "), took_ms = took.as_millis() as u64,
                "configuration read"
            );
        }
        if is_news {
            for error in &read.compiled.errors {
                tracing::error!(%error, "manifest is not applied");
            }
        }
        self.overview.set_excluded(done.refused);
    }

    fn note(&self, result: ReloadResult, changes: usize) -> (u64, String) {
        let now = self.clock.now();
        self.overview.with_config(|config| {
            config.note(result, changes, &self.running, now);
            (config.generation, config.hash.clone())
        })
    }

    fn backend_plans(&self) -> BTreeMap<Arc<str>, &BackendPlan> {
        self.running.values().flat_map(|unit| &unit.backends).map(|(uid, plan)| (uid.clone(), plan)).collect()
    }
}

fn name(unit: &Unit) -> String {
    format!("{}/{}", unit.plan.settings.namespace, unit.plan.settings.name)
}
