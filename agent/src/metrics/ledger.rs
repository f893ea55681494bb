//! The ledger: pipelines, their logs, routes and deliveries.

use std::collections::BTreeMap;
use std::fmt;

use spillway_delivery::ledger::{BreakerState, DeliveryReport, DeliveryState, LogReport, PipelineReport, RouteReport};

use super::{Families, count, seconds};
use crate::status::StatusReport;

mod jobs;
mod letters;
mod transforms;

/// Name, help, and where the value is.
type Figure<T> = (&'static str, &'static str, fn(&T) -> u64);

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes every family of the ledger.
pub(super) fn write(families: &mut Families<'_>, report: &StatusReport) -> fmt::Result {
    let pipelines = &report.pipelines;
    intake(families, pipelines)?;
    transforms::write(families, pipelines)?;
    logs(families, pipelines)?;
    routes(families, pipelines)?;
    resolved(families, pipelines)?;
    held(families, pipelines, report.now)?;
    sending(families, pipelines)?;
    breakers(families, pipelines)?;
    letters::write(families, pipelines)?;
    jobs::write(families, pipelines)
}

fn of_pipeline(pipeline: &PipelineReport) -> Labels<'_> {
    vec![("namespace", &*pipeline.namespace), ("pipeline", &*pipeline.name)]
}

fn of_delivery<'a>(pipeline: &'a PipelineReport, delivery: &'a DeliveryReport) -> Labels<'a> {
    let mut labels = of_pipeline(pipeline);
    labels.extend([("route", &*delivery.route), ("backend", &*delivery.backend), ("type", &*delivery.backend_type)]);
    labels
}

fn with<'a>(mut labels: Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    labels.push((name, value));
    labels
}

/// One sample per pipeline.
fn each<T>(
    pipelines: &[PipelineReport],
    value: impl Fn(&PipelineReport) -> T,
) -> impl Iterator<Item = (Labels<'_>, T)> {
    pipelines.iter().map(move |pipeline| (of_pipeline(pipeline), value(pipeline)))
}

/// One sample per delivery.
fn each_delivery<T>(
    pipelines: &[PipelineReport],
    value: impl Fn(&DeliveryReport) -> T,
) -> impl Iterator<Item = (Labels<'_>, T)> {
    let deliveries = pipelines.iter().flat_map(|pipeline| pipeline.deliveries.iter().map(move |one| (pipeline, one)));
    deliveries.map(move |(pipeline, delivery)| (of_delivery(pipeline, delivery), value(delivery)))
}

/// One sample per delivery and key of one of its maps.
fn each_delivery_by<'a>(
    pipelines: &'a [PipelineReport],
    label: &'static str,
    map: impl Fn(&'a DeliveryReport) -> &'a BTreeMap<String, u64>,
) -> impl Iterator<Item = (Labels<'a>, u64)> {
    let deliveries = pipelines.iter().flat_map(|pipeline| pipeline.deliveries.iter().map(move |one| (pipeline, one)));
    deliveries.flat_map(move |(pipeline, delivery)| {
        let entries = map(delivery).iter();
        entries.map(move |(key, value)| (with(of_delivery(pipeline, delivery), label, key), *value))
    })
}

fn intake(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    families.counter(
        "pipeline_accepted_events",
        "Events accepted: they are in the log at the level it promises.",
        each(pipelines, |one| one.accepted_events),
    )?;
    families.counter(
        "pipeline_dropped_events",
        "Accepted events that a transform dropped.",
        each(pipelines, |one| one.dropped_events),
    )?;
    families.counter(
        "pipeline_unrouted_events",
        "Accepted events that no route wanted.",
        each(pipelines, |one| one.unrouted_events),
    )?;
    families.counter(
        "pipeline_routed_events",
        "Accepted events that at least one route wanted.",
        each(pipelines, |one| one.routed_events),
    )?;
    families.counter(
        "pipeline_refused_requests",
        "Requests of which nothing was kept, since the start, by reason.",
        pipelines.iter().flat_map(|one| {
            let entries = one.refused_requests.iter();
            entries.map(move |(reason, requests)| (with(of_pipeline(one), "reason", reason), *requests))
        }),
    )?;
    families.gauge(
        "pipeline_suspended",
        "Whether the pipeline is told to rest.",
        each(pipelines, |one| f64::from(one.suspended)),
    )
}

