//! What the operator tells of pods, and what follows for the readers of their containers.
//!
//! # Guarantees
//! - Nothing of a pod that is not told of is read, unless the machine's settings say so: its files are held open where a
//!   reader would begin, and read from there once the pod is told of. Bounded by the descriptors that may be held.
//! - Selection follows what is told. A pod that was read, or that wanted to be left alone, is read from now on when it is
//!   selected again: what was written meanwhile was not meant for the pipeline. Any other is read from its beginning.
//! - A pod that is told of no more is gone, and is read to the end as it was told of last.
//!
//! # Limits
//! What is held of a pod whose directory is gone and of which no table of [`GIVEN_UP_AFTER`] later knows is given up and
//! counted as missed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_crds::served::PodFacts as Facts;
use tokio::time::Instant;

use super::super::cri::Cri;
use super::super::position;
use super::{PodFacts, Tailer, state};
use crate::pods::{NodePods, opts_out};
use crate::settings::UnknownPods;
use crate::sources::tail::reader::{Start, Taking};
use crate::sources::tail::stats::Counts;
use crate::sources::tail::unit::{Gate, Past, SeatState, Unit};

/// How long a pod whose directory is gone may stay untold while the operator answers.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// What is told of pods.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The newest table.
    table: Option<Arc<NodePods>>,
    /// What was told last of each pod, by its directory.
    facts: BTreeMap<Arc<str>, Arc<Facts>>,
    /// Pods that want to be left alone, or did when they were last looked at.
    silenced: BTreeSet<Arc<str>>,
}

/// What is known of a pod.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// Its path; nobody tells of more.
    Path,
    /// Its path, until it is told of.
    NotYet,
    /// Everything.
    Told(Arc<Facts>),
    /// That it wants to be left alone.
    Silent,
}

impl Tailer {
    /// Takes the newest table in.
    pub(super) fn follow_pods(&mut self, now: Instant) {
        let newest = self.settings.pods.as_ref().and_then(|pods| pods.borrow().as_ref().map(|told| told.pods.clone()));
        let Some(newest) = newest else { return };
        self.told.table = Some(newest);
        if !self.is_started {
            return;
        }
        for pod in self.pods.names.keys().cloned().collect::<Vec<_>>() {
            let before = self.told.facts.get(&pod).cloned();
            let Some(known) = PodFacts::from_directory(&pod).map(|path| self.known(&pod, &path)) else { continue };
            if self.told.facts.get(&pod) != before.as_ref() {
                self.scan_pod(&pod, now);
                self.follow_known(&pod, &known);
            }
        }
        self.count_held();
    }

    /// Returns what is known of a pod.
    pub(super) fn known(&mut self, pod: &Arc<str>, path: &PodFacts) -> Known {
        if self.settings.pods.is_none() {
            return Known::Path;
        }
        let table = self.told.table.as_ref();
        if let Some(facts) = table.and_then(|table| table.get(&path.uid, &path.namespace, &path.pod)) {
            self.told.facts.insert(pod.clone(), facts.clone());
        }
        match self.told.facts.get(pod) {
            None => Known::NotYet,
            Some(facts) if opts_out(facts) => {
                self.told.silenced.insert(pod.clone());
                Known::Silent
            }
            Some(facts) => Known::Told(facts.clone()),
        }
    }

    /// Returns whether a pipeline reads a container; `None` when it does not want it whatever the pod is.
    pub(super) fn gate(&self, known: &Known, (path, container): (&PodFacts, &str), pipeline: usize) -> Option<Gate> {
        let mut wants =
            self.wants.iter().filter(|want| want.pipeline == pipeline && want.takes(path, container)).peekable();
        wants.peek()?;
        let opens = match known {
            Known::Path => true,
            Known::Silent => false,
            Known::Told(facts) => wants.any(|want| want.pod_selector.matches(&facts.labels)),
            Known::NotYet => match self.settings.unknown_pods {
                UnknownPods::Deliver if wants.any(|want| want.pod_selector.is_empty()) => true,
                UnknownPods::Deliver | UnknownPods::Hold => return Some(Gate::Held),
            },
        };
        Some(if opens { Gate::Open } else { Gate::Closed })
    }

    /// Returns whether a pod was seen to want to be left alone.
    pub(super) fn is_silenced(&self, pod: &str) -> bool {
        self.told.silenced.contains(pod)
    }

    /// Opens and closes the gates of a pod's containers as they are to be now.
    fn follow_known(&mut self, pod: &Arc<str>, known: &Known) {
        let Some(path) = PodFacts::from_directory(pod) else { return };
        for (name, key) in self.pods.names.get(pod).cloned().unwrap_or_default() {
            let origin = state::origin(&path, &name, self.settings.node.as_deref(), known);
            let pipelines =
                self.core.units.get_mut(&key).map(|one| one.seats.iter().map(|seat| seat.reader.pipeline).collect());
            for (index, pipeline) in Vec::into_iter(pipelines.unwrap_or_default()).enumerate() {
                let gate = self.gate(known, (&path, &name), pipeline).unwrap_or(Gate::Closed);
                self.turn_gate((key, index), gate, self.is_silenced(pod));
                if let Some(container) = self.core.units.get_mut(&key) {
                    container.seats[index].reader.origin = origin.clone();
                }
            }
            if let Some(container) = self.core.units.get_mut(&key) {
                container.release();
            }
            self.core.wake(key);
            self.core.leave(key);
        }
        if !matches!(known, Known::Silent) {
            self.told.silenced.remove(pod);
        }
    }

