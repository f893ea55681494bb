//! Progress made durable, and the end of a removed reference.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::breaker::Blame;
use super::deliveries::Task;
use super::delivery::{DRAIN_LOOK_PERIOD, Delivery, Flights, begun};
use super::failover::news;
use super::give_up::asked;
use super::group::{Done, Health};
use super::life::{Parted, reordered};
use super::settle::REVOKED;
use super::{PROCESS_SYNC_BYTES, PROCESS_SYNC_PERIOD, SAVE_BYTES, SAVE_PERIOD, status};
use crate::backend::{Fault, FaultKind, Mark};
use crate::log::{DeliveryKey, Log, Progress};
use crate::settings::Durability;

/// The reason under which events are counted that went with a process at level `Memory`, as far as the log knows of them.
const LOST: &str = "lost";

/// How long after a save that failed the next one is tried.
const SAVE_AGAIN_PERIOD: Duration = Duration::from_secs(1);

/// How long one that was removed waits at most for the others of its route to write down what it resolved.
const TAKING_MAX: Duration = Duration::from_secs(5);

impl Delivery {
    pub(super) fn save_due(&self, flights: &Flights) -> bool {
        let hurry = self.hurries();
        let dirty = self.save_is_ripe() || (hurry && self.dirty_since.is_some());
        let sync = self.unsynced && (hurry || self.sync_at().is_some_and(|at| at <= Instant::now()));
        let may = self.save_not_before.is_none_or(|earliest| earliest <= Instant::now());
        may && (dirty || sync || self.damage_is_new(flights))
            && !self.reopen
            && (!self.target.traits.commits || flights.is_empty())
    }

    /// Returns when what was saved shall survive power loss at the latest: only what does frees files, and only behind that
    /// a backend that commits never goes back.
    pub(super) fn sync_at(&self) -> Option<Instant> {
        let log = &self.ground.log;
        let wanted = self.target.traits.commits || log.durability() != Durability::Memory || log.holds_files();
        wanted.then_some(self.synced_at + PROCESS_SYNC_PERIOD)
    }

    /// Whether what is resolved is to be safe at once.
    fn hurries(&self) -> bool {
        *self.ground.hurry.borrow() || self.pressed || self.gives_way() || self.is_on_trial()
    }

    /// Whether a backend that commits took something after it had failed: only its commit says that it is well.
    pub(super) fn is_on_trial(&self) -> bool {
        self.uncommitted && !self.is_healthy()
    }

    /// Whether damage was met since the ledger was last made whole, and it can be made whole now.
    fn damage_is_new(&self, flights: &Flights) -> bool {
        let may = self.damage_not_before.is_none_or(|earliest| earliest <= Instant::now());
        may && flights.is_empty() && self.ground.job.is_none() && self.ground.log.damage_passed() != self.damage_counted
    }

    /// Whether progress has waited for its save as long, or grown as much, as it may.
    pub(super) fn save_is_ripe(&self) -> bool {
        self.dirty_since.is_some_and(|since| since.elapsed() >= SAVE_PERIOD || self.dirty_bytes >= SAVE_BYTES)
    }

    /// Commits the backend where it wants that, then saves the cursor. Batches under way go on meanwhile.
    pub(super) async fn save(&mut self, flights: &mut Flights, last: bool) {
        let disk = self.ground.log.durability() == Durability::Disk;
        let much = self.unsynced_bytes + self.dirty_bytes >= PROCESS_SYNC_BYTES;
        let due = self.sync_at().is_some_and(|at| much || at <= Instant::now());
        let sync = disk || last || self.hurries() || due;
        if self.target.traits.commits {
            match self.mark(sync).await {
                Ok(mark) => self.progress.mark = mark,
                Err(fault) => return self.rewind(&fault),
            }
        }
        if flights.is_empty() {
            self.reconcile_damage();
        }
        self.store(sync).await;
    }

    /// Asks a backend that commits where it stands. It has as long as an attempt: one that hangs has lost its place, so that
    /// a full log is not held by it.
    pub(super) async fn mark(&self, sync: bool) -> Result<Option<Mark>, Fault> {
        let (backend, within) = (&self.target.spec.backend, self.target.spec.settings.timeout);
        let marked = async { if sync { backend.commit().await } else { backend.checkpoint().await } };
        let late = |_| Err(Fault::new(FaultKind::Timeout, format_args!("no commit within {within:?}")));
        tokio::time::timeout(within, marked).await.unwrap_or_else(late)
    }

