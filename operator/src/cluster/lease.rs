//! Who leads: one Lease, and the epoch that orders what leaders give out.
//!
//! Expected flow: every replica looks at the Lease every [`RETRY`]; the holder renews it instead. A replica takes a Lease that
//! nobody holds, or one that has not changed for [`LEASE`] **as seen by its own steady clock**: clocks of other machines
//! count for nothing. The holder leads until [`RENEW_WITHIN`] after its last renewal began, and stops leading by itself when
//! none got through; that is sooner than any other can take the Lease, so that two never lead at a time, as long as clocks
//! run equally fast within a third.
//!
//! # Epochs
//! Kept as an annotation of the Lease. A new holder takes the greater of the one after the last and the seconds since 1970,
//! so that one whose Lease was deleted does not begin below what agents run. What [`Lead::run`] is handed lifts it for
//! agents that know a later one all the same.
//!
//! # Where who leads is asked
//! The holder keeps its address as an annotation, too. A replica that follows leads agents there, as long as it respects the
//! Lease.
//!
//! Source: the algorithm of client-go's leader election, with the same bounds on who may lead when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use spillway_delivery::clock::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{FIELD_MANAGER, in_words};

/// How long a Lease that does not change is respected.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long the holder leads after the beginning of its last renewal that got through.
pub const RENEW_WITHIN: Duration = Duration::from_secs(7);

/// How often the Lease is looked at, or renewed.
pub const RETRY: Duration = Duration::from_secs(2);

/// The annotation that holds the epoch.
const EPOCH: &str = "spillway.dev/epoch";

/// The annotation that holds where the holder is asked.
const ADDRESS: &str = "spillway.dev/address";

/// Whether this replica leads, and with which epoch.
pub type Leading = Option<u64>;

/// Who takes part in a Lease.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it calls itself in the Lease.
    pub identity: String,
    /// Where agents may ask it, when it can be told.
    pub address: Option<SocketAddr>,
}

/// The Lease of one replica.
#[derive(Debug)]
pub struct Lead {
    api: Api<Lease>,
    name: String,
    member: Member,
    clock: Clock,
    leading: watch::Sender<Leading>,
    leader: watch::Sender<Option<SocketAddr>>,
    /// The Lease as it was last seen, and since when it is so.
    seen: Option<(Lease, Instant)>,
    /// Whether it may be another by now than it was seen.
    is_stale: bool,
    /// Until when we lead.
    until: Option<Instant>,
}

/// What to do about a Lease.
#[derive(Debug, PartialEq)]
enum Step {
    /// It is not there: make it.
    Create(Box<Lease>),
    /// It is ours, or may be taken: write this over what was seen.
    Write(Box<Lease>),
    /// It is another's.
    Wait,
}

impl Lead {
    /// Returns the Lease `name` in `namespace`, not looked at yet, and where to see whether `member` leads.
    pub fn new(
        client: Client,
        (namespace, name): (&str, &str),
        member: Member,
        clock: Clock,
    ) -> (Self, watch::Receiver<Leading>) {
        let (leading, seen) = watch::channel(None);
        let (api, name) = (Api::namespaced(client, namespace), name.to_owned());
        let leader = watch::Sender::default();
        (Self { api, name, member, clock, leading, leader, seen: None, is_stale: false, until: None }, seen)
    }

    /// Returns where to see at which address another replica leads.
    pub fn leader(&self) -> watch::Receiver<Option<SocketAddr>> {
        self.leader.subscribe()
    }

    /// Leads when it may, until told to stop; then gives the Lease back, so that another leads at once.
    pub async fn run(mut self, raises: watch::Receiver<u64>, stop: CancellationToken) {
        loop {
            let next = Instant::now() + RETRY;
            let wanted = *raises.borrow();
            tokio::select! {
                () = self.turn(wanted) => {}
                () = stop.cancelled() => break,
            }
            tokio::select! {
                () = self.until_next(next) => {}
                () = stop.cancelled() => break,
            }
        }
        self.give_back().await;
    }

    /// Waits for the next look; leads no longer when the time for that is over.
    async fn until_next(&mut self, next: Instant) {
        if let Some(until) = self.until.filter(|until| *until <= next) {
            sleep_until(until).await;
            self.lead(None);
        }
        sleep_until(next).await;
    }

