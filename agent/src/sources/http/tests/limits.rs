//! Bombs, floods and slow senders: each costs little, is told so, and is counted.

use std::io::Write;

use serde_json::json;
use spillway_delivery::event::Arenas;

use super::super::body::{ReadError, read};
use super::super::decode::{Coding, DecodeError, Decoder, Step};
use super::super::limits::{BODIES_BYTES_MAX, BODY_BYTES_MAX, Limit, MEMBERS_MAX};
use super::*;
use crate::sources::pushed::budget::Budget;

/// One gigabyte of zeros, packed: 16 members of 64 MiB, so that making it is quick.
fn bomb(coding: &str) -> Vec<u8> {
    let chunk = vec![0; 1 << 20];
    let member = if coding == "gzip" {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        (0..64).for_each(|_| encoder.write_all(&chunk).unwrap());
        encoder.finish().unwrap()
    } else {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        (0..64).for_each(|_| encoder.write_all(&chunk).unwrap());
        encoder.finish().unwrap()
    };
    member.repeat(16)
}

#[tokio::test]
async fn a_gigabyte_of_zeros_is_refused_after_little_of_it() {
    for coding in ["gzip", "zstd"] {
        let server = Server::start().await;
        let bomb = bomb(coding);
        let answer = server.post(&format!("content-encoding: {coding}\r\n"), &bomb).await;
        assert_eq!(answer.status, 413, "{coding} {answer:?}");
        assert!(["ratio", "body_bytes"].contains(&answer.code().as_str()));
        assert!(server.stats.wire_bytes() <= 128 << 10, "{coding}: {} bytes read", server.stats.wire_bytes());
        assert_eq!(server.limit("ratio") + server.limit("body_bytes"), 1);
    }
}

#[tokio::test]
async fn a_body_may_be_as_long_as_a_batch_and_not_longer() {
    let server = Server::start().await;
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(1015));
    assert_eq!(line.len(), 1024);
    let mut most = line.repeat((BODY_BYTES_MAX + 1) / 1024);
    most.pop();
    assert_eq!(most.len(), BODY_BYTES_MAX);
    // Lines this regular are packed too well; a body of the greatest size needs to be less regular.
    let body = scrambled(&most);
    for (coding, encode) in [("identity", <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>), ("gzip", gzip), ("zstd", zstd)] {
        let headers = format!("content-encoding: {coding}\r\n");
        assert_eq!(server.post(&headers, &encode(body.as_bytes())).await.status, 202, "{coding}");
        assert_eq!(server.recorder.take()[0].1.payload.len(), BODY_BYTES_MAX + 1);
        let answer = server.post(&headers, &encode(format!("{body} ").as_bytes())).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_bytes"), "{coding}");
        assert_eq!(answer.json()["limit"], json!(BODY_BYTES_MAX));
    }
}

/// Replaces some `x` by digits of a weak generator, so that the text packs less well.
fn scrambled(text: &str) -> String {
    let mut state = 1_u32;
    text.chars()
        .map(|letter| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if letter == 'x' && state >> 30 == 0 { char::from(b'0' + (state >> 24) as u8 % 10) } else { letter }
        })
        .collect()
}

#[tokio::test]
async fn a_line_of_100_mb_is_refused_unread() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n{\"a\":\"")
        .await
        .unwrap();
    let answer = Answer::read(&mut stream).await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (413, "wire_bytes"));
    assert_eq!(server.stats.wire_bytes(), 0);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(1526);
    let head = "POST /v1/events HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = server.send(format!("{head}{chunk}0\r\n\r\n").as_bytes()).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_bytes"));
    assert!(server.stats.wire_bytes() <= (16 << 20) + (64 << 10));
}

