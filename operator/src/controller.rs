//! The controller: what the watches note becomes what agents are given, and what agents say becomes status.
//!
//! Expected flow: notes, Secrets, reports and the Lease wake one loop. It applies whatever there is, waits until nothing came
//! for [`QUIET`], renders what was touched, gives slices out, and asks for the statuses that differ.
//!
//! # Guarantees
//! - Nothing is given out before every watch has listed once and every Secret that is named was looked for, so that a new
//!   leader never takes anything away for not knowing it yet.
//! - What agents hold is taken into account before they are given a configuration without it, also by a new leader.
//! - Who does not lead renders all the same, so that it leads within the time of the Lease, and writes nothing.
//!
//! # Limits
//! One loop; a change waits for [`QUIET_WAIT_MAX`] at most before it is given out.

mod objects;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spillway_crds::served::TokenKeys;
use spillway_delivery::clock::Clock;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::cli::ControllerFlags;
use crate::cluster::convert::{ObjectStatus, StatusText};
use crate::cluster::keep::Keep;
use crate::cluster::lease::Leading;
use crate::cluster::queue::Wish;
use crate::cluster::secrets::Named;
use crate::cluster::watch::{Noted, Over};
use crate::hub::Hub;
use crate::render::{Holding, Rendered, Renderer};
use crate::repair::{About, Eviction, Made, Outcome, Remediation, Repair, RepairStats, Rules, Told};
use crate::reports::Reports;
use crate::status::{self, News};
use crate::tickets::Tickets;
use crate::world::{Change, ObjectKey, SecretName, Touched, World};
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
    secrets_wanted: watch::Sender<Named>,
    statuses: mpsc::Sender<Wish<StatusText>>,
    keeps: mpsc::Sender<Wish<Keep>>,
    news: mpsc::Sender<Wish<News>>,
    /// What sidecars are made of.
    made: watch::Receiver<Option<Arc<Made>>>,
    makers: mpsc::Sender<(About, Told)>,
    evictions: mpsc::Sender<Eviction>,
    outcomes: mpsc::Receiver<(Eviction, Outcome)>,
}

