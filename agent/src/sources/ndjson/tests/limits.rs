//! Floods and slow senders: each costs little, is told so, and is counted.

use std::time::Duration;

use super::super::limits::{
    BYTES_MAX, CONNECTIONS_MAX, KEYED_BATCH_BYTES_MAX, KEYED_BATCH_EVENTS_MAX, LINE_BYTES_MAX, OPEN_TIMEOUT,
};
use super::*;

const BATCHES: &str = "{\"spillway\":{\"answers\":\"batches\"}}\n";

#[tokio::test(start_paused = true)]
async fn who_rests_or_stays_in_the_midst_of_something_is_ended_by_time() {
    let world = World::new();
    for (sent, limit, seconds) in [
        ("", "idle_time", 3600),
        ("{}\n", "idle_time", 3600),
        ("{}\n{\"a\"", "open_idle_time", 30),
        (&format!("{BATCHES}{{}}\n"), "open_idle_time", 30),
        (&format!("{BATCHES}{{}}\n{{\"spillway\":{{\"end\":\"k\"}}}}\n"), "idle_time", 3600),
    ] {
        let before = world.limit(limit);
        let mut client = world.connect(1 << 16);
        client.write_all(sent.as_bytes()).await.unwrap();
        let begun = tokio::time::Instant::now();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), seconds, "{sent:?}");
        assert!(text.lines().last().unwrap().contains(&format!("\"code\":\"{limit}\"")), "{text}");
        assert_eq!(world.limit(limit), before + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_or_batch_that_drips_is_ended_by_time() {
    for head in ["{\"a\":\"", &format!("{BATCHES}{{}}\n")] {
        let world = World::new();
        let (mut reader, mut writer) = tokio::io::split(world.connect(1 << 16));
        writer.write_all(head.as_bytes()).await.unwrap();
        let begun = tokio::time::Instant::now();
        let dripping = async {
            let mut drops = tokio::time::interval(Duration::from_secs(20));
            while writer.write_all(if head.starts_with(BATCHES) { b"\n" } else { b"x" }).await.is_ok() {
                drops.tick().await;
            }
            std::future::pending::<()>().await;
        };
        let mut text = String::new();
        tokio::select! {
            read = reader.read_to_string(&mut text) => drop(read.unwrap()),
            () = dripping => {}
        }
        assert!(text.contains("\"code\":\"open_time\""), "{text}");
        assert!((OPEN_TIMEOUT..OPEN_TIMEOUT * 2).contains(&begun.elapsed()));
    }
}

#[tokio::test]
async fn a_batch_of_the_client_has_bounds() {
    let world = World::new();
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(1015));
    let bounds = [
        ("batch_bytes", line.repeat(KEYED_BATCH_BYTES_MAX / 1024 + 1)),
        ("batch_events", "{}\n".repeat(KEYED_BATCH_EVENTS_MAX + 1)),
    ];
    for (limit, lines) in bounds {
        let answers = world.send(format!("{BATCHES}{lines}").as_bytes()).await;
        assert_eq!(answers.last().unwrap()["code"], limit);
        assert_eq!(world.limit(limit), 1);
    }
    assert!(world.recorder.take().is_empty());
    let most = "{}\n".repeat(KEYED_BATCH_EVENTS_MAX);
    let answers = world.send(format!("{BATCHES}{most}{{\"spillway\":{{\"end\":\"k\"}}}}\n").as_bytes()).await;
    assert_eq!(answers[1]["accepted"], KEYED_BATCH_EVENTS_MAX);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_its_answers_is_ended() {
    let world = World::new();
    let mut client = world.connect(64);
    client.write_all(b"{\"spillway\":{\"answers\":\"lines\"}}\n").await.unwrap();
    while client.write_all(b"{}\n").await.is_ok() {}
    assert_eq!(world.limit("write_time"), 1);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_and_closed() {
    let world = World::new();
    let address = world.tcp(TlsFiles::default(), None).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    world.until(|world| world.figure(Figure::OpenConnections) == CONNECTIONS_MAX as u64).await;
    let mut text = String::new();
    TcpStream::connect(address).await.unwrap().read_to_string(&mut text).await.unwrap();
    assert!(text.contains("\"code\":\"connections\""), "{text}");
    assert_eq!(world.limit("connections"), 1);
    open.pop();
    world.until(|world| world.figure(Figure::OpenConnections) < CONNECTIONS_MAX as u64).await;
    let mut again = TcpStream::connect(address).await.unwrap();
    again.write_all(b"{}\n").await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_finds_all_memory_taken_is_not_read_from_and_goes_on_when_there_is_some() {
    let world = World::new();
    let mut others = world.shared.budget.lease(None);
    others.grow(BYTES_MAX - 1000).await.unwrap();
    let mut client = world.connect(1 << 16);
    client.write_all(b"{}\n").await.unwrap();
    world.until(|world| world.figure(Figure::WireBytes) == 3).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    world.until(|world| world.limit("bytes") > 0).await;
    assert_eq!(world.figure(Figure::AcceptedEvents), 0);
    drop(others);
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
    let mut others = world.shared.budget.lease(None);
    others.grow(BYTES_MAX - 1000).await.unwrap();
    // Half a line that cannot grow is not held for ever.
    let mut long = world.connect(1 << 21);
    long.write_all(&vec![b' '; LINE_BYTES_MAX]).await.unwrap();
    let mut text = String::new();
    long.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("\"code\":\"bytes\""), "{text}");
}

#[tokio::test]
async fn a_connection_is_a_small_task() {
    let world = World::new();
    let (_client, server) = UnixStream::pair().unwrap();
    let task = Connection::new(server, world.shared.clone(), world.supervisor.stopping()).run();
    assert!(size_of_val(&task) < 8192, "{}", size_of_val(&task));
}
