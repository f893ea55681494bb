//! What a log knows besides its events: totals, positions, keys. Always as of one sequence, written whole into every
//! segment's header and footer.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::codec::{Get, Put};
use super::frame::Frame;
use super::{KEYS_MAX, POSITIONS_MAX};
use crate::event::IdempotencyKey;
use crate::intake::KEY_LIFE;

/// Events and their payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) bytes: u64,
}

impl Tally {
    pub(super) fn add(&mut self, events: u64, bytes: u64) {
        self.events += events;
        self.bytes += bytes;
    }
}

/// Counts of the whole life of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) unrouted: u64,
    /// Stands behind what else is stored: a program of this format version that does not know it reads the rest.
    pub(super) dropped: u64,
    pub(super) routed_any: u64,
    pub(super) routes: BTreeMap<Arc<str>, u64>,
}

/// What became of all events that a log ever accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AcceptedEvents {
    /// A transform dropped them.
    pub dropped: u64,
    /// No route wanted them.
    pub unrouted: u64,
    /// At least one route did.
    pub routed: u64,
}

impl Totals {
    /// Returns what became of the events.
    pub(super) fn accepted(&self) -> AcceptedEvents {
        AcceptedEvents { dropped: self.dropped, unrouted: self.unrouted, routed: self.routed_any }
    }
}

/// Whether a key came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyLookup {
    /// Not within its life.
    New,
    /// With the same body; so many events were accepted.
    Same {
        /// Events of the request, those that were dropped or that no route wanted included.
        events: u64,
    },
    /// With another body.
    Conflict,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyEntry {
    body_hash: u128,
    events: u32,
    running_ms: u64,
}

type KeyName = (Bytes, Bytes);

/// What a limit of the log left out since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LeftOut {
    /// Keys that were forgotten before their life was over: [`KEYS_MAX`].
    pub(super) keys: u64,
    /// Positions that were not kept: [`POSITIONS_MAX`].
    pub(super) positions: u64,
}

/// Totals, positions and keys as of one sequence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct State {
    pub(super) totals: Totals,
    positions: HashMap<Bytes, Bytes>,
    keys: HashMap<KeyName, KeyEntry>,
    /// The keys by age; a name may stand here twice, the entry's time decides.
    keys_by_age: VecDeque<(u64, KeyName)>,
    /// Not stored.
    pub(super) left_out: LeftOut,
}

impl State {
    /// Goes on over one frame.
    pub(super) fn apply(&mut self, frame: &Frame, tallies: &[Tally]) {
        self.totals.unrouted += u64::from(frame.unrouted);
        self.totals.dropped += u64::from(frame.dropped);
        self.totals.routed_any += frame.len() as u64;
        for (route, tally) in frame.routes.iter().zip(tallies) {
            if tally.events > 0 {
                *self.totals.routes.entry(route.clone()).or_default() += tally.events;
            }
        }
        if let Some(position) = &frame.position {
            match &position.value {
                Some(value)
                    if self.positions.len() < POSITIONS_MAX || self.positions.contains_key(&position.source) =>
                {
                    self.positions.insert(position.source.clone(), value.clone());
                }
                Some(_) => self.left_out.positions += 1,
                None => drop(self.positions.remove(&position.source)),
            }
        }
        if let Some(key) = &frame.key {
            self.remember(key, frame.len() as u32 + frame.unrouted + frame.dropped, frame.running_ms);
        }
    }

    fn remember(&mut self, key: &IdempotencyKey, events: u32, running_ms: u64) {
        let name = (key.sender.clone(), key.key.clone());
        let entry = KeyEntry { body_hash: key.body_hash, events, running_ms };
        if self.keys.insert(name.clone(), entry).is_none_or(|before| before.running_ms != running_ms) {
            self.keys_by_age.push_back((running_ms, name));
        }
        self.forget_keys(running_ms);
    }

    /// Forgets keys whose life is over, and the oldest beyond [`KEYS_MAX`].
    pub(super) fn forget_keys(&mut self, now_ms: u64) {
        let life_ms = KEY_LIFE.as_millis() as u64;
        while let Some((age_ms, name)) = self.keys_by_age.front() {
            if self.keys.len() <= KEYS_MAX && age_ms + life_ms >= now_ms {
                break;
            }
            if self.keys.get(name).is_some_and(|entry| entry.running_ms == *age_ms) {
                self.keys.remove(name);
                self.left_out.keys += u64::from(age_ms + life_ms >= now_ms);
            }
            self.keys_by_age.pop_front();
        }
    }

    pub(super) fn lookup(&self, key: &IdempotencyKey, now_ms: u64) -> KeyLookup {
        let life_ms = KEY_LIFE.as_millis() as u64;
        match self.keys.get(&(key.sender.clone(), key.key.clone())) {
            Some(entry) if entry.running_ms + life_ms < now_ms => KeyLookup::New,
            Some(entry) if entry.body_hash == key.body_hash => KeyLookup::Same { events: u64::from(entry.events) },
            Some(_) => KeyLookup::Conflict,
            None => KeyLookup::New,
        }
    }

