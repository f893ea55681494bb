//! The whole life of an authority over two replicas and their agents. The API server is hand-made: it knows one Secret and one
//! `ConfigMap`, counts versions, refuses what was read too long ago, and at each write that anything issues from what is not
//! published. Time stands still unless told.

use std::sync::Mutex;

use kube::client::Body;
use rustls::client::ClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, Connection, RootCertStore, ServerConfig, ServerConnection};
use serde_json::Value;
use spillway_crds::served::Ask;

use super::*;
use crate::cluster::hand_made::{answer, refused};
use crate::hub::Slice;
use crate::serve::certificates::{LEAF_VALID, LeafPem, RENEW_EVERY, Shown, read_pair, server_config};
use crate::succession::{KEPT_WHEN_ASKED, MADE_BEFORE, MOUNTED, PATIENCE, UNDER_WAY, USED_AT_LATEST, USED_BEFORE};

/// Seconds since 1970 at which these tests begin.
const BEGIN: i64 = 1_800_000_000;

const DAY: Duration = Duration::from_hours(24);

const NAMES: [&str; 1] = ["spillway-controller.own.svc"];

/// What the API server holds.
#[derive(Debug, Default)]
struct Server {
    secret: Option<Value>,
    map: Option<Value>,
    version: u64,
    /// Writes of either.
    writes: u64,
    /// What somebody else writes just before the next write: it sees an older version.
    conflict: bool,
    /// It takes no write of the `ConfigMap`.
    is_deaf: bool,
}

impl Server {
    fn answer(&mut self, method: &http::Method, path: &str, body: &[u8]) -> http::Response<Body> {
        let is_secret = path.contains("/secrets");
        let place = if is_secret { &self.secret } else { &self.map };
        if method == http::Method::GET {
            return place.as_ref().map_or_else(|| refused(404, "NotFound"), |found| answer(200, found));
        }
        if self.is_deaf && !is_secret {
            return refused(500, "InternalError");
        }
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let known = place.as_ref().map(|found| found["metadata"]["resourceVersion"].clone());
        let read = &object["metadata"]["resourceVersion"];
        let is_old = known.is_some_and(|known| !read.is_null() && known != *read);
        if std::mem::take(&mut self.conflict) || is_old {
            return refused(409, "Conflict");
        }
        self.version += 1;
        self.writes += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if is_secret {
            let issued = self.secret.as_ref().map(|secret| secret["data"]["tls.crt"].clone());
            self.secret = Some(object.clone());
            assert!(
                issued.is_none_or(|issued| issued == object["data"]["tls.crt"]) || self.publishes_what_issues(),
                "what issues now is not published"
            );
        } else {
            self.map = Some(object.clone());
            assert!(self.publishes_what_issues(), "what issues is published no longer");
        }
        answer(200, &object)
    }

    fn publishes_what_issues(&self) -> bool {
        let secret: Secret = serde_json::from_value(self.secret.clone().unwrap()).unwrap();
        let issues = String::from_utf8(secret.data.unwrap()["tls.crt"].0.clone()).unwrap();
        self.map.as_ref().is_some_and(|map| map["data"][FILE].as_str().unwrap().contains(issues.trim()))
    }

    fn ask(&mut self, value: &str) {
        self.version += 1;
        let secret = self.secret.as_mut().unwrap();
        secret["metadata"]["annotations"] = json!({ASKED: value});
        secret["metadata"]["resourceVersion"] = json!(self.version.to_string());
    }

    fn asked(&self) -> Option<&str> {
        self.secret.as_ref()?["metadata"]["annotations"][ASKED].as_str()
    }

    fn keys(&self) -> Vec<String> {
        self.secret.as_ref().unwrap()["data"].as_object().unwrap().keys().cloned().collect()
    }

    fn published(&self) -> String {
        self.map.as_ref().unwrap()["data"][FILE].as_str().unwrap().to_owned()
    }
}

/// The time of who connects.
#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.as_second().try_into().unwrap())))
    }
}

/// Brings what one has to say to the other; returns whether it is content with it.
fn carry(from: &mut Connection, to: &mut Connection) -> bool {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = &wire[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
    }
    to.process_new_packets().is_ok()
}

