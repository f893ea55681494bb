use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spillway_delivery::ledger::{
    BreakerReport, BreakerState, DeadLettersReport, DeliveryReport, DeliveryState, FailoverReport, JobReport,
    LogReport, PipelineReport, RouteReport, TransformReport,
};

use super::*;
use crate::config::state::ConfigReport;
use crate::sources::http::HttpStats;
use crate::sources::tail::TailStats;
use crate::status::Phase;

const SECOND: i64 = 1_000_000_000;

fn route() -> RouteReport {
    RouteReport {
        name: "everything".into(),
        routed_events: 10,
        condition_errors: BTreeMap::from([("absent".into(), 6)]),
        active: Some("api".into()),
        failovers: vec![FailoverReport { from: "archive".into(), to: "api".into(), times: 2 }],
    }
}

fn transform() -> TransformReport {
    TransformReport {
        name: "quiet".into(),
        r#type: "Drop".into(),
        in_events: 15,
        changed_events: 1,
        dropped_events: 3,
        failed_events: BTreeMap::from([("absent".into(), 4)]),
    }
}

fn log() -> LogReport {
    LogReport {
        state: "ok".into(),
        bytes: 1000,
        bytes_max: 2000,
        segments: 2,
        memory_bytes: 300,
        spilled_frames: 4,
        spilled_bytes: 500,
        lost_events: 6,
        ..LogReport::default()
    }
}

fn report(namespace: &str, name: &str) -> StatusReport {
    let delivery = DeliveryReport {
        route: "everything".into(),
        backend: "archive".into(),
        backend_type: "Filesystem".into(),
        state: DeliveryState::Retrying,
        since: 0,
        breaker: BreakerReport {
            state: BreakerState::HalfOpen,
            since: 0,
            changes: BTreeMap::from([("open".into(), 2), ("half_open".into(), 2), ("closed".into(), 1)]),
        },
        routed_events: 10,
        delivered_events: 4,
        duplicate_events: 1,
        rejected_events: 1,
        elsewhere_events: 3,
        dropped_events: BTreeMap::from([("quota".into(), 1)]),
        dropped_bytes: BTreeMap::from([("quota".into(), 77)]),
        late_events: 3,
        unknown_batches: 2,
        rejections: BTreeMap::from([("mapping conflict".into(), 8)]),
        seconds_until_full: Some(7_200),
        held_events: 4,
        held_bytes: 400,
        oldest_held: Some(90 * SECOND),
        imbalance_events: -1,
        attempts: 7,
        faults: BTreeMap::from([("unreachable".into(), 3)]),
        delivered_bytes: 500,
        in_flight: 2,
        in_flight_limit: 3,
        last_error: Some("connection refused".into()),
    };
    let pipeline = PipelineReport {
        namespace: namespace.into(),
        name: name.into(),
        uid: "x".into(),
        suspended: false,
        removed: false,
        accepted_events: 15,
        dropped_events: 3,
        unrouted_events: 2,
        routed_events: 10,
        refused_requests: BTreeMap::from([("full".into(), 5)]),
        log: log(),
        transforms: vec![transform()],
        routes: vec![route()],
        deliveries: vec![delivery],
        dead_letters: DeadLettersReport {
            kept_events: 9,
            held_events: 3,
            dropped_events: BTreeMap::from([("purged".into(), 2)]),
            ..DeadLettersReport::default()
        },
        jobs: vec![JobReport { id: "a1".into(), kind: "replay".into(), held_events: 5, ..JobReport::default() }],
    };
    StatusReport {
        version: "0.1.0".into(),
        agent_id: "0123456789abcdef".into(),
        started: 5 * SECOND,
        now: 100 * SECOND,
        phase: Phase::Running,
        not_ready: Vec::new(),
        listeners: Vec::new(),
        pipelines: vec![pipeline],
        config: ConfigReport::default(),
        excluded: Vec::new(),
        unclaimed_logs: Vec::new(),
        sources: Vec::new(),
    }
}

