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
//! Batches whose outcome is not known may be there twice. Of a route whose backends all get every event, what each of them lacks
//! is handed over, and goes to all of them: each may get what it has again, and what several lack as often as they are. What a
//! removed reference holds goes nowhere else, and is lost with the pod where its backend does not take it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use spillway_delivery::deliver::{DeliverySpec, Engine};
use spillway_delivery::intake::Pipeline;
use spillway_delivery::ledger::{DeliveryReport, DeliveryState};
use spillway_delivery::log::DeliveryKey;
use spillway_delivery::settings::{BackendRefSettings, RouteSettings, Strategy};
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

/// Returns how many events and bytes are held, each for the delivery of a route that holds most of them.
fn held(engine: &Engine) -> (u64, u64) {
    let mut held = Vec::new();
    for pipeline in engine.pipelines() {
        let mut behind = pipeline.report().deliveries;
        behind.sort_by_key(|delivery| (delivery.route.clone(), Reverse(delivery.held_events)));
        behind.dedup_by(|one, other| one.route == other.route);
        held.extend(behind);
    }
    held.iter().fold((0, 0), |(events, bytes), one| (events + one.held_events, bytes + one.held_bytes))
}

/// Returns what leads the routes of a pipeline that hold something to the agent of the node.
fn specs(pipeline: &Arc<Pipeline>, binder: &Binder) -> Vec<DeliverySpec> {
    let (settings, deliveries) = (pipeline.settings(), pipeline.report().deliveries);
    let mut specs = Vec::new();
    for route in &settings.routes {
        for backend in diverted(route, &deliveries) {
            let key = DeliveryKey { route: route.name.clone(), backend_uid: backend.uid.clone() };
            specs.extend(binder.to_node((pipeline.namespace(), pipeline.name()), key, backend.name.clone()));
        }
    }
    specs
}

/// Returns the backends of a route in whose place the agent of the node is put. What a removed reference holds is for its backend
/// alone, to which the agent of the node has no way either.
fn diverted<'a>(route: &'a RouteSettings, deliveries: &[DeliveryReport]) -> Vec<&'a BackendRefSettings> {
    let holds =
        |one: &&DeliveryReport| one.route == route.name && one.held_events > 0 && one.state != DeliveryState::Draining;
    let holding: Vec<&DeliveryReport> = deliveries.iter().filter(holds).collect();
    let is_meant = |backend: &&BackendRefSettings| match route.strategy {
        Strategy::All => holding.iter().any(|one| one.backend == backend.name),
        // Which of them sends changes with their health.
        Strategy::FirstHealthy(_) => !holding.is_empty(),
    };
    route.backends.iter().filter(is_meant).collect()
}

#[cfg(test)]
mod tests {
    use spillway_delivery::settings::Failback;

    use super::*;

    fn route(strategy: Strategy) -> RouteSettings {
        let backend = |name: &str| BackendRefSettings {
            uid: format!("fab12.{name}").into(),
            name: name.into(),
            ..BackendRefSettings::default()
        };
        RouteSettings { name: "own".into(), condition: None, strategy, backends: ["a", "b", "c"].map(backend).into() }
    }

    fn delivery(route: &str, backend: &str, state: DeliveryState, held_events: u64) -> DeliveryReport {
        DeliveryReport { route: route.into(), backend: backend.into(), state, held_events, ..DeliveryReport::default() }
    }

    fn names(strategy: Strategy, deliveries: &[DeliveryReport]) -> Vec<String> {
        diverted(&route(strategy), deliveries).iter().map(|backend| backend.name.to_string()).collect()
    }

    #[test]
    fn every_delivery_that_holds_something_is_led_away_since_each_may_lack_what_no_other_lacks() {
        let deliveries = [
            delivery("own", "a", DeliveryState::Retrying, 9),
            delivery("own", "b", DeliveryState::Suspended, 1),
            delivery("own", "c", DeliveryState::Healthy, 0),
            delivery("other", "c", DeliveryState::Healthy, 5),
        ];
        assert_eq!(names(Strategy::All, &deliveries), ["a", "b"]);
    }

    #[test]
    fn a_removed_reference_that_holds_most_stands_in_nobodys_way() {
        let deliveries =
            [delivery("own", "old", DeliveryState::Draining, 50), delivery("own", "b", DeliveryState::Retrying, 3)];
        assert_eq!(names(Strategy::All, &deliveries), ["b"]);
        assert_eq!(names(Strategy::All, &deliveries[..1]), [""; 0]);
    }

    #[test]
    fn where_the_first_healthy_one_sends_all_are_led_away_once_one_holds_something() {
        let deliveries =
            [delivery("own", "a", DeliveryState::Healthy, 0), delivery("own", "b", DeliveryState::Standby, 3)];
        let strategy = Strategy::FirstHealthy(Failback::Leave);
        assert_eq!(names(strategy, &deliveries), ["a", "b", "c"]);
        assert_eq!(names(strategy, &deliveries[..1]), [""; 0]);
    }
}
