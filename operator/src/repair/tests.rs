//! The story of pods, told minute by minute: what is seen, told and evicted. Times of pods are those of the API server, `now` ours.

use serde_json::json;
use spillway_crds::inject::{INJECT, INJECTED, Reason as Why};
use spillway_crds::kinds::status::{RECREATIONS_MAX, SidecarCounts};

use super::*;
use crate::reason::Reason;
use crate::render::tests::{namespace, pod as plain, stdout};
use crate::world::{Change, Maker, Pod};

const AFTER: i64 = 300;
const START: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(START + seconds).unwrap()
}

fn made(image: &str) -> Arc<Made> {
    let amounts = json!({"cpu": "10m", "memory": "32Mi"});
    let text = json!({"image": image, "operator": "https://o", "nodeAgent": "https://n", "runAsUser": 1,
        "requests": amounts, "limits": amounts, "max": amounts, "spool": "64Mi"});
    let settings = Settings::read(&text.to_string()).unwrap();
    Arc::new(Made { revision: settings.revision().into(), settings })
}

/// What a pod has.
#[derive(Clone, Copy)]
enum Has {
    Nothing,
    Sidecar(&'static str),
}

struct Stage {
    world: World,
    repair: Repair,
    stats: RepairStats,
    /// What stands in the status of the pipeline.
    status: Option<SidecarCounts>,
    remediation: Remediation,
    now: i64,
}

fn jobs() -> ObjectKey {
    ObjectKey::new(Kind::MonitoringPipeline, "a", "jobs")
}

impl Stage {
    /// One with a pipeline that wants pods to be recreated, long after it began.
    fn new() -> Self {
        Self::with_rules(true)
    }

    fn with_rules(recreates: bool) -> Self {
        let stats = RepairStats::default();
        let rules = Rules { namespace: "own".into(), recreates, after: SignedDuration::from_secs(AFTER) };
        let mut world = World::default();
        world.apply(namespace("a", "prod"));
        let Change::Object(_, manifest) = stdout("a", "x") else { unreachable!() };
        world.apply(Change::Object(jobs(), manifest));
        let (repair, remediation) = (Repair::new(rules, stats.clone()), Remediation::Recreate);
        let mut stage = Self { world, repair, stats, status: None, remediation, now: 0 };
        stage.repair.made_of(Some(made("agent:1")), at(0));
        stage.now = 10 * AFTER;
        stage
    }

    /// A pod of a maker, created then; `-` is nobody.
    fn pod(&mut self, name: &str, (kind, maker): (&str, &str), created: i64, has: Has) {
        self.changed(name, |pod| {
            pod.carried.created = START + created;
            pod.carried.maker = (kind != "-").then(|| {
                let uid = format!("uid-{maker}").into();
                Arc::new(Maker { api_version: "apps/v1".into(), kind: kind.into(), name: maker.into(), uid })
            });
            let annotations = &mut Arc::make_mut(&mut pod.facts).annotations;
            annotations.insert(INJECT, "jobs");
            if let Has::Sidecar(image) = has {
                annotations.insert(INJECTED, "jobs");
                pod.carried.is_there = true;
                pod.carried.revision = Some(made(image).revision.clone());
            }
        });
    }

    /// A pod of the world, new or changed.
    fn changed(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        let uid: Arc<str> = format!("a-{name}").into();
        let Change::Pod(_, Some(new)) = plain("a", name, "etcher", "n") else { unreachable!() };
        let mut pod = self.world.pod(&uid).map_or(new, |known| (**known).clone());
        change(&mut pod);
        self.world.apply(Change::Pod(uid, Some(pod)));
    }

    fn gone(&mut self, name: &str) {
        self.world.apply(Change::Pod(format!("a-{name}").into(), None));
    }

    /// Looks, and has the status written; returns what it says.
    fn look(&mut self) -> Sidecars {
        let touched = self.world.take_touched();
        self.repair.look(&self.world, &touched);
        let (said, _) = self.repair.sidecars(&jobs(), self.status.as_ref(), self.remediation, at(self.now));
        self.status = said.counts.clone();
        let recreations = self.status.as_ref().map(|counts| counts.recreations.clone()).unwrap_or_default();
        self.repair.stands(&jobs(), recreations);
        said
    }

