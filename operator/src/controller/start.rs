//! The parts of the controller, made and started in the order in which one needs the other.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use prometheus_client::registry::Registry;
use spillway_crds::served::{AUDIENCE, TokenKeys};
use spillway_delivery::clock::Clock;
use spillway_delivery::supervisor::Supervisor;
use spillway_tokens::{Keys, Verifier};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Controller, Ends};
use crate::admin;
use crate::cli::ControllerFlags;
use crate::cluster::authority::{self, AuthorityError};
use crate::cluster::keys::{self, Published};
use crate::cluster::lease::{Lead, Leading, Member};
use crate::cluster::queue::{self, Line};
use crate::cluster::watch::{self as watches, Over};
use crate::cluster::webhook::{self, Keeper};
use crate::cluster::{self, events, evict, in_words, keep, secrets, write};
use crate::hub::Hub;
use crate::mutate;
use crate::repair::RepairStats;
use crate::serve::Endpoint;
use crate::serve::certificates::{self, Certificates};
use crate::serve::stats::{Authorities, Expiry, Stats};
use crate::world::Change;

/// Most statuses, Events and Secrets that wait to be taken.
const QUEUE_MAX: usize = 256;

/// How long the API server is waited for at the start, between two attempts.
const AGAIN: Duration = Duration::from_secs(2);

/// Bytes of the key that agents encrypt with.
const STATE_KEY_BYTES: usize = 32;

/// Starts the controller; its tasks end with `owner`.
pub async fn start(flags: &ControllerFlags, owner: &Arc<Supervisor>) -> anyhow::Result<()> {
    let clock = Clock::system();
    let socket = TcpListener::bind(flags.listen).with_context(|| format!("{} cannot be listened at", flags.listen))?;
    let (stats, authorities, expiry) = (Stats::default(), Authorities::default(), Expiry::default());
    let repair = RepairStats::default();
    let register = |registry: &mut Registry| {
        stats.register(registry);
        authorities.register(registry);
        repair.register(registry);
        registry.register_collector(Box::new(expiry.clone()));
    };
    let (admin, health) = admin::serve(flags.admin, register, owner).await?;
    let client = cluster::connect().await?;
    let (authority::Found { authority, trusted, tickets }, published) = found(&client, flags, &clock).await?;
    let names = names(flags, &flags.service);
    let certificates = Certificates::new(authority, names, clock.clone()).context("no certificate can be issued")?;
    let certificates = Arc::new(certificates);
    certificates.trust(Arc::new(trusted));
    expiry.0.get_or_init(|| certificates.clone());
    let hub = Arc::new(Hub::default());
    let token_keys = Arc::new(Keys::default());
    token_keys.replace(&published.keys).context("the keys of the API server are not understood")?;
    let (lead, leading) = lease(&client, flags, clock.clone());
    let endpoint = Endpoint {
        leader: lead.leader(),
        hub: hub.clone(),
        verifier: Verifier::new(token_keys.clone(), &published.issuer, AUDIENCE),
        certificates: certificates.clone(),
        stats,
        clock: clock.clone(),
    };
    let stop = owner.stopping();
    owner.spawn("endpoint", serve(endpoint, socket, stop.clone()));
    let keeper = authority::Keeper {
        namespace: flags.namespace.clone(),
        again: Duration::from_secs(flags.look_again_seconds),
        certificates,
        hub: hub.clone(),
        stats: authorities,
        clock: clock.clone(),
    };
    certify(flags, owner, &client, keeper, leading.clone());
    let controller = Controller::new(flags, clock, (hub, health, repair), tickets, served_keys(&published));
    control(flags, owner, &client, (controller, token_keys), (lead, leading));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %flags.listen,
        admin = %admin,
        namespace = flags.namespace,
        issuer = published.issuer,
        "ready"
    );
    Ok(())
}

