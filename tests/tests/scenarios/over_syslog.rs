//! Syslog to a real agent: a kill behind a close, a full log, a flood of datagrams, hostile bytes, listeners that must not start.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};

use serde_json::Value;
use spillway_tests::agent::{Agent, Place, message_of};
use spillway_tests::receiver::{Mode, Receiver};
use spillway_tests::servers::process::free_port;
use spillway_tests::{PATIENCE, output};

use crate::fixtures;

/// Returns lines of messages `first..first + count`.
fn messages(first: u64, count: u64) -> Vec<u8> {
    let pad = "x".repeat(200);
    let lines = (first..first + count).map(|id| format!("<13>1 - host app - - - e{id} {pad}\n"));
    lines.collect::<Vec<_>>().concat().into()
}

/// Returns which messages are in lines of output, in their order.
fn ids(lines: &[String]) -> Vec<String> {
    let id = |line: &String| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["message"].as_str().unwrap().split(' ').next().unwrap().to_owned()
    };
    lines.iter().map(id).collect()
}

fn place(flag: &str, manifests: &str) -> (Place, u16) {
    let port = free_port();
    (Place::new(manifests).flag(flag, &format!("127.0.0.1:{port}")), port)
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Closes this side, and waits until the agent has closed its own.
fn close(mut stream: TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0, "nothing is answered");
}

#[test]
fn what_was_sent_before_a_close_survives_a_kill_behind_it_at_disk_and_at_process() {
    for durability in ["Disk", "Process"] {
        let (place, port) = place("--syslog-tcp", &fixtures::to_files(durability));
        let mut sent = 0;
        for round in 0..5 {
            let agent = place.start();
            let mut stream = connect(port);
            let count = 1 + 997 * round;
            stream.write_all(&messages(sent, count)).unwrap();
            close(stream);
            agent.kill();
            sent += count;
        }
        let mut agent = place.start();
        agent.wait_until_delivered(sent);
        agent.stop();
        assert_eq!(ids(&output::lines_below(&place.path("out"))), fixtures::ids(0, sent), "each once, in order");
    }
}

#[test]
fn a_sender_waits_for_a_full_log_and_all_of_it_is_delivered_afterwards() {
    let receiver = Receiver::start();
    receiver.mode(Mode::Refuse(503));
    let spec = fixtures::http_spec(&receiver.url);
    let manifests = spillway_tests::manifests::jobs(&[("api", &spec)])
        .replace("  routes:", "  buffer: {maxBytes: 33554432}\n  routes:");
    let (place, port) = place("--syslog-tcp", &manifests);
    let mut agent = place.start();
    let mut stream = connect(port);
    // 80 MB into a log of 32.
    let count = 200_000;
    let writing = std::thread::spawn(move || {
        (0..count / 1000).for_each(|piece| stream.write_all(&messages(piece * 1000, 1000)).unwrap());
        close(stream);
    });
    fixtures::hold_up(&mut agent, &receiver, writing, "spillway_syslog_waiting_senders{listener=\"tcp\"}", count);
    assert!(agent.metrics().contains("spillway_syslog_lost_events_total{listener=\"tcp\"} 0"));
    agent.stop();
    let mut found = ids(&receiver.lines());
    found.sort_by_key(|id| id[1..].parse::<u64>().unwrap());
    assert_eq!(found, fixtures::ids(0, count));
}

/// Returns a figure of the agent.
fn figure(agent: &Agent, name: &str) -> u64 {
    let metrics = agent.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("{listener=\"udp\"} "));
    assert!(line.is_some(), "no {name} in {metrics}");
    line.unwrap().parse().unwrap()
}

#[test]
fn every_datagram_of_a_flood_is_delivered_or_counted_as_dropped() {
    let (place, port) = place("--syslog-udp", &fixtures::to_files("Disk"));
    let mut agent = place.start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let count = 300_000;
    let pad = "x".repeat(200);
    for id in 0..count {
        socket.send(format!("<13>1 - host app - - - e{id} {pad}").as_bytes()).unwrap();
    }
    let counts = |agent: &Agent| {
        [figure(agent, "spillway_syslog_accepted_events_total"), figure(agent, "spillway_syslog_kernel_drops_total")]
    };
    agent.eventually(
        || "every datagram accounted for".into(),
        |agent| (counts(agent).iter().sum::<u64>() == count).then_some(()),
    );
    let [accepted, dropped] = counts(&agent);
    println!("{accepted} of {count} datagrams accepted, {dropped} dropped by the kernel");
    agent.wait_until_delivered(accepted);
    agent.stop();
    let found = ids(&output::lines_below(&place.path("out")));
    assert_eq!(found.len() as u64, accepted);
    assert!(found.is_sorted_by_key(|id| id[1..].parse::<u64>().unwrap()), "in the order they were sent");
}

#[test]
fn hostile_bytes_become_events_and_cost_little() {
    let (place, port) = place("--syslog-tcp", &fixtures::to_files("Disk"));
    let mut agent = place.start();
    let peak = agent.begin_peak();
    let mut stream = connect(port);
    // The first is counted: behind a line there are no counts, and none that lies.
    stream.write_all(b"22 <13>1 - - - - - - goodno priority\0\xff\n16777216 <13>lies ").unwrap();
    stream.write_all(&vec![b'x'; 100 << 20]).unwrap();
    stream.write_all(b"\n<13>1 - - - - - [a b=\"\n<13>last").unwrap();
    close(stream);
    let grown = peak.grown_bytes();
    println!("{grown} bytes");
    assert!(grown < 32 << 20, "{grown} bytes");
    agent.wait_until_delivered(6);
    let metrics = agent.metrics();
    for (reason, events) in [("priority", 2), ("too_long", 2), ("structured_data", 1), ("invalid_utf8", 1), ("half", 0)]
    {
        let line = format!("spillway_syslog_malformed_events_total{{listener=\"tcp\",reason=\"{reason}\"}} {events}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    agent.stop();
    let lines = output::lines_below(&place.path("out"));
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let malformed: Vec<_> = events.iter().map(|event| event["malformed"].as_str().unwrap_or_default()).collect();
    assert_eq!(malformed, ["", "priority", "too_long", "too_long", "structured_data", ""]);
    assert_eq!(events[5]["message"], "last");
}

#[test]
fn what_proves_nobody_does_not_start_beyond_loopback() {
    for (flag, part) in [
        ("--syslog-tcp", "is not a loopback address"),
        ("--syslog-udp", "is not a loopback address"),
        ("--syslog-tls", "needs --tls-cert, --tls-key and --tls-client-ca, --tls-cert is missing"),
    ] {
        let place = Place::new(&fixtures::to_files("Disk")).flag(flag, "0.0.0.0:0");
        let (status, log) = Agent::spawn(place.command()).wait_and_read();
        assert_eq!(status.code(), Some(1), "{flag}");
        let text = log.iter().map(message_of).collect::<Vec<_>>().join("\n");
        assert!(text.contains("error[insecure-listener]") && text.contains(part), "{flag}: {text}");
    }
}
