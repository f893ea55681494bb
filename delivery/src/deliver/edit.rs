//! Edits of what runs: pipelines brought to other settings, taken back, and removed.
//!
//! # Guarantees
//! - An edit has one place in the pipeline's log. Events before it were masked by the old routes, events behind it by the new
//!   ones; a new reference begins there, a removed one ends there. Masks are never evaluated again.
//! - What an edit does not name is not touched: not its backend, not its cursor, not what is under way.
//! - Where a new reference begins is durable before the first event is masked for it; where that cannot be written down there
//!   is no edit, and nothing is kept for it.
//! - A removed reference drains for the time that its pipeline said before the edit, with the backend it had; one that comes
//!   back before its end goes on where it stood. A removed pipeline takes nothing, and its log goes when its last
//!   delivery has ended.
//! - A removed reference whose backend may not be used any more delivers nothing from then on, however long it was to drain.
//!
//! # Limits
//! One edit at a time over all pipelines; each waits for the log's queue and one save of the journal, not for backends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

use super::DeliverySpec;
use super::deliveries::{Order, Orders, Seat, Task};
use super::engine::{Engine, EngineError, Rebind, Running, RunningPipelines, first_progress, progress_from};
use super::seats::Seats;
use crate::intake::Pipeline;
use crate::log::{DeliveryKey, JournalError, Log, Progress, Removed};
use crate::settings::PipelineSettings;

/// What a log's directory is called from the moment it is given up; no key of a pipeline begins so.
pub(super) const REMOVED_PREFIX: &str = ".removed-";

impl Engine {
    /// Brings a pipeline to `settings`: opens it where it is not there, as [`Engine::add`] does; edits it where it runs;
    /// takes it back where it drains. `specs` binds the references that are new or whose backend changed; others go on
    /// untouched with what they have.
    pub async fn apply(
        &self,
        settings: PipelineSettings,
        specs: Vec<DeliverySpec>,
        removed: &Rebind<'_>,
    ) -> Result<Arc<Pipeline>, EngineError> {
        let _edits = self.running.edits.lock().await;
        match self.running.find(&settings.uid) {
            None => self.open_pipeline(settings, specs, removed).await,
            Some(running) => {
                self.edit(&running, settings, specs).await?;
                Ok(running.pipeline.clone())
            }
        }
    }

    /// Removes a pipeline: it takes nothing from now on, drains, and then its log goes. Returns whether it was there.
    pub async fn remove(&self, uid: &str) -> bool {
        let _edits = self.running.edits.lock().await;
        let Some(running) = self.running.find(uid).filter(|running| !running.pipeline.is_removed()) else {
            return false;
        };
        let orders = running.bed.deliveries.orders.lock().await;
        let settings = running.pipeline.settings();
        let table = table_of(&settings);
        let begun = running.pipeline.edit((*settings).clone(), true, |log| log.edit(table, &settings.log));
        let end_seq = begun.await.unwrap_or_else(|_| running.bed.log.visible_end());
        drain(&running, &orders, &settings, (end_seq, |_| true, &[])).await;
        drop(orders);
        let stop = self.deliveries.stopping();
        self.deliveries.spawn("pipeline removal", finish(self.running.clone(), running, self.spool_dir(), stop));
        true
    }

    /// Ends what references that were removed still deliver to a backend that they may not use any more, as `is_revoked` says by
    /// the namespace of the pipeline and what names the backend for good: what is under way is hardly waited for, nothing is sent
    /// from then on, and what is held goes to the dead letters, or is dropped (`revoked`) where these have no room. References
    /// that were not removed go on; jobs are what [`Engine::renew_jobs`] is for.
    pub async fn revoke(&self, is_revoked: impl Fn(&str, &str) -> bool) {
        let _edits = self.running.edits.lock().await;
        for running in self.running.list() {
            let orders = running.bed.deliveries.orders.lock().await;
            let namespace = running.pipeline.namespace();
            for (_, sender) in orders.iter().filter(|(key, _)| is_revoked(namespace, &key.backend_uid)) {
                sender.send_if_modified(revoke);
            }
        }
    }

    /// Gives deliveries of a pipeline another backend under their own keys, at once: what is under way is given up and sent there,
    /// too, and one that rests begins to send. For the end of a process whose log ends with it; an edit that follows does not
    /// know of it.
    pub async fn divert(&self, pipeline: &Pipeline, specs: Vec<DeliverySpec>) {
        let Some(running) = self.running.find(pipeline.uid()) else { return };
        let orders = running.bed.deliveries.orders.lock().await;
        for spec in specs.into_iter().filter(|spec| !is_draining(&orders, &spec.key())) {
            let Some(sender) = orders.get(&spec.key()) else { continue };
            // From here on a drain waits for it, although it rests until it has read its order.
            let statuses = running.bed.deliveries.statuses();
            let resting = statuses.iter().filter(|status| status.saved_cursor() == u64::MAX);
            resting.filter(|status| *status.key() == spec.key()).for_each(|status| status.saved(0));
            sender.send_modify(|order| {
                (order.spec, order.at_once) = (spec, true);
                order.task = Task::Deliver;
            });
        }
    }

