//! What is worth an Event: that an object is not ready, once for each cause. Pure.
//!
//! # Guarantees
//! - Only `Ready` is looked at, which has the reason of the first condition that does not hold: one fault is one Event, however
//!   many conditions it lowers.
//! - What passes by itself (`Pending`, `Waiting`) is no cause and ends none, so that a new leader repeats nothing.
//! - What only says it in other numbers or words is the same cause: faults of agents and backends, and sizes, are told by
//!   their reason alone. What is said of a spec and its references is told by its words: another field, another cause. Which
//!   version runs on meanwhile does not count.
//!
//! # Limits
//! A note has at most [`NOTE_BYTES_MAX`] bytes, as the API server allows.

use std::sync::Arc;

use jiff::Timestamp;
use spillway_crds::kinds::status::{ConditionStatus, StatusCondition};

use super::{BEFORE, GENERATION, Reason};

/// Most bytes of what an Event says.
pub const NOTE_BYTES_MAX: usize = 1024;

/// Whether an object does what it is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known that would change what was said.
    Unsure,
    /// It is ready.
    Well,
    /// It is not.
    Broken(Cause),
}

/// Why an object is not ready, without what changes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    reason: Reason,
    words: String,
}

/// What an Event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The object's `metadata.uid`.
    pub uid: Arc<str>,
    /// Why it is told; the same cause is the same Event.
    pub cause: Cause,
    /// The reason as the condition has it.
    pub reason: Reason,
    /// The message of the condition.
    pub note: String,
    /// Since when.
    pub at: Timestamp,
}

impl Cause {
    /// Returns it as one text: what tells it from others.
    pub fn text(&self) -> String {
        format!("{}/{}", self.reason.name(), self.words)
    }
}

/// Returns how an object with these conditions stands.
pub fn standing(conditions: &[StatusCondition]) -> Standing {
    match ready(conditions) {
        Some((condition, _)) if condition.status == ConditionStatus::True => Standing::Well,
        Some((_, reason)) if reason.is_passing() => Standing::Unsure,
        Some((condition, reason)) => Standing::Broken(cause(reason, &condition.message)),
        None => Standing::Unsure,
    }
}

/// Returns what to tell of an object that stood as `before` and has these conditions now, and how it stands.
pub fn news(
    before: Standing,
    conditions: &[StatusCondition],
    uid: &Arc<str>,
    now: Timestamp,
) -> (Standing, Option<News>) {
    let Some((condition, reason)) = ready(conditions) else { return (before, None) };
    match standing(conditions) {
        Standing::Unsure => (before, None),
        Standing::Broken(cause) if before != Standing::Broken(cause.clone()) => {
            let note = noted(&condition.message);
            let news = News { uid: uid.clone(), cause: cause.clone(), reason, note, at: now };
            (Standing::Broken(cause), Some(news))
        }
        after => (after, None),
    }
}

