//! The end of a pod: what its sidecar cannot deliver goes to the agent of the node, since the volume that holds it ends as well.
//!
//! Expected flow: sources have stopped. Deliveries go on as they are for [`FLUSH_MAX`], unless more than [`FLUSH_BYTES_MAX`] is held;
//! then what still holds something is given [`NodeAgent`](super::node_agent) in the place of its backend, and the drain goes on
//! with that for as long as it may.
//!
//! # Guarantees
//! - A backend that hangs costs no time: what is under way to it is given up, and sent to the agent of the node.
//! - What is left at the end is lost with the pod, and is said with its number: also dead letters, which stay here, and logs of
//!   pipelines that did not run here again after a start, of which only the bytes are known.
//!
//! # Limits
//! A kubelet leaves two seconds where the application has used up the time that the pod has to end. What it does not take
//! in them is lost, and a process that is killed says nothing of it: how much is held is said when the hand-over begins.
//! Batches whose outcome is not known may be there twice. A route whose backends all get every event leads there once, from the
//! backend that lacks most; the others may get what they have again.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::deliver::{DeliverySpec, Engine};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::ledger::DeliveryReport;
use spillway_delivery::log::DeliveryKey;
use spillway_delivery::settings::Strategy;
use tokio::time::Instant;

use super::pipelines::Binder;

/// How long deliveries go on as they are: half of the least that a kubelet leaves.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Bytes that are not waited for.
const FLUSH_BYTES_MAX: u64 = 8 << 20;

/// Delivers what it can, and hands the rest over. The drain that follows waits for that.
pub(super) async fn run(engine: &Engine, binder: &Binder, deadline: Instant) {
    let (_, bytes) = held(engine);
    let flush = if bytes > FLUSH_BYTES_MAX { Duration::ZERO } else { FLUSH_MAX };
    let all = engine.flush(deadline.min(Instant::now() + flush)).await;
    let (events, bytes) = held(engine);
    // A flush waits for no delivery that rests.
    if all && events == 0 {
        return;
    }
    tracing::warn!(events, bytes, "the pod ends; what its sidecar holds is handed to the agent of the node");
    for pipeline in engine.pipelines() {
        engine.divert(&pipeline, specs(&pipeline, binder)).await;
    }
}

/// Says what is lost with the pod, where something is: events that nobody took, those that a backend refused for good, and
/// logs whose pipelines did not run here again.
pub(super) fn tell_lost(engine: &Engine) {
    let (events, bytes) = held(engine);
    if events > 0 {
        tracing::error!(
            lost_events = events,
            lost_bytes = bytes,
            "the pod has ended; neither its backends nor the agent of the node took what its sidecar held"
        );
    }
    let letters: u64 = engine.pipelines().iter().map(|pipeline| pipeline.report().dead_letters.held_events).sum();
    if letters > 0 {
        tracing::error!(lost_dead_letters = letters, "the pod has ended, and with it events that a backend refused");
    }
    for log in engine.unclaimed() {
        tracing::error!(
            log = log.name,
            lost_log_bytes = log.bytes,
            "the pod has ended, and with it a log whose pipeline did not run here again"
        );
    }
}

/// Returns how many events and bytes are held, each for the route that holds most of them.
fn held(engine: &Engine) -> (u64, u64) {
    let reports = engine.pipelines().into_iter().flat_map(|pipeline| furthest_behind(&pipeline));
    reports.fold((0, 0), |(events, bytes), one| (events + one.held_events, bytes + one.held_bytes))
}

/// Returns of each route the delivery that lacks most, where one lacks something.
fn furthest_behind(pipeline: &Pipeline) -> Vec<DeliveryReport> {
    let mut behind = pipeline.report().deliveries;
    behind.retain(|delivery| delivery.held_events > 0);
    behind.sort_by_key(|delivery| (delivery.route.clone(), Reverse(delivery.held_events)));
    behind.dedup_by(|one, other| one.route == other.route);
    behind
}

/// Returns what leads the routes of a pipeline that hold something to the agent of the node.
fn specs(pipeline: &Arc<Pipeline>, binder: &Binder) -> Vec<DeliverySpec> {
    let settings = pipeline.settings();
    let mut specs = Vec::new();
    for delivery in furthest_behind(pipeline) {
        let Some(route) = settings.routes.iter().find(|route| route.name == delivery.route) else { continue };
        // Where one of them sends, which one that is changes with their health.
        let is_meant = |name: &Arc<str>| *name == delivery.backend || route.strategy != Strategy::All;
        for backend in route.backends.iter().filter(|backend| is_meant(&backend.name)) {
            let key = DeliveryKey { route: route.name.clone(), backend_uid: backend.uid.clone() };
            specs.extend(binder.to_node((pipeline.namespace(), pipeline.name()), key, backend.name.clone()));
        }
    }
    specs
}
