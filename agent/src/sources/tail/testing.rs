//! What the tests of the sources that follow files share: a log that remembers events and positions as the real one does, what
//! is done to files, and a real engine.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{Engine, EngineSettings};
use spillway_delivery::event::{Batch, EVENT_BYTES_MAX, OriginBuilder};
use spillway_delivery::filesystem::Filesystem;
use spillway_delivery::intake::Pipeline;
use spillway_delivery::pattern::Pattern;
use spillway_delivery::settings::{LogSettings, PipelineSettings, RouteSettings, Strategy};
use spillway_delivery::transform::Multiline;
use spillway_delivery::transform::multiline::Begins;
use tokio::time::Instant;

use super::between::Between;
use super::core::Outgoing;
use super::file::Step;
use super::run::Tails;
use crate::sources::testing::{Random, time_goes_by};

/// How long anything may take that is waited for.
pub(in crate::sources) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns what joins lines up to the next one in which `pattern` is found, with the limits that are the default.
pub(in crate::sources) fn multiline(pattern: &str) -> Multiline {
    let begins = Begins::Pattern(Pattern::compile(pattern).unwrap());
    Multiline { begins, lines_max: 500, bytes_max: 64 << 10, wait: Duration::from_secs(1) }
}

/// Positions as a log keeps them, which are bounded, as its events are.
pub(in crate::sources) type Positions = HashMap<Bytes, Bytes>;

/// Takes note of the position of a batch.
pub(in crate::sources) fn keep_position(positions: &mut Positions, batch: &Batch) {
    assert!(batch.events().all(|event| event.len() <= EVENT_BYTES_MAX));
    let Some(position) = &batch.position else { return };
    assert!(position.source.len() <= 512);
    match &position.value {
        Some(value) => {
            assert!(value.len() <= 512);
            positions.insert(position.source.clone(), value.clone());
        }
        None => drop(positions.remove(&position.source)),
    }
}

/// Writes at the end of a file, in a directory that is made first.
pub(in crate::sources) fn append(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// What is done to a file.
pub(in crate::sources) enum Change {
    Rename(PathBuf, PathBuf),
    Create(PathBuf),
    Compress(PathBuf),
    Remove(PathBuf),
}

/// Does it.
pub(in crate::sources) fn apply(changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Rename(from, to) => fs::rename(from, to).unwrap(),
            Change::Create(path) => drop(File::create_new(path).unwrap()),
            Change::Compress(path) => compress(&path),
            Change::Remove(path) => fs::remove_file(path).unwrap(),
        }
    }
}

/// Compresses a file as the kubelet does, and leaves the plain one.
pub(in crate::sources) fn compress(path: &Path) {
    let with = |extension: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(extension);
        PathBuf::from(name)
    };
    let mut gzip = flate2::write::GzEncoder::new(File::create(with(".tmp")).unwrap(), flate2::Compression::fast());
    gzip.write_all(&fs::read(path).unwrap()).unwrap();
    gzip.finish().unwrap();
    fs::rename(with(".tmp"), with(".gz")).unwrap();
}

/// Has `changes` come before one of the first `steps_max` steps of `look`, or after it; a file may fail to open meanwhile.
pub(in crate::sources) fn look_amid<T: Tails>(
    tailer: &mut T,
    changes: Vec<Change>,
    (random, steps_max): (&mut Random, u64),
    look: impl FnOnce(&mut T),
) {
    let fails = random.below(6) == 0;
    let mut steps = random.below(steps_max);
    let changes = Arc::new(Mutex::new(Some(changes)));
    let come = changes.clone();
    tailer.core().opener.between = Between::new(move |step, _| {
        if steps == 0 {
            apply(come.lock().unwrap().take().unwrap_or_default());
        }
        steps = steps.saturating_sub(1);
        if fails && step == Step::Open { Err(Errno::MFILE.into()) } else { Ok(()) }
    });
    look(tailer);
    tailer.core().opener.between = Between::default();
    apply(changes.lock().unwrap().take().unwrap_or_default());
}

/// Returns which of the batches is kept now, of some that are ready and of those that were `refused` before.
pub(in crate::sources) fn some_kept(
    tailer: &mut impl Tails,
    refused: &mut Vec<Outgoing>,
    random: &mut Random,
    now: Instant,
) -> Vec<Outgoing> {
    let mut kept = Vec::new();
    for late in std::mem::take(refused) {
        if random.below(2) == 0 { kept.push(late) } else { refused.push(late) }
    }
    for _ in 0..random.below(6) {
        let Some(outgoing) = tailer.poll(now) else { break };
        if random.below(4) == 0 { refused.push(outgoing) } else { kept.push(outgoing) }
    }
    kept
}

/// Fails where what came of a file is not what was to come.
pub(in crate::sources) fn assert_came(what: &dyn std::fmt::Display, got: &[String], expected: &[String]) {
    let at = got.iter().zip(expected).position(|(got, expected)| got != expected);
    assert!(
        got == expected,
        "{what}: {} events of {}, first difference at {at:?}: {:?} for {:?}",
        got.len(),
        expected.len(),
        at.map(|at| &got[at]),
        at.map(|at| &expected[at]),
    );
}

/// Opens an engine with one pipeline that delivers nothing.
pub(in crate::sources) async fn open(data: &Path, filesystem: Arc<dyn Filesystem>) -> (Engine, Arc<Pipeline>) {
    let settings = EngineSettings { data_dir: data.into(), filesystem, clock: Clock::system(), free_bytes_min: 0 };
    let engine = Engine::open(settings).unwrap();
    let route = RouteSettings { name: "all".into(), condition: None, strategy: Strategy::All, backends: Vec::new() };
    let settings = PipelineSettings {
        uid: "default.logs".into(),
        namespace: "default".into(),
        name: "logs".into(),
        log: LogSettings::default(),
        transforms: Vec::new(),
        routes: vec![route],
        origin: OriginBuilder::default(),
        suspend: false,
    };
    let pipeline = engine.add(settings, Vec::new(), &|_| None).await.unwrap();
    (engine, pipeline)
}

/// Waits until so many events are accepted.
pub(in crate::sources) async fn has_accepted(pipeline: &Pipeline, events: u64) {
    while pipeline.report().accepted_events < events {
        tokio::task::yield_now().await;
    }
}

/// Lets paused time go by until so many events are accepted.
pub(in crate::sources) async fn accepts(pipeline: &Pipeline, events: u64) {
    let deadline = Instant::now() + PATIENCE;
    while pipeline.report().accepted_events < events {
        assert!(Instant::now() < deadline, "{:#?}", pipeline.report());
        time_goes_by(Duration::from_millis(10)).await;
    }
}
