//! Every form of a body, every encoding, and what becomes of the bytes.

use super::*;
use crate::sources::pushed::events::{self, BodyError, RefusalCode};
use crate::sources::pushed::targets::Selection;

#[tokio::test]
async fn every_path_takes_every_form() {
    let server = Server::start().await;
    for path in ["/v1/events", "/v1/ingest/events", "/v1/ingest/events:batch"] {
        for (body, payload) in [
            (r#"{"a":1}"#, "{\"a\":1}\n"),
            ("{\"a\":1}\n{\"a\":2}\n", "{\"a\":1}\n{\"a\":2}\n"),
            (r#"[{"a":1},{"a":2}]"#, "{\"a\":1}\n{\"a\":2}\n"),
        ] {
            let answer = server.send(&request(path, "", body.as_bytes())).await;
            assert_eq!(answer.status, 202, "{answer:?}");
            let events = payload.lines().count();
            assert_eq!(answer.json(), serde_json::json!({ "accepted": events }));
            assert_eq!(server.recorder.payloads(), [payload]);
        }
    }
    assert_eq!(server.stats.accepted_events(), 15);
    assert_eq!(server.answered(202), 9);
}

#[tokio::test]
async fn the_bytes_decide_and_not_the_content_type() {
    let server = Server::start().await;
    for kind in ["application/json", "application/x-ndjson", "text/plain", "application/x-www-form-urlencoded", "???"] {
        let answer = server.post(&format!("content-type: {kind}\r\n"), b"[{}]").await;
        assert_eq!(answer.status, 202, "{kind}: {answer:?}");
    }
    for kind in ["multipart/form-data; boundary=x", "Multipart/mixed", "image/png"] {
        let answer = server.post(&format!("content-type: {kind}\r\n"), b"[{}]").await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_media_type"), "{kind}");
    }
}

#[tokio::test]
async fn encoded_bodies_are_decoded() {
    let server = Server::start().await;
    let (one, two) = (b"{\"a\":1}\n".as_slice(), b"{\"a\":2}\n".as_slice());
    let empty_skippable = [0x5A, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 7, 7];
    for (coding, body) in [
        ("gzip", gzip(b"{\"a\":1}\n{\"a\":2}\n")),
        ("X-GZIP", gzip(b"{\"a\":1}\n{\"a\":2}\n")),
        ("gzip", [gzip(one), gzip(b""), gzip(two)].concat()),
        ("zstd", zstd(b"{\"a\":1}\n{\"a\":2}\n")),
        ("Zstd", [zstd(one), empty_skippable.to_vec(), zstd(two)].concat()),
        ("identity", [one, two].concat()),
    ] {
        let answer = server.post(&format!("content-encoding: {coding}\r\n"), &body).await;
        assert_eq!(answer.status, 202, "{coding}: {answer:?}");
        assert_eq!(server.recorder.payloads(), ["{\"a\":1}\n{\"a\":2}\n"]);
    }
}

#[tokio::test]
async fn a_large_encoded_body_comes_out_whole() {
    let server = Server::start().await;
    let lines = (0..40_000_u64).map(|number| {
        let spread = number * 2_654_435_761 % 1_000_003;
        format!("{{\"number\":{number},\"spread\":{spread}}}\n")
    });
    let body: String = lines.collect();
    for (coding, encoded) in [("gzip", gzip(body.as_bytes())), ("zstd", zstd(body.as_bytes()))] {
        let answer = server.post(&format!("content-encoding: {coding}\r\n"), &encoded).await;
        assert_eq!(answer.json(), serde_json::json!({ "accepted": 40_000 }));
        assert!(server.recorder.payloads() == [body.as_str()], "{coding}");
    }
}

#[tokio::test]
async fn chunked_bodies_are_taken_and_need_no_length() {
    let server = Server::start().await;
    let answer = server
        .send(
            b"POST /v1/events HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
              4\r\n{\"a\"\r\n4;x=y\r\n:1}\n\r\n3\r\n{}\n\r\n0\r\ntrailer: x\r\n\r\n",
        )
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(server.recorder.payloads(), ["{\"a\":1}\n{}\n"]);
}

#[tokio::test]
async fn a_key_travels_with_sender_and_hash_of_the_decoded_body() {
    let server = Server::start().await;
    let body = b"{\"_spillway\":1}\n";
    server.post("idempotency-key: k-1\r\ncontent-encoding: gzip\r\n", &gzip(body)).await;
    server.post("Idempotency-Key: k-1\r\n", body).await;
    server.post("", body).await;
    let kept = server.recorder.take();
    let key = kept[0].1.key.clone().unwrap();
    assert_eq!((&key.sender[..], &key.key[..]), (&b"loopback"[..], &b"k-1"[..]));
    assert_eq!(key.body_hash, xxhash_rust::xxh3::xxh3_128(body));
    assert_eq!(kept[1].1.key.as_ref(), Some(&key));
    assert_eq!(kept[2].1.key, None);
}

#[tokio::test]
async fn a_request_may_name_its_pipeline() {
    let recorder = Recorder::new(&[("default", "jobs"), ("fab", "jobs"), ("fab", "alarms")]);
    let names = recorder.names.clone();
    let server = Server::with(recorder).await;
    for (name, expected) in [
        ("", Selection::All),
        ("x-spillway-pipeline: alarms\r\n", Selection::One(names[2].clone())),
        ("X-Spillway-Pipeline: fab/jobs\r\n", Selection::One(names[1].clone())),
    ] {
        assert_eq!(server.post(name, b"{}").await.status, 202);
        assert_eq!(server.recorder.take()[0].0, expected, "{name}");
    }
    for (name, code, words) in [
        ("alarm", "unknown_pipeline", r#"nearest name is "alarms""#),
        ("fab/job", "unknown_pipeline", r#"nearest name is "fab/jobs""#),
        ("jobs", "ambiguous_pipeline", r#""default/jobs", or "fab/jobs""#),
    ] {
        let answer = server.post(&format!("x-spillway-pipeline: {name}\r\n"), b"{}").await;
        assert_eq!((answer.status, answer.code().as_str()), (422, code));
        assert!(answer.json()["message"].as_str().unwrap().contains(words), "{answer:?}");
    }
    let nobody = Server::with(Recorder::new(&[])).await;
    let answer = nobody.post("", b"{}").await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "no_pipeline"));
}

#[test]
fn bytes_are_kept_but_for_line_breaks_and_the_reserved_member() {
    for (body, payload) in [
        ("{ \"a\" : 1 }", "{ \"a\" : 1 }\n"),
        ("  {\"a\":1}\t\r\n\r\n \n {\"b\":\"\\n\"} ", "{\"a\":1}\n{\"b\":\"\\n\"}\n"),
        ("{\n  \"a\": 1,\r\n  \"b\": [\n]\n}\n", "{   \"a\": 1,    \"b\": [ ] }\n"),
        ("{\"_spillway\":{\"id\":\"x\"},\"a\":1}\n{\"b\":2}\n", "{\"a\":1}\n{\"b\":2}\n"),
        ("{\"b\":2}\n{\"a\":{\"_spillway\":1}}", "{\"b\":2}\n{\"a\":{\"_spillway\":1}}\n"),
        ("{\"\\u005fspillway\":1}", "{}\n"),
        ("[]", ""),
        (" [ {\n} , {\"_spillway\":0} ] \n", "{}\n{}\n"),
        ("{\"a\":\"\u{fc}\",\"n\":1e400}", "{\"a\":\"\u{fc}\",\"n\":1e400}\n"),
    ] {
        let events = events::parse(body.as_bytes().to_vec()).unwrap();
        assert_eq!(String::from_utf8(events.payload).unwrap(), payload, "{body:?}");
        assert_eq!(events.ends.len(), payload.lines().count(), "{body:?}");
        assert_eq!(events.refusals.total(), 0, "{body:?}");
    }
}

#[test]
fn ndjson_as_it_should_be_is_not_copied() {
    let text = b"{\"a\":1}\n{\"b\":2}\n{\"c\":3}";
    let mut body = Vec::with_capacity(text.len() + 1);
    body.extend_from_slice(text);
    let place = body.as_ptr();
    let events = events::parse(body).unwrap();
    assert_eq!(events.payload.as_ptr(), place);
    assert_eq!(events.ends, [8, 16, 24]);
}

#[test]
fn a_broken_object_over_several_lines_is_one_fault_and_its_inner_lines_are_no_events() {
    let broken = "{\n  \"list\": [\n    {\"a\": 1}\n  ],,\n}\n";
    let Err(BodyError::Malformed(fault)) = events::parse(broken.as_bytes().to_vec()) else {
        panic!("the whole is refused");
    };
    assert_eq!((fault.line, fault.column), (4, 5));
    let cut_first_line = "{\"a\":\n{\"b\":2}\n{\"c\":3}\n";
    let events = events::parse(cut_first_line.as_bytes().to_vec()).unwrap();
    assert_eq!(events.ends.len(), 2);
    assert_eq!(events.refusals.counts[RefusalCode::Malformed as usize], 1);
}

#[test]
fn places_are_counted_over_a_whole_array() {
    let body = "[{},\n 1, \"\u{e9}\", [],\n\n  null,{}]";
    let events = events::parse(body.as_bytes().to_vec()).unwrap();
    let places: Vec<_> = events
        .refusals
        .listed
        .iter()
        .map(|refusal| (refusal.index, refusal.fault.line, refusal.fault.column))
        .collect();
    assert_eq!(places, [(1, 2, 2), (2, 2, 5), (3, 2, 10), (4, 4, 3)]);
    assert_eq!(events.payload, b"{}\n{}\n");
}

#[test]
fn more_events_than_a_batch_holds_are_too_many() {
    use spillway_delivery::event::BATCH_EVENTS_MAX;
    let most = b"{}\n".repeat(BATCH_EVENTS_MAX);
    assert_eq!(events::parse(most.clone()).unwrap().ends.len(), BATCH_EVENTS_MAX);
    assert_eq!(events::parse([&most[..], b"{}"].concat()).unwrap_err(), BodyError::TooManyEvents);
    let array = [b"[{}".as_slice(), &b",{}".repeat(BATCH_EVENTS_MAX), b"]"].concat();
    assert_eq!(events::parse(array).unwrap_err(), BodyError::TooManyEvents);
}
