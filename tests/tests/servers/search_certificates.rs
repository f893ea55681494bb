//! A real server shows a certificate that nobody should trust: nothing is sent to it, what is wrong with it is said, and when it
//! has a good one again it gets everything once.

use std::cell::Cell;

use spillway_tests::servers::search::{SearchServer, USERS};
use spillway_tests::servers::skip;
use spillway_tests::servers::tls::Flaw;

use crate::search::{assert_each_once, delivery, newest, password, post, secured};

#[test]
fn an_expired_a_foreign_and_a_self_signed_certificate_are_each_told_and_get_nothing() {
    let Some(package) = newest("elasticsearch") else {
        return skip("servers::search_certificates", "no version of Elasticsearch runs with the Java of this machine");
    };
    let server = SearchServer::start(package, true).unwrap();
    println!("{}", server.version());
    let auth = "basic: {username: sink, passwordSecretRef: {name: es, key: password}}";
    let place = secured(&server, &server.url(), "jobs-all", auth);
    password(&place, USERS[1].1);
    let sent = Cell::new(0);
    for (flaw, word) in [
        (Flaw::Expired, "certificate expired"),
        (Flaw::OtherName, "certificate not valid for name \"127.0.0.1\""),
        (Flaw::SelfSigned, "certificate is signed by no authority that is trusted here"),
    ] {
        server.set_certificate(Some(flaw)).unwrap();
        let mut agent = place.start();
        post(&agent, "a", 500, &sent);
        for _ in 0..3 {
            let status = agent.wait_until(word, |status| delivery(status)["state"] == "retrying");
            let error = delivery(&status)["lastError"].as_str().unwrap().to_owned();
            println!("{flaw:?}: {error}");
            assert!(error.contains(word), "{flaw:?}: {error}");
            let told = format!("{status} {} {:?}", agent.metrics(), agent.seen);
            assert!(!told.contains(USERS[1].1), "{told}");
            assert_eq!(delivery(&status)["heldEvents"], 500, "{status:#}");
            agent.kill();
            agent = place.start();
        }
        server.set_certificate(None).unwrap();
        agent.wait_until_delivered(sent.get());
        agent.stop();
    }
    assert_each_once(&server, "jobs-all", sent.get());
}
