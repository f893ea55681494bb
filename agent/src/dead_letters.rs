//! `dead-letters`: what backends refused for good, asked of a running agent or read from a data directory.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use serde::Deserialize;
use spillway_delivery::deliver::dead_letters::{Groups, IDS_MAX};
use spillway_delivery::event::EventId;

use crate::cli::{DeadLettersCommand, ExportFlags, ListFlags, Output, ShowFlags};
use crate::exit::{self, Failure};
use crate::status::{Paint, bytes, counted, plain, time};
use crate::table::{self, Column, Lean};

mod letters;
mod redriving;

use letters::Letters;
pub(crate) use letters::{LettersQuery, full_name};

/// Bytes gathered before they are written.
const OUTPUT_BUFFER_BYTES: usize = 64 << 10;

/// Does what was asked.
pub fn run(command: &DeadLettersCommand) -> Result<ExitCode, Failure> {
    match command {
        DeadLettersCommand::List(flags) => list(flags),
        DeadLettersCommand::Show(flags) => show(flags),
        DeadLettersCommand::Export(flags) => export(flags),
        DeadLettersCommand::Redrive(flags) => redriving::redrive(flags),
        DeadLettersCommand::Purge(flags) => redriving::purge(flags),
    }
}

fn list(flags: &ListFlags) -> Result<ExitCode, Failure> {
    let letters = Letters::open(&flags.letters, &[])?;
    let groups = letters.groups()?;
    let text = match flags.output {
        Output::Json => serde_json::to_string_pretty(&groups).unwrap_or_default() + "\n",
        Output::Human => human(&groups, Paint::on(io::stdout().is_terminal())),
    };
    exit::to_stdout(&text)?;
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 8] = [
    ("PIPELINE", Lean::Left),
    ("ROUTE", Lean::Left),
    ("BACKEND", Lean::Left),
    ("COUNT", Lean::Right),
    ("OLDEST", Lean::Left),
    ("NEWEST", Lean::Left),
    ("EXAMPLE", Lean::Left),
    ("REASON", Lean::Left),
];

fn human(pipelines: &[Groups], paint: Paint) -> String {
    let rows: Vec<_> = pipelines
        .iter()
        .flat_map(|pipeline| pipeline.groups.iter().map(move |group| (pipeline, group)))
        .map(|(pipeline, group)| {
            [
                plain(&pipeline.pipeline).into(),
                plain(&group.route).into(),
                plain(&group.backend).into(),
                group.count.to_string().into(),
                time(group.oldest).into(),
                time(group.newest).into(),
                group.example.to_string().into(),
                plain(&group.reason).into(),
            ]
        })
        .collect();
    if rows.is_empty() {
        return "no dead letters\n".into();
    }
    let mut out = table::lines(&COLUMNS, &rows, paint).join("\n") + "\n";
    let total: u64 = pipelines.iter().map(|pipeline| pipeline.count).sum();
    let ungrouped: u64 = pipelines.iter().map(|pipeline| pipeline.ungrouped).sum();
    let more = if ungrouped == 0 { String::new() } else { format!(", {ungrouped} of them in further groups") };
    write!(out, "\n{}{more}\n", counted(total, "dead letter")).unwrap_or_default();
    out
}

/// What of a shown letter people are told beside its event.
#[derive(Deserialize)]
struct Shown {
    id: EventId,
    route: String,
    backend: String,
    reason: String,
    received: String,
    rejected: String,
    origin: serde_json::Value,
    event: Box<serde_json::value::RawValue>,
}

fn show(flags: &ShowFlags) -> Result<ExitCode, Failure> {
    let letters = Letters::open(&flags.letters, &flags.ids)?;
    let mut out = Out::new(Box::new(io::stdout()));
    let mut shown = 0;
    letters.each(flags.limit, |pipeline, line| {
        shown += 1;
        match (flags.output, serde_json::from_str::<Shown>(line)) {
            (Output::Human, Ok(letter)) => out.write(&described(pipeline, &letter)),
            _ => out.write(&format!("{line}\n")),
        }
    })?;
    out.finish()?;
    if shown == 0 && !flags.ids.is_empty() {
        return Err(Failure::failed("no-letter", anyhow!("no dead letter with that id")));
    }
    if shown == flags.limit && flags.output == Output::Human {
        exit::to_stderr(&format!("shown are the first {shown}; --limit shows more\n"));
    }
    Ok(ExitCode::SUCCESS)
}

