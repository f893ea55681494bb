//! What no honest client sends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::limits::{CALLS_MAX, HEADER_BYTES_MAX, RESETS_MAX};
use super::*;
use crate::sources::http::limits::WIRE_BYTES_MAX;

/// Returns a frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = &(payload.len() as u32).to_be_bytes()[1..];
    [length, &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// `POST http /`, from the static table.
const POST: [u8; 3] = [0x83, 0x86, 0x84];

fn hello() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..]].concat()
}

/// Returns the headers of a call of logs, without compression.
fn call_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(":path", LOGS), ("content-type", "application/grpc")] {
        block.push(0);
        block.push(name.len() as u8);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    block
}

/// Sends `bytes` on a connection of its own until the source has had enough; returns the reason of its `GOAWAY`.
async fn told(world: &World, bytes: &[u8]) -> Option<u32> {
    let (mut reader, mut writer) = tokio::io::split(world.pipe());
    let mut heard = Vec::new();
    let (_, read) = tokio::join!(writer.write_all(bytes), reader.read_to_end(&mut heard));
    read.unwrap();
    let mut rest = &heard[..];
    let mut reason = None;
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == GOAWAY {
            reason = after[4..8].try_into().ok().map(u32::from_be_bytes);
        }
        rest = &after[length..];
    }
    reason
}

/// `ENHANCE_YOUR_CALM`.
const CALM: Option<u32> = Some(11);

#[tokio::test]
async fn what_is_no_call_is_told_so_by_http_or_by_its_status() {
    let world = World::new();
    let mut client = world.connect().await;
    let message = framed(0, &logs(&["a"]));
    for content_type in ["application/json", "application/grpc-web", "application/grpc+json", "text/plain", ""] {
        let answer = client.call(LOGS, &[("content-type", content_type)], &[&message]).await;
        assert_eq!((answer.http, answer.code), (415, None), "{content_type}");
    }
    let mut requests = client.requests.clone().ready().await.unwrap();
    let get = Request::builder().uri(format!("http://agent{LOGS}")).header("content-type", "application/grpc");
    let (answer, _) = requests.send_request(get.body(()).unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status().as_u16(), 405);
    for path in
        ["/", "/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export/", "/grpc.health.v1.Health/Check"]
    {
        let answer = client.export(path, &logs(&["a"])).await;
        assert_eq!(answer.failed(), 12, "{path}");
        assert!(!answer.may_come_again());
    }
    let answer = client.call(LOGS, &[USUAL[0], ("grpc-encoding", "snappy")], &[&message]).await;
    assert_eq!((answer.failed(), &answer.headers["grpc-accept-encoding"]), (12, &"identity,gzip".parse().unwrap()));
    for timeout in ["5", "abc", "123456789S", ""] {
        assert_eq!(
            client.call(LOGS, &[USUAL[0], ("grpc-timeout", timeout)], &[&message]).await.failed(),
            3,
            "{timeout}"
        );
    }
    assert!(world.recorder.payloads().is_empty());
}

#[tokio::test]
async fn a_message_that_lies_is_refused_and_its_memory_given_back() {
    let world = World::new();
    let mut client = world.connect().await;
    let free = world.calls.shared.free_bytes();
    let good = framed(0, &logs(&["a"]));
    let huge = [&[0][..], &(WIRE_BYTES_MAX as u32 + 1).to_be_bytes(), &[0; 100]].concat();
    let boundless = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    let short = [&[0][..], &1000_u32.to_be_bytes(), &[10; 500]].concat();
    let bomb = framed(1, &gzip(&vec![b'\n'; 64 << 20]));
    let zipped = [USUAL[0], ("grpc-encoding", "gzip")];
    for (what, headers, bytes, code) in [
        ("a length above the bound", &USUAL[..1], huge, 8),
        ("the greatest length", &USUAL[..1], boundless, 8),
        ("a length that is more than what comes", &USUAL[..1], short, 3),
        ("half a prefix", &USUAL[..1], good[..3].to_vec(), 3),
        ("no message", &USUAL[..1], Vec::new(), 12),
        ("two messages", &USUAL[..1], [&good[..], &good].concat(), 3),
        ("something behind the message", &USUAL[..1], [&good[..], b"x"].concat(), 3),
        ("a flag that there is not", &USUAL[..1], framed(7, &logs(&["a"])), 13),
        ("compressed, and nothing says how", &USUAL[..1], framed(1, &gzip(&logs(&["a"]))), 13),
        ("no gzip", &zipped, framed(1, b"no gzip at all"), 3),
        ("half a gzip", &zipped, framed(1, &gzip(&logs(&["a"]))[..20]), 3),
        ("a bomb", &zipped, bomb, 8),
        ("no protobuf", &USUAL[..1], framed(0, b"\x0a\xff\xff"), 3),
    ] {
        let answer = client.call(LOGS, headers, &[&bytes]).await;
        assert_eq!((answer.failed(), answer.may_come_again()), (code, false), "{what}: {answer:?}");
    }
    assert!(world.recorder.payloads().is_empty());
    assert_eq!((world.limit("wire_bytes"), world.limit("ratio") + world.limit("body_bytes")), (2, 1));
    assert_eq!(world.calls.shared.free_bytes(), free);
    client.export(LOGS, &logs(&["still"])).await.ok();
}

