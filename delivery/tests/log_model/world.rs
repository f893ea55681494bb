//! One run: a seed drives the log and its model side by side and compares them after each step.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spillway_delivery::filesystem::{Faults, FaultyFs, SplitMix64};
use spillway_delivery::log::{Frame, KeyLookup, Progress, Refused};
use spillway_delivery::settings::Durability;

use crate::invariant::{Checked, Invariant};
use crate::model::{End, Fate, Model, ROUTES, wanted_by};
use crate::subject::{self, DIR, Subject};

/// What a run may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// EIO, failed syncs, a full disk.
    pub(crate) faults: bool,
    /// Bits flipped and files cut under the log.
    pub(crate) damage: bool,
}

/// One delivery as the model knows it.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) live: Progress,
    /// All that was ever tried.
    pub(crate) ever: Vec<Progress>,
    /// What may come back: the last that was saved and synced, and all that were tried since.
    pub(crate) saves: Vec<Progress>,
    /// The first of them that SIGKILL cannot take.
    written: usize,
}

/// A log, its model, and the disk below.
#[derive(Debug)]
pub(crate) struct World {
    rng: SplitMix64,
    /// When the log is edited; apart, so that a seed means what it meant.
    edits: SplitMix64,
    pub(crate) fs: FaultyFs,
    pub(crate) subject: Option<Subject>,
    pub(crate) model: Model,
    pub(crate) readers: Vec<Reader>,
    /// Events delivered that the log lost: at level `Process` an unsynced cursor may outlive what it names.
    outlived: [i64; 3],
    /// Whether this life met a fault, or was to be cut short.
    troubled: bool,
    /// Whether what the last start found is durable for sure.
    found_durable: bool,
    /// Footers that power loss may take, at most.
    soft_footers: u64,
    /// What was done, for people.
    pub(crate) trace: Vec<String>,
}

impl World {
    /// Opens a log on an empty disk.
    pub(crate) async fn new(seed: u64, level: Durability) -> Checked<Self> {
        let reader = || Reader {
            live: Progress::default(),
            ever: vec![Progress::default()],
            saves: vec![Progress::default()],
            written: 0,
        };
        let mut world = Self {
            rng: SplitMix64::new(seed),
            edits: SplitMix64::new(!seed),
            fs: subject::disk(seed),
            subject: None,
            model: Model::new(level),
            readers: (0..ROUTES.len()).map(|_| reader()).collect(),
            outlived: [0; 3],
            troubled: false,
            found_durable: true,
            soft_footers: 0,
            trace: Vec::new(),
        };
        world.open(End::Clean).await?;
        Ok(world)
    }

    /// Runs `steps` steps.
    pub(crate) async fn run(&mut self, steps: u64, weather: Weather) -> Checked {
        for _ in 0..steps {
            if self.edits.chance(1, 8) {
                let turn = self.edits.below(6);
                self.subject()?.edit(turn, self.model.level).await?;
                self.note("the routes change their places");
            }
            self.step(weather).await?;
            self.compare().await?;
        }
        Ok(())
    }

    async fn step(&mut self, weather: Weather) -> Checked {
        match self.rng.below(40) {
            0..18 => self.append().await.map(drop),
            18..23 => self.resolve().await,
            23..28 => self.save().await,
            28 => self.settle().await,
            29 => self.end(End::Clean).await,
            30 | 31 => self.end(End::Kill).await,
            32 | 33 => self.end(End::PowerLoss).await,
            34 | 35 => {
                let (changes, end) =
                    (self.rng.below(12), if self.rng.chance(1, 2) { End::Kill } else { End::PowerLoss });
                self.note(format!("the machine stops after {changes} changes"));
                self.stop_after(changes);
                self.until_stopped().await?;
                self.end(end).await
            }
            36 | 37 if weather.faults => self.turn_weather().await,
            38 if weather.faults => {
                self.fill_disk();
                Ok(())
            }
            39 if weather.damage => self.damage().await,
            _ => Ok(()),
        }
    }

