//! Secrets by name: `get` and nothing else, so that the operator never sees one that no Backend names.
//!
//! # Guarantees
//! - One that is named for the first time is read at once; after that each is read again as often as told (every 30 s unless
//!   asked otherwise), so that a rotated value is in use within a minute.
//! - One that is not there, or may not be read, is told as absent with its reason, and looked for again.
//! - An API server that does not answer, or answers something else, takes nothing away: what was read last goes on, and it is asked
//!   again soon. One that was never read is told as absent [`UNANSWERED_MAX`] after it was named, where it was asked for in vain or
//!   nothing at all was answered for as long, so that nothing else waits for it.
//! - The one that is due for longest is read next: none starves, however many there are and however long answers take.
//! - Of a Secret the keys that are named are kept, and nothing of the others but that they are there; a key that is named later
//!   has it read again at once.
//! - Values are in no log line and no error.
//!
//! # Limits
//! [`AT_ONCE_MAX`] reads at a time and [`PER_SECOND_MAX`] a second for what is read again. With more than that allows
//! (120 Secrets every 30 s) the pause grows with their number instead of the load. A read takes [`READ_MAX`] at most.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::in_words;
use crate::world::{Change, SecretData, SecretName};

/// The Secrets that are named, each with the keys that are.
pub type Named = BTreeMap<SecretName, BTreeSet<String>>;

/// Most reads at a time.
pub const AT_ONCE_MAX: usize = 8;

/// Most reads a second of what was read before.
pub const PER_SECOND_MAX: u32 = 4;

/// How long a read may take.
pub const READ_MAX: Duration = Duration::from_secs(10);

/// How long after it was named one that was never read counts as absent, where the API server does not say what it is.
pub const UNANSWERED_MAX: Duration = Duration::from_secs(15);

/// How soon one is asked for again after the first read in vain; twice as long each time, and as long as always at most.
const AGAIN_SOON: Duration = Duration::from_secs(1);

/// Reads what `wanted` names until told to stop, each again after `again`; every read is sent as a change, also one that found
/// the same.
pub async fn read(
    client: Client,
    again: Duration,
    mut wanted: watch::Receiver<Named>,
    out: mpsc::Sender<Change>,
    stop: CancellationToken,
) {
    let mut turns = Turns::new(again);
    let mut reads = FuturesUnordered::new();
    loop {
        turns.are_of(&wanted.borrow_and_update());
        while reads.len() < AT_ONCE_MAX
            && let Some((name, keys)) = turns.begin(Instant::now())
        {
            reads.push(look(&client, name, keys));
        }
        let next = turns.next(reads.len() < AT_ONCE_MAX);
        let changes = tokio::select! {
            () = stop.cancelled() => return,
            changed = wanted.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            Some((name, keys, found)) = reads.next() => {
                turns.note((name, &keys), found, Instant::now()).into_iter().collect()
            }
            () = at(next) => turns.given_up(Instant::now()),
        };
        for change in changes {
            if out.send(change).await.is_err() {
                return;
            }
        }
    }
}

/// Which is read when. Pure: the time is handed in.
struct Turns {
    again: Duration,
    of: BTreeMap<SecretName, Turn>,
    /// When the next one may be read again.
    not_before: Instant,
    /// When the API server said something of one last.
    answered: Instant,
}

/// When one is read next, and what became of it until now.
struct Turn {
    keys: BTreeSet<String>,
    named: Instant,
    at: Instant,
    is_under_way: bool,
    /// Whether it was asked for before.
    was_asked: bool,
    /// Whether something was told of it.
    is_told: bool,
    /// How often in a row it was asked for in vain.
    in_vain: u32,
}

/// What a read found.
enum Found {
    There(SecretData),
    /// It is not there, or may not be read.
    Absent,
    /// Nothing is known of it.
    Unanswered,
}

impl Turns {
    fn new(again: Duration) -> Self {
        let now = Instant::now();
        Self { again, of: BTreeMap::new(), not_before: now, answered: now }
    }

    /// Takes these names and no others.
    fn are_of(&mut self, named: &Named) {
        self.of.retain(|name, _| named.contains_key(name));
        let now = Instant::now();
        let first = |keys: &BTreeSet<String>| Turn {
            keys: keys.clone(),
            named: now,
            at: now,
            is_under_way: false,
            was_asked: false,
            is_told: false,
            in_vain: 0,
        };
        for (name, keys) in named {
            let turn = self.of.entry(name.clone()).or_insert_with(|| first(keys));
            if !keys.is_subset(&turn.keys) {
                (turn.at, turn.was_asked) = (now, false);
            }
            turn.keys.clone_from(keys);
        }
    }

