//! A real rsyslog sends to the agent: over TCP with a kill of the agent in between, over TLS with a certificate, in datagrams.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spillway_tests::agent::{Agent, Place};
use spillway_tests::http::Client;
use spillway_tests::manifests::{EVENTS, to_archive};
use spillway_tests::output;
use spillway_tests::servers::process::free_port;
use spillway_tests::servers::rsyslog::Rsyslog;
use spillway_tests::servers::tls::Authority;

/// What a tool sends, of RFC 5424.
fn messages(numbers: std::ops::Range<u64>) -> impl Iterator<Item = String> {
    numbers.map(|number| {
        format!(
            "<165>1 2026-11-30T10:04:12.{:06}+01:00 etch-07 recipe {number} STEP [wafer@32473 lot=\"A\\]{number}\" \
             slot=\"3\"] step {number} of \"x\" \u{e4}",
            number % 1_000_000
        )
    })
}

/// Returns the events that came out, by the number of their message.
fn by_number(place: &Place) -> BTreeMap<u64, Vec<Value>> {
    let mut found = BTreeMap::<u64, Vec<Value>>::new();
    for line in output::lines_below(&place.path("out")) {
        let event: Value = serde_json::from_str(&line).unwrap();
        let message = event["message"].as_str().unwrap();
        let number = message.split(' ').nth(1).and_then(|number| number.parse().ok());
        assert!(number.is_some(), "{event}");
        found.entry(number.unwrap()).or_default().push(event);
    }
    found
}

/// Waits until so many events are there.
fn wait_for(agent: &mut Agent, rsyslog: &Rsyslog, events: u64) {
    agent.eventually(
        || format!("{events} events; {}", rsyslog.said()),
        |agent| {
            let status = agent.status();
            let accepted = status["pipelines"][0]["acceptedEvents"].as_u64();
            (accepted >= Some(events)).then_some(())
        },
    );
}

#[track_caller]
fn assert_whole(event: &Value, number: u64) {
    assert_eq!(event["message"], format!("step {number} of \"x\" \u{e4}"), "{event}");
    for (member, value) in [
        ("format", json!("rfc5424")),
        ("facility", json!("local4")),
        ("severity", json!("notice")),
        ("hostname", json!("etch-07")),
        ("app_name", json!("recipe")),
        ("proc_id", json!(number.to_string())),
        ("msg_id", json!("STEP")),
        ("structured_data", json!({"wafer@32473": {"lot": format!("A]{number}"), "slot": "3"}})),
        ("time", json!(format!("2026-11-30T09:04:12.{:06}000Z", number % 1_000_000))),
    ] {
        assert_eq!(event[member], value, "{member} of {event}");
    }
    assert!(event["malformed"].is_null());
    assert_eq!(event["_spillway"]["origin"]["source"], "syslog");
}

#[test]
fn rsyslog_over_tcp_keeps_what_comes_while_the_agent_is_killed_and_away() {
    let port = free_port();
    let place = Place::new(&to_archive(&[EVENTS])).flag("--syslog-tcp", &format!("127.0.0.1:{port}"));
    let forward = format!(
        "port=\"{port}\" protocol=\"tcp\" tcp_framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\""
    );
    let mut agent = place.start();
    let test = "syslog::rsyslog_over_tcp_keeps_what_comes";
    let Some(rsyslog) = Rsyslog::of_test(test, &place.path("rsyslog"), "", &forward) else { return };
    rsyslog.take(messages(0..2000));
    wait_for(&mut agent, &rsyslog, 2000);
    agent.kill();
    rsyslog.take(messages(2000..4000));
    let mut agent = place.start();
    rsyslog.take(messages(4000..5000));
    wait_for(&mut agent, &rsyslog, 5000);
    agent.wait_until_delivered(5000);
    agent.stop();
    let found = by_number(&place);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), (0..5000).collect::<Vec<_>>());
    for (number, events) in found {
        assert_eq!(events.len(), 1, "{events:?}");
        assert_whole(&events[0], number);
    }
}

