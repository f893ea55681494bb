//! The status of a pipeline.

use std::collections::BTreeSet;

use jiff::Timestamp;
use spillway_crds::kinds::status::{AgentCounts, BackendHealth, BackendState, ConditionStatus, PipelineStatus};
use spillway_crds::nodes;
use spillway_crds::served::Refused;

use super::agents::{Agents, Seats};
use super::conditions::{self, Said};
use super::faults::{self, Fault, Severity};
use super::{Again, BACKENDS_MAX, BEFORE, GENERATION, LOWERED_AFTER, Reason, text};
use crate::render::{Use, Verdict};
use crate::repair::Sidecars;
use crate::world::ObjectKey;

/// The condition that says which pods lack the sidecar that they asked for; it stands while there is one.
const SIDECARS: &str = "SidecarsCurrent";

/// What agents make of a pipeline.
struct Ran {
    programmed: Said,
    flowing: Said,
    agents: AgentCounts,
    backends: Vec<BackendState>,
}

/// What agents that count say, counted.
#[derive(Default)]
struct Counts<'a> {
    programmed: usize,
    waiting: Vec<&'a str>,
    refused: Vec<(&'a str, &'a Refused)>,
}

/// Returns the status of a pipeline, and when to look again.
pub fn pipeline(
    key: &ObjectKey,
    verdict: &Verdict,
    before: &PipelineStatus,
    agents: &Agents<'_>,
    now: Timestamp,
) -> (PipelineStatus, Option<Timestamp>) {
    let mut again = Again::new(now);
    let still = match verdict.served {
        Some(served) if served != verdict.generation => format!("{GENERATION}{served} runs on"),
        Some(_) if verdict.resolved.is_err() => BEFORE.to_owned(),
        _ => String::new(),
    };
    let accepted = Said::of(&verdict.accepted, (Reason::Accepted, "the spec can be run"), &still);
    let resolved = Said::of(&verdict.resolved, (Reason::Resolved, "what it refers to is there and allowed"), &still);
    let resolved = match &verdict.resolved {
        Ok(()) if !accepted.holds() => {
            Said::unknown(Reason::NotAccepted, "not looked at, since the spec cannot be run")
        }
        _ => resolved,
    };
    let seats = agents.seats(&key.label(), &mut again);
    let ran = unsettled(verdict, before, &seats).unwrap_or_else(|| ran(key, verdict, before, &seats, &mut again));
    let is_down = ran.flowing.status == ConditionStatus::False && ran.flowing.reason != Reason::Suspended && {
        let since = conditions::since(&ran.flowing, "DataFlowing", &before.conditions, now);
        again.has_passed(since, LOWERED_AFTER)
    };
    let first_not = [&accepted, &resolved, &ran.programmed].into_iter().find(|said| !said.holds());
    let ready = match first_not {
        Some(said) => said.clone(),
        None if is_down => ran.flowing.clone(),
        None if verdict.is_suspended => Said::yes(Reason::Suspended, "suspended, as its spec says"),
        None if ran.programmed.reason == Reason::Idle => Said::yes(Reason::Idle, "no node has a pod that it takes"),
        None => Said::yes(Reason::Ready, "data can flow"),
    };
    let more = conditions::of_kstatus(&ready);
    let said = [
        ("Ready", ready),
        ("Accepted", accepted),
        ("ResolvedRefs", resolved),
        ("Programmed", ran.programmed),
        ("DataFlowing", ran.flowing),
    ];
    let settled = |(kind, said): (&str, Said)| said.settled(kind, verdict.generation, &before.conditions, now);
    let status = PipelineStatus {
        observed_generation: Some(verdict.generation),
        conditions: said.into_iter().chain(more).map(settled).collect(),
        agents: Some(ran.agents),
        backends: ran.backends,
        sidecars: None,
    };
    (status, again.at)
}

/// Returns the status with what is said of pods that asked for the pipeline. Whether they have what they asked for is no part of
/// `Ready`: what others send flows.
pub fn with_sidecars(
    mut status: PipelineStatus,
    Sidecars { counts, fault }: Sidecars,
    before: &PipelineStatus,
    now: Timestamp,
) -> PipelineStatus {
    let generation = status.observed_generation.unwrap_or_default();
    let said = fault.map(|(reason, words)| Said::no(reason, words));
    status.conditions.extend(said.map(|said| said.settled(SIDECARS, generation, &before.conditions, now)));
    PipelineStatus { sidecars: counts, ..status }
}

/// Returns what the last leader saw, while this one has not heard every agent yet.
fn unsettled(verdict: &Verdict, before: &PipelineStatus, seats: &Seats<'_>) -> Option<Ran> {
    if !seats.is_settling || before.observed_generation != Some(verdict.generation) {
        return None;
    }
    Some(Ran {
        programmed: Said::before(&before.conditions, "Programmed")?,
        flowing: Said::before(&before.conditions, "DataFlowing")?,
        agents: before.agents?,
        backends: before.backends.clone(),
    })
}

