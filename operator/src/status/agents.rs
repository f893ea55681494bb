//! Slices and reports, indexed by object: made once, asked for every object. Sidecars come and go with every Job: they count for
//! what they tell of, and not in how many agents run an object.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use super::{Again, HEARD, SETTLING};
use crate::hub::{Objects, Slice};
use crate::place;
use crate::reports::{Report, Reports};

/// Which agents are to run an object, and what they say.
#[derive(Debug)]
pub struct Agents<'a> {
    nodes: Vec<Node<'a>>,
    /// Which of the nodes have an object, by its label.
    having: HashMap<&'a str, Vec<usize>>,
    since: Timestamp,
}

/// A place that has a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    is_ready: bool,
    wanted: &'a Objects,
    pub(super) report: Option<&'a Report>,
}

/// The nodes that are to run an object.
#[derive(Debug, Default)]
pub(super) struct Seats<'a> {
    /// Those that count, with what their agents say.
    pub(super) heard: Vec<(Node<'a>, &'a Report)>,
    /// What sidecars say.
    pub(super) sidecars: Vec<(Node<'a>, &'a Report)>,
    /// Those that do not count: not ready, or not heard for long.
    pub(super) absent: Vec<&'a str>,
    /// Whether the leader is so new that those not heard may be about to say something.
    pub(super) is_settling: bool,
}

impl<'a> Agents<'a> {
    /// Returns an index over what agents said, which nodes there are and are ready, and what each of them is to run. Reports
    /// are heard since `since`: the time from which this replica leads.
    pub fn new(
        reports: &'a Reports,
        nodes: &BTreeMap<Arc<str>, bool>,
        slices: &'a BTreeMap<Arc<str>, Arc<Slice>>,
        since: Timestamp,
    ) -> Self {
        let node = |(name, slice): (&'a Arc<str>, &'a Arc<Slice>)| Node {
            name,
            is_ready: nodes.get(name).copied().unwrap_or_default(),
            wanted: &slice.objects,
            report: reports.get(name),
        };
        let nodes: Vec<Node<'a>> = slices.iter().map(node).collect();
        let mut having: HashMap<&'a str, Vec<usize>> = HashMap::new();
        for (place, node) in nodes.iter().enumerate() {
            node.wanted.keys().for_each(|label| having.entry(label).or_default().push(place));
        }
        Self { nodes, having, since }
    }

    /// Returns the nodes that are to run the object of that label.
    pub(super) fn seats(&self, label: &str, again: &mut Again) -> Seats<'a> {
        let mut seats = Seats::default();
        let mut is_unheard = false;
        for node in self.having.get(label).into_iter().flatten().filter_map(|place| self.nodes.get(*place)) {
            if place::is_pod(node.name) {
                let heard = node.report.filter(|report| !again.has_passed(report.seen, HEARD));
                seats.sidecars.extend(heard.map(|report| (*node, report)));
                continue;
            }
            is_unheard |= node.is_ready && node.report.is_none();
            match node.report {
                Some(report) if node.is_ready && !again.has_passed(report.seen, HEARD) => {
                    seats.heard.push((*node, report));
                }
                _ => seats.absent.push(node.name),
            }
        }
        seats.is_settling = is_unheard && !again.has_passed(self.since, SETTLING);
        seats
    }
}

impl<'a> Seats<'a> {
    /// Returns everybody who was heard.
    pub(super) fn all(&self) -> impl Iterator<Item = &(Node<'a>, &'a Report)> {
        self.heard.iter().chain(&self.sidecars)
    }
}

impl Node<'_> {
    /// Returns whether the agent runs these objects as they are now.
    pub(super) fn runs<'l>(&self, report: &Report, mut labels: impl Iterator<Item = &'l str>) -> bool {
        labels.all(|label| self.wanted.get(label) == report.objects.get(label))
    }
}