#[test]
fn a_kill_under_load_loses_at_most_what_was_on_its_way_and_nothing_that_was_kept() {
    let port = free_port();
    let place = Place::new(&to_archive(&[EVENTS])).flag("--syslog-tcp", &format!("127.0.0.1:{port}"));
    let forward = format!(
        "port=\"{port}\" protocol=\"tcp\" tcp_framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\""
    );
    let mut agent = place.start();
    let test = "syslog::a_kill_under_load_loses_at_most";
    let Some(rsyslog) = Rsyslog::of_test(test, &place.path("rsyslog"), "", &forward) else { return };
    let total = 60_000;
    rsyslog.take(messages(0..total));
    wait_for(&mut agent, &rsyslog, 500);
    let kept = agent.status()["pipelines"][0]["acceptedEvents"].as_u64().unwrap();
    agent.kill();
    let mut agent = place.start();
    // The last ones are sent once the agent is there again, so that they come.
    rsyslog.take(messages(total..total + 100));
    let last = total + 99;
    agent.eventually(
        || format!("the last message; {}", rsyslog.said()),
        |_| {
            output::lines_below(&place.path("out"))
                .iter()
                .any(|line| line.contains(&format!("\"step {last} ")))
                .then_some(())
        },
    );
    agent.wait_until_delivered(1);
    agent.stop();
    let found = by_number(&place);
    let missing: Vec<u64> = (0..total + 100).filter(|number| !found.contains_key(number)).collect();
    let doubled = found.values().filter(|events| events.len() > 1).count();
    println!("killed after {kept}: {} of {total} lost, {doubled} there twice", missing.len());
    assert!(missing.iter().all(|number| *number >= kept), "what was kept is there: {missing:?}");
    let (first, last) = (missing.first().copied().unwrap_or(kept), missing.last().copied().unwrap_or(kept));
    let is_one_run = missing.is_empty() || last + 1 - first == missing.len() as u64;
    assert!(is_one_run, "what is lost was on its way at one moment: {missing:?}");
}

#[test]
fn what_rsyslog_sends_as_rfc_3164_and_line_by_line_is_taken_apart() {
    for (template, exact) in [("RSYSLOG_TraditionalForwardFormat", false), ("RSYSLOG_ForwardFormat", true)] {
        let port = free_port();
        let place = Place::new(&to_archive(&[EVENTS])).flag("--syslog-tcp", &format!("127.0.0.1:{port}"));
        let forward = format!("port=\"{port}\" protocol=\"tcp\" tcp_framing=\"traditional\" template=\"{template}\"");
        let mut agent = place.start();
        let test = "syslog::what_rsyslog_sends_as_rfc_3164";
        let Some(rsyslog) = Rsyslog::of_test(test, &place.path("rsyslog"), "", &forward) else { return };
        rsyslog.take(messages(0..100));
        wait_for(&mut agent, &rsyslog, 100);
        agent.wait_until_delivered(100);
        agent.stop();
        let found = by_number(&place);
        assert_eq!(found.len(), 100);
        for (number, events) in found {
            let event = &events[0];
            assert_eq!(event["message"], format!("step {number} of \"x\" \u{e4}"), "{event}");
            for (member, value) in [
                ("format", "rfc3164"),
                ("facility", "local4"),
                ("severity", "notice"),
                ("hostname", "etch-07"),
                ("app_name", "recipe"),
            ] {
                assert_eq!(event[member], value, "{member} of {event}");
            }
            assert_eq!(event["proc_id"], number.to_string(), "{event}");
            assert_eq!(event["timestamp"].is_null(), exact, "{event}");
            let time = event["time"].as_str().unwrap();
            if exact {
                assert_eq!(time, format!("2026-11-30T09:04:12.{:06}000Z", number % 1_000_000));
            } else {
                assert_eq!(event["timestamp"], "Nov 30 10:04:12");
                assert!(time.ends_with("-11-30T10:04:12.000000000Z"), "{event}");
            }
        }
    }
}

