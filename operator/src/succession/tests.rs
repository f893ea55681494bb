//! What becomes of a Secret, whatever stands in it.

use super::*;

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn stored(values: &[(&str, &str)]) -> Stored {
    let authority = Authority::generate(NOW).unwrap();
    let mut stored = Stored::first(&authority);
    for (key, value) in values {
        stored.values.insert((*key).to_owned(), value.as_bytes().to_vec());
    }
    stored
}

fn told(agents: Option<Knowing>) -> Told {
    Told { since: NOW, agents }
}

#[test]
fn a_secret_of_before_successors_is_as_it_should_be() {
    let stored = stored(&[]);
    assert_eq!(stored.next(NOW, Some(told(None))).unwrap(), None);
    assert_eq!(stored.trusted(NOW).unwrap().certificates.len(), 1);
    let current = stored.current(NOW).unwrap();
    let tickets = Tickets::new(current.key_pem().as_bytes()).of("n", "o");
    assert_eq!(stored.tickets(&current).of("n", "o"), tickets, "as they were");
}

#[test]
fn what_is_damaged_is_not_trusted_and_is_made_anew_or_dropped() {
    let damaged = stored(&[("next.crt", "x"), ("next.key", "y"), ("previous.crt", "z"), ("other", "w")]);
    assert_eq!(damaged.trusted(NOW).unwrap().certificates.len(), 1);
    let (dropped, change) = damaged.next(NOW, None).unwrap().unwrap();
    assert_eq!((change, dropped.next(NOW, None).unwrap()), (Change::Dropped, None));
    let end = dropped.current(NOW).unwrap().expires();
    let (made, change) = dropped.next(end.checked_sub(MADE_BEFORE).unwrap(), None).unwrap().unwrap();
    assert_eq!(change, Change::Made);
    assert!(made.values.contains_key("other"), "what is not ours stays");
}

#[test]
fn nobody_known_is_not_everybody() {
    let mut asked = stored(&[]);
    asked.asked = Some("now".to_owned());
    let (made, _) = asked.next(NOW, None).unwrap().unwrap();
    let knowing = |live, heard, acknowledged| Some(Knowing { live, heard, acknowledged });
    let [early, mounted, late] = [MOUNTED.checked_sub(Duration::from_secs(1)).unwrap(), MOUNTED, PATIENCE]
        .map(|time| NOW.checked_add(time).unwrap());
    for (now, agents, is_used) in [
        // Webhooks may not have it yet, whatever agents say.
        (early, knowing(2, 2, 2), false),
        (early, knowing(0, 0, 0), false),
        (mounted, None, false),
        (mounted, knowing(2, 1, 1), false),
        (mounted, knowing(2, 2, 1), false),
        (mounted, knowing(2, 2, 2), true),
        (mounted, knowing(0, 0, 0), true),
        (late, None, true),
    ] {
        let next = made.next(now, Some(told(agents))).unwrap();
        assert_eq!(next.map(|(_, change)| change), is_used.then_some(Change::Used), "{now} {agents:?}");
    }
    assert_eq!(made.next(late, None).unwrap(), None, "it is not published");
}

#[test]
fn the_one_before_is_trusted_until_its_time_and_not_in_the_moment_before_it_is_dropped() {
    let before = Authority::generate(NOW).unwrap();
    let until = NOW.checked_add(KEPT_WHEN_ASKED).unwrap();
    let stored = stored(&[("previous.crt", before.certificate_pem()), ("previous.until", &until.to_string())]);
    let trusted = |now| stored.trusted(now).unwrap().certificates.len();
    assert_eq!((trusted(NOW), trusted(until)), (2, 1));
}
