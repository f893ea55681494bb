//! What is to be written to the API server: the last wish of each object, at a bounded rate.
//!
//! # Guarantees
//! - The last value that was wanted of an object is what is written in the end; what was wanted in between may be skipped.
//! - Values of one object are written one after the other, with a rest between them.
//! - The object that waits longest comes first, however often others change.
//! - A write that fails is made again, unless something newer is wanted, after a rest that doubles up to [`REST_FAILED_MAX`]; a
//!   cause is told once. One that finds the object gone is given up. One without an answer counts as failed after
//!   [`WRITE_MAX`], so that answers that never come do not take all places there are.
//! - Who does not lead begins no write, and forgets what was wanted.
//!
//! # Limits
//! [`AT_ONCE_MAX`] writes at a time; one value waits per object, and an object rests as long as its queue says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::in_words;
use super::lease::Leading;
use crate::repair::About;
use crate::world::ObjectKey;

/// Most writes at a time.
pub const AT_ONCE_MAX: usize = 8;

/// How long an object rests between two writes of its status, or of its last good version.
pub const REST: Duration = Duration::from_secs(1);

/// How long an object rests between two Events.
pub const REST_OF_EVENTS: Duration = Duration::from_secs(10);

/// How long an object rests after a write that failed for the first time.
const REST_FAILED: Duration = Duration::from_secs(5);

/// How long an object rests at most after a write that failed.
pub const REST_FAILED_MAX: Duration = Duration::from_mins(5);

/// How long a write may take. An API server gives up a request after 60 s by default, so that what is given up here is not done
/// after what is wanted then.
pub const WRITE_MAX: Duration = Duration::from_secs(70);

/// What is wanted of one object of ours.
pub type Wish<V> = (ObjectKey, V);

/// What names an object that is written.
pub trait Key: Ord + Clone {
    /// Returns it as log lines name it.
    fn label(&self) -> String;
}

impl Key for ObjectKey {
    fn label(&self) -> String {
        Self::label(self)
    }
}

impl Key for About {
    fn label(&self) -> String {
        Self::label(self)
    }
}

/// What is written, and by whom.
#[derive(Debug)]
pub struct Line {
    /// Names a value in log lines.
    pub what: &'static str,
    /// How long an object rests after a write.
    pub rest: Duration,
    /// Whether this replica leads.
    pub leading: watch::Receiver<Leading>,
}

/// Writes what is wished for with `write` until told to stop, or until nobody can wish any more.
pub async fn run<K, V, W, F>(
    Line { what, rest, mut leading }: Line,
    mut wishes: mpsc::Receiver<(K, V)>,
    write: W,
    stop: CancellationToken,
) where
    K: Key,
    V: Clone,
    W: Fn(K, V) -> F,
    F: Future<Output = kube::Result<()>>,
{
    let mut queue = Queue::<K, V>::new(rest);
    let mut writes = FuturesUnordered::new();
    loop {
        let mut look_again = None;
        while writes.len() < AT_ONCE_MAX && leading.borrow().is_some() {
            let (next, again) = queue.next(Instant::now());
            look_again = again;
            let Some((key, value)) = next else { break };
            let written = timeout(WRITE_MAX, write(key.clone(), value.clone()));
            writes.push(async move { (key, value, written.await) });
        }
        tokio::select! {
            () = stop.cancelled() => return,
            wish = wishes.recv() => match wish {
                Some((key, value)) if leading.borrow().is_some() => queue.want(key, value),
                Some(_) => {}
                None => return,
            },
            Some((key, value, result)) = writes.next() => {
                let failure = failure(result);
                if let Some(error) = failure.as_ref().filter(|error| queue.failures.get(&key).is_none_or(|known| known.words != **error)) {
                    tracing::warn!(what, object = key.label(), error, "cannot be written; it is tried again");
                }
                queue.done(key, value, failure, Instant::now());
                if leading.borrow().is_none() {
                    queue.forget();
                }
            }
            Ok(()) = leading.changed() => {
                if leading.borrow_and_update().is_none() {
                    queue.forget();
                }
            }
            () = until(look_again) => {}
        }
    }
}