#[test]
fn rsyslog_in_datagrams_is_taken() {
    let port = free_port();
    let place = Place::new(&to_archive(&[EVENTS])).flag("--syslog-udp", &format!("127.0.0.1:{port}"));
    let forward = format!("port=\"{port}\" protocol=\"udp\" template=\"RSYSLOG_SyslogProtocol23Format\"");
    let mut agent = place.start();
    let Some(rsyslog) = Rsyslog::of_test("syslog::rsyslog_in_datagrams", &place.path("rsyslog"), "", &forward) else {
        return;
    };
    rsyslog.take(messages(0..500));
    wait_for(&mut agent, &rsyslog, 500);
    let metrics = agent.metrics();
    assert!(metrics.contains("spillway_syslog_datagrams_total{listener=\"udp\"} 500"), "{metrics}");
    agent.wait_until_delivered(500);
    agent.stop();
    let found = by_number(&place);
    assert_eq!(found.len(), 500);
    found.into_iter().for_each(|(number, events)| assert_whole(&events[0], number));
}

#[test]
fn rsyslog_over_tls_is_taken_with_a_certificate_and_not_without() {
    let port = free_port();
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let place = Place::new(&to_archive(&[EVENTS]));
    let write = |name: &str, text: String| {
        let path = place.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = authority.certificate().unwrap();
    let [ca, certificate, key] = [("ca.pem", authority.pem()), ("cert.pem", certificate), ("key.pem", key)]
        .map(|(name, text)| write(name, text));
    let (own, own_key) = authority.client_certificate("etch-07.fab12").unwrap();
    let (other, other_key) = stranger.client_certificate("etch-07.fab12").unwrap();
    let shown = [
        [write("own.pem", own), write("own-key.pem", own_key)],
        [write("other.pem", other), write("other-key.pem", other_key)],
    ];
    let place = place.flag("--syslog-tls", &format!("0.0.0.0:{port}")).flag("--tls-client-ca", &ca);
    let place = place.flag("--tls-cert", &certificate).flag("--tls-key", &key);
    let figures = free_port();
    let place = place.flag("--metrics", &format!("127.0.0.1:{figures}"));
    let forward = format!(
        "port=\"{port}\" protocol=\"tcp\" tcp_framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\" \
         StreamDriver=\"ossl\" StreamDriverMode=\"1\" StreamDriverAuthMode=\"x509/name\" StreamDriverPermittedPeers=\"localhost\""
    );
    let start = |folder: &str, [certificate, key]: &[String; 2]| {
        let settings = format!(
            "global(DefaultNetstreamDriverCAFile=\"{ca}\" DefaultNetstreamDriverCertFile=\"{certificate}\" \
             DefaultNetstreamDriverKeyFile=\"{key}\")"
        );
        Rsyslog::of_test("syslog::rsyslog_over_tls", &place.path(folder), &settings, &forward)
    };
    let Some(refused) = start("other", &shown[1]) else { return };
    let mut agent = place.start();
    refused.take(messages(0..10));
    // The agent's own endpoint speaks TLS with that certificate, too, so that its figures are asked for elsewhere.
    let metrics = || {
        let mut client = Client::connect(&format!("127.0.0.1:{figures}")).unwrap();
        String::from_utf8(client.send("GET", "/metrics", &[], b"").unwrap().body).unwrap()
    };
    agent.eventually(
        || format!("a handshake that failed; {}", refused.said()),
        |_| {
            let counted = metrics().lines().any(|line| {
                line.starts_with("spillway_syslog_limits_hit_total{listener=\"tls\",limit=\"handshake\"}")
                    && !line.ends_with(" 0")
            });
            counted.then_some(())
        },
    );
    assert!(metrics().contains("spillway_syslog_accepted_events_total{listener=\"tls\"} 0\n"));
    assert!(!refused.said().contains("verify failed"), "it is the agent who refuses: {}", refused.said());
    let Some(taken) = start("own", &shown[0]) else { return };
    taken.take(messages(0..200));
    agent.eventually(
        || format!("200 events; {}", taken.said()),
        |_| (output::lines_below(&place.path("out")).len() >= 200).then_some(()),
    );
    agent.stop();
    let found = by_number(&place);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
    for (number, events) in found {
        assert_eq!(events.len(), 1, "{events:?}");
        assert_whole(&events[0], number);
        assert_eq!(events[0]["peer"], json!({"address": "127.0.0.1", "name": "etch-07.fab12"}));
    }
}
