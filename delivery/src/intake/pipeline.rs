//! One pipeline at run time: its settings, its log, its deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use super::RefusalReason;
use super::mask::RouteCounters;
use super::origins::Origins;
use crate::deliver::DeliveryStatus;
use crate::ledger::{PipelineReport, RouteReport};
use crate::log::Log;
use crate::settings::PipelineSettings;

/// One pipeline at run time. Made by [`crate::deliver::Engine::add`].
#[derive(Debug)]
pub struct Pipeline {
    settings: PipelineSettings,
    log: Log,
    deliveries: Vec<Arc<DeliveryStatus>>,
    pub(super) routes: Vec<RouteCounters>,
    pub(super) origins: Origins,
    refused: [AtomicU64; RefusalReason::ALL.len()],
    stopping: AtomicBool,
}

impl Pipeline {
    pub(crate) fn new(settings: PipelineSettings, log: Log, deliveries: Vec<Arc<DeliveryStatus>>) -> Self {
        let routes = settings.routes.iter().map(|_| RouteCounters::default()).collect();
        let origins = Origins::new(&settings.origin);
        let (refused, stopping) = (Default::default(), AtomicBool::new(false));
        Self { settings, log, deliveries, routes, origins, refused, stopping }
    }

    /// Returns what it was told.
    pub fn settings(&self) -> &PipelineSettings {
        &self.settings
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

    /// Resolves when the pipeline may take batches again after a refusal, or after a second.
    pub async fn room(&self) {
        self.log.room().await;
    }

    /// Refuses batches from now on, with reason `stopping`.
    pub fn stop_intake(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Returns why it takes nothing, whatever its log says.
    pub(super) fn closed(&self) -> Option<RefusalReason> {
        if self.stopping.load(Ordering::Acquire) {
            return Some(RefusalReason::Stopping);
        }
        self.settings.suspend.then_some(RefusalReason::Suspended)
    }

    pub(super) fn count_refusal(&self, reason: RefusalReason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the figures. Reads the log where a cursor stands in the midst of a segment, so it may block briefly.
    pub fn report(&self) -> PipelineReport {
        let (unrouted, routed) = self.log.accepted_events();
        let refused = RefusalReason::ALL
            .iter()
            .map(|reason| (reason.as_str().to_owned(), self.refused[*reason as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect::<BTreeMap<_, _>>();
        let routes = self.settings.routes.iter().zip(&self.routes).map(|(route, counters)| RouteReport {
            name: route.name.clone(),
            routed_events: self.log.routed_events(&route.name),
            condition_errors: counters.errors(),
        });
        PipelineReport {
            namespace: self.settings.namespace.clone(),
            name: self.settings.name.clone(),
            uid: self.settings.uid.clone(),
            suspended: self.settings.suspend,
            accepted_events: unrouted + routed,
            unrouted_events: unrouted,
            routed_events: routed,
            refused_requests: refused,
            log: self.log.report(),
            routes: routes.collect(),
            deliveries: self.deliveries.iter().map(|delivery| delivery.report(&self.log)).collect(),
        }
    }

    /// Returns whether every delivery has resolved everything, durably.
    pub(crate) fn is_drained(&self) -> bool {
        let end = self.log.visible_end();
        self.deliveries.iter().all(|delivery| delivery.saved_cursor() >= end)
    }
}