    /// Saves the cursor as it is.
    pub(super) async fn store(&mut self, sync: bool) {
        self.pressed = false;
        match self.ground.log.save(&self.key, &self.progress, sync).await {
            Ok(()) => self.saved(sync),
            // The backend must not commit on over a mark that is not stored.
            Err(error) if self.target.traits.commits => self.rewind(&Fault::new(FaultKind::Local, error)),
            Err(error) => {
                // One line for the first of a row.
                if self.save_not_before.is_none() {
                    tracing::warn!(%error, route = %self.key.route, backend = %self.target.spec.backend_name, "cursor is not saved");
                }
                self.ground.status.unsaved(&error.to_string());
                self.save_not_before = Some(Instant::now() + SAVE_AGAIN_PERIOD);
            }
        }
    }

    fn saved(&mut self, sync: bool) {
        self.unsynced_bytes = if sync { 0 } else { self.unsynced_bytes + self.dirty_bytes };
        self.dirty_since = None;
        self.dirty_bytes = 0;
        self.save_not_before = None;
        self.unsynced = !sync;
        if sync {
            self.synced_at = Instant::now();
            self.committed();
        }
        if sync || !self.target.traits.commits {
            self.kept.clone_from(&self.progress);
        }
        self.note_passed();
        self.show();
        self.ground.log.reached(&self.key, self.progress.cursor);
        if self.ground.drain_until_ms.is_none() {
            self.ground.status.saved(self.progress.cursor);
        }
    }

    /// Tells the log below what this delivery never reads again. A backend that commits may lose what it was given since the
    /// last commit that was synced.
    pub(super) fn note_passed(&self) {
        let fixed = if self.target.traits.commits { &self.kept } else { &self.progress };
        self.ground.log.passed(&self.key, fixed.cursor);
    }

    /// After a failed commit nothing is known of what was delivered since the last one that was synced: it is sent again,
    /// from there.
    pub(super) fn rewind(&mut self, fault: &Fault) {
        self.failed(fault, Blame::Destination);
        self.uncommitted = false;
        self.delivered_bytes = 0;
        self.progress.clone_from(&self.kept);
        self.begin_anew();
        self.takes_again();
        self.ground.log.reached(&self.key, self.progress.cursor);
        self.dirty_since = None;
        self.dirty_bytes = 0;
        self.reopen = true;
    }

    /// Goes back to what its progress says was begun.
    pub(super) fn begin_anew(&mut self) {
        let (retry, from) = begun(&self.progress, &self.ground);
        self.retry = retry;
        self.former.rewind(from);
    }

    /// Opens the backend again at its last mark, where it lost its place. Returns whether it has one now. The mark is
    /// saved first: a process that dies in between must not find a cursor ahead of what opening cuts.
    pub(super) async fn has_place(&mut self) -> bool {
        if !self.reopen {
            return true;
        }
        let saved = self.ground.log.save(&self.key, &self.progress, true).await;
        let opened = match saved {
            Ok(()) => self.open_once().await,
            Err(error) => Err(Fault::new(FaultKind::Local, error)),
        };
        match opened {
            Ok(()) => self.reopen = false,
            Err(fault) => drop(self.failed(&fault, Blame::Destination)),
        }
        !self.reopen
    }