fn ready(conditions: &[StatusCondition]) -> Option<(&StatusCondition, Reason)> {
    let condition = conditions.iter().find(|condition| condition.r#type == "Ready")?;
    Some((condition, Reason::of_name(&condition.reason)?))
}

fn cause(reason: Reason, message: &str) -> Cause {
    match reason {
        // One goes over into the other and back while a server is away.
        Reason::BackendRetrying => Cause { reason: Reason::BackendUnreachable, words: String::new() },
        Reason::Invalid
        | Reason::BackendNotFound
        | Reason::BackendInvalid
        | Reason::RefNotPermitted
        | Reason::SecretNotFound
        | Reason::SecretKeyNotFound
        | Reason::SecretTooLarge => Cause { reason, words: without_rest(message).to_owned() },
        _ => Cause { reason, words: String::new() },
    }
}

/// Returns the message without what it says of the version that runs on.
fn without_rest(message: &str) -> &str {
    let message = message.strip_suffix(BEFORE).unwrap_or(message);
    message.rfind(GENERATION).map_or(message, |at| &message[..at])
}

/// Returns words as an Event takes them.
pub fn noted(message: &str) -> String {
    if message.len() <= NOTE_BYTES_MAX {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(NOTE_BYTES_MAX - '…'.len_utf8());
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(status: ConditionStatus, reason: Reason, message: &str) -> Vec<StatusCondition> {
        let condition = |kind: &str| StatusCondition {
            r#type: kind.to_owned(),
            status,
            observed_generation: Some(1),
            last_transition_time: String::new(),
            reason: reason.name().to_owned(),
            message: message.to_owned(),
        };
        vec![condition("Ready"), condition("Accepted"), condition("Stalled")]
    }

    /// Tells the story from `before`; returns what was told.
    fn told(before: Standing, story: &[(ConditionStatus, Reason, &str)]) -> Vec<String> {
        let mut stands = before;
        let mut told = Vec::new();
        for (status, reason, message) in story {
            let conditions = conditions(*status, *reason, message);
            let (after, news) = news(stands, &conditions, &"u".into(), Timestamp::UNIX_EPOCH);
            told.extend(news.map(|news| format!("{}: {}", news.reason.name(), news.note)));
            stands = after;
        }
        told
    }

    const NO: ConditionStatus = ConditionStatus::False;
    const YES: ConditionStatus = ConditionStatus::True;
    const UNKNOWN: ConditionStatus = ConditionStatus::Unknown;

    #[test]
    fn a_fault_is_told_once_and_again_when_it_was_mended_meanwhile() {
        let fault = (NO, Reason::Invalid, "spec.a: no");
        assert_eq!(told(Standing::Unsure, &[fault, fault, fault]), ["Invalid: spec.a: no"]);
        assert_eq!(told(Standing::Well, &[fault, (YES, Reason::Ready, ""), fault]).len(), 2);
        let passing = (UNKNOWN, Reason::Pending, "");
        assert_eq!(told(Standing::Well, &[passing, fault, passing, (NO, Reason::Waiting, ""), fault]).len(), 1);
    }

    #[test]
    fn another_field_is_another_cause_and_another_figure_is_not() {
        let spec = [(NO, Reason::Invalid, "spec.a: no"), (NO, Reason::Invalid, "spec.b: no")];
        assert_eq!(told(Standing::Well, &spec), ["Invalid: spec.a: no", "Invalid: spec.b: no"]);
        let versions = [
            (NO, Reason::Invalid, "spec.a: no"),
            (NO, Reason::Invalid, "spec.a: no; generation 2 runs on"),
            (NO, Reason::Invalid, "spec.a: no; what ran before runs on where it can"),
        ];
        assert_eq!(told(Standing::Well, &versions), ["Invalid: spec.a: no"]);
        let agents = [
            (NO, Reason::BackendRetrying, "search: attempts fail on 1 agent"),
            (NO, Reason::BackendUnreachable, "search: unreachable on 2 agents"),
            (NO, Reason::BackendUnreachable, "search: unreachable on 3 agents"),
        ];
        assert_eq!(told(Standing::Well, &agents), ["BackendRetrying: search: attempts fail on 1 agent"]);
        let sizes = [(NO, Reason::TooLarge, "17 MiB"), (NO, Reason::TooLarge, "18 MiB")];
        assert_eq!(told(Standing::Well, &sizes).len(), 1);
    }

    #[test]
    fn what_the_cluster_says_already_and_what_is_well_is_not_told() {
        let fault = conditions(NO, Reason::SecretNotFound, "search");
        assert_eq!(told(standing(&fault), &[(NO, Reason::SecretNotFound, "search")]), [""; 0]);
        let well = [Reason::Ready, Reason::Idle, Reason::Suspended, Reason::Unused].map(|reason| (YES, reason, ""));
        assert_eq!(told(Standing::Unsure, &well), [""; 0]);
        assert_eq!(standing(&[]), Standing::Unsure);
        assert_eq!(standing(&conditions(NO, Reason::Ready, "")[1..]), Standing::Unsure, "no Ready");
    }

    #[test]
    fn a_note_is_as_long_as_an_api_server_takes() {
        let long = "ä".repeat(2000);
        let told = told(Standing::Well, &[(NO, Reason::Invalid, &long)]);
        assert!(told[0].len() <= NOTE_BYTES_MAX + "Invalid: ".len() && told[0].ends_with("ä…"), "{}", told[0].len());
    }
}