fn logs(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    let gauges: [Figure<LogReport>; 4] = [
        ("log_bytes", "Bytes of the log on disk.", |log| log.bytes),
        ("log_max_bytes", "Most bytes of the log on disk; at this size new data is refused.", |log| log.bytes_max),
        ("log_segments", "Files of the log.", |log| log.segments),
        ("log_memory_bytes", "Bytes of events that only memory holds (durability Memory).", |log| log.memory_bytes),
    ];
    for (name, help, value) in gauges {
        families.gauge(name, help, each(pipelines, |one| count(value(&one.log))))?;
    }
    let counters: [Figure<LogReport>; 8] = [
        ("log_spilled_frames", "Frames spilled to files since the start (durability Memory).", |log| {
            log.spilled_frames
        }),
        ("log_spilled_bytes", "Bytes of events spilled to files since the start (durability Memory).", |log| {
            log.spilled_bytes
        }),
        ("log_lost_events", "Events known to be lost with the process before (durability Memory).", |log| {
            log.lost_events
        }),
        ("log_syncs", "Syncs of the log since the start.", |log| log.syncs),
        ("log_failures", "Failed writes and syncs of the log since the start.", |log| log.failures),
        (
            "log_damaged",
            "Damaged records and segments met: counted, and kept in quarantine/ while it has room.",
            |log| log.damaged,
        ),
        (
            "log_forgotten_keys",
            "Idempotency keys forgotten before their ten minutes were over, since the start.",
            |log| log.forgotten_keys,
        ),
        (
            "log_left_out_positions",
            "Positions of sources not kept because there were too many, since the start.",
            |log| log.left_out_positions,
        ),
    ];
    for (name, help, value) in counters {
        families.counter(name, help, each(pipelines, |one| value(&one.log)))?;
    }
    families.gauge(
        "log_state",
        "1 for the state the log is in.",
        pipelines.iter().map(|one| (with(of_pipeline(one), "state", &one.log.state), 1.0)),
    )
}

fn routes(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    fn labels<'a>(pipeline: &'a PipelineReport, route: &'a RouteReport) -> Labels<'a> {
        with(of_pipeline(pipeline), "route", &route.name)
    }
    let all = || pipelines.iter().flat_map(|pipeline| pipeline.routes.iter().map(move |route| (pipeline, route)));
    families.counter(
        "route_routed_events",
        "Events that went down the route.",
        all().map(|(pipeline, route)| (labels(pipeline, route), route.routed_events)),
    )?;
    families.counter(
        "route_condition_errors",
        "Conditions that could not be evaluated and so were false, since the start, by reason.",
        all().flat_map(|(pipeline, route)| {
            let entries = route.condition_errors.iter();
            entries.map(move |(reason, times)| (with(labels(pipeline, route), "reason", reason), *times))
        }),
    )?;
    families.gauge(
        "route_active",
        "1 for the backend that gets the events of a route whose first healthy one does; absent while none is healthy.",
        all().filter_map(|(pipeline, route)| {
            let active = route.active.as_deref()?;
            Some((with(labels(pipeline, route), "backend", active), 1.0))
        }),
    )?;
    families.counter(
        "route_failovers",
        "How often another backend of a route took over because of their health, since the start.",
        all().flat_map(|(pipeline, route)| {
            let failovers = route.failovers.iter();
            failovers.map(move |one| (with(with(labels(pipeline, route), "from", &one.from), "to", &one.to), one.times))
        }),
    )
}

fn resolved(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    let counters: [Figure<DeliveryReport>; 6] = [
        ("delivery_routed_events", "Events routed to the delivery.", |one| one.routed_events),
        ("delivery_delivered_events", "Events the backend has.", |one| one.delivered_events),
        ("delivery_duplicate_events", "Events the backend had already.", |one| one.duplicate_events),
        ("delivery_rejected_events", "Events the backend refused for good.", |one| one.rejected_events),
        ("delivery_elsewhere_events", "Events that another backend of the route got instead.", |one| {
            one.elsewhere_events
        }),
        ("delivery_delivered_bytes", "Bytes of events delivered since the start.", |one| one.delivered_bytes),
    ];
    for (name, help, value) in counters {
        families.counter(name, help, each_delivery(pipelines, value))?;
    }
    families.counter(
        "delivery_rejections",
        "Events the backend refused for good, since the start, by reason; after 16 reasons as other.",
        each_delivery_by(pipelines, "reason", |one| &one.rejections),
    )?;
    families.counter(
        "delivery_dropped_events",
        "Events given up, by reason.",
        each_delivery_by(pipelines, "reason", |one| &one.dropped_events),
    )?;
    families.counter(
        "delivery_dropped_bytes",
        "Payload bytes of events given up, by reason; 0 where damage took them.",
        each_delivery_by(pipelines, "reason", |one| &one.dropped_bytes),
    )?;
    families.counter(
        "delivery_late_events",
        "Events counted as dropped that the backend took while that was decided, since the start.",
        each_delivery(pipelines, |one| one.late_events),
    )?;
    families.counter(
        "delivery_unknown_batches",
        "Batches tried and not answered that go elsewhere: under other keys after an edit, or to another backend; since the start.",
        each_delivery(pipelines, |one| one.unknown_batches),
    )
}

