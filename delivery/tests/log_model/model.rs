//! What the log ought to hold: a plain list of everything ever sent, and what became of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use spillway_delivery::event::{BatchBuilder, EventId, IdempotencyKey, Origin, OriginBuilder, Position};
use spillway_delivery::filesystem::SplitMix64;
use spillway_delivery::log::{Frame, KeyLookup, Masks, Pending};
use spillway_delivery::settings::Durability;

use crate::invariant::{Checked, Invariant};

pub(crate) const ROUTES: [&str; 3] = ["jobs", "errors", "all"];

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Acknowledged, or found after a start.
    Kept,
    /// Refused, but the next start may find it.
    Maybe,
    /// Refused or lost: never to be seen.
    Gone,
}

/// How the life before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Clean,
    Kill,
    PowerLoss,
}

/// A batch as it was sent.
pub(crate) struct Sent {
    first: u64,
    sizes: Vec<usize>,
    masks: Vec<u64>,
    unrouted: u32,
    dropped: u32,
    origin: u64,
    source: Option<(u64, Option<u64>)>,
    pub(crate) key: Option<u64>,
    pub(crate) fate: Fate,
    /// Whether power loss may not take it.
    synced: bool,
    /// Whether damage was done to it.
    harmed: bool,
    id: Option<EventId>,
    pending: Option<Pending>,
}

/// Everything ever sent.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) level: Durability,
    pub(crate) sent: Vec<Sent>,
    next_event: u64,
    next_value: u64,
    next_key: u64,
    /// Which event an id named.
    ids: HashMap<(u64, u64), u64>,
    /// Whether all events are large.
    pub(crate) bulky: bool,
    /// Where the group that is being sent begins.
    group: usize,
    /// Everything below may have been freed.
    freed_below: u64,
    /// How many batches had been sent when damage was last done.
    harmed_at: usize,
    /// Events per route that everybody had, and that the log forgot with a process at level `Memory`.
    uncounted: [u64; 3],
}

impl Model {
    pub(crate) fn new(level: Durability) -> Self {
        Self {
            level,
            sent: Vec::new(),
            next_event: 1,
            next_value: 1,
            next_key: 1,
            ids: HashMap::new(),
            bulky: false,
            group: 0,
            freed_below: 0,
            harmed_at: 0,
            uncounted: [0; 3],
        }
    }

    // ── What is sent ────────────────────────────────────────────────────────────────────────────────────────────

    /// Returns the index the next batch will have; keys of those before it may be tried again.
    pub(crate) fn begin_group(&mut self) -> usize {
        self.group = self.sent.len();
        self.group
    }

    /// Makes up a batch and notes it as gone until it is acknowledged.
    pub(crate) fn send(&mut self, rng: &mut SplitMix64) -> Pending {
        let events = if rng.chance(1, 8) { 0 } else { 1 + rng.below(12) };
        let large = self.bulky || rng.chance(1, 12);
        let sizes = (0..events).map(|_| rng.below(if large { 6000 } else { 400 }) as usize).collect();
        let all = 1 + rng.below(7);
        let uniform = rng.chance(1, 2);
        let masks = (0..events).map(|_| if uniform { all } else { 1 + rng.below(7) }).collect();
        self.next_value += 1;
        let value = (events == 0 || !rng.chance(1, 15)).then_some(self.next_value);
        let source = (events == 0 || rng.chance(1, 2)).then(|| (rng.below(4), value));
        let key = (events > 0 && rng.chance(1, 3)).then(|| self.key(rng));
        let (unrouted, origin) = (rng.below(3) as u32, rng.below(3));
        let first = self.next_event;
        let dropped = (first % 3) as u32;
        self.next_event += events;
        let (fate, synced, harmed, id, pending) = (Fate::Gone, false, false, None, None);
        let mut sent =
            Sent { first, sizes, masks, unrouted, dropped, origin, source, key, fate, synced, harmed, id, pending };
        let pending = sent.make();
        sent.pending = Some(pending.clone());
        self.sent.push(sent);
        pending
    }

