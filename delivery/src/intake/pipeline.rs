//! One pipeline at run time: its settings, its log, its deliveries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::{RefusalReason, Version};
use crate::deliver::{Deliveries, Standing};
use crate::ledger::{DeadLettersReport, PipelineReport, RouteReport, TransformReport};
use crate::log::Log;
use crate::settings::{PipelineSettings, PipelineUid};
use crate::transform::{Counts, Multiline};

/// One pipeline at run time. Made by [`crate::deliver::Engine::add`]; an edit leaves it the same object.
#[derive(Debug)]
pub struct Pipeline {
    uid: PipelineUid,
    namespace: Arc<str>,
    name: Arc<str>,
    /// Read from the masks of a batch to its place in the queue, so that an edit comes before or behind the whole batch.
    version: RwLock<Arc<Version>>,
    log: Log,
    deliveries: Arc<Deliveries>,
    refused: [AtomicU64; RefusalReason::ALL.len()],
    stopping: AtomicBool,
}

impl Pipeline {
    pub(crate) fn new(settings: PipelineSettings, log: Log, deliveries: Arc<Deliveries>) -> Self {
        let (uid, namespace, name) = (settings.uid.clone(), settings.namespace.clone(), settings.name.clone());
        let version = RwLock::new(Arc::new(Version::first(settings)));
        let (refused, stopping) = (Default::default(), AtomicBool::new(false));
        Self { uid, namespace, name, version, log, deliveries, refused, stopping }
    }

    /// Returns what it is told now.
    pub fn settings(&self) -> Arc<PipelineSettings> {
        self.version().settings().clone()
    }

    /// Returns the key of its log's directory.
    pub fn uid(&self) -> &PipelineUid {
        &self.uid
    }

    /// Returns the namespace of its manifest.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// Returns the name of its manifest.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns whether its manifest is gone: nothing is taken, what is held drains.
    pub fn is_removed(&self) -> bool {
        self.version().removed
    }

