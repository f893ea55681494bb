//! Level `Memory` with whole engines: what is written, what is kept, and what an end of each kind leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{CUT_SHORT_MAX, DeliverySpec, Engine};
use spillway_delivery::event::{Batch, Position};
use spillway_delivery::filesystem::{Faults, FaultyFs};
use spillway_delivery::intake::{Intake, Pipeline, RefusalReason, SubmitError};
use spillway_delivery::ledger::PipelineReport;
use spillway_delivery::log::{Log, LogOptions, Masks, Pending};
use spillway_delivery::settings::{DeliverySettings, Durability, Failback, LogSettings, PipelineSettings, Strategy};
use spillway_delivery::supervisor::Supervisor;
use tokio::time::Instant;

use crate::common::{
    Store, assert_balanced, batch_of, disk, engine_over, kept_in_store, numbers, pipeline_of, quick, quick_breaker,
    reference, report, route, spec_of, time_goes_by, until_paused, until_saved,
};

/// A destination that can be dead; it keeps what it got over the lives of the engine.
#[derive(Debug, Default)]
struct Place {
    traits: Traits,
    dead: Mutex<bool>,
    /// It takes requests and answers none.
    hangs: Mutex<bool>,
    /// It is dead as soon as it has so many events.
    dies_at: Mutex<Option<usize>>,
    store: Store<(String, u32)>,
}

impl Place {
    fn set_dead(&self, dead: bool) {
        *self.dead.lock().unwrap() = dead;
    }

    async fn until(&self, events: usize) {
        self.store.until(|got| got.len() >= events).await;
    }

    /// Returns the numbers of the events, sorted.
    fn numbers(&self) -> Vec<u32> {
        let mut numbers: Vec<u32> = self.store.all().iter().map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Fails where an id names two events.
    fn check_ids(&self) {
        let mut named = BTreeMap::new();
        for (id, number) in self.store.all() {
            let before = named.insert(id.clone(), number);
            assert!(before.is_none_or(|before| before == number), "{id} names {before:?} and {number}");
        }
    }
}

impl Backend for Place {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            if *self.dead.lock().unwrap() {
                return Err(Fault::new(FaultKind::Unreachable, "dead, as told"));
            }
            let hangs = *self.hangs.lock().unwrap();
            if hangs {
                std::future::pending::<()>().await;
            }
            let number = |bytes: &[u8]| {
                let digits = bytes[5..].split(|byte| !byte.is_ascii_digit()).next().unwrap();
                std::str::from_utf8(digits).unwrap().parse().unwrap()
            };
            let events = batch.events().map(|event| (event.id.to_string(), number(event.bytes)));
            self.store.add(events);
            let dies = self.dies_at.lock().unwrap().take_if(|events| *events <= self.store.len()).is_some();
            *self.dead.lock().unwrap() |= dies;
            Ok(Items::All(Outcome::Delivered))
        })
    }

    kept_in_store!();
}

fn log_settings() -> LogSettings {
    // A quarter of it is held: 1 MiB.
    LogSettings { durability: Durability::Memory, bytes_max: 4 << 20, ..LogSettings::default() }
}

fn settings(log: LogSettings, backends: &[&str]) -> PipelineSettings {
    let backends = backends.iter().map(|name| reference(name)).collect();
    pipeline_of(log, vec![route("all", Strategy::All, backends)])
}

fn spec(name: &str, backend: &Arc<Place>) -> DeliverySpec {
    spec_of("all", name, backend.clone(), DeliverySettings { breaker: quick_breaker(), ..quick() })
}

/// One life of an agent.
struct Life {
    engine: Engine,
    pipeline: Arc<Pipeline>,
    fs: FaultyFs,
    /// The engine's own few files, which are not on the disk that fails.
    _dir: tempfile::TempDir,
}

