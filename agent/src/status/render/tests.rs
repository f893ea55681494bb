use std::collections::BTreeMap;

use spillway_delivery::ledger::{
    BreakerReport, BreakerState, DeadLettersReport, DeliveryReport, DeliveryState, FailoverReport, LogReport,
    RouteReport, TransformReport,
};

use super::super::report::{Excluded, Listener, Source};
use super::*;
use crate::config::state::ConfigReport;

const SECOND: i64 = 1_000_000_000;
const NOW: i64 = 1_763_892_252 * SECOND;

fn delivery(backend: &str, kind: &str) -> DeliveryReport {
    DeliveryReport {
        route: "everything".into(),
        backend: backend.into(),
        backend_type: kind.into(),
        state: DeliveryState::Healthy,
        since: NOW - 7_200 * SECOND,
        breaker: BreakerReport::default(),
        routed_events: 1200,
        delivered_events: 1190,
        duplicate_events: 10,
        rejected_events: 0,
        dropped_events: BTreeMap::new(),
        held_events: 0,
        held_bytes: 0,
        oldest_held: None,
        imbalance_events: 0,
        attempts: 12,
        faults: BTreeMap::new(),
        delivered_bytes: 120_000,
        in_flight: 0,
        in_flight_limit: 1,
        last_error: None,
        ..DeliveryReport::default()
    }
}

fn report() -> StatusReport {
    let pipeline = PipelineReport {
        namespace: "default".into(),
        name: "jobs".into(),
        uid: "default.jobs".into(),
        suspended: false,
        removed: false,
        accepted_events: 1303,
        dropped_events: 100,
        unrouted_events: 3,
        routed_events: 1200,
        refused_requests: BTreeMap::from([("full".into(), 2)]),
        log: LogReport {
            state: "ok".into(),
            bytes: 12_900_000,
            bytes_max: 1 << 30,
            segments: 3,
            first_seq: 1,
            next_seq: 1204,
            ..LogReport::default()
        },
        transforms: vec![
            TransformReport {
                name: "site".into(),
                r#type: "Set".into(),
                in_events: 1303,
                changed_events: 1303,
                ..TransformReport::default()
            },
            TransformReport {
                name: "quiet".into(),
                r#type: "Drop".into(),
                in_events: 1303,
                dropped_events: 100,
                failed_events: BTreeMap::from([("absent".into(), 7)]),
                ..TransformReport::default()
            },
        ],
        routes: vec![RouteReport {
            name: "everything".into(),
            routed_events: 1200,
            condition_errors: BTreeMap::from([("absent".into(), 4)]),
            active: Some("api".into()),
            failovers: vec![FailoverReport { from: "archive".into(), to: "api".into(), times: 2 }],
        }],
        deliveries: vec![delivery("archive", "Filesystem"), delivery("api", "HTTP")],
        dead_letters: DeadLettersReport::default(),
        jobs: Vec::new(),
    };
    StatusReport {
        version: "0.1.0".into(),
        agent_id: "0123456789abcdef".into(),
        started: NOW - 7_500 * SECOND,
        now: NOW,
        phase: Phase::Running,
        not_ready: Vec::new(),
        listeners: vec![Listener { name: "http".into(), address: "127.0.0.1:8411".into(), secured: false }],
        pipelines: vec![pipeline],
        config: ConfigReport::default(),
        excluded: Vec::new(),
        unclaimed_logs: Vec::new(),
        sources: vec![Source {
            name: "http".into(),
            counts: BTreeMap::from([("requests".into(), 40), ("bad".into(), 0)]),
        }],
    }
}

