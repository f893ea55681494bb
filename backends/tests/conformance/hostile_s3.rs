//! What stores do wrong, and how objects stay single all the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, OutBatchBuilder, Outcome};
use tokio::time::timeout;

use crate::batches::{NOW, batch, batch_of, context, cut_short, lines, pod, secret};
use crate::bucket::{Bucket, Call, refusal};
use crate::destinations::{bucket_settings, parse};
use crate::log::{Log, logged_to};
use crate::server::Reply;

const CANARY: &str = "canary-8c1f";

/// Long enough for anything on loopback.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    directory: tempfile::TempDir,
    bucket: Bucket,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| None).await
    }

    async fn with(script: impl Fn(&Call<'_>) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), bucket: Bucket::start_with(script).await }
    }

    fn backend(&self, more: &serde_json::Value) -> Arc<dyn Backend> {
        let settings = bucket_settings(self.directory.path(), &self.bucket.server, more);
        build(&BackendSettings::S3(parse(settings)), context(self.directory.path())).unwrap()
    }

    /// A backend whose objects are plain, and one per pod.
    fn by_pod(&self) -> Arc<dyn Backend> {
        self.backend(&serde_json::json!({"compression": "None", "key": "p/{origin.pod}/{id}"}))
    }

    /// Every line of every object.
    fn lines(&self) -> Vec<String> {
        self.bucket.objects().iter().flat_map(crate::bucket::Stored::lines).collect()
    }
}

/// Large enough for three parts: 20 events of 1 MiB.
fn large(key: &str) -> OutBatch {
    let mut builder = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"errors".into());
    let event = format!("{{\"x\":\"{}\"}}", "x".repeat((1 << 20) - 8));
    builder.begin_chunk(Bytes::from(event.repeat(20)), Arc::default(), 7, NOW);
    for number in 0..20u32 {
        let start = number * event.len() as u32;
        builder.push(u64::from(number), start, start + event.len() as u32);
    }
    builder.build(key)
}

fn large_settings() -> serde_json::Value {
    serde_json::json!({"compression": "None", "key": "big/{id}", "multipartAboveBytes": 5_242_880})
}

#[tokio::test]
async fn the_request_is_what_the_settings_say() {
    let world = World::new().await;
    let backend = world.backend(&serde_json::json!({
        "region": "eu-central-1", "key": "jobs/dt={date}/{hour}/{id}.ndjson", "storageClass": "STANDARD_IA",
        "serverSideEncryption": {"algorithm": "aws:kms", "kmsKeyID": "alias/lake"}, "expectedBucketOwner": "123456789012",
        "credentials": {
            "accessKeyIDSecretRef": {"name": "s3", "key": "id"},
            "secretAccessKeySecretRef": {"name": "s3", "key": "secret"},
            "sessionTokenSecretRef": {"name": "s3", "key": "token"},
        },
    }));
    assert!(backend.traits().keyed);
    secret(world.directory.path(), "s3", "token", "token-1\n");
    assert_eq!(backend.send(&batch(0..3)).await, Ok(Items::All(Outcome::Delivered)));
    secret(world.directory.path(), "s3", "id", "AK2");
    secret(world.directory.path(), "s3", "token", "token-22");
    assert_eq!(backend.send(&batch(3..6)).await, Ok(Items::All(Outcome::Delivered)));
    let seen = world.bucket.server.seen();
    let object = &world.bucket.objects()[0];
    assert!(object.key.starts_with("jobs/dt=2026-11-23/10/") && object.key.ends_with(".ndjson.gz"), "{}", object.key);
    for (name, value) in [
        ("if-none-match", "*"),
        ("content-type", "application/gzip"),
        ("x-amz-storage-class", "STANDARD_IA"),
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "alias/lake"),
        ("x-amz-expected-bucket-owner", "123456789012"),
        ("x-amz-security-token", "token-1"),
        ("x-amz-meta-spillway-events", "3"),
        ("x-amz-meta-spillway-plan", "key-0-3"),
    ] {
        assert_eq!(seen[0].header(name), Some(value), "{name}");
    }
    assert!(object.key.contains(&object.metadata["spillway-id"]));
    assert!(seen[0].header("authorization").unwrap().contains("Credential=AK/"));
    assert!(seen[0].header("authorization").unwrap().contains("/eu-central-1/s3/"));
    assert!(seen[1].header("authorization").unwrap().contains("Credential=AK2/"), "a rotated key is used at once");
    assert_eq!(seen[1].header("x-amz-security-token"), Some("token-22"));
    assert!(seen.iter().flat_map(|request| &request.headers).all(|(_, value)| !value.contains(CANARY)));
    assert!(!format!("{backend:?}").contains(CANARY));
}

