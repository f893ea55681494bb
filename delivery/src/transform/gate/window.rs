//! `Deduplicate`: which keys were passed on lately, a bounded number of them.

use std::collections::{HashSet, VecDeque};

/// The keys of events that a log has, each for as long as the window. Times are as those of a bucket.
#[derive(Debug)]
pub(in crate::transform) struct Window {
    life: u64,
    keys_max: usize,
    known: HashSet<u128>,
    /// In the order of their times.
    order: VecDeque<(u64, u128)>,
}

impl Window {
    /// Returns a window in which nothing is.
    pub(super) fn new(life: u64, keys_max: u32) -> Self {
        Self { life, keys_max: keys_max as usize, known: HashSet::new(), order: VecDeque::new() }
    }

    /// Returns most keys that are remembered.
    pub(super) fn keys_max(&self) -> usize {
        self.keys_max
    }

    /// Returns whether a key is remembered.
    pub(super) fn knows(&mut self, key: u128, now: u64) -> bool {
        while self.order.front().is_some_and(|(at, _)| at.saturating_add(self.life) <= now) {
            self.forget();
        }
        self.known.contains(&key)
    }

    /// Remembers a key; returns whether another one was forgotten for it before its time.
    pub(super) fn remember(&mut self, key: u128, now: u64) -> bool {
        if self.knows(key, now) {
            return false;
        }
        let is_full = self.order.len() >= self.keys_max;
        if is_full {
            self.forget();
        }
        // Batches may end in another order than they began.
        let at = self.order.back().map_or(now, |(last, _)| now.max(*last));
        self.order.push_back((at, key));
        self.known.insert(key);
        is_full
    }

    fn forget(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_remembered_for_the_window_from_when_it_passed() {
        let mut window = Window::new(10, 4);
        assert!(!window.knows(1, 0));
        assert!(!window.remember(1, 0));
        assert!(window.knows(1, 9), "that it comes again does not make it longer");
        assert!(!window.remember(1, 9));
        assert!(!window.knows(1, 10));
        assert!(!window.remember(1, 10));
        assert!(window.knows(1, 19));
    }

    #[test]
    fn the_oldest_is_forgotten_where_there_are_too_many() {
        let mut window = Window::new(100, 2);
        assert!(!window.remember(1, 0) && !window.remember(2, 1));
        assert!(window.remember(3, 2), "counted");
        assert!(!window.knows(1, 2) && window.knows(2, 2) && window.knows(3, 2));
        assert!(!window.remember(4, 200), "those that had their time are no loss");
        assert_eq!((window.known.len(), window.order.len()), (1, 1));
    }

    #[test]
    fn a_clock_that_jumps_does_no_harm() {
        let mut window = Window::new(10, 4);
        window.remember(1, 1000);
        assert!(window.knows(1, 0), "back");
        window.remember(2, 5);
        assert!(window.knows(2, 1009));
        assert!(!window.knows(2, 1010), "it was put behind what came before it");
        window.remember(3, u64::MAX);
        assert!(!window.knows(3, u64::MAX), "the end of time");
    }
}