/// The whole of it; see the module.
struct Controller {
    namespace: String,
    agents: String,
    clock: Clock,
    hub: Arc<Hub>,
    health: Arc<Health>,
    world: World,
    renderer: Renderer,
    tickets: Tickets,
    /// What agents had said when statuses were looked at last, and when that was.
    reports: Reports,
    looked_at: Timestamp,
    objects: Objects,
    repair: Repair,
    repair_again: Option<Timestamp>,
    synced: BTreeSet<&'static str>,
    /// The epoch of our term, where we lead.
    term: Leading,
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
    /// Returns one that knows nothing yet and does not lead.
    fn new(
        flags: &ControllerFlags,
        clock: Clock,
        (hub, health, stats): (Arc<Hub>, Arc<Health>, RepairStats),
        tickets: Tickets,
        token_keys: Arc<TokenKeys>,
    ) -> Self {
        let mut world = World::default();
        world.apply(Change::TokenKeys(token_keys));
        Self {
            namespace: flags.namespace.clone(),
            agents: flags.agent_service_account.clone(),
            clock,
            hub,
            health,
            world,
            renderer: Renderer::new(tickets.clone()),
            tickets,
            reports: Reports::new(),
            looked_at: Timestamp::default(),
            objects: Objects::new(&flags.namespace),
            repair: Repair::new(rules(flags), stats),
            repair_again: None,
            synced: BTreeSet::new(),
            term: None,
            leads_since: Timestamp::default(),
            due: BTreeSet::new(),
            again: BTreeMap::new(),
            render_again: None,
            reports_at: None,
            is_new: false,
        }
    }

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
                Ok(()) = ends.made.changed() => {
                    let made = ends.made.borrow_and_update().clone();
                    self.repair.made_of(made, self.now());
                }
                Some((eviction, outcome)) = ends.outcomes.recv() => self.repair.done(&eviction, outcome, self.now()),
                () = at(self.reports_at) => self.reports_at = None,
                () = at(self.next_look()) => {}
            }
            self.settle(&mut ends).await;
            if self.synced.len() == Over::ALL.len() {
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
            if Instant::now() >= latest && self.synced.len() == Over::ALL.len() {
                return;
            }
        }
    }

    fn take(&mut self, note: Noted) {
        match note {
            Noted::Object(key, both) => {
                let (manifest, status) = *both;
                // Somebody else changed it, or what was asked for is not there yet.
                if self.objects.status(&key) != Some(&status) {
                    self.due.insert(key.clone());
                }
                self.repair.stands(&key, status.recreations());
                let change = self.objects.there(&key, manifest, status);
                self.world.apply(change);
            }
            Noted::Gone(key) => {
                self.objects.gone(&key);
                self.repair.stands(&key, Vec::new());
                self.again.remove(&key);
                self.world.apply(Change::Object(key, None));
            }
            Noted::Good(of, stored) => {
                self.due.insert(of.clone());
                self.world.apply(self.objects.good(of, *stored));
            }
            Noted::GoodGone(of, place) => self.world.apply(self.objects.good_gone(of, &place)),
            Noted::World(change) => self.world.apply(change),
            // Pods are made elsewhere.
            Noted::LimitRange(..) => {}
            Noted::Synced(over) => {
                self.synced.insert(over);
            }
        }
    }

    fn lead(&mut self, leading: Leading) {
        match leading {
            Some(epoch) => {
                self.hub.lead(epoch);
                // Another epoch is another term, also where the end of the one before came and went unseen: what was wished for
                // meanwhile is forgotten by who writes.
                if self.term != Some(epoch) {
                    self.is_new = true;
                    self.leads_since = self.now();
                    self.objects.begin_term();
                    self.repair.begin_term();
                }
            }
            None => {
                self.hub.follow();
                self.again.clear();
            }
        }
        self.term = leading;
    }

    /// Renders, gives out, and asks for what is to be written.
    async fn turn(&mut self, ends: &Ends) {
        let now = self.now();
        let reports = self.hub.reports();
        let touched = self.world.take_touched();
        self.note_due(&reports, &touched, now);
        let holding = self.holding(&reports);
        self.due.extend(self.repair.look(&self.world, &touched));
        let rendered = apart(|| self.renderer.render(&self.world, touched, holding, now));
        let Rendered { verdicts, gone, moved, again } = rendered;
        (self.reports, self.looked_at) = (reports, now);
        self.render_again = again;
        self.due.extend(moved);
        self.due.extend(verdicts.into_keys());
        self.due.retain(|key| !gone.contains(key));
        let secrets = self.renderer.secrets();
        let are_read = secrets.keys().all(|name| self.world.secret(name).is_some());
        self.forget_secrets(&secrets);
        ends.secrets_wanted.send_if_modified(|wanted| {
            let changed = *wanted != secrets;
            *wanted = secrets;
            changed
        });
        if self.term.is_none() || (!are_read && self.is_new) {
            return;
        }
        if std::mem::take(&mut self.is_new) {
            self.due.extend(self.renderer.verdicts().map(|(key, _)| key.clone()));
        }
        let agents = self.world.agents(&self.namespace, &self.agents);
        self.hub.publish(self.renderer.slices().clone(), agents);
        self.hub.considered(&self.reports);
        self.due.extend(self.again.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()));
        self.tell(now, ends).await;
        self.evict(now, ends).await;
    }

    /// Notes the objects whose status may differ because agents say something else, one counts again, or a node is ready or not
    /// any more.
    fn note_due(&mut self, reports: &Reports, touched: &Touched, now: Timestamp) {
        let (before, after) = (&self.reports, reports);
        let all: BTreeSet<&Arc<str>> = before.keys().chain(after.keys()).collect();
        let is_news = |node: &Arc<str>| match (before.get(node), after.get(node)) {
            (Some(before), Some(after)) => before.differs(after) || before.counts(self.looked_at) != after.counts(now),
            _ => true,
        };
        let nodes: BTreeSet<&Arc<str>> = all.into_iter().filter(|node| is_news(node)).chain(&touched.places).collect();
        for node in nodes {
            let of_slice = self.renderer.slices().get(node).map(|slice| &slice.objects);
            let of_reports = [before.get(node), after.get(node)].into_iter().flatten().map(|report| &report.objects);
            let labels = of_slice.into_iter().chain(of_reports).flat_map(|objects| objects.keys());
            self.due.extend(labels.filter_map(|label| ObjectKey::of_label(label)));
        }
    }

    /// Returns the pipelines of which agents hold events, as far as they can show that these were given to them.
    fn holding(&self, reports: &Reports) -> Holding {
        let mut holding = Holding::new();
        for (node, report) in reports {
            let shown = report.holding.iter().filter(|held| self.tickets.is_right(node, &held.object, &held.ticket));
            let keys: BTreeSet<ObjectKey> = shown.filter_map(|held| ObjectKey::of_label(&held.object)).collect();
            if !keys.is_empty() {
                holding.insert(node.clone(), keys);
            }
        }
        holding
    }

    /// Asks for the statuses that differ from what stands in the cluster, for Events of what got worse, and for last good
    /// versions that are not kept yet.
    async fn tell(&mut self, now: Timestamp, ends: &Ends) {
        let agents = status::Agents::new(&self.reports, self.world.nodes(), self.renderer.slices(), self.leads_since);
        for key in std::mem::take(&mut self.due) {
            for news in self.repair.news(&key, now) {
                if ends.makers.send(news).await.is_err() {
                    return;
                }
            }
            let (Some(verdict), Some(before)) = (self.renderer.verdict(&key), self.objects.status(&key)) else {
                continue;
            };
            let (wanted, again) = match before.read(key.kind) {
                ObjectStatus::Pipeline(before) => {
                    let (status, again) = status::pipeline(&key, verdict, &before, &agents, now);
                    let remediation = remediation(&self.world, &key);
                    let (said, later) = self.repair.sidecars(&key, before.sidecars.as_ref(), remediation, now);
                    let status = status::with_sidecars(status, said, &before, now);
                    (ObjectStatus::Pipeline(status), again.into_iter().chain(later).min())
                }
                ObjectStatus::Backend(before) => {
                    let (status, again) = status::backend(&key, verdict, &before, &agents, now);
                    (ObjectStatus::Backend(status), again)
                }
            };
            match again {
                Some(at) => drop(self.again.insert(key.clone(), at)),
                None => drop(self.again.remove(&key)),
            }
            let text = wanted.to_text();
            let differs = *before != text;
            let news = self.objects.news(&key, &wanted, now);
            let keep = self.objects.keep(&key, verdict.keep.as_ref());
            if differs {
                self.objects.set_status(&key, text.clone());
                if ends.statuses.send((key.clone(), text)).await.is_err() {
                    return;
                }
            }
            if let Some(news) = news
                && ends.news.send((key.clone(), news)).await.is_err()
            {
                return;
            }
            if let Some(keep) = keep
                && ends.keeps.send((key, keep)).await.is_err()
            {
                return;
            }
        }
    }

    /// Asks for the eviction of the next pod that is to be made anew, if there is one.
    async fn evict(&mut self, now: Timestamp, ends: &Ends) {
        let wants = |key: &ObjectKey| remediation(&self.world, key) == Remediation::Recreate;
        let (eviction, again) = self.repair.next(wants, now);
        self.repair_again = again;
        if let Some(eviction) = eviction {
            // There is one at a time, so there is room.
            drop(ends.evictions.send(eviction).await);
        }
    }

    fn forget_secrets(&mut self, wanted: &Named) {
        let old: Vec<SecretName> =
            self.world.secret_names().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        old.iter().for_each(|name| self.world.forget_secret(name));
    }

    /// Returns when to look again although nothing comes.
    fn next_look(&self) -> Option<Instant> {
        let earliest = self.again.values().copied().chain(self.render_again).chain(self.repair_again).min()?;
        let wait = Duration::try_from(earliest.duration_since(self.now())).unwrap_or_default();
        Some(Instant::now() + wait.max(Duration::from_millis(100)))
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.clock.now().into()).unwrap_or_default()
    }
}

/// Returns what a pipeline wants done about pods without the sidecar that they asked for.
fn remediation(world: &World, key: &ObjectKey) -> Remediation {
    let asks = || {
        let text = &world.object_of(key)?.text;
        // Most say nothing of it.
        let manifest: serde_json::Value =
            text.contains("\"remediation\"").then(|| serde_json::from_str(text).ok())??;
        Some(manifest["spec"]["remediation"] == "Recreate")
    };
    if asks() == Some(true) { Remediation::Recreate } else { Remediation::Tell }
}

fn rules(flags: &ControllerFlags) -> Rules {
    Rules {
        namespace: flags.namespace.as_str().into(),
        recreates: flags.recreate_pods,
        after: SignedDuration::from_secs(flags.recreate_after_seconds),
    }
}

/// Does what takes seconds in a large cluster, as a first rendering does, without keeping the Lease and agents waiting: a
/// thread of the runtime that computes may be the one that all others rely on for their sockets and timers.
fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

/// Resolves at that moment; never where there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