#[tokio::test]
async fn metadata_has_a_bound() {
    let world = World::new();
    let mut client = world.connect().await;
    let long = "x".repeat(HEADER_BYTES_MAX);
    let answer = client.call(LOGS, &[USUAL[0], ("x-long", &long)], &[]).await;
    assert_eq!((answer.failed(), world.limit("header_bytes")), (8, 1));
    // Twice as much is refused below, and the connection goes on.
    let longer = "x".repeat(2 * HEADER_BYTES_MAX);
    assert_eq!(client.call(LOGS, &[USUAL[0], ("x-long", &longer)], &[]).await.http, 431);
    client.export(LOGS, &logs(&["still"])).await.ok();
}

#[tokio::test]
async fn frames_that_are_none_end_their_connection_alone() {
    let world = World::new();
    let mut other = world.connect().await;
    for (what, bytes) in [
        ("a length above the bound", [&hello()[..], &[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]].concat()),
        ("data of no stream", [&hello()[..], &frame(DATA, 0, 0, b"x")].concat()),
        ("headers that cannot be read", [&hello()[..], &frame(HEADERS, END_HEADERS, 1, &[0xff; 50])].concat()),
        ("a number that is even", [&hello()[..], &frame(HEADERS, END_HEADERS, 2, &POST)].concat()),
        ("garbage", [&hello()[..], &[0xaa; 4096]].concat()),
    ] {
        let before = world.limit("protocol");
        assert!(told(&world, &bytes).await.is_some_and(|reason| reason != 0), "{what}");
        world.until(|world| world.limit("protocol") == before + 1).await;
    }
    for bytes in [&b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..], &[0xaa; 4096]] {
        let before = world.limit("handshake");
        told(&world, bytes).await;
        world.until(|world| world.limit("handshake") == before + 1).await;
    }
    other.export(LOGS, &logs(&["still"])).await.ok();
}

#[tokio::test]
async fn floods_end_their_connection_and_are_counted() {
    let world = World::new();
    let mut other = world.connect().await;
    let stream = |number: u32| 2 * number + 1;
    let resets: Vec<u8> = (0..200)
        .flat_map(|number| {
            let reset = frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes());
            [frame(HEADERS, END_HEADERS, stream(number), &call_headers()), reset].concat()
        })
        .collect();
    let continued: Vec<u8> = (0..2_000).flat_map(|_| frame(CONTINUATION, 0, 1, b"")).collect();
    let empty: Vec<u8> = (0..2_000).flat_map(|_| frame(DATA, 0, 1, b"")).collect();
    let crumbs: Vec<u8> = (0..2_000).flat_map(|_| frame(DATA, 0, 1, b"\x00")).collect();
    let begun = frame(HEADERS, END_HEADERS, 1, &call_headers());
    let half = frame(HEADERS, 0, 1, &call_headers());
    // Of calls that are reset, most were not looked at yet.
    for (what, bytes) in [
        ("resets", [&hello()[..], &resets].concat()),
        ("headers without an end", [&hello()[..], &half, &continued].concat()),
        ("data without data", [&hello()[..], &begun, &empty].concat()),
        ("data in crumbs", [&hello()[..], &begun, &crumbs].concat()),
    ] {
        let before = world.limit("flood");
        assert_eq!(told(&world, &bytes).await, CALM, "{what}");
        world.until(|world| world.limit("flood") == before + 1).await;
    }
    other.export(LOGS, &logs(&["still"])).await.ok();
    assert_eq!(world.recorder.payloads().len(), 1);
}

#[tokio::test]
async fn who_resets_more_than_it_lets_be_answered_is_sent_away() {
    let world = World::new();
    let mut client = world.connect().await;
    client.export(LOGS, &logs(&["a"])).await.ok();
    let mut number = 0;
    // One by one, each looked at before it is reset, so that no burst gives it away.
    while world.limit("resets") == 0 {
        let Ok(mut requests) = client.requests.clone().ready().await else { break };
        let request = Request::builder().method("POST").uri(format!("http://agent{LOGS}"));
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let Ok((_, mut body)) = requests.send_request(request, false) else { break };
        body.send_data(Bytes::from_static(b"\x00"), false).ok();
        tokio::task::yield_now().await;
        body.send_reset(h2::Reason::CANCEL);
        number += 1;
        world.until(|world| world.answered("CANCELLED") >= number || world.limit("resets") > 0).await;
        assert!(number < 2 * RESETS_MAX, "it was not sent away");
    }
    assert_eq!((world.limit("resets"), world.limit("flood")), (1, 0));
    assert!(world.answered("CANCELLED") > RESETS_MAX);
    world.connect().await.export(LOGS, &logs(&["b"])).await.ok();
}

#[tokio::test]
async fn calls_beyond_all_that_may_be_come_again_later() {
    let world = World::new();
    let mut client = world.connect().await;
    let places: Vec<_> = (0..CALLS_MAX).map(|_| world.calls.place().unwrap()).collect();
    let answer = client.export(LOGS, &logs(&["a"])).await;
    assert_eq!((answer.failed(), answer.may_come_again(), world.limit("calls")), (14, true, 1));
    drop(places);
    client.export(LOGS, &logs(&["a"])).await.ok();
}
