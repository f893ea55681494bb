//! One authority after the other: what the Secret of our CA holds, and what the leader makes of it next. No network, no clock.
//!
//! | key of the Secret | holds |
//! | --- | --- |
//! | `tls.crt`, `tls.key` | the authority that issues |
//! | `next.crt`, `next.key` | its successor, which agents are told of and which issues nothing yet |
//! | `previous.crt`, `previous.until` | the certificate of the one before, trusted until then; its key is gone |
//! | `tickets.key` | what [`Tickets`] are made with, since the first successor was used |
//!
//! ```text
//! one ──180 days before its end──► one + next ──everybody knows──► next + previous ──the end of the one──► next alone
//!                              made            90 days before     used                                dropped
//!                                              or asked for by hand
//! ```
//!
//! Expected flow: [`Stored::next`] is asked again and again by who leads, and what it returns is written by compare-and-swap:
//! the Secret is the truth, whoever leads. What is to be trusted is [`Stored::trusted`], at any time.
//!
//! # Guarantees
//! - A successor is used only after this leader saw it where agents, pods and API servers find it ([`Told`]) for [`MOUNTED`], so that
//!   webhooks give no pod a sidecar that lacks it, and when
//!   - all live agents say that they trust it, or all that are connected do and [`PATIENCE`] is over; not before
//!     [`USED_BEFORE`], so that whoever keeps a copy has the time to copy it;
//!   - or at the latest [`USED_AT_LATEST`], or [`PATIENCE`] after it was asked for by hand: then all that are away find it mounted.
//! - What is trusted is the same before and after that moment, but for how long the one before counts when asked by hand.
//! - A successor that was made before one asked by hand is not used: whoever read one key of the Secret read both.
//! - What is ended is not trusted. A private key is in no error and in no debug output, and is not kept once another issues.
//!
//! # It must not know
//! Where all that is kept, and who leads.
//!
//! # Limits
//! One authority before and one after. What was asked by hand twice within [`KEPT_WHEN_ASKED`] forgets the first at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use spillway_crds::served::{Authorities, AuthorityCertificate};
use xxhash_rust::xxh3::xxh3_128;

use crate::hub::Knowing;
use crate::serve::certificates::{Authority, CertificateError, validity};
use crate::tickets::{Tickets, derived};

/// How long before the end of an authority its successor is made.
pub const MADE_BEFORE: Duration = Duration::from_hours(180 * 24);

/// How long before that end it is used, once everybody knows it.
pub const USED_BEFORE: Duration = Duration::from_hours(90 * 24);

/// How long before that end it is used, whoever does not know it.
pub const USED_AT_LATEST: Duration = Duration::from_hours(30 * 24);

/// How long it is until what is published is mounted, too: a kubelet brings a `ConfigMap` to a pod within two minutes.
pub const MOUNTED: Duration = Duration::from_mins(3);

/// How long those who are not heard of are waited for.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// How long an authority that was replaced by hand is trusted on.
pub const KEPT_WHEN_ASKED: Duration = Duration::from_hours(1);

/// The annotation of the Secret that asks for a successor by hand: any value but [`UNDER_WAY`].
pub const ASKED: &str = "spillway.dev/replace-authority";

/// The value of [`ASKED`] once the successor that was asked for is made.
pub const UNDER_WAY: &str = "under-way";

const CURRENT: [&str; 2] = ["tls.crt", "tls.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const PREVIOUS: [&str; 2] = ["previous.crt", "previous.until"];
const TICKETS: &str = "tickets.key";

/// What the Secret of our CA holds.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Stored {
    values: BTreeMap<String, Vec<u8>>,
    asked: Option<String>,
}

/// Since when this leader knows that what is to be trusted is where it is looked for, and which agents say that they trust it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Since when.
    pub since: Timestamp,
    /// Who says so; `None` while no agent is known.
    pub agents: Option<Knowing>,
}

/// What happens to authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There is a successor.
    Made,
    /// It issues from now on.
    Used,
    /// The one before is trusted no longer.
    Dropped,
}

impl Change {
    /// Returns it as a label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Used => "used",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("keys", &self.values.keys()).field("asked", &self.asked).finish()
    }
}

impl Stored {
    /// Returns what the Secret of a new authority holds.
    pub fn first(authority: &Authority) -> Self {
        let mut first = Self::default();
        first.put(CURRENT, [authority.certificate_pem(), &authority.key_pem()]);
        first
    }

    /// Returns what a Secret holds whose annotation [`ASKED`] has that value.
    pub fn new(values: BTreeMap<String, Vec<u8>>, asked: Option<String>) -> Self {
        Self { values, asked }
    }

    /// Returns the values and the annotation, to be written.
    pub fn into_parts(self) -> (BTreeMap<String, Vec<u8>>, Option<String>) {
        (self.values, self.asked)
    }

    /// Returns the authority that issues.
    pub fn current(&self, now: Timestamp) -> Result<Authority, CertificateError> {
        self.authority(CURRENT, now)
    }

    /// Returns its successor; `None` also for one that is of no use.
    pub fn successor(&self, now: Timestamp) -> Option<Authority> {
        self.authority(NEXT, now).ok()
    }

    /// Returns what tickets are made with, which stays when the authority changes.
    pub fn tickets(&self, current: &Authority) -> Tickets {
        Tickets::under(&self.tickets_key(current))
    }