    fn turn_gate(&mut self, (key, index): (u32, usize), gate: Gate, is_silenced: bool) {
        let Some(container) = self.core.units.get_mut(&key) else { return };
        let seat = &mut container.seats[index];
        let lane = &mut self.core.lanes[seat.reader.pipeline];
        if seat.gate == gate || matches!(seat.state, SeatState::Leaving | SeatState::Left) {
            return;
        }
        let mut skips = seat.past == Past::Skipped;
        match (seat.gate, gate) {
            (_, Gate::Closed) => {
                if seat.announces && matches!(seat.state, SeatState::Idle | SeatState::Queued) {
                    seat.announces = false;
                    lane.announcing -= 1;
                }
                self.core.group_bytes -= seat.reader.held_bytes();
                seat.reader = seat.reader.anew();
            }
            (Gate::Closed, Gate::Open) => {
                let was_read = seat.past == Past::Read || lane.positions.remove(seat.reader.source()).is_some();
                if was_read || is_silenced || skips {
                    let mut taking =
                        Taking { opener: &self.core.opener, chunk: &mut self.core.chunk, counts: Counts::default() };
                    seat.reader.begin_at(Start::End);
                    seat.reader.take_found(&[], &mut container.files, &mut taking);
                    self.core.stats.add_turn(&taking.counts);
                    skips = true;
                } else {
                    seat.reader.take_all(&container.files);
                }
            }
            _ => {}
        }
        if gate == Gate::Open {
            seat.past = Past::Read;
            if skips && !seat.announces {
                seat.announces = true;
                lane.announcing += 1;
            }
        }
        seat.gate = gate;
    }

    /// Keeps the positions of containers that are there and not read, and of pods that could not be listed; the others are
    /// forgotten.
    pub(super) fn settle_positions(&mut self) {
        let (there, unlisted) = self.there();
        let stays = |source: &Bytes| there.contains(source) || unlisted.iter().any(|pod| source.starts_with(pod));
        for lane in &mut self.core.lanes {
            lane.farewells.extend(lane.positions.extract_if(|source, _| !stays(source)).map(|(source, _)| source));
        }
    }

    /// Forgets a pod whose directory is gone, as far as nothing of it is read.
    pub(super) fn forget_pod(&mut self, pod: &str) {
        let Some(path) = PodFacts::from_directory(pod) else { return };
        let prefix = position::source(&path.uid, "");
        for lane in &mut self.core.lanes {
            let gone: Vec<Bytes> =
                lane.positions.keys().filter(|source| source.starts_with(&prefix)).cloned().collect();
            lane.positions.retain(|source, _| !source.starts_with(&prefix));
            lane.farewells.extend(gone);
        }
        self.told.facts.remove(pod);
        self.told.silenced.remove(pod);
        self.pods.unlisted.remove(pod);
    }

    /// The sources of containers that are there though nobody may read them, and what those of pods begin with that could
    /// not be listed.
    fn there(&self) -> (HashSet<Bytes>, Vec<Bytes>) {
        let (mut there, mut unlisted) = (HashSet::new(), Vec::new());
        for pod in self.pods.names.keys() {
            let Some(path) = PodFacts::from_directory(pod) else { continue };
            if self.pods.unlisted.contains(pod) {
                unlisted.push(position::source(&path.uid, ""));
            } else if self.settings.pods.is_some() {
                match super::discover::directories(&self.settings.root.join(&**pod), &self.core.opener) {
                    Ok(names) => there.extend(names.iter().map(|name| position::source(&path.uid, name))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => unlisted.push(position::source(&path.uid, "")),
                }
            }
        }
        (there, unlisted)
    }

    /// Gives up what is held of pods that are gone and that the operator, which answers, does not tell of.
    pub(super) fn give_up(&mut self, now: Instant) {
        let told = self.settings.pods.as_ref().and_then(|pods| pods.borrow().as_ref().and_then(|told| told.confirmed));
        let Some(confirmed) = told else { return };
        for key in self.keys() {
            let Some(container) = self.core.units.get_mut(&key) else { continue };
            let is_over = container.gone_at.is_some_and(|gone| gone + GIVEN_UP_AFTER < confirmed.min(now));
            if !is_over || !container.seats.iter().any(|seat| seat.gate == Gate::Held) {
                continue;
            }
            let mut counts = Counts::default();
            for seat in container.seats.iter_mut().filter(|seat| seat.gate == Gate::Held) {
                (counts.missed_files, counts.missed_bytes) = seat.reader.unread(&container.files);
                (seat.gate, seat.reader) = (Gate::Closed, seat.reader.anew());
                self.core.stats.add_turn(&counts);
            }
            container.release();
            tracing::warn!(
                directory = %container.path.display(), missed_bytes = counts.missed_bytes,
                "a pod is gone and the operator does not know it: its logs were not read"
            );
            self.core.leave(key);
        }
        self.count_held();
    }

    /// Counts the containers of which something is held.
    pub(super) fn count_held(&mut self) {
        let is_held = |container: &&Unit<Cri>| container.seats.iter().any(|seat| seat.gate == Gate::Held);
        self.core.shares.set_held(self.core.units.values().filter(is_held).count());
    }
}