#[tokio::test]
async fn an_answer_lost_after_the_put_gives_no_second_object() {
    let world = World::new().await;
    let backend = world.backend(&serde_json::json!({}));
    world.bucket.lose("PutObject", "");
    assert_eq!(backend.send(&batch(0..9)).await.unwrap_err().kind, FaultKind::Unreachable);
    assert_eq!(backend.send(&batch(0..9)).await, Ok(Items::All(Outcome::Duplicate)));
    assert_eq!(world.lines(), lines(0..9));
}

#[tokio::test]
async fn an_object_of_somebody_else_under_our_key_is_no_success() {
    let world = World::new().await;
    for more in [serde_json::json!({"key": "x/{id}"}), large_settings()] {
        let next = if more["multipartAboveBytes"].is_null() { batch(0..9) } else { large("plan") };
        let backend = world.backend(&more);
        assert_eq!(backend.send(&next).await, Ok(Items::All(Outcome::Delivered)));
        let ours = world.bucket.objects().pop().unwrap();
        world.bucket.clear();
        let of_another = "0".repeat(32);
        for metadata in [vec![], vec![("spillway-id", of_another.as_str())], vec![("spillway-plan", "plan")]] {
            world.bucket.clear();
            world.bucket.plant(&ours.key, &metadata);
            let fault = backend.send(&next).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Broken);
            assert!(fault.message.contains("not ours"), "{fault}");
            assert_eq!(world.bucket.objects()[0].body, b"{}\n", "it is not overwritten");
        }
        world.bucket.clear();
    }
}

#[tokio::test]
async fn an_object_that_was_there_and_is_gone_is_put_again() {
    let first = AtomicBool::new(true);
    let world = World::with(move |call| {
        (call.what == "PutObject" && first.swap(false, Ordering::Relaxed)).then(|| refusal(412, "PreconditionFailed"))
    })
    .await;
    let backend = world.backend(&serde_json::json!({}));
    assert_eq!(backend.send(&batch(0..9)).await.unwrap_err().kind, FaultKind::Throttled);
    assert_eq!(backend.send(&batch(0..9)).await, Ok(Items::All(Outcome::Delivered)));
}

#[tokio::test]
async fn when_some_objects_fail_each_event_has_its_own_outcome() {
    let world = World::with(|call| {
        (call.what == "PutObject" && call.key.starts_with("p/b/")).then(|| refusal(403, "AccessDenied"))
    })
    .await;
    let backend = world.by_pod();
    let runs = [(pod("a"), vec![0, 1]), (pod("b"), vec![2, 3]), (pod(".x"), vec![4]), (pod("c"), vec![5])];
    let Ok(Items::Each(outcomes)) = backend.send(&batch_of(&runs, "plan")).await else { panic!("no outcomes") };
    let short: Vec<_> = outcomes.iter().map(|outcome| format!("{outcome:?}")[..5].to_owned()).collect();
    assert_eq!(short, ["Deliv", "Deliv", "Retry", "Retry", "Rejec", "Deliv"]);
    let only_b = [(pod("b"), vec![2, 3])];
    let fault = backend.send(&batch_of(&only_b, "planp2")).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unauthorized, "nothing but failures is a fault of the attempt");
}