    /// Returns whom others are to trust, the one that began first before the others.
    pub fn trusted(&self, now: Timestamp) -> Result<Authorities, CertificateError> {
        let current = self.current(now)?;
        let next = self.successor(now);
        let previous = self.previous().filter(|(_, _, until)| now < *until);
        let of =
            |authority: &Authority| (authority.begins(), authority.certificate_pem().to_owned(), authority.expires());
        let mut all: Vec<_> = [Some(of(&current)), next.as_ref().map(of), previous].into_iter().flatten().collect();
        all.sort();
        all.dedup_by(|one, other| one.1 == other.1);
        Ok(trusted(all.iter().map(|(_, pem, until)| (pem.as_str(), *until))))
    }

    /// Returns what the Secret is to hold next, and what that is called; `None` while it is as it should be.
    pub fn next(&self, now: Timestamp, told: Option<Told>) -> Result<Option<(Self, Change)>, CertificateError> {
        let mut next = self.clone();
        if self.values.contains_key(PREVIOUS[0]) && self.previous().is_none_or(|(_, _, until)| now >= until) {
            PREVIOUS.iter().for_each(|key| drop(next.values.remove(*key)));
            return Ok(Some((next, Change::Dropped)));
        }
        let current = self.current(now)?;
        let is_near = |before: Duration| now.checked_add(before).is_ok_and(|later| later >= current.expires());
        let is_asked = self.asked.is_some();
        let is_new = self.asked.as_deref().is_some_and(|asked| asked != UNDER_WAY);
        let Some(successor) = self.successor(now).filter(|_| !is_new) else {
            if !is_asked && !is_near(MADE_BEFORE) {
                return Ok(None);
            }
            let made = Authority::generate(now)?;
            next.put(NEXT, [made.certificate_pem(), &made.key_pem()]);
            next.asked = is_asked.then(|| UNDER_WAY.to_owned());
            return Ok(Some((next, Change::Made)));
        };
        let Some(told) = told else { return Ok(None) };
        let is_over = |time: Duration| told.since.checked_add(time).is_ok_and(|end| now >= end);
        let is_known = |agents: Knowing| {
            agents.acknowledged == agents.live || is_over(PATIENCE) && agents.acknowledged == agents.heard
        };
        let by_all = told.agents.is_some_and(is_known) && (is_asked || is_near(USED_BEFORE));
        let is_due = is_over(MOUNTED) && by_all || is_over(PATIENCE) && (is_asked || is_near(USED_AT_LATEST));
        if !is_due {
            return Ok(None);
        }
        let soon = now.checked_add(KEPT_WHEN_ASKED).ok().filter(|_| is_asked);
        let until = soon.map_or(current.expires(), |soon| soon.min(current.expires()));
        next.values.insert(TICKETS.to_owned(), self.tickets_key(&current));
        next.put(PREVIOUS, [current.certificate_pem(), &until.to_string()]);
        next.put(CURRENT, [successor.certificate_pem(), &successor.key_pem()]);
        NEXT.iter().for_each(|key| drop(next.values.remove(*key)));
        next.asked = None;
        Ok(Some((next, Change::Used)))
    }

    fn authority(&self, keys: [&str; 2], now: Timestamp) -> Result<Authority, CertificateError> {
        Authority::from_pem(&self.text(keys[0]), &self.text(keys[1]), now)
    }

    /// Returns the one before, when it began and until when it is trusted.
    fn previous(&self) -> Option<(Timestamp, String, Timestamp)> {
        let certificate = self.text(PREVIOUS[0]);
        let (begins, expires) = validity(&certificate).ok()?;
        let until: Timestamp = self.text(PREVIOUS[1]).trim().parse().ok()?;
        Some((begins, certificate, until.min(expires)))
    }

    fn tickets_key(&self, current: &Authority) -> Vec<u8> {
        self.values.get(TICKETS).cloned().unwrap_or_else(|| derived(current.key_pem().as_bytes()))
    }

    fn text(&self, key: &str) -> String {
        self.values.get(key).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    fn put(&mut self, keys: [&str; 2], texts: [&str; 2]) {
        for (key, text) in keys.into_iter().zip(texts) {
            self.values.insert(key.to_owned(), text.as_bytes().to_vec());
        }
    }
}

/// Returns certificates, each with the time until which it counts, as agents are told of them.
pub fn trusted<'a>(certificates: impl IntoIterator<Item = (&'a str, Timestamp)>) -> Authorities {
    let certificate = |(pem, until): (&str, Timestamp)| AuthorityCertificate {
        pem: format!("{}\n", pem.trim()),
        until_unix_seconds: u64::try_from(until.as_second()).unwrap_or_default(),
    };
    let certificates: Vec<_> = certificates.into_iter().map(certificate).collect();
    // Plain data, which always serialises.
    let hash = format!("{:032x}", xxh3_128(&serde_json::to_vec(&certificates).unwrap_or_default()));
    Authorities { hash, certificates }
}

/// Returns certificates in one text, as whoever reads a file of authorities wants it.
pub fn bundle(certificates: &[AuthorityCertificate]) -> String {
    certificates.iter().map(|certificate| certificate.pem.as_str()).collect()
}

#[cfg(test)]
mod tests;
