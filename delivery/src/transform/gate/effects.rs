//! What a batch did to the state of gates, until it is known whether a log has the batch.
//!
//! Tokens and turns are taken at once, or batches on their way at the same time would all find the bucket full; they are given back when
//! the batch is refused, and when the log fails that it was on its way to, also where it may have got there: who is told that and
//! sends it again would find the limits used up by it. A key is remembered only when the log has the batch and no transform behind
//! dropped the event, or a duplicate could be dropped for an event that is nowhere.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::buckets::Buckets;
use super::state::Shared;
use super::window::Window;

/// What a batch did; dropped, it is undone, but for one that is on its way into the log.
#[derive(Debug, Default)]
pub struct Effects {
    spent: Vec<Spent>,
    turned: Vec<Turned>,
    fresh: Vec<Fresh>,
    /// Where in `fresh` the event under way noted a key.
    noted: Vec<usize>,
}

/// Turns that were taken.
#[derive(Debug)]
struct Turned {
    transform: usize,
    count: Arc<AtomicU64>,
    turns: u64,
    is_under_way: bool,
}

/// Tokens that were taken.
#[derive(Debug)]
struct Spent {
    transform: usize,
    buckets: Shared<Buckets>,
    /// By key; `None` is the bucket that keys share.
    events: HashMap<Option<u128>, u64>,
    is_under_way: bool,
}

/// Keys that are not remembered yet, a bounded number of them.
#[derive(Debug)]
struct Fresh {
    transform: usize,
    window: Shared<Window>,
    keys_max: usize,
    now: Instant,
    known: HashSet<u128>,
    order: VecDeque<u128>,
    /// How many were one too many.
    forgotten: u64,
}

impl Effects {
    /// Takes a turn; returns which one.
    pub(super) fn turn(&mut self, transform: usize, count: &Arc<AtomicU64>) -> u64 {
        let known = self.turned.iter().position(|turned| turned.transform == transform);
        let index = known.unwrap_or_else(|| {
            self.turned.push(Turned { transform, count: count.clone(), turns: 0, is_under_way: false });
            self.turned.len() - 1
        });
        self.turned[index].turns += 1;
        count.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a token was taken.
    pub(super) fn spent(&mut self, transform: usize, buckets: &Shared<Buckets>, key: Option<u128>) {
        let known = self.spent.iter().position(|spent| spent.transform == transform);
        let index = known.unwrap_or_else(|| {
            let (buckets, events) = (buckets.clone(), HashMap::new());
            self.spent.push(Spent { transform, buckets, events, is_under_way: false });
            self.spent.len() - 1
        });
        *self.spent[index].events.entry(key).or_default() += 1;
    }

    /// Returns whether a key came neither lately nor in this batch, and notes it.
    pub(super) fn is_fresh(&mut self, transform: usize, window: &Shared<Window>, key: u128, now: Instant) -> bool {
        let known = self.fresh.iter().position(|fresh| fresh.transform == transform);
        let index = known.unwrap_or_else(|| {
            let (window, keys_max) = (window.clone(), window.lock().keys_max());
            let (known, order) = (HashSet::new(), VecDeque::new());
            self.fresh.push(Fresh { transform, window, keys_max, now, known, order, forgotten: 0 });
            self.fresh.len() - 1
        });
        let fresh = &mut self.fresh[index];
        if fresh.known.contains(&key) || window.lock().knows(key, window.nanos(now)) {
            return false;
        }
        fresh.known.insert(key);
        fresh.order.push_back(key);
        self.noted.push(index);
        if fresh.order.len() > fresh.keys_max
            && let Some(oldest) = fresh.order.pop_front()
        {
            fresh.known.remove(&oldest);
            fresh.forgotten += 1;
        }
        true
    }

    /// Notes that all transforms are through with an event: one that was dropped is no event that another could be a duplicate of.
    pub(in crate::transform) fn event_done(&mut self, is_dropped: bool) {
        if self.noted.is_empty() {
            return;
        }
        for index in self.noted.drain(..).filter(|_| is_dropped) {
            let fresh = &mut self.fresh[index];
            if let Some(key) = fresh.order.pop_back() {
                fresh.known.remove(&key);
            }
        }
    }

    /// Returns how many bytes it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        let spent: usize = self.spent.iter().map(|spent| spent.events.len() * 48).sum();
        spent + self.fresh.iter().map(|fresh| fresh.order.len() * 48).sum::<usize>()
    }

    /// Keeps what was taken: the batch is on its way into the log.
    pub(crate) fn enqueued(&mut self) {
        self.spent.iter_mut().for_each(|spent| spent.is_under_way = true);
        self.turned.iter_mut().for_each(|turned| turned.is_under_way = true);
    }

    /// Gives back what was taken: the batch was on its way, and nobody was told that the log has it.
    pub(crate) fn undo(mut self) {
        self.spent.iter_mut().for_each(|spent| spent.is_under_way = false);
        self.turned.iter_mut().for_each(|turned| turned.is_under_way = false);
    }

    /// Remembers what came, for the log has it; returns by transform how many keys were forgotten for it before their time.
    pub(in crate::transform) fn keep(mut self) -> Vec<(usize, u64)> {
        self.enqueued();
        let remembered = self.fresh.iter().map(|fresh| {
            let (now, mut window) = (fresh.window.nanos(fresh.now), fresh.window.lock());
            let forgotten = fresh.order.iter().filter(|key| window.remember(**key, now)).count();
            (fresh.transform, fresh.forgotten + forgotten as u64)
        });
        remembered.filter(|(_, forgotten)| *forgotten > 0).collect()
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if self.is_under_way {
            return;
        }
        let mut buckets = self.buckets.lock();
        self.events.drain().for_each(|(key, events)| buckets.give(key, events));
    }
}

impl Drop for Turned {
    fn drop(&mut self) {
        if !self.is_under_way {
            self.count.fetch_sub(self.turns, Ordering::Relaxed);
        }
    }
}