/// One sample as a scraper sees it.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads the text as the specification says, strictly, and returns the samples.
fn read(text: &str) -> Vec<Sample> {
    let body = text.strip_suffix("# EOF\n").expect("no end");
    let (mut families, mut samples) = (BTreeMap::new(), Vec::new());
    let mut helped = BTreeSet::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(help.ends_with(|c: char| c.is_alphanumeric() || ".)".contains(c)) && !help.is_empty(), "{line}");
            assert!(helped.insert(name.to_string()), "two families: {name}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name), "no help: {name}");
            families.insert(name.to_string(), kind.to_string());
        } else {
            let sample = sample(line);
            let (name, kind) = families.iter().find(|(name, _)| belongs(&sample.name, name)).expect(line);
            let suffix = &sample.name[name.len()..];
            let expected = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            assert_eq!(suffix, expected, "{line}");
            samples.push(sample);
        }
    }
    assert_eq!(helped.len(), families.len());
    samples
}

fn belongs(sample: &str, family: &str) -> bool {
    sample.strip_prefix(family).is_some_and(|rest| ["", "_total", "_info"].contains(&rest))
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = (line[..end].to_string(), &line[end..]);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap();
            let (value, after) = label_value(after);
            assert!(labels.insert(label.to_string(), value).is_none(), "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    Sample { name, labels, value: rest.trim_start().parse().expect(line) }
}

/// Reads up to the closing quote, escapes undone.
fn label_value(text: &str) -> (String, &str) {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (false, '"') => return (value, &text[at + 1..]),
            (false, '\\') => escaped = true,
            (true, 'n') => {
                value.push('\n');
                escaped = false;
            }
            (_, c) => {
                value.push(c);
                escaped = false;
            }
        }
    }
    panic!("value has no end: {text}");
}

fn value(samples: &[Sample], name: &str, label: &str, is: &str) -> f64 {
    let found = samples.iter().find(|one| one.name == name && one.labels.get(label).is_some_and(|value| value == is));
    found.unwrap_or_else(|| panic!("no {name} with {label}={is}")).value
}

