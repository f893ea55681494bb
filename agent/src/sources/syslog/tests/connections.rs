//! What comes over connections, and how they end.

use spillway_crds::served::{PodFacts, Pods};
use tokio::sync::watch;

use super::*;
use crate::pods::{NodePods, Told};
use crate::sources::pushed::targets::Selection;

#[tokio::test]
async fn messages_framed_both_ways_are_in_the_log_when_a_sender_has_closed() {
    let world = World::new();
    let address = world.tcp().await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"7 <13>one7 <13>two<13>three\r\n\n15 <13>1 - h - - -12 <13>Nov 30 f\n").await.unwrap();
    client.write_all(b"9 <13>a\nb\nc\n<13>last").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0, "nothing is answered");
    let events = world.events();
    let messages: Vec<_> = events.iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["one", "two", "three", "<13>1 - h - - -", "Nov 30 f", "a\nb\nc", "last"]);
    assert!(events.iter().all(|event| event["peer"] == serde_json::json!({"address": "127.0.0.1"})));
    assert_eq!((world.figure(Figure::AcceptedEvents), world.malformed("header")), (7, 1));
    assert_eq!(world.figure(Figure::Connections), 1);
    world.until(|world| world.figure(Figure::OpenConnections) == 0).await;
}

#[tokio::test]
async fn counts_that_lie_lose_nothing() {
    let world = World::new();
    for (text, messages) in [
        // Too few, too many, none, huge, with a zero in front.
        (&b"6 <13>hello\n<13>next\n"[..], &["he", "llo", "next"][..]),
        (b"24 <13>hello\n<13>next\n<13>x\n", &["hello\n<13>next\n<13>x"]),
        (b"-5 <13>a\n<13>next\n", &["-5 <13>a", "next"]),
        (b"99999999999999999999 <13>a\n<13>next\n", &["99999999999999999999 <13>a", "next"]),
        (b"16777217 <13>a\n<13>next\n", &["16777217 <13>a", "next"]),
        (b"007 <13>a\n<13>next\n", &["007 <13>a", "next"]),
        (b"0 <13>a\n<13>next\n", &["0 <13>a", "next"]),
        // Half of one.
        (b"100 <13>half", &["half"]),
        (b"100", &["100"]),
        (b"\n\n\0\n \n", &[" "]),
    ] {
        world.send(text).await;
        assert_eq!(world.messages(), messages, "{}", String::from_utf8_lossy(text));
    }
    assert_eq!(world.malformed("half"), 1);
}

#[tokio::test]
async fn a_message_that_is_too_long_is_cut_counted_and_followed_by_the_next() {
    let world = World::new();
    let long = "x".repeat(decode::MESSAGE_BYTES_MAX + 100);
    for text in [format!("<13>{long}\n<13>next\n"), format!("{} <13>{long}9 <13>next\n", long.len() + 4)] {
        world.send(text.as_bytes()).await;
        let events = world.events();
        assert_eq!(events[0]["message"].as_str().unwrap().len(), decode::MESSAGE_BYTES_MAX - 4);
        assert_eq!((&events[0]["cut_bytes"], &events[0]["malformed"]), (&104.into(), &"too_long".into()));
        assert_eq!(events[1]["message"].as_str().unwrap().trim_end(), "next");
    }
    assert_eq!((world.malformed("too_long"), world.limit("message_bytes")), (2, 2));
}

