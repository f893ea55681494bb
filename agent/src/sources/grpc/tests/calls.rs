//! Calls of an honest client, and what it is told.

use std::time::Duration;

use spillway_delivery::event::EVENT_BYTES_MAX;
use spillway_delivery::intake::{RefusalReason, SubmitError};

use super::*;
use crate::sources::pushed::targets::Selection;

#[tokio::test]
async fn every_signal_is_kept_before_it_is_answered() {
    let world = World::new();
    let mut client = world.connect().await;
    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "etch"}]}]}]}).to_string();
    let metrics = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [
        {"name": "wafers", "gauge": {"dataPoints": [{"asInt": 1}, {"asInt": 2}]}},
    ]}]}]});
    for (path, message, kept) in [
        (LOGS, logs(&["a", "b"]), ["\"signal\":\"log\"", "\"message\":\"b\""]),
        (TRACES, to_protobuf(Signal::Traces, spans.as_bytes()).unwrap(), ["\"signal\":\"span\"", "\"name\":\"etch\""]),
        (
            METRICS,
            to_protobuf(Signal::Metrics, metrics.to_string().as_bytes()).unwrap(),
            ["\"signal\":\"metric\"", "\"value\":2"],
        ),
    ] {
        assert_eq!(client.export(path, &message).await.ok(), b"", "nothing was refused");
        let payloads = world.recorder.payloads();
        assert_eq!(payloads.len(), 1);
        assert!(kept.iter().all(|text| payloads[0].contains(text)), "{payloads:?}");
    }
    assert_eq!((world.answered("OK"), world.stats.of_http().accepted_events()), (3, 5));
    // Nothing at all is nothing to keep.
    assert_eq!(client.export(LOGS, b"").await.ok(), b"");
    assert!(world.recorder.payloads().is_empty());
    assert_eq!(world.stats.of_http().accepted_events(), 5);
}

#[tokio::test]
async fn a_message_may_be_compressed_and_come_in_any_pieces() {
    let world = World::new();
    let mut client = world.connect().await;
    let message = logs(&["a", &"long ".repeat(10_000)]);
    let packed = framed(1, &gzip(&message));
    let plain = framed(0, &message);
    let zipped = [USUAL[0], USUAL[1], ("grpc-encoding", "gzip")];
    let bytes: Vec<&[u8]> = plain[..40].iter().map(std::slice::from_ref).chain([&plain[40..]]).collect();
    for (headers, pieces) in [
        (&USUAL[..], &[&plain[..]][..]),
        (&USUAL[..], &bytes),
        (&zipped, &[&packed[..3], &packed[3..7], &packed[7..]]),
        // A client that may compress need not.
        (&zipped, &[&plain]),
        (&[("content-type", "application/grpc+proto; v=1"), ("grpc-encoding", "identity")], &[&plain]),
    ] {
        assert_eq!(client.call(LOGS, headers, pieces).await.ok(), b"", "{headers:?}");
        assert_eq!(world.recorder.payloads()[0].lines().count(), 2);
    }
}

#[tokio::test]
async fn a_record_that_is_no_event_is_counted_in_the_answer() {
    let world = World::new();
    let large = logs(&[&"x".repeat(EVENT_BYTES_MAX), "b"]);
    let answer = world.connect().await.export(LOGS, &large).await;
    // Field 1, a message, of which field 1 is the number 1 and field 2 says why.
    let partial = answer.ok();
    assert_eq!((partial[0], &partial[2..4]), (0x0a, &[0x08, 1][..]));
    assert!(String::from_utf8_lossy(partial).contains("1 larger than"), "{partial:?}");
    assert_eq!(world.recorder.payloads().len(), 1);
    assert!(world.stats.of_http().refused_events().any(|refused| refused == ("event_too_large", 1)));
}

#[tokio::test]
async fn what_is_refused_says_whether_to_send_it_again() {
    let world = World::new();
    let mut client = world.connect().await;
    let refused =
        |reason| SubmitError::Refused { pipeline: "jobs".into(), reason, retry_after: Duration::from_secs(3) };
    for (error, code, is_timed) in [
        (refused(RefusalReason::Full), 8, true),
        (refused(RefusalReason::NoSpace), 14, true),
        (SubmitError::Unknown { pipeline: "jobs".into() }, 14, false),
        (SubmitError::KeyReused, 5, false),
    ] {
        world.recorder.answer(error);
        let answer = client.export(LOGS, &logs(&["a"])).await;
        assert_eq!((answer.failed(), answer.may_come_again()), (code, is_timed), "{answer:?}");
    }
    assert!(world.recorder.payloads().is_empty());
    assert_eq!((world.answered("RESOURCE_EXHAUSTED"), world.answered("UNAVAILABLE")), (1, 2));
}

#[tokio::test]
async fn metadata_names_pipeline_and_key() {
    let world = World::new();
    let mut client = world.connect().await;
    let message = framed(0, &logs(&["a"]));
    let headers = [USUAL[0], ("x-spillway-pipeline", "default/jobs"), ("idempotency-key", "k1")];
    client.call(LOGS, &headers, &[&message]).await.ok();
    let kept = world.recorder.take();
    let key = kept[0].1.key.as_ref().unwrap();
    assert_eq!((&key.key[..], &key.sender[..]), (&b"k1"[..], &b"loopback"[..]));
    assert!(matches!(&kept[0].0, Selection::One(name) if &*name.name == "jobs"));
    let answer = client.call(LOGS, &[USUAL[0], ("x-spillway-pipeline", "jobz")], &[&message]).await;
    assert_eq!(answer.failed(), 5);
    assert!(answer.message.contains("unknown_pipeline") && answer.message.contains("jobs"), "{answer:?}");
    let answer = client.call(LOGS, &[USUAL[0], ("idempotency-key", "a b")], &[&message]).await;
    assert_eq!(answer.failed(), 3);
}

#[tokio::test]
async fn calls_of_one_connection_do_not_wait_for_each_other() {
    let world = World::new();
    let mut client = world.connect().await;
    let (slow, mut body) = client.begin(LOGS, &USUAL).await;
    body.send_data(Bytes::from(framed(0, &logs(&["slow"]))), false).unwrap();
    for _ in 0..5 {
        client.export(LOGS, &logs(&["quick"])).await.ok();
    }
    assert!(world.recorder.payloads().iter().all(|kept| kept.contains("quick")));
    body.send_data(Bytes::new(), true).unwrap();
    Answer::read(slow.await.unwrap()).await.ok();
    assert!(world.recorder.payloads()[0].contains("slow"));
}
