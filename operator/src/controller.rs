//! The controller: what the watches note becomes what agents are given, and what agents say becomes status.
//!
//! Expected flow: notes, Secrets, reports and the Lease wake one loop. It applies whatever there is, waits until nothing came
//! for [`QUIET`], renders what was touched, gives slices out, and asks for the statuses that differ.
//!
//! # Guarantees
//! - Nothing is given out before every watch has listed once and every Secret that is named was looked for, so that a new
//!   leader never takes anything away for not knowing it yet.
//! - Who does not lead renders all the same, so that it leads within the time of the Lease, and writes nothing.
//!
//! # Limits
//! One loop; a change waits for [`QUIET_WAIT_MAX`] at most before it is given out.

mod objects;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use spillway_delivery::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::cluster::convert::ObjectStatus;
use crate::cluster::lease::Leading;
use crate::cluster::watch::{Noted, WATCHES};
use crate::cluster::write::Wanted;
use crate::cluster::{in_words, keep};
use crate::hub::Hub;
use crate::render::{Holding, Rendered, Renderer};
use crate::status;
use crate::world::{Change, ObjectKey, SecretName, World};
use objects::Objects;
pub use start::start;

/// How long nothing must have come before it is given out: an apply of many objects comes as many notes.
pub const QUIET: Duration = Duration::from_millis(30);

/// How long notes that do not end put it off.
pub const QUIET_WAIT_MAX: Duration = Duration::from_millis(300);

/// The least time between two looks at what agents say.
const REPORTS_APART: Duration = Duration::from_millis(250);

/// What the loop takes from, and gives to.
struct Ends {
    notes: mpsc::Receiver<Noted>,
    secrets: mpsc::Receiver<Change>,
    leading: watch::Receiver<Leading>,
    reports: watch::Receiver<u64>,
    secrets_wanted: watch::Sender<BTreeSet<SecretName>>,
    statuses: mpsc::Sender<Wanted>,
}

/// The whole of it; see the module.
struct Controller {
    client: Client,
    namespace: String,
    agents: String,
    clock: Clock,
    hub: Arc<Hub>,
    health: Arc<Health>,
    world: World,
    renderer: Renderer,
    objects: Objects,
    synced: BTreeSet<&'static str>,
    is_leading: bool,
    leads_since: Timestamp,
    /// Objects whose status is to be looked at.
    due: BTreeSet<ObjectKey>,
    /// When to look at objects again although nothing changed.
    again: BTreeMap<ObjectKey, Timestamp>,
    render_again: Option<Timestamp>,
    reports_at: Option<Instant>,
    is_new: bool,
}

