//! Figures, and the table they end in.

use std::fmt::Write as _;

use crate::bench::machine::Machine;

/// Some runs of one figure.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    sorted: Vec<f64>,
}

impl Figure {
    /// Returns the figure of these runs.
    pub(super) fn of(runs: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = runs.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        Self { sorted }
    }

    /// Returns the median; of an even number of runs, the lower one of the two in the middle.
    pub(super) fn median(&self) -> f64 {
        self.sorted.get(self.sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
    }

    /// Returns the median with the lowest and the highest behind it.
    pub(super) fn shown(&self, decimals: usize) -> String {
        let (Some(low), Some(high)) = (self.sorted.first(), self.sorted.last()) else {
            return "none".to_owned();
        };
        let median = self.median();
        if self.sorted.len() == 1 {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} ({low:.decimals$} to {high:.decimals$})")
    }
}

/// What a figure must reach.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bar {
    AtMost(f64),
    AtLeast(f64),
    /// Shown beside a figure that has a bar.
    None,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Row {
    /// What was measured, with its unit.
    pub(super) what: String,
    /// The agent's figure, as text.
    pub(super) agent: String,
    /// The floor's figure, as text; empty where there is no floor.
    pub(super) floor: String,
    /// What the bar is about, as text.
    pub(super) compared: String,
    /// The median of that.
    pub(super) value: f64,
    pub(super) bar: Bar,
}

impl Row {
    /// Returns a row that compares the agent with a floor, run by run.
    pub(super) fn ratio(what: &str, agent: &[f64], floor: &[f64], bar: Bar) -> Self {
        let ratio = Figure::of(agent.iter().zip(floor).map(|(agent, floor)| agent / floor));
        let decimals = if agent.iter().all(|value| *value > 100.0) { 0 } else { 2 };
        Self {
            what: what.to_owned(),
            agent: Figure::of(agent.iter().copied()).shown(decimals),
            floor: Figure::of(floor.iter().copied()).shown(decimals),
            compared: ratio.shown(2),
            value: ratio.median(),
            bar,
        }
    }

    /// Returns a row about the agent alone.
    pub(super) fn alone(what: &str, runs: &[f64], decimals: usize, bar: Bar) -> Self {
        let figure = Figure::of(runs.iter().copied());
        let agent = figure.shown(decimals);
        Self {
            what: what.to_owned(),
            agent,
            floor: String::new(),
            compared: String::new(),
            value: figure.median(),
            bar,
        }
    }

    fn bar_shown(&self) -> (String, &'static str) {
        match self.bar {
            Bar::AtMost(bar) => (format!("≤ {bar}"), if self.value <= bar { "PASS" } else { "FAIL" }),
            Bar::AtLeast(bar) => (format!("≥ {bar}"), if self.value >= bar { "PASS" } else { "FAIL" }),
            Bar::None => (String::new(), ""),
        }
    }

    /// Returns one line for a person who waits.
    pub(super) fn line(&self) -> String {
        let (bar, verdict) = self.bar_shown();
        let Self { what, agent, floor, compared, .. } = self;
        format!("  {what}: agent {agent}, floor {floor}, ratio {compared} {bar} {verdict}")
    }
}

/// The document.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) machine: Machine,
    pub(super) rows: Vec<Row>,
    pub(super) quick: bool,
}

impl Table {
    /// Returns it as Markdown.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::from(INTRODUCTION);
        writeln!(out, "\nMachine: {}.", self.machine.facts).ok();
        if self.quick {
            out.push_str("\nMade with `--quick`: one short run each. These figures say nothing about speed.\n");
        }
        out.push_str("\n| what | agent | floor | agent / floor | bar | |\n| --- | --- | --- | --- | --- | --- |\n");
        for row in &self.rows {
            let (bar, verdict) = row.bar_shown();
            let Row { what, agent, floor, compared, .. } = row;
            writeln!(out, "| {what} | {agent} | {floor} | {compared} | {bar} | {verdict} |").ok();
        }
        out.push_str(EXPLANATION);
        out
    }
}

