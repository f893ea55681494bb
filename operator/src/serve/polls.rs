//! Who waits: one ask of each pod, and not more than [`POLLS_MAX`] of all, [`SIDECAR_POLLS_MAX`] of them of sidecars.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::limits::{POLLS_MAX, SIDECAR_POLLS_MAX};

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Polls {
    waiting: Mutex<Waiting>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: BTreeMap<Arc<str>, Entry>,
    /// How many of them are of sidecars.
    sidecars: usize,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    is_sidecar: bool,
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
    pub(super) fn enter(&self, pod_uid: &str, is_sidecar: bool) -> Option<Poll<'_>> {
        let mut waiting = self.lock();
        let Waiting { entries, sidecars } = &mut *waiting;
        let superseded = CancellationToken::new();
        let before = entries.get(pod_uid);
        let is_full = entries.len() >= POLLS_MAX || (is_sidecar && *sidecars >= SIDECAR_POLLS_MAX);
        if before.is_none() && is_full {
            return None;
        }
        if let Some(before) = before {
            before.superseded.cancel();
        }
        let number = before.map_or(0, |before| before.number + 1);
        let pod_uid: Arc<str> = pod_uid.into();
        let entry = Entry { number, is_sidecar, superseded: superseded.clone() };
        let replaced = entries.insert(Arc::clone(&pod_uid), entry);
        *sidecars += usize::from(is_sidecar);
        *sidecars -= usize::from(replaced.is_some_and(|replaced| replaced.is_sidecar));
        self.count.send_replace(entries.len());
        Some(Poll { polls: self, pod_uid, number, superseded })
    }

    /// Returns how many wait, for who counts them.
    #[cfg(test)]
    pub(super) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
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
        let is_mine = |entry: &Entry| entry.number == self.number;
        if waiting.entries.get(&self.pod_uid).is_some_and(is_mine)
            && let Some(entry) = waiting.entries.remove(&self.pod_uid)
        {
            waiting.sidecars -= usize::from(entry.is_sidecar);
        }
        self.polls.count.send_replace(waiting.entries.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_ask_of_a_pod_ends_the_older_one_and_keeps_its_place() {
        let polls = Polls::default();
        let (first, other) = (polls.enter("a", false).unwrap(), polls.enter("b", true).unwrap());
        let second = polls.enter("a", false).unwrap();
        first.superseded().await;
        assert!(!second.superseded.is_cancelled() && !other.superseded.is_cancelled());
        drop(first);
        assert_eq!(*polls.count().borrow(), 2);
        let third = polls.enter("a", false).unwrap();
        second.superseded().await;
        drop((second, third, other));
        assert_eq!(*polls.count().borrow(), 0);
    }

    #[test]
    fn more_than_fit_are_turned_away_and_who_waits_may_ask_anew() {
        let polls = Polls::default();
        let waiting: Vec<_> = (0..POLLS_MAX).map(|number| polls.enter(&number.to_string(), false).unwrap()).collect();
        assert!(polls.enter("one more", false).is_none());
        assert!(polls.enter("7", false).is_some());
        drop(waiting);
        assert!(polls.enter("one more", false).is_some());
    }

    #[test]
    fn sidecars_leave_half_of_it_to_the_agents_of_nodes() {
        let polls = Polls::default();
        let enter = |number: usize, is_sidecar| polls.enter(&format!("{is_sidecar} {number}"), is_sidecar);
        let mut sidecars: Vec<_> = (0..SIDECAR_POLLS_MAX).map(|number| enter(number, true).unwrap()).collect();
        assert!(enter(SIDECAR_POLLS_MAX, true).is_none());
        sidecars.push(enter(7, true).expect("who waits may ask anew"));
        let nodes: Vec<_> = (0..POLLS_MAX - SIDECAR_POLLS_MAX).map(|number| enter(number, false).unwrap()).collect();
        assert!(enter(nodes.len(), false).is_none());
        drop(sidecars);
        assert_eq!(polls.lock().sidecars, 0);
        assert!(enter(SIDECAR_POLLS_MAX, true).is_some());
    }
}