#[tokio::test]
async fn a_part_of_a_batch_that_is_refused_is_told_without_what_the_store_repeats() {
    let log = Log::default();
    let _guard = logged_to(&log);
    // A store's code is a plain word, and so is the id of a key.
    let world = World::with(|call| call.key.starts_with("p/b/").then(|| refusal(400, CANARY))).await;
    secret(world.directory.path(), "s3", "id", CANARY);
    let sent = world.by_pod().send(&batch_of(&[(pod("a"), vec![0]), (pod("b"), vec![1])], "plan")).await;
    assert_eq!(sent, Ok(Items::Each(vec![Outcome::Delivered, Outcome::Retry])));
    assert_eq!(log.lines_with(&[CANARY]), [""; 0]);
    let told = log.lines_with(&["some objects of a batch are not taken"]);
    assert!(told.len() == 1 && told[0].contains("(secret)"), "{told:?}");
}

#[tokio::test]
async fn what_is_left_of_a_batch_finds_its_objects_under_another_plan() {
    let world = World::new().await;
    let backend = world.by_pod();
    world.bucket.lose("PutObject", "p/b/");
    let runs = [(pod("a"), vec![0, 1]), (pod("b"), vec![2, 3])];
    let Ok(Items::Each(outcomes)) = backend.send(&batch_of(&runs, "plan")).await else { panic!("no outcomes") };
    assert_eq!(outcomes, [Outcome::Delivered, Outcome::Delivered, Outcome::Retry, Outcome::Retry]);
    // The engine sends what is left as another batch; a process that died meanwhile sends all of it again.
    let rest = [(pod("b"), vec![2, 3])];
    assert_eq!(backend.send(&batch_of(&rest, "planp2")).await, Ok(Items::All(Outcome::Duplicate)));
    let again = world.by_pod().send(&batch_of(&runs, "plan")).await;
    assert_eq!(again, Ok(Items::Each(vec![Outcome::Duplicate; 4])));
    assert_eq!(world.lines().into_iter().collect::<BTreeSet<_>>().len(), world.lines().len());
    assert_eq!(world.bucket.objects().len(), 2);
}

#[tokio::test]
async fn more_objects_than_64_in_a_batch_are_halved_by_the_engine() {
    let world = World::new().await;
    let backend = world.by_pod();
    let runs: Vec<_> = (0..65).map(|number| (pod(&format!("p{number}")), vec![number])).collect();
    assert_eq!(backend.send(&batch_of(&runs, "plan")).await.unwrap_err().kind, FaultKind::TooLarge);
    assert_eq!(world.bucket.server.seen().len(), 0);
    let Ok(Items::Each(outcomes)) = backend.send(&batch_of(&runs[..64], "planl")).await else { panic!("no outcomes") };
    assert_eq!(outcomes, vec![Outcome::Delivered; 64]);
}

