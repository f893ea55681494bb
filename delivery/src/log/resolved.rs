//! What is resolved above a cursor: ranges `[from, to)` of sequences, ascending and apart.
//!
//! Guarantees: the ranges stay ascending and apart; whatever is added once is in them until the cursor has passed it.
//! Must not know: what a sequence stands for.

/// Adds `[from, to)`, which is not empty.
pub(super) fn add(ranges: &mut Vec<(u64, u64)>, from: u64, to: u64) {
    let at = ranges.partition_point(|(_, end)| *end < from);
    let mut merged = (from, to);
    let mut until = at;
    while let Some((start, end)) = ranges.get(until).filter(|(start, _)| *start <= merged.1) {
        merged = (merged.0.min(*start), merged.1.max(*end));
        until += 1;
    }
    ranges.splice(at..until, [merged]);
}

/// Adds ranges that are not empty, ascending and apart: one pass over the ranges they lie among, however many they are.
pub(super) fn add_each(ranges: &mut Vec<(u64, u64)>, more: &[(u64, u64)]) {
    let (Some((first, _)), Some((_, last))) = (more.first(), more.last()) else { return };
    let at = ranges.partition_point(|(_, end)| end < first);
    let until = ranges.partition_point(|(start, _)| start <= last);
    let mut known = ranges[at..until].iter().copied().peekable();
    let mut added = more.iter().copied().peekable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(until - at + more.len() / 2);
    while let Some(next) = match (known.peek(), added.peek()) {
        (Some(old), Some(new)) if old.0 <= new.0 => known.next(),
        (Some(_), None) => known.next(),
        _ => added.next(),
    } {
        match merged.last_mut() {
            Some(last) if next.0 <= last.1 => last.1 = last.1.max(next.1),
            _ => merged.push(next),
        }
    }
    ranges.splice(at..until, merged);
}

/// Moves a cursor over every range it has reached, which goes.
pub(super) fn pass(ranges: &mut Vec<(u64, u64)>, mut cursor: u64) -> u64 {
    let mut passed = 0;
    while let Some((_, end)) = ranges.get(passed).filter(|(start, _)| *start <= cursor) {
        cursor = cursor.max(*end);
        passed += 1;
    }
    ranges.drain(..passed);
    cursor
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(set: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for seq in set {
            match ranges.last_mut() {
                Some(last) if last.1 == *seq => last.1 += 1,
                _ => ranges.push((*seq, seq + 1)),
            }
        }
        ranges
    }

    proptest! {
        #[test]
        fn ranges_are_the_set_of_what_was_added(
            acts in prop::collection::vec((any::<bool>(), 0_u64..60, prop::collection::btree_set(0_u64..60, 0..12)), 1..20)
        ) {
            let (mut ranges, mut set) = (Vec::new(), BTreeSet::new());
            for (one_range, from, seqs) in acts {
                if one_range {
                    add(&mut ranges, from, from + 4);
                    set.extend(from..from + 4);
                } else {
                    // Every other time they reach up to the next one, but for the last.
                    let ends = seqs.iter().skip(1).copied().chain([from.max(*seqs.last().unwrap_or(&0)) + 1]);
                    let wide = |(seq, end): (&u64, u64)| (*seq, if from % 2 == 0 { end } else { seq + 1 });
                    let more: Vec<(u64, u64)> = seqs.iter().zip(ends).map(wide).collect();
                    add_each(&mut ranges, &more);
                    set.extend(more.iter().flat_map(|(from, to)| *from..*to));
                }
                prop_assert_eq!(&ranges, &of(&set));
            }
            let cursor = pass(&mut ranges, 3);
            let expected = (3..100).find(|seq| !set.contains(seq)).unwrap_or(100);
            prop_assert_eq!(cursor, expected);
            prop_assert_eq!(ranges, of(&set.into_iter().filter(|seq| *seq >= cursor).collect()));
        }
    }
}
