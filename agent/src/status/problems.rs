//! What is wrong, in words. Pure: the same report always says the same.

use spillway_delivery::ledger::{BreakerState, DeliveryReport, DeliveryState, PipelineReport};

use super::report::StatusReport;
use super::units::{age, bytes, counted, plain, span, time};

/// Returns what is wrong now, one sentence each; empty when everything flows. What was rejected or dropped is in the
/// figures and not here: it happened and does not go away.
pub fn problems(report: &StatusReport) -> Vec<String> {
    let mut found = Vec::new();
    for reason in &report.not_ready {
        found.push(format!("the agent is not ready: {}", plain(reason)));
    }
    if let Some(served) = report.config.served.as_ref().filter(|served| !served.is_connected && served.failures > 0) {
        let because = served.last_error.as_ref().map(|error| format!(": {}", plain(error))).unwrap_or_default();
        let since = served.since.map_or("-".into(), time);
        found.push(format!("no configuration from the operator since {since}{because}; everything runs on as it was"));
    }
    for excluded in &report.excluded {
        let errors = counted(excluded.errors.len() as u64, "error");
        let what = if excluded.kept { "runs in its last good version" } else { "is not run" };
        found.push(format!("{} {what}: {errors}", plain(&excluded.object)));
    }
    for log in &report.unclaimed_logs {
        found.push(format!(
            "no pipeline claims the log `{}` ({}): bring its manifest back to deliver it, or read it with `log inspect`",
            plain(&log.name),
            bytes(log.bytes)
        ));
    }
    for pipeline in &report.pipelines {
        log_problems(pipeline, &mut found);
        for delivery in &pipeline.deliveries {
            delivery_problems(pipeline, delivery, report.now, &mut found);
        }
        letter_problems(pipeline, &mut found);
        let accounted = accounted(pipeline);
        if pipeline.accepted_events != accounted {
            let name = name(pipeline);
            found.push(format!(
                "{name}: the ledger does not balance: accepted {}, but dropped, unrouted and routed are {accounted}; report \
                 this as a bug with `log inspect`",
                pipeline.accepted_events
            ));
        }
    }
    found
}

/// Returns of how many accepted events it is known what became of them.
pub(super) fn accounted(pipeline: &PipelineReport) -> u64 {
    pipeline.dropped_events.saturating_add(pipeline.unrouted_events).saturating_add(pipeline.routed_events)
}

/// Returns how people call the pipeline.
pub(super) fn name(pipeline: &PipelineReport) -> String {
    plain(&format!("{}/{}", pipeline.namespace, pipeline.name))
}

fn log_problems(pipeline: &PipelineReport, found: &mut Vec<String>) {
    let (name, log) = (name(pipeline), &pipeline.log);
    let because = log.last_error.as_ref().map(|error| format!(": {}", plain(error))).unwrap_or_default();
    match log.state.as_str() {
        "ok" => {}
        "full" => found.push(format!(
            "{name}: its log is full ({} of {}), new data is refused until a delivery frees some",
            bytes(log.bytes),
            bytes(log.bytes_max)
        )),
        "no_space" => found.push(format!("{name}: the volume of its log has no free space, new data is refused")),
        "faulted" => found.push(format!("{name}: its log cannot be written, new data is refused{because}")),
        other => found.push(format!("{name}: its log is {}{because}", plain(other))),
    }
    if log.damaged > 0 {
        found
            .push(format!("{name}: {} of its log, set aside; see `log inspect`", counted(log.damaged, "damaged part")));
    }
}

fn letter_problems(pipeline: &PipelineReport, found: &mut Vec<String>) {
    let (name, letters) = (name(pipeline), &pipeline.dead_letters);
    if letters.held_events > 0 && letters.bytes >= letters.bytes_max / 100 * 98 {
        found.push(format!(
            "{name}: its dead letters are full ({} of {}), what is refused for good from now on is dropped; see \
             `dead-letters list`",
            bytes(letters.bytes),
            bytes(letters.bytes_max)
        ));
    }
    if letters.imbalance_events != 0 {
        found.push(format!(
            "{name}: the ledger of its dead letters does not balance, by {}; report this as a bug",
            counted(letters.imbalance_events.unsigned_abs(), "event")
        ));
    }
}

fn delivery_problems(pipeline: &PipelineReport, delivery: &DeliveryReport, now: i64, found: &mut Vec<String>) {
    let name = format!("{}, {} to {}", name(pipeline), plain(&delivery.route), plain(&delivery.backend));
    let is_down = delivery.breaker.state != BreakerState::Closed && delivery.held_events > 0;
    let drains = delivery.state == DeliveryState::Draining && is_down;
    if delivery.state == DeliveryState::Retrying || drains {
        let because = delivery.last_error.as_ref().map(|error| format!(": {}", plain(error))).unwrap_or_default();
        let oldest =
            delivery.oldest_held.map(|then| format!(", the oldest for {}", age(then, now))).unwrap_or_default();
        let breaker = match delivery.breaker.state {
            BreakerState::Closed => String::new(),
            BreakerState::Open => format!("; circuit breaker open since {}", time(delivery.breaker.since)),
            BreakerState::HalfOpen => "; circuit breaker half-open, one batch is tried".to_owned(),
        };
        let (since, held) = (time(delivery.since), counted(delivery.held_events, "event"));
        let full = delivery.seconds_until_full.map(|left| format!(", about {} until the log is full", span(left)));
        let full = full.unwrap_or_default();
        let what = if drains { "removed and draining, but not delivering," } else { "not delivering" };
        found.push(format!("{name}: {what} since {since}{because}{breaker}; holding {held}{oldest}{full}"));
    }
    if delivery.imbalance_events != 0 {
        found.push(format!(
            "{name}: the ledger does not balance, by {}; report this as a bug with `log inspect`",
            counted(delivery.imbalance_events.unsigned_abs(), "event")
        ));
    }
}
