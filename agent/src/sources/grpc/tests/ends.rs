//! Clients that are slow or gone, deadlines, and the stop. Time is paused: it goes on when nobody has anything to do.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::super::limits::{IDLE_TIMEOUT, PING_EVERY, PONG_TIMEOUT};
use super::*;
use crate::sources::http::limits::BODY_IDLE_TIMEOUT;

#[tokio::test(start_paused = true)]
async fn a_message_that_does_not_come_is_given_up() {
    let world = World::new();
    let mut client = world.connect().await;
    let good = framed(0, &logs(&["a"]));
    for sent in [&good[..0], &good[..3], &good[..good.len() - 1], &good] {
        let (before, begun) = (world.limit("body_idle_time"), Instant::now());
        let (answer, mut body) = client.begin(LOGS, &USUAL).await;
        body.send_data(Bytes::copy_from_slice(sent), false).unwrap();
        let answer = Answer::read(answer.await.unwrap()).await;
        assert_eq!((answer.failed(), world.limit("body_idle_time")), (4, before + 1), "{sent:?}: {answer:?}");
        assert!(begun.elapsed() >= BODY_IDLE_TIMEOUT);
    }
    assert!(world.recorder.payloads().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_reading_and_not_the_keeping() {
    let world = World::new();
    let mut client = world.connect().await;
    let headers = [USUAL[0], ("grpc-timeout", "200m")];
    let begun = Instant::now();
    let (answer, _body) = client.begin(LOGS, &headers).await;
    let answer = Answer::read(answer.await.unwrap()).await;
    assert_eq!((answer.failed(), world.limit("deadline")), (4, 1), "{answer:?}");
    assert!((200..300).contains(&begun.elapsed().as_millis()));
    // What is with the intake is waited for, and told to whoever is still there.
    world.recorder.close_gate();
    let (answer, mut body) = client.begin(LOGS, &headers).await;
    body.send_data(Bytes::from(framed(0, &logs(&["a"]))), true).unwrap();
    testing::time_goes_by(Duration::from_secs(1)).await;
    world.recorder.gate.add_permits(1);
    Answer::read(answer.await.unwrap()).await.ok();
    assert_eq!(world.recorder.payloads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_intake_has_is_kept_although_the_client_is_gone() {
    let world = World::new();
    let mut client = world.connect().await;
    world.recorder.close_gate();
    let (answer, mut body) = client.begin(LOGS, &USUAL).await;
    body.send_data(Bytes::from(framed(0, &logs(&["a"]))), true).unwrap();
    // All that can be done is done.
    testing::time_goes_by(Duration::from_secs(1)).await;
    drop(answer);
    body.send_reset(h2::Reason::CANCEL);
    testing::time_goes_by(Duration::from_secs(1)).await;
    world.recorder.gate.add_permits(1);
    world.until(|world| world.answered("CANCELLED") == 1).await;
    assert_eq!((world.recorder.payloads().len(), world.stats.of_http().accepted_events()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_is_told_to_go() {
    let world = World::new();
    let (client, begun) = (world.connect().await, Instant::now());
    // It answers pings, and so goes on until it has rested for too long.
    testing::time_goes_by(IDLE_TIMEOUT + PING_EVERY).await;
    assert_eq!((world.limit("idle_time"), world.limit("ping")), (1, 0));
    assert!(begun.elapsed() >= IDLE_TIMEOUT);
    assert!(client.requests.clone().ready().await.is_err(), "it is closed");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_a_ping_is_gone() {
    let world = World::new();
    let mut stream = world.pipe();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let (mut heard, begun) = (Vec::new(), Instant::now());
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!((world.limit("ping"), begun.elapsed()), (1, PING_EVERY + PONG_TIMEOUT));
    // Who says nothing at all has less time.
    let mut stream = world.pipe();
    let begun = Instant::now();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!((world.limit("handshake"), begun.elapsed()), (1, Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_calls_under_way_are_answered_and_no_others_begin() {
    let world = World::new();
    let [mut client, resting] = [world.connect().await, world.connect().await];
    world.recorder.close_gate();
    let (answer, mut body) = client.begin(LOGS, &USUAL).await;
    body.send_data(Bytes::from(framed(0, &logs(&["a"]))), true).unwrap();
    testing::time_goes_by(Duration::from_millis(10)).await;
    let stopped = world.supervisor.stop(Instant::now() + Duration::from_secs(5));
    let rest = async {
        testing::time_goes_by(Duration::from_secs(2)).await;
        assert!(resting.requests.clone().ready().await.is_err(), "what rests is closed");
        assert!(client.requests.clone().ready().await.is_err(), "new calls go elsewhere");
        world.recorder.gate.add_permits(1);
        Answer::read(answer.await.unwrap()).await.ok();
    };
    let (is_whole, ()) = tokio::join!(stopped, rest);
    assert!(is_whole);
    assert_eq!(world.recorder.payloads().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_who_does_not_listen() {
    let world = World::new();
    let mut stream = world.pipe();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let silent = world.pipe();
    testing::time_goes_by(Duration::from_millis(10)).await;
    let begun = Instant::now();
    assert!(world.supervisor.stop(Instant::now() + Duration::from_secs(5)).await);
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    drop((stream, silent));
}