    fn reason(&mut self) -> Option<Reason> {
        self.look().fault.map(|(reason, _)| reason)
    }

    /// Returns the pod that is to be evicted now.
    fn next(&mut self) -> Option<Eviction> {
        self.look();
        let wanted = self.remediation == Remediation::Recreate;
        self.repair.next(|key| wanted && *key == jobs(), at(self.now)).0
    }

    /// The same; it is evicted with this outcome.
    fn tried(&mut self, outcome: Outcome) -> Option<String> {
        let eviction = self.next()?;
        self.repair.done(&eviction, outcome, at(self.now));
        Some(eviction.pod.to_string())
    }

    fn pass(&mut self, seconds: i64) {
        self.now += seconds;
    }
}

const WEB: (&str, &str) = ("ReplicaSet", "web-1");
const DB: (&str, &str) = ("StatefulSet", "db");

#[test]
fn pods_are_counted_by_what_they_have_and_told_by_name() {
    let mut stage = Stage::new();
    stage.remediation = Remediation::Tell;
    stage.pod("well", WEB, 0, Has::Sidecar("agent:1"));
    assert_eq!(stage.look(), Sidecars::default());
    stage.pod("old", WEB, 0, Has::Sidecar("agent:0"));
    assert_eq!(stage.reason(), Some(Reason::SidecarsOutdated));
    stage.pod("none", WEB, 0, Has::Nothing);
    stage.pod("host", DB, 0, Has::Nothing);
    stage.changed("host", |pod| pod.carried.barred = Some(Why::HostNetwork));
    let Sidecars { counts: Some(counts), fault: Some((reason, words)) } = stage.look() else { panic!("a fault") };
    assert_eq!((counts.missing, counts.outdated, counts.recreations.len()), (2, 1, 0));
    assert_eq!(reason, Reason::SidecarsMissing);
    assert_eq!(words, "pods asked for a sidecar and have none: host (host-network), none; have an outdated one: old");
    let figures = ["current", "outdated", "missing", "barred"].map(|state| stage.stats.pods(state));
    assert_eq!(figures, [1, 1, 1, 1]);
    // Who is over or on its way is not counted, nor is who wants none.
    stage.changed("old", |pod| pod.carried.is_going = true);
    stage.changed("host", |pod| Arc::make_mut(&mut pod.facts).has_ended = true);
    stage.changed("none", |pod| Arc::make_mut(&mut pod.facts).annotations.insert(INJECT, "false"));
    assert_eq!(stage.look(), Sidecars::default());
}

#[test]
fn a_pod_is_of_another_pipeline_when_it_asks_for_another_now() {
    let mut stage = Stage::new();
    stage.pod("p", WEB, 0, Has::Sidecar("agent:1"));
    stage.changed("p", |pod| Arc::make_mut(&mut pod.facts).annotations.insert(INJECTED, "other"));
    assert_eq!(stage.reason(), Some(Reason::SidecarsOutdated));
}

#[test]
fn a_namespace_asks_for_its_pods_and_those_of_ours_and_of_the_system_are_left_alone() {
    let mut stage = Stage::new();
    stage.changed("silent", |_| {});
    assert_eq!(stage.look(), Sidecars::default());
    let labels = [("spillway.dev/inject-default".to_owned(), "jobs".to_owned())].into();
    stage.world.apply(Change::Namespace("a".into(), Some(labels)));
    assert_eq!(stage.reason(), Some(Reason::SidecarsMissing));
    stage.changed("silent", |pod| {
        Arc::make_mut(&mut pod.facts).labels = [("app.kubernetes.io/part-of", "spillway")].into();
    });
    assert_eq!(stage.look(), Sidecars::default());
    for name in ["own", "kube-system"] {
        let key = ObjectKey::new(Kind::MonitoringPipeline, name, "jobs");
        let Change::Pod(uid, Some(mut pod)) = plain(name, "p", "x", "n") else { unreachable!() };
        Arc::make_mut(&mut pod.facts).annotations.insert(INJECT, "jobs");
        stage.world.apply(Change::Pod(uid, Some(pod)));
        stage.look();
        assert_eq!(stage.repair.sidecars(&key, None, Remediation::Tell, at(0)).0, Sidecars::default(), "{name}");
    }
}

#[test]
fn pipelines_are_looked_at_again_when_what_sidecars_are_made_of_becomes_known() {
    let mut stage = Stage::new();
    let look = |stage: &mut Stage| {
        let touched = stage.world.take_touched();
        stage.repair.look(&stage.world, &touched)
    };
    stage.repair.made_of(None, at(0));
    stage.pod("p", WEB, 0, Has::Nothing);
    assert_eq!(look(&mut stage), [jobs()].into());
    assert_eq!(look(&mut stage), [].into());
    stage.repair.made_of(Some(made("agent:1")), at(1));
    assert_eq!(look(&mut stage), [jobs()].into(), "no count moved, and now it may be recreated");
}

#[test]
fn what_a_pod_asks_for_wrongly_is_said_and_it_is_never_evicted() {
    let mut stage = Stage::new();
    stage.pod("p", WEB, 0, Has::Nothing);
    stage.changed("p", |pod| Arc::make_mut(&mut pod.facts).annotations.insert("spillway.dev/memroy", "1Gi"));
    let (_, words) = stage.look().fault.unwrap();
    assert!(words.ends_with("have none: p (unknown-annotation)"), "{words}");
    assert_eq!(stage.next(), None);
    // Of a pipeline that is not there only the maker can be told.
    stage.pod("q", DB, 0, Has::Nothing);
    stage.changed("q", |pod| Arc::make_mut(&mut pod.facts).annotations.insert(INJECT, "jbos"));
    stage.look();
    let news = stage.repair.news(&ObjectKey::new(Kind::MonitoringPipeline, "a", "jbos"), at(0));
    let [(about, told)] = &news[..] else { panic!("{news:?}") };
    assert_eq!(
        (about.label(), told.cause.text()),
        ("StatefulSet a/db".into(), "SidecarsMissing/unknown-pipeline".into())
    );
}

#[test]
fn the_maker_is_told_once_for_each_cause() {
    let mut stage = Stage::new();
    let told = |stage: &mut Stage| {
        stage.look();
        let news = stage.repair.news(&jobs(), at(stage.now));
        news.into_iter().map(|(about, told)| format!("{}: {}", about.label(), told.note)).collect::<Vec<_>>()
    };
    stage.pod("a", WEB, 0, Has::Sidecar("agent:0"));
    let words = "pods that asked for a sidecar with pipeline `jobs` have an outdated one: a";
    assert_eq!(told(&mut stage), [format!("ReplicaSet a/web-1: {words}")]);
    stage.pod("b", WEB, 0, Has::Sidecar("agent:0"));
    assert_eq!(told(&mut stage), [""; 0], "another pod is no other cause");
    stage.pod("b", WEB, 0, Has::Nothing);
    stage.changed("b", |pod| pod.carried.is_there = false);
    assert_eq!(told(&mut stage).len(), 1);
    stage.gone("a");
    stage.gone("b");
    assert_eq!(told(&mut stage), [""; 0]);
    stage.pod("alone", ("-", ""), 0, Has::Nothing);
    assert!(told(&mut stage)[0].starts_with("Pod a/alone: "));
    // A new leader does not know what was told; the Event is the same one.
    stage.repair.begin_term();
    assert_eq!(told(&mut stage).len(), 1);
    for number in 0..2 * MAKERS_TOLD_MAX {
        let name = format!("many-{number}");
        stage.pod(&name, ("ReplicaSet", &name), 0, Has::Nothing);
    }
    assert!(told(&mut stage).len() <= MAKERS_TOLD_MAX);
}

#[test]
fn a_pod_is_evicted_only_after_that_stands_in_the_status() {
    let mut stage = Stage::new();
    stage.pod("p", WEB, 0, Has::Sidecar("agent:0"));
    let touched = stage.world.take_touched();
    stage.repair.look(&stage.world, &touched);
    let (said, _) = stage.repair.sidecars(&jobs(), None, Remediation::Recreate, at(stage.now));
    let wanted = said.counts.unwrap().recreations;
    assert_eq!((&*wanted[0].kind, &*wanted[0].name), WEB);
    assert_eq!(stage.repair.next(|_| true, at(stage.now)), (None, None), "it was asked for and is not there yet");
    stage.repair.stands(&jobs(), wanted);
    let (eviction, _) = stage.repair.next(|_| true, at(stage.now));
    assert_eq!(eviction.map(|eviction| eviction.uid), Some("a-p".into()));
    assert_eq!(stage.repair.next(|_| true, at(stage.now)).0, None, "one at a time");
}

#[test]
fn nothing_is_evicted_that_is_not_to_be() {
    let refused = |change: &dyn Fn(&mut Stage)| {
        let mut stage = Stage::new();
        stage.pod("p", WEB, 0, Has::Nothing);
        change(&mut stage);
        stage.next()
    };
    assert!(refused(&|_| {}).is_some());
    assert_eq!(refused(&|stage| stage.remediation = Remediation::Tell), None);
    assert_eq!(refused(&|stage| stage.pod("p", ("Job", "x"), 0, Has::Nothing)), None);
    assert_eq!(refused(&|stage| stage.pod("p", ("-", ""), 0, Has::Nothing)), None);
    assert_eq!(refused(&|stage| stage.pod("p", ("EtchJob", "x"), 0, Has::Nothing)), None);
    assert_eq!(refused(&|stage| stage.changed("p", |pod| pod.carried.barred = Some(Why::NameTaken))), None);
    assert_eq!(refused(&|stage| stage.pod("p", WEB, stage.now - AFTER + 1, Has::Nothing)), None, "too young");
    assert_eq!(
        refused(&|stage| stage.repair.made_of(Some(made("agent:2")), at(stage.now - AFTER + 1))),
        None,
        "too new"
    );
    assert_eq!(refused(&|stage| stage.repair.made_of(None, at(0))), None, "no sidecars are made");
    let mut stage = Stage::with_rules(false);
    stage.pod("p", WEB, 0, Has::Nothing);
    assert_eq!(stage.next(), None, "the administrator did not enable it");
    let (_, words) = stage.look().fault.unwrap();
    assert!(words.ends_with("; the administrator has not enabled that pods are recreated"), "{words}");
}

#[test]
fn evictions_are_apart_and_the_next_pod_of_a_maker_follows_one_that_came_back_well() {
    let mut stage = Stage::new();
    for name in ["a", "b"] {
        stage.pod(name, WEB, 0, Has::Sidecar("agent:0"));
    }
    stage.pod("d", DB, 0, Has::Sidecar("agent:0"));
    assert_eq!(stage.tried(Outcome::Evicted).as_deref(), Some("d"));
    stage.changed("d", |pod| pod.carried.is_going = true);
    assert_eq!(stage.tried(Outcome::Evicted), None, "too soon");
    stage.pass(10);
    assert_eq!(stage.tried(Outcome::Evicted).as_deref(), Some("a"));
    stage.gone("a");
    stage.pass(3600);
    assert_eq!(stage.tried(Outcome::Evicted), None, "none came back yet");
    stage.pod("a2", WEB, stage.now, Has::Sidecar("agent:1"));
    assert_eq!(stage.tried(Outcome::Evicted).as_deref(), Some("b"));
    stage.gone("b");
    stage.gone("d");
    stage.pod("b2", WEB, stage.now, Has::Sidecar("agent:1"));
    stage.pod("d2", DB, stage.now, Has::Sidecar("agent:1"));
    assert_eq!(stage.look(), Sidecars::default(), "all is well, and nothing is remembered");
    assert_eq!(stage.stats.outcomes(Outcome::Evicted), 3);
}

#[test]
fn what_a_budget_forbids_is_asked_for_again_ever_later_and_others_meanwhile() {
    let mut stage = Stage::new();
    stage.pod("p", WEB, 0, Has::Nothing);
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(stage.tried(Outcome::Held).as_deref(), Some("p"));
        let since = stage.now;
        let again = stage.repair.next(|_| true, at(stage.now)).1.unwrap();
        stage.now = again.as_second() - START;
        waits.push(stage.now - since);
    }
    assert_eq!(waits, [10, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(stage.tried(Outcome::Held).as_deref(), Some("p"));
    stage.pod("q", DB, 0, Has::Nothing);
    stage.pass(10);
    assert_eq!(stage.tried(Outcome::Held).as_deref(), Some("q"), "it does not wait behind the other");
    stage.pass(300);
    assert_eq!(stage.tried(Outcome::Evicted).as_deref(), Some("p"), "once it is allowed");
    assert_eq!((stage.stats.outcomes(Outcome::Held), stage.stats.outcomes(Outcome::Evicted)), (11, 1));
}

#[test]
fn a_pod_that_comes_back_outdated_is_told_and_never_evicted_again() {
    let mut stage = Stage::new();
    for name in ["a", "b"] {
        stage.pod(name, WEB, 0, Has::Sidecar("agent:0"));
    }
    assert_eq!(stage.tried(Outcome::Evicted).as_deref(), Some("a"));
    stage.gone("a");
    stage.pass(1);
    stage.pod("a2", WEB, stage.now, Has::Sidecar("agent:0"));
    let is_stuck = |stage: &mut Stage| {
        for _ in 0..100 {
            stage.pass(3600);
            assert_eq!(stage.tried(Outcome::Evicted), None);
        }
        assert_eq!(stage.reason(), Some(Reason::SidecarsNotMended));
    };
    is_stuck(&mut stage);
    let (_, words) = stage.look().fault.unwrap();
    assert!(words.ends_with("so not evicted again: pods of ReplicaSet web-1"), "{words}");
    let news = stage.repair.news(&jobs(), at(stage.now));
    assert_eq!(news[0].1.cause.reason, Reason::SidecarsNotMended);

    // Nor by another leader, nor by a process that knows nothing but what stands in the cluster.
    stage.repair.begin_term();
    is_stuck(&mut stage);
    let mut other = Stage::new();
    (other.status, other.now) = (stage.status.clone(), stage.now);
    other.pod("b", WEB, 0, Has::Sidecar("agent:0"));
    other.pod("a2", WEB, stage.now - 3600, Has::Sidecar("agent:0"));
    is_stuck(&mut other);

    // Nor where the last pod of it was away for a while.
    other.gone("b");
    other.gone("a2");
    other.pass(3600);
    assert_eq!(other.reason(), None);
    other.pod("a3", WEB, other.now, Has::Nothing);
    is_stuck(&mut other);

    // Sidecars that are made otherwise are worth another attempt.
    other.repair.made_of(Some(made("agent:2")), at(other.now));
    assert_eq!(other.tried(Outcome::Evicted), None, "the webhook may not make them so yet");
    other.pass(AFTER);
    assert_eq!(other.tried(Outcome::Evicted).as_deref(), Some("a3"));
}

#[test]
fn where_nothing_comes_back_well_everything_stands_still() {
    let mut stage = Stage::new();
    let makers = RECREATIONS_MAX as usize + 8;
    for number in 0..makers {
        stage.pod(&format!("p{number}"), ("ReplicaSet", &format!("web-{number:02}")), 0, Has::Nothing);
    }
    let mut evicted = 0;
    for _ in 0..10 * makers {
        if let Some(name) = stage.tried(Outcome::Evicted) {
            stage.gone(&name);
            let maker = format!("web-{:02}", name[1..].split('-').next().unwrap().parse::<usize>().unwrap());
            stage.pod(&format!("{name}-new"), ("ReplicaSet", &maker), stage.now, Has::Nothing);
            evicted += 1;
        }
        stage.pass(3600);
    }
    assert_eq!(evicted, RECREATIONS_MAX as usize);
    assert_eq!(stage.look().counts.unwrap().missing as usize, makers);
}
