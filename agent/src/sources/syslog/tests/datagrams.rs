//! What comes in datagrams.

use std::net::UdpSocket;

use super::super::limits::{PENDING_BYTES, PENDING_EVENTS};
use super::*;

/// Returns a socket that sends to `address`.
fn sender(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    socket
}

#[tokio::test]
async fn a_datagram_is_a_message_whatever_is_in_it() {
    let world = World::new();
    let sender = sender(world.udp().await);
    let longest = [b"<13>".to_vec(), vec![b'x'; 65_503]].concat();
    for datagram in [&b"<13>a\nb\n"[..], b"", b"\n\0", b"12 <13>counted?", b"\xff", &longest] {
        sender.send(datagram).unwrap();
    }
    world.until(|world| world.figure(Figure::AcceptedEvents) == 4).await;
    let messages = world.messages();
    assert_eq!(messages[..3], ["a\nb", "12 <13>counted?", "\u{fffd}"]);
    assert_eq!(messages[3].len(), 65_503, "nothing of the longest is cut");
    assert_eq!((world.figure(Figure::Datagrams), world.malformed("priority")), (6, 2));
    assert_eq!(world.figure(Figure::WireBytes), 8 + 2 + 15 + 1 + 65_507);
    assert!(world.stop().await);
}

#[tokio::test]
async fn datagrams_gather_while_a_batch_is_being_kept_up_to_a_bound_and_the_kernel_tells_of_the_rest() {
    let world = World::new();
    world.recorder.close_gate();
    let sender = sender(world.udp().await);
    let datagram = [b"<13>".to_vec(), vec![b'x'; 60_000]].concat();
    let mut sent = 0_u64;
    let mut send = |times: u64| {
        (0..times).for_each(|_| assert!(sender.send(&datagram).is_ok()));
        sent += times;
        sent
    };
    // One batch is being kept, the next one fills.
    while world.limit("pending") == 0 {
        send(1);
        tokio::task::yield_now().await;
    }
    let read = world.figure(Figure::Datagrams);
    assert!((read as usize) * 60_000 < PENDING_BYTES + 5 * 60_000, "{read} datagrams of 60 KB");
    // Then nothing is read, until the kernel drops.
    let sent = send(2000);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.figure(Figure::Datagrams), read);
    world.recorder.gate.add_permits(1000);
    let seen = async || {
        while world.figure(Figure::AcceptedEvents) < world.figure(Figure::Datagrams) {
            tokio::task::yield_now().await;
        }
    };
    seen().await;
    assert!(world.stop().await);
    let (kept, dropped) = (world.figure(Figure::AcceptedEvents), world.figure(Figure::KernelDrops));
    assert!(dropped > 0);
    assert_eq!(kept + dropped, sent, "each is kept, or was dropped and counted");
    assert_eq!(world.figure(Figure::LostEvents), 0);
}

#[tokio::test]
async fn batches_of_datagrams_are_bounded_by_events_too() {
    let world = World::new();
    world.recorder.close_gate();
    let sender = sender(world.udp().await);
    while world.limit("pending") == 0 {
        sender.send(b"<13>").unwrap();
        tokio::task::yield_now().await;
    }
    world.recorder.gate.add_permits(1000);
    world.until(|world| world.figure(Figure::AcceptedEvents) > PENDING_EVENTS as u64).await;
    assert!(world.stop().await);
    let most = world.recorder.take().iter().map(|(_, kept)| kept.ends.len()).max();
    assert!(most <= Some(PENDING_EVENTS), "{most:?}");
}

#[tokio::test]
async fn a_stop_keeps_what_the_kernel_still_has() {
    let world = World::new();
    let sender = sender(world.udp().await);
    (0..100).for_each(|_| assert!(sender.send(b"<13>a").is_ok()));
    assert!(world.stop().await);
    assert_eq!(world.messages().len(), 100);
}

#[tokio::test]
async fn a_stop_while_the_pipeline_is_full_counts_what_is_lost_of_datagrams() {
    let world = World::new();
    (0..1000).for_each(|_| world.recorder.refuse(RefusalReason::Full));
    let sender = sender(world.udp().await);
    sender.send(b"<13>a").unwrap();
    world.until(|world| world.figure(Figure::WaitingSenders) == 1).await;
    sender.send(b"<13>b").unwrap();
    assert!(world.stop().await);
    assert_eq!((world.figure(Figure::LostEvents), world.figure(Figure::AcceptedEvents)), (2, 0));
    assert_eq!(world.refused("full"), 3, "the one that waited, and both that were lost");
}
