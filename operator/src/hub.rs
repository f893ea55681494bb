//! Slices given out and reports taken in: what stands between rendering and serving. No network, no clock of its own. What is
//! called a node here is any [`place`](crate::place) where an agent runs: a pod with a sidecar, too.
//!
//! Expected flow: who holds the Lease calls [`Hub::lead`], renders, and calls [`Hub::publish`] for every change. Serving
//! calls [`Hub::acknowledge`] with every ask, then [`Hub::wait_for_news`]. Who loses the Lease calls [`Hub::follow`].
//!
//! # Guarantees
//! - A slice whose content is the same keeps its [`Version`](spillway_crds::served::Version); one that changed gets a later
//!   generation of the epoch. Content is the same when its hash is: generations are counted for all nodes together, so that a node that goes and comes
//!   back never meets an earlier one.
//! - Who waits for a node is woken when the slice or the pods of that node change, or when who leads does, and by nothing
//!   else.
//! - Only who leads gives out anything.
//! - What an agent would not take is not sent. It takes a configuration that [is newer](spillway_crds::served::Version::is_newer), so:
//!   - one that runs this very content gets none, whatever its version; the next change is newer all the same;
//!   - one that runs other content under a version that is not older than ours tells that the Lease went back. It waits, and
//!     [`Hub::later_epoch`] resolves; [`Hub::lead`] with that epoch renumbers what is given out and wakes it. An epoch is
//!     raised by whoever holds the Lease and nobody else, so that a leader of yesterday raises nothing.
//! - Authorities are told by who leads alone, and only those that [`Hub::tell`] was given under the epoch that it leads with: one
//!   that has led before tells nothing that it knows of then.
//! - An agent that says it holds events of a pipeline that its slice does not have is given no configuration before [`Hub::considered`]
//!   knows of that: what a new leader, or one that sees a new pod of an agent, was not told yet it takes from nobody.
//! - What an agent says it runs counts only where the content was given out for its node.
//!
//! # Limits
//! One report per node, of live agents alone; of a node what differs in its last [`EARLIER_MAX`] slices. An epoch that an agent names
//! may be at most [`EPOCH_AHEAD_SECONDS_MAX`] seconds later than the Unix time: who leads chooses epochs that are not
//! above that time, and an agent's token must not push them to their end.

mod heard;
mod news;
mod node;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use spillway_crds::served::{Ask, Authorities, Configuration, Held, Pods};
use tokio::sync::watch;

pub use news::News;
use node::Node;

use crate::reports::{Report, Reports};
use crate::tickets::NodeTickets;

/// How many slices before the current one of a node an acknowledgement may still name.
pub const EARLIER_MAX: usize = 8;

/// How much later than the Unix time in seconds an epoch that an agent names may be.
pub const EPOCH_AHEAD_SECONDS_MAX: u64 = 86_400;

/// What a node is to run and to know. The version's epoch and generation are the hub's to set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// The configuration; its `version.hash` names its content. It has no tickets.
    pub configuration: Configuration,
    /// The pods; their `hash` names their content.
    pub pods: Pods,
    /// What of it is served.
    pub objects: Arc<Objects>,
    /// What makes its tickets.
    pub tickets: Option<NodeTickets>,
}

/// Objects as errors name them, each as it is served.
pub type Objects = BTreeMap<Arc<str>, Edition>;

/// An object as it is served. One that is made anew begins with the generation that another had: its text tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition {
    /// Its `metadata.generation`.
    pub generation: i64,
    /// The hash of what is served of it.
    pub hash: u64,
}

/// The uids of pods with a live agent, each with its place.
pub type Agents = BTreeMap<Arc<str>, Arc<str>>;

/// Why nothing is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another replica leads")]
pub struct NotLeading;

/// Why an ask was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Another replica leads.
    #[error("another replica leads")]
    NotLeading,
    /// The pod has gone since its token was checked.
    #[error("the pod is no live agent")]
    Gone,
    /// The epoch cannot be one of ours.
    #[error("epoch {found} cannot be one that was given out, the latest one possible is {latest}")]
    Epoch {
        /// What the agent says it runs.
        found: u64,
        /// The latest one taken.
        latest: u64,
    },
}

/// Slices by node and reports by pod; see the module.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    reports: watch::Sender<u64>,
    epoch_wanted: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// The epoch, where we lead.
    epoch: Option<u64>,
    /// The last generation of it.
    generation: u64,
    /// Whether anything was given out since we lead.
    has_published: bool,
    agents: Agents,
    nodes: BTreeMap<Arc<str>, Node>,
    reports: Reports,
    /// What agents held, of which pod at which place, when what is given out was made.
    considered: BTreeMap<Arc<str>, (Arc<str>, Vec<Held>)>,
    /// What agents are to trust, and the epoch in which that was read.
    authorities: Option<(u64, Arc<Authorities>)>,
}