/// Shakes hands in memory at that time, as who trusts these authorities; returns whether both are content.
fn shake(trusted: &str, server: Arc<ServerConfig>, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    CertificateDer::pem_slice_iter(trusted.as_bytes()).for_each(|root| roots.add(root.unwrap()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(At(now)));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = Arc::new(config.with_no_client_auth());
    let mut client = Connection::from(ClientConnection::new(config, NAMES[0].try_into().unwrap()).unwrap());
    let mut server = Connection::from(ServerConnection::new(server).unwrap());
    (0..5).all(|_| carry(&mut client, &mut server) && carry(&mut server, &mut client))
        && !client.is_handshaking()
        && !server.is_handshaking()
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let server = server.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let server = server.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let answer = server.lock().unwrap().answer(&head.method, head.uri.path(), &body);
            Ok::<_, tower::BoxError>(answer)
        }
    });
    Client::new(service, "own")
}

/// A replica, and what it saw while it led.
struct Replica {
    keeper: Keeper,
    client: Client,
    seen: Seen,
    epoch: Leading,
}

/// An agent by what it trusts: what it was told, and what is mounted.
#[derive(Default)]
struct Agent {
    told: Authorities,
    mounted: String,
}

struct World {
    server: Arc<Mutex<Server>>,
    clock: Clock,
    replicas: [Replica; 2],
    agents: BTreeMap<&'static str, Agent>,
    epoch: u64,
    tickets: String,
}

impl World {
    async fn new(agents: &[&'static str]) -> Self {
        let (server, clock) = (Arc::<Mutex<Server>>::default(), Clock::manual(BEGIN * 1_000_000_000));
        let client = client(&server);
        let found = find(&client, "own", certificates::now(&clock)).await.unwrap();
        let mut replicas = Vec::new();
        for _ in 0..2 {
            replicas.push(Self::replica(&server, &clock).await);
        }
        let agents = agents.iter().map(|name| (*name, Agent::default())).collect();
        let tickets = found.tickets.of("n", "o");
        let replicas = replicas.try_into().ok().unwrap();
        let mut world = Self { server, clock, replicas, agents, epoch: 1, tickets };
        world.lead(0);
        world
    }

    /// Starts one, as the process does.
    async fn replica(server: &Arc<Mutex<Server>>, clock: &Clock) -> Replica {
        let client = client(server);
        let found = find(&client, "own", certificates::now(clock)).await.unwrap();
        let certificates =
            Certificates::new(found.authority, NAMES.map(str::to_owned).to_vec(), clock.clone()).unwrap();
        let keeper = Keeper {
            namespace: "own".to_owned(),
            again: Duration::from_secs(30),
            certificates: Arc::new(certificates),
            hub: Arc::default(),
            stats: Stats::default(),
            clock: clock.clone(),
        };
        Replica { keeper, client, seen: None, epoch: None }
    }

    /// Has a replica lead, and no other; nobody has asked it yet.
    fn lead(&mut self, index: usize) {
        self.epoch += 1;
        for replica in &mut self.replicas {
            replica.keeper.hub.follow();
            (replica.epoch, replica.seen) = (None, None);
        }
        let replica = &mut self.replicas[index];
        replica.epoch = Some(self.epoch);
        replica.keeper.hub.lead(self.epoch);
        let slice = Arc::new(Slice::default());
        let slices = self.agents.keys().map(|name| ((*name).into(), slice.clone())).collect();
        let agents = self.agents.keys().map(|name| ((*name).into(), (*name).into())).collect();
        replica.keeper.hub.publish(slices, agents);
    }

    fn now(&self) -> Timestamp {
        certificates::now(&self.clock)
    }

    /// Goes there, where every replica renews its leaf, as it does every [`RENEW_EVERY`].
    fn go_to(&self, at: Timestamp) {
        self.clock.set(i64::try_from(at.as_nanosecond()).unwrap());
        self.replicas.iter().for_each(|replica| replica.keeper.certificates.renew().unwrap());
    }

    fn pass(&self, time: Duration) {
        self.go_to(self.now().checked_add(time).unwrap());
    }

    /// Lets a replica look until it changes nothing more; returns what it changed.
    async fn look(&mut self, index: usize) -> Vec<&'static str> {
        let mut changes = Vec::new();
        let Replica { keeper, client, seen, epoch } = &mut self.replicas[index];
        while let Some(change) = keeper.look(client, *epoch, seen).await.unwrap() {
            changes.push(change.name());
        }
        changes
    }