#[test]
fn a_report_in_which_everything_flows_is_this_text() {
    let expected = "\
spillway-agent 0.1.0, agent 0123456789abcdef: running, up 2 h 5 min
listening: http on 127.0.0.1:8411 (plain)
source http: requests 40

pipeline default/jobs
  log ok: 12.3 MiB of 1.0 GiB in 3 segments, events 1 to 1203
  accepted 1303 = dropped 100 + unrouted 3 + routed 1200
  transform site (Set): in 1303, changed 1303
  transform quiet (Drop): in 1303, dropped 100, failed for 7 events by absent
  refused 2 requests: full
  route everything: events go to api
  route everything: api took over from archive 2 times
  route everything: `match` was false for 4 events by absent
  ROUTE       BACKEND  STATE     FOR  HELD  SIZE  OLDEST  FULL IN
  everything  archive  healthy  2h0m     0     -       -        -
  everything  api      healthy  2h0m     0     -       -        -
  everything to archive (Filesystem): delivered 1190, duplicates 10; 12 attempts
  everything to api (HTTP): delivered 1190, duplicates 10; 12 attempts
  ledger balanced

everything flows
";
    assert_eq!(render(&report(), Paint::plain()), expected);
    assert!(problems(&report()).is_empty());
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let mut report = report();
    let pipeline = &mut report.pipelines[0];
    pipeline.log.state = "full".into();
    pipeline.log.damaged = 2;
    pipeline.log.memory_bytes = 1 << 20;
    pipeline.log.lost_events = 7;
    let api = &mut pipeline.deliveries[1];
    api.state = DeliveryState::Retrying;
    api.held_events = 1200;
    api.held_bytes = 2048;
    api.oldest_held = Some(NOW - 200 * SECOND);
    api.delivered_events = 0;
    api.seconds_until_full = Some(7_500);
    api.rejections = BTreeMap::from([("mapping conflict".into(), 3)]);
    api.dropped_events = BTreeMap::from([("quota".into(), 5)]);
    api.dropped_bytes = BTreeMap::from([("quota".into(), 1024)]);
    api.imbalance_events = -10;
    api.last_error = Some("connection refused".into());
    report.excluded = vec![Excluded {
        object: "MonitoringPipeline default/x".into(),
        errors: vec!["a.yaml:1:1: no".into()],
        kept: false,
    }];
    report.not_ready = vec!["draining".into()];
    let text = render(&report, Paint::plain());
    for part in [
        "  everything  api      retrying  2h0m  1200  2.0 KiB   3m20s     2h5m\n",
        "    rejected since the start: 3 by mapping conflict\n",
        "    dropped: 5 by quota (1.0 KiB)\n",
        "    last error: connection refused\n",
        "  ledger NOT balanced: 10 events\n",
        "  in memory alone 1.0 MiB, spilled 0 B since the start\n  lost with the process before: at least 7 events\n",
        "not run: MonitoringPipeline default/x\n  a.yaml:1:1: no\n",
        "\nwrong (6):\n  - the agent is not ready: draining\n  - MonitoringPipeline default/x is not run: 1 error\n",
        "  - default/jobs: its log is full (12.3 MiB of 1.0 GiB), new data is refused until a delivery frees some\n",
        "  - default/jobs: 2 damaged parts of its log, set aside; see `log inspect`\n",
        "  - default/jobs, everything to api: not delivering since 2025-11-23T08:04:12Z: connection refused; holding \
         1200 events, the oldest for 3 min 20 s, about 2h5m until the log is full\n",
        "  - default/jobs, everything to api: the ledger does not balance, by 10 events;",
    ] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
}

#[test]
fn a_removed_reference_that_cannot_drain_is_draining_and_told() {
    let mut report = report();
    let api = &mut report.pipelines[0].deliveries[1];
    api.state = DeliveryState::Draining;
    assert!(problems(&report).is_empty());
    let api = &mut report.pipelines[0].deliveries[1];
    api.breaker.state = BreakerState::Open;
    api.held_events = 1200;
    api.last_error = Some("connection refused".into());
    let text = render(&report, Paint::plain());
    let told =
        "everything to api: removed and draining, but not delivering, since 2025-11-23T08:04:12Z: connection refused;";
    for part in ["  everything  api      draining ", told] {
        assert!(text.contains(part), "{part}\n---\n{text}");
    }
}

