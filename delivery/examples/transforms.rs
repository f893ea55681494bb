//! What transforms cost for an event of 400 bytes, beside the same work over trees of `serde_json`: `cargo xtask bench --only
//! transforms` runs it and shows its figures.
//!
//! Prints a line for each figure of each run: its name, and nanoseconds for an event.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use regex_automata::meta::Regex;
use serde_json::Value;
use spillway_delivery::condition::{Condition, Expression};
use spillway_delivery::event::{Batch, BatchBuilder, Origin, OriginBuilder};
use spillway_delivery::transform::{
    Action, Builtin, Chain, Deduplicate, FieldPath, Finders, Looks, OnError, RateLimit, Redact, RenameField, Sample,
    SetField, SetValue, Transform,
};
use tokio::time::Instant;

/// Events of a batch.
const EVENTS: usize = 1000;

/// Five patterns, as people write them.
const PATTERNS: [&str; 5] = [
    "tok_[a-z0-9]{20,}",
    "password=[^ ]+",
    "[0-9]{3}-[0-9]{2}-[0-9]{4}",
    "sk-[A-Za-z0-9]{32,}",
    "(?i)secret: *[a-z0-9]+",
];

const KINDS: [Builtin; 5] = [Builtin::CreditCard, Builtin::Email, Builtin::Ipv4, Builtin::Jwt, Builtin::BearerToken];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runs: usize = std::env::args().nth(1).map_or(Ok(5), |runs| runs.parse())?;
    let origin = OriginBuilder { pod: Some("etcher-0".into()), ..OriginBuilder::default() }.build();
    let batch = events(&origin);
    let cases = cases(&batch, &origin)?;
    let mut out = std::io::stdout().lock();
    for _ in 0..runs {
        // Everything takes its turn in each run, so that what else the machine does meets all.
        for (name, case) in &cases {
            writeln!(out, "{name} {:.1}", nanoseconds(case))?;
        }
    }
    Ok(())
}

type Case<'c> = (&'static str, Box<dyn Fn() -> usize + 'c>);

fn cases<'c>(batch: &'c Batch, origin: &'c Arc<Origin>) -> Result<Vec<Case<'c>>, Box<dyn std::error::Error>> {
    let path = |text: &str| FieldPath::parse(text);
    let shape = |actions: Vec<Action>| -> Box<dyn Fn() -> usize + 'c> {
        let chain = chain(actions);
        Box::new(move || chain.shape(batch, origin).batch.payload.len())
    };
    let redact = |known: &[Builtin], patterns: &[&str]| {
        let finders = Finders::compile(known, patterns)?;
        let redact = Redact { finders, fields: Vec::new(), replacement: "[redacted]".into(), on_error: OnError::Keep };
        Ok::<_, Box<dyn std::error::Error>>(Action::Redact(redact))
    };
    let looks = || -> Result<Looks, Box<dyn std::error::Error>> {
        let key = Expression::compile("event.tool").map_err(|error| error.to_string())?;
        Ok(Looks { key: Some(key), ..Looks::default() })
    };
    let condition = Condition::compile("event.kind == \"started\"").map_err(|error| error.to_string())?;
    let edits = vec![
        Action::Set(vec![SetField { path: path("fab")?, value: SetValue::Text("12".into()) }]),
        Action::Remove(vec![path("tool")?]),
        Action::Rename(vec![RenameField { from: path("note")?, to: path("message")? }]),
    ];
    let limit =
        RateLimit { looks: looks()?, events_per_second: 10_000_000, burst_events: 10_000_000, keys_max: 10_000 };
    let fields = vec![path("job_id")?, path("note")?];
    let once = Deduplicate { looks: Looks::default(), fields, window: Duration::from_secs(60), keys_max: 10_000 };
    let regexes =
        PATTERNS.iter().map(|pattern| Regex::new(pattern).map_err(Box::new)).collect::<Result<Vec<_>, _>>()?;
    Ok(vec![
        ("edits", shape(edits)),
        ("edits-of-trees", Box::new(move || of_trees(batch, edit))),
        ("condition", shape(vec![Action::Drop(condition)])),
        ("condition-of-trees", Box::new(move || in_trees(batch))),
        ("redact-patterns", shape(vec![redact(&[], &PATTERNS)?])),
        ("redact-kinds", shape(vec![redact(&KINDS, &[])?])),
        ("redact-of-trees", Box::new(move || of_trees(batch, |tree| search(tree, &regexes)))),
        ("redact-found", shape(vec![redact(&[], &["etch-[0-9]+"])?])),
        ("sample", shape(vec![Action::Sample(Sample { looks: looks()?, keep: 1, out_of: 2 })])),
        ("rate-limit", shape(vec![Action::RateLimit(limit)])),
        ("deduplicate", shape(vec![Action::Deduplicate(once)])),
    ])
}

