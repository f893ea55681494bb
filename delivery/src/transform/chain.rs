//! The transforms of a pipeline, one event after the other.

use std::sync::Arc;

use tokio::time::Instant;

use super::counts::{Counters, Counts};
use super::edit::{EditScratch, Program, Subject};
use super::gate::{Effects, Gate, GateScratch, State};
use super::keep::{Keep, KeepScratch};
use super::lift::{Lift, LiftScratch};
use super::parse::ParseJson;
use super::path::overlap;
use super::redact::{RedactScratch, Redactor};
use super::{Action, FIELDS_MAX, Failure, Multiline, SetValue, Transform};
use crate::condition::Condition;
use crate::event::{EVENT_BYTES_MAX, Origin};

/// The transforms of a pipeline, compiled. Shared by all who submit.
#[derive(Debug)]
pub struct Chain {
    transforms: Vec<Transform>,
    counters: Vec<Arc<Counters>>,
    /// What each transform remembers.
    states: Vec<State>,
    steps: Vec<Step>,
}

/// What is done at once.
#[derive(Debug)]
enum Step {
    Edit(Program),
    Lift { transform: usize, lift: Lift },
    Keep { transform: usize, keep: Keep },
    Drop { transform: usize, condition: Condition },
    Redact { transform: usize, redactor: Redactor },
    Gate(Gate),
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is as it came.
    Same,
    /// It is what [`Scratch::event`] says.
    Changed,
    /// It is not passed on.
    Dropped,
}

/// Memory of a chain, used for one event after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    edit: EditScratch,
    keep: KeepScratch,
    lift: LiftScratch,
    redact: RedactScratch,
    gate: GateScratch,
    /// The event as the steps so far made it.
    event: Vec<u8>,
    /// What the step under way writes.
    next: Vec<u8>,
}

impl Scratch {
    /// Returns the event that was changed.
    pub(super) fn event(&self) -> &[u8] {
        &self.event
    }

    /// Returns what the events so far did to the state of the chain.
    /// Notes that an event is through.
    pub(super) fn event_done(&mut self, is_dropped: bool) {
        self.gate.effects.event_done(is_dropped);
    }

    pub(super) fn into_effects(self) -> Effects {
        self.gate.effects
    }
}

impl Chain {
    /// Compiles transforms, which run in this order.
    pub fn new(transforms: &[Transform]) -> Self {
        Self::of(transforms, |_| None)
    }

    /// Compiles other transforms; one whose name was there before goes on counting, one that is the same goes on with what it
    /// remembers.
    #[must_use]
    pub fn next(&self, transforms: &[Transform]) -> Self {
        Self::of(transforms, |name| {
            self.transforms.iter().position(|transform| transform.name == *name).map(|at| (self, at))
        })
    }

    fn of<'c>(transforms: &[Transform], before: impl Fn(&Arc<str>) -> Option<(&'c Self, usize)>) -> Self {
        let (mut counters, mut states) = (Vec::new(), Vec::new());
        for transform in transforms {
            let before = before(&transform.name);
            counters.push(before.map(|(chain, at)| chain.counters[at].clone()).unwrap_or_default());
            let same = before.filter(|(chain, at)| chain.transforms[*at].action == transform.action);
            states.push(same.map_or_else(|| State::new(&transform.action), |(chain, at)| chain.states[at].clone()));
        }
        let steps = steps(transforms, &states);
        Self { transforms: transforms.to_vec(), counters, states, steps }
    }

    /// Returns the transforms as they were told.
    pub fn transforms(&self) -> &[Transform] {
        &self.transforms
    }

    /// Returns what each transform did since the start.
    pub fn counted(&self) -> impl Iterator<Item = (&Transform, Counts)> {
        self.transforms.iter().zip(&self.counters).map(|(transform, counters)| (transform, counters.counts()))
    }

    /// Counts what was done to a batch.
    pub(super) fn count(&self, counts: &[Counts]) {
        self.counters.iter().zip(counts).for_each(|(counters, counts)| counters.add(counts));
    }

    /// Returns how lines are joined before they come here, where they are.
    pub(crate) fn multiline(&self) -> Option<&Multiline> {
        match &self.transforms.first()?.action {
            Action::Multiline(multiline) => Some(multiline),
            _ => None,
        }
    }

    /// Counts what the source did that joined lines.
    pub(crate) fn count_joined(&self, counts: &Counts) {
        if let (Some(_), Some(counters)) = (self.multiline(), self.counters.first()) {
            counters.add(counts);
        }
    }

    /// Counts keys that were forgotten before their time.
    pub(super) fn count_forgotten(&self, transform: usize, keys: u64) {
        let mut counts = Counts::default();
        counts.failed[Failure::TooManyKeys as usize] = keys;
        self.counters[transform].add(&counts);
    }

    /// Returns what the transforms make of one event (a valid object on one line); `None` when it is dropped. Counts and remembers
    /// nothing, but that a `Sample` without a key had its turn.
    pub fn apply(&self, event: &[u8], origin: &Origin) -> Option<Vec<u8>> {
        let (mut scratch, mut counts) = (Scratch::default(), vec![Counts::default(); self.transforms.len()]);
        let subject =
            Subject { event, origin, bytes_max: EVENT_BYTES_MAX.max(event.len()), received: 0, now: Instant::now() };
        match self.run(subject, &mut scratch, &mut counts) {
            Verdict::Same => Some(event.to_vec()),
            Verdict::Changed => Some(scratch.event),
            Verdict::Dropped => None,
        }
    }

    /// Runs the transforms over one event.
    pub(super) fn run(&self, subject: Subject<'_>, scratch: &mut Scratch, counts: &mut [Counts]) -> Verdict {
        let mut verdict = Verdict::Same;
        for step in &self.steps {
            match step.run(subject, verdict, scratch, counts) {
                Verdict::Same => {}
                Verdict::Changed => {
                    std::mem::swap(&mut scratch.event, &mut scratch.next);
                    verdict = Verdict::Changed;
                }
                Verdict::Dropped => return Verdict::Dropped,
            }
        }
        verdict
    }
}

