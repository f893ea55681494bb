//! Which answer counts, what is said with the next question, and when it is asked.
//!
//! # Expected flow
//! [`Follower::start`] gives what an earlier process kept; then [`Follower::next`] waits for the next configuration to carry
//! out, and [`Follower::applied`] is told what became of it, which the next question says.
//!
//! # Guarantees
//! - A configuration is taken when it is newer than the one that runs, or none runs whole; an older one changes nothing.
//! - It is on disk before it is carried out, if the disk takes it.
//! - What is acknowledged was carried out: an answer that a retry overtakes is asked for again.
//! - A question that waits is given up when the state of a backend changes, and asked anew at once; at most one a second.
//!
//! # Limits
//! Pauses after failures are those of `pace`. One configuration and one table of pods are in memory twice while they are exchanged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use spillway_crds::Compiled;
use spillway_crds::served::{
    Answer, Ask, Authorities, BackendReport, Configuration, Held, PROTOCOL, Pods, REASON_BYTES_MAX, Refused,
    ServedSecret, Version,
};
use spillway_delivery::clock::Clock;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::authorities;
use super::client::{AskError, Client};
use super::pace::{PAUSE_FIRST, Pace, unit};
use super::secrets::ServedSecrets;
use super::store::Store;
use crate::config::manifests::Read;
use crate::config::state::ServedReport;
use crate::pods::{NodePods, PodsSender, TokenKeysSender, Told};
use crate::status::Excluded;

/// How long an answer without news may be put off: less than what usual proxies bear.
const WAIT_SECONDS: u32 = 50;
/// Shortest time between two questions of which the first brought nothing.
const BETWEEN_MIN: Duration = Duration::from_secs(1);
/// How often what could not be applied is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What the process says of itself, and is told.
pub trait Host: Send + Sync + std::fmt::Debug {
    /// Returns the backends that are not healthy, in a steady order.
    fn backends(&self) -> Vec<BackendReport>;
    /// Returns the pipelines that hold events, as errors name them.
    fn holding(&self) -> Vec<String>;
    /// Changes what status shows.
    fn note(&self, change: &mut dyn FnMut(&mut ServedReport));
}

/// What a follower works with.
#[derive(Debug)]
pub struct Parts {
    /// Asks.
    pub client: Client,
    /// Keeps.
    pub store: Store,
    /// Where values of secrets go.
    pub secrets: ServedSecrets,
    /// Where pods go.
    pub pods: PodsSender,
    /// Where the keys of tokens go.
    pub token_keys: TokenKeysSender,
    /// Where the authorities go that the operator tells of, in PEM.
    pub trusted: watch::Sender<String>,
    /// Who is told, and asked.
    pub host: Arc<dyn Host>,
    /// Wall time.
    pub clock: Clock,
    /// The agent's id.
    pub agent: Arc<str>,
}

/// Follows an operator.
#[derive(Debug)]
pub struct Follower {
    parts: Parts,
    /// What was carried out last.
    running: Option<Version>,
    /// Whether every value of a secret of it is there.
    is_whole: bool,
    /// What is being carried out: its version and the names of its secrets.
    pending: Option<(Version, Vec<ServedSecret>)>,
    refused: Vec<Refused>,
    /// What proves that pipelines were given to this node: those of the configuration, and those that still hold events.
    tickets: BTreeMap<String, String>,
    pods: Option<String>,
    /// What the operator told it to trust.
    authorities: Authorities,
    last: Option<Arc<Read>>,
    pace: Pace,
    hurry: Arc<Notify>,
}

impl Follower {
    /// Returns one that has nothing yet.
    pub fn new(parts: Parts) -> Self {
        let pace =
            Pace { not_before: Instant::now(), is_connected: false, failures: 0, looks: 0, error: String::new() };
        let (running, is_whole) = (None, true);
        let hurry = Arc::default();
        let (refused, tickets, authorities) = (Vec::new(), BTreeMap::new(), Authorities::default());
        let (pods, last, pending) = (None, None, None);
        Self { parts, running, is_whole, pending, refused, tickets, pods, authorities, last, pace, hurry }
    }

