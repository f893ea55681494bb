//! What all connections of one listener share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spillway_delivery::clock::Clock;
use spillway_delivery::event::Arenas;
use tokio::time::Instant;

use super::answer::Refusal;
use super::limits::{BYTES_MAX, Limit, TOLD_EVERY};
use super::stats::{Figure, NdjsonStats, Now};
use crate::sources::pushed::budget::Budget;
use crate::sources::pushed::events::{RefusalCode, Refusals};
use crate::sources::pushed::own_pod::OwnPod;
use crate::sources::pushed::security::ListenerSecurity;
use crate::sources::pushed::sender::{Sender, Way};
use crate::sources::pushed::targets::{Door, PushTargets};

/// How long a sender that is early waits before it comes again.
const EARLY_AGAIN: Duration = Duration::from_secs(1);

/// Who sends.
pub(super) enum Senders {
    /// Whoever gets here and shows the token, where there is one.
    Anybody(Option<ListenerSecurity>),
    /// The pod that this is the sidecar of.
    OwnPod(Option<ListenerSecurity>, OwnPod, PushTargets),
}

/// What every connection needs.
pub(super) struct Shared {
    pub(super) way: Way,
    pub(super) door: Box<dyn Door>,
    pub(super) clock: Clock,
    pub(super) stats: Arc<NdjsonStats>,
    pub(super) senders: Senders,
    pub(super) budget: Budget,
    pub(super) arenas: Arenas,
    told: Mutex<Option<Instant>>,
}

impl Shared {
    /// Returns what connections through `door` need.
    pub(super) fn new(
        way: Way,
        door: Box<dyn Door>,
        (clock, stats): (Clock, Arc<NdjsonStats>),
        senders: Senders,
    ) -> Self {
        let (budget, arenas) = (Budget::new(BYTES_MAX, BYTES_MAX), Arenas::default());
        Self { way, door, clock, stats, senders, budget, arenas, told: Mutex::default() }
    }

    /// Returns what protects the listener; a Unix socket has its file.
    pub(super) fn security(&self) -> Option<&ListenerSecurity> {
        let (Senders::Anybody(security) | Senders::OwnPod(security, ..)) = &self.senders;
        security.as_ref()
    }

    /// Returns whether a token must be shown.
    pub(super) fn wants_token(&self) -> bool {
        self.security().is_some_and(ListenerSecurity::has_token)
    }

    /// Lets in who shows this.
    pub(super) fn admit(&self, token: Option<&str>) -> Result<Sender, Refusal> {
        if self.security().is_some_and(|security| !security.knows(token)) {
            let message = "the first line must be {\"spillway\":{\"token\":…}} with the agent's token";
            return Err(Refusal::new("unauthorized", message));
        }
        match &self.senders {
            Senders::Anybody(_) => Ok(Sender::anybody(self.way, self.way.as_str())),
            Senders::OwnPod(_, pod, targets) => {
                let early = |message| Refusal::new("starting", message).after(EARLY_AGAIN);
                pod.sender(self.way, targets).map_err(early)
            }
        }
    }

    /// Counts a connection, as open until what is returned is dropped.
    pub(super) fn opened(&self) -> Now {
        self.stats.add(Figure::Connections, 1);
        self.stats.now(Figure::OpenConnections)
    }

    /// Counts lines that are no events, and tells of the first where the client does not read of it.
    pub(super) fn refused(&self, refusals: &Refusals, is_answered: bool) {
        for (code, count) in RefusalCode::ALL.into_iter().zip(refusals.counts) {
            self.stats.add_kind(code, count as u64);
        }
        for _ in 0..refusals.counts[RefusalCode::TooLarge as usize] {
            self.stats.limited(Limit::LineBytes);
        }
        let Some(first) = refusals.listed.first().filter(|_| !is_answered && self.may_tell()) else { return };
        let (refused, code) = (refusals.total(), first.fault.code.as_str());
        tracing::warn!(way = self.way.as_str(), refused, code, first = first.fault.message, "lines that are no events");
    }

    /// Counts events that could not be kept and of which nobody reads, and tells of it.
    pub(super) fn lost(&self, events: u64, why: &str) {
        self.stats.add(Figure::LostEvents, events);
        if self.may_tell() {
            tracing::warn!(way = self.way.as_str(), events, why, "lines are lost");
        }
    }

    fn may_tell(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if may {
            *told = Some(Instant::now());
        }
        may
    }
}
