//! Who waits: one ask of each pod, and not more than [`POLLS_MAX`] of all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::limits::POLLS_MAX;

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Polls {
    waiting: Mutex<BTreeMap<Arc<str>, Entry>>,
    count: watch::Sender<usize>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    superseded: CancellationToken,
}

/// The place of one ask that waits; dropping it leaves.
#[derive(Debug)]
pub(super) struct Poll<'a> {
    polls: &'a Polls,
    pod_uid: Arc<str>,
    number: u64,
    superseded: CancellationToken,
}

impl Polls {
    /// Enters an ask of a pod, and ends the one of it that waits. Returns nothing where too many wait.
    pub(super) fn enter(&self, pod_uid: &str) -> Option<Poll<'_>> {
        let mut waiting = self.lock();
        let superseded = CancellationToken::new();
        let before = waiting.get(pod_uid);
        if before.is_none() && waiting.len() >= POLLS_MAX {
            return None;
        }
        if let Some(before) = before {
            before.superseded.cancel();
        }
        let number = before.map_or(0, |before| before.number + 1);
        let pod_uid: Arc<str> = pod_uid.into();
        waiting.insert(Arc::clone(&pod_uid), Entry { number, superseded: superseded.clone() });
        self.count.send_replace(waiting.len());
        Some(Poll { polls: self, pod_uid, number, superseded })
    }

    /// Returns how many wait, for who counts them.
    #[cfg(test)]
    pub(super) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Entry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Poll<'_> {
    /// Resolves when a newer ask of the pod has come.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut waiting = self.polls.lock();
        if waiting.get(&self.pod_uid).is_some_and(|entry| entry.number == self.number) {
            waiting.remove(&self.pod_uid);
        }
        self.polls.count.send_replace(waiting.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_ask_of_a_pod_ends_the_older_one_and_keeps_its_place() {
        let polls = Polls::default();
        let (first, other) = (polls.enter("a").unwrap(), polls.enter("b").unwrap());
        let second = polls.enter("a").unwrap();
        first.superseded().await;
        assert!(!second.superseded.is_cancelled() && !other.superseded.is_cancelled());
        drop(first);
        assert_eq!(*polls.count().borrow(), 2);
        let third = polls.enter("a").unwrap();
        second.superseded().await;
        drop((second, third, other));
        assert_eq!(*polls.count().borrow(), 0);
    }

    #[test]
    fn more_than_fit_are_turned_away_and_who_waits_may_ask_anew() {
        let polls = Polls::default();
        let waiting: Vec<_> = (0..POLLS_MAX).map(|number| polls.enter(&number.to_string()).unwrap()).collect();
        assert!(polls.enter("one more").is_none());
        assert!(polls.enter("7").is_some());
        drop(waiting);
        assert!(polls.enter("one more").is_some());
    }
}