    /// Opens the backend at its mark, and does meanwhile what the log asks: one that hangs must not hold a full log.
    async fn open_once(&mut self) -> Result<(), Fault> {
        let backend = self.target.spec.backend.clone();
        let mut opened = backend.open(self.progress.mark.clone());
        let mut patience = Some(Instant::now() + self.target.spec.settings.timeout);
        loop {
            let (follows, attend_at) = (self.awaits_others(true), self.attend_at());
            tokio::select! {
                opened = &mut opened => return opened,
                () = asked(&mut self.asks) => self.make_room(None).await,
                () = news(&mut self.following, follows) => self.attend().await,
                () = sleep_until(attend_at.unwrap_or_else(Instant::now)), if attend_at.is_some() => self.attend().await,
                () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                    // Others of its route do not wait for one that hangs.
                    patience = None;
                    self.tell_group_that(Health::Ill, 0);
                }
            }
        }
    }

    /// Opens the backend at its mark, as often as it takes, or until a removed reference's time is over.
    pub(super) async fn open_backend(&mut self, stop: &CancellationToken) -> bool {
        self.reopen = true;
        while let Err(fault) = self.open_once().await {
            let mut wait = self.failed(&fault, Blame::Destination);
            self.tell_group(0);
            if self.ground.drain_until_ms.is_some() {
                wait = wait.min(DRAIN_LOOK_PERIOD);
            }
            let until = Instant::now() + wait;
            while Instant::now() < until {
                self.attend().await;
                let follows = self.awaits_others(true);
                let until = self.attend_at().map_or(until, |at| until.min(at));
                tokio::select! {
                    () = stop.cancelled() => return false,
                    () = reordered(&mut self.ground.orders) => return false,
                    () = asked(&mut self.asks) => self.make_room(None).await,
                    () = news(&mut self.following, follows) => {}
                    () = sleep_until(until) => {}
                }
            }
            if self.drained(true).await {
                return false;
            }
        }
        self.reopen = false;
        if self.target.traits.commits && self.progress.mark.is_none() {
            // Where it begins is committed before anything is sent: what comes behind it is known to be uncommitted.
            self.save(&mut Flights::new(), true).await;
        }
        true
    }

    /// Whether a removed reference has had its time.
    pub(super) fn drain_is_over(&self) -> bool {
        self.ground.drain_until_ms.is_some_and(|until_ms| self.ground.log.running_ms() >= until_ms)
    }

    /// Whether a removed reference has come to its end: nothing held, or its time over; what it holds then goes to the dead
    /// letters, and what finds no room there is dropped.
    pub(super) async fn drained(&mut self, idle: bool) -> bool {
        if self.ground.job.is_some() {
            return idle && self.job_is_over().await;
        }
        if self.ground.drain_until_ms.is_none() || !idle {
            return false;
        }
        // A log that cannot be read now says nothing of what it holds.
        let Ok(account) = status::account(&self.ground.log, &self.key, &self.progress) else { return false };
        if (account.held > 0 && !self.drain_is_over()) || !self.settled().await {
            return false;
        }
        if !self.is_taken_over() {
            return false;
        }
        if account.held > 0 && self.ground.released.is_none() && (self.ends_later() || !self.bury().await) {
            return false;
        }
        let Ok(account) = status::account(&self.ground.log, &self.key, &self.progress) else { return false };
        // Whoever gives orders holds this lock: either the order was here before, or it finds nobody.
        let deliveries = self.ground.deliveries.clone();
        let mut orders = deliveries.orders.lock().await;
        if self.ground.orders.has_changed().unwrap_or(false) {
            return false;
        }
        if let Err(error) = self.ground.log.forget(&self.key).await {
            tracing::warn!(%error, "could not forget a removed reference; trying again");
            return false;
        }
        if account.held > 0 && self.ground.released.is_some() {
            self.progress.elsewhere += account.held;
            tracing::info!(
                route = %self.key.route, backend = %self.target.spec.backend_name, events = account.held,
                "removed reference leaves what it held to the others of its route"
            );
        } else if account.held > 0 {
            let reason = if self.ground.revoked { REVOKED } else { "drained" };
            self.progress.drop_events(reason, account.held, account.held_bytes);
            tracing::warn!(
                route = %self.key.route, backend = %self.target.spec.backend_name, events = account.held, reason,
                "removed reference has had its time; what the dead letters have no room for is dropped"
            );
        }
        self.progress.plans.clear();
        self.progress.left.clear();
        self.progress.resolve(self.progress.cursor, self.ground.log.visible_end());
        self.ground.status.show(&self.progress);
        self.ended = true;
        // Before anybody else may begin in its place.
        self.target.spec.backend.close().await;
        orders.remove(&self.key);
        deliveries.end(&self.key);
        true
    }

    /// Whether the others of its group have written down what it resolved: a process that dies when it is forgotten must not
    /// find that with nobody. Some that are busy take nothing for long: they are not waited for.
    fn is_taken_over(&self) -> bool {
        let Some(group) = &self.ground.released else { return true };
        let since_ms = self.progress.removed.map_or(0, |removed| removed.since_ms);
        let waited = Duration::from_millis(self.ground.log.running_ms().saturating_sub(since_ms));
        // A process that ends lets all save before it does.
        let ends = *self.ground.hurry.borrow();
        ends || waited >= TAKING_MAX || group.has_taken(&Done::of(&self.progress))
    }

    /// Commits what was delivered before the mark is forgotten, and once more: only the second proves to the backend that
    /// the first was stored.
    async fn settled(&mut self) -> bool {
        if !self.target.traits.commits || self.reopen {
            return true;
        }
        self.save(&mut Flights::new(), true).await;
        !self.reopen && self.dirty_since.is_none() && self.mark(true).await.is_ok()
    }

    /// Leaves the backend, unless the next order goes on with it.
    pub(super) async fn part(mut self) -> Parted {
        self.ground.was_well = self.is_healthy();
        let stays = {
            let next = self.ground.orders.borrow();
            let sends = !matches!(next.task, Task::Rest);
            next.has_changed() && sends && Arc::ptr_eq(&next.spec.backend, &self.target.spec.backend)
        };
        if !stays && !self.ended {
            if !self.reopen && self.target.traits.commits {
                // Proves that the last mark was stored, for a backend that may be opened without it.
                drop(self.mark(true).await);
            }
            self.target.spec.backend.close().await;
        }
        Parted { ground: self.ground, progress: self.progress, ended: self.ended }
    }

    /// Whether a job has resolved all of its range, and that is saved for good.
    async fn job_is_over(&mut self) -> bool {
        let end = self.progress.removed.map_or(u64::MAX, |removed| removed.end_seq);
        let later = self.save_not_before.is_some_and(|earliest| earliest > Instant::now());
        if self.progress.cursor < end || self.reopen || later {
            return false;
        }
        self.save(&mut Flights::new(), true).await;
        let saved = self.dirty_since.is_none() && !self.unsynced && !self.reopen;
        self.ended = saved && self.settled().await;
        if self.ended {
            self.target.spec.backend.close().await;
        }
        self.ended
    }

    /// Damage in the log takes events away that were routed: they are counted as dropped, so that the ledger stays whole.
    fn reconcile_damage(&mut self) {
        let log = &self.ground.log;
        if log.damaged() == 0 || self.ground.job.is_some() {
            return;
        }
        let passed = log.damage_passed();
        let Ok(account) = status::account(log, &self.key, &self.progress) else {
            self.damage_not_before = Some(Instant::now() + SAVE_AGAIN_PERIOD);
            return;
        };
        (self.damage_counted, self.damage_not_before) = (passed, None);
        if account.imbalance > 0 {
            damaged(&mut self.progress, &self.key, account.imbalance);
        }
    }
}