    /// Returns a new key, or that of a batch that was refused: a client that tries again.
    fn key(&mut self, rng: &mut SplitMix64) -> u64 {
        let refused =
            self.sent[..self.group].iter().rev().take(6).find(|sent| sent.fate != Fate::Kept && sent.key.is_some());
        let key = refused.and_then(|sent| sent.key);
        if let Some(key) = key.filter(|key| rng.chance(1, 2) && !self.key_taken(*key)) {
            return key;
        }
        self.next_key += 1;
        self.next_key
    }

    fn key_taken(&self, key: u64) -> bool {
        let of_key = |sent: &Sent| sent.key == Some(key);
        let kept = self.sent.iter().any(|sent| of_key(sent) && (sent.fate == Fate::Kept || sent.harmed));
        kept || self.sent[self.group..].iter().any(of_key)
    }

    // ── What became of it ───────────────────────────────────────────────────────────────────────────────────────

    /// Notes that the batch at `index` was acknowledged.
    pub(crate) fn acknowledged(&mut self, index: usize) {
        self.sent[index].fate = Fate::Kept;
        self.sent[index].synced = self.level == Durability::Disk;
    }

    /// Notes that the batch at `index` was refused, but the next start may find it.
    pub(crate) fn refused_maybe(&mut self, index: usize) {
        self.sent[index].fate = Fate::Maybe;
    }

    /// Notes that everything below `seq` survives power loss.
    pub(crate) fn synced_below(&mut self, seq: u64) {
        if self.level == Durability::Memory {
            return;
        }
        for sent in self.sent.iter_mut().filter(|sent| sent.fate == Fate::Kept) {
            sent.synced |= sent.id.is_some_and(|id| id.seq < seq);
        }
    }

    /// Notes that what was acknowledged so far survives power loss.
    pub(crate) fn synced(&mut self) {
        self.sent.iter_mut().filter(|sent| sent.fate == Fate::Kept).for_each(|sent| sent.synced = true);
    }

    /// Notes that everything below may be freed.
    pub(crate) fn freed(&mut self, below: u64) {
        self.freed_below = self.freed_below.max(below);
    }

    /// Notes that a segment with the content `bytes` is damaged at `at`, and with `cut` from there on. A frame is lost whole,
    /// so it costs the batches on both sides; without a header, or (unsealed) without a later sync that tells damage from a
    /// torn tail, it costs all that follow.
    pub(crate) fn harmed(&mut self, bytes: &[u8], at: usize, cut: bool) {
        const MARK: &[u8] = b"{\"n\":";
        let marked = |from: &usize| bytes[*from..].starts_with(MARK);
        let numbered = |mark: usize| (mark, number(&bytes[mark + MARK.len()..]));
        let marks: Vec<_> = (0..bytes.len()).filter(marked).map(numbered).collect();
        // What the file held before it was written over is older than what it holds now.
        let stale = marks.windows(2).position(|pair| pair[0].1 > pair[1].1);
        let live = stale.map_or(marks.len(), |last| last + 1);
        let bytes = stale.map_or(bytes, |last| &bytes[..marks[last + 1].0]);
        let marks: Vec<usize> = marks[..live].iter().map(|(mark, _)| *mark).collect();
        let sealed = bytes.ends_with(b"SPWYEND1");
        let batches: Vec<usize> =
            marks.iter().filter_map(|mark| self.batch_of(number(&bytes[mark + MARK.len()..])?)).collect();
        let after = marks.partition_point(|mark| *mark <= at);
        let from = after.checked_sub(1).map(|last| batches[last]);
        // Where the footer is gone, a scan ends at what was damaged before.
        let scanned = cut || !sealed || after == marks.len();
        let before = batches.iter().copied().find(|index| scanned && self.sent[*index].harmed);
        let from = from.map(|from| before.map_or(from, |before| from.min(before)));
        let to = batches.get(after).filter(|_| from.is_some() && sealed && !cut).or(batches.last());
        for index in batches.iter().filter(|index| from <= Some(**index) && to >= Some(*index)) {
            self.sent[*index].harmed = true;
        }
        self.sent.iter_mut().filter(|sent| sent.sizes.is_empty()).for_each(|sent| sent.harmed = true);
        self.harmed_at = self.sent.len();
    }

