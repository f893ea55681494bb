//! What every backend passes.

use std::collections::BTreeSet;
use std::sync::Arc;

use spillway_delivery::backend::{Backend, Items, Mark, OutBatch, Outcome};

use crate::batches::{batch, batch_of, cut_short, lines};
use crate::destinations::{Destination, all};

async fn opened(destination: &Destination, mark: Option<Mark>) -> Arc<dyn Backend> {
    let backend = destination.backend();
    backend.open(mark).await.unwrap();
    backend
}

async fn deliver(backend: &Arc<dyn Backend>, batch: &OutBatch) {
    match backend.send(batch).await.unwrap() {
        Items::All(outcome) => assert_eq!(outcome, Outcome::Delivered),
        Items::Each(outcomes) => {
            assert_eq!(outcomes.len(), batch.len());
            assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
        }
    }
}

/// Delivers what an earlier attempt may have delivered.
async fn deliver_again(backend: &Arc<dyn Backend>, batch: &OutBatch) {
    let outcomes = match backend.send(batch).await.unwrap() {
        Items::All(outcome) => vec![outcome],
        Items::Each(outcomes) => outcomes,
    };
    let keyed = backend.traits().keyed;
    let fine = |outcome: &Outcome| *outcome == Outcome::Delivered || keyed && *outcome == Outcome::Duplicate;
    assert!(outcomes.iter().all(fine), "{:?}", outcomes.iter().find(|outcome| !fine(outcome)));
}

#[tokio::test]
async fn every_item_gets_an_outcome_and_arrives_in_order() {
    for destination in all().await {
        let backend = opened(&destination, None).await;
        for start in [0, 1, 100, 2000] {
            let end = [1, 100, 2000, 2500][[0, 1, 100, 2000].iter().position(|s| *s == start).unwrap()];
            deliver(&backend, &batch(start..end)).await;
        }
        let mark = backend.commit().await.unwrap();
        assert_eq!(mark.is_some(), backend.traits().commits, "{}", destination.what);
        backend.close().await;
        if destination.keeps() {
            assert!(destination.lines() == lines(0..2500), "{}", destination.what);
        }
    }
}

#[tokio::test]
async fn traits_never_change() {
    for destination in all().await {
        let backend = destination.backend();
        let before = backend.traits();
        backend.open(None).await.unwrap();
        deliver(&backend, &batch(0..3)).await;
        assert_eq!(backend.traits(), before, "{}", destination.what);
        backend.close().await;
        assert_eq!(backend.traits(), before, "{}", destination.what);
    }
}

#[tokio::test]
async fn a_retry_is_the_same_bytes_under_the_same_key() {
    for destination in all().await {
        let once = batch_of(&[(crate::batches::pod("a"), (0..3000).collect())], "planned-1");
        // Another process must come to the same bytes.
        for _ in 0..2 {
            let backend = opened(&destination, None).await;
            deliver_again(&backend, &once).await;
            if backend.traits().commits {
                // The process is lost before the engine has stored the mark.
                assert!(backend.commit().await.unwrap().is_some());
            }
        }
        let attempts = destination.attempts();
        if destination.backend().traits().keyed {
            assert_eq!(attempts.len(), 2, "{}", destination.what);
            assert_eq!(attempts[0].0.as_deref(), Some("planned-1"));
            assert!(attempts[0] == attempts[1], "{}", destination.what);
        }
        if destination.backend().traits().commits {
            assert!(destination.lines() == lines(0..3000), "{}: what was not committed came again", destination.what);
        }
    }
}

#[tokio::test]
async fn what_was_not_committed_is_gone_after_opening_at_the_mark() {
    for destination in all().await.into_iter().filter(|destination| destination.backend().traits().commits) {
        let backend = opened(&destination, None).await;
        deliver(&backend, &batch(0..300)).await;
        let mark = backend.commit().await.unwrap();
        deliver(&backend, &batch(300..900)).await;
        // As a crash would: neither commit nor close.
        drop(backend);
        let backend = opened(&destination, mark).await;
        assert!(destination.lines() == lines(0..300), "{}", destination.what);
        deliver(&backend, &batch(300..700)).await;
        deliver(&backend, &batch(700..900)).await;
        let mark = backend.commit().await.unwrap();
        drop(backend);
        let backend = opened(&destination, mark).await;
        backend.close().await;
        assert!(destination.lines() == lines(0..900), "{}", destination.what);
    }
}

#[tokio::test]
async fn a_checkpoint_is_a_place_to_go_back_to() {
    for destination in all().await.into_iter().filter(|destination| destination.backend().traits().commits) {
        let backend = opened(&destination, None).await;
        deliver(&backend, &batch(0..300)).await;
        let mark = backend.checkpoint().await.unwrap();
        deliver(&backend, &batch(300..900)).await;
        drop(backend);
        let backend = opened(&destination, mark).await;
        assert!(destination.lines() == lines(0..300), "{}", destination.what);
        backend.close().await;
    }
}

#[tokio::test]
async fn a_batch_cut_off_in_flight_and_sent_again_is_not_lost_and_not_torn() {
    for destination in all().await {
        let backend = opened(&destination, None).await;
        for round in 0..30 {
            let next = batch(round * 100..round * 100 + 100);
            // A future that came to its end in spite of all has delivered.
            if cut_short(backend.send(&next), round % 4).await.is_none() {
                deliver_again(&backend, &next).await;
            }
        }
        if !destination.keeps() {
            continue;
        }
        if backend.traits().commits {
            let mark = backend.commit().await.unwrap();
            assert!(mark.is_some());
            assert!(destination.lines() == lines(0..3000), "{}: exactly once", destination.what);
        } else if backend.traits().keyed {
            assert!(destination.lines() == lines(0..3000), "{}: once per key", destination.what);
        } else {
            let mut first = destination.lines();
            let mut seen = BTreeSet::new();
            first.retain(|line| seen.insert(line.clone()));
            assert!(first == lines(0..3000), "{}: at least once, in order", destination.what);
        }
    }
}

#[tokio::test]
async fn a_commit_after_a_cut_off_batch_does_not_hold_it() {
    for destination in all().await.into_iter().filter(|destination| destination.backend().traits().commits) {
        let backend = opened(&destination, None).await;
        deliver(&backend, &batch(0..50)).await;
        let mut end = 50;
        for round in 0..6u64 {
            let next = batch(end..end + 4000);
            // Where the write is faster than the first look at it, the batch is delivered, and stays.
            if cut_short(backend.send(&next), round % 2).await.is_some() {
                end += 4000;
            }
            assert!(backend.commit().await.unwrap().is_some());
            assert!(destination.lines() == lines(0..end), "{}: round {round}", destination.what);
        }
    }
}

#[tokio::test]
async fn nothing_is_delivered_before_it_is_opened_where_opening_matters() {
    for destination in all().await.into_iter().filter(|destination| destination.backend().traits().commits) {
        let backend = destination.backend();
        assert!(backend.send(&batch(0..1)).await.is_err(), "{}", destination.what);
        assert!(backend.commit().await.is_err(), "{}", destination.what);
        for mark in ["", "{}", "null", "\0", r#"{"version":9,"next":1,"directory":null,"below":"","files":[]}"#] {
            let fault = backend.open(Some(Mark::from_static(mark.as_bytes()))).await.unwrap_err();
            assert!(fault.message.contains("mark"), "{}: {fault}", destination.what);
        }
    }
}
