//! What is to be written to the API server: the last wish of each object, at a bounded rate.
//!
//! # Guarantees
//! - The last value that was wanted of an object is what is written in the end; what was wanted in between may be skipped.
//! - Values of one object are written one after the other, with a rest between them.
//! - The object that waits longest comes first, however often others change.
//! - A write that fails is made again, unless something newer is wanted; one that finds the object gone is given up.
//!
//! # Limits
//! [`AT_ONCE_MAX`] writes at a time; one value waits per object, and an object rests as long as its queue says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::in_words;
use crate::world::ObjectKey;

/// Most writes at a time.
pub const AT_ONCE_MAX: usize = 8;

/// How long an object rests between two writes of its status, or of its last good version.
pub const REST: Duration = Duration::from_secs(1);

/// How long an object rests between two Events.
pub const REST_OF_EVENTS: Duration = Duration::from_secs(10);

/// How long an object rests after a write that failed.
const REST_FAILED: Duration = Duration::from_secs(5);

/// What is wanted of one object.
pub type Wish<V> = (ObjectKey, V);

/// Writes what is wished for with `write` until told to stop, or until nobody can wish any more. `what` names a value in log
/// lines; an object rests for `rest` after a write.
pub async fn run<V, W, F>(
    (what, rest): (&'static str, Duration),
    mut wishes: mpsc::Receiver<Wish<V>>,
    write: W,
    stop: CancellationToken,
) where
    V: Clone,
    W: Fn(ObjectKey, V) -> F,
    F: Future<Output = kube::Result<()>>,
{
    let mut queue = Queue::<V>::new(rest);
    let mut writes = FuturesUnordered::new();
    loop {
        let mut look_again = None;
        while writes.len() < AT_ONCE_MAX {
            let (next, again) = queue.next(Instant::now());
            look_again = again;
            let Some((key, value)) = next else { break };
            let written = write(key.clone(), value.clone());
            writes.push(async move { (key, value, written.await) });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            wish = wishes.recv() => match wish {
                Some((key, value)) => queue.want(key, value),
                None => return,
            },
            Some((key, value, result)) = writes.next() => {
                if let Err(error) = &result {
                    tell(what, &key, error);
                }
                queue.done(key, value, &result, Instant::now());
            }
            () = until(look_again) => {}
        }
    }
}

fn tell(what: &'static str, key: &ObjectKey, error: &kube::Error) {
    if !is_gone(error) {
        tracing::warn!(what, object = key.label(), error = in_words(error), "cannot be written; it is tried again");
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if answer.code == 404)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[derive(Debug)]
struct Queue<V> {
    rest: Duration,
    /// What is wanted, and the turn of the object.
    wanted: BTreeMap<ObjectKey, (u64, V)>,
    /// The objects that wait, by turn.
    turns: BTreeMap<u64, ObjectKey>,
    last_turn: u64,
    resting: BTreeMap<ObjectKey, Instant>,
    /// Written now.
    busy: BTreeSet<ObjectKey>,
}

impl<V> Queue<V> {
    fn new(rest: Duration) -> Self {
        Self {
            rest,
            wanted: BTreeMap::new(),
            turns: BTreeMap::new(),
            last_turn: 0,
            resting: BTreeMap::new(),
            busy: BTreeSet::new(),
        }
    }

    /// Wants `value` of an object, in place of what was wanted of it: it keeps its turn.
    fn want(&mut self, key: ObjectKey, value: V) {
        if let Some((_, wanted)) = self.wanted.get_mut(&key) {
            *wanted = value;
            return;
        }
        self.last_turn += 1;
        self.turns.insert(self.last_turn, key.clone());
        self.wanted.insert(key, (self.last_turn, value));
    }

    /// Returns what may be written now, and when to look again otherwise.
    fn next(&mut self, now: Instant) -> (Option<Wish<V>>, Option<Instant>) {
        self.resting.retain(|_, until| *until > now);
        let is_free = |key: &&ObjectKey| !self.busy.contains(*key) && !self.resting.contains_key(*key);
        let Some(key) = self.turns.values().find(is_free).cloned() else {
            return (None, self.turns.values().filter_map(|key| self.resting.get(key)).min().copied());
        };
        self.busy.insert(key.clone());
        let wanted = self.wanted.remove(&key).map(|(turn, value)| {
            self.turns.remove(&turn);
            (key, value)
        });
        (wanted, None)
    }

    fn done(&mut self, key: ObjectKey, value: V, result: &kube::Result<()>, now: Instant) {
        self.busy.remove(&key);
        match result {
            Ok(()) => drop(self.resting.insert(key, now + self.rest)),
            Err(error) if is_gone(error) => {}
            Err(_) => {
                self.resting.insert(key.clone(), now + REST_FAILED);
                if !self.wanted.contains_key(&key) {
                    self.want(key, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::kinds::Kind;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::Backend, "n", name)
    }

    fn failed(code: u16) -> kube::Result<()> {
        let mut status = kube::core::Status::failure("no", "No");
        status.code = code;
        Err(kube::Error::Api(Box::new(status)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_rests_between_writes_and_the_last_wish_counts() {
        let mut queue = Queue::new(REST);
        let now = Instant::now();
        queue.want(key("a"), 1);
        assert_eq!(queue.next(now).0, Some((key("a"), 1)));
        queue.want(key("a"), 2);
        assert_eq!(queue.next(now).0, None, "it is being written");
        queue.done(key("a"), 1, &Ok(()), now);
        queue.want(key("a"), 3);
        assert_eq!(queue.next(now), (None, Some(now + REST)));
        assert_eq!(queue.next(now + REST).0, Some((key("a"), 3)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_longest_is_written_first_whatever_its_name_and_however_often_others_change() {
        let mut queue = Queue::new(REST);
        let now = Instant::now();
        queue.want(key("z"), 1);
        queue.want(key("a"), 1);
        queue.want(key("z"), 2);
        assert_eq!(queue.next(now).0, Some((key("z"), 2)), "it keeps its turn, with its last value");
        queue.done(key("z"), 2, &Ok(()), now);
        queue.want(key("b"), 1);
        assert_eq!(queue.next(now).0, Some((key("a"), 1)));
        queue.done(key("a"), 1, &Ok(()), now);
        queue.want(key("a"), 2);
        assert_eq!(queue.next(now + REST).0, Some((key("b"), 1)));
        assert_eq!(queue.next(now + REST).0, Some((key("a"), 2)));
        assert_eq!(queue.next(now + REST), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_failed_is_made_again_unless_something_newer_is_wanted() {
        let mut queue = Queue::new(REST);
        let now = Instant::now();
        queue.want(key("a"), 1);
        queue.next(now);
        queue.done(key("a"), 1, &failed(500), now);
        assert_eq!(queue.next(now + REST_FAILED).0, Some((key("a"), 1)));
        queue.want(key("a"), 2);
        queue.done(key("a"), 1, &failed(409), now);
        assert_eq!(queue.next(now + REST_FAILED).0, Some((key("a"), 2)), "the newer one");
        queue.done(key("a"), 2, &failed(404), now);
        assert_eq!(queue.next(now + REST_FAILED), (None, None), "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_are_written_at_a_time_and_all_in_the_end() {
        let (wish, wishes) = mpsc::channel(64);
        let (written, mut seen) = mpsc::channel(64);
        let under_way = std::sync::atomic::AtomicUsize::new(0);
        for number in 0..30 {
            wish.send((key(&number.to_string()), number)).await.unwrap();
        }
        let write = |_: ObjectKey, number: i32| {
            let (written, under_way) = (written.clone(), &under_way);
            async move {
                let others = under_way.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                assert!(others < AT_ONCE_MAX);
                tokio::time::advance(Duration::from_millis(1)).await;
                under_way.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                written.send(number).await.unwrap();
                Ok(())
            }
        };
        let stop = CancellationToken::new();
        let all = async {
            let mut all = BTreeSet::new();
            while all.len() < 30 {
                all.extend(seen.recv().await);
            }
            stop.cancel();
        };
        tokio::join!(run(("a number", REST), wishes, write, stop.clone()), all);
    }
}
