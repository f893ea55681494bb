use std::io::Read;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::future::join_all;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use serde_json::Value;
use spillway_crds::served::{
    ASK_BYTES_MAX, Answer, Ask, Configuration, LEADER, PATH, PROTOCOL, PodFacts, Pods, SIDECAR_ASK_BYTES_MAX,
    ServedSecret, Version,
};
use tower::ServiceExt;

use spillway_crds::served::AUDIENCE;
use spillway_tokens::Keys;
use spillway_tokens::signing::{ISSUER, NOW, P256, RSA, claims, jwks};

use super::*;
use crate::hub::Slice;

mod tls;

/// Returns who verifies tokens of agents.
fn verifier() -> Verifier {
    let keys = Keys::default();
    keys.replace(&jwks()).unwrap();
    Verifier::new(Arc::new(keys), ISSUER, AUDIENCE)
}

/// The time of every test.
fn clock() -> Clock {
    Clock::manual(NOW * 1_000_000_000)
}

fn slice(hash: &str) -> Arc<Slice> {
    let version = Version { hash: hash.into(), ..Version::default() };
    let configuration =
        Configuration { version, manifests: vec![format!("manifest {hash}").into()], ..Configuration::default() };
    Arc::new(Slice { configuration, pods: Pods { hash: "p".into(), ..Pods::default() }, ..Slice::default() })
}

/// Publishes a slice for each node, on which the pod `pod-<node>` is the agent.
fn publish(hub: &Hub, slices: &[(&str, &str)]) {
    let agents = slices.iter().map(|(node, _)| (format!("pod-{node}").into(), (*node).into())).collect();
    hub.publish(slices.iter().map(|(node, hash)| ((*node).into(), slice(hash))).collect(), agents);
}

fn leading(slices: &[(&str, &str)]) -> Arc<Hub> {
    let hub = Arc::new(Hub::default());
    hub.lead(7);
    publish(&hub, slices);
    hub
}

/// An ask that knows the pods and runs `hash` of the hub's first generation.
fn running(hash: &str) -> Ask {
    let version = Version { epoch: 7, generation: 1, hash: hash.into() };
    Ask { running: Some(version), pods: Some("p".into()), ..asking() }
}

fn asking() -> Ask {
    Ask { protocol: PROTOCOL, wait_seconds: 60, ..Ask::default() }
}

/// The endpoint without its network.
struct Desk {
    shared: Arc<Shared>,
    router: Router,
    hub: Arc<Hub>,
    stats: Stats,
    stop: CancellationToken,
    leads: watch::Sender<Option<SocketAddr>>,
}

impl Desk {
    fn new(hub: Arc<Hub>) -> Self {
        let (stats, stop) = (Stats::default(), CancellationToken::new());
        let (leads, leader) = watch::channel(None);
        let shared = Arc::new(Shared::new((hub.clone(), leader), verifier(), stats.clone(), clock(), stop.clone()));
        Self { router: handler::router(shared.clone()), shared, hub, stats, stop, leads }
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn ask(&self, node: &str, ask: &Ask) -> Response {
        self.send(request(&token(node), serde_json::to_vec(ask).unwrap())).await
    }

    async fn answer(&self, node: &str, ask: &Ask) -> Answer {
        let response = self.ask(node, ask).await;
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_slice(&body(response).await).unwrap()
    }

    /// Resolves when so many asks wait.
    async fn waiting(&self, count: usize) {
        self.shared.polls.count().wait_for(|waiting| *waiting == count).await.unwrap();
    }
}

fn token(node: &str) -> String {
    P256.token(&claims(&format!("pod-{node}"), node))
}

fn request(token: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(PATH).header(AUTHORIZATION, format!("Bearer {token}"));
    request.body(body.into()).unwrap()
}

async fn body(response: Response) -> Vec<u8> {
    to_bytes(response.into_body(), usize::MAX).await.unwrap().into()
}

/// Returns the status and the reason of a problem.
async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_slice(&body(response).await).unwrap();
    assert_eq!(problem["status"], status);
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    (status, problem["reason"].as_str().unwrap().to_owned())
}

fn hash(answer: &Answer) -> &str {
    &answer.configuration.as_ref().unwrap().version.hash
}