    /// Returns what an earlier process kept, to be carried out.
    pub async fn start(&mut self) -> Option<Arc<Read>> {
        let (store, operator) = (self.parts.store.clone(), self.parts.client.operator());
        // Reading fails with the runtime only.
        let kept = tokio::task::spawn_blocking(move || store.read()).await.unwrap_or_default();
        self.parts.host.note(&mut |report| report.operator.clone_from(&operator));
        if let Some(pods) = kept.pods {
            self.show_pods(pods, None);
        }
        self.authorities = kept.authorities.filter(|kept| authorities::check(kept).is_ok()).unwrap_or_default();
        let configuration = kept.configuration?;
        self.tickets.clone_from(&configuration.tickets);
        self.show_token_keys(&configuration);
        self.parts.secrets.add_kept(&configuration.secrets, kept.is_whole);
        self.is_whole = kept.is_whole;
        let Version { epoch, generation, hash } = &configuration.version;
        tracing::info!(epoch, generation, %hash, "starting from the stored configuration");
        if !self.is_whole {
            let why = if self.parts.store.keeps_secrets() { "another state key" } else { "no --state-key" };
            tracing::warn!(
                secrets = configuration.secrets.len(),
                why,
                "values of secrets are not stored; pipelines whose backends need them wait for the operator"
            );
        }
        Some(self.compile(configuration).await)
    }

    /// Waits for a configuration to carry out; with `again` it is the last one after a while.
    ///
    /// # Cancel safety
    /// May be cancelled: what is lost is answered again.
    pub async fn next(&mut self, again: bool) -> Arc<Read> {
        let retry = Instant::now() + RETRY;
        let last = self.last.clone().filter(|_| again);
        loop {
            let read = tokio::select! {
                read = self.round() => read,
                () = sleep_until(retry), if last.is_some() => last.clone(),
            };
            if let Some(read) = read {
                return read;
            }
        }
    }

    /// Returns what ends the pause before the next question.
    pub fn hurry(&self) -> Arc<Notify> {
        self.hurry.clone()
    }

    /// Takes note that a configuration was carried out but for `excluded`; `compiled` is what it was made of.
    pub fn applied(&mut self, compiled: &Compiled, excluded: &[Excluded]) {
        self.refused = excluded.iter().map(refused).collect();
        let Some((version, secrets)) = self.pending.take() else { return };
        self.parts.secrets.prune(&secrets, compiled);
        self.running = Some(version.clone());
        self.parts.host.note(&mut |report| {
            report.running = Some(version.clone());
            report.is_settled = true;
        });
    }