    /// Returns which references of `settings` must be bound: those that do not run, or that drain with what they had.
    pub async fn unbound(&self, settings: &PipelineSettings) -> Vec<DeliveryKey> {
        let keys = keys_of(settings);
        match self.running.find(&settings.uid) {
            None => keys,
            Some(running) => {
                let orders = running.bed.deliveries.orders.lock().await;
                keys.into_iter().filter(|key| !orders.contains_key(key) || is_draining(&orders, key)).collect()
            }
        }
    }

    async fn edit(
        &self,
        running: &Arc<Running>,
        settings: PipelineSettings,
        specs: Vec<DeliverySpec>,
    ) -> Result<(), EngineError> {
        let log = &running.bed.log;
        let mut orders = running.bed.deliveries.orders.lock().await;
        check_bound(&settings, &specs, &orders)?;
        let wanted = keys_of(&settings);
        let new: Vec<_> = specs.iter().map(DeliverySpec::key).filter(|key| !orders.contains_key(key)).collect();
        new.iter().for_each(|key| log.set_floor(key, 0));
        let seats = Seats::of(&running.bed, &settings, &orders, &[]);
        let back = wanted.iter().filter(|key| is_draining(&orders, key));
        if let Err(source) = note(log, &seats, &new, back).await {
            withdraw(log, &new).await;
            return Err(unsaved(running, source));
        }
        let before = running.pipeline.settings();
        let (table, task) = (table_of(&settings), if settings.suspend { Task::Rest } else { Task::Deliver });
        let log_settings = settings.log.clone();
        let begun = running.pipeline.edit(settings, false, |log| log.edit(table, &log_settings));
        let released = |key: &DeliveryKey| seats.releases_running(&running.bed, key, &orders, &wanted);
        let released: Vec<_> = orders.keys().filter(|key| !wanted.contains(key) && released(key)).cloned().collect();
        let closed = |_| EngineError::Closed { pipeline: running.pipeline.name().clone() };
        let at = begun.await.map_err(closed)?;
        let after = running.pipeline.settings();
        running.bed.dead_letters.edit(after.log.dead_letters_bytes_max).await;
        seats.arrange(&running.bed, &after);
        let mut specs: Vec<Option<DeliverySpec>> = specs.into_iter().map(Some).collect();
        for key in &wanted {
            let bound = specs.iter_mut().find(|spec| spec.as_ref().is_some_and(|spec| spec.key() == *key));
            let spec = bound.and_then(Option::take);
            let seat = seats.seat(&key.route, at);
            if let Some(sender) = orders.get(key) {
                order(sender, spec, &task, seat);
            } else if let Some(spec) = spec {
                let progress = progress_from(log, &key.route, seats.begins(&key.route).unwrap_or(at));
                self.start(
                    &running.bed,
                    &mut orders,
                    Order { spec, task: task.clone(), seat, at_once: false },
                    progress,
                );
            }
        }
        leave_groups(&orders, &wanted, &released);
        drain(running, &orders, &before, (at, |key: &DeliveryKey| !wanted.contains(key), &released)).await;
        Ok(())
    }

    pub(super) fn spool_dir(&self) -> PathBuf {
        self.settings.data_dir.join("spool")
    }
}

/// Writes down where references begin that are `new`, and that others are `back`: a process that dies must not find that one
/// begins behind events that were accepted for it, or is removed.
async fn note<'k>(
    log: &Log,
    seats: &Seats,
    new: &[DeliveryKey],
    back: impl Iterator<Item = &'k DeliveryKey>,
) -> Result<(), JournalError> {
    let begins = |key: &DeliveryKey| {
        let first = || first_progress(log, &key.route, false);
        let from = |from| progress_from(log, &key.route, from);
        let begins = seats.begins(&key.route).map_or_else(first, from);
        (key.clone(), Progress { grouped: seats.is_group(&key.route), ..begins })
    };
    log.save_all(new.iter().map(begins).collect()).await?;
    log.set_removed(back.cloned().collect(), None).await
}

/// Takes back what was noted of references that do not come: nothing may be held for somebody who never reads it.
async fn withdraw(log: &Log, new: &[DeliveryKey]) {
    for key in new {
        log.drop_floor(key);
        if let Err(error) = log.forget(key).await {
            tracing::debug!(%error, route = %key.route, "what was noted of a reference goes with the next save");
        }
    }
}

/// Tells a delivery what to do, where that is something else.
fn order(sender: &Sender<Order>, spec: Option<DeliverySpec>, task: &Task, seat: Option<Seat>) {
    sender.send_if_modified(|order| {
        let same = matches!((&order.task, task), (Task::Deliver, Task::Deliver) | (Task::Rest, Task::Rest))
            && Seat::is_same(order.seat.as_ref(), seat.as_ref());
        if same && spec.is_none() {
            return false;
        }
        order.task = task.clone();
        (order.seat, order.at_once) = (seat, false);
        if let Some(spec) = spec {
            order.spec = spec;
        }
        true
    });
}

