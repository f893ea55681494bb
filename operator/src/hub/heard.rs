//! An ask as a report: what of it is kept, and in which bounds.

use std::sync::Arc;

use jiff::Timestamp;
use spillway_crds::served::{Ask, BackendReport, Held, REASON_BYTES_MAX, Refused};

use super::Objects;
use crate::place;
use crate::reports::Report;

/// Most bytes of a name that an agent gives: a kind, a namespace and a name, each as long as can be.
const NAME_BYTES_MAX: usize = 640;

/// Most bytes of a word for a kind of fault.
const WORD_BYTES_MAX: usize = 32;

/// Most bytes of the hash of authorities.
const HASH_BYTES_MAX: usize = 64;

/// Most bytes of a ticket: twice what ours have.
const TICKET_BYTES_MAX: usize = 128;

/// Most entries of one list of a report.
const ENTRIES_MAX: usize = 10_000;

/// Most of them from a sidecar, which runs one pipeline: what each pod may have this process keep is bounded by that and by
/// [`SIDECAR_ASK_BYTES_MAX`](spillway_crds::served::SIDECAR_ASK_BYTES_MAX).
const SIDECAR_ENTRIES_MAX: usize = 64;

/// Returns what the agent of `pod_uid` at a place said, where `objects` are those of the configuration it runs, as far as that is known.
pub(super) fn report(
    (pod_uid, place): (&Arc<str>, &str),
    ask: &Ask,
    objects: Option<Arc<Objects>>,
    seen: Timestamp,
) -> Report {
    let entries_max = if place::is_pod(place) { SIDECAR_ENTRIES_MAX } else { ENTRIES_MAX };
    Report {
        pod_uid: Arc::clone(pod_uid),
        seen,
        running: ask.running.clone().filter(|_| objects.is_some()),
        objects: objects.unwrap_or_default(),
        refused: ask.refused.iter().take(entries_max).map(refused).collect(),
        backends: ask.backends.iter().take(entries_max).map(backend).collect(),
        holding: ask.holding.iter().take(entries_max).map(held).collect(),
        authorities: ask.authorities.as_deref().map(|hash| told(hash, HASH_BYTES_MAX)),
    }
}

fn held(said: &Held) -> Held {
    Held { object: told(&said.object, NAME_BYTES_MAX), ticket: told(&said.ticket, TICKET_BYTES_MAX) }
}

fn refused(said: &Refused) -> Refused {
    Refused {
        object: told(&said.object, NAME_BYTES_MAX),
        reason: told(&said.reason, REASON_BYTES_MAX),
        kept: said.kept,
    }
}

fn backend(said: &BackendReport) -> BackendReport {
    BackendReport {
        object: told(&said.object, NAME_BYTES_MAX),
        route: told(&said.route, NAME_BYTES_MAX),
        backend: told(&said.backend, NAME_BYTES_MAX),
        state: said.state,
        fault: told(&said.fault, WORD_BYTES_MAX),
        error: told(&said.error, REASON_BYTES_MAX),
        since_unix_seconds: said.since_unix_seconds,
    }
}

/// Returns `text` on one line, cut to `bytes_max`.
fn told(text: &str, bytes_max: usize) -> String {
    let end = text.floor_char_boundary(bytes_max);
    text[..end].chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_crds::served::BackendCondition;

    fn heard(ask: &Ask) -> Report {
        report((&"uid".into(), "node-a"), ask, None, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn of_what_a_sidecar_tells_less_is_kept_than_of_what_the_agent_of_a_node_does() {
        let ask = Ask { refused: vec![Refused::default(); 100], holding: vec![Held::default(); 100], ..Ask::default() };
        let of = |place| report((&"uid".into(), place), &ask, None, Timestamp::UNIX_EPOCH);
        let (sidecar, node) = (of("fab12/etcher-0"), of("node-a"));
        assert_eq!((sidecar.refused.len(), sidecar.holding.len()), (SIDECAR_ENTRIES_MAX, SIDECAR_ENTRIES_MAX));
        assert_eq!((node.refused.len(), node.holding.len()), (100, 100));
    }

    #[test]
    fn what_an_agent_tells_is_one_line_of_bounded_length() {
        let long = format!("first\nsecond{}", "ä".repeat(1000));
        let refused = vec![Refused { object: "x".repeat(5000), reason: long, kept: true }];
        let report = heard(&Ask { refused, ..Ask::default() });
        assert_eq!(report.refused[0].object.len(), NAME_BYTES_MAX);
        assert!(report.refused[0].reason.starts_with("first second"));
        assert!((REASON_BYTES_MAX - 1..=REASON_BYTES_MAX).contains(&report.refused[0].reason.len()));
    }

    #[test]
    fn another_error_of_the_same_state_is_no_news_and_another_state_is() {
        let ask = |state, error: &str| Ask {
            backends: vec![BackendReport {
                object: "MonitoringPipeline a/b".into(),
                route: "all".into(),
                backend: "a.search".into(),
                state,
                fault: String::new(),
                error: error.into(),
                since_unix_seconds: 7,
            }],
            ..Ask::default()
        };
        let before = heard(&ask(BackendCondition::Retrying, "refused"));
        assert!(!before.differs(&heard(&ask(BackendCondition::Retrying, "timed out"))));
        assert!(before.differs(&heard(&ask(BackendCondition::Unreachable, "refused"))));
    }
}
