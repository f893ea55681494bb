//! What status says, by story.

mod argo;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use spillway_crds::kinds::monitoring_pipeline::BackendRefKind;
use spillway_crds::kinds::status::{BackendHealth, BackendStatus, ConditionStatus, PipelineStatus, StatusCondition};
use spillway_crds::nodes::{self, named};
use spillway_crds::served::{BackendCondition, BackendReport, FORBIDDEN, Refused};

use super::*;
use crate::hub::{Edition, Objects, Slice};
use crate::render::{Use, Verdict, Why};
use crate::reports::{Report, Reports};
use crate::world::ObjectKey;
use spillway_crds::kinds::Kind;

const PIPELINE: &str = "MonitoringPipeline fab12/jobs";
const BACKEND: &str = "Backend fab12/search";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn edition(generation: i64) -> Edition {
    Edition { generation, hash: 0 }
}

/// Nodes with slices, and what their agents say.
struct Fleet {
    slices: BTreeMap<Arc<str>, Arc<Slice>>,
    ready: BTreeMap<Arc<str>, bool>,
    reports: Reports,
    since: Timestamp,
}

impl Fleet {
    /// Nodes that are to run generation `generation` of the pipeline, all of which do.
    fn running(names: &[&str], generation: i64) -> Self {
        let objects: Arc<Objects> =
            Arc::new(BTreeMap::from([(PIPELINE.into(), edition(generation)), (BACKEND.into(), edition(1))]));
        let slice = Arc::new(Slice { objects: objects.clone(), ..Slice::default() });
        let report = |name: &&str| Report {
            pod_uid: (*name).into(),
            seen: at(0),
            running: None,
            objects: objects.clone(),
            refused: Vec::new(),
            backends: Vec::new(),
            holding: Vec::new(),
            authorities: None,
        };
        Self {
            slices: names.iter().map(|name| ((*name).into(), slice.clone())).collect(),
            ready: names.iter().map(|name| ((*name).into(), true)).collect(),
            reports: names.iter().map(|name| ((*name).into(), report(name))).collect(),
            since: at(-1000),
        }
    }

    fn agents(&self) -> Agents<'_> {
        Agents::new(&self.reports, &self.ready, &self.slices, self.since)
    }

    fn of(&mut self, node: &str) -> &mut Report {
        self.reports.get_mut(node).unwrap()
    }

    fn pipeline(
        &self,
        verdict: &Verdict,
        before: &PipelineStatus,
        now: Timestamp,
    ) -> (PipelineStatus, Option<Timestamp>) {
        pipeline(&key(), verdict, before, &self.agents(), now)
    }
}

fn key() -> ObjectKey {
    ObjectKey::new(Kind::MonitoringPipeline, "fab12", "jobs")
}

fn good(generation: i64) -> Verdict {
    let uses = vec![Use { route: "all".into(), kind: BackendRefKind::Backend, name: "search".into() }];
    Verdict {
        generation,
        accepted: Ok(()),
        resolved: Ok(()),
        served: Some(generation),
        is_suspended: false,
        uses: uses.into(),
        used_by: 1,
        keep: None,
    }
}

fn why(reason: Reason, message: &str) -> Why {
    Why { reason, message: message.to_owned() }
}

fn fault(state: BackendCondition, since: Timestamp, error: &str) -> BackendReport {
    BackendReport {
        object: PIPELINE.into(),
        route: "all".into(),
        backend: "fab12.search".into(),
        state,
        fault: String::new(),
        error: error.into(),
        since_unix_seconds: since.as_second() as u64,
    }
}

fn find<'a>(conditions: &'a [StatusCondition], kind: &str) -> Option<&'a StatusCondition> {
    conditions.iter().find(|condition| condition.r#type == kind)
}

/// What a condition says: status, reason.
fn said<'a>(status: &'a PipelineStatus, kind: &str) -> (ConditionStatus, &'a str) {
    let condition = find(&status.conditions, kind).unwrap();
    (condition.status, condition.reason.as_str())
}