/// Takes the backend from a delivery that drains; returns whether it had one.
fn revoke(order: &mut Order) -> bool {
    let Task::Drain { within, revoked, .. } = &mut order.task else { return false };
    if std::mem::replace(revoked, true) {
        return false;
    }
    *within = Duration::ZERO;
    order.spec = order.spec.clone().bereft();
    order.at_once = true;
    true
}

/// Those that go and leave nothing to others, while their route goes on with other backends, drain by themselves: in their
/// group they would stand by for ones that never get what they hold.
fn leave_groups(orders: &Orders, wanted: &[DeliveryKey], released: &[DeliveryKey]) {
    // What went before goes on as it went.
    let goes = |key: &DeliveryKey| !wanted.contains(key) && !is_draining(orders, key);
    let alone =
        |key: &DeliveryKey| goes(key) && !released.contains(key) && wanted.iter().any(|other| other.route == key.route);
    for (_, sender) in orders.iter().filter(|(key, _)| alone(key)) {
        sender.send_if_modified(|order| order.seat.take().is_some());
    }
}

/// Lets the deliveries that `gone` names drain up to a sequence, under the settings their pipeline had; those that are
/// `released` leave what they hold to others.
async fn drain(
    running: &Running,
    orders: &Orders,
    before: &PipelineSettings,
    (end_seq, gone, released): (u64, impl Fn(&DeliveryKey) -> bool, &[DeliveryKey]),
) {
    let removed = Removed { since_ms: running.bed.log.running_ms(), end_seq };
    let gone: Vec<_> = orders.iter().filter(|(key, _)| gone(key) && !is_draining(orders, key)).collect();
    let keys = gone.iter().map(|(key, _)| (*key).clone()).collect();
    if let Err(error) = running.bed.log.set_removed(keys, Some(removed)).await {
        tracing::warn!(%error, "could not note when references were removed; their time begins anew at the next start");
    }
    for (key, sender) in gone {
        let released = released.contains(key);
        let within = if released { Duration::ZERO } else { before.log.drain };
        sender.send_modify(|order| order.task = Task::Drain { removed, within, released, revoked: false });
    }
}

fn is_draining(orders: &Orders, key: &DeliveryKey) -> bool {
    orders.get(key).is_some_and(|sender| matches!(sender.borrow().task, Task::Drain { .. }))
}

fn unsaved(running: &Running, source: JournalError) -> EngineError {
    EngineError::Unsaved { pipeline: running.pipeline.name().clone(), source }
}

fn keys_of(settings: &PipelineSettings) -> Vec<DeliveryKey> {
    let references =
        settings.routes.iter().flat_map(|route| route.backends.iter().map(move |backend| (route, backend)));
    references
        .map(|(route, backend)| DeliveryKey { route: route.name.clone(), backend_uid: backend.uid.clone() })
        .collect()
}

fn table_of(settings: &PipelineSettings) -> Arc<[Arc<str>]> {
    settings.routes.iter().map(|route| route.name.clone()).collect()
}

/// Nothing is changed by an edit that names a backend nobody bound.
fn check_bound(settings: &PipelineSettings, specs: &[DeliverySpec], orders: &Orders) -> Result<(), EngineError> {
    for key in keys_of(settings) {
        if !orders.contains_key(&key) && !specs.iter().any(|spec| spec.key() == key) {
            let (route, backend) = (key.route, key.backend_uid);
            return Err(EngineError::Unbound { pipeline: settings.name.clone(), route, backend });
        }
    }
    Ok(())
}

/// Waits until the last delivery of a removed pipeline has ended, then lets its log go.
async fn finish(all: Arc<RunningPipelines>, running: Arc<Running>, spool: PathBuf, stop: CancellationToken) {
    loop {
        let ended = running.bed.deliveries.ended.notified();
        {
            let _edits = all.edits.lock().await;
            if !running.pipeline.is_removed() {
                return;
            }
            if running.bed.deliveries.orders.lock().await.is_empty() {
                if all.take(&running) {
                    running.desk.close().await;
                    running.bed.dead_letters.end().await;
                    running.bed.log.end().await;
                    give_up(&spool, running.pipeline.uid()).await;
                    tracing::info!(
                        pipeline = %running.pipeline.name(), namespace = %running.pipeline.namespace(),
                        "removed pipeline has drained; its log is gone"
                    );
                }
                return;
            }
        }
        tokio::select! {
            () = ended => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Removes a log's directory: renamed first, so that no half of it is ever opened again.
async fn give_up(spool: &Path, uid: &str) {
    let (from, to) = (spool.join(uid), spool.join(format!("{REMOVED_PREFIX}{uid}")));
    let work = move || std::fs::rename(&from, &to).and_then(|()| std::fs::remove_dir_all(&to));
    if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
        tracing::warn!(%error, pipeline = uid, "log of a removed pipeline could not be removed; the next start tries again");
    }
}

/// Removes what a process left that ended while it removed a log.
pub(super) fn sweep(data_dir: &Path) {
    for entry in std::fs::read_dir(data_dir.join("spool")).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(REMOVED_PREFIX)
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, path = %entry.path().display(), "log of a removed pipeline cannot be removed");
        }
    }
}
