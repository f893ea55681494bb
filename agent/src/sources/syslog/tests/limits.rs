//! Floods and slow senders: each costs little, and is counted.

use super::super::limits::{BATCHES_BYTES_MAX, CONNECTIONS_MAX, LONG_BYTES_MAX, OPEN_TIMEOUT, READ_BYTES};
use super::*;

#[tokio::test(start_paused = true)]
async fn who_rests_or_stays_in_the_midst_of_a_message_is_ended_by_time() {
    let world = World::new();
    for (sent, limit, seconds, kept) in [
        (&b""[..], "first_time", 300, &[][..]),
        (b"<13>a\n", "idle_time", 86_400, &["a"]),
        (b"<13>a\n<13>b", "open_idle_time", 30, &["a", "b"]),
        (b"50 <13>b", "open_idle_time", 30, &["b"]),
        (b"50", "open_idle_time", 30, &["50"]),
    ] {
        let mut client = world.connect(1 << 16);
        client.write_all(sent).await.unwrap();
        let (begun, before) = (Instant::now(), world.limit(limit));
        assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
        assert_eq!(begun.elapsed().as_secs(), seconds, "{}", String::from_utf8_lossy(sent));
        assert_eq!(world.limit(limit), before + 1);
        assert_eq!(world.messages(), kept);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_drips_is_ended_by_time_and_what_came_of_it_is_kept() {
    for head in [&b"<13>"[..], b"1000000 <13>"] {
        let world = World::new();
        let (mut reader, mut writer) = tokio::io::split(world.connect(1 << 16));
        writer.write_all(head).await.unwrap();
        let (begun, mut byte) = (Instant::now(), [0]);
        let dripping = async {
            testing::write_on(&mut writer, b"x", Duration::from_secs(20)).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            read = reader.read(&mut byte) => assert_eq!(read.unwrap(), 0),
            () = dripping => {}
        }
        assert!((OPEN_TIMEOUT..OPEN_TIMEOUT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(world.limit("open_time"), 1);
        assert!(world.messages()[0].starts_with("xxxxx"));
    }
}

#[tokio::test]
async fn a_line_of_100_mb_is_one_event_and_costs_no_memory() {
    let world = World::new();
    let mut client = world.connect(1 << 16);
    client.write_all(b"<13>a\n<13>").await.unwrap();
    let piece = vec![b'x'; 1 << 16];
    let mut most = 0;
    for _ in 0..1600 {
        client.write_all(&piece).await.unwrap();
        most = most.max(LONG_BYTES_MAX - world.shared.long.free_bytes());
    }
    client.write_all(b"\n<13>b\n").await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 3).await;
    let events = world.events();
    assert_eq!(events[1]["cut_bytes"], (100 << 20) + 4 - decode::MESSAGE_BYTES_MAX);
    assert_eq!(events[2]["message"], "b");
    assert!(most <= decode::MESSAGE_BYTES_MAX, "{most} bytes");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_and_loses_nothing() {
    let world = World::new();
    let address = world.tcp().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        open.push(TcpStream::connect(address).await.unwrap());
    }
    world.until(|world| world.figure(Figure::OpenConnections) == CONNECTIONS_MAX as u64).await;
    let mut one_more = TcpStream::connect(address).await.unwrap();
    one_more.write_all(b"<13>a\n").await.unwrap();
    one_more.shutdown().await.unwrap();
    world.until(|world| world.limit("connections") == 1).await;
    assert_eq!(world.figure(Figure::AcceptedEvents), 0);
    open.pop();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
    assert_eq!(world.messages(), ["a"]);
}

#[tokio::test]
async fn what_the_system_let_in_before_a_stop_is_read_although_it_was_not_accepted() {
    let world = World::new();
    let address = world.tcp().await;
    let stopped = world.supervisor.stopping();
    // Nobody has a turn between these: the listener finds the stop first.
    let mut clients: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    clients.iter_mut().for_each(|client| std::io::Write::write_all(client, b"<13>a\n").unwrap());
    assert!(!stopped.is_cancelled());
    assert!(world.stop().await);
    assert_eq!((world.figure(Figure::AcceptedEvents), world.messages().len()), (20, 20));
}

#[tokio::test(start_paused = true)]
async fn who_finds_all_memory_taken_is_not_read_from_and_goes_on_when_there_is_some() {
    let world = World::new();
    let mut others = world.shared.batches.lease(None);
    others.grow(BATCHES_BYTES_MAX - 1000).await.unwrap();
    let mut client = world.connect(1 << 16);
    client.write_all(b"<13>a\n").await.unwrap();
    world.until(|world| world.figure(Figure::WireBytes) == 6).await;
    tokio::time::advance(Duration::from_secs(600)).await;
    world.until(|world| world.limit("bytes") > 0).await;
    assert_eq!(world.figure(Figure::AcceptedEvents), 0);
    drop(others);
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
    // A message longer than the buffer waits for its own.
    let mut others = world.shared.long.lease(None);
    others.grow(LONG_BYTES_MAX).await.unwrap();
    let before = world.limit("bytes");
    let text = format!("<13>{}\n", "x".repeat(READ_BYTES));
    client.write_all(text.as_bytes()).await.unwrap();
    world.until(|world| world.figure(Figure::WireBytes) == 6 + READ_BYTES as u64).await;
    for _ in 0..600 {
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    assert!(world.limit("bytes") > before + 30, "{:?}", world.stats);
    drop(others);
    world.until(|world| world.figure(Figure::AcceptedEvents) == 2).await;
    assert_eq!((world.malformed("half"), world.malformed("too_long")), (0, 0));
}