fn ran(key: &ObjectKey, verdict: &Verdict, before: &PipelineStatus, seats: &Seats<'_>, again: &mut Again) -> Ran {
    let label = key.label();
    let needed: BTreeSet<String> = verdict.uses.iter().map(|one| one.key(&key.namespace).label()).collect();
    let is_current = verdict.served == Some(verdict.generation);
    let mut counts = Counts::default();
    let labels = || std::iter::once(label.as_str()).chain(needed.iter().map(String::as_str));
    for (node, report) in seats.all() {
        if let Some(refused) = report.refused.iter().find(|refused| labels().any(|label| label == refused.object)) {
            counts.refused.push((node.name, refused));
        }
    }
    for (node, report) in &seats.heard {
        if counts.refused.iter().any(|(name, _)| *name == node.name) {
            continue;
        }
        if is_current && node.runs(report, labels()) {
            counts.programmed += 1;
        } else {
            counts.waiting.push(node.name);
        }
    }
    let agents = AgentCounts {
        desired: seats.heard.len() as u32,
        programmed: counts.programmed as u32,
        failing: counts.refused.len() as u32,
    };
    let states = states(key, verdict, seats, again);
    let programmed = programmed(verdict, seats, &counts);
    let flowing = flowing(verdict, seats, &programmed, &states);
    Ran { programmed, flowing, agents, backends: backends(states, before, agents.programmed > 0, again.now) }
}

fn programmed(verdict: &Verdict, seats: &Seats<'_>, counts: &Counts<'_>) -> Said {
    let Some(served) = verdict.served else {
        return Said::no(Reason::NotServed, "no version of it can be run");
    };
    let (all, absent) = (seats.heard.len(), &*seats.absent);
    if let Some((_, first)) = counts.refused.first() {
        let names: Vec<&str> = counts.refused.iter().map(|(node, _)| *node).collect();
        let head = nodes::refused(&names, seats.all().count(), first.kept, absent);
        return Said { tail: first.reason.clone(), ..Said::no(Reason::Refused, head) };
    }
    if served != verdict.generation {
        return Said::no(Reason::OlderVersion, format!("generation {served} runs on"));
    }
    if all == 0 {
        return match absent {
            [] => Said::yes(Reason::Idle, "no node has a pod that it takes"),
            _ if seats.is_settling => Said::unknown(Reason::Pending, "agents are about to be heard"),
            _ => Said::unknown(Reason::AgentsAbsent, nodes::unheard(absent)),
        };
    }
    let message = nodes::run(counts.programmed, all, &counts.waiting, absent);
    if counts.programmed < all {
        return Said::no(Reason::Waiting, message);
    }
    Said::yes(Reason::Programmed, message)
}

/// The references of a pipeline, each with what agents say of it.
type States<'a> = Vec<(&'a Use, Option<Fault>)>;

/// Returns what agents say of each reference, of one route and name once.
fn states<'a>(key: &ObjectKey, verdict: &'a Verdict, seats: &Seats<'_>, again: &mut Again) -> States<'a> {
    let label = key.label();
    let mut seen = BTreeSet::new();
    let unique = verdict.uses.iter().filter(|one| seen.insert((&one.route, &one.name)));
    let state = |one: &'a Use| {
        let of = one.key(&key.namespace);
        let is_one = |said: &spillway_crds::served::BackendReport| {
            said.object == label
                && *said.route == *one.route
                && (faults::is_about(said, &of) || faults::is_about_the_node(said))
        };
        (one, faults::worst(seats, is_one, again))
    };
    unique.map(state).collect()
}

fn flowing(verdict: &Verdict, seats: &Seats<'_>, programmed: &Said, states: &States<'_>) -> Said {
    if verdict.is_suspended && verdict.served == Some(verdict.generation) {
        return Said::no(Reason::Suspended, "suspended, as its spec says; what is held is kept");
    }
    let faults = states.iter().filter_map(|(one, fault)| Some((one, fault.as_ref()?)));
    // The worst, and of those the first in time.
    let worst = faults.max_by_key(|(_, fault)| (fault.state, std::cmp::Reverse(fault.since)));
    if let Some((one, fault)) = worst {
        let (head, tail) = fault.words(&one.name);
        return Said { tail, ..Said::no(fault.reason(), head) };
    }
    match programmed.reason {
        Reason::Idle => Said::yes(Reason::Idle, "nothing is to be delivered"),
        Reason::NotServed => Said::unknown(Reason::NotServed, "no agent runs it"),
        Reason::AgentsAbsent | Reason::Pending => Said::unknown(programmed.reason, programmed.head.clone()),
        _ if seats.heard.is_empty() => Said::unknown(Reason::AgentsAbsent, "no agent that is to run it was heard"),
        _ => Said::yes(Reason::Flowing, "no agent tells of a fault of its backends"),
    }
}

/// Returns the states of backends, those with a fault first.
fn backends(states: States<'_>, before: &PipelineStatus, is_run: bool, now: Timestamp) -> Vec<BackendState> {
    let state = |(one, fault): (&Use, Option<Fault>)| {
        let known = before.backends.iter().find(|known| *known.route == *one.route && *known.name == *one.name);
        let (state, agents, since) = match fault {
            Some(fault) => {
                let state = match fault.state {
                    Severity::Retrying => BackendHealth::Retrying,
                    Severity::Unreachable | Severity::Forbidden => BackendHealth::Unreachable,
                };
                (state, Some(fault.agents as u32), Some(text(fault.since)))
            }
            None if is_run => {
                let since =
                    known.filter(|known| known.state == BackendHealth::Healthy).and_then(|known| known.since.clone());
                (BackendHealth::Healthy, None, Some(since.unwrap_or_else(|| text(now))))
            }
            None => (BackendHealth::Unknown, None, None),
        };
        let (route, name) = (one.route.to_string(), one.name.to_string());
        BackendState { route, kind: one.kind, name, state, agents, since }
    };
    let mut states: Vec<BackendState> = states.into_iter().map(state).collect();
    states.sort_by_key(|state| match state.state {
        BackendHealth::Unreachable => 0,
        BackendHealth::Retrying => 1,
        BackendHealth::Healthy | BackendHealth::Unknown => 2,
    });
    states.truncate(BACKENDS_MAX);
    states
}
