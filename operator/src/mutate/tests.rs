use std::fs;

use axum::body::Body;
use futures_util::stream;
use http::{Request as Posted, StatusCode};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::review::REVIEW_BYTES_MAX;
use crate::serve::limits::BODY_TIMEOUT;
use crate::validate::endpoint::{Lookup, PODS_PATH, Stats, router};

const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----";

fn settings(image: &str) -> String {
    let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    json!({"image": image, "operator": "https://o:8443", "nodeAgent": "https://a:8411", "runAsUser": 65532, "spool": "256Mi",
        "requests": amounts("10m", "32Mi"), "limits": amounts("200m", "128Mi"), "max": amounts("1", "1Gi")})
    .to_string()
}

fn injector() -> Injector {
    Injector::try_new(Settings::read(&settings("agent:1")).unwrap(), AUTHORITY).unwrap()
}

fn known() -> Known {
    let mut known = Known::default();
    known.pipelines.insert("fab12".into(), ["jobs".to_owned()].into());
    known.namespaces.insert("fab12", [("spillway.dev/inject-default".to_owned(), "jobs".to_owned())].into());
    known
}

fn pod(asked: &str) -> Value {
    json!({"metadata": {"annotations": {"spillway.dev/inject": asked}}, "spec": {"newer": 1, "containers": [{"name": "app"}]}})
}

fn request(pod: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5", "operation": "CREATE", "namespace": "fab12", "object": pod, "dryRun": false,
        "resource": {"group": "", "version": "v1", "resource": "pods"}}})
}

fn answer(request: &Value, known: Option<&Known>) -> (Value, Reason) {
    let (answer, reason) = review(request.to_string().as_bytes(), Some(&injector()), known).unwrap();
    (serde_json::to_value(&answer).unwrap(), reason)
}

#[test]
fn a_pod_that_asks_is_answered_with_the_patch_of_the_function() {
    let (answer, reason) = answer(&request(&pod("jobs")), Some(&known()));
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    let response = &answer["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("705ab4f5"), &json!(true)));
    assert_eq!((&response["patchType"], reason), (&json!("JSONPatch"), Reason::Injected));
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let offer = known().offer("fab12");
    let expected = injector().inject(&pod("jobs").to_string(), Some(&offer)).patch;
    assert_eq!(String::from_utf8(patch).unwrap(), serde_json::to_string(&expected).unwrap());
}

#[test]
fn a_dry_run_gets_the_same_answer_and_a_label_of_the_namespace_asks_for_all() {
    let mut dry = request(&pod("jobs"));
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(answer(&dry, Some(&known())), answer(&request(&pod("jobs")), Some(&known())));
    let plain = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
    assert_eq!(answer(&request(&plain), Some(&known())).1, Reason::Injected);
    let mut elsewhere = request(&plain);
    elsewhere["request"]["namespace"] = json!("fab13");
    assert_eq!(answer(&elsewhere, Some(&known())).1, Reason::NotAsked);
}

#[test]
fn no_pod_is_refused() {
    let as_it_is = |request: &Value, known: Option<&Known>, reason: Reason, words: Option<&str>| {
        let (answer, became) = answer(request, known);
        let response = &answer["response"];
        assert_eq!((became, &response["allowed"], response.get("patch")), (reason, &json!(true), None));
        let warning = response["warnings"].get(0).and_then(Value::as_str);
        assert!(
            warning.is_some() == words.is_some() && warning.unwrap_or("").contains(words.unwrap_or("")),
            "{answer}"
        );
    };
    as_it_is(&request(&pod("jbos")), Some(&known()), Reason::UnknownPipeline, Some("did you mean `jobs`?"));
    as_it_is(&request(&pod("jobs")), None, Reason::NotSynced, Some("not known yet"));
    as_it_is(&request(&json!("no pod")), Some(&known()), Reason::NotUnderstood, Some("not read as a pod"));
    for (field, value) in [
        ("operation", json!("UPDATE")),
        ("subResource", json!("ephemeralcontainers")),
        ("resource", json!({"group": "apps", "resource": "deployments"})),
        ("object", Value::Null),
    ] {
        let mut other = request(&pod("jobs"));
        other["request"][field] = value;
        as_it_is(&other, Some(&known()), Reason::NotAsked, None);
    }
}

struct Ground {
    folder: TempDir,
    sidecars: Arc<Sidecars>,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("settings.json"), settings("agent:1")).unwrap();
        fs::write(folder.path().join("ca.crt"), AUTHORITY).unwrap();
        let sidecars = Sidecars::open(&folder.path().join("settings.json"), &folder.path().join("ca.crt"));
        Self { folder, sidecars: Arc::new(sidecars) }
    }

    fn router(&self, stats: &Stats) -> axum::Router {
        let lookup = Arc::new(Lookup::default());
        lookup.replace(Some(known()));
        router(lookup, Some(Arc::clone(&self.sidecars)), stats.clone())
    }
}

