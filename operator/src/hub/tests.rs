use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use spillway_crds::served::{Answer, AuthorityCertificate, PodFacts, Refused, ServedSecret, Version};

use super::*;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn slice(hash: &str, pods: &str, objects: &[(&str, i64)]) -> Arc<Slice> {
    let version = Version { hash: hash.into(), ..Version::default() };
    let configuration =
        Configuration { version, manifests: vec![format!("manifest {hash}").into()], ..Configuration::default() };
    let facts = PodFacts { uid: pods.into(), ..PodFacts::default() };
    let pods = Pods { hash: pods.into(), pods: vec![facts.into()] };
    let objects = objects
        .iter()
        .map(|(name, generation)| ((*name).into(), Edition { generation: *generation, hash: 0 }))
        .collect();
    Arc::new(Slice { configuration, pods, objects: Arc::new(objects), tickets: None })
}

fn agents() -> Agents {
    [("pod-a", "node-a"), ("pod-b", "node-b")].map(|(pod, node)| (pod.into(), node.into())).into()
}

fn publish(hub: &Hub, slices: &[(&str, &Arc<Slice>)]) -> usize {
    hub.publish(slices.iter().map(|(node, slice)| ((*node).into(), Arc::clone(slice))).collect(), agents())
}

fn leading(epoch: u64, slices: &[(&str, &Arc<Slice>)]) -> Hub {
    let hub = Hub::default();
    hub.lead(epoch);
    publish(&hub, slices);
    hub
}

/// What an agent asks that runs the configuration and knows the pods of `answer`.
fn after(answer: &Answer) -> Ask {
    Ask {
        running: answer.configuration.as_ref().map(|configuration| configuration.version.clone()),
        pods: answer.pods.as_ref().map(|pods| pods.hash.clone()),
        ..Ask::default()
    }
}