    // ── Steps ───────────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) fn subject(&self) -> Checked<&Subject> {
        self.subject.as_ref().ok_or_else(|| Invariant::OpenNeverFails.broken("no log is open"))
    }

    pub(crate) fn note(&mut self, step: impl Into<String>) {
        self.trace.push(step.into());
    }

    /// Sends one to four batches at once and returns why each was refused.
    pub(crate) async fn append(&mut self) -> Checked<Vec<Option<&'static str>>> {
        let first = self.model.begin_group();
        let group: Vec<_> = (0..=self.rng.below(4)).map(|_| self.model.send(&mut self.rng)).collect();
        let events: Vec<_> = group.iter().map(|pending| pending.batch.len()).collect();
        let calm = self.is_calm();
        let answers = self.subject()?.append(group).await?;
        let told =
            |answer: &Result<(), Refused>| answer.map_or_else(|refused| format!("{refused:?}"), |()| "ok".into());
        let told: Vec<_> = answers.iter().map(told).collect();
        self.note(format!("append batches {first}.. of {events:?} events: {told:?}"));
        for (index, answer) in (first..).zip(&answers) {
            match answer {
                Ok(()) => self.model.acknowledged(index),
                // Of a machine that stopped nobody got an answer.
                Err(refused) if refused.maybe_kept || self.fs.stopped() => self.model.refused_maybe(index),
                Err(_) => {}
            }
        }
        let refused =
            answers.iter().filter_map(|answer| answer.err()).find(|refused| refused.reason.as_str() != "full");
        let calm = calm && !self.fs.stopped();
        Invariant::WorksWithoutFaults.check(!calm || refused.is_none(), || format!("refused: {refused:?}"))?;
        if answers.iter().any(|answer| answer.is_err_and(|refused| refused.room_soon)) {
            self.give_way().await?;
        }
        Ok(answers.iter().map(|answer| answer.err().map(|refused| refused.reason.as_str())).collect())
    }

    /// Whether nothing stands in the way of a write.
    fn is_calm(&self) -> bool {
        !self.fs.stopped() && self.fs.faults() == Faults::default()
    }

    /// Resolves some events of one delivery, not always the oldest.
    async fn resolve(&mut self) -> Checked {
        let Ok(frames) = self.subject()?.frames().await? else { return Ok(()) };
        self.model.check_running(&frames)?;
        let route = self.rng.below(3) as usize;
        let ahead: Vec<_> = frames.iter().filter(|frame| frame.end_seq() > self.readers[route].live.cursor).collect();
        let skip = if self.rng.chance(2, 3) { 0 } else { self.rng.below(4) as usize };
        let count = 1 + self.rng.below(12) as usize;
        let picked: Vec<Arc<Frame>> = ahead.into_iter().skip(skip).take(count).cloned().collect();
        self.resolve_frames(route, &picked, skip == 0);
        Ok(())
    }

    /// Resolves frames; with `from_cursor` also the gap before them, which holds no event.
    pub(crate) fn resolve_frames(&mut self, route: usize, frames: &[Arc<Frame>], from_cursor: bool) {
        let (Some(first), Some(last)) = (frames.first(), frames.last()) else { return };
        let live = &mut self.readers[route].live;
        live.delivered += count(frames, route, |seq| !live.is_resolved(seq));
        let from = if from_cursor { live.cursor } else { first.first_seq };
        live.resolve(from, last.end_seq());
        let cursor = live.cursor;
        self.note_passed(route);
        self.note(format!("resolve {} [{from}, {}), cursor {cursor}", ROUTES[route], last.end_seq()));
    }

    /// At level `Memory` the log is told what a delivery is past for good, saved or not.
    pub(crate) fn note_passed(&mut self, route: usize) {
        if self.model.level != Durability::Memory {
            return;
        }
        if let Some(subject) = &self.subject {
            subject.log.passed(&subject::delivery(route), self.readers[route].live.cursor);
        }
        let low = self.readers.iter().map(|reader| reader.live.cursor).min();
        self.model.freed(low.unwrap_or(0));
    }

    async fn save(&mut self) -> Checked {
        let (route, sync) = (self.rng.below(3) as usize, self.rng.chance(3, 4));
        self.save_one(route, sync).await
    }

    pub(crate) async fn save_one(&mut self, route: usize, sync: bool) -> Checked {
        let progress = self.readers[route].live.clone();
        let calm = self.is_calm();
        let saved = self.subject()?.save(&subject::delivery(route), &progress, sync).await?;
        self.note(format!("save {} at {}, sync {sync}: {saved}", ROUTES[route], progress.cursor));
        Invariant::WorksWithoutFaults.check(saved || !calm || self.fs.stopped(), || "a cursor is not saved".into())?;
        let reader = &mut self.readers[route];
        reader.ever.push(progress.clone());
        reader.saves.push(progress);
        let newest = reader.saves.len() - 1;
        match (saved, sync) {
            (true, true) => {
                reader.saves.drain(..newest);
                reader.written = 0;
                let seq = reader.live.seq_min();
                self.model.synced_below(seq);
                self.note_freed();
            }
            (true, false) => reader.written = newest,
            (false, _) => {}
        }
        Ok(())
    }

    fn note_freed(&mut self) {
        let low = self.readers.iter().filter_map(|reader| reader.saves.last()).map(|save| save.cursor).min();
        self.model.freed(low.unwrap_or(0));
    }

    pub(crate) async fn settle(&mut self) -> Checked {
        self.note("time passes");
        self.subject()?.settle().await;
        Ok(())
    }

    /// Lets the machine stop; see [`FaultyFs::stop_after`].
    pub(crate) fn stop_after(&mut self, changes: u64) {
        self.troubled = true;
        self.fs.stop_after(changes);
    }

    async fn until_stopped(&mut self) -> Checked {
        for _ in 0..20 {
            if self.fs.stopped() {
                break;
            }
            match self.rng.below(9) {
                0 => self.end(End::Clean).await?,
                1 | 2 => self.save().await?,
                3 | 4 => self.resolve().await?,
                _ => drop(self.append().await?),
            }
        }
        Ok(())
    }

    /// Brings faults, or ends them and lets the log mend.
    async fn turn_weather(&mut self) -> Checked {
        if self.fs.faults() != Faults::default() {
            return self.clear().await;
        }
        let mut chance = || [0, 20_000, 100_000, 400_000][self.rng.below(4) as usize];
        let (write, read, sync, names) = (chance(), chance(), chance(), chance() / 2);
        // At level `Process` no log can help when a failed sync takes the page cache and SIGKILL comes before the rewrite.
        let drops_cache = self.model.level == Durability::Disk;
        let faults = Faults { write, read, sync, names, drops_cache, ..Faults::default() };
        self.note(format!("{faults:?}"));
        self.troubled = true;
        self.fs.set_faults(faults);
        Ok(())
    }

    fn fill_disk(&mut self) {
        let capacity = self.fs.used_bytes() + self.rng.below(20_000);
        self.note(format!("the disk has {capacity} bytes"));
        self.troubled = true;
        self.fs.set_faults(Faults { capacity: Some(capacity), ..Faults::default() });
    }

    pub(crate) async fn clear(&mut self) -> Checked {
        self.fs.set_faults(Faults::default());
        self.settle().await?;
        self.note("faults are over");
        Ok(())
    }

    /// Harms one segment while no process runs.
    async fn damage(&mut self) -> Checked {
        if self.rng.chance(1, 2) {
            self.close().await?;
        } else {
            self.fs = self.fs.kill();
            self.subject = None;
        }
        self.troubled = true;
        let segments: Vec<(PathBuf, u64)> =
            self.fs.files().into_iter().filter(|(path, len)| is_segment(path) && *len > 0).collect();
        if !segments.is_empty() {
            let (path, len) = &segments[self.rng.below(segments.len() as u64) as usize];
            let (at, cut) = (self.rng.below(*len), self.rng.chance(1, 3));
            self.model.harmed(&self.fs.content(path).unwrap_or_default(), at as usize, cut);
            let done = if cut { self.fs.cut(path, at) } else { self.fs.flip_bit(path, at, self.rng.below(8) as u8) };
            self.note(format!("damage {} at {at} of {len}, cut {cut}: {done}", path.display()));
        }
        self.open(End::Kill).await
    }

    // ── Ends and beginnings ─────────────────────────────────────────────────────────────────────────────────────

    /// Ends this life in a way, begins the next, and compares.
    pub(crate) async fn end(&mut self, end: End) -> Checked {
        self.note(format!("{end:?}"));
        self.troubled |= self.fs.stopped();
        if end == End::Clean && self.model.level == Durability::Memory {
            // What a delivery is past it has saved before the log ends, where it can.
            for route in 0..ROUTES.len() {
                self.save_one(route, false).await?;
            }
            if !self.is_calm() {
                self.close().await?;
                return self.open(End::Kill).await;
            }
        }
        match end {
            End::Clean => self.close().await?,
            End::Kill => {
                self.fs = self.fs.kill();
                self.subject = None;
            }
            End::PowerLoss => {
                self.fs = self.fs.crash(self.rng.draw());
                self.subject = None;
            }
        }
        self.open(end).await
    }

    pub(crate) async fn close(&mut self) -> Checked {
        match self.subject.take() {
            Some(subject) => subject.close().await,
            None => Ok(()),
        }
    }

    async fn open(&mut self, end: End) -> Checked {
        let mut end = end;
        // A start that cannot read what it must is a story of its own.
        self.fs.set_faults(Faults { read: 0, ..self.fs.faults() });
        if self.fs.faults() != Faults::default() {
            // A start on a bad disk may fail, and may fail half-way; the next one finds what it left.
            if self.try_open().is_err() {
                self.note("the start fails");
                self.fs.set_faults(Faults::default());
                end = if end == End::PowerLoss { End::PowerLoss } else { End::Kill };
            }
        }
        if self.subject.is_none()
            && let Err(error) = self.try_open()
        {
            let stopped = self.fs.stopped();
            return Invariant::OpenNeverFails.check(stopped, || error.to_string());
        }
        self.check_bounds(end)?;
        // What was found with faults about may be in the page cache alone.
        self.found_durable = self.fs.faults() == Faults::default();
        if self.fs.faults() != Faults::default() {
            self.troubled = true;
            self.clear().await?;
        }
        self.compare_opened(end).await
    }

    pub(crate) fn try_open(&mut self) -> std::io::Result<()> {
        let settings = subject::settings(self.model.level);
        let subject = Subject::open(&self.fs, settings, self.rng.draw())?;
        self.note(format!("open: {:?}", subject.log.recovered()));
        self.subject = Some(subject);
        Ok(())
    }

    /// A start scans what was being written, and after power loss what was sealed just before.
    fn check_bounds(&mut self, end: End) -> Checked {
        let recovered = self.subject()?.log.recovered();
        let troubled = std::mem::take(&mut self.troubled);
        // A kill in the midst of a seal leaves a footer that only the page cache has.
        self.soft_footers += u64::from(troubled);
        let scanned_max = if end == End::PowerLoss { 2 + std::mem::take(&mut self.soft_footers) } else { 1 };
        let whole = recovered.damaged_records + recovered.quarantined_segments == 0;
        Invariant::WorksWithoutFaults
            .check(troubled || self.model.was_harmed() || whole, || format!("{recovered:?}"))?;
        Invariant::BoundedRecovery.check(troubled || recovered.scanned <= scanned_max, || format!("{recovered:?}"))
    }

    // ── Comparing ───────────────────────────────────────────────────────────────────────────────────────────────

    pub(crate) async fn compare_opened(&mut self, end: End) -> Checked {
        if self.fs.stopped() {
            return Ok(());
        }
        let subject = self.subject()?;
        let read = subject.frames().await?;
        let frames = read.map_err(|error| Invariant::NoAckedLossProcess.broken(format!("{error}: {error:?}")))?;
        let positions = subject.log.positions();
        self.model.check_opened(end, &frames, &positions)?;
        let in_memory = self.model.level == Durability::Memory && end != End::Clean;
        if in_memory {
            self.settle_forgotten(&frames).await?;
        }
        for route in 0..ROUTES.len() {
            let synced = self.compare_progress(end, route)?;
            if in_memory {
                self.settle_lost(route, &frames)?;
            }
            if !synced && end == End::PowerLoss && self.model.level == Durability::Process {
                let lost = self.imbalance(route, &frames)?.unwrap_or(0).min(0);
                self.outlived[route] += lost;
            }
        }
        if self.found_durable {
            self.model.opened(end);
        }
        for route in 0..ROUTES.len() {
            self.save_one(route, true).await?;
        }
        self.compare().await
    }

    /// Takes over which keys and totals went with a process at level `Memory`.
    async fn settle_forgotten(&mut self, frames: &[Arc<Frame>]) -> Checked {
        for (index, key) in self.model.keys_in_doubt() {
            if self.subject()?.log.claim_key(&key).await.0 == KeyLookup::New {
                let may = self.model.key_forgotten(index, frames);
                Invariant::KeyRemembered.check(may, || format!("the key of batch {index} is forgotten"))?;
            }
        }
        for (route, name) in ROUTES.iter().enumerate() {
            let counted = self.subject()?.log.routed_events(name);
            let may = self.model.forgot(route, counted);
            Invariant::LedgerBalances.check(may, || format!("{name} counts {counted} events after the start"))?;
        }
        Ok(())
    }

    /// Takes over what a delivery brings into balance at such a start: what it delivered and the log forgot, and what the log
    /// counts and the record of its delivery is lost.
    fn settle_lost(&mut self, route: usize, frames: &[Arc<Frame>]) -> Checked {
        let off = self.imbalance(route, frames)?.unwrap_or(0);
        let doubted = self.model.doubted_events();
        Invariant::LedgerBalances.check(off.unsigned_abs() <= doubted, || {
            format!("{} is off by {off}, and {doubted} events may be lost", ROUTES[route])
        })?;
        self.outlived[route] += off;
        Ok(())
    }

    /// Takes over what a delivery had saved; returns whether it had been synced.
    pub(crate) fn compare_progress(&mut self, end: End, route: usize) -> Checked<bool> {
        let is = self.subject()?.log.progress(&subject::delivery(route)).unwrap_or_default();
        let reader = &mut self.readers[route];
        let found = reader.saves.iter().rposition(|save| *save == is);
        let name = ROUTES[route];
        let Some(found) = found else {
            let broken = if is.cursor < reader.saves[0].cursor {
                Invariant::CursorMonotone
            } else {
                Invariant::CursorNeverAhead
            };
            return Err(broken.broken(format!("{name} comes back as {is:?}, saved were {:?}", reader.saves)));
        };
        let kept = end == End::PowerLoss || found >= reader.written;
        Invariant::CursorMonotone.check(kept, || format!("{name} comes back as save {found} of {:?}", reader.saves))?;
        reader.saves.truncate(found + 1);
        reader.written = found;
        reader.live = is;
        Ok(found == 0)
    }

    /// Compares what the log shows with what the model holds.
    pub(crate) async fn compare(&mut self) -> Checked {
        if self.fs.stopped() {
            return Ok(());
        }
        let subject = self.subject()?;
        let read = subject.frames().await?;
        let calm = self.is_calm();
        if let Ok(frames) = &read {
            self.model.check_running(frames)?;
        }
        Invariant::WorksWithoutFaults.check(read.is_ok() || !calm, || format!("{read:?}"))?;
        let log = &self.subject()?.log;
        self.model.check_positions(&log.positions())?;
        self.model.check_keys(async |key| log.claim_key(&key).await.0).await?;
        for (route, name) in ROUTES.iter().enumerate() {
            if let Ok(frames) = &read
                && let Some(imbalance) = self.imbalance(route, frames)?
            {
                let harmed = self.model.harmed_events();
                let balanced = imbalance.unsigned_abs() <= harmed;
                Invariant::LedgerBalances.check(balanced, || format!("{name}: {imbalance}, harmed {harmed}"))?;
            }
            self.compare_routed(route)?;
        }
        Ok(())
    }

    fn compare_routed(&self, route: usize) -> Checked {
        let (is, want) = (self.subject()?.log.routed_events(ROUTES[route]), self.model.routed(route));
        let open = self.model.was_harmed() || self.model.sent.iter().any(|sent| sent.fate == Fate::Maybe);
        Invariant::LedgerBalances.check(open || is == want, || format!("{} has {is} events, not {want}", ROUTES[route]))
    }

    /// Returns routed minus delivered minus held, held counted by the log and here; `None` where it cannot be read now.
    fn imbalance(&self, route: usize, frames: &[Arc<Frame>]) -> Checked<Option<i64>> {
        let subject = self.subject()?;
        let live = &self.readers[route].live;
        let held = count(frames, route, |seq| !live.is_resolved(seq));
        let end = subject.log.visible_end();
        let ranges = live.resolved.iter().map(|(from, to)| (*from, *to, -1)).chain([(live.cursor, end, 1)]);
        let (census, mut counted) = (subject.log.census(), 0);
        for (from, to, sign) in ranges {
            let Ok((events, _)) = subject.log.count_events(&census, ROUTES[route], from, to) else { return Ok(None) };
            counted += sign * i64::try_from(events).unwrap_or(i64::MAX);
        }
        Invariant::LedgerBalances.check(counted == held.cast_signed() || self.model.was_harmed(), || {
            format!(
                "{} holds {held} events, the log counts {counted} (cursor {}, {:?})",
                ROUTES[route], live.cursor, live.resolved
            )
        })?;
        Ok(Some(
            census.routed_events(ROUTES[route]).cast_signed()
                - live.delivered.cast_signed()
                - live.dropped.values().sum::<u64>().cast_signed()
                - counted
                - self.outlived[route],
        ))
    }

    /// Resolves and saves everything, and looks whether the bytes fall.
    pub(crate) async fn drain(&mut self) -> Checked {
        self.fs.set_faults(Faults::default());
        self.settle().await?;
        let read = self.subject()?.frames().await?;
        let frames = read.map_err(|error| Invariant::WorksWithoutFaults.broken(format!("{error:?}")))?;
        self.deliver(&frames).await?;
        self.end(End::Clean).await?;
        self.settle().await?;
        let report = self.subject()?.log.report();
        let files = self.fs.files();
        let bytes: u64 = files.iter().filter(|(path, _)| is_segment(path)).map(|(_, len)| len).sum();
        Invariant::SpaceFreed.check(report.bytes < 24 << 10 && bytes < 24 << 10, || format!("{report:?}, {files:?}"))
    }

    /// Resolves and saves everything that can be read.
    pub(crate) async fn deliver_all(&mut self) -> Checked {
        match self.subject()?.frames().await? {
            Ok(frames) => self.deliver(&frames).await,
            Err(_) => Ok(()),
        }
    }

    pub(crate) async fn deliver(&mut self, frames: &[Arc<Frame>]) -> Checked {
        self.model.check_running(frames)?;
        for route in 0..ROUTES.len() {
            self.resolve_frames(route, frames, true);
            let end = self.subject()?.log.visible_end();
            let live = &mut self.readers[route].live;
            live.resolve(live.cursor, end);
            self.note_passed(route);
            self.save_one(route, true).await?;
        }
        Ok(())
    }

    /// A short story with all that a log does: groups, sealing, resolving, saving, a restart, freeing. Returns whether it
    /// came to its end.
    pub(crate) async fn story(&mut self) -> Checked<bool> {
        for act in 0..14 {
            match act {
                3 | 7 => self.resolve().await?,
                4 => self.save_one(0, true).await?,
                5 | 6 => self.model.bulky = true,
                8 => self.save().await?,
                9 => self.end(End::Clean).await?,
                12 => self.deliver_all().await?,
                _ => drop(self.append().await?),
            }
            if self.fs.stopped() {
                return Ok(false);
            }
            self.compare().await?;
        }
        Ok(true)
    }
}

pub(crate) fn is_segment(path: &Path) -> bool {
    path.starts_with(DIR) && path.parent() == Some(Path::new(DIR)) && path.extension().is_some_and(|ext| ext == "log")
}

/// Returns how many events of a route pass `open`.
pub(crate) fn count(frames: &[Arc<Frame>], route: usize, open: impl Fn(u64) -> bool) -> u64 {
    let events = frames.iter().flat_map(|frame| (0..frame.len()).map(move |index| (frame, index)));
    let wanted = |(frame, index): &(&Arc<Frame>, usize)| {
        wanted_by(frame, *index) >> route & 1 == 1 && open(frame.first_seq + *index as u64)
    };
    events.filter(wanted).count() as u64
}