fn described(pipeline: &str, letter: &Shown) -> String {
    let Shown { id, route, backend, reason, received, rejected, origin, event } = letter;
    let names = format!("{pipeline}, {route} to {backend}");
    format!(
        "{id}  {}\n  reason    {}\n  received  {}, rejected {}\n  origin    {}\n  event     {}\n\n",
        plain(&names),
        plain(reason),
        plain(received),
        plain(rejected),
        plain(&origin.to_string()),
        plain(event.get())
    )
}

fn export(flags: &ExportFlags) -> Result<ExitCode, Failure> {
    let letters = Letters::open(&flags.letters, &flags.ids)?;
    let target: Box<dyn Write> = match &flags.file {
        None => Box::new(io::stdout()),
        Some(path) => {
            let made = File::create_new(path).with_context(|| format!("{} cannot be made", path.display()));
            Box::new(made.map_err(|error| Failure::failed("export-file", error))?)
        }
    };
    let mut out = Out::new(target);
    let (mut count, mut size) = (0u64, 0u64);
    letters.each(usize::MAX, |pipeline, letter| {
        // A letter is an object that begins with its id.
        let name = serde_json::Value::from(pipeline);
        let line = format!("{{\"pipeline\":{name},{}\n", letter.trim_start_matches('{'));
        count += 1;
        size += line.len() as u64;
        out.write(&line);
    })?;
    out.finish()?;
    exit::to_stderr(&format!("{}, {}\n", counted(count, "dead letter"), bytes(size)));
    Ok(ExitCode::SUCCESS)
}

/// Buffered output that remembers its first failure.
struct Out {
    out: io::BufWriter<Box<dyn Write>>,
    result: io::Result<()>,
}

impl Out {
    fn new(target: Box<dyn Write>) -> Self {
        Self { out: io::BufWriter::with_capacity(OUTPUT_BUFFER_BYTES, target), result: Ok(()) }
    }

    fn write(&mut self, text: &str) {
        if self.result.is_ok() {
            self.result = self.out.write_all(text.as_bytes());
        }
    }

    fn finish(mut self) -> Result<(), Failure> {
        match self.result.and_then(|()| self.out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::failed("output", anyhow::Error::new(error).context("output cannot be written")))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the ids as a selection has them.
fn ids_of(ids: &[EventId]) -> Result<std::collections::BTreeSet<EventId>, Failure> {
    if ids.len() > IDS_MAX {
        let error = anyhow!("{} ids are given, allowed: at most {IDS_MAX}", ids.len());
        return Err(Failure::usage("too-many-ids", error).next("select by --route, --backend or --reason"));
    }
    Ok(ids.iter().copied().collect())
}

#[cfg(test)]
mod tests {
    use spillway_delivery::deliver::dead_letters::Group;

    use super::*;

    #[test]
    fn groups_are_a_table_and_nothing_in_them_reaches_the_terminal() {
        let example = EventId { incarnation: 1, seq: 2 };
        let group = Group {
            route: "all".into(),
            backend: "api".into(),
            reason: "HTTP 400: \x1b[31m#".into(),
            count: 3,
            oldest: 0,
            newest: 1_763_892_252_000_000_000,
            example,
        };
        let groups = Groups { pipeline: "default/jobs".into(), groups: vec![group], ungrouped: 4, count: 7 };
        let text = human(&[groups], Paint::plain());
        assert!(
            text.contains("default/jobs  all    api          3  1970-01-01T00:00:00Z  2025-11-23T10:04:12Z"),
            "{text}"
        );
        assert!(text.contains("0000000000000001-2  HTTP 400: \u{fffd}[31m#\n"), "{text}");
        assert!(text.ends_with("\n7 dead letters, 4 of them in further groups\n"), "{text}");
        assert_eq!(human(&[], Paint::plain()), "no dead letters\n");
    }

    #[test]
    fn ids_are_bounded() {
        assert!(ids_of(&vec![EventId { incarnation: 1, seq: 1 }; IDS_MAX + 1]).is_err());
    }
}