#[tokio::test]
async fn an_agent_gets_the_slice_of_the_node_of_its_token_and_acknowledges_it_with_the_next_ask() {
    let desk = Desk::new(leading(&[("node-a", "a"), ("node-b", "b")]));
    let answer = desk.answer("node-b", &asking()).await;
    assert_eq!(&*answer.configuration.as_ref().unwrap().manifests[0], "manifest b");
    assert_eq!(hash(&desk.answer("node-a", &asking()).await), "a");
    assert_eq!(desk.hub.reports()["node-b"].running, None);
    let next = Ask { wait_seconds: 0, ..running(hash(&answer)) };
    assert_eq!(desk.answer("node-b", &next).await, Answer::default());
    assert_eq!(desk.hub.reports()["node-b"].running, next.running);
    assert_eq!(desk.hub.reports()["node-b"].seen.as_second(), NOW);
    assert_eq!((desk.stats.outcomes("news"), desk.stats.outcomes("nothing")), (2, 1));
}

#[tokio::test]
async fn news_end_a_wait_and_news_of_another_node_do_not() {
    let desk = Desk::new(leading(&[("node-a", "a"), ("node-b", "b")]));
    let ask = running("a");
    let changes = async {
        desk.waiting(1).await;
        publish(&desk.hub, &[("node-a", "a"), ("node-b", "b2")]);
        tokio::task::yield_now().await;
        assert_eq!((*desk.shared.polls.count().borrow(), desk.stats.waiting.get()), (1, 1));
        publish(&desk.hub, &[("node-a", "a2"), ("node-b", "b2")]);
    };
    let (answer, ()) = tokio::join!(desk.answer("node-a", &ask), changes);
    assert_eq!(hash(&answer), "a2");
    assert_eq!((*desk.shared.polls.count().borrow(), desk.stats.waiting.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_news_ends_after_the_time_that_was_given_and_a_minute_at_most() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    for (given, expected) in [(30, 30), (0, 0), (u32::MAX, 60)] {
        let began = tokio::time::Instant::now();
        let answer = desk.answer("node-a", &Ask { wait_seconds: given, ..running("a") }).await;
        assert_eq!(answer, Answer::default());
        assert_eq!(began.elapsed().as_secs(), expected);
    }
}

#[tokio::test]
async fn who_waits_is_answered_at_once_when_the_process_stops() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let stops = async {
        desk.waiting(1).await;
        desk.stop.cancel();
    };
    let ask = running("a");
    let (answer, ()) = tokio::join!(desk.answer("node-a", &ask), stops);
    assert_eq!(answer, Answer::default());
}

#[tokio::test]
async fn who_follows_sends_agents_away_also_those_that_wait() {
    let desk = Desk::new(Arc::new(Hub::default()));
    let response = desk.ask("node-a", &asking()).await;
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert!(!response.headers().contains_key(LEADER), "it does not know who leads");
    assert_eq!(problem(response).await, (421, "not-leader".into()));
    desk.leads.send_replace(Some("[fd00::7]:8443".parse().unwrap()));
    let response = desk.ask("node-a", &asking()).await;
    assert_eq!(response.headers()[LEADER], "[fd00::7]:8443");
    desk.hub.lead(7);
    publish(&desk.hub, &[("node-a", "a")]);
    let loses = async {
        desk.waiting(1).await;
        desk.hub.follow();
    };
    let ask = running("a");
    let (response, ()) = tokio::join!(desk.ask("node-a", &ask), loses);
    assert_eq!(problem(response).await, (421, "not-leader".into()));
    assert_eq!(desk.stats.refusals("not-leader"), 3);
}

#[tokio::test]
async fn a_leader_that_still_reads_the_cluster_judges_nobody() {
    let desk = Desk::new(Arc::new(Hub::default()));
    desk.hub.lead(7);
    let response = desk.ask("node-a", &asking()).await;
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert_eq!(problem(response).await, (503, "starting".into()));
    publish(&desk.hub, &[("node-a", "a")]);
    assert_eq!(hash(&desk.answer("node-a", &asking()).await), "a");
    desk.hub.follow();
    desk.hub.lead(8);
    assert_eq!(problem(desk.ask("node-a", &asking()).await).await, (503, "starting".into()));
}

#[tokio::test]
async fn a_newer_ask_of_a_pod_ends_the_older_one() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let ask = running("a");
    let newer = async {
        desk.waiting(1).await;
        desk.answer("node-a", &Ask { wait_seconds: 0, ..ask.clone() }).await
    };
    let (older, newer) = tokio::join!(desk.ask("node-a", &ask), newer);
    assert_eq!(problem(older).await, (409, "superseded".into()));
    assert_eq!(newer, Answer::default());
}