    /// Asks once; returns what is to be carried out.
    async fn round(&mut self) -> Option<Arc<Read>> {
        tokio::select! {
            () = sleep_until(self.pace.not_before) => {}
            () = self.hurry.notified() => {}
        }
        let ask = self.question();
        self.trust();
        let begun = Instant::now();
        let host = self.parts.host.clone();
        let answered = tokio::select! {
            answered = self.parts.client.ask(&ask) => answered,
            // One that does not answer is not asked anew: that would take the time it needs for a connection.
            () = changed(&*host, &ask.backends), if self.pace.is_connected => return None,
        };
        let taken = match answered {
            Ok(answer) => self.take(answer).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(taken) => {
                self.succeeded();
                if taken.is_none() && self.trusts_others(&ask) {
                    // Every agent is told at once, and connects anew.
                    self.pace.not_before = Instant::now() + PAUSE_FIRST.mul_f64(unit());
                } else if taken.is_none() && !self.has_news(&ask) {
                    self.pace.not_before = begun + BETWEEN_MIN;
                }
                taken
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// Trusts what it was told of, as long as that counts.
    fn trust(&mut self) {
        let told = authorities::pem(&self.authorities, self.parts.clock.now());
        self.parts.trusted.send_if_modified(|before| {
            let is_other = *before != told;
            before.clone_from(&told);
            is_other
        });
        self.parts.client.trust(told);
    }

    /// Whether there is something to say that `ask` did not say.
    fn has_news(&self, ask: &Ask) -> bool {
        self.acknowledged() != ask.running || self.pods != ask.pods
    }

    fn trusts_others(&self, ask: &Ask) -> bool {
        ask.authorities.as_ref().is_some_and(|told| *told != self.authorities.hash)
    }

    /// What runs, as far as nothing of it is to be served again.
    fn acknowledged(&self) -> Option<Version> {
        self.running.clone().filter(|_| self.is_whole)
    }

    fn question(&self) -> Ask {
        let ask = Ask {
            protocol: PROTOCOL,
            agent: self.parts.agent.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // The first answer says that there is an operator.
            wait_seconds: if self.pace.is_connected { WAIT_SECONDS } else { 0 },
            running: self.acknowledged(),
            refused: self.refused.clone(),
            holding: self.holding(),
            backends: self.parts.host.backends(),
            pods: self.pods.clone(),
            authorities: self.parts.client.takes_authorities().then(|| self.authorities.hash.clone()),
        };
        fitting(ask, self.parts.client.ask_bytes_max())
    }

    /// Returns what is held and can be shown to have been given to this node.
    fn holding(&self) -> Vec<Held> {
        let held = self.parts.host.holding().into_iter();
        held.filter_map(|object| Some(Held { ticket: self.tickets.get(&object)?.clone(), object })).collect()
    }

    /// Takes the tickets of `configuration`, and adds to it those of pipelines that are not in it and still hold events.
    fn take_tickets(&mut self, configuration: &mut Configuration) {
        for Held { object, ticket } in self.holding() {
            configuration.tickets.entry(object).or_insert(ticket);
        }
        self.tickets.clone_from(&configuration.tickets);
    }

    /// Takes authorities that came over a connection to one that is trusted already.
    async fn take_authorities(&mut self, told: Authorities) -> Result<(), AskError> {
        authorities::check(&told).map_err(AskError::Garbled)?;
        let store = self.parts.store.clone();
        let (told, kept) = in_background(told, move |told| store.keep_authorities(told)).await;
        tell_if_not_kept(kept);
        tracing::info!(authorities = told.certificates.len(), hash = %told.hash, "operator told whom to trust");
        self.authorities = told;
        Ok(())
    }

    async fn take(&mut self, answer: Answer) -> Result<Option<Arc<Read>>, AskError> {
        let Answer { configuration, pods, authorities } = answer;
        if let Some(told) = authorities.filter(|_| self.parts.client.takes_authorities()) {
            self.take_authorities(told).await?;
        }
        if let Some(pods) = pods.filter(|pods| Some(&pods.hash) != self.pods.as_ref()) {
            let store = self.parts.store.clone();
            let (pods, kept) = in_background(pods, move |pods| store.keep_pods(pods)).await;
            tell_if_not_kept(kept);
            self.show_pods(pods, Some(Instant::now()));
        }
        let Some(mut configuration) = configuration else {
            // It runs what it should, or there is nothing for it to run.
            self.parts.host.note(&mut |report| report.is_settled = true);
            return Ok(None);
        };
        let version = configuration.version.clone();
        // One that does not run whole was not named, and does not count.
        if let Some(running) = self.running.as_ref().filter(|_| self.is_whole) {
            if running.is_newer(&version) {
                let name = |version: &Version| format!("{}.{}", version.epoch, version.generation);
                return Err(AskError::Older { offered: name(&version), running: name(running) });
            }
            if !version.is_newer(running) {
                return Ok(None);
            }
        }
        let is_same = self.is_whole && self.running.as_ref().is_some_and(|running| running.hash == version.hash);
        self.take_tickets(&mut configuration);
        self.parts.secrets.add(&configuration.secrets);
        self.show_token_keys(&configuration);
        let store = self.parts.store.clone();
        let (configuration, kept) = in_background(configuration, move |configuration| store.keep(configuration)).await;
        tell_if_not_kept(kept);
        if is_same {
            self.running = Some(version.clone());
            self.parts.host.note(&mut |report| report.running = Some(version.clone()));
            return Ok(None);
        }
        let read = self.compile(configuration).await;
        self.is_whole = true;
        Ok(Some(read))
    }

    /// Makes of a configuration what is to be carried out.
    ///
    /// # Cancel safety
    /// Where it is cancelled nothing is pending: what is tried again meanwhile acknowledges nothing that was never carried out.
    async fn compile(&mut self, configuration: Configuration) -> Arc<Read> {
        let Configuration { version, manifests, namespaces, mut secrets, revoked, .. } = configuration;
        secrets.iter_mut().for_each(|secret| secret.value = "".into());
        let work = tokio::task::spawn_blocking(move || super::compile(manifests, namespaces, revoked));
        // Fails with the runtime only.
        let read = Arc::new(work.await.unwrap_or_default());
        self.pending = Some((version, secrets));
        self.last = Some(read.clone());
        read
    }

    fn show_token_keys(&self, configuration: &Configuration) {
        self.parts.token_keys.send_replace(configuration.token_keys.clone());
    }

    fn show_pods(&mut self, pods: Pods, confirmed: Option<Instant>) {
        self.pods = Some(pods.hash.clone());
        let table = NodePods::new(pods);
        self.parts.host.note(&mut |report| report.pods = Some(table.len() as u64));
        self.parts.pods.send_replace(Some(Told { pods: Arc::new(table), confirmed }));
    }

    fn succeeded(&mut self) {
        let now = self.parts.clock.now();
        if !self.pace.is_connected {
            tracing::info!(operator = %self.parts.client.operator(), "operator answers");
        }
        let is_new = !std::mem::replace(&mut self.pace.is_connected, true);
        (self.pace.failures, self.pace.looks) = (0, 0);
        self.parts.pods.send_if_modified(|told| {
            // Nobody is woken for that.
            told.iter_mut().for_each(|told| told.confirmed = Some(Instant::now()));
            false
        });
        self.pace.error.clear();
        self.pace.not_before = Instant::now();
        self.parts.host.note(&mut |report| {
            report.is_connected = true;
            report.answers += 1;
            report.last_error = None;
            if is_new {
                report.since = Some(now);
            }
        });
    }

    fn failed(&mut self, error: &AskError) {
        let pause = self.pace.pause(error);
        self.pace.not_before = Instant::now() + pause;
        let text = describe(error);
        let was_connected = std::mem::take(&mut self.pace.is_connected);
        if self.pace.error != text {
            tracing::warn!(error = %text, again_in_seconds = pause.as_secs(), "no configuration from the operator; everything runs on");
            self.pace.error.clone_from(&text);
        }
        let now = self.parts.clock.now();
        self.parts.host.note(&mut |report| {
            report.is_connected = false;
            report.failures += 1;
            report.last_error = Some(text.clone());
            if was_connected || report.since.is_none() {
                report.since = Some(now);
            }
        });
    }
}

/// Resolves when the states of backends are others than was told.
async fn changed(host: &dyn Host, told: &[BackendReport]) {
    let state =
        |report: &BackendReport| (report.object.clone(), report.route.clone(), report.backend.clone(), report.state);
    loop {
        sleep(BETWEEN_MIN).await;
        if !host.backends().iter().map(state).eq(told.iter().map(state)) {
            return;
        }
    }
}

fn tell_if_not_kept(kept: std::io::Result<()>) {
    if let Err(error) = kept {
        tracing::error!(
            %error,
            "the configuration cannot be stored; it runs, and a restart without the operator would not have it"
        );
    }
}

/// Runs `work` where it may block.
async fn in_background<T: Default + Send + 'static>(
    of: T,
    work: impl FnOnce(&T) -> std::io::Result<()> + Send + 'static,
) -> (T, std::io::Result<()>) {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&of);
        (of, result)
    });
    // Fails with the runtime only.
    done.await.unwrap_or_else(|error| (T::default(), Err(std::io::Error::other(error))))
}