#[test]
fn every_figure_of_the_ledger_is_there() {
    let samples = read(&expose(report("default", "jobs"), SourceStats::default()));
    for (name, expected) in [
        ("spillway_pipeline_accepted_events_total", 15.0),
        ("spillway_pipeline_dropped_events_total", 3.0),
        ("spillway_transform_in_events_total", 15.0),
        ("spillway_transform_changed_events_total", 1.0),
        ("spillway_transform_dropped_events_total", 3.0),
        ("spillway_transform_failed_events_total", 4.0),
        ("spillway_pipeline_unrouted_events_total", 2.0),
        ("spillway_pipeline_routed_events_total", 10.0),
        ("spillway_pipeline_refused_requests_total", 5.0),
        ("spillway_log_bytes", 1000.0),
        ("spillway_log_max_bytes", 2000.0),
        ("spillway_log_segments", 2.0),
        ("spillway_log_memory_bytes", 300.0),
        ("spillway_log_spilled_frames_total", 4.0),
        ("spillway_log_spilled_bytes_total", 500.0),
        ("spillway_log_lost_events_total", 6.0),
        ("spillway_route_condition_errors_total", 6.0),
        ("spillway_delivery_delivered_events_total", 4.0),
        ("spillway_delivery_dropped_events_total", 1.0),
        ("spillway_delivery_dropped_bytes_total", 77.0),
        ("spillway_delivery_late_events_total", 3.0),
        ("spillway_delivery_unknown_batches_total", 2.0),
        ("spillway_delivery_rejections_total", 8.0),
        ("spillway_delivery_until_full_seconds", 7200.0),
        ("spillway_delivery_state_since_timestamp_seconds", 0.0),
        ("spillway_delivery_held_events", 4.0),
        ("spillway_delivery_oldest_held_age_seconds", 10.0),
        ("spillway_delivery_faults_total", 3.0),
        ("spillway_delivery_in_flight_batches", 2.0),
        ("spillway_delivery_in_flight_limit_batches", 3.0),
        ("spillway_ledger_imbalance_events", -1.0),
        ("spillway_dead_letters_kept_events_total", 9.0),
        ("spillway_dead_letters_held_events", 3.0),
        ("spillway_job_held_events", 5.0),
        ("spillway_dead_letters_dropped_events_total", 2.0),
    ] {
        assert!((value(&samples, name, "pipeline", "jobs") - expected).abs() < f64::EPSILON, "{name}");
    }
    assert!((value(&samples, "spillway_delivery_state", "state", "retrying") - 1.0).abs() < f64::EPSILON);
    for (state, expected) in [("closed", 0.0), ("open", 0.0), ("half_open", 1.0)] {
        let shown = value(&samples, "spillway_delivery_breaker_state", "state", state);
        assert!((shown - expected).abs() < f64::EPSILON, "{state}");
    }
    assert!((value(&samples, "spillway_delivery_breaker_changes_total", "to", "open") - 2.0).abs() < f64::EPSILON);
    assert!((value(&samples, "spillway_build_info", "version", "0.1.0") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn every_figure_of_the_sources_is_there() {
    let sources = SourceStats {
        http: Some(Arc::new(HttpStats::default())),
        otlp_http: Some(Arc::new(HttpStats::default())),
        otlp_grpc: Some(Arc::default()),
        lines: [("tcp", Arc::default())].into(),
        syslog: [("udp", Arc::default())].into(),
        door: Some(Arc::new(HttpStats::default())),
        container_logs: Some(Arc::new(TailStats::default())),
        files: Some(Arc::new(TailStats::default())),
    };
    let samples = read(&expose(report("default", "jobs"), sources));
    assert!((value(&samples, "spillway_http_requests_total", "code", "202") - 0.0).abs() < f64::EPSILON);
    for (code, limit) in [("202", "wire_bytes"), ("UNAVAILABLE", "resets")] {
        assert!((value(&samples, "spillway_otlp_requests_total", "code", code) - 0.0).abs() < f64::EPSILON);
        assert!((value(&samples, "spillway_otlp_limits_hit_total", "limit", limit) - 0.0).abs() < f64::EPSILON);
    }
    for name in ["spillway_ndjson_lost_events_total", "spillway_ndjson_open_connections"] {
        assert!((value(&samples, name, "listener", "tcp") - 0.0).abs() < f64::EPSILON, "{name}");
    }
    assert!((value(&samples, "spillway_ndjson_limits_hit_total", "limit", "line_bytes") - 0.0).abs() < f64::EPSILON);
    for name in ["spillway_syslog_kernel_drops_total", "spillway_syslog_waiting_senders"] {
        assert!((value(&samples, name, "listener", "udp") - 0.0).abs() < f64::EPSILON, "{name}");
    }
    for (name, label, is) in [
        ("spillway_syslog_malformed_events_total", "reason", "priority"),
        ("spillway_syslog_limits_hit_total", "limit", "message_bytes"),
    ] {
        assert!((value(&samples, name, label, is) - 0.0).abs() < f64::EPSILON, "{name}");
    }
    assert!(samples.iter().any(|sample| sample.name == "spillway_container_log_missed_bytes_total"));
    assert!(samples.iter().all(|sample| sample.name.starts_with("spillway_")));
}

#[test]
fn hostile_names_stay_within_their_quotes() {
    let hostile = "a\"} 1\nspillway_fake 666\\";
    let samples = read(&expose(report(hostile, "x\u{7f}\r"), SourceStats::default()));
    assert!(samples.iter().all(|sample| sample.name != "spillway_fake"));
    let of_pipelines = samples.iter().filter(|sample| sample.labels.contains_key("namespace"));
    assert!(of_pipelines.clone().count() > 20);
    assert!(of_pipelines.clone().all(|sample| sample.labels["namespace"] == hostile));
}

#[test]
fn an_agent_without_pipelines_exposes_well_formed_families() {
    let mut empty = report("default", "jobs");
    empty.pipelines.clear();
    let samples = read(&expose(empty, SourceStats::default()));
    assert!((value(&samples, "spillway_ready", "phase", "running") - 1.0).abs() < f64::EPSILON);
}