/// Returns why a write is worth another attempt.
fn failure(result: Result<kube::Result<()>, Elapsed>) -> Option<String> {
    match result {
        Ok(Ok(())) => None,
        Ok(Err(kube::Error::Api(answer))) if answer.code == 404 => None,
        Ok(Err(error)) => Some(in_words(&error)),
        Err(_) => Some(format!("the API server does not answer within {} s", WRITE_MAX.as_secs())),
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[derive(Debug)]
struct Queue<K, V> {
    rest: Duration,
    /// What is wanted, and the turn of the object.
    wanted: BTreeMap<K, (u64, V)>,
    /// The objects that wait, by turn.
    turns: BTreeMap<u64, K>,
    last_turn: u64,
    resting: BTreeMap<K, Instant>,
    /// Written now.
    busy: BTreeSet<K>,
    /// Those whose last write failed.
    failures: BTreeMap<K, Failure>,
}

/// Why writes of an object fail, and how long it rests after the next.
#[derive(Debug)]
struct Failure {
    words: String,
    rest: Duration,
}

impl<K: Key, V> Queue<K, V> {
    fn new(rest: Duration) -> Self {
        Self {
            rest,
            wanted: BTreeMap::new(),
            turns: BTreeMap::new(),
            last_turn: 0,
            resting: BTreeMap::new(),
            busy: BTreeSet::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Wants `value` of an object, in place of what was wanted of it: it keeps its turn.
    fn want(&mut self, key: K, value: V) {
        if let Some((_, wanted)) = self.wanted.get_mut(&key) {
            *wanted = value;
            return;
        }
        self.last_turn += 1;
        self.turns.insert(self.last_turn, key.clone());
        self.wanted.insert(key, (self.last_turn, value));
    }

    /// Returns what may be written now, and when to look again otherwise.
    fn next(&mut self, now: Instant) -> (Option<(K, V)>, Option<Instant>) {
        self.resting.retain(|_, until| *until > now);
        let is_free = |key: &&K| !self.busy.contains(*key) && !self.resting.contains_key(*key);
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

    /// Takes note that a value was written, or why not, where it is worth another attempt.
    fn done(&mut self, key: K, value: V, failure: Option<String>, now: Instant) {
        self.busy.remove(&key);
        let Some(words) = failure else {
            self.failures.remove(&key);
            self.resting.insert(key, now + self.rest);
            return;
        };
        let rest = self.failures.get(&key).map_or(REST_FAILED, |failure| failure.rest);
        self.failures.insert(key.clone(), Failure { words, rest: (rest * 2).min(REST_FAILED_MAX) });
        self.resting.insert(key.clone(), now + rest);
        if !self.wanted.contains_key(&key) {
            self.want(key, value);
        }
    }

    /// Forgets what is wanted.
    fn forget(&mut self) {
        self.wanted.clear();
        self.turns.clear();
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use spillway_crds::kinds::Kind;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::Backend, "n", name)
    }

    fn failed(code: u16) -> kube::Result<()> {
        let mut status = kube::core::Status::failure("no", "No");
        status.code = code;
        Err(kube::Error::Api(Box::new(status)))
    }

    fn why() -> String {
        "no".to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_rests_between_writes_and_the_last_wish_counts() {
        let mut queue = Queue::new(REST);
        let now = Instant::now();
        queue.want(key("a"), 1);
        assert_eq!(queue.next(now).0, Some((key("a"), 1)));
        queue.want(key("a"), 2);
        assert_eq!(queue.next(now).0, None, "it is being written");
        queue.done(key("a"), 1, None, now);
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
        queue.done(key("z"), 2, None, now);
        queue.want(key("b"), 1);
        assert_eq!(queue.next(now).0, Some((key("a"), 1)));
        queue.done(key("a"), 1, None, now);
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
        queue.done(key("a"), 1, Some(why()), now);
        assert_eq!(queue.next(now + REST_FAILED).0, Some((key("a"), 1)));
        queue.want(key("a"), 2);
        queue.done(key("a"), 1, Some(why()), now);
        assert_eq!(queue.next(now + REST_FAILED).1, Some(now + 2 * REST_FAILED), "a longer rest each time");
        assert_eq!(queue.next(now + 2 * REST_FAILED).0, Some((key("a"), 2)), "the newer one");
        for _ in 0..20 {
            queue.done(key("a"), 2, Some(why()), now);
            queue.next(now + REST_FAILED_MAX).0.expect("never longer than that");
        }
        queue.done(key("a"), 2, None, now);
        assert_eq!(queue.next(now + REST_FAILED), (None, None));
        queue.want(key("a"), 3);
        queue.next(now + REST);
        queue.done(key("a"), 3, Some(why()), now);
        assert_eq!(queue.next(now + REST_FAILED).0, Some((key("a"), 3)), "and short again after one that got through");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leads_no_longer_writes_nothing_and_forgets_what_it_wanted() {
        let (lead, leading) = watch::channel(Some(1));
        let (wish, wishes) = mpsc::channel(4);
        let (written, mut seen) = mpsc::channel(64);
        let write = |key: ObjectKey, number: i32| {
            let (written, answer) = (written.clone(), if number == 1 { failed(500) } else { Ok(()) });
            async move {
                written.send((key.name.to_string(), number)).await.unwrap();
                answer
            }
        };
        let stop = CancellationToken::new();
        let line = Line { what: "a number", rest: REST, leading };
        let story = async {
            wish.send((key("a"), 1)).await.unwrap();
            assert_eq!(seen.recv().await, Some(("a".to_owned(), 1)));
            lead.send_replace(None);
            wish.send((key("b"), 1)).await.unwrap();
            let later = timeout(REST_FAILED_MAX, seen.recv()).await;
            assert!(later.is_err(), "written by who does not lead: {later:?}");
            lead.send_replace(Some(3));
            wish.send((key("c"), 2)).await.unwrap();
            assert_eq!(seen.recv().await, Some(("c".to_owned(), 2)));
            let later = timeout(REST_FAILED_MAX, seen.recv()).await;
            assert!(later.is_err(), "of an earlier term: {later:?}");
            stop.cancel();
        };
        tokio::join!(run(line, wishes, write, stop.clone()), story);
    }

    #[tokio::test(start_paused = true)]
    async fn writes_without_an_answer_hold_up_no_other_and_are_made_again() {
        let (wish, wishes) = mpsc::channel(64);
        let (written, mut seen) = mpsc::channel(64);
        for number in 0..AT_ONCE_MAX {
            wish.send((key(&format!("hangs-{number}")), 0)).await.unwrap();
        }
        wish.send((key("other"), 0)).await.unwrap();
        let write = |key: ObjectKey, _: i32| {
            let written = written.clone();
            async move {
                written.send((key.name.to_string(), Instant::now())).await.unwrap();
                let hangs = key.name.starts_with("hangs").then(std::future::pending::<()>);
                futures_util::future::OptionFuture::from(hangs).await;
                Ok(())
            }
        };
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let story = async {
            for _ in 0..AT_ONCE_MAX {
                assert!(seen.recv().await.unwrap().0.starts_with("hangs"));
            }
            let (name, at) = seen.recv().await.unwrap();
            assert_eq!((name.as_str(), at - began), ("other", WRITE_MAX));
            let (name, at) = seen.recv().await.unwrap();
            assert!(name.starts_with("hangs") && at - began == WRITE_MAX + REST_FAILED, "{name} {:?}", at - began);
            stop.cancel();
        };
        let (_lead, leading) = watch::channel(Some(1));
        let line = Line { what: "a number", rest: REST, leading };
        tokio::join!(run(line, wishes, write, stop.clone()), story);
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
        let (_lead, leading) = watch::channel(Some(1));
        let line = Line { what: "a number", rest: REST, leading };
        tokio::join!(run(line, wishes, write, stop.clone()), all);
    }
}