fn refused(excluded: &Excluded) -> Refused {
    let mut reason = excluded.errors.join("; ");
    cut(&mut reason, REASON_BYTES_MAX);
    Refused { object: excluded.object.clone(), reason, kept: excluded.kept }
}

/// Returns an ask of at most `bytes_max`: words go first, then what is at the end.
fn fitting(mut ask: Ask, bytes_max: usize) -> Ask {
    ask.backends.iter_mut().for_each(|report| cut(&mut report.error, REASON_BYTES_MAX));
    let is_large = |ask: &Ask| serde_json::to_vec(ask).is_ok_and(|text| text.len() > bytes_max);
    if is_large(&ask) {
        ask.backends.iter_mut().for_each(|report| report.error.clear());
        ask.refused.iter_mut().for_each(|refused| cut(&mut refused.reason, 64));
    }
    while is_large(&ask) {
        // What holds events comes last: without its name a pipeline might be taken away.
        if ask.backends.len() + ask.refused.len() > 0 {
            ask.backends.truncate(ask.backends.len() / 2);
            ask.refused.truncate(ask.refused.len() / 2);
        } else {
            ask.holding.truncate(ask.holding.len() / 2);
        }
    }
    ask
}

fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}

/// An error with its causes, on one line.
fn describe(error: &AskError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    crate::status::plain(&text)
}

#[cfg(test)]
mod tests;
