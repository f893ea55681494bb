//! `log inspect`: what a log's directory holds, read without the process and without changing a byte.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde::Serialize;
use serde_json::value::RawValue;
use spillway_delivery::event::EventId;
use spillway_delivery::filesystem::{Filesystem, RealFs};
use spillway_delivery::log::{Inspection, SegmentInspection, inspect};

use crate::cli::{InspectFlags, Output};
use crate::exit::{self, Failure};
use crate::status::{Paint, bytes, counted, plain, time};
use crate::table::{self, Cell, Column, Lean, Mood};

/// Bytes of events gathered before they are written to stdout.
const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// Prints the log, and returns 1 when a part of it is damaged.
pub fn run(flags: &InspectFlags) -> Result<ExitCode, Failure> {
    let fs: Arc<dyn Filesystem> = Arc::new(RealFs);
    let mut events = Events::new(flags);
    let read = inspect(&fs, &flags.dir, |id, event| events.print(id, event));
    let unreadable = || format!("log {} cannot be read", flags.dir.display());
    let log = read.with_context(unreadable).map_err(|error| Failure::failed("log-read", error))?;
    if log.segments.is_empty() {
        let error = anyhow!("{} is no log: found no segment (*.log)", flags.dir.display());
        return Err(Failure::failed("log-read", error).next("name <data-dir>/spool/<pipeline>"));
    }
    events.finish()?;
    let text = match flags.output {
        Output::Human => human(&flags.dir, &log, Paint::on(io::stdout().is_terminal())),
        Output::Json if flags.events => serde_json::to_string(&log).unwrap_or_default() + "\n",
        Output::Json => serde_json::to_string_pretty(&log).unwrap_or_default() + "\n",
    };
    exit::to_stdout(&text)?;
    let is_damaged = log.segments.iter().any(SegmentInspection::is_damaged);
    Ok(if is_damaged { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

/// Prints events as they are met, so that a log of any size takes no memory: for people `<id> <event>`, for programs
/// one JSON object a line, and the log itself as the last line.
struct Events {
    wanted: bool,
    output: Output,
    out: io::BufWriter<io::Stdout>,
    result: io::Result<()>,
}

#[derive(Serialize)]
struct Line<'a> {
    id: String,
    event: &'a RawValue,
}

impl Events {
    fn new(flags: &InspectFlags) -> Self {
        let out = io::BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, io::stdout());
        Self { wanted: flags.events, output: flags.output, out, result: Ok(()) }
    }

    fn print(&mut self, id: EventId, event: &[u8]) {
        if !self.wanted || self.result.is_err() {
            return;
        }
        let text = String::from_utf8_lossy(event.trim_ascii_end());
        self.result = match self.output {
            Output::Human => writeln!(self.out, "{id} {}", plain(&text)),
            Output::Json => match serde_json::from_str::<&RawValue>(&text) {
                Ok(event) => writeln!(
                    self.out,
                    "{}",
                    serde_json::to_string(&Line { id: id.to_string(), event }).unwrap_or_default()
                ),
                // Damage that the check sums do not see; it is shown as a text.
                Err(_) => writeln!(self.out, "{}", serde_json::json!({ "id": id.to_string(), "text": text })),
            },
        };
    }

    fn finish(mut self) -> Result<(), Failure> {
        match self.result.and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::failed("stdout", anyhow::Error::new(error).context("stdout cannot be written")))
            }
            _ => Ok(()),
        }
    }
}

const SEGMENTS: [Column; 7] = [
    ("SEGMENT", Lean::Left),
    ("BEGUN", Lean::Left),
    ("STATE", Lean::Left),
    ("SIZE", Lean::Right),
    ("FRAMES", Lean::Right),
    ("EVENTS", Lean::Right),
    ("SEQUENCES", Lean::Left),
];

const DELIVERIES: [Column; 8] = [
    ("ROUTE", Lean::Left),
    ("BACKEND", Lean::Left),
    ("CURSOR", Lean::Right),
    ("DELIVERED", Lean::Right),
    ("DUPLICATES", Lean::Right),
    ("REJECTED", Lean::Right),
    ("DROPPED", Lean::Right),
    ("UNDER WAY", Lean::Right),
];

fn human(dir: &Path, log: &Inspection, paint: Paint) -> String {
    let size = bytes(log.segments.iter().map(|segment| segment.bytes).sum());
    let events: u64 = log.segments.iter().map(|segment| segment.events).sum();
    let count = log.segments.len();
    let mut out = format!(
        "log {}: {} in {}, {size}\n\n",
        plain(&dir.to_string_lossy()),
        counted(events, "event"),
        counted(count as u64, "segment")
    );
    let segments: Vec<_> = log.segments.iter().map(segment_row).collect();
    for line in table::lines(&SEGMENTS, &segments, paint) {
        out.push_str(&line);
        out.push('\n');
    }
    let deliveries: Vec<[Cell; 8]> = log
        .deliveries
        .iter()
        .map(|one| {
            let dropped: u64 = one.dropped.values().sum();
            let figures = [one.cursor, one.delivered, one.duplicates, one.rejected, dropped, one.plans.len() as u64];
            let [cursor, delivered, duplicates, rejected, dropped, plans] = figures.map(|n| Cell::from(n.to_string()));
            let (route, backend) = (plain(&one.route).into(), plain(&one.backend).into());
            [route, backend, cursor, delivered, duplicates, rejected, dropped, plans]
        })
        .collect();
    if !deliveries.is_empty() {
        out.push('\n');
    }
    for line in table::lines(&DELIVERIES, &deliveries, paint).iter().filter(|_| !deliveries.is_empty()) {
        out.push_str(line);
        out.push('\n');
    }
    let damaged = log.segments.iter().filter(|segment| segment.is_damaged()).count();
    let verdict = match damaged {
        0 => paint.good("the log is whole"),
        _ => paint.bad(&format!("damaged: {damaged} of {count} segments; what can be read is delivered")),
    };
    out + "\n" + &verdict + "\n"
}

fn segment_row(segment: &SegmentInspection) -> [Cell; 7] {
    let state = match segment {
        SegmentInspection { error: Some(error), .. } => {
            Cell::new(format!("cannot be read: {}", plain(error)), Mood::Bad)
        }
        segment if !segment.readable => Cell::new("unreadable", Mood::Bad),
        segment if segment.is_damaged() => {
            let places = (segment.damaged > 0).then(|| counted(segment.damaged, "damaged place"));
            let end = segment.lacks_end.then(|| "its end is missing".to_owned());
            Cell::new(places.into_iter().chain(end).collect::<Vec<_>>().join(", "), Mood::Bad)
        }
        segment if segment.sealed => "sealed".into(),
        segment if segment.hidden_bytes > 0 => {
            format!("given up, {} at its end do not count", bytes(segment.hidden_bytes)).into()
        }
        segment if segment.torn_bytes > 0 => format!("open, {} torn at the end", bytes(segment.torn_bytes)).into(),
        _ => "open".into(),
    };
    let sequences = match segment.end_seq.checked_sub(1) {
        Some(last) if last >= segment.base_seq => format!("{} to {last}", segment.base_seq),
        _ => "-".into(),
    };
    [
        plain(&segment.file).into(),
        if segment.readable { time(segment.created) } else { "-".into() }.into(),
        state,
        bytes(segment.bytes).into(),
        segment.frames.to_string().into(),
        segment.events.to_string().into(),
        sequences.into(),
    ]
}