fn chain(actions: Vec<Action>) -> Chain {
    let named = |(index, action)| Transform { name: format!("t{index}").into(), action };
    Chain::new(&actions.into_iter().enumerate().map(named).collect::<Vec<_>>())
}

/// The events of the other benchmarks: job events of 400 bytes, no two of them alike.
fn events(origin: &Arc<Origin>) -> Batch {
    const NOTE: &str = "chamber pressure 12.4 mTorr within window 11.8 to 13.1 ";
    let mut batch = BatchBuilder::default();
    for n in 0..EVENTS {
        let mut event = format!(
            r#"{{"job_id":"J-{n:08}","tool":"etch-{:02}","kind":"finished","status":"SUCCEEDED","ms":{},"recipe":{{"name":"poly-etch","step":{},"pressure":12.25}},"lots":["A17","B{:03}"],"note":""#,
            n % 40,
            n * 37 % 9000,
            n % 12,
            n % 700,
        );
        event.extend(NOTE.chars().cycle().take(398 - event.len()));
        event.push_str("\"}");
        batch.push(event.as_bytes());
    }
    batch.build(origin.clone(), 0)
}

/// Reads each event as a tree, does something to it, and writes it.
fn of_trees(batch: &Batch, work: impl Fn(&mut Value)) -> usize {
    let mut out = Vec::with_capacity(batch.payload.len());
    for event in batch.events() {
        if let Ok(mut tree) = serde_json::from_slice(event) {
            work(&mut tree);
            drop(serde_json::to_writer(&mut out, &tree));
            out.push(b'\n');
        }
    }
    out.len()
}

/// Reads each event as a tree, and looks at one field.
fn in_trees(batch: &Batch) -> usize {
    let trees = batch.events().filter_map(|event| serde_json::from_slice::<Value>(event).ok());
    trees.filter(|tree| tree["kind"] == "started").count()
}

fn edit(tree: &mut Value) {
    if let Value::Object(members) = tree {
        members.insert("fab".into(), "12".into());
        members.remove("tool");
        if let Some(value) = members.remove("note") {
            members.insert("message".into(), value);
        }
    }
}

fn search(tree: &mut Value, regexes: &[Regex]) {
    match tree {
        Value::Object(members) => members.values_mut().for_each(|value| search(value, regexes)),
        Value::Array(elements) => elements.iter_mut().for_each(|value| search(value, regexes)),
        Value::String(text) if regexes.iter().any(|regex| regex.is_match(text.as_str())) => {
            *text = "[redacted]".into();
        }
        _ => {}
    }
}

/// Returns nanoseconds for an event: of the fastest batch in a quarter of a second, since a batch takes less than a turn of the
/// processor and what else the machine does takes whole turns.
fn nanoseconds(case: &dyn Fn() -> usize) -> f64 {
    let (start, mut fastest) = (Instant::now(), Duration::MAX);
    while start.elapsed() < Duration::from_millis(250) {
        let before = Instant::now();
        black_box(case());
        fastest = fastest.min(before.elapsed());
    }
    fastest.as_nanos() as f64 / EVENTS as f64
}