/// Starts what looks after our CA, and after the certificates that it issues for others.
fn certify(
    flags: &ControllerFlags,
    owner: &Arc<Supervisor>,
    client: &Client,
    authority: authority::Keeper,
    leading: watch::Receiver<Leading>,
) {
    let stop = owner.stopping();
    let (again, clock, certificates) = (authority.again, authority.clock.clone(), authority.certificates.clone());
    let (settle, settled) = watch::channel(None);
    owner.spawn("authority", authority.run(client.clone(), leading, settle, stop.clone()));
    let keeper = |secret, service: &String| Keeper {
        namespace: flags.namespace.clone(),
        secret,
        service: service.clone(),
        configuration: None,
        pods_configuration: None,
        names: names(flags, service),
        again,
        certificates: certificates.clone(),
        clock: clock.clone(),
    };
    if let Some(service) = &flags.webhook_service {
        let (configuration, pods_configuration) =
            (flags.webhook_configuration.clone(), flags.webhook_pods_configuration.clone());
        let keeper = Keeper { configuration, pods_configuration, ..keeper(webhook::SECRET, service) };
        owner.spawn("webhook", keeper.run(client.clone(), settled.clone(), stop.clone()));
    }
    if let Some(service) = &flags.agent_service {
        let keeper = keeper(webhook::DOOR_SECRET, service);
        owner.spawn("door", keeper.run(client.clone(), settled, stop));
    }
}

/// Starts the loop, and the tasks that it takes from and gives to.
fn control(
    flags: &ControllerFlags,
    owner: &Arc<Supervisor>,
    client: &Client,
    (controller, token_keys): (Controller, Arc<Keys>),
    (lead, leading): (Lead, watch::Receiver<Leading>),
) {
    let (stop, again) = (owner.stopping(), Duration::from_secs(flags.look_again_seconds));
    let hub = controller.hub.clone();
    let identity = identity(flags);
    let (raise, raises) = watch::channel(0);
    owner.spawn("lease", lead.run(raises, stop.clone()));
    owner.spawn("epochs", raise_epochs(hub.clone(), raise, stop.clone()));
    let (secrets_wanted, wanted) = watch::channel(secrets::Named::new());
    let (found, secrets) = mpsc::channel(QUEUE_MAX);
    owner.spawn("keys", refresh(client.clone(), token_keys, found.clone(), stop.clone()));
    owner.spawn("secrets", secrets::read(client.clone(), again, wanted, found, stop.clone()));
    let of_lines = leading.clone();
    let line = move |what, rest| Line { what, rest, leading: of_lines.clone() };
    let (statuses, asked) = mpsc::channel(QUEUE_MAX);
    let of_status = client.clone();
    let status = move |key, status| write::status(of_status.clone(), key, status);
    owner.spawn("status", queue::run(line("a status", queue::REST), asked, status, stop.clone()));
    let (keeps, asked) = mpsc::channel(QUEUE_MAX);
    let (of_keeps, own) = (client.clone(), flags.namespace.clone());
    let good = move |key, keep| keep::good(of_keeps.clone(), own.clone(), key, keep);
    owner.spawn("last good versions", queue::run(line("a last good version", queue::REST), asked, good, stop.clone()));
    let (news, asked) = mpsc::channel(QUEUE_MAX);
    let of_events = client.clone();
    let (of_makers, instance) = (of_events.clone(), identity.clone());
    let tell = move |key, news| events::tell(of_events.clone(), identity.clone(), key, news);
    owner.spawn("events", queue::run(line("an Event", queue::REST_OF_EVENTS), asked, tell, stop.clone()));
    let (makers, asked) = mpsc::channel(QUEUE_MAX);
    let tell = move |about, told| events::tell_maker(of_makers.clone(), instance.clone(), about, told);
    owner.spawn("events of makers", queue::run(line("an Event", queue::REST_OF_EVENTS), asked, tell, stop.clone()));
    let (evictions, asked) = mpsc::channel(evict::QUEUE_MAX);
    let (said, outcomes) = mpsc::channel(evict::QUEUE_MAX);
    owner.spawn("evictions", evict::run(client.clone(), leading.clone(), asked, said, stop.clone()));
    let (make, made) = watch::channel(None);
    if let Some(file) = &flags.sidecars {
        owner.spawn("sidecars", mutate::follow(file.clone(), make, stop.clone()));
    }
    let notes = watches::start(client, owner, &Over::ALL);
    let reports = hub.report_changes();
    let ends = Ends {
        notes,
        secrets,
        leading,
        reports,
        secrets_wanted,
        statuses,
        keeps,
        news,
        made,
        makers,
        evictions,
        outcomes,
    };
    owner.spawn("controller", controller.run(ends, stop));
}