fn message<'a>(status: &'a PipelineStatus, kind: &str) -> &'a str {
    &find(&status.conditions, kind).unwrap().message
}

/// What kstatus makes of a status, by the rules of its library for kinds that it does not know.
fn kstatus(generation: i64, observed: Option<i64>, conditions: &[StatusCondition]) -> &'static str {
    let is = |kind: &str, status: ConditionStatus| find(conditions, kind).is_some_and(|one| one.status == status);
    if observed != Some(generation) || is("Reconciling", ConditionStatus::True) {
        "InProgress"
    } else if is("Stalled", ConditionStatus::True) {
        "Failed"
    } else if is("Ready", ConditionStatus::True) {
        "Current"
    } else {
        "InProgress"
    }
}

use ConditionStatus::{False, True, Unknown};

#[test]
fn a_pipeline_is_ready_once_every_agent_that_counts_runs_it() {
    let mut fleet = Fleet::running(&["n1", "n2", "n3"], 2);
    fleet.of("n2").objects = Arc::new(BTreeMap::from([(PIPELINE.into(), edition(1)), (BACKEND.into(), edition(1))]));
    let (status, _) = fleet.pipeline(&good(2), &PipelineStatus::default(), at(1));
    assert_eq!(said(&status, "Programmed"), (False, "Waiting"));
    assert_eq!(message(&status, "Programmed"), "2 of 3 agents run it; waiting for n2");
    assert_eq!(said(&status, "Ready"), (False, "Waiting"));
    assert_eq!(kstatus(2, status.observed_generation, &status.conditions), "InProgress");
    // A node that is not ready, or an agent that is silent for five minutes, is named and holds nothing up.
    fleet.ready.insert("n2".into(), false);
    let (status, _) = fleet.pipeline(&good(2), &status, at(2));
    assert_eq!(said(&status, "Programmed"), (True, "Programmed"));
    assert_eq!(message(&status, "Programmed"), "2 of 2 agents run it; 1 node not ready or not heard: n2");
    let agents = status.agents.unwrap();
    assert_eq!((agents.desired, agents.programmed, agents.failing), (2, 2, 0));
    assert_eq!(said(&status, "Ready"), (True, "Ready"));
    assert_eq!(kstatus(2, status.observed_generation, &status.conditions), "Current");
    fleet.ready.insert("n2".into(), true);
    fleet.of("n2").seen = at(-300);
    let (silent, _) = fleet.pipeline(&good(2), &status, at(3));
    assert_eq!(silent, status);
}