fn running(epoch: u64, generation: u64, hash: &str) -> Ask {
    Ask { running: Some(Version { epoch, generation, hash: hash.into() }), pods: Some("p".into()), ..Ask::default() }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

async fn answer(hub: &Hub, node: &str, ask: &Ask) -> Answer {
    hub.wait_for_news(node, ask).await.unwrap().to_answer()
}

fn version(answer: &Answer) -> (u64, u64, &str) {
    let version = &answer.configuration.as_ref().unwrap().version;
    (version.epoch, version.generation, &version.hash)
}

#[tokio::test]
async fn an_agent_that_has_nothing_gets_all_of_its_node_and_nothing_of_another() {
    let hub = leading(7, &[("node-a", &slice("a", "p", &[])), ("node-b", &slice("b", "q", &[]))]);
    let news = hub.wait_for_news("node-a", &Ask::default()).await.unwrap();
    let answer = news.to_answer();
    assert_eq!(version(&answer), (7, 1, "a"));
    assert_eq!(&*answer.configuration.as_ref().unwrap().manifests[0], "manifest a");
    assert_eq!(answer.pods.as_ref().unwrap().pods[0].uid, "p".into());
}

#[tokio::test]
async fn nothing_that_an_agent_holds_is_taken_from_it_before_that_was_considered() {
    let hub = leading(7, &[("node-a", &slice("a", "p", &[]))]);
    let held = |object: &str| Held { object: object.into(), ticket: "t".into() };
    let ask = Ask { holding: vec![held("MonitoringPipeline a/jobs")], ..running(6, 1, "x") };
    hub.acknowledge("pod-a", &ask, NOW).unwrap();
    {
        let mut waits = pin!(hub.wait_for_news("node-a", &ask));
        assert!(poll(waits.as_mut()).is_none());
        // What was made without it is not fit yet.
        hub.considered(&Reports::new());
        assert!(poll(waits.as_mut()).is_none());
        publish(&hub, &[("node-a", &slice("b", "p", &[("MonitoringPipeline a/jobs", 1)]))]);
        hub.considered(&hub.reports());
        let news = poll(waits.as_mut()).unwrap().unwrap().to_answer();
        assert_eq!(version(&news), (7, 2, "b"));
    }
    // What it holds no longer, or was never given, is taken from it.
    publish(&hub, &[("node-a", &slice("c", "p", &[]))]);
    assert_eq!(version(&answer(&hub, "node-a", &ask).await), (7, 3, "c"));
    // The next pod of its agent says for itself what it holds.
    let agents: Agents = [("pod-c".into(), "node-a".into())].into();
    hub.publish([("node-a".into(), slice("d", "p", &[]))].into(), agents);
    hub.considered(&hub.reports());
    hub.acknowledge("pod-c", &ask, NOW).unwrap();
    assert!(poll(pin!(hub.wait_for_news("node-a", &ask))).is_none());
    hub.considered(&hub.reports());
    assert_eq!(version(&answer(&hub, "node-a", &ask).await), (7, 4, "d"));
    // Who holds nothing waits for nothing.
    hub.acknowledge("pod-c", &running(6, 1, "x"), NOW).unwrap();
    assert_eq!(version(&answer(&hub, "node-a", &running(6, 1, "x")).await), (7, 4, "d"));
}

#[tokio::test]
async fn authorities_are_told_to_who_takes_them_until_it_says_that_it_knows_them() {
    let hub = leading(7, &[("node-a", &slice("a", "p", &[]))]);
    let certificate = AuthorityCertificate { pem: "x\n".into(), until_unix_seconds: 1 };
    let told = Arc::new(Authorities { hash: "h".into(), certificates: vec![certificate] });
    let older = running(7, 1, "a");
    let takes = Ask { authorities: Some(String::new()), ..older.clone() };
    let knows = Ask { authorities: Some("h".into()), ..older.clone() };
    let mut of_older = pin!(hub.wait_for_news("node-a", &older));
    let mut waits = pin!(hub.wait_for_news("node-a", &takes));
    assert!(poll(of_older.as_mut()).is_none() && poll(waits.as_mut()).is_none());
    hub.tell(6, &told);
    assert!(poll(waits.as_mut()).is_none(), "it was read by a leader of before");
    hub.tell(7, &told);
    let answer = poll(waits.as_mut()).unwrap().unwrap().to_answer();
    assert_eq!(answer, Answer { authorities: Some(Authorities::clone(&told)), ..Answer::default() });
    assert!(poll(of_older.as_mut()).is_none(), "an older agent would be told again and again");
    assert!(poll(pin!(hub.wait_for_news("node-a", &knows))).is_none());
    for (running, pods) in
        [(&takes.running, &None), (&None, &takes.pods), (&None, &None), (&takes.running, &takes.pods)]
    {
        let ask = Ask { running: running.clone(), pods: pods.clone(), ..takes.clone() };
        let news = hub.wait_for_news("node-a", &ask).await.unwrap();
        let read: Answer = serde_json::from_slice(&news.to_json().unwrap().concat()).unwrap();
        assert!(read == news.to_answer() && read.authorities.is_some());
    }
    assert_eq!(hub.knowing("h", NOW), Some(Knowing { live: 2, heard: 0, acknowledged: 0 }));
    hub.acknowledge("pod-a", &knows, NOW).unwrap();
    hub.acknowledge("pod-b", &older, NOW).unwrap();
    assert_eq!(hub.knowing("h", NOW), Some(Knowing { live: 2, heard: 2, acknowledged: 1 }));
    // A raised epoch is the same leader, and a new one has to look itself.
    hub.lead(9);
    let raised = Ask { running: Some(Version { epoch: 9, ..takes.running.clone().unwrap() }), ..takes.clone() };
    assert!(poll(pin!(hub.wait_for_news("node-a", &raised))).is_some());
    hub.follow();
    assert_eq!(hub.knowing("h", NOW), None);
    hub.lead(10);
    publish(&hub, &[("node-a", &slice("a", "p", &[]))]);
    let ask = Ask { running: Some(Version { epoch: 10, ..takes.running.clone().unwrap() }), ..takes.clone() };
    assert!(poll(pin!(hub.wait_for_news("node-a", &ask))).is_none());
}

#[tokio::test]
async fn news_as_json_are_the_answer_and_secrets_stand_apart() {
    let secret = ServedSecret { name: "api".into(), value: "aHVudGVyMg==".into(), ..ServedSecret::default() };
    let mut full = Slice::clone(&slice("a", "p", &[]));
    full.configuration.namespaces = [("fab12".into(), [("tier".into(), "prod".into())].into())].into();
    full.configuration.secrets = vec![secret.clone(), secret];
    let hub = leading(7, &[("node-a", &Arc::new(full))]);
    let knows_pods = Ask { pods: Some("p".into()), ..Ask::default() };
    for ask in [Ask::default(), knows_pods, Ask { pods: None, ..running(7, 1, "a") }] {
        let news = hub.wait_for_news("node-a", &ask).await.unwrap();
        let [before, apart, after] = news.to_json().unwrap();
        let holds = |json: &[u8]| String::from_utf8_lossy(json).contains("aHVudGVyMg");
        assert_eq!([holds(&before), holds(&apart), holds(&after)], [false, ask.running.is_none(), false]);
        let json = [before, apart, after].concat();
        assert_eq!(serde_json::from_slice::<Answer>(&json).unwrap(), news.to_answer());
    }
    assert_eq!(News::default().to_json().unwrap().concat(), b"{}");
}

#[tokio::test]
async fn the_same_content_keeps_its_version_and_wakes_nobody() {
    let first = slice("a", "p", &[]);
    let hub = leading(7, &[("node-a", &first), ("node-b", &slice("b", "q", &[]))]);
    let ask = after(&answer(&hub, "node-a", &Ask::default()).await);
    let mut waiting = pin!(hub.wait_for_news("node-a", &ask));
    assert!(poll(waiting.as_mut()).is_none());
    assert_eq!(publish(&hub, &[("node-a", &slice("a", "p", &[])), ("node-b", &slice("b2", "q", &[]))]), 1);
    assert!(poll(waiting.as_mut()).is_none());
    assert_eq!(version(&answer(&hub, "node-a", &Ask::default()).await), (7, 1, "a"));
    assert_eq!(version(&answer(&hub, "node-b", &Ask::default()).await), (7, 2, "b2"));
}

#[tokio::test]
async fn a_change_of_the_node_ends_the_wait_at_once_and_a_change_of_pods_brings_pods_alone() {
    let hub = leading(7, &[("node-a", &slice("a", "p", &[]))]);
    let ask = after(&answer(&hub, "node-a", &Ask::default()).await);
    let mut waiting = pin!(hub.wait_for_news("node-a", &ask));
    assert!(poll(waiting.as_mut()).is_none());
    publish(&hub, &[("node-a", &slice("a2", "p", &[]))]);
    let news = poll(waiting.as_mut()).unwrap().unwrap().to_answer();
    assert_eq!((version(&news), &news.pods), ((7, 2, "a2"), &None));
    publish(&hub, &[("node-a", &slice("a2", "p2", &[]))]);
    let ask = Ask { pods: Some("p".into()), ..after(&news) };
    let news = answer(&hub, "node-a", &ask).await;
    assert_eq!((news.configuration, news.pods.unwrap().hash), (None, "p2".into()));
}

#[test]
fn a_change_wakes_who_waits_for_its_node_and_nobody_else() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let hub = leading(7, &[("node-a", &slice("a", "p", &[])), ("node-b", &slice("b", "p", &[]))]);
    let woken = [(); 2].map(|()| Arc::new(Count(AtomicUsize::new(0))));
    let asks = [running(7, 1, "a"), running(7, 1, "b")];
    let mut waiting = [("node-a", &asks[0]), ("node-b", &asks[1])].map(|(n, ask)| Box::pin(hub.wait_for_news(n, ask)));
    for (waiting, count) in waiting.iter_mut().zip(&woken) {
        let waker = Waker::from(Arc::clone(count));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    publish(&hub, &[("node-a", &slice("a2", "p", &[])), ("node-b", &slice("b", "p", &[]))]);
    assert_eq!(woken.map(|count| count.0.load(Ordering::Relaxed)), [1, 0]);
}

#[tokio::test]
async fn who_follows_gives_out_nothing_and_tells_who_waits() {
    let hub = Hub::default();
    assert_eq!(hub.wait_for_news("node-a", &Ask::default()).await.unwrap_err(), NotLeading);
    assert_eq!(publish(&hub, &[("node-a", &slice("a", "p", &[]))]), 0);
    hub.lead(7);
    let ask = Ask::default();
    let mut waiting = pin!(hub.wait_for_news("node-a", &ask));
    assert!(poll(waiting.as_mut()).is_none(), "nothing was published yet");
    hub.follow();
    assert_eq!(poll(waiting.as_mut()).unwrap().unwrap_err(), NotLeading);
    assert_eq!(hub.acknowledge("pod-a", &ask, NOW), Err(AskError::NotLeading));
}

#[tokio::test]
async fn a_leader_of_a_later_epoch_sends_its_content_and_not_what_the_agent_runs() {
    let hub = leading(8, &[("node-a", &slice("a", "p", &[]))]);
    let ask = running(7, 40, "a");
    let mut waiting = pin!(hub.wait_for_news("node-a", &ask));
    assert!(poll(waiting.as_mut()).is_none(), "it runs this content");
    publish(&hub, &[("node-a", &slice("c", "p", &[]))]);
    let answer = poll(waiting.as_mut()).unwrap().unwrap().to_answer();
    assert_eq!(version(&answer), (8, 2, "c"));
    assert!(answer.configuration.unwrap().version.is_newer(&ask.running.clone().unwrap()));
}

#[tokio::test]
async fn an_agent_of_a_later_epoch_has_the_epoch_raised_and_then_takes_what_is_given_out() {
    let hub = leading(3, &[("node-a", &slice("a", "p", &[]))]);
    let ask = running(9, 5, "other");
    let mut later = pin!(hub.later_epoch());
    assert!(poll(later.as_mut()).is_none());
    hub.acknowledge("pod-a", &ask, NOW).unwrap();
    let mut waiting = pin!(hub.wait_for_news("node-a", &ask));
    assert!(poll(waiting.as_mut()).is_none(), "it would not take epoch 3");
    assert_eq!(poll(later.as_mut()), Some(10));
    hub.lead(10);
    let answer = poll(waiting.as_mut()).unwrap().unwrap().to_answer();
    assert_eq!(version(&answer), (10, 1, "a"));
    assert!(answer.configuration.unwrap().version.is_newer(ask.running.as_ref().unwrap()));
    assert!(poll(pin!(hub.later_epoch())).is_none());
}

#[tokio::test]
async fn a_later_generation_of_our_own_epoch_raises_it_too() {
    let hub = leading(3, &[("node-a", &slice("a", "p", &[]))]);
    let ask = running(3, 900, "other");
    hub.acknowledge("pod-a", &ask, NOW).unwrap();
    let mut waiting = pin!(hub.wait_for_news("node-a", &ask));
    assert!(poll(waiting.as_mut()).is_none());
    assert_eq!(hub.later_epoch().await, 4);
}

#[test]
fn an_epoch_that_cannot_be_ours_is_refused_and_raises_nothing() {
    let hub = leading(3, &[("node-a", &slice("a", "p", &[]))]);
    let latest = 1_800_000_000 + EPOCH_AHEAD_SECONDS_MAX;
    let refused = hub.acknowledge("pod-a", &running(u64::MAX, 1, "x"), NOW);
    assert_eq!(refused, Err(AskError::Epoch { found: u64::MAX, latest }));
    assert!(hub.acknowledge("pod-a", &running(latest + 1, 1, "x"), NOW).is_err());
    assert!(poll(pin!(hub.later_epoch())).is_none());
    assert!(hub.reports().is_empty());
    hub.acknowledge("pod-a", &running(latest, 1, "x"), NOW).unwrap();
    assert_eq!(poll(pin!(hub.later_epoch())), Some(latest + 1));
}

#[test]
fn a_lower_epoch_than_our_own_changes_nothing() {
    let hub = leading(3, &[("node-a", &slice("a", "p", &[]))]);
    hub.lead(2);
    assert_eq!(hub.epoch(), Some(3));
}

#[test]
fn what_was_given_out_lately_is_acknowledged_with_the_objects_it_held() {
    let hub = leading(3, &[("node-a", &slice("h0", "p", &[("a", 1), ("b", 1)]))]);
    publish(&hub, &[("node-a", &slice("h1", "p", &[("a", 2), ("c", 1)]))]);
    publish(&hub, &[("node-a", &slice("h2", "p", &[("c", 2)]))]);
    let objects = |hash: &str| {
        hub.acknowledge("pod-a", &running(3, 1, hash), NOW).unwrap();
        let report = hub.reports().remove("node-a").unwrap();
        let objects = report.objects.iter().map(|(name, edition)| format!("{name} {}", edition.generation));
        (report.running.is_some(), objects.collect::<Vec<_>>().join(", "))
    };
    assert_eq!(objects("h2"), (true, "c 2".into()));
    assert_eq!(objects("h1"), (true, "a 2, c 1".into()));
    assert_eq!(objects("h0"), (true, "a 1, b 1".into()));
    assert_eq!(objects("never"), (false, String::new()));
}

#[test]
fn what_was_given_out_for_another_node_is_not_acknowledged() {
    let hub = leading(3, &[("node-a", &slice("h", "p", &[("a", 1)])), ("node-b", &slice("i", "p", &[("b", 1)]))]);
    hub.acknowledge("pod-a", &running(3, 1, "i"), NOW).unwrap();
    assert_eq!(hub.reports()["node-a"].running, None);
}

#[test]
fn an_agent_that_stays_behind_keeps_what_it_acknowledged() {
    let hub = leading(3, &[("node-a", &slice("h", "p", &[("a", 1)]))]);
    let ask = running(3, 1, "h");
    hub.acknowledge("pod-a", &ask, NOW).unwrap();
    for number in 0..=EARLIER_MAX as i64 + 1 {
        publish(&hub, &[("node-a", &slice(&format!("h{number}"), "p", &[("a", number)]))]);
    }
    hub.acknowledge("pod-a", &ask, NOW).unwrap();
    assert_eq!(hub.reports()["node-a"].objects[&Arc::from("a")].generation, 1);
    hub.acknowledge("pod-a", &running(3, 2, "h0"), NOW).unwrap();
    assert_eq!(hub.reports()["node-a"].running, None, "that one is too long ago");
}

#[test]
fn reports_change_when_something_else_is_said_and_not_with_every_ask() {
    let hub = leading(3, &[("node-a", &slice("h", "p", &[]))]);
    let mut changes = hub.report_changes();
    let mut changed = |what: &str, expected: bool| {
        assert_eq!(changes.has_changed().unwrap(), expected, "{what}");
        changes.mark_unchanged();
    };
    let mut ask = running(3, 1, "h");
    hub.acknowledge("pod-a", &ask, NOW).unwrap();
    changed("the first", true);
    hub.acknowledge("pod-a", &ask, NOW + jiff::SignedDuration::from_secs(60)).unwrap();
    changed("the same again", false);
    assert_eq!(hub.reports()["node-a"].seen.as_second(), 1_800_000_060);
    ask.refused = vec![Refused { object: "x".into(), ..Refused::default() }];
    hub.acknowledge("pod-a", &ask, NOW).unwrap();
    changed("a refusal", true);
    hub.publish([("node-a".into(), slice("h", "p", &[]))].into(), Agents::default());
    changed("the pod went", true);
    assert!(hub.reports().is_empty());
    assert_eq!(hub.acknowledge("pod-a", &ask, NOW), Err(AskError::Gone));
}

#[test]
fn a_node_that_goes_and_comes_back_meets_no_earlier_generation() {
    let hub = leading(3, &[("node-a", &slice("h", "p", &[]))]);
    publish(&hub, &[]);
    publish(&hub, &[("node-a", &slice("i", "p", &[]))]);
    let answer = poll(pin!(hub.wait_for_news("node-a", &running(3, 1, "h")))).unwrap().unwrap().to_answer();
    assert_eq!(version(&answer), (3, 2, "i"));
}

#[test]
fn nodes_without_slice_are_kept_only_while_somebody_waits() {
    let hub = leading(3, &[]);
    let ask = Ask::default();
    {
        let mut waiting = pin!(hub.wait_for_news("node-z", &ask));
        assert!(poll(waiting.as_mut()).is_none());
        publish(&hub, &[]);
        assert_eq!(hub.state().nodes.len(), 1);
        publish(&hub, &[("node-z", &slice("h", "p", &[]))]);
        assert!(poll(waiting.as_mut()).is_some());
    }
    publish(&hub, &[]);
    assert!(hub.state().nodes.is_empty());
}

#[tokio::test]
async fn who_is_given_a_configuration_is_given_its_tickets() {
    let (tickets, label) = (crate::tickets::Tickets::new(b"key"), "MonitoringPipeline a/jobs");
    let mut full = Slice::clone(&slice("a", "p", &[(label, 1), ("Backend a/out", 1)]));
    full.tickets = Some(tickets.of_node(&"node-a".into()));
    let hub = leading(7, &[("node-a", &Arc::new(full))]);
    let news = hub.wait_for_news("node-a", &Ask::default()).await.unwrap();
    let read: Answer = serde_json::from_slice(&news.to_json().unwrap().concat()).unwrap();
    assert_eq!(read, news.to_answer());
    let given = read.configuration.unwrap().tickets.into_iter().collect::<Vec<_>>();
    assert_eq!(given, [(label.to_owned(), tickets.of("node-a", label))]);
}