    /// Returns what it is told, which stays so until the guard is dropped.
    pub(crate) fn version(&self) -> RwLockReadGuard<'_, Arc<Version>> {
        self.version.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes over to other settings. `at` runs while no batch is between its masks and the queue.
    pub(crate) fn edit<T>(&self, settings: PipelineSettings, removed: bool, at: impl FnOnce(&Log) -> T) -> T {
        let mut version = self.version.write().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(version.next(settings, removed));
        let done = at(&self.log);
        *version = next;
        done
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Returns where `source` stood in the last batch that was kept; see [`crate::event::Position`].
    pub fn position(&self, source: &[u8]) -> Option<Bytes> {
        self.log.position(source)
    }

    /// Returns every live position: (source, value).
    pub fn positions(&self) -> Vec<(Bytes, Bytes)> {
        self.log.positions()
    }

    /// Returns how a source of lines joins them for this pipeline; `None` where each is an event.
    pub fn multiline(&self) -> Option<Multiline> {
        self.version().chain.as_ref()?.multiline().cloned()
    }

    /// Counts what a source did that joined lines, once the log has them.
    pub fn count_joined(&self, counts: &Counts) {
        if let Some(chain) = &self.version().chain {
            chain.count_joined(counts);
        }
    }

    /// Resolves when the pipeline may take batches again after a refusal, or after a second.
    pub async fn room(&self) {
        self.log.room().await;
    }

    /// Resolves when deliveries that keep up have read what was kept last, soon at the latest: for a source that can wait.
    pub async fn followed(&self) {
        self.log.followed().await;
    }

    /// Refuses batches from now on, with reason `stopping`.
    pub fn stop_intake(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Returns why it takes nothing, whatever its log says; see [`Self::closed_by`].
    pub(super) fn closed(&self, route: Option<&str>) -> Option<RefusalReason> {
        self.closed_by(&self.version(), route)
    }

    /// Returns why it takes nothing under `version`. While it rests it takes and keeps what is for one `route`: who hands that
    /// over took it before, and may end with it.
    pub(super) fn closed_by(&self, version: &Version, route: Option<&str>) -> Option<RefusalReason> {
        if self.stopping.load(Ordering::Acquire) {
            return Some(RefusalReason::Stopping);
        }
        if version.removed {
            return Some(RefusalReason::Removed);
        }
        (version.settings().suspend && route.is_none()).then_some(RefusalReason::Suspended)
    }

    pub(super) fn count_refusal(&self, reason: RefusalReason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the figures. Reads the log where a cursor stands in the midst of a segment, so it may block briefly.
    pub fn report(&self) -> PipelineReport {
        let accepted = self.log.accepted_events();
        let refused = RefusalReason::ALL
            .iter()
            .map(|reason| (reason.as_str().to_owned(), self.refused[*reason as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect::<BTreeMap<_, _>>();
        let version = self.version().clone();
        let settings = version.settings();
        let routes = settings.routes.iter().zip(&version.routes).map(|(route, counters)| {
            let (active, failovers) = self.deliveries.groups.report(&route.name);
            RouteReport {
                name: route.name.clone(),
                routed_events: self.log.routed_events(&route.name),
                condition_errors: counters.errors(),
                active,
                failovers,
            }
        });
        PipelineReport {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            suspended: settings.suspend,
            removed: version.removed,
            accepted_events: accepted.dropped + accepted.unrouted + accepted.routed,
            dropped_events: accepted.dropped,
            unrouted_events: accepted.unrouted,
            routed_events: accepted.routed,
            refused_requests: refused,
            log: self.log.report(),
            transforms: transforms(&version),
            routes: routes.collect(),
            deliveries: self.deliveries.statuses().iter().map(|delivery| delivery.report(&self.log)).collect(),
            dead_letters: DeadLettersReport::default(),
            jobs: Vec::new(),
        }
    }

    /// Returns the name of the backend that leads a route of which the first healthy one sends, where one is healthy.
    pub(crate) fn active(&self, route: &str) -> Option<Arc<str>> {
        self.deliveries.groups.report(route).0
    }

    /// Returns the deliveries that have not resolved everything, durably, as `namespace/pipeline/route/backend`.
    pub(crate) fn undrained(&self) -> Vec<String> {
        let end = self.log.visible_end();
        let mut statuses = self.deliveries.statuses();
        statuses.retain(|delivery| delivery.saved_cursor() < end);
        let name = |route: &str, backend: &str| format!("{}/{}/{route}/{backend}", self.namespace, self.name);
        statuses.iter().map(|delivery| name(&delivery.key().route, delivery.backend_name())).collect()
    }

    /// Returns how its deliveries stand, those that ended left out.
    pub(crate) fn standings(&self) -> Vec<Standing> {
        let statuses = self.deliveries.statuses();
        let runs = statuses.iter().filter(|delivery| !delivery.has_ended());
        runs.map(|delivery| delivery.standing(&self.namespace, &self.name)).collect()
    }

    /// Returns whether events may be held for a delivery.
    pub(crate) fn holds(&self) -> bool {
        let end = self.log.visible_end();
        self.deliveries.statuses().iter().any(|delivery| !delivery.has_ended() && delivery.cursor() < end)
    }

    /// Returns whether every delivery has resolved everything, durably.
    pub(crate) fn is_drained(&self) -> bool {
        let end = self.log.visible_end();
        self.deliveries.statuses().iter().all(|delivery| delivery.saved_cursor() >= end)
    }
}

fn transforms(version: &Version) -> Vec<TransformReport> {
    let all = version.chain.iter().flat_map(|chain| chain.counted());
    let report = all.map(|(transform, counts)| TransformReport {
        name: transform.name.clone(),
        r#type: transform.action.type_name().to_owned(),
        in_events: counts.events,
        changed_events: counts.changed,
        dropped_events: counts.dropped,
        failed_events: counts.failures(),
    });
    report.collect()
}
