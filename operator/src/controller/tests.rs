//! The loop without its tasks: what the watches note goes in, what is to be written comes out and is written here, or not.

use clap::Parser;
use futures_util::FutureExt;
use spillway_crds::kinds::status::ConditionStatus;
use spillway_crds::served::{Ask, Held, PodFacts, Version};
use tokio::task::JoinSet;

use super::*;
use crate::cluster::convert::Stored;
use crate::render::tests::{key, namespace, node, pipeline, pod, stdout};
use crate::world::{LastGood, Manifest, Pod};

const JOBS: &str = "MonitoringPipeline a/jobs";

/// Room for everything that a turn asks for.
const ROOM: usize = 64;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    flags: ControllerFlags,
}

/// A controller, the cluster, and one agent on the node `n`.
struct Stage {
    controller: Controller,
    ends: Ends,
    statuses: mpsc::Receiver<Wish<StatusText>>,
    keeps: mpsc::Receiver<Wish<Keep>>,
    news: mpsc::Receiver<Wish<News>>,
    hub: Arc<Hub>,
    clock: Clock,
    /// What the cluster holds.
    objects: BTreeMap<ObjectKey, (Manifest, StatusText)>,
    /// Last good versions that were ever written: the name follows from the content.
    kept: Vec<Arc<LastGood>>,
}

/// The pod of the agent on the node `n`.
fn agent() -> Pod {
    let facts = PodFacts { uid: "agent".into(), namespace: "spillway-system".into(), ..PodFacts::default() };
    Pod {
        facts: facts.into(),
        node: "n".into(),
        service_account: "spillway-agent".into(),
        uid: "agent".into(),
        ..Pod::default()
    }
}

impl Stage {
    fn new() -> Self {
        let flags = Flags::parse_from(["controller"]).flags;
        let clock = Clock::manual(1_800_000_000 * 1_000_000_000);
        let hub = Arc::new(Hub::default());
        let of_loop = (hub.clone(), Arc::new(Health::default()), RepairStats::default());
        let controller = Controller::new(&flags, clock.clone(), of_loop, Tickets::new(b"of the test"), Arc::default());
        let (statuses, asked_statuses) = mpsc::channel(ROOM);
        let (keeps, asked_keeps) = mpsc::channel(ROOM);
        let (news, asked_news) = mpsc::channel(ROOM);
        let ends = Ends {
            notes: mpsc::channel(1).1,
            secrets: mpsc::channel(1).1,
            leading: watch::channel(None).1,
            reports: hub.report_changes(),
            secrets_wanted: watch::channel(Named::new()).0,
            statuses,
            keeps,
            news,
            made: watch::channel(None).1,
            makers: mpsc::channel(ROOM).0,
            evictions: mpsc::channel(1).0,
            outcomes: mpsc::channel(1).1,
        };
        let (statuses, keeps, news) = (asked_statuses, asked_keeps, asked_news);
        let objects = BTreeMap::new();
        Self { controller, ends, statuses, keeps, news, hub, clock, objects, kept: Vec::new() }
    }

    /// One that leads, with a pipeline to files, a pod of it and an agent that runs it.
    async fn running() -> Self {
        let mut stage = Self::new();
        stage.lead(Some(1));
        stage.note(Change::Pod("agent".into(), Some(agent())));
        for change in [node("n"), namespace("a", "prod"), pod("a", "p", "x", "n")] {
            stage.note(change);
        }
        stage.object(stdout("a", "out"));
        stage.object(pipeline("a", "jobs", "x", "out"));
        stage.turn().await;
        stage.agent_asks().await;
        stage.turn().await;
        assert_eq!(stage.ready(), (ConditionStatus::True, "Ready".into()));
        assert!(stage.news.try_recv().is_err());
        stage
    }

    fn note(&mut self, change: Change) {
        self.controller.take(Noted::World(change));
    }

    /// Puts an object into the cluster, as it stands there with its status.
    fn object(&mut self, change: Change) {
        let Change::Object(key, Some(manifest)) = change else { panic!("an object") };
        let status = self.objects.remove(&key).map(|(_, status)| status);
        let status =
            status.unwrap_or_else(|| crate::cluster::convert::status(key.kind, serde_json::Value::Null).to_text());
        self.watched(key, manifest, status);
    }