#[tokio::test]
async fn a_token_of_a_pod_that_is_gone_or_elsewhere_is_refused() {
    let desk = Desk::new(leading(&[("node-a", "a"), ("node-b", "b")]));
    assert_eq!(desk.ask("node-a", &asking()).await.status(), StatusCode::OK);
    publish(&desk.hub, &[("node-b", "b")]);
    let response = desk.ask("node-a", &asking()).await;
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert_eq!(problem(response).await, (403, "pod".into()));
    let elsewhere = P256.token(&claims("pod-node-b", "node-a"));
    let response = desk.send(request(&elsewhere, serde_json::to_vec(&asking()).unwrap())).await;
    assert_eq!(problem(response).await, (403, "pod".into()));
    assert_eq!(desk.stats.refusals("pod"), 2);
}

#[tokio::test]
async fn a_token_that_does_not_count_is_refused_before_the_body_is_read() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let never = || Body::from_stream(futures_util::stream::pending::<Result<&'static str, io::Error>>());
    let mut expired = claims("pod-node-a", "node-a");
    expired["exp"] = (NOW - 3600).into();
    let response = desk.send(request(&RSA.token(&expired), never())).await;
    assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    assert_eq!(problem(response).await, (401, "expired".into()));
    let response = desk.send(Request::post(PATH).body(never()).unwrap()).await;
    assert_eq!(problem(response).await, (401, "token-missing".into()));
    let response = desk.send(request(&RSA.token(&claims("another-pod", "node-a")), never())).await;
    assert_eq!(problem(response).await, (403, "pod".into()));
}

#[tokio::test]
async fn a_sidecar_gets_the_slice_of_its_own_pod_and_nothing_after_its_end() {
    let hub = Arc::new(Hub::default());
    hub.lead(7);
    let slices = || ["node-a", "fab12/etcher-0", "fab12/washer-0"].map(|place| (place.into(), slice(place)));
    let agents = |pods: &[(&str, &str)]| pods.iter().map(|(uid, place)| ((*uid).into(), (*place).into())).collect();
    hub.publish(slices().into(), agents(&[("of-etcher", "fab12/etcher-0"), ("of-washer", "fab12/washer-0")]));
    let desk = Desk::new(hub);
    let of = |uid: &str, namespace: &str, pod: &str| {
        let mut claims = claims(uid, "node-a");
        claims["kubernetes.io"]["namespace"] = namespace.into();
        claims["kubernetes.io"]["serviceaccount"]["name"] = "default".into();
        claims["kubernetes.io"]["pod"]["name"] = pod.into();
        request(&P256.token(&claims), serde_json::to_vec(&asking()).unwrap())
    };
    let response = desk.send(of("of-etcher", "fab12", "etcher-0")).await;
    let answer: Answer = serde_json::from_slice(&body(response).await).unwrap();
    assert_eq!(hash(&answer), "fab12/etcher-0");
    for (uid, namespace, pod) in [
        ("of-etcher", "fab12", "washer-0"),
        ("of-etcher", "fab13", "etcher-0"),
        ("of-stranger", "fab12", "etcher-0"),
        ("node-a", "fab12", "etcher-0"),
    ] {
        let response = desk.send(of(uid, namespace, pod)).await;
        assert_eq!(problem(response).await, (403, "pod".into()), "{uid} {namespace} {pod}");
    }
    desk.hub.publish(slices().into(), agents(&[("of-washer", "fab12/washer-0")]));
    let response = desk.send(of("of-etcher", "fab12", "etcher-0")).await;
    assert_eq!(problem(response).await, (403, "pod".into()), "its pod has ended");
}