    /// Returns the one to be read now: of those that are due, one that was never asked for, else the one that is due for longest.
    fn begin(&mut self, now: Instant) -> Option<(SecretName, BTreeSet<String>)> {
        let may_again = self.not_before <= now;
        let due = self.of.iter_mut().filter(|(_, turn)| !turn.is_under_way && turn.at <= now);
        let due = due.filter(|(_, turn)| !turn.was_asked || may_again);
        let (name, turn) = due.min_by_key(|(_, turn)| (turn.was_asked, turn.at))?;
        if turn.was_asked {
            self.not_before = now + Duration::from_secs(1) / PER_SECOND_MAX;
        }
        (turn.is_under_way, turn.was_asked) = (true, true);
        Some((name.clone(), turn.keys.clone()))
    }

    /// Returns when there is something to do although nothing comes.
    fn next(&self, has_room: bool) -> Option<Instant> {
        let waiting = self.of.values().filter(|turn| !turn.is_under_way && has_room);
        let due = waiting.map(|turn| if turn.was_asked { turn.at.max(self.not_before) } else { turn.at });
        due.chain(self.of.values().filter_map(|turn| self.gives_up(turn))).min()
    }

    /// Returns when one counts as absent without an answer.
    fn gives_up(&self, turn: &Turn) -> Option<Instant> {
        let since = if turn.in_vain > 0 { turn.named } else { turn.named.max(self.answered) };
        (!turn.is_told).then_some(since + UNANSWERED_MAX)
    }

    /// Takes note of what a read for these keys found; returns what is to be told, if something is.
    fn note(&mut self, (name, keys): (SecretName, &BTreeSet<String>), found: Found, now: Instant) -> Option<Change> {
        let turn = self.of.get_mut(&name)?;
        turn.is_under_way = false;
        let data = match found {
            Found::There(data) => Some(data),
            Found::Absent => None,
            Found::Unanswered => {
                turn.at = now + AGAIN_SOON.saturating_mul(1 << turn.in_vain.min(16)).min(self.again);
                turn.in_vain = turn.in_vain.saturating_add(1);
                return None;
            }
        };
        (turn.at, turn.is_told, turn.in_vain) = (now + self.again, true, 0);
        if !turn.keys.is_subset(keys) {
            // Named while it was read.
            (turn.at, turn.was_asked) = (now, false);
        }
        self.answered = now;
        Some(Change::Secret(name, data))
    }

    /// Returns those that count as absent from now on, for nothing is said of them.
    fn given_up(&mut self, now: Instant) -> Vec<Change> {
        let is_over = |turn: &Turn| self.gives_up(turn).is_some_and(|at| at <= now);
        let over: Vec<SecretName> =
            self.of.iter().filter(|(_, turn)| is_over(turn)).map(|(name, _)| name.clone()).collect();
        for name in &over {
            if let Some(turn) = self.of.get_mut(name) {
                turn.is_told = true;
            }
        }
        over.into_iter().map(|name| Change::Secret(name, None)).collect()
    }
}

