//! Conditions: what is said, against what was said before.

use jiff::Timestamp;
use spillway_crds::kinds::status::{ConditionStatus, StatusCondition};

use super::{MESSAGE_CHARS_MAX, Reason, text};
use crate::render::Why;

/// What is said of one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) status: ConditionStatus,
    pub(super) reason: Reason,
    /// Words that count.
    pub(super) head: String,
    /// Words whose numbers do not count: what an attempt said.
    pub(super) tail: String,
}

impl Said {
    pub(super) fn new(status: ConditionStatus, reason: Reason, message: impl Into<String>) -> Self {
        Self { status, reason, head: message.into(), tail: String::new() }
    }

    pub(super) fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(ConditionStatus::True, reason, message)
    }

    pub(super) fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(ConditionStatus::False, reason, message)
    }

    pub(super) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(ConditionStatus::Unknown, reason, message)
    }

    /// Returns what a verdict says, where `still` tells what runs all the same.
    pub(super) fn of(verdict: &Result<(), Why>, good: (Reason, &str), still: &str) -> Self {
        match verdict {
            Ok(()) => Self::yes(good.0, good.1),
            Err(why) => {
                let reason = why.reason;
                let message = format!("{}{still}", why.message);
                if reason == Reason::Pending { Self::unknown(reason, message) } else { Self::no(reason, message) }
            }
        }
    }

    /// Returns what was said before; `None` where nothing was, or in words that are not ours.
    pub(super) fn before(before: &[StatusCondition], kind: &str) -> Option<Self> {
        let known = find(before, kind)?;
        let reason = Reason::of_name(&known.reason)?;
        Some(Self::new(known.status, reason, known.message.clone()))
    }

    pub(super) fn holds(&self) -> bool {
        self.status == ConditionStatus::True
    }

    /// Returns the condition. Where its status is what it was, so is its time; where only numbers in the words of an attempt
    /// differ, so are its words.
    pub(super) fn settled(
        self,
        kind: &str,
        generation: i64,
        before: &[StatusCondition],
        now: Timestamp,
    ) -> StatusCondition {
        let known = find(before, kind);
        let mut message = shortened(&format!("{}{}", self.head, self.tail));
        if let Some(known) = known
            && known.status == self.status
            && known.reason == self.reason.name()
            && known.message.starts_with(&self.head)
            && !self.tail.is_empty()
            && without_digits(&known.message) == without_digits(&message)
        {
            message.clone_from(&known.message);
        }
        let since = known.filter(|known| known.status == self.status).map(|known| known.last_transition_time.clone());
        StatusCondition {
            r#type: kind.to_owned(),
            status: self.status,
            observed_generation: Some(generation),
            last_transition_time: since.unwrap_or_else(|| text(now)),
            reason: self.reason.name().to_owned(),
            message,
        }
    }
}

/// Returns when a condition got the status that it has now.
pub(super) fn since(said: &Said, kind: &str, before: &[StatusCondition], now: Timestamp) -> Timestamp {
    let known = find(before, kind).filter(|known| known.status == said.status);
    known.and_then(|known| known.last_transition_time.parse().ok()).unwrap_or(now)
}

/// Returns the conditions by which kstatus tells what comes by itself from what does not.
pub(super) fn of_kstatus(ready: &Said) -> Vec<(&'static str, Said)> {
    if ready.holds() {
        return Vec::new();
    }
    let said = |kind, ready: &Said| (kind, Said { status: ConditionStatus::True, ..ready.clone() });
    if ready.reason.is_final() {
        vec![said("Stalled", ready)]
    } else if ready.reason.is_passing() {
        vec![said("Reconciling", ready)]
    } else {
        Vec::new()
    }
}

fn find<'a>(conditions: &'a [StatusCondition], kind: &str) -> Option<&'a StatusCondition> {
    conditions.iter().find(|condition| condition.r#type == kind)
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|character| !character.is_ascii_digit()).collect()
}

fn shortened(message: &str) -> String {
    if message.chars().count() <= MESSAGE_CHARS_MAX {
        return message.to_owned();
    }
    message.chars().take(MESSAGE_CHARS_MAX - 1).chain(['…']).collect()
}
