//! The status of a destination.

use jiff::Timestamp;
use spillway_crds::kinds::status::{BackendStatus, ConditionStatus};
use spillway_crds::nodes::named;

use super::agents::{Agents, Seats};
use super::conditions::{self, Said};
use super::{Again, GENERATION, LOWERED_AFTER, Reason, faults};
use crate::render::Verdict;
use crate::world::ObjectKey;

/// Returns the status of a Backend or `ClusterBackend`, and when to look again.
pub fn backend(
    key: &ObjectKey,
    verdict: &Verdict,
    before: &BackendStatus,
    agents: &Agents<'_>,
    now: Timestamp,
) -> (BackendStatus, Option<Timestamp>) {
    let mut again = Again::new(now);
    let seats = agents.seats(&key.label(), &mut again);
    let still = match verdict.served {
        Some(served) if served != verdict.generation => format!("{GENERATION}{served} is used on"),
        _ => String::new(),
    };
    let accepted = Said::of(&verdict.accepted, (Reason::Accepted, "the spec can be used"), &still);
    let resolved = Said::of(&verdict.resolved, (Reason::Resolved, "the Secrets it names are there"), "");
    let resolved = match &verdict.resolved {
        Ok(()) if !accepted.holds() => {
            Said::unknown(Reason::NotAccepted, "not looked at, since the spec cannot be used")
        }
        _ => resolved,
    };
    let is_same = before.observed_generation == Some(verdict.generation);
    let reachable = Said::before(&before.conditions, "Reachable")
        .filter(|_| seats.is_settling && is_same)
        .unwrap_or_else(|| reachable(key, verdict, &seats, &mut again));
    let is_down = reachable.status == ConditionStatus::False && {
        let since = conditions::since(&reachable, "Reachable", &before.conditions, now);
        again.has_passed(since, LOWERED_AFTER)
    };
    let ready = if !accepted.holds() {
        accepted.clone()
    } else if !resolved.holds() {
        resolved.clone()
    } else if is_down {
        reachable.clone()
    } else if verdict.used_by == 0 {
        Said::yes(Reason::Unused, "it can be used, and no pipeline refers to it")
    } else {
        Said::yes(Reason::Ready, "it can be used")
    };
    let more = conditions::of_kstatus(&ready);
    let said = [("Ready", ready), ("Accepted", accepted), ("ResolvedRefs", resolved), ("Reachable", reachable)];
    let settled = |(kind, said): (&str, Said)| said.settled(kind, verdict.generation, &before.conditions, now);
    let status = BackendStatus {
        observed_generation: Some(verdict.generation),
        conditions: said.into_iter().chain(more).map(settled).collect(),
        pipelines: Some(verdict.used_by),
    };
    (status, again.at)
}

fn reachable(key: &ObjectKey, verdict: &Verdict, seats: &Seats<'_>, again: &mut Again) -> Said {
    if let Some(fault) = faults::worst(seats, |said| faults::is_about(said, key), again) {
        let (head, tail) = fault.words(&key.name);
        return Said { tail, ..Said::no(fault.reason(), head) };
    }
    if verdict.used_by == 0 {
        Said::unknown(Reason::Unused, "no pipeline refers to it")
    } else if seats.all().next().is_some() {
        Said::yes(Reason::Reachable, "no agent tells of a fault")
    } else if seats.absent.is_empty() {
        Said::unknown(Reason::Idle, "no agent sends to it")
    } else if seats.is_settling {
        Said::unknown(Reason::Pending, "agents are about to be heard")
    } else {
        let nodes = named(seats.absent.iter().copied());
        Said::unknown(Reason::AgentsAbsent, format!("no agent that sends to it was heard: {nodes}"))
    }
}
