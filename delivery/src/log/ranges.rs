//! Sets of sequences as half-open ranges: ascending, apart, none empty.

/// A set of sequences.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Returns the set `[from, to)`.
    pub fn of(from: u64, to: u64) -> Self {
        let mut ranges = Self::default();
        ranges.add(from, to);
        ranges
    }

    /// Adds `[from, to)`.
    pub fn add(&mut self, from: u64, to: u64) {
        if to <= from {
            return;
        }
        let at = self.0.partition_point(|(_, end)| *end < from);
        let until = self.0.partition_point(|(start, _)| *start <= to);
        let touched = self.0.get(at..until).unwrap_or_default();
        let start = touched.first().map_or(from, |(start, _)| from.min(*start));
        let end = touched.last().map_or(to, |(_, end)| to.max(*end));
        self.0.splice(at..until.max(at), [(start, end)]);
    }

    /// Adds every range of another set.
    pub fn add_all(&mut self, other: &Self) {
        other.iter().for_each(|(from, to)| self.add(from, to));
    }

    /// Takes `[from, to)` out.
    pub fn remove(&mut self, from: u64, to: u64) {
        if to <= from {
            return;
        }
        let at = self.0.partition_point(|(_, end)| *end <= from);
        let until = self.0.partition_point(|(start, _)| *start < to);
        if until <= at {
            return;
        }
        let (first, last) = (self.0[at], self.0[until - 1]);
        let left = [(first.0, from), (to, last.1)].into_iter().filter(|(start, end)| start < end);
        self.0.splice(at..until, left);
    }

    /// Takes every range of another set out.
    pub fn remove_all(&mut self, other: &Self) {
        other.iter().for_each(|(from, to)| self.remove(from, to));
    }

    /// Returns whether `seq` is in it.
    pub fn contains(&self, seq: u64) -> bool {
        let at = self.0.partition_point(|(_, end)| *end <= seq);
        self.0.get(at).is_some_and(|(start, _)| *start <= seq)
    }

    /// Returns whether any of `[from, to)` is in it.
    pub fn touches(&self, from: u64, to: u64) -> bool {
        let at = self.0.partition_point(|(_, end)| *end <= from);
        from < to && self.0.get(at).is_some_and(|(start, _)| *start < to)
    }

    /// Returns what of it lies in `[from, to)`.
    #[must_use]
    pub fn within(&self, from: u64, to: u64) -> Self {
        let at = self.0.partition_point(|(_, end)| *end <= from);
        let inside = self.0[at..].iter().take_while(|(start, _)| *start < to);
        Self(inside.map(|(start, end)| ((*start).max(from), (*end).min(to))).filter(|(start, end)| start < end).collect())
    }

    /// Returns what of `[from, to)` is not in it.
    #[must_use]
    pub fn gaps(&self, from: u64, to: u64) -> Self {
        let mut gaps = Self::of(from, to);
        gaps.remove_all(&self.within(from, to));
        gaps
    }

    /// Returns the ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Returns the lowest range.
    pub fn first(&self) -> Option<(u64, u64)> {
        self.0.first().copied()
    }

    /// Returns how many ranges there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut all = Self::default();
        ranges.into_iter().for_each(|(from, to)| all.add(from, to));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &Ranges) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(from, to)| from..to).collect()
    }

    proptest! {
        #[test]
        fn they_are_what_a_set_of_numbers_is(steps in proptest::collection::vec((any::<bool>(), 0..60u64, 0..20u64), 0..40), from in 0..60u64, len in 0..30u64) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (adds, from, len) in steps {
                if adds {
                    ranges.add(from, from + len);
                    model.extend(from..from + len);
                } else {
                    ranges.remove(from, from + len);
                    model.retain(|seq| !(from..from + len).contains(seq));
                }
                prop_assert_eq!(set(&ranges), model.clone());
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0), "apart: {:?}", ranges);
            }
            let to = from + len;
            let inside: BTreeSet<u64> = model.iter().copied().filter(|seq| (from..to).contains(seq)).collect();
            prop_assert_eq!(set(&ranges.within(from, to)), inside.clone());
            prop_assert_eq!(set(&ranges.gaps(from, to)), (from..to).filter(|seq| !inside.contains(seq)).collect::<BTreeSet<_>>());
            prop_assert_eq!(ranges.touches(from, to), !inside.is_empty());
            prop_assert!((0..90).all(|seq| ranges.contains(seq) == model.contains(&seq)));
        }
    }
}