const INTRODUCTION: &str = "# Benchmarks

What the agent costs beside a bare floor: a loop that does the same input and the same output and nothing else. Made by
`cargo xtask bench --write`; the code is in `xtask/src/bench`.

The agent is the release build, with default settings, on one core; senders and receivers are on another core of the
same machine. Agent and floor take turns in one run. Each figure is the median of the runs, with the lowest and the
highest in brackets; ratios are taken run by run. CPU is user and system time of the process over its whole life.
";

const EXPLANATION: &str = "
How to read it:

- **Container log to HTTP**: a finished log of plain lines of about 350 bytes is read from its beginning and posted as
  NDJSON to a receiver that counts and forgets. The agent writes each event to its durable log before it sends it, and
  confirms with fdatasync at level `Disk`; the floor reads, escapes and sends. Both send the same bytes.
- **HTTP to file**: four connections post bodies of 1,000 events of 400 bytes, each after the answer to the one before.
  The time ends when the last byte is in the output file: for the floor that is the last answer; the agent answers
  earlier, when the event is in its log. The floor at `Disk` calls fdatasync before each answer. CPU is shown beside it
  because time also depends on what else the machine does. The bare floor promises nothing; the one that checks and logs
  is the same loop, and before its answer it checks that each event is an object of JSON in UTF-8, with `serde_json`, and
  appends the body to a log (at `Disk` it is the log that it syncs): what the agent promises costs that loop so much.
- **Memory** is `RssAnon`, sampled every 50 ms: what the process itself holds, without mapped files.
- **One field to two bulk receivers**: bodies of 1,000 events of 400 bytes over HTTP, a route whose `match` looks at one
  field, two `Elasticsearch` backends; the receivers are hand-made, remember every id, and the run fails when an event is
  missing or came twice. CPU is the agent's alone.
- **Three backends beside a fourth**: HTTP receivers; the time ends when each of the three has every event. The bar is about
  a fourth that is dead against the same fourth alive. Beside it, without a bar, the three alone: what is held for a dead
  one needs new files, while without it segments are written over the files of delivered ones, which is cheaper.
- **Start with much held** is from the start of the process to the line that says it is ready.
- **OTLP over gRPC**: one connection with four requests of 1,000 log records of about 320 bytes under way, the same frames to both. What
  stands under *floor* is the OpenTelemetry Collector (0.164, its OTLP receiver and file exporter, JSON, no batch processor, no metrics
  of itself); it promises nothing of a record that it has answered. The agent keeps each in its log first.
- **Transforms** are measured by themselves, one thread over batches of 1,000 events of 400 bytes, the copy into the new batch
  included; the other side reads each event with `serde_json`, does the same to the tree, and writes it where it changed it. Each run is the
  fastest batch of a quarter of a second.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_with_its_spread() {
        assert_eq!(Figure::of([3.0, 1.0, 2.0]).shown(1), "2.0 (1.0 to 3.0)");
        assert_eq!(Figure::of([2.5]).shown(1), "2.5");
        assert_eq!(Figure::of([]).shown(1), "none");
        assert!(Figure::of([]).median().is_nan());
    }

    #[test]
    fn a_missed_bar_is_said() {
        let verdict = |bar| Row::ratio("x", &[2.0, 4.0, 3.0], &[1.0, 2.0, 1.0], bar).bar_shown().1;
        assert_eq!(verdict(Bar::AtMost(2.0)), "PASS");
        assert_eq!(verdict(Bar::AtMost(1.9)), "FAIL");
        assert_eq!(verdict(Bar::AtLeast(2.1)), "FAIL");
        assert_eq!(Row::alone("x", &[], 1, Bar::AtMost(1.0)).bar_shown().1, "FAIL");
    }
}