    pub(crate) fn was_harmed(&self) -> bool {
        self.harmed_at > 0
    }

    fn batch_of(&self, event: u64) -> Option<usize> {
        let after = self.sent.partition_point(|sent| sent.first <= event);
        let index = after.checked_sub(1)?;
        // Batches without events begin where the next one begins; the last that begins there has the event.
        (event < self.sent[index].first + self.sent[index].sizes.len() as u64).then_some(index)
    }

    // ── What must hold ──────────────────────────────────────────────────────────────────────────────────────────

    /// Compares what the log shows while it runs.
    pub(crate) fn check_running(&mut self, frames: &[Arc<Frame>]) -> Checked {
        let seen = self.seen(frames)?;
        for (index, sent) in self.sent.iter().enumerate().filter(|(_, sent)| !sent.sizes.is_empty()) {
            match sent.fate {
                Fate::Kept if !seen.contains_key(&index) => {
                    self.may_be_missing(index, Invariant::NoAckedLossProcess)?;
                }
                Fate::Maybe | Fate::Gone if seen.contains_key(&index) => {
                    return Err(Invariant::NothingComesBack.broken(format!("{:?} is seen", self.sent[index])));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Compares what the log shows after a start, and settles what was open.
    pub(crate) fn check_opened(&mut self, end: End, frames: &[Arc<Frame>], positions: &[(Bytes, Bytes)]) -> Checked {
        let seen = self.seen(frames)?;
        let in_memory = self.level == Durability::Memory && end != End::Clean;
        let may_lose = in_memory || end == End::PowerLoss;
        let mut lost = None;
        for index in 0..self.sent.len() {
            let sent = &self.sent[index];
            if sent.sizes.is_empty() {
                continue;
            }
            let there = seen.contains_key(&index);
            match sent.fate {
                Fate::Kept if there => {
                    let hole = lost.filter(|_| !sent.synced && !sent.harmed);
                    Invariant::OrderKept.check(hole.is_none(), || format!("{hole:?} is lost, but not {sent:?}"))?;
                }
                // Everybody had it; what it did to the state may be lost.
                Fate::Kept if in_memory && !sent.synced && self.freed_away(index) => {}
                Fate::Kept if may_lose && !sent.synced => {
                    // What damage took says nothing of what came after it.
                    lost = lost.or((!sent.harmed).then_some(index));
                    self.sent[index].fate = Fate::Gone;
                }
                Fate::Kept => {
                    let promise = if sent.synced && end == End::PowerLoss {
                        Invariant::NoAckedLossDisk
                    } else {
                        Invariant::NoAckedLossProcess
                    };
                    self.may_be_missing(index, promise)?;
                    if sent.harmed && !self.freed_away(index) {
                        self.sent[index].fate = Fate::Gone;
                    }
                }
                Fate::Maybe => self.sent[index].fate = if there { Fate::Kept } else { Fate::Gone },
                Fate::Gone if there => {
                    return Err(Invariant::NothingComesBack.broken(format!("{sent:?} is seen after {end:?}")));
                }
                Fate::Gone => {}
            }
        }
        if in_memory {
            self.settle_positions(&seen, positions)?;
        } else {
            self.check_positions_after(end, positions)?;
        }
        self.check_keys_once()
    }

    /// Notes that everything there is has been found after a start, where that makes it durable.
    pub(crate) fn opened(&mut self, end: End) {
        if end == End::PowerLoss || self.level != Durability::Process {
            self.synced();
        }
    }

    /// After an end that took memory with it a position is that of a batch that is there, or that everybody had: never ahead
    /// of the data, and never behind what a file holds. What stood behind it is forgotten.
    fn settle_positions(&mut self, seen: &BTreeMap<usize, u64>, positions: &[(Bytes, Bytes)]) -> Checked {
        for source in 0..4 {
            let is = position_of(positions, source);
            let mut forgotten = Vec::new();
            let movers = self.sent.iter().enumerate().rev();
            for (index, sent) in movers.filter(|(_, sent)| sent.moves(source) && sent.fate != Fate::Gone) {
                if sent.source.and_then(|(_, value)| value) == is {
                    break;
                }
                let durable = seen.contains_key(&index) || sent.synced;
                Invariant::PositionMatchesData
                    .check(!durable, || format!("source {source} stands at {is:?}, behind {sent:?}"))?;
                forgotten.push(index);
            }
            for index in forgotten {
                let sent = &mut self.sent[index];
                if sent.sizes.is_empty() {
                    sent.fate = Fate::Gone;
                } else {
                    sent.source = None;
                }
            }
        }
        for sent in self.sent.iter_mut().filter(|sent| sent.fate == Fate::Maybe) {
            sent.fate = Fate::Kept;
        }
        self.check_positions(positions)
    }

    /// Returns the keys of batches that everybody had and that the log may have forgotten.
    pub(crate) fn keys_in_doubt(&self) -> Vec<(usize, IdempotencyKey)> {
        let doubted = |sent: &Sent| sent.fate == Fate::Kept && !sent.synced;
        let keyed = self.sent.iter().enumerate().filter(|(_, sent)| doubted(sent));
        keyed.filter_map(|(index, sent)| Some((index, key_of(sent.key?)))).collect()
    }

    /// Notes that the log forgot the key of a batch; returns whether it may: no file holds it.
    pub(crate) fn key_forgotten(&mut self, index: usize, frames: &[Arc<Frame>]) -> bool {
        self.sent[index].key = None;
        let id = self.sent[index].id;
        !frames
            .iter()
            .any(|frame| id.is_some_and(|id| id.seq == frame.first_seq && id.incarnation == frame.incarnation))
    }

    /// Takes over how many events of a route the log counts after an end that took memory with it; returns whether it may
    /// have forgotten so many.
    pub(crate) fn forgot(&mut self, route: usize, counted: u64) -> bool {
        let want = self.routed_ever(route);
        let doubted = self.sent.iter().filter(|sent| sent.fate == Fate::Kept && !sent.synced);
        let most = doubted.flat_map(|sent| &sent.masks).filter(|mask| *mask >> route & 1 == 1).count() as u64;
        let before = self.uncounted[route];
        let Some(uncounted) = want.checked_sub(counted) else { return false };
        self.uncounted[route] = uncounted;
        (before..=before + most).contains(&uncounted)
    }

    /// Returns how many events were accepted that an end may take.
    pub(crate) fn doubted_events(&self) -> u64 {
        self.sent.iter().filter(|sent| !sent.synced).map(|sent| sent.sizes.len() as u64).sum()
    }

    fn freed_away(&self, index: usize) -> bool {
        let sent = &self.sent[index];
        sent.id.is_some_and(|id| id.seq + sent.sizes.len() as u64 <= self.freed_below)
    }

    fn may_be_missing(&self, index: usize, promise: Invariant) -> Checked {
        let sent = &self.sent[index];
        promise.check(sent.harmed || self.freed_away(index), || {
            format!("batch {index} is missing, freed below {}: {sent:?}", self.freed_below)
        })
    }

    /// Returns the batches that frames show, each frame compared with what was sent.
    fn seen(&mut self, frames: &[Arc<Frame>]) -> Checked<BTreeMap<usize, u64>> {
        let mut seen = BTreeMap::new();
        let mut before = (None, 0);
        for frame in frames.iter().filter(|frame| !frame.is_empty()) {
            let event = event_of(frame).and_then(|event| self.batch_of(event));
            let index = event.ok_or_else(|| Invariant::NothingComesBack.broken(format!("nobody sent {frame:?}")))?;
            let ordered = before.0 < Some(index) && before.1 <= frame.first_seq;
            Invariant::OrderKept.check(ordered, || format!("batch {index} at {} after {before:?}", frame.first_seq))?;
            before = (Some(index), frame.end_seq());
            self.found(index, frame)?;
            seen.insert(index, frame.first_seq);
        }
        Ok(seen)
    }

    /// Compares one frame with the batch that it is.
    fn found(&mut self, index: usize, frame: &Frame) -> Checked {
        let was_harmed = self.was_harmed();
        let sent = &mut self.sent[index];
        let id = EventId { incarnation: frame.incarnation, seq: frame.first_seq };
        let known = *sent.id.get_or_insert(id);
        Invariant::ContentExact.check(known == id, || format!("batch {index} was {known} and is {id}"))?;
        let Some(pending) = &sent.pending else { return Ok(()) };
        let batch = &pending.batch;
        // Where the frame that said who sent it is damaged, nobody is said to have sent it.
        let nameless = was_harmed && *frame.origin == Origin::default();
        let same = frame.payload == batch.payload
            && frame.ends == batch.ends
            && frame.position == batch.position
            && frame.key == batch.key
            && frame.unrouted == pending.unrouted
            && frame.dropped == pending.dropped
            && (frame.is_empty() || frame.origin == batch.origin || nameless)
            && (0..frame.len()).all(|event| wanted_by(frame, event) == sent.masks[event])
            && frame.routes.len() == ROUTES.len();
        Invariant::ContentExact.check(same, || format!("sent {sent:?} {pending:?}, found {frame:?}"))?;
        for (event, seq) in (sent.first..).zip(frame.first_seq..frame.end_seq()) {
            let named = *self.ids.entry((frame.incarnation, seq)).or_insert(event);
            Invariant::IdNeverNamesTwo
                .check(named == event, || format!("{:x}-{seq:x} names {named} and {event}", frame.incarnation))?;
        }
        Ok(())
    }

    /// Compares positions while the log runs.
    pub(crate) fn check_positions(&self, positions: &[(Bytes, Bytes)]) -> Checked {
        for source in 0..4 {
            let last =
                self.sent.iter().enumerate().rev().find(|(_, sent)| sent.moves(source) && sent.fate == Fate::Kept);
            if self.was_harmed() && last.is_none_or(|(index, _)| index < self.harmed_at) {
                continue;
            }
            let want = last.and_then(|(_, sent)| sent.source).and_then(|(_, value)| value);
            let is = position_of(positions, source);
            Invariant::PositionMatchesData
                .check(is == want, || format!("source {source} stands at {is:?}, its data ends at {want:?}"))?;
        }
        Ok(())
    }

    /// Compares positions after a start. A batch without events shows by nothing else, so it may be kept or not where it
    /// may be lost; once that is known, it stays so.
    fn check_positions_after(&mut self, end: End, positions: &[(Bytes, Bytes)]) -> Checked {
        for source in 0..4 {
            let is = position_of(positions, source);
            let open = |sent: &Sent| {
                sent.sizes.is_empty()
                    && (sent.fate == Fate::Maybe || sent.fate == Fate::Kept && end == End::PowerLoss && !sent.synced)
            };
            let mut undecided = Vec::new();
            for (index, sent) in self.sent.iter().enumerate().filter(|(_, sent)| sent.moves(source)).rev() {
                if open(sent) {
                    undecided.push(index);
                } else if sent.fate == Fate::Kept {
                    break;
                }
            }
            // The one that the position is from is kept, and what was acknowledged before it; what is newer is lost.
            let mut found = false;
            for index in undecided {
                let sent = &mut self.sent[index];
                let this = sent.source.and_then(|(_, value)| value) == is;
                let kept = this || found && sent.fate == Fate::Kept;
                found |= this;
                sent.fate = if kept { Fate::Kept } else { Fate::Gone };
            }
        }
        self.check_positions(positions)
    }

    /// Compares what the log says of keys.
    pub(crate) async fn check_keys(&self, lookup: impl AsyncFn(IdempotencyKey) -> KeyLookup) -> Checked {
        let keys: BTreeMap<u64, usize> =
            self.sent.iter().enumerate().filter_map(|(at, sent)| Some((sent.key?, at))).collect();
        for (key, last) in keys {
            let kept = self.sent.iter().rev().find(|sent| sent.key == Some(key) && sent.fate == Fate::Kept);
            if last < self.harmed_at {
                continue;
            }
            let want = kept.map_or(KeyLookup::New, |sent| KeyLookup::Same { events: sent.accepted() });
            let is = lookup(key_of(key)).await;
            Invariant::KeyRemembered.check(is == want, || format!("key {key}: {is:?}, not {want:?}"))?;
            let other = IdempotencyKey { body_hash: 1, ..key_of(key) };
            let conflict = lookup(other).await == KeyLookup::Conflict;
            Invariant::KeyRemembered
                .check(conflict == (is != KeyLookup::New), || format!("key {key} with another body"))?;
        }
        Ok(())
    }

    fn check_keys_once(&self) -> Checked {
        let mut kept = BTreeMap::new();
        for sent in self.sent.iter().filter(|sent| sent.fate == Fate::Kept) {
            let before = sent.key.and_then(|key| kept.insert(key, sent.first));
            Invariant::KeyRemembered.check(before.is_none(), || format!("{before:?} and {sent:?} are both kept"))?;
        }
        Ok(())
    }

    /// Returns how many events damage may have taken.
    pub(crate) fn harmed_events(&self) -> u64 {
        self.sent.iter().filter(|sent| sent.harmed).map(|sent| sent.sizes.len() as u64).sum()
    }

    /// Returns the events that a route's mask held, of what is kept and what the log knows of.
    pub(crate) fn routed(&self, route: usize) -> u64 {
        self.routed_ever(route) - self.uncounted[route]
    }

    fn routed_ever(&self, route: usize) -> u64 {
        let kept = self.sent.iter().filter(|sent| sent.fate == Fate::Kept).flat_map(|sent| &sent.masks);
        kept.filter(|mask| *mask >> route & 1 == 1).count() as u64
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, sizes, source, key, fate, synced, harmed, id, .. } = self;
        let end = first + sizes.len() as u64;
        write!(f, "batch of events [{first}, {end}), source {source:?}, key {key:?}, {fate:?}, synced {synced}, ")?;
        write!(f, "harmed {harmed}, id {}", id.map_or("none".into(), |id| id.to_string()))
    }
}

impl Sent {
    fn moves(&self, source: u64) -> bool {
        self.source.is_some_and(|(of, _)| of == source)
    }

    fn accepted(&self) -> u64 {
        self.sizes.len() as u64 + u64::from(self.unrouted) + u64::from(self.dropped)
    }

    fn make(&self) -> Pending {
        let mut builder = BatchBuilder::default();
        for (event, size) in (self.first..).zip(&self.sizes) {
            let letter = char::from(b'a' + (event % 26) as u8);
            let pad: String = std::iter::repeat_n(letter, *size).collect();
            builder.push(format!("{{\"n\":{event},\"pad\":\"{pad}\"}}").as_bytes());
        }
        let mut batch = builder.build(origin_of(self.origin), 1_000 + self.first.cast_signed());
        batch.position = self.source.map(|(source, value)| Position {
            source: format!("source-{source}").into(),
            value: value.map(|value| value.to_string().into()),
        });
        batch.key = self.key.map(key_of);
        let uniform = self.masks.windows(2).all(|pair| pair[0] == pair[1]);
        let masks = match self.masks.first() {
            Some(mask) if uniform => Masks::Uniform(*mask),
            Some(_) => Masks::Each(self.masks.clone().into()),
            None => Masks::Uniform(0),
        };
        Pending { batch, masks, unrouted: self.unrouted, dropped: self.dropped }
    }
}

fn key_of(key: u64) -> IdempotencyKey {
    IdempotencyKey {
        sender: Bytes::from_static(b"sender"),
        key: key.to_string().into(),
        body_hash: u128::from(key) << 64,
    }
}

fn origin_of(origin: u64) -> Arc<Origin> {
    OriginBuilder { pod: Some(format!("pod-{origin}")), ..OriginBuilder::default() }.build()
}

fn position_of(positions: &[(Bytes, Bytes)], source: u64) -> Option<u64> {
    let name = format!("source-{source}");
    let (_, value) = positions.iter().find(|(of, _)| of == name.as_bytes())?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Returns the number of the first event of a frame.
fn event_of(frame: &Frame) -> Option<u64> {
    number(frame.payload.strip_prefix(b"{\"n\":")?)
}

fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

/// Returns the mask of an event in the order of [`ROUTES`], whatever the order of its segment's table.
pub(crate) fn wanted_by(frame: &Frame, event: usize) -> u64 {
    let mask = frame.masks.get(event);
    ROUTES.iter().enumerate().map(|(index, route)| u64::from(mask & frame.bit(route) != 0) << index).sum()
}