fn damaged(progress: &mut Progress, key: &DeliveryKey, events: i64) {
    progress.drop_events("damaged", events as u64, 0);
    tracing::error!(route = %key.route, events, "events lost by damage of the log");
}

/// A backend that commits is not sent back to a place whose successors the log does not hold any more: it would cut what nobody
/// sends again. It begins anew behind all it has.
fn forget_place(progress: &mut Progress, key: &DeliveryKey) {
    if progress.mark.take().is_some() {
        tracing::error!(
            route = %key.route, cursor = progress.cursor,
            "the record of what was committed is lost; what is there stays as it is, and some may come twice"
        );
    }
}

/// Brings a delivery's figures and the log's to agree when a log is opened. A log that lost its own totals (power loss at
/// level `Process`, a quarantined segment, a process killed at level `Memory`) must not make more delivered than was routed,
/// nor less where it counts what everybody had passed and the record of that is lost.
pub(super) async fn reconciled(log: &Log, key: &DeliveryKey, mut progress: Progress) -> Progress {
    let (reader, of, at) = (log.clone(), key.clone(), progress.clone());
    let counted = tokio::task::spawn_blocking(move || status::account(&reader, &of, &at)).await;
    let Ok(Ok(account)) = counted else { return progress };
    if account.imbalance < 0 {
        tracing::warn!(route = %key.route, events = -account.imbalance, "log lost count of events it had passed on");
        progress.routed_before += account.imbalance;
    }
    if account.imbalance > 0 && log.recovered().in_memory {
        tracing::warn!(
            route = %key.route, events = account.imbalance,
            "a process that was killed took events with it, or the record that they were delivered"
        );
        progress.drop_events(LOST, account.imbalance as u64, 0);
    } else if account.imbalance > 0 && progress.cursor < log.first_seq() && log.lost_cursors() {
        damaged(&mut progress, key, account.imbalance);
        forget_place(&mut progress, key);
    } else if account.imbalance > 0 && log.damaged() > 0 {
        damaged(&mut progress, key, account.imbalance);
    }
    progress
}