    pub(super) fn position(&self, source: &[u8]) -> Option<Bytes> {
        self.positions.get(source).cloned()
    }

    pub(super) fn positions(&self) -> Vec<(Bytes, Bytes)> {
        self.positions.iter().map(|(source, value)| (source.clone(), value.clone())).collect()
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u64(self.totals.unrouted);
        out.put_u64(self.totals.routed_any);
        out.put_u32(self.totals.routes.len() as u32);
        for (route, events) in &self.totals.routes {
            out.put_bytes(route.as_bytes());
            out.put_u64(*events);
        }
        out.put_u32(self.positions.len() as u32);
        for (source, value) in &self.positions {
            out.put_bytes(source);
            out.put_bytes(value);
        }
        out.put_u32(self.keys.len() as u32);
        for (age_ms, name) in &self.keys_by_age {
            if let Some(entry) = self.keys.get(name).filter(|entry| entry.running_ms == *age_ms) {
                out.put_bytes(&name.0);
                out.put_bytes(&name.1);
                out.extend_from_slice(&entry.body_hash.to_le_bytes());
                out.put_u32(entry.events);
                out.put_u64(entry.running_ms);
            }
        }
    }

    pub(super) fn read(get: &mut Get<'_>) -> Option<Self> {
        let mut state = Self::default();
        state.totals.unrouted = get.u64()?;
        state.totals.routed_any = get.u64()?;
        for _ in 0..get.count(12)? {
            let route: Arc<str> = get.text()?.into();
            state.totals.routes.insert(route, get.u64()?);
        }
        for _ in 0..get.count(8)? {
            let source = Bytes::copy_from_slice(get.bytes()?);
            state.positions.insert(source, Bytes::copy_from_slice(get.bytes()?));
        }
        for _ in 0..get.count(36)? {
            let name = (Bytes::copy_from_slice(get.bytes()?), Bytes::copy_from_slice(get.bytes()?));
            let entry = KeyEntry { body_hash: get.u128()?, events: get.u32()?, running_ms: get.u64()? };
            state.keys_by_age.push_back((entry.running_ms, name.clone()));
            state.keys.insert(name, entry);
        }
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Position;
    use crate::log::frame::Masks;

    fn key(name: &'static str, body_hash: u128) -> IdempotencyKey {
        IdempotencyKey { sender: Bytes::from_static(b"s"), key: Bytes::from_static(name.as_bytes()), body_hash }
    }

    #[test]
    fn a_key_is_forgotten_after_its_life_and_not_before() {
        let mut state = State::default();
        state.remember(&key("a", 1), 3, 0);
        assert_eq!(state.lookup(&key("a", 1), 600_000), KeyLookup::Same { events: 3 });
        assert_eq!(state.lookup(&key("a", 2), 600_000), KeyLookup::Conflict);
        assert_eq!(state.lookup(&key("a", 2), 600_001), KeyLookup::New);
        state.remember(&key("b", 1), 3, 600_001);
        assert_eq!(state.keys.len(), 1);
    }

    #[test]
    fn keys_and_positions_beyond_their_limits_are_counted() {
        let mut state = State::default();
        for number in 0..=KEYS_MAX {
            let key = IdempotencyKey { sender: Bytes::new(), key: number.to_string().into(), body_hash: 0 };
            state.remember(&key, 1, 1);
        }
        assert_eq!((state.keys.len(), state.left_out.keys), (KEYS_MAX, 1));
        // Those whose life is over are none of them.
        state.remember(&key("late", 0), 1, 600_002);
        assert_eq!((state.keys.len(), state.left_out.keys), (1, 1));

        let frame = |source: usize| Frame {
            first_seq: 1,
            incarnation: 1,
            received: 1,
            running_ms: 1,
            origin: Arc::default(),
            routes: Arc::default(),
            masks: Masks::Uniform(0),
            ends: Vec::new(),
            payload: Bytes::new(),
            unrouted: 1,
            dropped: 0,
            position: Some(Position { source: source.to_string().into(), value: Some(Bytes::from_static(b"1")) }),
            key: None,
        };
        (0..=POSITIONS_MAX).for_each(|source| state.apply(&frame(source), &[]));
        // One that is known moves on.
        state.apply(&frame(0), &[]);
        assert_eq!((state.positions.len(), state.left_out.positions), (POSITIONS_MAX, 1));
    }

    #[test]
    fn state_survives_its_stored_form_and_refuses_a_cut_one() {
        let mut state = State::default();
        state.remember(&key("a", 1), 3, 5);
        state.positions.insert(Bytes::from_static(b"f"), Bytes::from_static(b"9"));
        state.totals.routes.insert("r".into(), 7);
        let mut out = Vec::new();
        state.write(&mut out);
        assert_eq!(State::read(&mut Get(&out)), Some(state));
        for len in 0..out.len() {
            assert_eq!(State::read(&mut Get(&out[..len])), None);
        }
    }
}