#[tokio::test]
async fn every_refusal_has_its_kind_and_nothing_of_the_server_s_words() {
    for (status, code, kind) in [
        (403, "AccessDenied", FaultKind::Unauthorized),
        (403, "SignatureDoesNotMatch", FaultKind::Unauthorized),
        (403, "InvalidAccessKeyId", FaultKind::Unauthorized),
        (400, "ExpiredToken", FaultKind::Unauthorized),
        (403, "RequestTimeTooSkewed", FaultKind::Unauthorized),
        (404, "NoSuchBucket", FaultKind::Broken),
        (301, "PermanentRedirect", FaultKind::Broken),
        (503, "SlowDown", FaultKind::Throttled),
        (429, "TooManyRequests", FaultKind::Throttled),
        (409, "ConditionalRequestConflict", FaultKind::Throttled),
        (400, "EntityTooLarge", FaultKind::TooLarge),
        (500, "InternalError", FaultKind::Broken),
        (501, "NotImplemented", FaultKind::Broken),
        (418, "canary-8c1f in words", FaultKind::Broken),
    ] {
        let world = World::with(move |_| Some(refusal(status, code))).await;
        let fault = world.backend(&serde_json::json!({})).send(&batch(0..3)).await.unwrap_err();
        assert_eq!(fault.kind, kind, "{status} {code}: {fault}");
        assert!(
            !fault.message.contains(CANARY) && fault.message.starts_with("PutObject: "),
            "{status} {code}: {fault}"
        );
        assert_eq!(world.bucket.server.seen().len(), 1, "the engine retries, nobody else");
    }
    let world = World::with(|_| Some(Reply::with(503, "retry-after: 17\r\n", ""))).await;
    let fault = world.backend(&serde_json::json!({})).send(&batch(0..3)).await.unwrap_err();
    assert_eq!(fault.retry_after, Some(Duration::from_secs(17)));
}

async fn send_to(reply: Reply) -> Result<Items, Fault> {
    let world = World::with(move |_| Some(reply.clone())).await;
    let backend = world.backend(&serde_json::json!({}));
    timeout(PATIENCE, backend.send(&batch(0..3))).await.expect("an end")
}

#[tokio::test]
async fn answers_that_break_off_never_end_or_are_no_xml_are_faults() {
    assert_eq!(send_to(Reply::Reset).await.unwrap_err().kind, FaultKind::Unreachable);
    let broken = Reply::BytesAndClose(b"HTTP/1.1 500 x\r\ncontent-length: 100\r\n\r\n<Error>".to_vec());
    assert!(send_to(broken).await.is_err());
    let nonsense = Reply::with(400, "content-type: application/xml\r\n", "<Error><Code>x</");
    assert_eq!(send_to(nonsense).await.unwrap_err().kind, FaultKind::Broken);
    let endless = Reply::Endless(
        b"HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        b"400\r\n".iter().copied().chain([b'x'; 1024]).chain(*b"\r\n").collect(),
    );
    assert_eq!(send_to(endless).await.unwrap_err().kind, FaultKind::Broken);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let world = World::new().await;
    let backend = world.backend(&serde_json::json!({"endpoint": format!("http://{address}")}));
    let fault = backend.send(&batch(0..3)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unreachable);
    assert!(fault.message.contains("refused"), "{fault}");
}

#[tokio::test]
async fn a_secret_that_is_not_there_or_cannot_be_sent_is_a_local_fault() {
    let world = World::new().await;
    let backend = world.backend(&serde_json::json!({}));
    // The SDK would panic.
    secret(world.directory.path(), "s3", "id", "A\nB");
    let fault = backend.send(&batch(0..3)).await.unwrap_err();
    assert_eq!((fault.kind, &*fault.message), (FaultKind::Local, "secret s3/id holds what a header cannot carry"));
    secret(world.directory.path(), "s3", "id", "AK");
    std::fs::remove_file(world.directory.path().join("secrets/s3/secret")).unwrap();
    let fault = backend.send(&batch(0..3)).await.unwrap_err();
    assert_eq!((fault.kind, &*fault.message), (FaultKind::Local, "secret s3/secret is not there"));
    assert_eq!(world.bucket.server.seen().len(), 0);
}

#[tokio::test]
async fn a_large_object_goes_in_parts_and_once() {
    let world = World::new().await;
    let backend = world.backend(&large_settings());
    assert_eq!(backend.send(&large("plan")).await, Ok(Items::All(Outcome::Delivered)));
    assert_eq!(backend.send(&large("plan")).await, Ok(Items::All(Outcome::Duplicate)));
    let objects = world.bucket.objects();
    let mut whole = Vec::new();
    large("plan").write_ndjson(&mut whole, spillway_delivery::settings::Metadata::None);
    assert!(objects.len() == 1 && objects[0].body == whole);
    assert_eq!(world.bucket.uploads(), (1, 0, 0));
    let parts = world.bucket.server.seen().iter().filter(|request| request.line.contains("partNumber")).count();
    assert_eq!(parts, 3);
}