/// How far live agents know the authorities of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Knowing {
    /// Pods of agents that are live.
    pub live: usize,
    /// Those of them that were heard a short time ago.
    pub heard: usize,
    /// Those of the heard that say that they trust these.
    pub acknowledged: usize,
}

/// What there is for a node at one moment.
enum Look {
    News(News),
    Nothing(watch::Receiver<()>),
}

impl Default for Hub {
    fn default() -> Self {
        let (reports, _) = watch::channel(0);
        let (epoch_wanted, _) = watch::channel(0);
        Self { state: Mutex::default(), reports, epoch_wanted }
    }
}

impl Hub {
    /// Leads with `epoch`: from nothing, or from an earlier epoch of its own, of which everything is kept and renumbered. One
    /// that is not later than its own changes nothing.
    pub fn lead(&self, epoch: u64) {
        let mut state = self.state();
        if state.epoch.is_some_and(|own| own >= epoch) {
            return;
        }
        match state.epoch.replace(epoch) {
            None => state.generation = 0,
            // Nobody led in between.
            Some(before) => {
                state.authorities.iter_mut().filter(|(of, _)| *of == before).for_each(|(of, _)| *of = epoch);
            }
        }
        for node in state.nodes.values_mut() {
            node.renumber(epoch);
            node.wake();
        }
        drop(state);
        self.epoch_wanted.send_modify(|_| {});
    }

    /// Leads no longer: forgets what was given out and said, and tells who waits.
    pub fn follow(&self) {
        let mut state = self.state();
        // What was told of under the next epoch already stays.
        let authorities = state.authorities.take();
        let State { nodes, .. } = std::mem::replace(&mut *state, State { authorities, ..State::default() });
        nodes.values().for_each(Node::wake);
        drop(state);
        self.reports.send_modify(|count| *count += 1);
    }

    /// Returns the epoch, where we lead.
    pub fn epoch(&self) -> Option<u64> {
        self.state().epoch
    }