impl Life {
    async fn begin(fs: &FaultyFs, log: LogSettings, places: &[(&str, &Arc<Place>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let below = Below { fs: fs.clone(), dir: dir.path().to_owned() };
        let engine = engine_over(dir.path(), Arc::new(below), Clock::manual(1));
        let names: Vec<&str> = places.iter().map(|(name, _)| *name).collect();
        let specs = places.iter().map(|(name, place)| spec(name, place)).collect();
        let pipeline = engine.add(settings(log, &names), specs, &|_| None).await.unwrap();
        Self { engine, pipeline, fs: fs.clone(), _dir: dir }
    }

    async fn send(&self, range: std::ops::Range<u32>) {
        Intake.submit(std::slice::from_ref(&self.pipeline), batch(range)).await.unwrap();
    }

    async fn report(&self) -> PipelineReport {
        report(&self.pipeline).await
    }

    async fn until(&self, holds: impl Fn(&PipelineReport) -> bool) -> PipelineReport {
        until_paused(&self.pipeline, holds).await
    }

    /// Returns the report once the ledger of every delivery shows nothing held.
    async fn at_rest(&self) -> PipelineReport {
        self.until(|report| report.deliveries.iter().all(|delivery| delivery.held_events == 0)).await
    }

    /// Ends in order; what is held stays in the log.
    async fn end(self) -> FaultyFs {
        self.engine.drain(Instant::now() + Duration::from_secs(20)).await;
        self.fs
    }

    /// Ends as by SIGKILL: what is not in files is gone.
    fn kill(self) -> FaultyFs {
        self.fs.kill()
    }
}

/// The same disk at the same place for every life, whatever folder the engine has for its lock.
#[derive(Debug)]
struct Below {
    fs: FaultyFs,
    dir: std::path::PathBuf,
}

impl Below {
    fn at(&self, path: &Path) -> std::path::PathBuf {
        Path::new("/data").join(path.strip_prefix(&self.dir).unwrap_or(path))
    }
}

impl spillway_delivery::filesystem::Filesystem for Below {
    fn create(&self, path: &Path) -> std::io::Result<Arc<dyn spillway_delivery::filesystem::File>> {
        self.fs.create(&self.at(path))
    }

    fn open(&self, path: &Path, write: bool) -> std::io::Result<Arc<dyn spillway_delivery::filesystem::File>> {
        self.fs.open(&self.at(path), write)
    }

    fn create_dir_all(&self, path: &Path) -> std::io::Result<()> {
        self.fs.create_dir_all(&self.at(path))
    }

    fn sync_dir(&self, path: &Path) -> std::io::Result<()> {
        self.fs.sync_dir(&self.at(path))
    }

    fn list(&self, path: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
        self.fs.list(&self.at(path))
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        self.fs.remove(&self.at(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.fs.rename(&self.at(from), &self.at(to))
    }

    fn pause(&self, time: Duration) {
        self.fs.pause(time);
    }

    fn patience(&self) -> &spillway_delivery::filesystem::Patience {
        self.fs.patience()
    }

    fn free_bytes(&self, path: &Path) -> std::io::Result<u64> {
        self.fs.free_bytes(&self.at(path))
    }
}

fn batch(range: std::ops::Range<u32>) -> Batch {
    let pad = "x".repeat(1000);
    batch_of(range.map(|number| format!("{{\"n\":{number},\"pad\":\"{pad}\"}}")))
}

fn segment_bytes(fs: &FaultyFs) -> u64 {
    let files = fs.files();
    files.iter().filter(|(path, _)| path.extension().is_some_and(|ext| ext == "log")).map(|(_, len)| len).sum()
}

fn dropped(report: &PipelineReport) -> u64 {
    report.deliveries.iter().flat_map(|delivery| delivery.dropped_events.values()).sum()
}

#[tokio::test(start_paused = true)]
async fn while_readers_keep_up_nothing_is_written_to_segments_and_nothing_is_synced() {
    let place = Arc::new(Place::default());
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    let (before, bytes) = (life.fs.counts(), segment_bytes(&life.fs));
    for round in 0..300 {
        life.send(round * 20..round * 20 + 20).await;
        time_goes_by(Duration::from_millis(200)).await;
    }
    let report = life.at_rest().await;
    let after = life.fs.counts();
    assert_eq!((after.syncs - before.syncs, segment_bytes(&life.fs)), (0, bytes), "{report:#?}");
    assert_eq!((report.log.spilled_bytes, report.log.spilled_frames), (0, 0));
    assert!(report.log.memory_bytes < 64 << 10, "what was passed leaves memory: {}", report.log.memory_bytes);
    assert_balanced(&report);
    let fs = life.end().await;
    let life = Life::begin(&fs, log_settings(), &[("a", &place)]).await;
    assert_eq!(life.at_rest().await.accepted_events, 6000, "totals survive an end in order");
    assert_eq!(place.numbers(), numbers(0..6000));
    place.check_ids();
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_falls_behind_makes_the_log_spill_and_gets_everything_once() {
    let (well, slow) = (Arc::new(Place::default()), Arc::new(Place::default()));
    slow.set_dead(true);
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &well), ("b", &slow)]).await;
    for round in 0..100 {
        life.send(round * 20..round * 20 + 20).await;
        let report = life.report().await;
        assert!(report.log.memory_bytes <= 1 << 20, "the bound: {}", report.log.memory_bytes);
    }
    well.until(2000).await;
    let report = life.report().await;
    assert!(report.log.spilled_bytes > 512 << 10 && report.log.memory_bytes > 0, "{report:#?}");
    assert_eq!(report.deliveries[1].held_events, 2000);
    assert_balanced(&report);
    // It ends in order while one is still dead; the next life has everything for it.
    let fs = life.end().await;
    slow.set_dead(false);
    let life = Life::begin(&fs, log_settings(), &[("a", &well), ("b", &slow)]).await;
    let report = life.at_rest().await;
    assert_balanced(&report);
    assert_eq!((well.numbers(), slow.numbers()), (numbers(0..2000), numbers(0..2000)));
    assert_eq!((dropped(&report), report.log.lost_events), (0, 0));
    slow.check_ids();
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_takes_what_only_memory_had_and_the_ledger_says_so() {
    let (well, slow) = (Arc::new(Place::default()), Arc::new(Place::default()));
    slow.set_dead(true);
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &well), ("b", &slow)]).await;
    for round in 0..100 {
        life.send(round * 20..round * 20 + 20).await;
    }
    well.until(2000).await;
    // What was saved for it says what the other one loses.
    until_saved(&life.fs, Path::new("/data/spool/default.jobs"), "a", |saved| saved.delivered == 2000).await;
    let held = life.report().await.log.memory_bytes;
    let fs = life.kill();
    slow.set_dead(false);
    let life = Life::begin(&fs, log_settings(), &[("a", &well), ("b", &slow)]).await;
    life.send(2000..2020).await;
    slow.until(1).await;
    let report = life.at_rest().await;
    assert_balanced(&report);
    let got = slow.numbers();
    let lost = 2020 - got.len() as u64;
    assert!(lost > 0 && lost * 1000 <= held, "{lost} events lost of {held} bytes in memory");
    let kept = 2000 - lost as u32;
    let expected: Vec<u32> = (0..kept).chain(2000..2020).collect();
    assert_eq!(got, expected, "what is lost is the newest");
    assert_eq!(report.log.lost_events, lost, "a cursor of the other one knows of them");
    assert_eq!(report.deliveries[1].held_events, 0);
    assert_eq!(well.numbers(), numbers(0..2020));
    well.check_ids();
    slow.check_ids();
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn kills_in_fair_weather_never_name_two_events_and_keep_the_ledger() {
    for commits in [false, true] {
        let traits = Traits { commits, ordered: commits, ..Traits::default() };
        let place = Arc::new(Place { traits, ..Place::default() });
        let (mut fs, mut sent) = (disk(Path::new("/data")), 0);
        for life in 0..12_u32 {
            let now = Life::begin(&fs, log_settings(), &[("a", &place)]).await;
            for _ in 0..=life * 7 % 5 {
                now.send(sent..sent + 30).await;
                sent += 30;
            }
            time_goes_by(Duration::from_millis(u64::from(life) * 311)).await;
            assert_balanced(&now.report().await);
            fs = now.kill();
        }
        let last = Life::begin(&fs, log_settings(), &[("a", &place)]).await;
        let report = last.at_rest().await;
        assert_balanced(&report);
        let got = place.numbers();
        assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len(), "each once at most");
        place.check_ids();
        last.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn edits_of_the_level_write_what_memory_holds_and_go_back() {
    let place = Arc::new(Place::default());
    place.set_dead(true);
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    let mut sent = 0;
    for level in [Durability::Disk, Durability::Memory, Durability::Process, Durability::Memory, Durability::Disk] {
        for _ in 0..5 {
            life.send(sent..sent + 20).await;
            sent += 20;
        }
        let log = LogSettings { durability: level, ..log_settings() };
        life.engine.apply(settings(log, &["a"]), Vec::new(), &|_| None).await.unwrap();
        if level != Durability::Memory {
            life.until(|report| report.log.memory_bytes == 0).await;
        }
        // The edit stands before what comes now.
        life.send(sent..sent + 20).await;
        sent += 20;
        let report = life.report().await;
        assert_eq!(report.deliveries[0].held_events, u64::from(sent), "after an edit to {level:?}");
        if level != Durability::Memory {
            assert_eq!(report.log.memory_bytes, 0, "after an edit to {level:?}");
        }
        assert_balanced(&report);
    }
    // The last level is `Disk`: power loss takes nothing.
    let fs = life.fs.crash(7);
    drop(life);
    place.set_dead(false);
    let log = LogSettings { durability: Durability::Disk, ..log_settings() };
    let life = Life::begin(&fs, log, &[("a", &place)]).await;
    assert_balanced(&life.at_rest().await);
    assert_eq!(place.numbers(), numbers(0..sent));
    place.check_ids();
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_refuses_to_spill_stops_intake_and_no_delivery() {
    let place = Arc::new(Place::default());
    place.set_dead(true);
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    life.fs.set_faults(Faults { capacity: Some(life.fs.used_bytes()), free: Some(1 << 40), ..Faults::default() });
    let mut sent = 0;
    let refused = loop {
        match Intake.submit(std::slice::from_ref(&life.pipeline), batch(sent..sent + 20)).await {
            Ok(_) => sent += 20,
            Err(error) => break error,
        }
        assert!(sent < 4000, "memory is filled without a bound");
    };
    assert!(matches!(refused, SubmitError::Refused { .. }), "{refused:?}");
    let report = life.report().await;
    assert_eq!((report.log.state.as_str(), report.deliveries[0].held_events), ("no_space", u64::from(sent)));
    assert!(report.log.memory_bytes <= 1 << 20);
    // The backend comes back, the disk does not.
    place.set_dead(false);
    place.until(sent as usize).await;
    life.until(|report| report.log.state == "ok").await;
    life.send(sent..sent + 20).await;
    place.until(sent as usize + 20).await;
    assert_eq!(place.numbers(), numbers(0..sent + 20));
    let report = life.at_rest().await;
    assert_balanced(&report);
    assert_eq!(report.log.spilled_bytes, 0);
    life.fs.set_faults(Faults::default());
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_retained_is_never_passed() {
    let place = Arc::new(Place::default());
    let log = LogSettings { retain: Duration::from_hours(1), bytes_max: 32 << 20, ..log_settings() };
    let life = Life::begin(&disk(Path::new("/data")), log.clone(), &[("a", &place)]).await;
    for round in 0..500 {
        life.send(round * 20..round * 20 + 20).await;
    }
    life.at_rest().await;
    let report = life.report().await;
    assert!(report.log.spilled_bytes > 0, "{report:#?}");
    let fs = life.end().await;
    assert!(segment_bytes(&fs) > 10_000 * 1000, "all of it is there to be replayed");
    let life = Life::begin(&fs, log, &[("a", &place)]).await;
    assert_balanced(&life.at_rest().await);
    assert_eq!(place.numbers(), numbers(0..10_000));
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_position_is_never_durable_ahead_of_its_data_and_at_most_a_minute_behind() {
    let place = Arc::new(Place::default());
    let at = |range: std::ops::Range<u32>| {
        let value = Some(range.end.to_string().into());
        Batch { position: Some(Position { source: "file".into(), value }), ..batch(range) }
    };
    let stands = |life: &Life| {
        let value = life.pipeline.position(b"file").unwrap_or_default();
        std::str::from_utf8(&value).unwrap().parse::<u32>().unwrap_or(0)
    };
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    let mut sent = 0;
    for _ in 0..180 {
        Intake.submit(std::slice::from_ref(&life.pipeline), at(sent..sent + 10)).await.unwrap();
        sent += 10;
        time_goes_by(Duration::from_secs(1)).await;
    }
    // A backend that is down: what comes now is delivered by nobody.
    place.set_dead(true);
    let delivered = sent;
    for _ in 0..180 {
        Intake.submit(std::slice::from_ref(&life.pipeline), at(sent..sent + 1)).await.unwrap();
        sent += 1;
        time_goes_by(Duration::from_secs(1)).await;
    }
    assert_eq!(stands(&life), sent, "while the process lives");
    let fs = life.kill();
    let life = Life::begin(&fs, log_settings(), &[("a", &place)]).await;
    let found = stands(&life);
    assert!(found <= delivered && found + 620 > delivered, "{found}, {delivered} were delivered, {sent} accepted");
    let fs = life.end().await;
    let life = Life::begin(&fs, log_settings(), &[("a", &place)]).await;
    assert_eq!(stands(&life), found);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_commits_holds_its_events_until_its_output_is_synced() {
    let traits = Traits { commits: true, ordered: true, ..Traits::default() };
    let place = Arc::new(Place { traits, ..Place::default() });
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    for round in 0..400 {
        life.send(round * 20..round * 20 + 20).await;
        time_goes_by(Duration::from_millis(40)).await;
    }
    let report = life.at_rest().await;
    // Half a megabyte a second, and memory for two seconds: it spills.
    assert!(report.log.spilled_bytes > 0, "{report:#?}");
    assert_balanced(&report);
    // A commit lets go of them.
    life.until(|report| report.log.memory_bytes < 64 << 10).await;
    let fs = life.end().await;
    let life = Life::begin(&fs, log_settings(), &[("a", &place)]).await;
    assert_balanced(&life.at_rest().await);
    assert_eq!(place.numbers(), numbers(0..8000));
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_which_only_a_part_was_passed_stays_whole() {
    let place = Arc::new(Place::default());
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    // Far more than goes into the first batch.
    *place.dies_at.lock().unwrap() = Some(1);
    life.send(0..900).await;
    place.until(1).await;
    assert!(place.numbers().len() < 900, "it is to stop within the frame");
    // The log looks after its memory meanwhile, many times.
    time_goes_by(Duration::from_secs(10)).await;
    assert_eq!(life.report().await.log.spilled_frames, 0, "memory alone has the rest");
    place.set_dead(false);
    life.at_rest().await;
    assert_eq!(place.numbers(), numbers(0..900));
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_takes_over_stays_in_memory_when_the_slow_one_is_removed() {
    let (slow, well) = (Arc::new(Place::default()), Arc::new(Place::default()));
    slow.set_dead(true);
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &slow)]).await;
    life.send(0..50).await;
    // It begins at an edit, and passes what comes from there on.
    let both = settings(log_settings(), &["a", "b"]);
    life.engine.apply(both, vec![spec("b", &well)], &|_| None).await.unwrap();
    life.send(50..100).await;
    well.until(50).await;
    well.set_dead(true);
    let group = |backends: &[&str]| {
        let mut settings = settings(log_settings(), backends);
        settings.routes[0].strategy = Strategy::FirstHealthy(Failback::Leave);
        settings
    };
    // What came before is its business now, and soon its alone.
    life.engine.apply(group(&["a", "b"]), Vec::new(), &|_| None).await.unwrap();
    life.until(|report| report.deliveries.iter().all(|delivery| delivery.held_events == 50)).await;
    life.engine.apply(group(&["b"]), Vec::new(), &|_| None).await.unwrap();
    life.until(|report| report.deliveries.len() == 1).await;
    life.send(100..101).await;
    // The log looks after its memory meanwhile.
    time_goes_by(Duration::from_secs(3)).await;
    assert_eq!(life.report().await.log.spilled_frames, 0, "memory alone has it");
    well.set_dead(false);
    life.at_rest().await;
    assert_eq!(well.numbers(), numbers(0..101));
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_power_loss_takes_no_record_of_what_was_delivered_and_counted() {
    let place = Arc::new(Place::default());
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    let before = life.fs.counts().syncs;
    for number in 0..130_u32 {
        let value = Some(number.to_string().into());
        let position = Some(Position { source: "file".into(), value });
        let batch = Batch { position, ..batch(number..number + 1) };
        Intake.submit(std::slice::from_ref(&life.pipeline), batch).await.unwrap();
        time_goes_by(Duration::from_secs(1)).await;
    }
    // Where sources stand is written once a minute.
    let syncs = life.fs.counts().syncs - before;
    assert!((2..=20).contains(&syncs), "{syncs} syncs in two minutes");
    for seed in 0..16 {
        let next = Life::begin(&life.fs.crash(seed), log_settings(), &[("a", &place)]).await;
        let report = next.at_rest().await;
        assert_eq!((dropped(&report), report.log.lost_events), (0, 0), "seed {seed}: {report:#?}");
        next.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_memory_holds_counts_against_the_free_space_that_it_would_take() {
    let (fs, owner) = (disk(Path::new("/data")), Supervisor::new("memory"));
    fs.set_faults(Faults { free: Some((1 << 20) + 100_000), ..Faults::default() });
    let options = LogOptions {
        dir: "/data/spool/uid".into(),
        filesystem: Arc::new(fs.clone()),
        clock: Clock::manual(1),
        settings: log_settings(),
        routes: vec!["all".into()],
        free_bytes_min: 1 << 20,
    };
    let log = Log::open(options, &owner, 1).unwrap();
    let pending = Pending { batch: batch(0..60), masks: Masks::Uniform(1), unrouted: 0, dropped: 0 };
    let bytes = pending.disk_bytes();
    log.append(log.reserve(bytes).unwrap(), pending).await.unwrap();
    // The next would fit alone.
    assert_eq!(log.report().state, "ok");
    assert_eq!(log.reserve(bytes).unwrap_err().reason, RefusalReason::NoSpace);
    assert_eq!(log.report().state, "no_space");
    fs.set_faults(Faults::default());
    // A refusal has the committer look again.
    while log.reserve(bytes).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.report().state, "ok");
    assert!(owner.stop(Instant::now() + Duration::from_secs(20)).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_spilled_goes_when_all_have_it() {
    let place = Arc::new(Place::default());
    place.set_dead(true);
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    for round in 0..100 {
        life.send(round * 20..round * 20 + 20).await;
    }
    assert!(segment_bytes(&life.fs) > 1 << 20, "it is to spill");
    place.set_dead(false);
    life.at_rest().await;
    // Nobody asks for room: the cursor is made safe for the sake of the files alone.
    time_goes_by(Duration::from_secs(12)).await;
    let left = segment_bytes(&life.fs);
    assert!(left < 768 << 10, "all but the segment that is written: {left}");
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_lets_go_of_what_only_memory_has() {
    let traits = Traits { commits: true, ordered: true, ..Traits::default() };
    let place = Arc::new(Place { traits, ..Place::default() });
    let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
    life.send(0..20).await;
    place.until(20).await;
    assert!(life.report().await.log.memory_bytes > 20_000, "until then it may come back");
    life.until(|report| report.log.memory_bytes == 0).await;
    assert_eq!(life.report().await.log.spilled_frames, 0);
    life.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_cut_short_ends_soon_and_writes_what_only_memory_holds() {
    for cut_after in [Duration::ZERO, Duration::from_secs(60)] {
        let place = Arc::new(Place::default());
        *place.hangs.lock().unwrap() = true;
        let life = Life::begin(&disk(Path::new("/data")), log_settings(), &[("a", &place)]).await;
        life.send(0..20).await;
        let report = life.until(|report| report.deliveries[0].in_flight == 1).await;
        assert!(report.log.memory_bytes > 20_000, "only memory has it");
        assert_eq!(life.engine.undrained(), ["default/jobs/all/a"]);
        let begun = Instant::now();
        let cut = async {
            time_goes_by(cut_after).await;
            life.engine.cut_short();
        };
        let (is_empty, ()) = futures_util::join!(life.engine.drain(begun + Duration::from_hours(1)), cut);
        assert!(!is_empty && begun.elapsed() <= cut_after + CUT_SHORT_MAX, "{:?}", begun.elapsed());
        // The process ends before anything else is written.
        let fs = life.kill();
        *place.hangs.lock().unwrap() = false;
        let life = Life::begin(&fs, log_settings(), &[("a", &place)]).await;
        let report = life.at_rest().await;
        assert_eq!((dropped(&report), report.log.lost_events), (0, 0), "{report:#?}");
        assert_eq!(place.numbers(), numbers(0..20));
        assert_balanced(&report);
        life.end().await;
    }
}
