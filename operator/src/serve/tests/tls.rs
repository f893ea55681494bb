//! Over real connections.

use std::future::Future;

use super::limits::STOP_GRACE;
use super::*;

use reqwest::Client;
use spillway_delivery::supervisor::Supervisor;
use tokio::time::Instant;

use crate::serve::certificates::{Authority, now};

/// An endpoint on a port of its own.
struct Served {
    hub: Arc<Hub>,
    certificates: Arc<Certificates>,
    stats: Stats,
    owner: Supervisor,
    url: String,
}

impl Served {
    fn new(hub: Arc<Hub>) -> Self {
        let authority = Authority::generate(now(&Clock::system())).unwrap();
        let names = vec!["localhost".to_owned()];
        let certificates = Arc::new(Certificates::new(authority, names, Clock::system()).unwrap());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}{PATH}", socket.local_addr().unwrap().port());
        let (stats, owner) = (Stats::default(), Supervisor::new("test"));
        let endpoint = Endpoint {
            leader: watch::Sender::default().subscribe(),
            hub: hub.clone(),
            verifier: verifier(),
            certificates: certificates.clone(),
            stats: stats.clone(),
            clock: clock(),
        };
        let stop = owner.stopping();
        owner.spawn("endpoint", async move { endpoint.run(socket, stop).await.unwrap() });
        Self { hub, certificates, stats, owner, url }
    }

    /// Returns a client that trusts the authority of now.
    fn client(&self) -> Client {
        self.client_with(|builder| builder)
    }

    fn client_with(&self, with: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Client {
        let pem = self.certificates.authority().certificate_pem().to_owned();
        let trusted = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        let address = "127.0.0.1:0".parse().unwrap();
        let builder = Client::builder().no_proxy().resolve("localhost", address).tls_certs_only([trusted]);
        with(builder).build().unwrap()
    }

    async fn ask(&self, client: &Client, node: &str, ask: &Ask) -> Result<reqwest::Response, reqwest::Error> {
        let body = serde_json::to_vec(ask).unwrap();
        client.post(&self.url).bearer_auth(token(node)).body(body).send().await
    }

    async fn answer(&self, client: &Client, node: &str, ask: &Ask) -> Answer {
        let response = self.ask(client, node, ask).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    async fn stop(&self) -> bool {
        self.owner.stop(Instant::now() + STOP_GRACE * 2).await
    }
}

/// Runs `ask` and, once it has come, `then`.
async fn once_asked<T>(hub: &Hub, ask: impl Future<Output = T>, then: impl Future<Output = ()>) -> T {
    let mut changes = hub.report_changes();
    let then = async {
        changes.changed().await.unwrap();
        then.await;
    };
    tokio::join!(ask, then).0
}

#[tokio::test]
async fn an_agent_is_served_over_either_version_of_http() {
    let served = Served::new(leading(&[("node-a", "a")]));
    let clients = [
        (served.client(), http::Version::HTTP_2),
        (served.client_with(reqwest::ClientBuilder::http1_only), http::Version::HTTP_11),
    ];
    for (number, (client, version)) in clients.into_iter().enumerate() {
        let hash_before = served.hub.reports().len();
        assert_eq!(hash_before, number.min(1));
        let response = served.ask(&client, "node-a", &asking()).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        let answer: Answer = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        let ask = Ask { running: answer.configuration.map(|it| it.version), pods: Some("p".into()), ..asking() };
        let next = format!("next {number}");
        let published = async { publish(&served.hub, &[("node-a", &next)]) };
        let answer = once_asked(&served.hub, served.answer(&client, "node-a", &ask), published).await;
        assert_eq!(hash(&answer), next);
    }
    assert!(served.stop().await);
}

#[tokio::test]
async fn a_certificate_is_swapped_under_a_connection_that_goes_on() {
    let served = Served::new(leading(&[("node-a", "a")]));
    let before = served.client();
    let ask = running("a");
    let swaps = async {
        let next = Authority::generate(now(&Clock::system())).unwrap();
        served.certificates.replace(next).unwrap();
        publish(&served.hub, &[("node-a", "a2")]);
    };
    let answer = once_asked(&served.hub, served.answer(&before, "node-a", &ask), swaps).await;
    assert_eq!(hash(&answer), "a2");
    assert_eq!(hash(&served.answer(&before, "node-a", &asking()).await), "a2", "the connection goes on");
    assert_eq!(served.stats.connections.open.get(), 1);
    assert_eq!(hash(&served.answer(&served.client(), "node-a", &asking()).await), "a2");
    assert!(served.stop().await);
}

#[tokio::test]
async fn a_client_that_trusts_another_authority_and_one_without_tls_get_nothing() {
    let served = Served::new(leading(&[("node-a", "a")]));
    let trusting_the_first = served.client();
    served.certificates.replace(Authority::generate(now(&Clock::system())).unwrap()).unwrap();
    let error = served.ask(&trusting_the_first, "node-a", &asking()).await.unwrap_err();
    assert!(error.is_connect(), "{error}");
    let plain = served.url.replace("https", "http");
    assert!(served.client().post(plain).body("{}").send().await.is_err());
    assert!(served.hub.reports().is_empty());
    assert!(served.stop().await);
}

#[tokio::test]
async fn who_is_sent_away_meets_another_connection_with_the_next_ask() {
    let served = Served::new(Arc::new(Hub::default()));
    let client = served.client_with(reqwest::ClientBuilder::http1_only);
    let response = served.ask(&client, "node-a", &asking()).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(response.headers()["connection"], "close");
    served.hub.lead(7);
    publish(&served.hub, &[("node-a", "a")]);
    assert_eq!(hash(&served.answer(&client, "node-a", &asking()).await), "a");
    let response = client.post(&served.url).bearer_auth("x.y.z").body("{}").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["connection"], "close");
    assert!(served.stop().await);
}

#[tokio::test]
async fn a_connection_of_http_2_that_is_sent_away_is_closed() {
    let served = Served::new(Arc::new(Hub::default()));
    let client = served.client();
    let response = served.ask(&client, "node-a", &asking()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (421, http::Version::HTTP_2));
    drop(response);
    while served.stats.connections.open.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(served.stop().await);
}

#[tokio::test]
async fn the_process_stops_while_agents_wait_and_they_are_told() {
    let served = Served::new(leading(&[("node-a", "a"), ("node-b", "b")]));
    let (h2, h1) = (served.client(), served.client_with(reqwest::ClientBuilder::http1_only));
    let (of_a, of_b) = (running("a"), running("b"));
    let mut changes = served.hub.report_changes();
    let stop = async {
        while served.hub.reports().len() < 2 {
            changes.changed().await.unwrap();
        }
        assert!(served.stop().await);
    };
    let (a, b, ()) = tokio::join!(served.answer(&h2, "node-a", &of_a), served.answer(&h1, "node-b", &of_b), stop);
    assert_eq!((a, b), (Answer::default(), Answer::default()));
    assert!(served.ask(&served.client(), "node-a", &asking()).await.is_err());
}