    /// Something of an object is as it is now: the watch tells.
    fn watched(&mut self, key: ObjectKey, manifest: Manifest, status: StatusText) {
        self.objects.insert(key.clone(), (manifest.clone(), status.clone()));
        self.controller.take(Noted::Object(key, Box::new((manifest, status))));
    }

    fn lead(&mut self, leading: Leading) {
        self.controller.lead(leading);
    }

    fn pass(&self, seconds: i64) {
        self.clock.set(self.clock.now() + seconds * 1_000_000_000);
    }

    /// Lets the controller look, and writes what it asks for until it asks for nothing more.
    async fn turn(&mut self) {
        loop {
            self.controller.turn(&self.ends).await;
            let mut is_quiet = true;
            while let Ok((key, status)) = self.statuses.try_recv() {
                let manifest = self.objects[&key].0.clone();
                self.watched(key, manifest, status);
                is_quiet = false;
            }
            while let Ok((key, keep)) = self.keeps.try_recv() {
                self.keep(&key, keep);
                is_quiet = false;
            }
            if is_quiet {
                return;
            }
        }
    }

    fn keep(&mut self, key: &ObjectKey, keep: Keep) {
        // One that is there is not made again.
        if !self.kept.contains(&keep.good) {
            self.kept.push(keep.good.clone());
            let place = (Arc::from("a"), Arc::from(format!("kept-{}", self.kept.len())));
            let stored = Stored { place, owner: keep.uid, made: self.kept.len() as i64, good: keep.good };
            self.controller.take(Noted::Good(key.clone(), Box::new(stored)));
        }
        for old in keep.before {
            self.controller.take(Noted::GoodGone(key.clone(), ("a".into(), old.into())));
        }
    }

    /// The agent takes what there is for it, and says that it runs it.
    async fn agent_asks(&mut self) {
        let news = self.hub.wait_for_news("n", &Ask::default()).await.unwrap().to_answer();
        let running = news.configuration.map(|configuration| configuration.version);
        let now = self.controller.now();
        self.hub.acknowledge("agent", &Ask { running, ..Ask::default() }, now).unwrap();
    }