#[tokio::test]
async fn an_answer_lost_at_the_end_of_an_upload_gives_no_second_object() {
    let world = World::new().await;
    let backend = world.backend(&large_settings());
    world.bucket.lose("CompleteMultipartUpload", "");
    assert_eq!(backend.send(&large("plan")).await.unwrap_err().kind, FaultKind::Unreachable);
    assert_eq!(backend.send(&large("plan")).await, Ok(Items::All(Outcome::Duplicate)));
    assert_eq!(world.bucket.objects().len(), 1);
}

#[tokio::test]
async fn an_upload_that_fails_is_cut_off_or_was_left_behind_is_aborted() {
    let failing = Arc::new(AtomicBool::new(true));
    let fails = failing.clone();
    let world = World::with(move |call| {
        (call.what == "UploadPart" && fails.load(Ordering::Relaxed)).then(|| refusal(503, "SlowDown"))
    })
    .await;
    let backend = world.backend(&large_settings());
    assert_eq!(backend.send(&large("plan")).await.unwrap_err().kind, FaultKind::Throttled);
    backend.close().await;
    assert_eq!(world.bucket.uploads(), (1, 1, 0), "failed");
    failing.store(false, Ordering::Relaxed);
    // Cut off at one await after the other, until one comes to its end in spite of all.
    let mut polls = 1;
    loop {
        let backend = world.backend(&large_settings());
        let sent = cut_short(backend.send(&large("plan")), polls).await;
        backend.close().await;
        assert_eq!(world.bucket.uploads().2, 0, "cut off at {polls}");
        if sent.is_some() {
            break;
        }
        polls += 1 + polls / 4;
    }
    let key = world.bucket.objects()[0].key.clone();
    world.bucket.clear();
    world.bucket.leave_upload(&key);
    world.bucket.leave_upload("big/of-another");
    assert_eq!(backend_of(&world).send(&large("plan")).await, Ok(Items::All(Outcome::Delivered)));
    assert_eq!(world.bucket.uploads().2, 1, "the one of another stays");
}

fn backend_of(world: &World) -> Arc<dyn Backend> {
    world.backend(&large_settings())
}

#[tokio::test]
async fn a_store_that_hides_what_is_not_there_gets_its_upload_all_the_same() {
    let world =
        World::with(|call| matches!(call.what, "HeadObject" | "ListMultipartUploads").then(|| Reply::status(403)))
            .await;
    assert_eq!(backend_of(&world).send(&large("plan")).await, Ok(Items::All(Outcome::Delivered)));
    // Now that it is there and cannot be looked at, nothing is claimed.
    let fault = backend_of(&world).send(&large("plan")).await.unwrap_err();
    assert_eq!((fault.kind, world.bucket.objects().len()), (FaultKind::Unauthorized, 1));
    assert!(fault.message.starts_with("HeadObject: access denied"), "{fault}");
}

#[tokio::test]
async fn without_keys_and_without_a_machine_that_gives_them_nothing_is_sent() {
    let world = World::new().await;
    let mut settings = bucket_settings(world.directory.path(), &world.bucket.server, &serde_json::json!({}));
    settings.as_object_mut().unwrap().remove("credentials");
    let backend = build(&BackendSettings::S3(parse(settings)), context(world.directory.path())).unwrap();
    // Where the machine's address for that is dropped and not refused, it takes as long as the SDK waits.
    if let Ok(sent) = timeout(PATIENCE, backend.send(&batch(0..3))).await {
        let fault = sent.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unauthorized, "{fault}");
        assert!(fault.message.starts_with("no keys: "), "{fault}");
    }
    assert_eq!(world.bucket.server.seen().len(), 0);
}