impl Step {
    /// Returns the step of a transform that runs by itself; `None` for edits.
    fn own(transform: usize, action: &Action, state: &State) -> Option<Self> {
        Some(match action {
            Action::ParseJson(parse @ ParseJson { into: None, .. }) => {
                Self::Lift { transform, lift: Lift::new(parse)? }
            }
            Action::Keep(fields) => Self::Keep { transform, keep: Keep::new(fields) },
            Action::Drop(condition) => Self::Drop { transform, condition: condition.clone() },
            Action::Redact(redact) => Self::Redact { transform, redactor: Redactor::new(redact) },
            action => return Gate::new(transform, action, state).map(Self::Gate),
        })
    }

    /// Runs over the event as the steps so far made it; what it makes of it is in [`Scratch::next`].
    fn run(&self, subject: Subject<'_>, so_far: Verdict, scratch: &mut Scratch, counts: &mut [Counts]) -> Verdict {
        let Scratch { edit, keep, lift, redact, gate, event, next } = scratch;
        let event: &[u8] = if so_far == Verdict::Same { subject.event } else { event };
        let subject = Subject { event, ..subject };
        next.clear();
        match self {
            Self::Edit(program) => program.run(subject, edit, next, counts),
            Self::Gate(step) => step.run(subject, gate, counts),
            Self::Redact { transform, redactor } => redactor.run(subject, redact, next, &mut counts[*transform]),
            Self::Lift { transform, lift: fields } => fields.run(subject, lift, next, &mut counts[*transform]),
            Self::Keep { transform, keep: fields } => {
                let changed = fields.run(event, keep, next);
                counts[*transform].event(changed, None);
                if changed { Verdict::Changed } else { Verdict::Same }
            }
            Self::Drop { transform, condition } => {
                let counts = &mut counts[*transform];
                match condition.eval(event, subject.origin) {
                    Ok(true) => {
                        counts.dropped_event(None);
                        return Verdict::Dropped;
                    }
                    Ok(false) => counts.event(false, None),
                    Err(failure) => counts.event(false, Some(failure.into())),
                }
                Verdict::Same
            }
        }
    }
}

/// Puts together edits that follow each other and touch different fields, so that one walk does for all.
fn steps(transforms: &[Transform], states: &[State]) -> Vec<Step> {
    let (mut steps, mut group) = (Vec::new(), Group::default());
    for (number, (transform, state)) in transforms.iter().zip(states).enumerate() {
        if matches!(transform.action, Action::Multiline(_)) {
            continue;
        }
        let Some(step) = Step::own(number, &transform.action, state) else {
            if !group.takes(&transform.action) {
                steps.extend(std::mem::take(&mut group).program(transforms));
            }
            group.add(number, &transform.action);
            continue;
        };
        steps.extend(std::mem::take(&mut group).program(transforms));
        steps.push(step);
    }
    steps.extend(group.program(transforms));
    steps
}

/// Edits of different fields.
#[derive(Default)]
struct Group {
    transforms: Vec<usize>,
    /// What they change.
    paths: Vec<Vec<String>>,
}

impl Group {
    /// Returns whether an edit may run in the same walk: it neither changes nor reads what the others change. The fields of
    /// one walk are bounded, since each key of an event is compared with them.
    fn takes(&self, action: &Action) -> bool {
        let touched: Vec<Vec<String>> = written_by(action).chain(read_by(action)).collect();
        self.paths.len() + touched.len() <= 2 * FIELDS_MAX
            && touched.iter().all(|one| self.paths.iter().all(|other| !overlap(one, other)))
    }

    fn add(&mut self, number: usize, action: &Action) {
        self.transforms.push(number);
        self.paths.extend(written_by(action));
    }

    fn program(self, transforms: &[Transform]) -> Option<Step> {
        Program::new(transforms, &self.transforms).map(Step::Edit)
    }
}

/// Returns the fields that an edit changes.
fn written_by(action: &Action) -> impl Iterator<Item = Vec<String>> {
    let reads_first = matches!(action, Action::ParseRegex(_) | Action::ParseTimestamp(_) | Action::ParseSeverity(_));
    action.paths().into_iter().skip(usize::from(reads_first)).map(|path| path.keys().to_vec())
}

/// Returns the fields that an edit reads besides those it changes.
fn read_by(action: &Action) -> Vec<Vec<String>> {
    let expressions = match action {
        Action::Set(fields) => fields.iter().filter_map(|field| match &field.value {
            SetValue::Expression(expression) => Some(expression),
            SetValue::Text(_) => None,
        }),
        _ => return action.source().into_iter().map(|path| path.keys().to_vec()).collect(),
    };
    expressions.flat_map(|expression| expression.fields().iter().cloned()).collect()
}