#[test]
fn an_older_version_of_a_backend_is_not_the_pipeline_as_it_is_now() {
    let mut fleet = Fleet::running(&["n1"], 1);
    fleet.of("n1").objects = Arc::new(BTreeMap::from([(PIPELINE.into(), edition(1)), (BACKEND.into(), edition(0))]));
    let (status, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    assert_eq!(said(&status, "Programmed"), (False, "Waiting"));
}

#[test]
fn where_nothing_changed_nothing_is_written_and_times_move_with_status_alone() {
    let mut fleet = Fleet::running(&["n1"], 1);
    let (first, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    fleet.of("n1").seen = at(100);
    let (second, _) = fleet.pipeline(&good(1), &first, at(101));
    assert_eq!(second, first);
    let fleet = Fleet { since: at(-1000), ..Fleet::running(&["n1"], 2) };
    let (third, _) = fleet.pipeline(&good(2), &second, at(200));
    assert_eq!(third.observed_generation, Some(2));
    let times = |status: &PipelineStatus| -> Vec<String> {
        status.conditions.iter().map(|condition| condition.last_transition_time.clone()).collect()
    };
    assert_eq!(times(&third), times(&first));
    assert!(third.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
}

#[test]
fn a_bad_spec_stalls_and_says_what_runs_on() {
    let fleet = Fleet::running(&["n1"], 3);
    let bad = Verdict { accepted: Err(why(Reason::Invalid, "spec.routes: missing field")), served: Some(3), ..good(4) };
    let (status, _) = fleet.pipeline(&bad, &PipelineStatus::default(), at(1));
    assert_eq!(said(&status, "Ready"), (False, "Invalid"));
    assert_eq!(message(&status, "Ready"), "spec.routes: missing field; generation 3 runs on");
    assert_eq!(said(&status, "ResolvedRefs"), (Unknown, "NotAccepted"));
    assert_eq!(said(&status, "Programmed"), (False, "OlderVersion"));
    assert_eq!(said(&status, "DataFlowing"), (True, "Flowing"));
    assert_eq!(status.agents.unwrap().programmed, 0);
    assert_eq!(kstatus(4, status.observed_generation, &status.conditions), "Failed");
    let (status, _) = fleet.pipeline(&good(3), &status, at(2));
    assert_eq!(kstatus(3, status.observed_generation, &status.conditions), "Current");
    assert!(find(&status.conditions, "Stalled").is_none());
}

#[test]
fn what_is_missing_is_waited_for() {
    for (reason, expected, status) in [
        (Reason::BackendNotFound, "BackendNotFound", False),
        (Reason::RefNotPermitted, "RefNotPermitted", False),
        (Reason::SecretNotFound, "SecretNotFound", False),
        (Reason::Pending, "Pending", Unknown),
    ] {
        let fleet = Fleet::running(&[], 1);
        let verdict = Verdict { resolved: Err(why(reason, "search is missing")), served: None, ..good(1) };
        let (told, _) = fleet.pipeline(&verdict, &PipelineStatus::default(), at(1));
        assert_eq!((said(&told, "ResolvedRefs"), said(&told, "Ready")), ((status, expected), (status, expected)));
        assert_eq!(said(&told, "Programmed"), (False, "NotServed"));
        assert_eq!(kstatus(1, told.observed_generation, &told.conditions), "InProgress", "{expected}");
    }
}

#[test]
fn a_refusal_is_told_with_node_and_reason() {
    let mut fleet = Fleet::running(&["n1", "n2"], 1);
    fleet.of("n2").refused = vec![Refused { object: PIPELINE.into(), reason: "the volume is full".into(), kept: true }];
    let (status, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    assert_eq!(said(&status, "Ready"), (False, "Refused"));
    assert_eq!(
        message(&status, "Programmed"),
        "refused by 1 of 2 agents (n2); an older version runs on there: the volume is full"
    );
    let agents = status.agents.unwrap();
    assert_eq!((agents.desired, agents.programmed, agents.failing), (2, 1, 1));
    assert_eq!(kstatus(1, status.observed_generation, &status.conditions), "Failed");
}

#[test]
fn a_backend_that_takes_nothing_lowers_ready_after_a_minute() {
    let mut fleet = Fleet::running(&["n1", "n2"], 1);
    let (before, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(0));
    assert_eq!(
        (before.backends[0].state, before.backends[0].since.as_deref()),
        (BackendHealth::Healthy, Some("2027-01-15T08:00:00Z"))
    );
    fleet.of("n1").backends = vec![fault(BackendCondition::Unreachable, at(5), "connection refused, port 40001")];
    fleet.of("n2").backends = vec![fault(BackendCondition::Retrying, at(1), "timed out")];
    let (down, again) = fleet.pipeline(&good(1), &before, at(10));
    assert_eq!(said(&down, "DataFlowing"), (False, "BackendUnreachable"));
    assert_eq!(
        message(&down, "DataFlowing"),
        "search: unreachable since 2027-01-15T08:00:05Z on 1 agent: connection refused, port 40001"
    );
    assert_eq!(said(&down, "Ready"), (True, "Ready"));
    assert!(again.unwrap() <= at(70), "{again:?}");
    let state = &down.backends[0];
    assert_eq!(
        (state.state, state.agents, state.since.as_deref()),
        (BackendHealth::Unreachable, Some(1), Some("2027-01-15T08:00:05Z"))
    );
    // Another port in the same words is no news; other words are.
    fleet.of("n1").backends[0].error = "connection refused, port 40002".into();
    assert_eq!(fleet.pipeline(&good(1), &down, at(69)).0, down);
    let (lowered, _) = fleet.pipeline(&good(1), &down, at(70));
    assert_eq!(said(&lowered, "Ready"), (False, "BackendUnreachable"));
    fleet.of("n1").backends[0].error = "no such host".into();
    let (other, _) = fleet.pipeline(&good(1), &lowered, at(71));
    assert!(message(&other, "Ready").ends_with("no such host"));
    assert_eq!(kstatus(1, other.observed_generation, &other.conditions), "InProgress");
    fleet.of("n1").backends.clear();
    fleet.of("n2").backends.clear();
    let (up, _) = fleet.pipeline(&good(1), &other, at(80));
    assert_eq!((said(&up, "Ready"), said(&up, "DataFlowing")), ((True, "Ready"), (True, "Flowing")));
}

#[test]
fn attempts_that_failed_a_moment_ago_are_not_told_yet() {
    let mut fleet = Fleet::running(&["n1"], 1);
    fleet.of("n1").backends = vec![fault(BackendCondition::Retrying, at(5), "reset")];
    let (status, again) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(6));
    assert_eq!((said(&status, "DataFlowing"), again), ((True, "Flowing"), Some(at(15))));
    let (status, _) = fleet.pipeline(&good(1), &status, at(15));
    assert_eq!(said(&status, "DataFlowing"), (False, "BackendRetrying"));
    // The clock of a node that goes ahead hides nothing for long.
    fleet.of("n1").backends = vec![fault(BackendCondition::Unreachable, at(5000), "reset")];
    let (status, _) = fleet.pipeline(&good(1), &status, at(16));
    assert_eq!(status.backends[0].since.as_deref(), Some("2027-01-15T08:00:16Z"));
}

#[test]
fn an_address_that_no_agent_may_connect_to_is_told_at_once_and_waits_for_somebody() {
    let mut fleet = Fleet::running(&["n1", "n2"], 1);
    let forbidden = BackendReport {
        fault: FORBIDDEN.into(),
        ..fault(BackendCondition::Retrying, at(5), "not sent: 169.254.169.254 is link-local")
    };
    fleet.of("n1").backends = vec![fault(BackendCondition::Unreachable, at(1), "refused")];
    fleet.of("n2").backends = vec![forbidden];
    let (status, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(6));
    assert_eq!(said(&status, "DataFlowing"), (False, "BackendForbidden"));
    assert_eq!(
        message(&status, "DataFlowing"),
        "search: forbidden since 2027-01-15T08:00:05Z on 1 agent: not sent: 169.254.169.254 is link-local"
    );
    assert_eq!(status.backends[0].state, BackendHealth::Unreachable);
    let (status, _) = fleet.pipeline(&good(1), &status, at(70));
    assert_eq!(
        (said(&status, "Ready"), said(&status, "Stalled")),
        ((False, "BackendForbidden"), (True, "BackendForbidden"))
    );
}

#[test]
fn idle_and_suspended_are_ready_and_say_so() {
    let fleet = Fleet::running(&[], 1);
    let (status, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    assert_eq!((said(&status, "Ready"), said(&status, "DataFlowing")), ((True, "Idle"), (True, "Idle")));
    let suspended = Verdict { is_suspended: true, ..good(1) };
    let fleet = Fleet::running(&["n1"], 1);
    let (status, again) = fleet.pipeline(&suspended, &PipelineStatus::default(), at(1));
    assert_eq!((said(&status, "Ready"), said(&status, "DataFlowing")), ((True, "Suspended"), (False, "Suspended")));
    let (later, _) = fleet.pipeline(&suspended, &status, at(200));
    assert_eq!(said(&later, "Ready"), (True, "Suspended"), "{again:?}");
}

#[test]
fn agents_that_nobody_heard_are_not_taken_for_running() {
    let mut fleet = Fleet::running(&["n1", "n2"], 1);
    fleet.reports.clear();
    let (status, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    assert_eq!(
        (said(&status, "Programmed"), said(&status, "Ready")),
        ((Unknown, "AgentsAbsent"), (Unknown, "AgentsAbsent"))
    );
    assert_eq!(
        message(&status, "Ready"),
        "no agent that is to run it was heard; 2 nodes not ready or not heard: n1, n2"
    );
}

#[test]
fn a_new_leader_leaves_what_the_last_one_saw_until_agents_are_heard() {
    let mut fleet = Fleet::running(&["n1", "n2"], 1);
    let (before, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(0));
    let heard = std::mem::take(&mut fleet.reports);
    fleet.since = at(100);
    let (settling, again) = fleet.pipeline(&good(1), &before, at(101));
    assert_eq!((&settling, again), (&before, Some(at(190))));
    let (late, _) = fleet.pipeline(&good(1), &before, at(190));
    assert_eq!(said(&late, "Ready"), (Unknown, "AgentsAbsent"));
    // Another generation is not what the last one saw.
    let (changed, _) = fleet.pipeline(&good(2), &before, at(101));
    assert_eq!(said(&changed, "Programmed"), (Unknown, "Pending"));
    fleet.reports = heard;
    assert_eq!(fleet.pipeline(&good(1), &before, at(102)).0, before);
}

#[test]
fn a_destination_tells_of_its_agents_and_pipelines() {
    let key = ObjectKey::new(Kind::Backend, "fab12", "search");
    let mut fleet = Fleet::running(&["n1", "n2"], 1);
    let tell = |fleet: &Fleet, verdict: &Verdict, before: &BackendStatus, now| {
        let (status, _) = backend(&key, verdict, before, &fleet.agents(), now);
        let of = |kind| find(&status.conditions, kind).map(|one| (one.status, one.reason.clone())).unwrap();
        (of("Ready"), of("Reachable"), status)
    };
    let word = |word: &str| word.to_owned();
    let verdict = Verdict { uses: Box::default(), ..good(1) };
    let (ready, reachable, before) = tell(&fleet, &verdict, &BackendStatus::default(), at(0));
    assert_eq!((ready, reachable), ((True, word("Ready")), (True, word("Reachable"))));
    assert_eq!(before.pipelines, Some(1));
    assert_eq!(tell(&fleet, &verdict, &before, at(9)).2, before);
    fleet.of("n2").backends = vec![fault(BackendCondition::Unreachable, at(1), "refused")];
    let (ready, reachable, down) = tell(&fleet, &verdict, &before, at(10));
    assert_eq!((ready, reachable), ((True, word("Ready")), (False, word("BackendUnreachable"))));
    let (ready, _, _) = tell(&fleet, &verdict, &down, at(70));
    assert_eq!(ready, (False, word("BackendUnreachable")));
    let unused = Verdict { used_by: 0, ..verdict.clone() };
    let (ready, reachable, _) = tell(&Fleet::running(&[], 1), &unused, &BackendStatus::default(), at(0));
    assert_eq!((ready, reachable), ((True, word("Unused")), (Unknown, word("Unused"))));
    let missing = Verdict { resolved: Err(why(Reason::SecretKeyNotFound, "no key")), ..verdict };
    assert_eq!(tell(&fleet, &missing, &before, at(1)).0, (False, word("SecretKeyNotFound")));
}

#[test]
fn a_report_of_the_cluster_is_no_report_of_a_namespace() {
    let report =
        |backend: &str| BackendReport { backend: backend.into(), ..fault(BackendCondition::Retrying, at(0), "") };
    let (own, of_cluster) =
        (ObjectKey::new(Kind::Backend, "a", "x.y"), ObjectKey::new(Kind::ClusterBackend, "", "x.y"));
    for (backend, expected) in [
        ("a.x.y", (true, false)),
        (".x.y", (false, true)),
        ("_cluster.x.y", (false, true)),
        ("b.x.y", (false, false)),
        ("x", (false, false)),
    ] {
        let said = report(backend);
        assert_eq!((faults::is_about(&said, &own), faults::is_about(&said, &of_cluster)), expected, "{backend}");
    }
}

#[test]
fn long_words_are_cut_and_many_nodes_counted() {
    let names: Vec<String> = (0..9).map(|number| format!("n{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(named(names.iter().copied()), "n0, n1, n2, n3, n4 and 4 more");
    let fleet = Fleet { reports: Reports::default(), ..Fleet::running(&names, 1) };
    let (status, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    let said = nodes::read(message(&status, "Programmed"));
    assert_eq!([said.absent.has("n4"), said.absent.has("n8")], [Some(true), None]);
    let mut fleet = Fleet::running(&["n1"], 1);
    fleet.of("n1").refused = vec![Refused { object: PIPELINE.into(), reason: "ä".repeat(9999), kept: false }];
    let (status, _) = fleet.pipeline(&good(1), &PipelineStatus::default(), at(1));
    assert_eq!(message(&status, "Ready").chars().count(), MESSAGE_CHARS_MAX);
}

#[test]
fn every_reason_has_a_row_with_a_remedy_on_its_page() {
    let page = include_str!("../../../docs/reference/status.md");
    let (_, table) = page.split_once("## Reasons").unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<&str> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
            cells[0].trim_matches('`')
        })
        .collect();
    let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(told, known);
}

#[test]
fn a_transition_is_told_in_whole_seconds() {
    assert_eq!(text(at(0).saturating_add(SignedDuration::from_millis(900)).unwrap()), "2027-01-15T08:00:00Z");
}

#[test]
fn sidecars_come_and_go_without_a_word_and_are_heard_where_something_is_wrong() {
    let mut fleet = Fleet::running(&["n1", "fab12/etcher-0", "fab12/etcher-1"], 2);
    fleet.reports.remove("fab12/etcher-1");
    fleet.of("fab12/etcher-0").objects = Arc::default();
    let (status, again) = fleet.pipeline(&good(2), &PipelineStatus::default(), at(1));
    assert_eq!((said(&status, "Ready"), message(&status, "Programmed")), ((True, "Ready"), "1 of 1 agent run it"));
    assert_eq!(status.agents.unwrap().desired, 1);
    assert!(again.is_some());
    // A backend that only sidecars send to.
    fleet.of("fab12/etcher-0").backends = vec![fault(BackendCondition::Unreachable, at(-100), "connection refused")];
    let (status, _) = fleet.pipeline(&good(2), &status, at(2));
    assert_eq!(said(&status, "DataFlowing"), (False, "BackendUnreachable"));
    assert!(message(&status, "DataFlowing").contains("on 1 agent: connection refused"));
    // So is a route that it cannot hand to the agent of its node; the words say what that is.
    let to_node = BackendReport {
        backend: ".node-agent".into(),
        ..fault(BackendCondition::Unreachable, at(-50), "agent of the node: connection refused")
    };
    fleet.of("fab12/etcher-0").backends = vec![to_node];
    let (of_node, _) = fleet.pipeline(&good(2), &status, at(2));
    assert!(message(&of_node, "DataFlowing").ends_with("on 1 agent: agent of the node: connection refused"));
    // What one does not run is told with its name, as the command line reads it.
    let reason = "the volume is full".to_owned();
    fleet.of("fab12/etcher-0").refused = vec![Refused { object: PIPELINE.into(), reason, kept: false }];
    let (status, _) = fleet.pipeline(&good(2), &status, at(3));
    let words = message(&status, "Programmed");
    assert_eq!(words, "refused by 1 of 2 agents (fab12/etcher-0): the volume is full");
    assert_eq!(nodes::read(words).refused.has("fab12/etcher-0"), Some(true));
    // One that is silent for five minutes is told of no longer.
    let (status, _) = fleet.pipeline(&good(2), &status, at(301));
    assert!(!message(&status, "Programmed").contains("etcher"));
}
