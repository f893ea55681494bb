//! A third of the items is answered 429 by a real server, for as long as the test likes, while the agent is killed again and
//! again.

use std::cell::Cell;
use std::time::Duration;

use spillway_tests::agent::{Agent, Place, message_of};
use spillway_tests::servers::search::SearchServer;
use spillway_tests::servers::{Package, skip};

use crate::search::{To, assert_each_once, delivery, manifests, newest, post};

#[test]
fn what_is_throttled_is_neither_lost_nor_doubled_although_the_agent_is_killed_again_and_again() {
    std::thread::scope(|products| {
        for name in ["elasticsearch", "opensearch"] {
            match newest(name) {
                Some(package) => drop(products.spawn(move || throttled_over_kills(package))),
                None => skip("servers::search_throttled", &format!("no version of {name} runs with the Java here")),
            }
        }
    });
}

/// Returns the line that says why events wait; each process tells it once.
fn throttled(agent: &mut Agent) -> String {
    const TEXT: &str = "some events were not taken now";
    let seen = agent.seen.iter().find(|line| message_of(line).contains(TEXT)).cloned();
    seen.unwrap_or_else(|| agent.wait_for_line(TEXT)).to_string()
}

fn throttled_over_kills(package: Package) {
    let server = SearchServer::start(package, false).unwrap();
    let place = Place::new(&manifests(&To { url: &server.url(), index: "jobs-{event.kind}", more: "" }));
    let mut agent = place.start();
    let sent = Cell::new(0);
    post(&agent, "busy,free", 2, &sent);
    agent.wait_until_delivered(sent.get());
    let set = |block: &str| {
        server.must("PUT", "/jobs-busy/_settings", &format!("{{\"index.blocks.read_only_allow_delete\":{block}}}"));
    };
    for round in 0..5 {
        set("true");
        post(&agent, "busy,free,free", 3000, &sent);
        let told = throttled(&mut agent);
        assert!(told.contains("429"), "{}: {told}", server.version());
        agent.moment(Duration::from_millis(20 * round));
        agent.kill();
        // Each other time the block is gone when the next agent starts.
        if round % 2 == 1 {
            set("null");
        }
        agent = place.start();
        // One more: the event before the first round, where the kill came before its delivery was noted down. The closed index
        // answers 429 to it as well, and says that it has it already only when the block is gone.
        let most = 1000 * (round + 1) + 1;
        agent.wait_until("what is free goes on", |status| {
            delivery(status)["heldEvents"].as_u64().unwrap_or(u64::MAX) <= most
        });
    }
    set("null");
    let status = agent.wait_until_delivered(sent.get());
    assert_eq!(delivery(&status)["rejectedEvents"], 0, "{status:#}");
    agent.stop();
    assert_each_once(&server, "jobs-*", sent.get());
    println!("{}: {} events, each once", server.version(), sent.get());
}