    /// What stands in the cluster of whether the pipeline is ready.
    fn ready(&self) -> (ConditionStatus, String) {
        let status = self.objects[&key(JOBS)].1.read(key(JOBS).kind);
        let ready = status.conditions().iter().find(|condition| condition.r#type == "Ready").unwrap();
        (ready.status, ready.reason.clone())
    }
}

#[tokio::test]
async fn a_status_that_somebody_else_changed_is_put_right() {
    let mut stage = Stage::running().await;
    let (manifest, good) = stage.objects[&key(JOBS)].clone();
    let empty = crate::cluster::convert::status(key(JOBS).kind, serde_json::Value::Null).to_text();
    stage.watched(key(JOBS), manifest, empty);
    stage.turn().await;
    assert_eq!(stage.objects[&key(JOBS)].1, good);
}

#[tokio::test]
async fn an_agent_that_was_not_heard_and_comes_back_counts_again() {
    let mut stage = Stage::running().await;
    stage.pass(6 * 60);
    stage.turn().await;
    assert_eq!(stage.ready(), (ConditionStatus::Unknown, "AgentsAbsent".into()));
    let mut changes = stage.hub.report_changes();
    stage.agent_asks().await;
    assert!(changes.has_changed().unwrap(), "nobody is woken");
    changes.mark_unchanged();
    stage.turn().await;
    assert_eq!(stage.ready(), (ConditionStatus::True, "Ready".into()));
    // The same again is no news.
    stage.agent_asks().await;
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test]
async fn one_that_is_made_anew_is_not_taken_for_the_one_of_its_name_that_agents_run() {
    let mut stage = Stage::running().await;
    stage.controller.take(Noted::Gone(key(JOBS)));
    stage.objects.remove(&key(JOBS));
    let Change::Object(of, Some(mut manifest)) = pipeline("a", "jobs", "x", "out") else { panic!("an object") };
    manifest.uid = "anew".into();
    manifest.text = manifest.text.replace("\"all\"", "\"every\"").into();
    stage.object(Change::Object(of, Some(manifest)));
    stage.turn().await;
    assert_eq!(stage.ready(), (ConditionStatus::False, "Waiting".into()), "both have generation 1");
    stage.agent_asks().await;
    stage.turn().await;
    assert_eq!(stage.ready(), (ConditionStatus::True, "Ready".into()));
}

#[tokio::test]
async fn a_node_that_is_not_ready_is_told_of() {
    let mut stage = Stage::running().await;
    stage.note(Change::Node("n".into(), Some(false)));
    stage.turn().await;
    assert_ne!(stage.ready(), (ConditionStatus::True, "Ready".into()));
    stage.note(node("n"));
    stage.turn().await;
    assert_eq!(stage.ready(), (ConditionStatus::True, "Ready".into()));
}

#[tokio::test]
async fn what_was_asked_for_in_an_earlier_term_is_asked_for_again() {
    let mut stage = Stage::running().await;
    // The Backend goes, and the Lease is lost before the status is written.
    stage.controller.take(Noted::Gone(key("Backend a/out")));
    stage.objects.remove(&key("Backend a/out"));
    stage.controller.turn(&stage.ends).await;
    assert!(stage.statuses.try_recv().is_ok());
    assert!(stage.news.try_recv().is_ok(), "it is worth an Event");
    while stage.statuses.try_recv().is_ok() {}
    stage.lead(None);
    stage.turn().await;
    assert_eq!(stage.ready(), (ConditionStatus::True, "Ready".into()), "who follows writes nothing");
    assert_eq!(stage.controller.next_look(), None, "and has nothing to look at by itself");
    stage.lead(Some(2));
    stage.turn().await;
    assert_eq!(stage.ready().1, "BackendNotFound");
}

#[tokio::test]
async fn a_term_begins_with_its_epoch_also_where_the_end_of_the_one_before_went_unseen() {
    let mut stage = Stage::running().await;
    stage.controller.take(Noted::Gone(key("Backend a/out")));
    stage.objects.remove(&key("Backend a/out"));
    // The Lease is lost and taken again while the loop asks, and who writes forgets what it was asked for.
    stage.controller.turn(&stage.ends).await;
    while stage.statuses.try_recv().is_ok() {}
    stage.lead(Some(2));
    stage.turn().await;
    assert_eq!(stage.ready().1, "BackendNotFound");
    // The same epoch is the same term.
    let since = stage.controller.leads_since;
    stage.pass(1);
    stage.lead(Some(2));
    assert_eq!((stage.controller.leads_since, stage.controller.is_new), (since, false));
}

#[tokio::test]
async fn a_new_leader_takes_nothing_from_an_agent_that_holds_events_of_it() {
    let stage = Stage::running().await;
    let news = stage.hub.wait_for_news("n", &Ask::default()).await.unwrap().to_answer();
    let ticket = news.configuration.unwrap().tickets[JOBS].clone();
    let mut other = Stage::new();
    other.lead(Some(2));
    other.note(Change::Pod("agent".into(), Some(agent())));
    for change in [node("n"), namespace("a", "prod")] {
        other.note(change);
    }
    // Nothing feeds the pipeline on that node any more.
    other.object(stdout("a", "out"));
    other.object(pipeline("a", "jobs", "x", "out"));
    other.turn().await;
    let holding = vec![Held { object: JOBS.into(), ticket }];
    let running = Some(Version { epoch: 1, generation: 1, hash: "of the other leader".into() });
    let ask = Ask { running, holding, ..Ask::default() };
    other.hub.acknowledge("agent", &ask, other.controller.now()).unwrap();
    let given = |stage: &Stage| {
        let news = stage.hub.wait_for_news("n", &ask).now_or_never()?.unwrap().to_answer();
        Some(news.configuration?.tickets.into_keys().collect::<Vec<_>>())
    };
    assert_eq!(given(&other), None);
    other.turn().await;
    assert_eq!(given(&other), Some(vec![JOBS.to_owned()]));
}

#[tokio::test]
async fn an_event_is_about_what_the_cluster_says_and_not_about_what_was_told_a_term_ago() {
    let mut stage = Stage::running().await;
    stage.lead(None);
    // Another replica leads, and tells that the Backend is not there.
    stage.controller.take(Noted::Gone(key("Backend a/out")));
    stage.objects.remove(&key("Backend a/out"));
    let mut other = Stage::new();
    other.lead(Some(2));
    other.object(pipeline("a", "jobs", "x", "out"));
    other.turn().await;
    assert!(other.news.try_recv().is_ok());
    let (manifest, told) = other.objects[&key(JOBS)].clone();
    stage.watched(key(JOBS), manifest, told);
    stage.lead(Some(3));
    stage.turn().await;
    assert_eq!(stage.ready().1, "BackendNotFound");
    assert!(stage.news.try_recv().is_err(), "it was told already");
}

#[tokio::test]
async fn of_last_good_versions_one_stays_whatever_came_between() {
    let mut stage = Stage::running().await;
    let of = key(JOBS);
    let good = stage.controller.world.object_of(&of).unwrap().last_good.clone().unwrap();
    // One of an earlier write stands beside it, made later than the right one.
    let other = LastGood { generation: good.generation, texts: Vec::new() };
    let owner = stage.controller.world.object_of(&of).unwrap().uid.clone();
    let stored = Stored { place: ("a".into(), "beside".into()), owner, made: 100, good: other.into() };
    stage.controller.take(Noted::Good(of.clone(), Box::new(stored)));
    stage.turn().await;
    assert_eq!(stage.controller.world.object_of(&of).unwrap().last_good.as_ref(), Some(&good));
    assert_eq!(stage.controller.objects.places_of(&of), 1);
}

#[tokio::test]
async fn a_last_good_version_that_a_pipeline_does_not_own_is_not_its_own() {
    let mut stage = Stage::running().await;
    let of = key(JOBS);
    let good = stage.controller.world.object_of(&of).unwrap().last_good.clone().unwrap();
    // Somebody writes one beside it, and one of a pipeline of that name that was deleted is still there.
    let forged = LastGood { generation: 9, texts: Vec::new() };
    let stored =
        Stored { place: ("a".into(), "forged".into()), owner: "another".into(), made: 100, good: forged.into() };
    stage.controller.take(Noted::Good(of.clone(), Box::new(stored)));
    stage.turn().await;
    assert_eq!(stage.controller.world.object_of(&of).unwrap().last_good.as_ref(), Some(&good));
    // Deleted and made anew, and bad from the beginning: it has no good version.
    let (mut manifest, status) = stage.objects[&of].clone();
    manifest.uid = "anew".into();
    manifest.text = manifest.text.replace("\"out\"", "\"gone\"").into();
    stage.watched(of.clone(), manifest, status);
    stage.turn().await;
    assert_eq!(stage.controller.world.object_of(&of).unwrap().last_good, None);
    assert!(!stage.controller.renderer.slices()["n"].objects.contains_key(JOBS));
}

#[test]
fn a_last_good_version_of_a_pipeline_of_the_cluster_stands_with_the_operator() {
    let mut objects = Objects::new("spillway-system");
    let of = key("ClusterMonitoringPipeline all");
    let manifest = Manifest { uid: "u".into(), generation: 1, text: "{}".into(), last_good: None };
    let status = crate::cluster::convert::status(of.kind, serde_json::Value::Null).to_text();
    drop(objects.there(&of, manifest, status));
    let good = Arc::new(LastGood { generation: 1, texts: Vec::new() });
    let mut is_taken = |namespace: &str| {
        let place = (namespace.into(), "all-1".into());
        let stored = Stored { place, owner: "u".into(), made: 1, good: good.clone() };
        let Change::LastGood(_, latest) = objects.good(of.clone(), stored) else { panic!("a last good version") };
        latest.is_some()
    };
    assert!(!is_taken("tenant"));
    assert!(is_taken("spillway-system"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_takes_long_keeps_nothing_else_of_the_process_waiting() {
    let (done, seen) = std::sync::mpsc::sync_channel(1);
    let (told, heard) = tokio::sync::oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { told.send(apart(|| seen.recv_timeout(Duration::from_secs(60)))).unwrap() });
    // The one thread is taken; this goes on all the same.
    tasks.spawn(async move { done.send("went on").unwrap() });
    assert_eq!(heard.await.unwrap(), Ok("went on"));
}
