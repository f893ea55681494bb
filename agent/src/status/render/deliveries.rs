//! The deliveries of a pipeline: a table of what each does now, and below it what each has done.
//!
//! Limits: [`COLUMNS_MAX`] columns, whatever the names; a name that is cut in the table stands whole below it.

use spillway_delivery::ledger::{BreakerReport, BreakerState, DeliveryReport, DeliveryState, PipelineReport};

use super::Paint;
use crate::status::units::{bytes, counted, plain, span, time};
use crate::table::{self, Cell, Column, Lean, Mood};

/// Most columns of a line.
pub(super) const COLUMNS_MAX: usize = 100;

/// Most characters of a route's name in the table.
const ROUTE_CHARS_MAX: usize = 12;

/// Most characters of a backend's name in the table.
const BACKEND_CHARS_MAX: usize = 16;

const COLUMNS: [Column; 8] = [
    ("ROUTE", Lean::Left),
    ("BACKEND", Lean::Left),
    ("STATE", Lean::Left),
    ("FOR", Lean::Right),
    ("HELD", Lean::Right),
    ("SIZE", Lean::Right),
    ("OLDEST", Lean::Right),
    ("FULL IN", Lean::Right),
];

/// Returns the lines of every delivery.
pub(super) fn lines(pipeline: &PipelineReport, now: i64, paint: Paint) -> Vec<String> {
    let rows: Vec<[Cell; 8]> = pipeline.deliveries.iter().map(|delivery| row(delivery, now)).collect();
    let mut lines = table::lines(&COLUMNS, &rows, paint);
    for delivery in &pipeline.deliveries {
        folded("  ", &summary(delivery), &mut lines);
        for (what, entries) in details(delivery) {
            folded("    ", &format!("{what}: {entries}"), &mut lines);
        }
    }
    lines
}

fn row(delivery: &DeliveryReport, now: i64) -> [Cell; 8] {
    let state = match delivery.state {
        DeliveryState::Healthy => Cell::new("healthy", Mood::Good),
        DeliveryState::Retrying => match delivery.breaker.state {
            BreakerState::Closed => Cell::new("retrying", Mood::Bad),
            BreakerState::Open => Cell::new("breaker open", Mood::Bad),
            BreakerState::HalfOpen => Cell::new("half-open", Mood::Bad),
        },
        other => state_name(other).into(),
    };
    let held = delivery.held_events > 0;
    [
        cut(&delivery.route, ROUTE_CHARS_MAX).into(),
        cut(&delivery.backend, BACKEND_CHARS_MAX).into(),
        state,
        span(seconds(delivery.since, now)).into(),
        delivery.held_events.to_string().into(),
        if held { bytes(delivery.held_bytes) } else { "-".into() }.into(),
        delivery.oldest_held.map_or("-".into(), |then| span(seconds(then, now))).into(),
        delivery.seconds_until_full.map_or("-".into(), span).into(),
    ]
}

fn state_name(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Healthy => "healthy",
        DeliveryState::Retrying => "retrying",
        DeliveryState::Draining => "draining",
        DeliveryState::Suspended => "suspended",
        DeliveryState::Standby => "standby",
    }
}

fn seconds(then: i64, now: i64) -> u64 {
    now.saturating_sub(then).max(0).unsigned_abs() / 1_000_000_000
}

fn summary(delivery: &DeliveryReport) -> String {
    let DeliveryReport { route, backend, backend_type, .. } = delivery;
    let dropped: u64 = delivery.dropped_events.values().sum();
    let mut figures = vec![format!("delivered {}", delivery.delivered_events)];
    let others = [
        ("duplicates", delivery.duplicate_events),
        ("rejected", delivery.rejected_events),
        ("elsewhere", delivery.elsewhere_events),
        ("dropped", dropped),
        ("late", delivery.late_events),
        ("batches unknown", delivery.unknown_batches),
    ];
    figures.extend(others.iter().filter(|(_, events)| *events > 0).map(|(what, events)| format!("{what} {events}")));
    let state = match delivery.state {
        DeliveryState::Healthy => String::new(),
        state => format!(", {} since {}", state_name(state), time(delivery.since)),
    };
    plain(&format!(
        "{route} to {backend} ({backend_type}){state}: {}; {}",
        figures.join(", "),
        counted(delivery.attempts, "attempt")
    ))
}

/// What there is to say beyond figures, each with its name.
fn details(delivery: &DeliveryReport) -> Vec<(&'static str, String)> {
    let by = |counts: &std::collections::BTreeMap<String, u64>| {
        let entries: Vec<String> =
            counts.iter().map(|(reason, count)| format!("{count} by {}", plain(reason))).collect();
        entries.join(", ")
    };
    let dropped = delivery.dropped_events.iter().map(|(reason, events)| {
        let size = delivery.dropped_bytes.get(reason).filter(|size| **size > 0);
        format!("{events} by {}{}", plain(reason), size.map(|size| format!(" ({})", bytes(*size))).unwrap_or_default())
    });
    let is_well = matches!(delivery.state, DeliveryState::Healthy | DeliveryState::Standby);
    let error = delivery.last_error.as_deref().filter(|_| !is_well);
    let details = [
        ("rejected since the start", by(&delivery.rejections)),
        ("dropped", dropped.collect::<Vec<_>>().join(", ")),
        ("failed attempts", by(&delivery.faults)),
        ("breaker", by_state(&delivery.breaker)),
        ("last error", plain(error.unwrap_or_default())),
    ];
    details.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn by_state(breaker: &BreakerReport) -> String {
    let entries: Vec<String> = breaker
        .changes
        .iter()
        .map(|(state, times)| format!("{} to {}", counted(*times, "change"), plain(state)))
        .collect();
    entries.join(", ")
}

fn cut(text: &str, chars_max: usize) -> String {
    let text = plain(text);
    match text.char_indices().nth(chars_max) {
        Some(_) => text.chars().take(chars_max - 1).chain(['…']).collect(),
        None => text,
    }
}

/// Adds `text` as lines of at most [`COLUMNS_MAX`] columns, broken between words where that can be.
fn folded(indent: &str, text: &str, lines: &mut Vec<String>) {
    let mut line = indent.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().collect();
        loop {
            let room = COLUMNS_MAX.saturating_sub(line.chars().count() + usize::from(!empty));
            if word.len() <= room {
                if !empty {
                    line.push(' ');
                }
                line.extend(word);
                empty = false;
                break;
            }
            if empty {
                line.extend(word.drain(..room));
            }
            lines.push(std::mem::replace(&mut line, format!("{indent}  ")));
            empty = true;
        }
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_folded_between_words_and_lose_nothing() {
        let text = format!("{} {} end", "word ".repeat(60).trim_end(), "x".repeat(250));
        let mut lines = Vec::new();
        folded("    ", &text, &mut lines);
        assert!(lines.iter().all(|line| line.chars().count() <= COLUMNS_MAX && line.starts_with("    ")), "{lines:#?}");
        let joined: String = lines.iter().flat_map(|line| line.chars()).filter(|c| *c != ' ').collect();
        assert_eq!(joined, text.replace(' ', ""));
    }
}