    /// Looks at the Lease once, and takes or renews it where that is ours to do.
    async fn turn(&mut self, epoch_min: u64) {
        let began = Instant::now();
        let deadline = self.until.unwrap_or(began + RENEW_WITHIN).min(began + RENEW_WITHIN);
        match timeout_at(deadline, self.attempt(epoch_min, began)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = in_words(&error), lease = self.name, "the Lease cannot be kept");
                // Since when it was seen so stays: an error says nothing about who leads.
                self.is_stale = true;
            }
            Err(_) => tracing::warn!(lease = self.name, "the API server does not answer in time for the Lease"),
        }
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.lead(None);
        }
    }

    async fn attempt(&mut self, epoch_min: u64, began: Instant) -> kube::Result<()> {
        if self.until.is_none() || self.seen.is_none() || self.is_stale {
            let found = self.api.get_opt(&self.name).await?;
            self.refresh(found);
            self.is_stale = false;
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match self.step(epoch_min, began) {
            Step::Wait => {
                self.lead(None);
                return Ok(());
            }
            Step::Create(lease) => self.api.create(&params, &lease).await,
            Step::Write(lease) => self.api.replace(&self.name, &params, &lease).await,
        };
        match written {
            Ok(lease) => {
                let epoch = epoch_of(&lease);
                self.refresh(Some(lease));
                self.until = Some(began + RENEW_WITHIN);
                self.lead(Some(epoch));
                Ok(())
            }
            // Another was faster; whose it is now is seen at the next look.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.seen = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Says what is to be done about the Lease as it was last seen.
    fn step(&self, epoch_min: u64, now: Instant) -> Step {
        let seconds = u64::try_from(self.clock.now() / 1_000_000_000).unwrap_or_default();
        let at = MicroTime(Timestamp::from_nanosecond(self.clock.now().into()).unwrap_or_default());
        let Some((seen, since)) = &self.seen else {
            return Step::Create(Box::new(self.taken(Lease::default(), seconds.max(epoch_min), at)));
        };
        let spec = seen.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder == self.member.identity && self.until.is_some() {
            let epoch = epoch_of(seen).max(epoch_min);
            let mut lease = seen.clone();
            self.annotate(&mut lease, epoch);
            lease.spec = Some(LeaseSpec { renew_time: Some(at), ..spec });
            return Step::Write(Box::new(lease));
        }
        // Ours of an earlier life, too: what that gave out may be under way still, so it is a new epoch.
        if holder.is_empty() || holder == self.member.identity || now.duration_since(*since) >= LEASE {
            let epoch = epoch_of(seen).saturating_add(1).max(seconds).max(epoch_min);
            return Step::Write(Box::new(self.taken(seen.clone(), epoch, at)));
        }
        Step::Wait
    }

    fn taken(&self, mut lease: Lease, epoch: u64, at: MicroTime) -> Lease {
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).map_or(0, |count| count + 1);
        lease.metadata.name = Some(self.name.clone());
        self.annotate(&mut lease, epoch);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.member.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            acquire_time: Some(at.clone()),
            renew_time: Some(at),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        });
        lease
    }

    fn annotate(&self, lease: &mut Lease, epoch: u64) {
        let annotations = lease.annotations_mut();
        annotations.insert(EPOCH.to_owned(), epoch.to_string());
        match self.member.address {
            Some(address) => annotations.insert(ADDRESS.to_owned(), address.to_string()),
            None => annotations.remove(ADDRESS),
        };
    }

    /// Takes note of the Lease; how long it has not changed counts from the first time it looked so.
    fn refresh(&mut self, found: Option<Lease>) {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let since = match (&self.seen, &found) {
            (Some((before, since)), Some(now)) if version(before) == version(now) => *since,
            _ => Instant::now(),
        };
        let leader = found.as_ref().and_then(|lease| self.other(lease));
        self.leader.send_if_modified(|known| std::mem::replace(known, leader) != leader);
        self.seen = found.map(|lease| (lease, since));
    }

    /// Returns where the holder is asked, when that is another.
    fn other(&self, lease: &Lease) -> Option<SocketAddr> {
        let holder = lease.spec.as_ref()?.holder_identity.as_deref().unwrap_or_default();
        let address = lease.annotations().get(ADDRESS).and_then(|text| text.parse().ok());
        address.filter(|_| !holder.is_empty() && holder != self.member.identity)
    }

    fn lead(&mut self, epoch: Leading) {
        if epoch.is_none() {
            self.until = None;
        }
        let changed = self.leading.send_if_modified(|leading| {
            let changed = *leading != epoch;
            *leading = epoch;
            changed
        });
        match (changed, epoch) {
            (true, Some(epoch)) => tracing::info!(epoch, identity = self.member.identity, "leading"),
            (true, None) => tracing::info!(identity = self.member.identity, "not leading any more"),
            (false, _) => {}
        }
    }

    /// Gives the Lease back; where that fails, another takes it when it has run out.
    async fn give_back(mut self) {
        let held = self.until.take();
        self.lead(None);
        let (Some(until), Some((mut lease, _))) = (held, self.seen.take()) else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let given = timeout_at(until, self.api.replace(&self.name, &PostParams::default(), &lease)).await;
        if !matches!(given, Ok(Ok(_))) {
            tracing::info!(lease = self.name, "the Lease could not be given back; it runs out by itself");
        }
    }
}

fn epoch_of(lease: &Lease) -> u64 {
    let annotations: Option<&BTreeMap<String, String>> = lease.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(EPOCH)).and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