impl Controller {
    async fn run(mut self, mut ends: Ends, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = ends.leading.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let leading = *ends.leading.borrow_and_update();
                    self.lead(leading);
                }
                note = ends.notes.recv() => match note {
                    Some(note) => self.take(note),
                    None => return,
                },
                Some(change) = ends.secrets.recv() => self.world.apply(change),
                Ok(()) = ends.reports.changed() => {
                    self.reports_at.get_or_insert(Instant::now() + REPORTS_APART);
                    continue;
                }
                () = at(self.reports_at) => self.reports_at = None,
                () = at(self.next_look()) => {}
            }
            self.settle(&mut ends).await;
            if self.synced.len() == WATCHES {
                self.health.set_ready();
                self.turn(&ends).await;
            }
        }
    }

    /// Takes what else comes until nothing came for a while.
    async fn settle(&mut self, ends: &mut Ends) {
        let latest = Instant::now() + QUIET_WAIT_MAX;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            let next = async {
                tokio::select! {
                    note = ends.notes.recv() => note.map(Some),
                    Some(change) = ends.secrets.recv() => Some(Some(Noted::World(change))),
                }
            };
            match timeout_at(quiet, next).await {
                Ok(Some(Some(note))) => self.take(note),
                Ok(_) | Err(_) => return,
            }
            if Instant::now() >= latest && self.synced.len() == WATCHES {
                return;
            }
        }
    }

    fn take(&mut self, note: Noted) {
        match note {
            Noted::Object(key, both) => {
                let (manifest, status) = *both;
                let change = self.objects.there(&key, manifest, status);
                self.world.apply(change);
            }
            Noted::Gone(key) => {
                self.objects.gone(&key);
                self.again.remove(&key);
                self.world.apply(Change::Object(key, None));
            }
            Noted::Good(stored) => self.objects.good(*stored).into_iter().for_each(|change| self.world.apply(change)),
            Noted::GoodGone(place) => {
                self.objects.good_gone(&place).into_iter().for_each(|change| self.world.apply(change));
            }
            Noted::World(change) => self.world.apply(change),
            Noted::Synced(over) => {
                self.synced.insert(over);
            }
        }
    }

    fn lead(&mut self, leading: Leading) {
        match leading {
            Some(epoch) => {
                self.hub.lead(epoch);
                if !self.is_leading {
                    self.is_new = true;
                    self.leads_since = self.now();
                }
            }
            None => self.hub.follow(),
        }
        self.is_leading = leading.is_some();
    }

    /// Renders, gives out, and asks for statuses.
    async fn turn(&mut self, ends: &Ends) {
        let now = self.now();
        let reports = self.hub.reports();
        let holding: Holding = reports
            .iter()
            .filter(|(_, report)| !report.holding.is_empty())
            .map(|(node, report)| (node.clone(), report.holding.iter().cloned().collect()))
            .collect();
        let touched = self.world.take_touched();
        // Until agents spoke to this leader it does not know what they hold; what they run is not taken from them before.
        let Rendered { verdicts, gone, again } = self.renderer.render(&self.world, touched, holding, now);
        self.render_again = again;
        self.due.extend(verdicts.into_keys());
        self.due.retain(|key| !gone.contains(key));
        let secrets = self.renderer.secrets();
        let are_read = secrets.iter().all(|name| self.world.secret(name).is_some());
        self.forget_secrets(&secrets);
        ends.secrets_wanted.send_if_modified(|wanted| {
            let changed = *wanted != secrets;
            *wanted = secrets;
            changed
        });
        if !self.is_leading || (!are_read && self.is_new) {
            return;
        }
        let agents = self.world.pods_of_account(&self.namespace, &self.agents);
        if std::mem::take(&mut self.is_new) {
            self.due.extend(self.renderer.verdicts().map(|(key, _)| key.clone()));
        }
        self.hub.publish(self.renderer.slices().clone(), agents);
        self.tell(&reports, now, &ends.statuses).await;
        self.keep_good().await;
    }

    /// Asks for the statuses that differ from what stands in the cluster.
    async fn tell(&mut self, reports: &crate::reports::Reports, now: Timestamp, out: &mpsc::Sender<Wanted>) {
        let agents = status::Agents::new(reports, self.world.nodes(), self.renderer.slices(), self.leads_since);
        self.due.extend(self.again.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()));
        // What agents say concerns every pipeline that they run.
        self.due.extend(self.renderer.verdicts().map(|(key, _)| key.clone()));
        for key in std::mem::take(&mut self.due) {
            let (Some(verdict), Some(before)) = (self.renderer.verdict(&key), self.objects.status(&key)) else {
                continue;
            };
            let (wanted, again) = match before {
                ObjectStatus::Pipeline(before) => {
                    let (status, again) = status::pipeline(&key, verdict, before, &agents, now);
                    (ObjectStatus::Pipeline(status), again)
                }
                ObjectStatus::Backend(before) => {
                    let (status, again) = status::backend(&key, verdict, before, &agents, now);
                    (ObjectStatus::Backend(status), again)
                }
            };
            match again {
                Some(at) => drop(self.again.insert(key.clone(), at)),
                None => drop(self.again.remove(&key)),
            }
            if *before != wanted {
                self.objects.set_status(&key, wanted.clone());
                if out.send((key, Some(wanted))).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Keeps the last good versions that are not kept yet. What fails is tried at the next turn.
    async fn keep_good(&mut self) {
        let wanted: Vec<ObjectKey> = self
            .renderer
            .verdicts()
            .filter(|(_, verdict)| verdict.keep.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        for key in wanted {
            let Some(good) = self.renderer.verdict(&key).and_then(|verdict| verdict.keep.clone()) else { continue };
            let Some(manifest) = self.world.object_of(&key).cloned() else { continue };
            if self.objects.is_asked(&key, &good) {
                continue;
            }
            let before = self.objects.places(&key);
            match keep::keep_good(&self.client, &self.namespace, (&key, &manifest), &good, &before).await {
                Ok(()) => self.objects.asked(&key, good),
                Err(error) => {
                    tracing::warn!(object = key.label(), error = in_words(&error), "a last good version is not kept");
                }
            }
        }
    }

    fn forget_secrets(&mut self, wanted: &BTreeSet<SecretName>) {
        let old: Vec<SecretName> = self.world.secret_names().filter(|name| !wanted.contains(*name)).cloned().collect();
        old.iter().for_each(|name| self.world.forget_secret(name));
    }

    /// Returns when to look again although nothing comes.
    fn next_look(&self) -> Option<Instant> {
        let earliest = self.again.values().copied().chain(self.render_again).min()?;
        let wait = Duration::try_from(earliest.duration_since(self.now())).unwrap_or_default();
        Some(Instant::now() + wait.max(Duration::from_millis(100)))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.clock.now().into()).unwrap_or_default()
    }
}

/// Resolves at that moment; never where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