/// Takes log lines.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_one_line_for_each_reason_and_second_and_never_the_token() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let mut expired = claims("pod-node-a", "node-a");
    expired["exp"] = (NOW - 3600).into();
    let token = RSA.token(&expired);
    for _ in 0..3 {
        desk.send(request(&token, "{}")).await;
    }
    desk.send(request("not.a.token", "{}")).await;
    tokio::time::advance(limits::TOLD_EVERY).await;
    desk.send(request(&token, "{}")).await;
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let reasons: Vec<&str> = text.lines().filter_map(|line| line.split("reason=").nth(1)).collect();
    assert_eq!(reasons.len(), 3, "{text}");
    assert!(reasons[0].starts_with(r#""expired" detail="exp: 2027-01-15T07:00:00Z, it is"#), "{text}");
    assert!(reasons[0].ends_with("untold=0") && reasons[1].contains("token-malformed"), "{text}");
    assert!(reasons[2].ends_with("untold=2"), "{text}");
    assert!(token.split('.').all(|part| !text.contains(part)) && !text.contains("not.a.token"), "{text}");
    assert_eq!(desk.stats.refusals("expired"), 4);
}

#[tokio::test]
async fn what_is_no_ask_is_refused_with_what_is_wrong_in_it() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let long = format!(r#"{{"protocol":{:?}}}"#, "x".repeat(10_000));
    let deep = "[".repeat(100_000);
    for (body, reason) in [
        (&b""[..], "json"),
        (b"\xff\xfe", "json"),
        (b"null", "json"),
        (b"{\"waitSeconds\":-1}", "json"),
        (b"{\"protocol\":2} {}", "json"),
        (long.as_bytes(), "json"),
        (deep.as_bytes(), "json"),
        (b"{}", "protocol"),
        (b"{\"protocol\":1}", "protocol"),
        // Of another form, as that of the first protocol was.
        (b"{\"protocol\":1,\"holding\":[\"MonitoringPipeline a/b\"]}", "protocol"),
        (b"{\"protocol\":2,\"holding\":[\"MonitoringPipeline a/b\"]}", "json"),
    ] {
        let response = desk.send(request(&token("node-a"), body.to_vec())).await;
        assert!(response.headers().get(CONTENT_LENGTH).is_none_or(|length| length.len() < 4));
        assert_eq!(problem(response).await, (400, reason.into()), "{:?}", &body[..body.len().min(40)]);
    }
    assert!(desk.hub.reports().is_empty());
    let response = desk.send(request(&token("node-a"), r#"{"protocol":1}"#)).await;
    let told: Value = serde_json::from_slice(&body(response).await).unwrap();
    assert_eq!(told["detail"], "protocol 1 is not spoken here, but 2 is");
}

#[tokio::test]
async fn an_ask_beyond_the_bound_is_not_read() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let mut announced = request(&token("node-a"), Body::empty());
    announced.headers_mut().insert(CONTENT_LENGTH, (ASK_BYTES_MAX + 1).into());
    assert_eq!(problem(desk.send(announced).await).await, (413, "body-too-large".into()));
    let endless = futures_util::stream::repeat_with(|| Ok::<_, io::Error>(vec![b' '; 65_536]));
    let response = desk.send(request(&token("node-a"), Body::from_stream(endless))).await;
    assert_eq!(problem(response).await, (413, "body-too-large".into()));
    let mut padded = serde_json::to_vec(&asking()).unwrap();
    padded.resize(ASK_BYTES_MAX, b' ');
    assert_eq!(desk.send(request(&token("node-a"), padded)).await.status(), StatusCode::OK);
}

/// Returns the request of the sidecar `of-etcher` of the pod `fab12/etcher-0`.
fn of_sidecar(body: impl Into<Body>) -> Request<Body> {
    let mut claims = claims("of-etcher", "node-a");
    claims["kubernetes.io"]["namespace"] = "fab12".into();
    claims["kubernetes.io"]["pod"]["name"] = "etcher-0".into();
    request(&P256.token(&claims), body)
}

#[tokio::test]
async fn a_sidecar_asks_in_fewer_bytes_than_the_agent_of_a_node() {
    let hub = Arc::new(Hub::default());
    hub.lead(7);
    let agents = [("of-etcher".into(), "fab12/etcher-0".into())].into();
    hub.publish([("fab12/etcher-0".into(), slice("a"))].into(), agents);
    let desk = Desk::new(hub);
    let mut padded = serde_json::to_vec(&asking()).unwrap();
    padded.resize(SIDECAR_ASK_BYTES_MAX, b' ');
    assert_eq!(desk.send(of_sidecar(padded.clone())).await.status(), StatusCode::OK);
    padded.push(b' ');
    assert_eq!(problem(desk.send(of_sidecar(padded)).await).await, (413, "body-too-large".into()));
}

#[tokio::test(start_paused = true)]
async fn asks_of_sidecars_that_are_half_sent_take_bounded_memory_and_none_of_that_of_others() {
    let hub = Arc::new(Hub::default());
    hub.lead(7);
    let places = [("of-etcher".into(), "fab12/etcher-0".into()), ("pod-node-a".into(), "node-a".into())];
    hub.publish(places.clone().map(|(_, place)| (place, slice("a"))).into(), places.into());
    let desk = Desk::new(hub);
    let half_sent = || {
        let sent = futures_util::stream::iter([Ok::<_, io::Error>(vec![b' '; SIDECAR_ASK_BYTES_MAX])]);
        of_sidecar(Body::from_stream(sent.chain(futures_util::stream::pending())))
    };
    let many = limits::SIDECAR_BODIES_BYTES_MAX / SIDECAR_ASK_BYTES_MAX + 9;
    let asks = join_all((0..many).map(|_| async { problem(desk.send(half_sent()).await).await.1 }));
    let of_node = asking();
    let (answers, beside) = tokio::join!(asks, desk.ask("node-a", &of_node));
    assert_eq!(beside.status(), StatusCode::OK);
    assert_eq!(answers.iter().filter(|reason| *reason == "no-room").count(), 9);
    assert_eq!(desk.stats.refusals("no-room"), 9);
    assert_eq!(desk.send(of_sidecar(serde_json::to_vec(&asking()).unwrap())).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let never = Body::from_stream(futures_util::stream::pending::<Result<&'static str, io::Error>>());
    let response = desk.send(request(&token("node-a"), never)).await;
    assert_eq!(problem(response).await, (408, "body".into()));
    let broken = futures_util::stream::iter([Ok("{"), Err(io::Error::other("reset"))]);
    let response = desk.send(request(&token("node-a"), Body::from_stream(broken))).await;
    assert_eq!(problem(response).await, (400, "body".into()));
}

#[tokio::test]
async fn other_paths_methods_and_encodings_are_told_what_there_is() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let response = desk.send(Request::get(PATH).body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["allow"], "POST");
    assert_eq!(problem(response).await, (405, "method".into()));
    let response = desk.send(Request::post("/metrics").body(Body::empty()).unwrap()).await;
    assert_eq!(problem(response).await, (404, "path".into()));
    let mut packed = request(&token("node-a"), "x");
    packed.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(problem(desk.send(packed).await).await, (415, "encoding".into()));
}

#[tokio::test]
async fn an_answer_is_compressed_for_who_takes_that_and_cached_by_nobody() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let mut packed = request(&token("node-a"), serde_json::to_vec(&asking()).unwrap());
    packed.headers_mut().insert(ACCEPT_ENCODING, "gzip".parse().unwrap());
    let response = desk.send(packed).await;
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let packed = body(response).await;
    assert_eq!(desk.stats.answer_bytes.get(), packed.len() as u64);
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*packed).read_to_end(&mut plain).unwrap();
    let answer: Answer = serde_json::from_slice(&plain).unwrap();
    assert_eq!(answer, desk.answer("node-a", &asking()).await);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_told_and_the_next_ones_are_sent() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let mut large = Slice::clone(&slice("large"));
    large.configuration.manifests = vec!["x".repeat(1 << 20).into(); 33];
    let agents = [("pod-node-a".into(), "node-a".into())].into();
    desk.hub.publish([("node-a".into(), Arc::new(large))].into(), agents);
    assert_eq!(problem(desk.ask("node-a", &asking()).await).await, (500, "encoding".into()));
    publish(&desk.hub, &[("node-a", "b")]);
    assert_eq!(hash(&desk.answer("node-a", &asking()).await), "b");
}

/// Puts a text into a slice.
type With<'a> = &'a dyn Fn(&mut Slice, String);

/// Publishes an answer of that many bytes for the agent of `node-a`.
fn publish_of_size(hub: &Hub, bytes: usize, of: impl Fn(&mut Slice, String)) {
    let mut made = Slice::clone(&slice("sized"));
    of(&mut made, "x".repeat(bytes));
    hub.publish([("node-a".into(), Arc::new(made))].into(), [("pod-node-a".into(), "node-a".into())].into());
}

#[tokio::test(start_paused = true)]
async fn a_small_answer_waits_for_no_large_one_and_a_large_one_for_its_turn() {
    let manifest = |slice: &mut Slice, text: String| slice.configuration.manifests = vec![text.into()];
    let secret = |slice: &mut Slice, value: String| {
        slice.configuration.secrets = vec![ServedSecret { value: value.into(), ..ServedSecret::default() }];
    };
    let label = |slice: &mut Slice, value: String| {
        let facts = PodFacts { labels: [("key", &*value)].into_iter().collect(), ..PodFacts::default() };
        slice.pods.pods = vec![Arc::new(facts)];
    };
    let with: [With<'_>; 3] = [&manifest, &secret, &label];
    for of in with {
        let desk = Desk::new(leading(&[]));
        let turns = desk.shared.encoders.acquire_many(limits::ENCODERS_MAX as u32).await.unwrap();
        let ask = asking();
        publish_of_size(&desk.hub, limits::ENCODED_IN_PLACE_BYTES_MAX / 2, of);
        let small = tokio::time::timeout(limits::BODY_TIMEOUT, desk.answer("node-a", &ask)).await;
        assert_eq!(hash(&small.expect("it needs no turn")), "sized");
        publish_of_size(&desk.hub, limits::ENCODED_IN_PLACE_BYTES_MAX + 1, of);
        let mut large = std::pin::pin!(desk.answer("node-a", &ask));
        assert!(tokio::time::timeout(limits::BODY_TIMEOUT * 2, &mut large).await.is_err(), "it has no turn");
        drop(turns);
        assert_eq!(hash(&large.await), "sized");
    }
}

#[tokio::test]
async fn an_agent_of_a_later_epoch_waits_until_the_epoch_is_raised_and_an_impossible_one_is_refused() {
    let desk = Desk::new(leading(&[("node-a", "a")]));
    let at = |epoch| Ask { running: Some(Version { epoch, generation: 9, hash: "old".into() }), ..running("a") };
    let response = desk.ask("node-a", &at(u64::MAX)).await;
    assert_eq!(problem(response).await, (400, "epoch".into()));
    let raises = async {
        let epoch = desk.hub.later_epoch().await;
        desk.waiting(1).await;
        desk.hub.lead(epoch);
    };
    let later = at(1_000_000);
    let (answer, ()) = tokio::join!(desk.answer("node-a", &later), raises);
    let version = answer.configuration.unwrap().version;
    assert_eq!((version.epoch, &*version.hash), (1_000_001, "a"));
    assert!(version.is_newer(later.running.as_ref().unwrap()));
}

#[tokio::test]
async fn a_thousand_agents_that_wait_are_woken_by_one_change() {
    let nodes: Vec<String> = (0..1000).map(|number| format!("node-{number}")).collect();
    let slices = |hash| nodes.iter().map(|node| (node.as_str(), hash)).collect::<Vec<_>>();
    let desk = Desk::new(leading(&slices("a")));
    let ask = running("a");
    let changes = async {
        desk.waiting(1000).await;
        assert_eq!(desk.stats.waiting.get(), 1000);
        publish(&desk.hub, &slices("a2"));
    };
    let (answers, ()) = tokio::join!(join_all(nodes.iter().map(|node| desk.answer(node, &ask))), changes);
    assert!(answers.iter().all(|answer| hash(answer) == "a2"));
    assert_eq!((*desk.shared.polls.count().borrow(), desk.stats.waiting.get()), (0, 0));
    assert_eq!(desk.hub.reports().len(), 1000);
}