#[tokio::test]
async fn half_a_message_of_a_broken_connection_is_kept_and_says_so() {
    let world = World::new();
    let address = world.tcp().await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"9 <13>whole50 <13>half").await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
    // A reset in place of an end.
    client.set_zero_linger().unwrap();
    drop(client);
    world.until(|world| world.figure(Figure::AcceptedEvents) == 2).await;
    let events = world.events();
    assert_eq!((&events[1]["message"], &events[1]["malformed"]), (&"half".into(), &"half".into()));
    assert_eq!(world.malformed("half"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_while_its_pipeline_is_full_and_nothing_is_lost_or_kept_twice() {
    let world = World::new();
    (0..120).for_each(|_| world.recorder.refuse(RefusalReason::Full));
    let mut client = world.connect(4096);
    let line = format!("<13>{}\n", "x".repeat(1019));
    client.write_all(line.as_bytes()).await.unwrap();
    world.until(|world| world.figure(Figure::WaitingSenders) == 1).await;
    // Two minutes of it, and the client is not read from: the pipe takes what it has room for.
    let begun = Instant::now();
    let text = line.repeat(1000);
    client.write_all(text.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 9]).await.unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_secs(100), "{:?}", begun.elapsed());
    assert_eq!(world.messages().len(), 1001);
    assert_eq!((world.figure(Figure::LostEvents), world.figure(Figure::WaitingSenders)), (0, 0));
    assert_eq!(world.refused("full"), 1, "a batch that waits counts once");
}