    /// Has those agents ask the leader twice: what they are told, they acknowledge.
    async fn hear(&mut self, names: &[&str]) {
        let hub = self.replicas.iter().find(|replica| replica.epoch.is_some()).unwrap().keeper.hub.clone();
        let now = self.now();
        for name in names {
            let agent = self.agents.get_mut(*name).unwrap();
            for _ in 0..2 {
                let ask = Ask { authorities: Some(agent.told.hash.clone()), ..Ask::default() };
                hub.acknowledge(name, &ask, now).unwrap();
                if let Some(told) = hub.wait_for_news(name, &ask).await.unwrap().to_answer().authorities {
                    agent.told = told;
                }
            }
        }
    }

    /// Has a kubelet bring the `ConfigMap` to an agent.
    fn mount(&mut self, name: &str) {
        let mounted = self.server.lock().unwrap().published();
        self.agents.get_mut(name).unwrap().mounted = mounted;
    }

    /// Shakes hands with a replica, as an agent does.
    fn connects(&self, name: &str, index: usize) -> bool {
        let Agent { told, mounted } = &self.agents[name];
        let seconds = u64::try_from(self.now().as_second()).unwrap();
        let told = told.certificates.iter().filter(|one| seconds < one.until_unix_seconds);
        let trusted = told.map(|one| one.pem.as_str()).collect::<String>() + mounted;
        shake(&trusted, self.replicas[index].keeper.certificates.tls().get_inner(), self.now())
    }

    fn ends(&self) -> Timestamp {
        self.replicas[0].keeper.certificates.authority().expires()
    }

    fn issuer(&self, index: usize) -> String {
        self.replicas[index].keeper.certificates.authority().certificate_pem().to_owned()
    }

    fn tickets_are_as_before(&self) -> bool {
        let secret = serde_json::from_value(self.server.lock().unwrap().secret.clone().unwrap()).unwrap();
        let stored = stored(&secret);
        stored.tickets(&stored.current(self.now()).unwrap()).of("n", "o") == self.tickets
    }
}

fn before(at: Timestamp, time: Duration) -> Timestamp {
    at.checked_sub(time).unwrap()
}

#[tokio::test]
async fn an_authority_is_made_told_used_and_the_one_before_dropped() {
    let mut world = World::new(&["a", "b"]).await;
    let (first, end) = (world.issuer(0), world.ends());
    world.go_to(before(end, MADE_BEFORE + DAY));
    assert!(world.look(0).await.is_empty());
    let writes = world.server.lock().unwrap().writes;
    world.go_to(before(end, MADE_BEFORE));
    assert!(world.look(1).await.is_empty(), "who follows makes nothing");
    assert_eq!(world.look(0).await, ["made"]);
    assert_eq!(world.server.lock().unwrap().published().matches("BEGIN CERTIFICATE").count(), 2);
    world.hear(&["a", "b"]).await;
    assert_eq!(world.agents["a"].told.certificates.len(), 2);
    world.go_to(before(end, USED_BEFORE + DAY));
    world.hear(&["a", "b"]).await;
    assert!(world.look(0).await.is_empty(), "whoever has a copy of the list is given the time");
    assert_eq!(world.server.lock().unwrap().writes, writes + 2);
    world.go_to(before(end, USED_BEFORE));
    world.hear(&["a", "b"]).await;
    let told = world.agents["a"].told.clone();
    assert_eq!(world.look(0).await, ["used"]);
    assert_eq!(world.server.lock().unwrap().writes, writes + 3, "what is published stays as it is");
    assert_ne!(world.issuer(0), first);
    assert_eq!(world.issuer(1), first, "who follows did not look yet");
    world.look(1).await;
    assert_eq!(world.issuer(1), world.issuer(0));
    world.hear(&["a", "b"]).await;
    assert_eq!(world.agents["a"].told, told, "and agents are not asked anew");
    assert!(["a", "b"].iter().all(|name| world.connects(name, 0) && world.connects(name, 1)));
    assert_eq!(
        world.server.lock().unwrap().keys(),
        ["previous.crt", "previous.until", "tickets.key", "tls.crt", "tls.key"]
    );
    world.go_to(end);
    assert_eq!(world.look(0).await, ["dropped"]);
    world.hear(&["a"]).await;
    assert_eq!(world.agents["a"].told.certificates.len(), 1);
    assert!(!world.server.lock().unwrap().published().contains(first.trim()));
    assert!(world.connects("a", 0) && world.tickets_are_as_before());
}

