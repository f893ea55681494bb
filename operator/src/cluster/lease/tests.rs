//! Replicas over one Lease. The API server is hand-made here, so that it can stop answering in the middle: it knows one Lease,
//! counts its versions, and refuses what was read too long ago. Time is tokio's and stands still unless all wait.

use std::sync::{Arc, Mutex};

use futures_util::future::select_all;
use kube::client::Body;
use serde_json::{Value, json};
use spillway_delivery::supervisor::Supervisor;

use super::*;
use crate::cluster::hand_made::{answer, refused};

/// Seconds since 1970 at which these tests begin.
const BEGIN: i64 = 1_800_000_000;

/// What the API server holds, and how it behaves.
#[derive(Debug, Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    writes: u64,
}

/// One replica's way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Requests never arrive.
    Cut,
    /// Writes arrive, and their answers do not.
    Deaf,
}

struct Replica {
    leading: watch::Receiver<Leading>,
    leader: watch::Receiver<Option<SocketAddr>>,
    way: Arc<Mutex<Way>>,
    raise: watch::Sender<u64>,
    owner: Supervisor,
}

impl Server {
    fn answer(&mut self, method: &http::Method, body: &[u8]) -> http::Response<Body> {
        if method == http::Method::GET {
            return self.lease.as_ref().map_or_else(|| refused(404, "NotFound"), |lease| answer(200, lease));
        }
        let mut lease: Value = serde_json::from_slice(body).unwrap();
        let known = self.lease.as_ref().map(|lease| &lease["metadata"]["resourceVersion"]);
        match (method == http::Method::POST, known) {
            (true, Some(_)) => return refused(409, "AlreadyExists"),
            (false, None) => return refused(404, "NotFound"),
            (false, Some(version)) if *version != lease["metadata"]["resourceVersion"] => {
                return refused(409, "Conflict");
            }
            _ => {}
        }
        self.version += 1;
        self.writes += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        answer(200, &lease)
    }
}

/// Starts a replica whose wall clock is so many seconds ahead.
fn start(server: &Arc<Mutex<Server>>, identity: &str, ahead: i64) -> Replica {
    let way = Arc::new(Mutex::new(Way::Open));
    let (of_service, server) = (way.clone(), server.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (way, server) = (*of_service.lock().unwrap(), server.clone());
        async move {
            if way == Way::Cut {
                return std::future::pending().await;
            }
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let answer = server.lock().unwrap().answer(&head.method, &body);
            if way == Way::Deaf {
                return std::future::pending().await;
            }
            Ok::<_, tower::BoxError>(answer)
        }
    });
    let clock = Clock::manual((BEGIN + ahead) * 1_000_000_000);
    let member = Member { identity: identity.to_owned(), address: Some(address_of(identity)) };
    let (lead, leading) = Lead::new(Client::new(service, "own"), ("own", "spillway-controller"), member, clock);
    let leader = lead.leader();
    let (raise, raises) = watch::channel(0);
    let owner = Supervisor::new(identity);
    owner.spawn("lease", lead.run(raises, owner.stopping()));
    Replica { leading, leader, way, raise, owner }
}

/// Returns the address of a replica, after the first letter of its name.
fn address_of(identity: &str) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, identity.as_bytes()[0]], 8443))
}

impl Replica {
    fn leads(&self) -> Leading {
        *self.leading.borrow()
    }

    fn go(&self, way: Way) {
        *self.way.lock().unwrap() = way;
    }

    /// Waits until it leads; returns the epoch, and how long that took.
    async fn wait(&mut self) -> (u64, Duration) {
        let begun = Instant::now();
        let led = tokio::time::timeout(Duration::from_secs(600), self.leading.wait_for(Option::is_some)).await;
        let epoch = led.expect("it leads some day").unwrap().unwrap();
        (epoch, begun.elapsed())
    }
}