    /// Returns an epoch that is later than the one we lead with, once an agent runs a later one than that. The caller writes
    /// it into the Lease, then calls [`lead`](Self::lead); until it did, this resolves at once, so that the caller sets
    /// the pace: with each renewal of the Lease is soon enough, and a hostile agent costs no writes of its own.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn later_epoch(&self) -> u64 {
        let mut wanted = self.epoch_wanted.subscribe();
        loop {
            let later = *wanted.borrow_and_update();
            if self.epoch().is_some_and(|own| later > own) {
                return later;
            }
            if wanted.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Gives out `slices`, and nothing for other nodes; takes reports of `agents` from now on, and forgets those of others.
    /// Returns of how many nodes something changed; 0 and nothing done where another replica leads.
    pub fn publish(&self, slices: BTreeMap<Arc<str>, Arc<Slice>>, agents: Agents) -> usize {
        let mut state = self.state();
        let State { epoch: Some(epoch), generation, nodes, .. } = &mut *state else { return 0 };
        let next = (*epoch, *generation + 1);
        let (mut changed, mut is_used) = (0, false);
        for (_, node) in nodes.iter_mut().filter(|(name, _)| !slices.contains_key(*name)) {
            changed += usize::from(node.clear());
        }
        for (name, slice) in slices {
            let given = nodes.entry(name).or_default().give(slice, next);
            changed += usize::from(given.is_news());
            is_used |= given == node::Given::Configuration;
        }
        *generation += u64::from(is_used);
        nodes.retain(|_, node| node.is_needed());
        let before = state.reports.len();
        state.reports.retain(|node, report| agents.get(&report.pod_uid) == Some(node));
        let went = state.reports.len() < before;
        state.agents = agents;
        state.has_published = true;
        drop(state);
        if went {
            self.reports.send_modify(|count| *count += 1);
        }
        changed
    }

    /// Takes note that what is given out was made with these reports in mind, and tells who waited for that.
    pub fn considered(&self, reports: &Reports) {
        let mut state = self.state();
        let State { considered, nodes, .. } = &mut *state;
        considered.retain(|place, _| reports.contains_key(place));
        for (place, report) in reports {
            let is_known = considered.get(place).is_some_and(|of| is_of(report, of));
            if !is_known {
                considered.insert(Arc::clone(place), (Arc::clone(&report.pod_uid), report.holding.clone()));
                nodes.get(place).into_iter().for_each(Node::wake);
            }
        }
    }

    /// Tells agents of `authorities` while we lead with `epoch`, in which they were read.
    pub fn tell(&self, epoch: u64, authorities: &Arc<Authorities>) {
        let mut state = self.state();
        if state.authorities.as_ref().is_some_and(|(of, told)| (*of, &told.hash) == (epoch, &authorities.hash)) {
            return;
        }
        state.authorities = Some((epoch, Arc::clone(authorities)));
        state.nodes.values().for_each(Node::wake);
    }

    /// Returns how far live agents know the authorities with that hash `now`; `None` while no agent is known.
    pub fn knowing(&self, hash: &str, now: Timestamp) -> Option<Knowing> {
        let state = self.state();
        state.has_published.then(|| {
            let heard = || state.reports.values().filter(|report| report.counts(now));
            let knows = |report: &&Report| report.authorities.as_deref() == Some(hash);
            Knowing { live: state.agents.len(), heard: heard().count(), acknowledged: heard().filter(knows).count() }
        })
    }

    /// Returns whether anything was given out since we lead: before that nothing is known of any agent.
    pub fn has_published(&self) -> bool {
        self.state().has_published
    }

    /// Returns the place of the agent in a pod, if one lives there.
    pub fn place_of(&self, pod_uid: &str) -> Option<Arc<str>> {
        self.state().agents.get(pod_uid).cloned()
    }

    /// Takes what the agent of `pod_uid` says `now`. Content that it runs and that was given out for its node is acknowledged.
    pub fn acknowledge(&self, pod_uid: &str, ask: &Ask, now: Timestamp) -> Result<(), AskError> {
        let mut state = self.state();
        let epoch = state.epoch.ok_or(AskError::NotLeading)?;
        let (pod, node) = state.agents.get_key_value(pod_uid).ok_or(AskError::Gone)?;
        let (pod, node) = (Arc::clone(pod), Arc::clone(node));
        if let Some(found) = ask.running.as_ref().map(|running| running.epoch).filter(|found| *found > epoch) {
            let latest = u64::try_from(now.as_second()).unwrap_or(0).saturating_add(EPOCH_AHEAD_SECONDS_MAX);
            if found > latest {
                return Err(AskError::Epoch { found, latest });
            }
            self.want_epoch(found + 1);
        }
        let before = state.reports.get(&node);
        let objects = ask.running.as_ref().and_then(|running| {
            let given = state.nodes.get(&node).and_then(|node| node.objects_of(&running.hash));
            // What it ran all the time was given out, however long ago.
            let known = || before.filter(|before| before.running.as_ref().is_some_and(|run| run.hash == running.hash));
            given.or_else(|| Some(Arc::clone(&known()?.objects)))
        });
        let report = heard::report((&pod, &*node), ask, objects, now);
        let is_news = before.is_none_or(|before| before.differs(&report) || !before.counts(now));
        state.reports.insert(node, report);
        drop(state);
        if is_news {
            self.reports.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    /// Returns what live agents said last.
    pub fn reports(&self) -> Reports {
        self.state().reports.clone()
    }

    /// Returns what changes whenever a report says something else than before, comes or goes, or an agent is heard again that
    /// did not count any more; that an agent said the same again is no change. The first value counts as seen.
    pub fn report_changes(&self) -> watch::Receiver<u64> {
        self.reports.subscribe()
    }

    /// Returns what is new to an agent of `node` that asks `ask`, as soon as something is.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was not returned is news to the next one that asks.
    pub async fn wait_for_news(&self, node: &str, ask: &Ask) -> Result<News, NotLeading> {
        loop {
            match self.look(node, ask)? {
                Look::News(news) => return Ok(news),
                // An error says that the node is gone, and to look again is right then, too.
                Look::Nothing(mut changes) => drop(changes.changed().await),
            }
        }
    }

    fn look(&self, name: &str, ask: &Ask) -> Result<Look, NotLeading> {
        let mut state = self.state();
        if state.epoch.is_none() {
            return Err(NotLeading);
        }
        let told = state.authorities.clone().filter(|(of, _)| Some(*of) == state.epoch);
        let report = state.reports.get(name);
        let is_considered = report.is_none_or(|report| state.considered.get(name).is_some_and(|of| is_of(report, of)));
        let node = state.nodes.entry(name.into()).or_default();
        let news = node.news(ask);
        let is_fit = is_considered || ask.holding.iter().all(|held| node.serves(&held.object));
        let news = if is_fit { news } else { news.without_configuration() };
        let news = match &told {
            Some((_, authorities)) => news.with_authorities(authorities, ask),
            None => news,
        };
        if news.is_behind() {
            self.want_epoch(ask.running.as_ref().map_or(0, |running| running.epoch.saturating_add(1)));
        }
        Ok(if news.is_empty() { Look::Nothing(node.changes()) } else { Look::News(news) })
    }

    fn want_epoch(&self, epoch: u64) {
        self.epoch_wanted.send_if_modified(|wanted| {
            let is_later = epoch > *wanted;
            *wanted = epoch.max(*wanted);
            is_later
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what was considered is what a report says its agent holds.
fn is_of(report: &Report, (pod_uid, holding): &(Arc<str>, Vec<Held>)) -> bool {
    (&report.pod_uid, &report.holding) == (pod_uid, holding)
}

#[cfg(test)]
mod tests;