fn held(families: &mut Families<'_>, pipelines: &[PipelineReport], now: i64) -> fmt::Result {
    families.gauge(
        "delivery_held_events",
        "Events still to be delivered, counted by scanning the log.",
        each_delivery(pipelines, |one| count(one.held_events)),
    )?;
    families.gauge(
        "delivery_held_bytes",
        "Payload bytes of the held events.",
        each_delivery(pipelines, |one| count(one.held_bytes)),
    )?;
    families.gauge(
        "delivery_oldest_held_age_seconds",
        "Time since the receipt of the oldest held event; 0 when none is held.",
        each_delivery(pipelines, |one| one.oldest_held.map_or(0.0, |then| seconds(now.saturating_sub(then).max(0)))),
    )?;
    families.gauge(
        "delivery_until_full_seconds",
        "Time until the log is full because of the delivery, at the present rate; absent when it does not fall behind.",
        each_delivery(pipelines, |one| one.seconds_until_full)
            .filter_map(|(labels, left)| left.map(|left| (labels, count(left)))),
    )?;
    families.gauge(
        "ledger_imbalance_events",
        "routed - delivered - duplicates - rejected - elsewhere - dropped - held: 0, or something was lost or counted twice.",
        each_delivery(pipelines, |one| {
            let size = count(one.imbalance_events.unsigned_abs());
            if one.imbalance_events < 0 { -size } else { size }
        }),
    )
}

fn breakers(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    let states = pipelines.iter().flat_map(|pipeline| {
        let deliveries = pipeline.deliveries.iter().map(move |one| (of_delivery(pipeline, one), one.breaker.state));
        deliveries.flat_map(|(labels, now)| {
            let is = move |state: BreakerState| f64::from(u8::from(state == now));
            BreakerState::ALL.map(|state| (with(labels.clone(), "state", state.as_str()), is(state)))
        })
    });
    families.gauge("delivery_breaker_state", "1 for the state the circuit breaker is in, 0 for the others.", states)?;
    families.counter(
        "delivery_breaker_changes",
        "Changes of the circuit breaker since the start, by the state it came to.",
        each_delivery_by(pipelines, "to", |one| &one.breaker.changes),
    )
}

fn sending(families: &mut Families<'_>, pipelines: &[PipelineReport]) -> fmt::Result {
    families.counter(
        "delivery_attempts",
        "Attempts to send a batch since the start.",
        each_delivery(pipelines, |one| one.attempts),
    )?;
    families.counter(
        "delivery_faults",
        "Attempts that failed as a whole, since the start, by kind.",
        each_delivery_by(pipelines, "kind", |one| &one.faults),
    )?;
    families.gauge(
        "delivery_in_flight_batches",
        "Batches under way.",
        each_delivery(pipelines, |one| count(one.in_flight)),
    )?;
    families.gauge(
        "delivery_in_flight_limit_batches",
        "Batches that may be under way now: what the destination bears, within maxInFlight.",
        each_delivery(pipelines, |one| count(one.in_flight_limit)),
    )?;
    families.gauge(
        "delivery_state_since_timestamp_seconds",
        "When the delivery came to the state it is in, Unix time.",
        each_delivery(pipelines, |one| seconds(one.since)),
    )?;
    families.gauge(
        "delivery_state",
        "1 for the state the delivery is in.",
        each_delivery(pipelines, |one| one.state).map(|(labels, state)| {
            let state = match state {
                DeliveryState::Healthy => "healthy",
                DeliveryState::Retrying => "retrying",
                DeliveryState::Draining => "draining",
                DeliveryState::Suspended => "suspended",
                DeliveryState::Standby => "standby",
            };
            (with(labels, "state", state), 1.0)
        }),
    )
}