/// Lets time pass; whenever anybody begins or ends to lead, no other does.
async fn pass(replicas: &[&Replica], time: Duration) {
    let end = Instant::now() + time;
    let mut seen: Vec<_> = replicas.iter().map(|replica| replica.leading.clone()).collect();
    loop {
        let leading = replicas.iter().filter(|replica| replica.leads().is_some()).count();
        assert!(leading <= 1, "two lead");
        seen.retain(|leading| leading.has_changed().is_ok());
        let changes = async {
            match seen.as_mut_slice() {
                [] => std::future::pending().await,
                seen => drop(select_all(seen.iter_mut().map(|leading| Box::pin(leading.changed()))).await),
            }
        };
        if timeout_at(end, changes).await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_renews_and_nobody_else_writes() {
    let server = Arc::default();
    let mut first = start(&server, "first", 0);
    assert_eq!(first.wait().await.0, BEGIN as u64);
    let second = start(&server, "second", 0);
    pass(&[&first, &second], Duration::from_secs(60)).await;
    assert_eq!((first.leads(), second.leads()), (Some(BEGIN as u64), None));
    let told = [&first, &second].map(|replica| *replica.leader.borrow());
    assert_eq!(told, [None, Some(address_of("first"))], "who follows knows where who leads is asked");
    let writes = server.lock().unwrap().writes;
    assert!((30..=32).contains(&writes), "once every two seconds: {writes}");
}

#[tokio::test(start_paused = true)]
async fn one_that_vanishes_is_followed_within_the_time_of_the_lease_and_with_a_later_epoch() {
    let server = Arc::default();
    let mut first = start(&server, "first", 0);
    let (epoch, _) = first.wait().await;
    let mut second = start(&server, "second", 0);
    pass(&[&first, &second], Duration::from_secs(5)).await;
    first.go(Way::Cut);
    let (later, took) = second.wait().await;
    assert!(later > epoch && took <= LEASE + RETRY + RETRY, "{took:?}");
    assert_eq!(first.leads(), None, "it knew before");
    assert_eq!(*second.leader.borrow(), None, "nobody is led to one that is gone");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cut_off_stops_leading_by_itself_before_another_may() {
    let server = Arc::default();
    let mut first = start(&server, "first", 0);
    first.wait().await;
    for way in [Way::Cut, Way::Deaf] {
        let second = start(&server, "second", 0);
        first.wait().await;
        first.go(way);
        let begun = Instant::now();
        first.leading.wait_for(Option::is_none).await.unwrap();
        assert!(begun.elapsed() <= RENEW_WITHIN, "{:?}", begun.elapsed());
        assert_eq!(second.leads(), None);
        pass(&[&first, &second], LEASE * 3).await;
        assert!(second.leads().is_some());
        first.go(Way::Open);
        pass(&[&first, &second], LEASE).await;
        assert_eq!(first.leads(), None, "it does not take it back");
        second.owner.stop(Instant::now() + LEASE).await;
        let (epoch, took) = first.wait().await;
        assert!(took <= RETRY * 2 && epoch > BEGIN as u64, "given back: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clocks_that_are_years_apart_take_no_lease_that_is_kept() {
    let server = Arc::default();
    let mut first = start(&server, "first", 0);
    first.wait().await;
    let (ahead, behind) = (start(&server, "ahead", 100_000_000), start(&server, "behind", -100_000_000));
    pass(&[&first, &ahead, &behind], LEASE * 5).await;
    assert!(first.leads().is_some());
    first.go(Way::Cut);
    pass(&[&first, &ahead, &behind], LEASE * 2).await;
    let [ahead, behind] = [ahead.leads(), behind.leads()];
    let epoch = ahead.or(behind).expect("one of them leads");
    assert!(epoch > BEGIN as u64, "also where its clock is behind: {epoch}");
}

#[tokio::test(start_paused = true)]
async fn of_many_that_start_at_once_one_leads() {
    let server = Arc::default();
    let names = ["a", "b", "c", "d", "e"];
    let replicas: Vec<Replica> = names.iter().map(|name| start(&server, name, 0)).collect();
    let all: Vec<&Replica> = replicas.iter().collect();
    pass(&all, LEASE).await;
    assert_eq!(replicas.iter().filter(|replica| replica.leads().is_some()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_deleted_is_made_anew_with_an_epoch_of_today() {
    let server: Arc<Mutex<Server>> = Arc::default();
    let mut first = start(&server, "first", 0);
    first.wait().await;
    server.lock().unwrap().lease = None;
    pass(&[&first], LEASE * 2).await;
    assert!(first.leads() >= Some(BEGIN as u64));
    assert!(server.lock().unwrap().lease.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_epoch_that_agents_know_is_written_into_the_lease() {
    let server: Arc<Mutex<Server>> = Arc::default();
    let mut first = start(&server, "first", 0);
    let (epoch, _) = first.wait().await;
    first.raise.send_replace(epoch + 7);
    pass(&[&first], RETRY * 2).await;
    assert_eq!(first.leads(), Some(epoch + 7));
    let lease = server.lock().unwrap().lease.clone().unwrap();
    assert_eq!(lease["metadata"]["annotations"][EPOCH], (epoch + 7).to_string());
}