#[tokio::test]
async fn a_leader_that_is_new_at_any_step_goes_on_and_no_handshake_fails() {
    let mut world = World::new(&["a"]).await;
    let end = world.ends();
    let (mut leader, mut changes) = (0, Vec::new());
    world.hear(&["a"]).await;
    world.mount("a");
    world.go_to(before(end, MADE_BEFORE));
    // Each change by another leader, which had not looked for all that time.
    while changes.last() != Some(&"dropped") {
        leader = 1 - leader;
        world.lead(leader);
        let Replica { keeper, client, seen, epoch } = &mut world.replicas[leader];
        if let Some(change) = keeper.look(client, *epoch, seen).await.unwrap() {
            changes.push(change.name());
            // It goes before it tells anybody.
            continue;
        }
        world.hear(&["a"]).await;
        assert!(world.connects("a", 0) && world.connects("a", 1), "{changes:?}");
        world.pass(MOUNTED);
        let Replica { keeper, client, seen, epoch } = &mut world.replicas[leader];
        if let Some(change) = keeper.look(client, *epoch, seen).await.unwrap() {
            changes.push(change.name());
        }
        world.pass(DAY);
    }
    assert_eq!(changes, ["made", "used", "dropped"]);
}

#[tokio::test]
async fn a_leader_of_yesterday_that_has_not_looked_tells_nobody_anything() {
    let mut world = World::new(&["a"]).await;
    let end = world.ends();
    world.look(0).await;
    world.go_to(before(end, MADE_BEFORE));
    world.lead(1);
    assert_eq!(world.look(1).await, ["made"]);
    world.hear(&["a"]).await;
    world.lead(0);
    let ask =
        Ask { authorities: Some(world.agents["a"].told.hash.clone()), pods: Some(String::new()), ..Ask::default() };
    let hub = world.replicas[0].keeper.hub.clone();
    let answer = hub.wait_for_news("a", &ask).await.unwrap().to_answer();
    assert_eq!(answer.authorities, None, "it knows of no successor yet");
    // A telling that was under way when it led before counts no longer.
    let old = world.replicas[0].keeper.certificates.trusted();
    hub.tell(world.epoch - 2, &old);
    assert_eq!(hub.wait_for_news("a", &ask).await.unwrap().to_answer().authorities, None);
}

#[tokio::test]
async fn an_agent_that_was_away_all_the_time_finds_its_way_by_what_is_mounted() {
    let mut world = World::new(&["a", "away"]).await;
    let end = world.ends();
    world.look(0).await;
    world.hear(&["a", "away"]).await;
    world.mount("away");
    world.go_to(before(end, MADE_BEFORE));
    assert_eq!(world.look(0).await, ["made"]);
    world.go_to(before(end, USED_BEFORE));
    world.lead(0);
    world.hear(&["a"]).await;
    assert!(world.look(0).await.is_empty(), "a new leader has not heard of everybody yet");
    world.hear(&["a"]).await;
    assert!(world.look(0).await.is_empty());
    world.pass(PATIENCE);
    world.hear(&["a"]).await;
    assert_eq!(world.look(0).await, ["used"]);
    assert!(!world.connects("away", 0), "its node is off, and nothing is mounted");
    world.mount("away");
    assert!(world.connects("away", 0));
    world.hear(&["away"]).await;
    assert_eq!(world.agents["away"].told, world.agents["a"].told);
}

#[tokio::test]
async fn an_agent_that_does_not_understand_is_waited_for_until_the_latest_moment() {
    let mut world = World::new(&["a"]).await;
    let end = world.ends();
    let older = |world: &World| {
        let ask = Ask { pods: Some(String::new()), ..Ask::default() };
        world.replicas[0].keeper.hub.acknowledge("a", &ask, world.now()).unwrap();
    };
    world.go_to(before(end, MADE_BEFORE));
    assert_eq!(world.look(0).await, ["made"]);
    world.go_to(before(end, USED_AT_LATEST + Duration::from_secs(1)));
    older(&world);
    assert!(world.look(0).await.is_empty());
    world.mount("a");
    world.pass(Duration::from_secs(1));
    older(&world);
    assert_eq!(world.look(0).await, ["used"]);
    assert!(world.connects("a", 0));
}