fn identity(flags: &ControllerFlags) -> String {
    flags.identity.clone().unwrap_or_else(host_name)
}

/// Returns the Lease, not looked at yet.
fn lease(client: &Client, flags: &ControllerFlags, clock: Clock) -> (Lead, watch::Receiver<Leading>) {
    let address = flags.pod_ip.map(|ip| SocketAddr::new(ip, flags.listen.port()));
    let member = Member { identity: identity(flags), address };
    Lead::new(client.clone(), (&flags.namespace, &flags.lease), member, clock)
}

/// Our CA, and who signs tokens.
type Found = (authority::Found, Published);

/// Returns what is needed to start; waits for an API server that is not there yet.
async fn found(client: &Client, flags: &ControllerFlags, clock: &Clock) -> anyhow::Result<Found> {
    let mut told = String::new();
    loop {
        match look(client, flags, clock).await {
            Ok(found) => return Ok(found),
            Err(AuthorityError::Ask(error)) => {
                let text = in_words(&error);
                if text != told {
                    tracing::warn!(
                        error = text,
                        "the API server does not give what is needed to start; it is asked again"
                    );
                    told = text;
                }
                sleep_until(Instant::now() + AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn look(client: &Client, flags: &ControllerFlags, clock: &Clock) -> Result<Found, AuthorityError> {
    let authority = authority::find(client, &flags.namespace, certificates::now(clock)).await?;
    keep::secret(client, &flags.namespace, keep::AGENT_STATE, || BTreeMap::from([("key".to_owned(), random())]))
        .await?;
    Ok((authority, keys::read(client).await?))
}

/// Returns the bytes of a new key.
fn random() -> Vec<u8> {
    let mut bytes = vec![0; STATE_KEY_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random numbers do not fail");
    bytes
}

/// Returns the names under which a Service of ours may be reached.
fn names(flags: &ControllerFlags, service: &str) -> Vec<String> {
    let ControllerFlags { namespace, certificate_names, .. } = flags;
    let of_service = ["", ".svc", ".svc.cluster.local"].map(|ending| format!("{service}.{namespace}{ending}"));
    of_service.into_iter().chain(certificate_names.iter().cloned()).collect()
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

async fn serve(endpoint: Endpoint, socket: TcpListener, stop: CancellationToken) {
    if let Err(error) = endpoint.run(socket, stop).await {
        tracing::error!(%error, "the endpoint of agents ended");
    }
}

/// Has the epoch raised for agents that know a later one.
async fn raise_epochs(hub: Arc<Hub>, raise: watch::Sender<u64>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            epoch = hub.later_epoch() => drop(raise.send_replace(epoch)),
        }
        // Until the Lease has it.
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(Instant::now() + crate::cluster::lease::RETRY) => {}
        }
    }
}

/// Returns what agents verify the tokens of pods with.
fn served_keys(published: &Published) -> Arc<TokenKeys> {
    let Published { issuer, keys } = published.clone();
    Arc::new(TokenKeys { issuer, keys })
}

/// Reads the keys of tokens again, from time to time and when a token names one that is not known; agents are given them, too.
async fn refresh(client: Client, keys: Arc<Keys>, changes: mpsc::Sender<Change>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = keys.wanted() => {}
            () = sleep_until(Instant::now() + keys::AGAIN) => {}
        }
        match keys::read(&client).await {
            Ok(published) => match keys.replace(&published.keys) {
                Ok(_) if changes.send(Change::TokenKeys(served_keys(&published))).await.is_err() => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the keys of the API server are not understood; those before count on");
                }
            },
            Err(error) => tracing::warn!(error = in_words(&error), "the keys of tokens cannot be read"),
        }
    }
}