#[tokio::test]
async fn a_sender_is_not_read_from_while_a_batch_is_being_kept() {
    let world = World::new();
    world.recorder.close_gate();
    let mut client = world.connect(4096);
    let line = b"<13>0123456789\n";
    client.write_all(line).await.unwrap();
    world.until(|world| world.figure(Figure::WireBytes) == line.len() as u64).await;
    let written = testing::fill(&mut client, line).await;
    assert!(written <= 4096, "{written} bytes");
    assert_eq!(world.figure(Figure::WireBytes), line.len() as u64);
    world.recorder.gate.add_permits(1000);
    world.until(|world| world.figure(Figure::WireBytes) >= written as u64).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_pipeline_a_sender_waits_as_for_a_full_one() {
    let world = World::with(Recorder::new(&[]));
    let mut client = world.connect(4096);
    client.write_all(b"<13>a\n").await.unwrap();
    world.until(|world| world.figure(Figure::WaitingSenders) == 1).await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!((world.refused("no_pipeline"), world.figure(Figure::WaitingSenders)), (1, 1));
    assert_eq!(world.figure(Figure::LostEvents), 0);
    let (stopped, read) = tokio::join!(world.stop(), async { client.read(&mut [0; 9]).await.unwrap() });
    assert_eq!((stopped, read), (true, 0));
    assert_eq!((world.figure(Figure::LostEvents), world.refused("no_pipeline")), (1, 2), "only a stop gives up");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_cut_into_batches_by_bytes_and_by_events() {
    let world = World::new();
    let (mut client, server) = tokio::io::duplex(8 << 20);
    client.write_all(format!("<13>{}\n", "x".repeat(1000)).repeat(3000).as_bytes()).await.unwrap();
    client.write_all("<13>\n".repeat(20_000).as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let peer = Peer::new("127.0.0.1".parse().unwrap(), None);
    Connection::new(server, peer, world.shared.clone(), world.supervisor.stopping()).run().await;
    let kept = world.recorder.take();
    let sizes: Vec<(usize, usize)> = kept.iter().map(|(_, kept)| (kept.payload.len(), kept.ends.len())).collect();
    assert!(sizes.iter().all(|(bytes, events)| *bytes < (1 << 20) + 2048 && *events <= 8192), "{sizes:?}");
    assert!(sizes.len() < 12, "{sizes:?}");
    assert_eq!(sizes.iter().map(|(_, events)| events).sum::<usize>(), 23_000);
    assert_eq!(world.figure(Figure::Batches), sizes.len() as u64);
    assert!(kept.iter().all(|(selection, kept)| *selection == Selection::All && kept.key.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_what_was_sent_before_and_half_a_message() {
    let world = World::new();
    let mut client = world.connect(1 << 16);
    client.write_all(b"5 <13>a5 <13>b20 <13>ha").await.unwrap();
    let (stopped, read) = tokio::join!(world.stop(), async { client.read(&mut [0; 9]).await.unwrap() });
    assert_eq!((stopped, read), (true, 0));
    assert_eq!(world.messages(), ["a", "b", "ha"]);
    assert_eq!((world.malformed("half"), world.figure(Figure::LostEvents)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_who_writes_on_and_on() {
    let world = World::new();
    let stopping = async {
        world.until(|world| world.figure(Figure::AcceptedEvents) > 0).await;
        world.stop().await
    };
    let text = "<13>a\n".repeat(100);
    assert!(testing::written_to_at_a_stop(world.connect(4096), &text, stopping).await);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_pipeline_is_full_counts_what_is_lost() {
    let world = World::new();
    (0..1000).for_each(|_| world.recorder.refuse(RefusalReason::Full));
    let mut client = world.connect(1 << 16);
    client.write_all(b"<13>a\n<13>b\n<13>c\n").await.unwrap();
    world.until(|world| world.figure(Figure::WaitingSenders) == 1).await;
    let (stopped, read) = tokio::join!(world.stop(), async { client.read(&mut [0; 9]).await.unwrap() });
    assert_eq!((stopped, read), (true, 0));
    assert_eq!((world.figure(Figure::LostEvents), world.figure(Figure::WaitingSenders)), (3, 0));
}

#[tokio::test]
async fn what_is_no_syslog_ends_the_connection_and_is_counted() {
    let world = World::new();
    world.send(b"POST /x HTTP/1.1\r\nhost: a\r\n\r\n<13>a\n").await;
    world.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03<13>a\n").await;
    assert_eq!((world.refused("http"), world.refused("tls")), (1, 1));
    assert_eq!(world.figure(Figure::AcceptedEvents), 0);
    // Its first line need not be seen to its end.
    let long = format!("POST /{} HTTP/1.1\r\nhost: a\r\n\r\n<13>a\n", "x".repeat(200 << 10));
    world.send(long.as_bytes()).await;
    assert_eq!((world.refused("http"), world.figure(Figure::AcceptedEvents)), (2, 0));
    // Logs of HTTP servers end as requests do.
    world.send(b"<134>1 - - haproxy - - - \"GET /a HTTP/1.1\n").await;
    assert_eq!((world.refused("http"), world.messages()), (2, vec!["\"GET /a HTTP/1.1".to_owned()]));
    // What only looks like it later on is text.
    world.send(b"<13>a\nGET / HTTP/1.1\n\x16\x03\n").await;
    assert_eq!(world.messages(), ["a", "GET / HTTP/1.1", "\x16\x03"]);
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_takes_messages_as_those_of_its_pod_once_it_was_told_of_both() {
    let (pods, of_pods) = watch::channel(None);
    let (world, targets) = (World::new(), PushTargets::default());
    let own = OwnPod { pods: of_pods, node: Some("node-a".into()) };
    let parts = (Clock::manual(RECEIVED), world.stats.clone());
    let senders = Senders::OwnPod(own, targets.clone());
    let shared = Shared::new("tcp", Box::new(world.recorder.clone()), parts, senders);
    let world = World { shared: Arc::new(shared), ..world };
    let mut client = world.connect(1 << 16);
    client.write_all(b"<13>a\n").await.unwrap();
    world.until(|world| world.refused("starting") == 1).await;
    let pod = PodFacts { uid: "u1".into(), namespace: "fab12".into(), name: "etcher-0".into(), ..PodFacts::default() };
    let told = NodePods::new(Pods { hash: String::new(), pods: vec![Arc::new(pod)] });
    pods.send_replace(Some(Told { pods: Arc::new(told), confirmed: None }));
    tokio::time::advance(Duration::from_secs(2)).await;
    world.until(|world| world.figure(Figure::WaitingSenders) == 1).await;
    assert_eq!(world.figure(Figure::AcceptedEvents), 0, "nor of pipelines");
    targets.set_for_pods(Vec::new());
    tokio::time::advance(Duration::from_secs(2)).await;
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
}

#[tokio::test]
async fn a_connection_is_a_small_task() {
    let world = World::new();
    let (_client, server) = tokio::net::UnixStream::pair().unwrap();
    let peer = Peer::new("127.0.0.1".parse().unwrap(), None);
    let task = Connection::new(server, peer, world.shared.clone(), world.supervisor.stopping()).run();
    assert!(size_of_val(&task) < 8192, "{}", size_of_val(&task));
}
