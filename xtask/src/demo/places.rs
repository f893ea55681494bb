//! What was sent where, what was found there, and whether the two are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::demo::pod_log::Line;

/// One place that data belongs to, as the manifests in `examples/demo` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Jobs,
    FailedJobs,
    Receiver,
    Lines,
    ErrorLines,
}

impl Place {
    const ALL: [Self; 5] = [Self::Jobs, Self::FailedJobs, Self::Receiver, Self::Lines, Self::ErrorLines];

    /// Returns the folder below the agent's filesystem root, or `None` for the receiver.
    fn folder(self) -> Option<&'static str> {
        match self {
            Self::Jobs => Some("jobs"),
            Self::FailedJobs => Some("failed-jobs"),
            Self::Receiver => None,
            Self::Lines => Some("lines"),
            Self::ErrorLines => Some("error-lines"),
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Jobs => "out/jobs          every job event",
            Self::FailedJobs => "out/failed-jobs   jobs that failed",
            Self::Receiver => "HTTP receiver     starts and ends of jobs",
            Self::Lines => "out/lines         every line of the container",
            Self::ErrorLines => "out/error-lines   its lines with ERROR",
        }
    }
}

/// The numbers that were sent, by the places they belong to.
#[derive(Debug, Default)]
pub(super) struct Places {
    sent: BTreeMap<Place, BTreeSet<u64>>,
}

impl Places {
    /// Notes events that the agent has accepted.
    pub(super) fn add_events(&mut self, events: &[Value]) {
        for event in events {
            let number = event["number"].as_u64().unwrap_or_default();
            self.add(Place::Jobs, number);
            if event["kind"] == "started" || event["kind"] == "finished" {
                self.add(Place::Receiver, number);
            }
            if event["status"] == "FAILED" {
                self.add(Place::FailedJobs, number);
            }
        }
    }

    /// Notes lines that were written to the container's log.
    pub(super) fn add_lines(&mut self, lines: &[Line]) {
        for line in lines {
            self.add(Place::Lines, line.number);
            if line.is_error {
                self.add(Place::ErrorLines, line.number);
            }
        }
    }

    fn add(&mut self, place: Place, number: u64) {
        self.sent.entry(place).or_default().insert(number);
    }

    /// Returns how many events were sent.
    pub(super) fn events(&self) -> u64 {
        self.sent.get(&Place::Jobs).map_or(0, |numbers| numbers.len() as u64)
    }

    /// Returns how many lines were written.
    pub(super) fn lines(&self) -> u64 {
        self.sent.get(&Place::Lines).map_or(0, |numbers| numbers.len() as u64)
    }

    /// Reads every place and compares.
    pub(super) fn compare(&self, out: &Path, received: &BTreeMap<u64, u64>) -> anyhow::Result<Verdict> {
        let mut rows = Vec::new();
        for place in Place::ALL {
            let found = match place.folder() {
                Some(folder) => read_folder(&out.join(folder))?,
                None => received.clone(),
            };
            let sent = self.sent.get(&place).cloned().unwrap_or_default();
            rows.push(Row::new(place, &sent, &found));
        }
        Ok(Verdict { rows })
    }
}

/// Returns how often each number stands in the NDJSON files at and below `folder`.
fn read_folder(folder: &Path) -> anyhow::Result<BTreeMap<u64, u64>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            for number in bytes.split(|byte| *byte == b'\n').filter_map(number_of) {
                *found.entry(number).or_default() += 1;
            }
        }
    }
    Ok(found)
}

/// Returns the number that one delivered event or line carries; a line that is no event has none.
pub(super) fn number_of(line: &[u8]) -> Option<u64> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let in_text = || event["message"].as_str()?.split_once("number=")?.1.split(' ').next()?.parse().ok();
    event["number"].as_u64().or_else(in_text)
}

/// What was found, place by place.
#[derive(Debug)]
pub(super) struct Verdict {
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq)]
struct Row {
    place: Place,
    sent: usize,
    once: usize,
    missing: usize,
    repeated: usize,
    strangers: usize,
}

impl Row {
    fn new(place: Place, sent: &BTreeSet<u64>, found: &BTreeMap<u64, u64>) -> Self {
        let count = |test: &dyn Fn(u64) -> bool| {
            sent.iter().filter(|number| test(found.get(number).copied().unwrap_or(0))).count()
        };
        Self {
            place,
            sent: sent.len(),
            once: count(&|times| times == 1),
            missing: count(&|times| times == 0),
            repeated: count(&|times| times > 1),
            strangers: found.keys().filter(|number| !sent.contains(number)).count(),
        }
    }

    fn is_good(&self) -> bool {
        self.sent > 0 && self.once == self.sent && self.strangers == 0
    }
}

impl Verdict {
    /// Returns whether every number was found once in every place it belongs to, and in no other.
    pub(super) fn is_good(&self) -> bool {
        self.rows.iter().all(Row::is_good)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<46} {:>6} {:>11} {:>8} {:>9} {:>10}",
            "where", "sent", "found once", "missing", "repeated", "strangers"
        )?;
        for row in &self.rows {
            let Row { place, sent, once, missing, repeated, strangers } = row;
            write!(f, "\n{:<46} {sent:>6} {once:>11} {missing:>8} {repeated:>9} {strangers:>10}", place.shown())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_an_event_and_in_a_line() {
        assert_eq!(number_of(br#"{"number":7,"_spillway":{"id":"x"}}"#), Some(7));
        assert_eq!(
            number_of(br#"{"message":"ERROR number=1000008 chamber pressure","stream":"stdout"}"#),
            Some(1_000_008)
        );
        assert_eq!(number_of(b"no event"), None);
    }

    #[test]
    fn missing_repeated_and_strange_numbers_are_told_apart() {
        let row = Row::new(Place::Jobs, &BTreeSet::from([1, 2, 3]), &BTreeMap::from([(1, 1), (2, 2), (9, 1)]));
        assert_eq!(row, Row { place: Place::Jobs, sent: 3, once: 1, missing: 1, repeated: 1, strangers: 1 });
        assert!(!row.is_good());
        assert!(Row::new(Place::Jobs, &BTreeSet::from([1]), &BTreeMap::from([(1, 1)])).is_good());
        assert!(!Row::new(Place::Jobs, &BTreeSet::new(), &BTreeMap::new()).is_good());
    }
}