/// Resolves at that moment; never where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn look(client: &Client, name: SecretName, keys: BTreeSet<String>) -> (SecretName, BTreeSet<String>, Found) {
    let api: Api<Secret> = Api::namespaced(client.clone(), &name.0);
    let error = match timeout(READ_MAX, api.get_opt(&name.1)).await {
        Ok(Ok(Some(secret))) => {
            let all = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
            let data = SecretData::of(&secret.metadata.resource_version.unwrap_or_default(), all, &keys);
            return (name, keys, Found::There(data));
        }
        Ok(Ok(None)) => return (name, keys, Found::Absent),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let may_not = matches!(&error, Some(kube::Error::Api(status)) if matches!(status.code, 403 | 404));
    let error = error.map_or_else(|| "no answer in time".to_owned(), |error| in_words(&error));
    tracing::warn!(namespace = &*name.0, name = &*name.1, error, "a Secret cannot be read");
    (name, keys, if may_not { Found::Absent } else { Found::Unanswered })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;
    use crate::cluster::hand_made::{answer, refused};

    /// A hand-made API server with the Secret `a/s`, and what is told of it by the one that reads it.
    struct Stage {
        code: watch::Sender<u16>,
        asked: watch::Receiver<u32>,
        told: mpsc::Receiver<Change>,
    }

    impl Stage {
        /// Returns whether the Secret is there, as it is told next.
        async fn is_there(&mut self) -> bool {
            let Some(Change::Secret(_, data)) = self.told.recv().await else { panic!("nothing is told") };
            data.is_some()
        }

        /// Waits until the API server was asked so often again; nothing is told meanwhile.
        async fn asked_again(&mut self, times: u32) {
            let until = *self.asked.borrow() + times;
            tokio::select! {
                biased;
                change = self.told.recv() => panic!("told: {}", change.is_some()),
                asked = self.asked.wait_for(|count| *count >= until) => drop(asked.expect("it is read")),
            }
        }

        fn answers(&self, code: u16) {
            self.code.send_replace(code);
        }
    }

    /// Has the Secret read of an API server that answers so, for as long as `script` takes.
    async fn stage(code: u16, script: impl AsyncFnOnce(Stage)) {
        let (code, codes) = watch::channel(code);
        let (ask, asked) = watch::channel(0);
        let service = service_fn(move |_: http::Request<Body>| {
            ask.send_modify(|count| *count += 1);
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"token": "dDE="},
                "metadata": {"name": "s", "namespace": "a", "resourceVersion": "7"}});
            let code = *codes.borrow();
            let answer = if code == 200 { answer(200, &secret) } else { refused(code, "no") };
            async move { Ok::<_, Infallible>(answer) }
        });
        let (_names, wanted) = watch::channel(Named::from([(("a".into(), "s".into()), ["token".to_owned()].into())]));
        let (out, told) = mpsc::channel(1);
        let client = Client::new(service, "a");
        tokio::select! {
            () = read(client, Duration::from_secs(30), wanted, out, CancellationToken::new()) => panic!("it ended"),
            () = script(Stage { code, asked, told }) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_fails_takes_nothing_away() {
        stage(200, async |mut stage| {
            assert!(stage.is_there().await);
            for code in [429, 500, 503, 504, 401] {
                stage.answers(code);
                stage.asked_again(10).await;
                stage.answers(200);
                assert!(stage.is_there().await, "{code}");
            }
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_read_any_more_or_is_gone_is_absent() {
        for code in [403, 404] {
            stage(200, async |mut stage| {
                assert!(stage.is_there().await);
                stage.answers(code);
                assert!(!stage.is_there().await, "{code}");
                stage.answers(200);
                assert!(stage.is_there().await, "{code}");
            })
            .await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_never_read_is_waited_for_and_then_keeps_nothing_waiting() {
        stage(503, async |mut stage| {
            let began = Instant::now();
            assert!(!stage.is_there().await);
            assert_eq!(began.elapsed(), UNANSWERED_MAX);
            let asked = *stage.asked.borrow();
            assert!((4..=5).contains(&asked), "after 0, 1, 3 and 7 seconds, and maybe at that moment: {asked}");
            stage.answers(200);
            assert!(stage.is_there().await, "it is asked for all the same");
        })
        .await;
    }

    fn names(count: u32) -> Named {
        (0..count).map(|number| (("a".into(), format!("s{number:03}").into()), BTreeSet::new())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_named_later_has_its_secret_read_at_once() {
        let named = |keys: &[&str]| -> Named {
            [(("a".into(), "s".into()), keys.iter().map(|key| (*key).to_owned()).collect())].into()
        };
        let mut turns = Turns::new(Duration::from_secs(30));
        turns.are_of(&named(&["one"]));
        let (name, keys) = turns.begin(Instant::now()).unwrap();
        // While it is read, too.
        turns.are_of(&named(&["one", "two"]));
        turns.note((name, &keys), Found::Absent, Instant::now());
        let (name, keys) = turns.begin(Instant::now()).unwrap();
        assert_eq!(keys.len(), 2);
        turns.note((name, &keys), Found::Absent, Instant::now());
        assert!(turns.begin(Instant::now()).is_none());
        turns.are_of(&named(&["two"]));
        assert!(turns.begin(Instant::now()).is_none(), "one that nobody names any more is no cause");
        turns.are_of(&named(&["two", "three"]));
        assert!(turns.begin(Instant::now()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn of_more_than_can_be_read_in_time_each_is_read_in_its_turn() {
        let mut turns = Turns::new(Duration::from_secs(5));
        turns.are_of(&names(40));
        let mut read = BTreeMap::<SecretName, u32>::new();
        for _ in 0..60 * PER_SECOND_MAX {
            while let Some((name, keys)) = turns.begin(Instant::now()) {
                *read.entry(name.clone()).or_default() += 1;
                turns.note((name, &keys), Found::Absent, Instant::now());
            }
            tokio::time::advance(Duration::from_secs(1) / PER_SECOND_MAX).await;
        }
        // The first time at once, and then 240 turns for forty.
        let (least, most) = (read.values().min().unwrap(), read.values().max().unwrap());
        assert_eq!((read.len(), most - least <= 1, *least >= 6), (40, true, true), "{least} to {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_answered_all_count_as_absent_at_once() {
        let mut turns = Turns::new(Duration::from_secs(30));
        turns.are_of(&names(100));
        let begun = (0..AT_ONCE_MAX).filter(|_| turns.begin(Instant::now()).is_some()).count();
        assert_eq!(begun, AT_ONCE_MAX);
        assert_eq!(turns.next(false), Some(Instant::now() + UNANSWERED_MAX));
        tokio::time::advance(Duration::from_secs(14)).await;
        assert_eq!(turns.given_up(Instant::now()).len(), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(turns.given_up(Instant::now()).len(), 100, "also those that nobody came to yet");
        assert_eq!(turns.given_up(Instant::now()).len(), 0);
    }
}
