//! What a listener counts, for the metrics and the status of the process: figures, limits that senders ran into, events of
//! each kind that is told apart, and refusals by their code.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A closed list of what is counted, in the order of the discriminants.
pub trait Listed: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// Returns where it stands in the list.
    fn place(self) -> usize;
}

/// A list whose members have names, as metrics have them as a label.
pub trait Named: Listed {
    /// Returns the name.
    fn name(self) -> &'static str;
}

/// Makes an enumeration a [`Listed`] one, whose place is its discriminant; with `named`, one of names by its `as_str`.
macro_rules! listed {
    ($kind:ty) => {
        impl $crate::sources::pushed::tally::Listed for $kind {
            const ALL: &'static [Self] = &Self::ALL;

            fn place(self) -> usize {
                self as usize
            }
        }
    };
    ($kind:ty, named) => {
        $crate::sources::pushed::tally::listed!($kind);

        impl $crate::sources::pushed::tally::Named for $kind {
            fn name(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

pub(crate) use listed;

/// Counters and gauges of a listener, of the time since the start: figures `F`, limits `L`, events by kind `K`.
#[derive(Debug)]
pub struct Tally<F: 'static, L: 'static, K: 'static> {
    figures: Counts<F>,
    limits: Counts<L>,
    kinds: Counts<K>,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

#[derive(Debug)]
struct Counts<T: 'static> {
    list: &'static [T],
    counts: Box<[AtomicU64]>,
}

impl<T: Listed> Default for Counts<T> {
    fn default() -> Self {
        debug_assert!(T::ALL.iter().enumerate().all(|(index, one)| one.place() == index), "a list is in order");
        Self { list: T::ALL, counts: T::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl<T: Listed> Counts<T> {
    fn of(&self, one: T) -> &AtomicU64 {
        &self.counts[one.place()]
    }

    fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)>
    where
        T: Named,
    {
        self.list.iter().map(|one| one.name()).zip(self.counts.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl<F: Listed, L: Listed, K: Listed> Default for Tally<F, L, K> {
    fn default() -> Self {
        Self {
            figures: Counts::default(),
            limits: Counts::default(),
            kinds: Counts::default(),
            refused: Mutex::default(),
        }
    }
}

impl<F: Listed, L: Named, K: Named> Tally<F, L, K> {
    /// Returns a figure.
    pub fn figure(&self, figure: F) -> u64 {
        self.figures.of(figure).load(Ordering::Relaxed)
    }

    /// Returns how many events are of each kind, by its name.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.kinds.by_name()
    }

    /// Returns how often a sender ran into a limit, by its name.
    pub fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.limits.by_name()
    }

    /// Returns how often something was refused, by code.
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add(&self, figure: F, by: u64) {
        self.figures.of(figure).fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn add_kind(&self, kind: K, events: u64) {
        self.kinds.of(kind).fetch_add(events, Ordering::Relaxed);
    }

    pub(crate) fn limited(&self, limit: L) {
        self.limits.of(limit).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, code: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// Counts in a gauge until what is returned is dropped.
    pub(crate) fn now(self: &Arc<Self>, figure: F) -> Now<F, L, K> {
        self.add(figure, 1);
        Now { tally: self.clone(), figure }
    }
}

/// Counts in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct Now<F: Listed, L: 'static, K: 'static> {
    tally: Arc<Tally<F, L, K>>,
    figure: F,
}

impl<F: Listed, L: 'static, K: 'static> Drop for Now<F, L, K> {
    fn drop(&mut self) {
        self.tally.figures.of(self.figure).fetch_sub(1, Ordering::Relaxed);
    }
}
