//! What agents say of backends, summed up: the worst state, since when, and on how many agents. What waiting does not mend is
//! the worst, and is told at once.

use jiff::Timestamp;
use spillway_crds::kinds::CLUSTER;
use spillway_crds::nodes::counted;
use spillway_crds::served::{BackendCondition, BackendReport, FORBIDDEN, NODE_AGENT};

use super::agents::Seats;
use super::{Again, RETRYING_AFTER, Reason, text};
use crate::world::ObjectKey;
use spillway_crds::kinds::Kind;

/// How bad it is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Attempts fail, others are made.
    Retrying,
    /// It is left alone for a while.
    Unreachable,
    /// An agent may not connect to it.
    Forbidden,
}

/// How a backend is, where it is not healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) state: Severity,
    /// Since when the first of the agents says so.
    pub(super) since: Timestamp,
    pub(super) agents: usize,
    /// What that agent says.
    error: String,
}

/// Returns the worst that agents say of the reports that `is_one` chooses.
pub(super) fn worst(seats: &Seats<'_>, is_one: impl Fn(&BackendReport) -> bool, again: &mut Again) -> Option<Fault> {
    let mut worst: Option<Fault> = None;
    for (_, report) in seats.all() {
        // Of several pipelines of one agent the worst counts.
        let mut of_agent: Option<(Severity, Timestamp, &str)> = None;
        for said in report.backends.iter().filter(|said| is_one(said)) {
            let since =
                i64::try_from(said.since_unix_seconds).ok().and_then(|second| Timestamp::from_second(second).ok());
            // A clock that goes ahead of ours says what is now.
            let since = since.unwrap_or(again.now).min(again.now);
            let severity = Severity::of(said);
            if severity == Severity::Retrying && !again.has_passed(since, RETRYING_AFTER) {
                continue;
            }
            let is_worse = of_agent.is_none_or(|(worst, at, _)| severity > worst || (severity == worst && since < at));
            if is_worse {
                of_agent = Some((severity, since, &said.error));
            }
        }
        let Some((state, since, error)) = of_agent else { continue };
        match &mut worst {
            Some(fault) if fault.state == state => {
                fault.agents += 1;
                if since < fault.since {
                    (fault.since, fault.error) = (since, error.to_owned());
                }
            }
            Some(fault) if fault.state > state => {}
            _ => worst = Some(Fault { state, since, agents: 1, error: error.to_owned() }),
        }
    }
    worst
}

/// Returns whether a report is about the object.
pub(super) fn is_about(said: &BackendReport, key: &ObjectKey) -> bool {
    let Some((namespace, name)) = said.backend.split_once('.') else { return false };
    let is_one = match key.kind {
        Kind::ClusterBackend => namespace.is_empty() || namespace == CLUSTER,
        _ => namespace == &*key.namespace,
    };
    is_one && name == &*key.name
}

/// Returns whether a sidecar says that it cannot hand a route to the agent of its node: none of its destinations gets anything.
pub(super) fn is_about_the_node(said: &BackendReport) -> bool {
    said.backend.strip_prefix('.') == Some(NODE_AGENT)
}

impl Severity {
    fn of(said: &BackendReport) -> Self {
        match said.state {
            _ if said.fault == FORBIDDEN => Self::Forbidden,
            BackendCondition::Retrying => Self::Retrying,
            BackendCondition::Unreachable => Self::Unreachable,
        }
    }
}

impl Fault {
    pub(super) fn reason(&self) -> Reason {
        match self.state {
            Severity::Retrying => Reason::BackendRetrying,
            Severity::Unreachable => Reason::BackendUnreachable,
            Severity::Forbidden => Reason::BackendForbidden,
        }
    }

    /// Returns what to say of it: what stays while the fault does, and what an attempt said.
    pub(super) fn words(&self, name: &str) -> (String, String) {
        let what = match self.state {
            Severity::Retrying => "attempts fail",
            Severity::Unreachable => "unreachable",
            Severity::Forbidden => "forbidden",
        };
        let head = format!("{name}: {what} since {} on {}", text(self.since), counted(self.agents, "agent"));
        if self.error.is_empty() { (head, String::new()) } else { (format!("{head}: "), self.error.clone()) }
    }
}
