//! Lines of senders that read no answers.

use spillway_crds::served::{PodFacts, Pods};
use tokio::sync::watch;

use super::*;
use crate::pods::{NodePods, Told};
use crate::sources::pushed::events;
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::targets::Pipelines;

#[tokio::test]
async fn lines_become_events_until_the_connection_ends_over_tcp_and_a_socket() {
    let text = b"{\"a\":1}\n\n  {\"b\":2}\r\n{\"_spillway\":0,\"c\":3}\n{\"d\":4}";
    let world = World::new();
    let address = world.tcp(TlsFiles::default(), None).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    start_unix(&path, Box::new(world.recorder.clone()), world.context()).await.unwrap();
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(text).await.unwrap();
    tcp.shutdown().await.unwrap();
    assert_eq!(tcp.read(&mut [0; 9]).await.unwrap(), 0, "nothing is answered");
    let mut unix = UnixStream::connect(&path).await.unwrap();
    unix.write_all(text).await.unwrap();
    unix.shutdown().await.unwrap();
    assert_eq!(unix.read(&mut [0; 9]).await.unwrap(), 0);
    let kept = world.recorder.payloads().concat();
    assert_eq!(kept, "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n{\"d\":4}\n".repeat(2));
    assert_eq!(world.figure(Figure::AcceptedEvents), 8);
    assert_eq!((world.figure(Figure::Connections), world.figure(Figure::WireBytes)), (2, 2 * text.len() as u64));
    world.until(|world| world.figure(Figure::OpenConnections) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_cut_into_batches_by_bytes_and_by_events() {
    let world = World::new();
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(1015));
    assert_eq!(line.len(), 1024);
    // What comes while a batch is kept is there as a whole once that is done.
    let (mut client, server) = tokio::io::duplex(8 << 20);
    client.write_all(line.repeat(3000).as_bytes()).await.unwrap();
    client.write_all("{}\n".repeat(20_000).as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    Connection::new(server, world.shared.clone(), world.supervisor.stopping()).run().await;
    let sizes: Vec<(usize, usize)> =
        world.recorder.take().iter().map(|(_, kept)| (kept.payload.len(), kept.ends.len())).collect();
    assert_eq!(sizes[..2], [(1 << 20, 1024), (1 << 20, 1024)]);
    assert!(sizes.iter().all(|(bytes, events)| *bytes <= 1 << 20 && *events <= 8192), "{sizes:?}");
    assert_eq!(sizes.iter().map(|(_, events)| events).sum::<usize>(), 23_000);
    assert_eq!(world.figure(Figure::Batches), sizes.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_line_after_which_nothing_comes_is_kept_at_once_and_one_that_fills_the_buffer_by_time() {
    let world = World::new();
    let mut client = world.connect(1 << 20);
    client.write_all(b"{}\n").await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
    // As long as the read buffer: something may be left.
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(super::super::limits::READ_BYTES - 9));
    client.write_all(line.as_bytes()).await.unwrap();
    let begun = tokio::time::Instant::now();
    while world.figure(Figure::AcceptedEvents) < 2 {
        tokio::time::advance(std::time::Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        assert!(begun.elapsed().as_millis() < 100);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_while_its_pipeline_is_full_and_nothing_is_lost_or_kept_twice() {
    let world = World::new();
    (0..120).for_each(|_| world.recorder.refuse(RefusalReason::Full));
    let mut client = world.connect(4096);
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(1015));
    client.write_all(line.as_bytes()).await.unwrap();
    world.until(|world| world.figure(Figure::WaitingConnections) == 1).await;
    // Two minutes of it, and the client is not read from: the pipe takes what it has room for.
    let text = line.repeat(1000);
    let writing = async {
        client.write_all(text.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        client.read(&mut [0; 9]).await.unwrap()
    };
    assert_eq!(writing.await, 0);
    assert_eq!(world.recorder.payloads().concat(), line.repeat(1001));
    assert_eq!((world.figure(Figure::LostEvents), world.figure(Figure::WaitingConnections)), (0, 0));
}

#[tokio::test]
async fn a_sender_is_not_read_from_while_a_batch_is_being_kept() {
    let world = World::new();
    world.recorder.close_gate();
    let mut client = world.connect(4096);
    let line = b"{\"a\":\"0123456789\"}\n";
    client.write_all(line).await.unwrap();
    world.until(|world| world.figure(Figure::WireBytes) == line.len() as u64).await;
    let written = testing::fill(&mut client, line).await;
    assert!(written <= 4096, "{written} bytes");
    assert_eq!(world.figure(Figure::WireBytes), line.len() as u64);
    world.recorder.gate.add_permits(1000);
    world.until(|world| world.figure(Figure::WireBytes) >= written as u64).await;
}

#[tokio::test(start_paused = true)]
async fn what_no_pipeline_takes_any_more_is_counted_as_lost() {
    let world = World::new();
    (0..30).for_each(|_| world.recorder.answer(SubmitError::KeyReused));
    let answers = world.send(b"{}\n{}\n").await;
    assert_eq!(answers[0]["code"], "key_reused");
    assert_eq!((world.figure(Figure::LostEvents), world.figure(Figure::AcceptedEvents)), (2, 0));
    let none = World::with(Recorder::new(&[]));
    let answers = none.send(b"{}\n").await;
    assert_eq!(answers[0]["code"], "no_pipeline");
    assert_eq!((none.refused("no_pipeline"), none.figure(Figure::LostEvents)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn lines_are_the_events_that_they_are_in_a_body_over_http() {
    const PIECES: [&[u8]; 16] = [
        b"{",
        b"}",
        b"\"a\"",
        b":",
        b"1",
        b",",
        b"\n",
        b"\r\n",
        b" ",
        b"[",
        b"]",
        b"\0",
        b"\xff",
        b"{\"_spillway\":{}}\n",
        b"{\"a\":\"b\"}\n",
        b"{\"a\":[{},2]} \n",
    ];
    let mut random = testing::Random::new(7);
    for round in 0..500 {
        let mut body = b"{\"first\":1}\n".to_vec();
        (0..random.place(60)).for_each(|_| body.extend_from_slice(PIECES[random.place(PIECES.len())]));
        let whole = events::parse(body.clone()).unwrap();
        let world = World::new();
        let (mut client, server) = tokio::io::duplex(1 + random.place(64));
        let served = Connection::new(server, world.shared.clone(), world.supervisor.stopping()).run();
        let sent = async {
            client.write_all(&body).await.unwrap();
            client.shutdown().await.unwrap();
        };
        tokio::join!(served, sent);
        let text = String::from_utf8_lossy(&body);
        assert_eq!(world.recorder.payloads().concat().as_bytes(), whole.payload, "round {round}: {text:?}");
        let refused: Vec<u64> = world.stats.kinds().map(|(_, count)| count).collect();
        assert_eq!(refused, whole.refusals.counts.map(|count| count as u64), "round {round}: {text:?}");
    }
}

#[tokio::test]
async fn a_sidecar_takes_lines_as_those_of_its_pod_once_it_was_told_of_both() {
    let (pods, of_pods) = watch::channel(None);
    let (world, targets) = (World::new(), PushTargets::default());
    let own = OwnPod { pods: of_pods, node: Some("node-a".into()) };
    let parts = (Clock::manual(RECEIVED), world.stats.clone());
    let door = Box::new(Pipelines::new(Intake, targets.clone()));
    let senders = Senders::OwnPod(None, own, targets.clone());
    let world = World { shared: Arc::new(Shared::new(Way::Unix, door, parts, senders)), ..world };
    let early = world.send(b"{}\n").await;
    assert_eq!((&early[0]["code"], &early[0]["retryAfterSeconds"]), (&json!("starting"), &json!(1)));
    let pod = PodFacts { uid: "u1".into(), namespace: "fab12".into(), name: "etcher-0".into(), ..PodFacts::default() };
    let told = NodePods::new(Pods { hash: String::new(), pods: vec![Arc::new(pod)] });
    pods.send_replace(Some(Told { pods: Arc::new(told), confirmed: None }));
    assert_eq!(world.send(b"{}\n").await[0]["code"], "starting", "nor of pipelines");
    targets.set_for_pods(Vec::new());
    assert_eq!(world.send(b"{}\n").await[0]["code"], "no_pipeline");
    let sender = world.shared.admit(None).unwrap();
    assert_eq!((&*sender.key, sender.pod.is_some()), (&b"u1"[..], true));
}
