//! Over a real connection.

use std::net::TcpListener;

use axum::body::Body;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use prometheus_client::registry::Registry;
use spillway_delivery::clock::Clock;
use spillway_delivery::supervisor::Supervisor;
use tokio::time::Instant;
use tower::ServiceExt;

use super::endpoint::{BODIES_BYTES_MAX, Lookup, PATH, Stats, Webhook, router};
use super::*;
use crate::review::REVIEW_BYTES_MAX;
use crate::serve::certificates::{Authority, now};
use crate::serve::expires::Expires;
use crate::serve::limits::STOP_GRACE;
use crate::serve::mounted::{FILES, Mounted};

async fn posted(router: &axum::Router, body: impl Into<Body>) -> (StatusCode, Value) {
    let request = Request::post(PATH).body(body.into()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn an_api_server_is_answered_over_tls() {
    let authority = Authority::generate(now(&Clock::system())).unwrap();
    let trusted = reqwest::Certificate::from_pem(authority.certificate_pem().as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let leaf = authority.issue_pem(&["localhost".into()], now(&Clock::system())).unwrap();
    std::fs::write(folder.path().join(FILES[0]), leaf.certificate).unwrap();
    std::fs::write(folder.path().join(FILES[1]), leaf.key).unwrap();
    let certificates = Mounted::read(folder.path(), Expires::default()).unwrap();
    let (lookup, stats, owner) = (Arc::new(Lookup::default()), Stats::default(), Supervisor::new("test"));
    lookup.replace(Some(known()));
    let webhook = Webhook { lookup, sidecars: None, certificates: Arc::new(certificates), stats: stats.clone() };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}{PATH}?timeout=3s", socket.local_addr().unwrap().port());
    let stop = owner.stopping();
    owner.spawn("webhook", async move { webhook.run(socket, stop).await.unwrap() });
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
    for (object, expected) in [(pipeline("search"), true), (pipeline("serch"), true), (wrong(), false)] {
        let review = request("CREATE", &object, &Value::Null).to_string();
        let response = client.post(&url).body(review).send().await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
        let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(answer["response"]["allowed"], expected);
    }
    assert_eq!(["allowed", "allowed-with-warnings", "denied"].map(|verdict| stats.verdicts(verdict)), [1, 1, 1]);
    assert!(owner.stop(Instant::now() + STOP_GRACE * 2).await);
}

#[tokio::test]
async fn what_is_no_review_is_told_and_counted() {
    let stats = Stats::default();
    let router = router(Arc::default(), None, stats.clone());
    let (status, problem) = posted(&router, "{}").await;
    assert_eq!((status.as_u16(), &problem["reason"]), (400, &json!("review")));
    let (status, problem) = posted(&router, "{\"request\":").await;
    assert_eq!(status.as_u16(), 400);
    assert!(problem["detail"].as_str().unwrap().starts_with("not an AdmissionReview: EOF"), "{problem}");
    let (status, problem) = posted(&router, vec![b' '; REVIEW_BYTES_MAX + 1]).await;
    assert_eq!((status.as_u16(), &problem["reason"]), (413, &json!("body-too-large")));
    let get = Request::get(PATH).body(Body::empty()).unwrap();
    assert_eq!(router.clone().oneshot(get).await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(stats.verdicts("not-judged"), 3);
    let mut registry = Registry::with_prefix("spillway_operator");
    stats.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "spillway_operator_webhook_reviews_total{verdict=\"not-judged\"} 3",
        "spillway_operator_webhook_review_seconds_count 3",
        "spillway_operator_webhook_connections 0",
        "spillway_operator_webhook_refusals_total{reason=\"review\"} 2",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn reviews_that_come_together_are_all_answered() {
    let router = router(Arc::default(), None, Stats::default());
    let review = request("CREATE", &wrong(), &Value::Null).to_string();
    let answers = futures_util::future::join_all((0..50).map(|_| posted(&router, review.clone()))).await;
    assert!(answers.iter().all(|(status, answer)| *status == 200 && answer["response"]["allowed"] == false));
}

/// Posts a review of which a part comes, and then nothing more.
async fn half_posted(router: &axum::Router, bytes: usize) -> (StatusCode, Value) {
    let sent = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![b' '; bytes])]);
    posted(router, Body::from_stream(sent.chain(futures_util::stream::pending()))).await
}

#[tokio::test(start_paused = true)]
async fn reviews_that_are_half_sent_take_bounded_memory_and_hold_nobody_up_for_long() {
    const EACH: usize = 2 << 20;
    let stats = Stats::default();
    let router = router(Arc::default(), None, stats.clone());
    let answers = futures_util::future::join_all((0..256).map(|_| half_posted(&router, EACH))).await;
    let count = |reason: &str| answers.iter().filter(|(_, problem)| problem["reason"] == reason).count();
    assert_eq!((count("body"), count("no-room")), (BODIES_BYTES_MAX / EACH, 256 - BODIES_BYTES_MAX / EACH));
    assert_eq!(stats.refusals("no-room"), count("no-room") as u64);
    let review = request("CREATE", &wrong(), &Value::Null).to_string();
    assert_eq!(posted(&router, review).await.1["response"]["allowed"], false);
}
