use super::*;

fn up_to(cursor: u64) -> Progress {
    Progress { cursor, began: Some(0), ..Progress::default() }
}

/// A group of `a`, `b` and `c`, best first, of which nobody has resolved anything.
fn group(failback: Failback) -> Arc<Group> {
    let group = Group::new(&"p".into(), &"r".into());
    group.arrange(failback, ["a", "b", "c"].map(Into::into).to_vec());
    ["c", "a", "b"].iter().for_each(|uid| group.seat(&(*uid).into(), &(*uid).into(), Done::of(&up_to(0))));
    group
}

fn stands(group: &Group) -> [Stand; 3] {
    ["a", "b", "c"].map(|uid| group.stand(uid))
}

#[test]
fn the_best_healthy_one_sends_and_what_is_worse_stands_by() {
    let group = group(Failback::Leave);
    assert_eq!(stands(&group), [Stand::Sends, Stand::By, Stand::By]);
    group.note("a", Health::Ill, 2, &up_to(0));
    assert_eq!(stands(&group), [Stand::Sends, Stand::Sends, Stand::By], "one that is not healthy probes");
    group.note("c", Health::Ill, 0, &up_to(0));
    group.note("b", Health::Ill, 0, &up_to(0));
    assert_eq!(stands(&group), [Stand::Sends; 3], "each is tried");
    group.note("b", Health::Well, 0, &up_to(0));
    assert_eq!(stands(&group), [Stand::Sends, Stand::Sends, Stand::By]);
    let times = |from: &str, to: &str, times| FailoverReport { from: from.into(), to: to.into(), times };
    assert_eq!(group.report(), (Some("b".into()), vec![times("a", "b", 1)]));
    group.note("a", Health::Well, 0, &up_to(0));
    assert_eq!(group.report(), (Some("a".into()), vec![times("a", "b", 1), times("b", "a", 1)]));
}

#[test]
fn one_that_begins_anew_is_as_well_as_it_was() {
    let group = group(Failback::Leave);
    group.note("a", Health::Ill, 0, &up_to(0));
    group.seat(&"a".into(), &"a".into(), Done::of(&up_to(3)));
    assert_eq!(stands(&group), [Stand::Sends, Stand::Sends, Stand::By]);
    let (leader, failovers) = group.report();
    assert_eq!((leader.as_deref(), failovers.len()), (Some("b"), 1));
    group.note("a", Health::Well, 0, &up_to(3));
    assert_eq!((group.report().0.as_deref(), group.report().1.len()), (Some("a"), 2));
}

#[test]
fn one_that_recovers_waits_for_what_worse_ones_have_under_way_and_they_begin_nothing() {
    for (failback, waits) in [(Failback::Leave, Stand::Waits), (Failback::Backfill, Stand::Sends)] {
        let group = group(failback);
        group.note("a", Health::Ill, 0, &up_to(0));
        assert!(group.enter("b") && group.enter("b") && !group.enter("c"));
        group.note("a", Health::Well, 0, &up_to(0));
        assert_eq!((group.stand("a"), group.enter("b")), (waits, false));
        group.note("b", Health::Well, 1, &up_to(5));
        assert_eq!(group.stand("a"), waits);
        let before = group.newest("a");
        group.note("b", Health::Well, 0, &up_to(9));
        assert_eq!(group.stand("a"), Stand::Sends);
        assert!(group.newest("a") > before, "what it waited for is told with it");
    }
}

#[test]
fn what_one_has_that_left_is_told_until_all_have_it() {
    let group = group(Failback::Leave);
    group.note("a", Health::Well, 0, &up_to(7));
    group.unseat("a", Done::of(&up_to(8)));
    let has = |done: &Done| done.ranges().any(|range| range == (0, 8));
    assert!(group.others("b").1.iter().any(has));
    group.note("b", Health::Well, 0, &up_to(8));
    assert!(group.others("c").1.iter().any(|done| done.from == 0 && done.cursor == 8));
    group.note("c", Health::Well, 0, &up_to(8));
    assert_eq!(group.others("b").1.len(), 1, "only the other member is left");
}

#[test]
fn only_what_all_before_it_was_resolved_elsewhere_is_spare() {
    let group = group(Failback::Backfill);
    assert_eq!(group.spare(), Some(("a".into(), 0)));
    group.note("b", Health::Well, 0, &Progress { resolved: vec![(3, 9)], ..up_to(0) });
    assert_eq!(group.spare(), Some(("a".into(), 0)));
    group.note("a", Health::Ill, 0, &Progress { resolved: vec![(1, 3)], ..up_to(0) });
    group.note("c", Health::Well, 0, &up_to(1));
    assert_eq!(group.spare(), Some(("a".into(), 9)));
    group.arrange(Failback::Leave, ["a", "b", "c"].map(Into::into).to_vec());
    assert_eq!(group.spare(), None);
}

#[test]
fn nobody_says_it_resolved_what_came_before_it_began() {
    let done = Done::of(&Progress { began: Some(5), resolved: vec![(9, 10)], ..up_to(7) });
    assert_eq!(done.ranges().collect::<Vec<_>>(), [(5, 7), (9, 10)]);
    for began in [Some(7), None] {
        assert_eq!(Done::of(&Progress { began, ..up_to(7) }).ranges().count(), 0);
    }
    let synced = Done::up_to(&Progress { resolved: vec![(9, 10)], ..up_to(7) }, 4);
    assert_eq!(synced.ranges().collect::<Vec<_>>(), [(0, 4)]);
    assert_eq!(Done::up_to(&Progress { began: Some(5), ..up_to(7) }, 4).ranges().count(), 0);
}

#[test]
fn at_no_moment_is_what_one_has_that_leaves_unknown_to_the_next() {
    for _ in 0..300 {
        let group = group(Failback::Leave);
        group.note("a", Health::Well, 0, &up_to(7));
        std::thread::scope(|scope| {
            scope.spawn(|| group.unseat("a", Done::of(&up_to(7))));
            while !group.enter("b") {}
            assert!(group.others("b").1.iter().any(|done| done.cursor == 7));
        });
    }
}
