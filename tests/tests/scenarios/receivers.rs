//! A destination that is down, refuses, hangs or lies; the other one on the same route goes on.

use spillway_tests::agent::{Agent, Place, deliveries};
use spillway_tests::manifests::jobs;
use spillway_tests::output;
use spillway_tests::receiver::{Mode, Receiver};

use crate::fixtures;

fn delivery(status: &serde_json::Value, backend: &str) -> serde_json::Value {
    deliveries(&status["pipelines"][0]).find(|delivery| delivery["backend"] == backend).cloned().unwrap_or_default()
}

/// Sends while the receiver misbehaves, sees the archive go on and the rest held, over kills of the agent, then lets the
/// receiver recover.
fn holds_and_catches_up(mode: Mode, state_error: &str) {
    let receiver = Receiver::start();
    receiver.mode(mode);
    let place = Place::new(&fixtures::to_files_and(&receiver.url));
    let mut agent = place.start();
    for batch in 0..10 {
        fixtures::post(&agent.http, batch * 100, 100);
    }
    for kills in 0..=3 {
        let status = agent.wait_until("archive has all, api holds all", |status| {
            let (archive, api) = (delivery(status, "archive"), delivery(status, "api"));
            archive["deliveredEvents"] == 1000 && api["state"] == "retrying" && !api["lastError"].is_null()
        });
        let api = delivery(&status, "api");
        assert_eq!((&api["heldEvents"], &api["deliveredEvents"]), (&1000.into(), &0.into()), "{api:#}");
        assert!(api["lastError"].as_str().unwrap_or_default().contains(state_error), "{api:#}");
        if kills < 3 {
            agent.kill();
            agent = place.start();
        }
    }
    receiver.mode(Mode::Take);
    finish(agent, &place, &receiver);
}

fn finish(mut agent: Agent, place: &Place, receiver: &Receiver) {
    agent.wait_until_delivered(1000);
    agent.stop();
    let all = fixtures::ids(0, 1000);
    output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
    output::assert_exactly_once(&output::lines_below(&place.path("out")), "id", &all, &all);
}

#[test]
fn a_receiver_that_answers_500_is_held_for_and_catches_up() {
    holds_and_catches_up(Mode::Refuse(500), "500");
}

#[test]
fn a_receiver_that_answers_401_is_held_for_and_catches_up() {
    holds_and_catches_up(Mode::Refuse(401), "401");
}

#[test]
fn a_receiver_that_hangs_is_held_for_and_catches_up() {
    holds_and_catches_up(Mode::Hang, "1s");
}

#[test]
fn a_receiver_that_resets_is_held_for_and_catches_up() {
    holds_and_catches_up(Mode::Reset, "");
}

#[test]
fn a_receiver_that_answers_413_gets_smaller_batches() {
    let receiver = Receiver::start();
    receiver.mode(Mode::TooLargeAbove(10_000));
    let place = Place::new(&fixtures::to_files_and(&receiver.url));
    let agent = place.start();
    for batch in 0..10 {
        fixtures::post(&agent.http, batch * 100, 100);
    }
    finish(agent, &place, &receiver);
}

#[test]
fn an_answer_lost_after_the_receiver_took_the_batch_doubles_nothing() {
    let receiver = Receiver::start();
    receiver.mode(Mode::TakeAndCut);
    let place = Place::new(&fixtures::to_files_and(&receiver.url));
    let agent = place.start();
    for batch in 0..10 {
        fixtures::post(&agent.http, batch * 100, 100);
    }
    receiver.wait_for_requests(3);
    receiver.mode(Mode::Take);
    finish(agent, &place, &receiver);
    assert!(receiver.repeats() > 0, "the same batch came again under its key");
}

#[test]
fn three_dead_backends_of_four_hold_up_nobody_over_kills_and_get_all_they_missed() {
    let modes =
        [("well", Mode::Take), ("failing", Mode::Refuse(500)), ("hanging", Mode::Hang), ("resetting", Mode::Reset)];
    let receivers = modes.clone().map(|(name, mode)| {
        let receiver = Receiver::start();
        receiver.mode(mode);
        (name, receiver)
    });
    let specs = receivers.each_ref().map(|(name, receiver)| (*name, fixtures::http_spec(&receiver.url)));
    let place = Place::new(&jobs(&specs.each_ref().map(|(name, spec)| (*name, spec.as_str()))));
    let mut agent = place.start();
    for round in 0..5 {
        fixtures::post(&agent.http, round * 200, 200);
        agent.wait_until("one has all, three nothing", |status| {
            let all = deliveries(&status["pipelines"][0]).all(|delivery| match delivery["backend"].as_str() {
                Some("well") => delivery["deliveredEvents"] == (round + 1) * 200,
                _ => delivery["heldEvents"] == (round + 1) * 200 && delivery["state"] == "retrying",
            });
            all && deliveries(&status["pipelines"][0]).count() == 4
        });
        agent.kill();
        agent = place.start();
    }
    let all = fixtures::ids(0, 1000);
    output::assert_exactly_once(&receivers[0].1.lines(), "id", &all, &all);
    receivers.iter().for_each(|(_, receiver)| receiver.mode(Mode::Take));
    agent.wait_until_delivered(1000);
    agent.stop();
    for (_, receiver) in &receivers {
        output::assert_exactly_once(&receiver.lines(), "id", &all, &all);
    }
}

#[test]
fn a_receiver_that_is_not_there_is_waited_for_over_a_restart() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ingest", gone.local_addr().unwrap());
    drop(gone);
    let place = Place::new(&fixtures::to_files_and(&url)).flag("--drain-seconds", "1");
    let mut agent = place.start();
    for batch in 0..10 {
        fixtures::post(&agent.http, batch * 100, 100);
    }
    agent.wait_until("a fault", |status| delivery(status, "api")["state"] == "retrying");
    agent.stop();
    let receiver = Receiver::start();
    place.write_manifests(&fixtures::to_files_and(&receiver.url));
    finish(place.start(), &place, &receiver);
}
