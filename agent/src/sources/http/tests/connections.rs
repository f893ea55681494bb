//! Many connections, pipelined requests, clients that go away, and the stop.

use std::time::Duration;

use super::super::limits::CONNECTIONS_MAX;
use super::*;
use tokio::time::Instant;

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let mut bytes = Vec::new();
    for number in 0..50 {
        bytes.extend(request("/v1/events", "", format!("{{\"n\":{number}}}").as_bytes()));
        bytes.extend(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    stream.write_all(&bytes).await.unwrap();
    for _ in 0..50 {
        assert_eq!(Answer::read(&mut stream).await.unwrap().status, 202);
        assert_eq!(Answer::read(&mut stream).await.unwrap().status, 405);
    }
    let numbers: Vec<_> = (0..50).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    assert_eq!(server.recorder.payloads(), numbers);
    assert_eq!(server.stats.connections(), 1);
}

#[tokio::test]
async fn a_client_that_waits_for_continue_is_told_to_go_on_or_why_not() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let head = "POST /v1/events HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n";
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 100);
    stream.write_all(b"{}").await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 202);
    let mut stream = server.connect().await;
    stream.write_all(format!("{head}content-encoding: br\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 415);
}

#[tokio::test]
async fn a_client_that_closes_its_half_still_gets_the_answer() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream.write_all(&request("/v1/events", "", b"{}")).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 202);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_kept() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST /v1/events HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"a\":1}\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = Answer::read(&mut stream).await;
    assert!(answer.is_none_or(|answer| answer.status == 400));
    let mut stream = server.connect().await;
    stream.write_all(b"POST /v1/events HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").await.unwrap();
    let answer = Answer::read(&mut stream).await;
    assert!(answer.is_none_or(|answer| answer.status == 400));
    assert!(server.recorder.take().is_empty());
}

#[tokio::test]
async fn more_connections_than_allowed_are_told_so_and_the_rest_works() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX - 1 {
        idle.push(server.connect().await);
    }
    assert_eq!(server.post("", b"{}").await.status, 202, "beside 1,023 idle ones");
    idle.push(server.connect().await);
    let answer = loop {
        // The place of the last client is free once the source has seen it go.
        let mut stream = server.connect().await;
        stream.write_all(&request("/v1/events", "", b"{}")).await.unwrap();
        match Answer::read(&mut stream).await.unwrap() {
            answer if answer.status == 202 => idle.push(stream),
            answer => break answer,
        }
    };
    assert_eq!((answer.status, answer.code().as_str()), (503, "connections"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(server.limit("connections") >= 1);
    assert_eq!(server.stats.connections_open(), CONNECTIONS_MAX as u64);
}

#[tokio::test]
async fn the_stop_answers_what_is_under_way_and_closes_what_rests() {
    let server = Server::start().await;
    let mut rests = server.connect().await;
    let mut used = server.connect().await;
    used.write_all(&request("/v1/events", "", b"{}")).await.unwrap();
    assert_eq!(Answer::read(&mut used).await.unwrap().status, 202);
    server.recorder.close_gate();
    let mut under_way = server.connect().await;
    under_way.write_all(&request("/v1/events", "", b"{\"last\":1}")).await.unwrap();
    let mut uploading = server.connect().await;
    let whole = request("/v1/events", "", b"{\"slow\":1}");
    uploading.write_all(&whole[..whole.len() - 3]).await.unwrap();
    while server.stats.wire_bytes() < 2 + 10 + 7 {
        tokio::task::yield_now().await;
    }
    let supervisor = server.supervisor.clone();
    let stopping = async move { supervisor.stop(Instant::now() + Duration::from_secs(30)).await };
    let client = async {
        assert_eq!(rests.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(used.read(&mut [0; 1]).await.unwrap(), 0);
        assert!(TcpStream::connect(server.address).await.is_err(), "nothing listens any more");
        uploading.write_all(&whole[whole.len() - 3..]).await.unwrap();
        server.recorder.gate.add_permits(2);
        for stream in [&mut under_way, &mut uploading] {
            let answer = Answer::read(stream).await.unwrap();
            assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
        }
    };
    let (ended, ()) = tokio::join!(stopping, client);
    assert!(ended, "all tasks ended by themselves");
    assert_eq!(server.stats.connections_open(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_stop_does_not_wait_long_for_half_a_request() {
    let server = Server::start().await;
    let mut half = server.connect().await;
    half.write_all(b"POST /v1/ev").await.unwrap();
    while server.stats.connections_open() == 0 {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    assert!(server.supervisor.stop(begun + Duration::from_secs(30)).await);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