async fn posted(router: &axum::Router, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Posted::post(PODS_PATH).body(body.into()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test(start_paused = true)]
async fn who_posts_garbage_or_slowly_is_answered_and_counted() {
    let (ground, stats) = (Ground::new(), Stats::default());
    let router = ground.router(&stats);
    for (body, status) in [
        (Body::from("{}"), 400),
        (Body::from(vec![0xff; 4096]), 400),
        (Body::from("[".repeat(1 << 20)), 400),
        (Body::from(vec![b' '; REVIEW_BYTES_MAX + 1]), 413),
        (Body::from_stream(stream::pending::<io::Result<Vec<u8>>>()), 408),
    ] {
        assert_eq!(posted(&router, body).await.0.as_u16(), status);
    }
    assert!(BODY_TIMEOUT <= Duration::from_secs(30));
    let (status, answer) = posted(&router, request(&pod("jobs")).to_string()).await;
    assert_eq!((status, &answer["response"]["patchType"]), (StatusCode::OK, &json!("JSONPatch")));
    assert_eq!(["not-judged", "injected"].map(|reason| stats.pods(reason)), [5, 1]);
    let mut registry = Registry::with_prefix("spillway_operator");
    stats.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("spillway_operator_webhook_pods_total{reason=\"injected\"} 1"), "{text}");
}

#[tokio::test]
async fn without_settings_of_sidecars_no_pod_is_looked_at() {
    let router = router(Arc::default(), None, Stats::default());
    assert_eq!(posted(&router, request(&pod("jobs")).to_string()).await.0, StatusCode::NOT_FOUND);
}

#[test]
fn what_sidecars_are_made_of_changes_with_its_files_and_never_to_what_is_of_no_use() {
    let ground = Ground::new();
    let image = || {
        let patch =
            ground.sidecars.injector().unwrap().inject(&pod("jobs").to_string(), Some(&known().offer("fab12"))).patch;
        serde_json::to_string(&patch).unwrap().contains("agent:2")
    };
    let write = |name: &str, text: &str| fs::write(ground.folder.path().join(name), text).unwrap();
    assert!(!ground.sidecars.look().unwrap() && !image());
    write("settings.json", &settings("agent:2"));
    assert!(ground.sidecars.look().unwrap() && image());
    write("ca.crt", "no certificate");
    let error = words::of_error(&ground.sidecars.look().unwrap_err());
    assert!(error.starts_with("no sidecar can be made: ") && image(), "{error}");
    fs::remove_file(ground.folder.path().join("ca.crt")).unwrap();
    assert!(ground.sidecars.look().unwrap_err().to_string().ends_with("ca.crt cannot be read"));
}

/// Returns settings whose limits are above what a pod may say.
fn out_of_bounds() -> String {
    settings("agent:2").replace("200m", "2")
}

#[tokio::test]
async fn a_webhook_that_starts_with_settings_of_no_use_gives_no_sidecar_and_says_so_until_they_are() {
    let (ground, stats) = (Ground::new(), Stats::default());
    let path = |name: &str| ground.folder.path().join(name);
    fs::write(path("settings.json"), out_of_bounds()).unwrap();
    let sidecars = Arc::new(Sidecars::open(&path("settings.json"), &path("ca.crt")));
    let ground = Ground { folder: ground.folder, sidecars };
    let router = ground.router(&stats);
    let (status, answer) = posted(&router, request(&pod("jobs")).to_string()).await;
    assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)));
    assert_eq!((answer["response"].get("patch"), stats.pods("no-settings")), (None, 1));
    assert!(answer["response"]["warnings"][0].as_str().unwrap().starts_with("no sidecar: the webhook"), "{answer}");
    fs::write(ground.folder.path().join("settings.json"), settings("agent:1")).unwrap();
    assert!(ground.sidecars.look().unwrap());
    assert_eq!(posted(&router, request(&pod("jobs")).to_string()).await.1["response"]["patchType"], "JSONPatch");
}

#[tokio::test(start_paused = true)]
async fn settings_that_the_webhook_refuses_are_not_believed_by_who_looks_for_outdated_sidecars() {
    let ground = Ground::new();
    let path = ground.folder.path().join("settings.json");
    let ((out, mut made), stop) = (watch::channel(None), CancellationToken::new());
    let changes = async {
        let first = made.wait_for(Option::is_some).await.unwrap().clone();
        fs::write(&path, out_of_bounds()).unwrap();
        assert!(ground.sidecars.look().is_err());
        let refused = tokio::time::timeout(LOOK_EVERY * 2, made.changed()).await;
        assert!(refused.is_err(), "{:?}", made.borrow());
        fs::write(&path, settings("agent:2")).unwrap();
        made.wait_for(|made| *made != first).await.unwrap();
        stop.cancel();
    };
    tokio::join!(follow(path.clone(), out, stop.clone()), changes);
}

proptest! {
    #[test]
    fn no_review_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
        drop(review(&bytes, Some(&injector()), None));
        let mut odd = request(&pod(&text));
        odd["request"]["namespace"] = json!(text);
        let (answer, _) = review(odd.to_string().as_bytes(), Some(&injector()), Some(&known())).unwrap();
        prop_assert!(answer.response.allowed && answer.response.patch.is_none());
    }
}