#[tokio::test]
async fn what_is_asked_by_hand_is_a_new_one_and_comes_once_it_is_mounted() {
    let mut world = World::new(&["a", "off"]).await;
    let (first, end) = (world.issuer(0), world.ends());
    world.go_to(before(end, MADE_BEFORE));
    assert_eq!(world.look(0).await, ["made"]);
    let stolen = world.server.lock().unwrap().secret.clone().unwrap()["data"]["next.crt"].clone();
    world.server.lock().unwrap().ask("now");
    assert_eq!(world.look(0).await, ["made"], "whoever read the key read that of its successor");
    assert_eq!(world.server.lock().unwrap().asked(), Some(UNDER_WAY));
    world.hear(&["a"]).await;
    assert!(world.look(0).await.is_empty(), "an agent is live and was not heard");
    world.hear(&["off"]).await;
    assert!(world.look(0).await.is_empty(), "it is not mounted everywhere yet");
    world.pass(MOUNTED);
    world.hear(&["a", "off"]).await;
    assert_eq!(world.look(0).await, ["used"]);
    assert_eq!(world.server.lock().unwrap().asked(), None);
    assert_ne!(world.server.lock().unwrap().secret.clone().unwrap()["data"]["tls.crt"], stolen);
    let until = |world: &World| world.agents["a"].told.certificates[0].until_unix_seconds;
    world.hear(&["a"]).await;
    let hour = world.now().as_second() + i64::try_from(KEPT_WHEN_ASKED.as_secs()).unwrap();
    assert_eq!(
        until(&world),
        u64::try_from(hour).unwrap(),
        "also who is away from now on does not trust it for longer"
    );
    world.pass(KEPT_WHEN_ASKED);
    assert_eq!(world.look(0).await, ["dropped"]);
    assert!(!world.server.lock().unwrap().published().contains(first.trim()));
    // Where somebody does not answer it is ten minutes.
    world.server.lock().unwrap().ask("again");
    assert_eq!(world.look(0).await, ["made"]);
    world.pass(PATIENCE.checked_sub(Duration::from_secs(1)).unwrap());
    assert!(world.look(0).await.is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(world.look(0).await, ["used"]);
    assert!(world.tickets_are_as_before());
}

#[tokio::test]
async fn what_is_not_published_is_not_told_and_not_used() {
    let mut world = World::new(&["a"]).await;
    let first = world.issuer(0);
    world.server.lock().unwrap().ask("now");
    world.server.lock().unwrap().is_deaf = true;
    let Replica { keeper, client, seen, epoch } = &mut world.replicas[0];
    assert!(matches!(keeper.look(client, *epoch, seen).await, Ok(Some(Change::Made))));
    for _ in 0..3 {
        let Replica { keeper, client, seen, epoch } = &mut world.replicas[0];
        assert!(matches!(keeper.look(client, *epoch, seen).await, Err(AuthorityError::Ask(_))));
        world.hear(&["a"]).await;
        world.pass(PATIENCE);
    }
    assert_eq!((world.issuer(0), world.agents["a"].told.certificates.len()), (first.clone(), 1));
    world.server.lock().unwrap().is_deaf = false;
    assert!(world.look(0).await.is_empty());
    world.pass(MOUNTED);
    world.hear(&["a"]).await;
    assert_eq!(world.look(0).await, ["used"]);
    assert_ne!(world.issuer(0), first);
}

#[tokio::test]
async fn of_two_that_lead_for_a_moment_one_changes_nothing() {
    let mut world = World::new(&["a"]).await;
    let end = world.ends();
    world.go_to(before(end, MADE_BEFORE));
    world.server.lock().unwrap().conflict = true;
    assert!(world.look(0).await.is_empty(), "another was faster");
    assert_eq!(world.look(0).await, ["made"]);
    // One that read the list before the successor was in it does not write it over.
    let (client, old) = (client(&world.server), world.replicas[1].keeper.certificates.trusted());
    let mut read_before: ConfigMap = serde_json::from_value(world.server.lock().unwrap().map.clone().unwrap()).unwrap();
    read_before.metadata.resource_version = Some("1".to_owned());
    let written = publish(&client, "own", Some(&read_before), &old).await;
    assert!(matches!(written, Err(kube::Error::Api(status)) if status.code == 409));
    // And one that starts leaves it alone.
    let writes = world.server.lock().unwrap().writes;
    World::replica(&world.server, &world.clock).await;
    assert_eq!(world.server.lock().unwrap().writes, writes);
}

#[tokio::test]
async fn who_follows_issues_from_nothing_that_is_not_published() {
    let mut world = World::new(&["a"]).await;
    let first = world.issuer(1);
    world.server.lock().unwrap().ask("now");
    assert_eq!(world.look(0).await, ["made"]);
    world.look(0).await;
    world.pass(MOUNTED);
    world.hear(&["a"]).await;
    assert_eq!(world.look(0).await, ["used"]);
    let published = world.server.lock().unwrap().map.clone();
    world.server.lock().unwrap().map.as_mut().unwrap()["data"][FILE] = json!(first);
    let Replica { keeper, client, seen, epoch } = &mut world.replicas[1];
    assert!(matches!(keeper.look(client, *epoch, seen).await, Err(AuthorityError::Unpublished)));
    assert_eq!(world.issuer(1), first);
    world.server.lock().unwrap().map = published;
    world.look(1).await;
    assert_eq!(world.issuer(1), world.issuer(0));
}

#[tokio::test]
async fn the_certificate_of_another_process_changes_its_issuer_with_the_authority() {
    let mut world = World::new(&["a"]).await;
    let names = NAMES.map(str::to_owned);
    let leaf: LeafPem = world.replicas[0].keeper.certificates.authority().issue_pem(&names, world.now()).unwrap();
    world.server.lock().unwrap().ask("now");
    assert_eq!(world.look(0).await, ["made"]);
    let certificates = world.replicas[0].keeper.certificates.clone();
    assert!(certificates.authority().is_of_use(&leaf, &names, world.now()), "not before it is used");
    assert_eq!(certificates.trusted().certificates.len(), 2, "both are trusted before");
    world.look(0).await;
    world.pass(MOUNTED);
    world.hear(&["a"]).await;
    assert_eq!(world.look(0).await, ["used"]);
    assert!(!certificates.authority().is_of_use(&leaf, &names, world.now()));
    assert_eq!(certificates.trusted().certificates.len(), 2);
}

#[tokio::test]
async fn certificates_really_end_and_no_handshake_fails_in_thirty_years() {
    let mut world = World::new(&["told", "mounted"]).await;
    let (names, begin) = (NAMES.map(str::to_owned), world.now());
    let (mut changes, mut handshakes, mut leaves) = (Vec::new(), 0, 0);
    let mut webhook = LeafPem { certificate: String::new(), key: String::new() };
    world.look(0).await;
    world.hear(&["told"]).await;
    world.mount("mounted");
    let first = world.replicas[0].keeper.certificates.tls().get_inner();
    let of_first = world.agents["told"].told.certificates[0].pem.clone();
    // A leaf that is shown for longer than it is valid is refused: time counts here.
    assert!(shake(&of_first, first.clone(), begin));
    assert!(!shake(&of_first, first, begin.checked_add(LEAF_VALID + DAY).unwrap()));
    while world.now() < begin.checked_add(DAY * 365 * 30).unwrap() {
        world.pass(RENEW_EVERY * 19);
        for index in [0, 1] {
            changes.extend(world.look(index).await);
        }
        world.hear(&["told"]).await;
        world.mount("mounted");
        let certificates = &world.replicas[0].keeper.certificates;
        if !certificates.authority().is_of_use(&webhook, &names, world.now()) {
            webhook = certificates.authority().issue_pem(&names, world.now()).unwrap();
            leaves += 1;
        }
        let (chain, key) = read_pair(&webhook.certificate, &webhook.key).unwrap();
        let of_webhook = Arc::new(server_config(chain, key).unwrap());
        assert!(shake(&world.server.lock().unwrap().published(), of_webhook, world.now()), "the webhook");
        for (name, index) in [("told", 0), ("told", 1), ("mounted", 0), ("mounted", 1)] {
            assert!(world.connects(name, index), "{name} at {index} on {}, after {changes:?}", world.now());
            handshakes += 1;
        }
    }
    assert_eq!(changes, ["made", "used", "dropped"].repeat(3));
    assert!(handshakes > 4000 && leaves > 300, "{handshakes} {leaves}");
}

#[test]
fn a_secret_of_ours_shows_no_key() {
    let made = Authority::generate(Timestamp::constant(BEGIN, 0)).unwrap();
    let shown = format!("{:?}", Stored::first(&made));
    assert!(shown.contains("tls.key") && !shown.contains(made.key_pem().lines().nth(1).unwrap()), "{shown}");
}
