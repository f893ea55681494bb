//! How connections end: by the client, in the midst of a line, by a stop.

use super::*;

#[tokio::test]
async fn half_a_line_at_the_end_is_told_and_at_a_break_is_counted() {
    let world = World::new();
    let answers = world.send(b"{\"spillway\":{\"answers\":\"lines\"}}\n{\"a\":1}\n{\"b\":").await;
    let last = answers.last().unwrap();
    assert_eq!((&last["line"], &last["errors"][0]["line"]), (&json!(3), &json!(3)), "{answers:?}");
    assert_eq!(world.recorder.payloads().concat(), "{\"a\":1}\n");
    assert_eq!(world.figure(Figure::CutLines), 0);
    let address = world.tcp(TlsFiles::default(), None).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"{\"a\":2}\n{\"b\":").await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 2).await;
    // A reset in place of an end.
    client.set_zero_linger().unwrap();
    drop(client);
    while world.figure(Figure::CutLines) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.recorder.payloads(), ["{\"a\":2}\n"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_what_was_sent_before_and_says_so_to_who_reads() {
    let world = World::new();
    let mut reads = world.greeted(r#"{"spillway":{"answers":"lines"}}"#).await;
    let mut ends = world.greeted(r#"{"spillway":{"answers":"batches"}}"#).await;
    let mut plain = world.connect(1 << 16);
    ends.say("{\"c\":1}").await;
    plain.write_all(b"{\"b\":1}\n{\"b\":2}\n{\"b\":").await.unwrap();
    reads.say("{\"a\":1}").await;
    let stopped = world.supervisor.stop(tokio::time::Instant::now() + std::time::Duration::from_secs(5));
    let (stopped, ()) = tokio::join!(stopped, async {
        assert_eq!(reads.answer().await, json!({"line": 2, "accepted": 1}));
        let last = reads.answer().await;
        assert_eq!((&last["code"], &last["retryAfterSeconds"]), (&json!("stopping"), &json!(1)));
        assert_eq!(ends.answer().await["code"], "stopping");
        assert_eq!((reads.next().await, ends.next().await), (None, None));
        assert_eq!(plain.read(&mut [0; 9]).await.unwrap(), 0);
        drop((reads, ends, plain));
    });
    assert!(stopped);
    let mut kept = world.recorder.payloads();
    kept.sort();
    assert_eq!(kept.concat(), "{\"a\":1}\n{\"b\":1}\n{\"b\":2}\n", "a batch without its end is not kept");
    assert_eq!(world.figure(Figure::CutLines), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_who_writes_on_and_on() {
    let world = World::new();
    let stopping = async {
        world.until(|world| world.figure(Figure::AcceptedEvents) > 0).await;
        world.supervisor.stop(tokio::time::Instant::now() + std::time::Duration::from_secs(5)).await
    };
    let text = "{\"a\":1}\n".repeat(100);
    assert!(testing::written_to_at_a_stop(world.connect(4096), &text, stopping).await);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_pipeline_is_full_counts_what_is_lost() {
    let world = World::new();
    (0..1000).for_each(|_| world.recorder.refuse(RefusalReason::Full));
    let mut client = world.connect(1 << 16);
    client.write_all(b"{}\n{}\n{}\n").await.unwrap();
    world.until(|world| world.figure(Figure::WaitingConnections) == 1).await;
    let stopped = world.supervisor.stop(tokio::time::Instant::now() + std::time::Duration::from_secs(5));
    let mut text = String::new();
    let (stopped, _) = tokio::join!(stopped, client.read_to_string(&mut text));
    assert!(stopped);
    assert!(text.contains("\"code\":\"full\""), "{text}");
    assert_eq!((world.figure(Figure::LostEvents), world.figure(Figure::WaitingConnections)), (3, 0));
}