#[tokio::test]
async fn headers_that_are_too_long_are_refused_and_counted() {
    let server = Server::start().await;
    let one_long = format!("POST /v1/events HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    let many = format!("POST /v1/events HTTP/1.1\r\nhost: a\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    let endless = format!("POST /v1/events HTTP/1.1\r\n{}", "a: b\r\n".repeat(100_000));
    for flood in [one_long, many, endless] {
        assert_eq!(server.send(flood.as_bytes()).await.status, 431);
    }
    assert!(server.limit("header_bytes") >= 1, "{}", server.limit("header_bytes"));
    assert_eq!(server.post("", b"{}").await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn half_a_request_is_ended_by_time_and_counted() {
    let server = Server::start().await;
    for (half, limit, status) in [
        ("", "idle_time", None),
        ("POST /v1/ev", "header_time", None),
        ("POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{\"a\"", "body_idle_time", Some(408)),
    ] {
        let mut stream = server.connect().await;
        stream.write_all(half.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream).await;
        assert_eq!(answer.as_ref().map(|answer| answer.status), status, "{half:?}");
        if let Some(answer) = answer {
            assert_eq!(answer.code(), limit);
        }
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "the connection is closed");
        assert_eq!(server.limit(limit), 1, "{half:?}");
    }
    assert!(server.recorder.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn headers_and_bodies_that_drip_are_ended_by_time() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let dripping = drip(&mut stream, b"POST /v1/events HTTP/1.1\r\nhost: a\r\n", 2).await;
    assert!(dripping.is_none(), "{dripping:?}");
    assert_eq!(server.limit("header_time"), 1);
    let mut stream = server.connect().await;
    stream.write_all(b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n").await.unwrap();
    let answer = drip(&mut stream, &[b' '; 100], 20).await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (408, "body_time"));
}

/// Sends one byte every `secs` until an answer or the end comes.
async fn drip(stream: &mut TcpStream, bytes: &[u8], secs: u64) -> Option<Answer> {
    let (mut reader, mut writer) = stream.split();
    let dripping = async {
        for byte in bytes {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_secs(secs)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        answer = Answer::read(&mut reader) => answer,
        () = dripping => None,
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_share_one_budget_and_those_without_room_are_told_to_come_again() {
    let budget = Budget::new(BODIES_BYTES_MAX, BODIES_BYTES_MAX);
    let stats = HttpStats::default();
    let mut others = budget.lease(None);
    others.grow(BODIES_BYTES_MAX - 1000).await.unwrap();
    let body = || axum::body::Body::from(vec![b' '; 2000]);
    let refused = read(body(), Coding::Identity, (budget.lease(None), &Arenas::default()), &stats).await.unwrap_err();
    assert_eq!(refused, ReadError::Limit(Limit::BodiesBytes));
    drop(others);
    let kept = read(body(), Coding::Identity, (budget.lease(None), &Arenas::default()), &stats).await.unwrap();
    assert_eq!(kept.bytes.len(), 2000);
    assert!(kept.bytes.capacity() > 2000, "the line break needs no new memory");
    assert!(budget.lease(None).grow(BODIES_BYTES_MAX).await.is_err(), "held with the body");
    drop(kept);
    budget.lease(None).grow(BODIES_BYTES_MAX).await.unwrap();
}

/// Decodes in pieces of `piece` bytes into rooms of `room` bytes.
fn decode(coding: Coding, wire: &[u8], piece: usize, room: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(coding)?.unwrap();
    let mut out = Vec::new();
    for mut input in wire.chunks(piece) {
        loop {
            let mut space = vec![0; room];
            let (written, step) = decoder.step(&mut input, &mut space)?;
            out.extend_from_slice(&space[..written]);
            if step == Step::Input {
                assert!(input.is_empty());
                break;
            }
        }
    }
    decoder.finish().map(|()| out)
}

#[test]
fn decoders_do_not_care_where_the_pieces_end() {
    let text = scrambled(&"{\"a\":\"xxxxxxxxxxxxxxxxxxxxxxxx\"}\n".repeat(300));
    let (one, two) = text.as_bytes().split_at(4_000);
    for (coding, wire) in [
        (Coding::Gzip, [gzip(one), gzip(b""), gzip(two)].concat()),
        (Coding::Zstd, [zstd(one), zstd(b""), zstd(two)].concat()),
    ] {
        for (piece, room) in [(1, 1), (1, 4096), (7, 3), (4096, 1), (100_000, 100_000)] {
            let decoded = decode(coding, &wire, piece, room).unwrap();
            assert!(decoded == text.as_bytes(), "{coding:?} {piece} {room}");
        }
        for cut in 1..wire.len() {
            let whole = decode(coding, &wire[..cut], 64, 512).map(|decoded| decoded.len());
            assert!(whole.is_err() || whole == Ok(one.len()), "{coding:?} cut at {cut}");
        }
    }
}

#[test]
fn members_and_windows_are_bounded() {
    let members = gzip(b"").repeat(MEMBERS_MAX as usize);
    assert_eq!(decode(Coding::Gzip, &members, 4096, 64), Ok(Vec::new()));
    let too_many = [members, gzip(b"")].concat();
    assert_eq!(decode(Coding::Gzip, &too_many, 4096, 64), Err(DecodeError::Limit(Limit::Members)));
    let frames = zstd(b"").repeat(MEMBERS_MAX as usize + 1);
    assert_eq!(decode(Coding::Zstd, &frames, 4096, 64), Err(DecodeError::Limit(Limit::Members)));
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(24).unwrap();
    let chunk = vec![0; 1 << 18];
    // A frame whose content is not known when its header is written keeps the window it asks for.
    (0..64).for_each(|_| encoder.write_all(&chunk).unwrap());
    let wide = encoder.finish().unwrap();
    assert_eq!(decode(Coding::Zstd, &wide, 4096, 4096), Err(DecodeError::Limit(Limit::ZstdWindow)));
}