#[test]
fn accepted_without_a_place_is_an_imbalance() {
    let mut report = report();
    report.pipelines[0].accepted_events += 5;
    assert!(render(&report, Paint::plain()).contains("ledger NOT balanced: 5 events"));
    assert_eq!(problems(&report).len(), 1);
}

#[test]
fn colour_adds_nothing_that_words_do_not_say() {
    let coloured = render(&report(), Paint { colour: true });
    assert!(coloured.contains("\x1b[32mhealthy\x1b[0m"));
    let bare = coloured.replace("\x1b[32m", "").replace("\x1b[1;31m", "").replace("\x1b[0m", "");
    assert_eq!(bare, render(&report(), Paint::plain()));
}

#[test]
fn hostile_names_cannot_command_a_terminal() {
    let mut report = report();
    report.pipelines[0].name = "x\x1b]0;owned\x07".into();
    report.pipelines[0].deliveries[0].last_error = Some("\x1b[2J".into());
    report.pipelines[0].deliveries[0].state = DeliveryState::Retrying;
    assert!(!render(&report, Paint::plain()).contains(['\x1b', '\x07']));
}

#[test]
fn a_report_survives_its_json() {
    let json = serde_json::to_string(&report()).unwrap();
    let back: StatusReport = serde_json::from_str(&json).unwrap();
    assert_eq!(render(&back, Paint::plain()), render(&report(), Paint::plain()));
    assert!(json.contains("\"agentID\""));
}

#[test]
fn no_line_of_a_table_is_wider_than_a_terminal_of_100_columns() {
    let mut report = report();
    for (index, delivery) in report.pipelines[0].deliveries.iter_mut().enumerate() {
        delivery.route = "r".repeat(63).into();
        delivery.backend = "b".repeat(63).into();
        delivery.state = DeliveryState::Retrying;
        delivery.breaker.state = [BreakerState::Open, BreakerState::HalfOpen][index];
        delivery.since = NOW - 9_999 * 86_400 * SECOND;
        delivery.held_events = 9_999_999_999;
        delivery.held_bytes = 1_047_527_424;
        delivery.oldest_held = Some(NOW - 400 * 86_400 * SECOND);
        delivery.seconds_until_full = Some(31_535_999);
        delivery.last_error = Some("x".repeat(256));
        delivery.rejections = (0..17).map(|reason| (format!("{reason} {}", "y".repeat(70)), u64::MAX)).collect();
        delivery.dropped_events = BTreeMap::from([("dead_letters_full".into(), u64::MAX)]);
        delivery.dropped_bytes = delivery.dropped_events.clone();
    }
    let text = render(&report, Paint::plain());
    let table = text.lines().skip_while(|line| !line.contains("ROUTE")).take_while(|line| !line.contains("ledger"));
    let widest = table.map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{text}");
}

#[test]
fn a_log_that_no_pipeline_claims_is_a_problem_that_is_named() {
    let log = spillway_delivery::ledger::UnclaimedLog { name: "default.gone".into(), bytes: 2_000_000 };
    let text = render(&StatusReport { unclaimed_logs: vec![log], ..report() }, Paint::plain());
    assert!(text.contains("no pipeline claims the log `default.gone` (1.9 MiB)"), "{text}");
}

#[test]
fn dead_letters_that_are_there_come_with_the_command_that_shows_them() {
    let mut report = report();
    let letters = &mut report.pipelines[0].dead_letters;
    (letters.kept_events, letters.redriven_events) = (2, 2);
    assert!(!render(&report, Paint::plain()).contains("dead-letters list"));
    let letters = &mut report.pipelines[0].dead_letters;
    (letters.held_events, letters.redriven_events) = (1, 1);
    let text = render(&report, Paint::plain());
    assert!(text.contains("\n  `spillway-agent dead-letters list` says why they were refused\n"), "{text}");
}
