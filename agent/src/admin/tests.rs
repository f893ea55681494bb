use std::net::SocketAddr;
use std::time::Duration;

use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{Engine, EngineSettings};
use spillway_delivery::filesystem::RealFs;
use spillway_delivery::supervisor::Supervisor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::sources::pushed::security::{ListenerSecurity, TlsFiles};
use crate::status::{Phase, StatusReport};

struct Endpoint {
    address: SocketAddr,
    overview: Arc<Overview>,
    owner: Supervisor,
    _data: tempfile::TempDir,
}

impl Endpoint {
    async fn start(token: Option<&str>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_763_892_252_000_000_000);
        let settings = EngineSettings {
            data_dir: data.path().join("data"),
            filesystem: Arc::new(RealFs),
            clock: clock.clone(),
            free_bytes_min: 0,
        };
        let overview = Arc::new(Overview::new(Arc::new(Engine::open(settings).unwrap()), clock));
        let local = "127.0.0.1:0".parse().unwrap();
        let token = token.map(|token| {
            let path = data.path().join("token");
            std::fs::write(&path, token).unwrap();
            path
        });
        let security = ListenerSecurity::check(local, &TlsFiles::default(), token.as_deref()).unwrap();
        let owner = Supervisor::new("admin");
        let address = serve(local, security, overview.clone(), &owner).await.unwrap();
        Self { address, overview, owner, _data: data }
    }

    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn readiness_follows_the_phase() {
    let endpoint = Endpoint::start(None).await;
    for (phase, status) in [(Phase::Starting, "503"), (Phase::Running, "200"), (Phase::Draining, "503")] {
        endpoint.overview.enter(phase);
        let answer = endpoint.get("/readyz").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(body(&answer).starts_with("{\"ready\":"), "{answer}");
    }
    assert!(endpoint.get("/livez").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn metrics_are_openmetrics_and_status_is_its_report() {
    let endpoint = Endpoint::start(None).await;
    let metrics = endpoint.get("/metrics").await;
    assert!(
        metrics.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"));
    let status = endpoint.get("/v1/status").await;
    let report: StatusReport = serde_json::from_str(body(&status)).unwrap();
    assert_eq!(report.phase, Phase::Starting);
}

#[tokio::test]
async fn nothing_can_be_changed_and_unknown_paths_name_the_known_ones() {
    let endpoint = Endpoint::start(None).await;
    let posted = endpoint.ask("POST /v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
    let unknown = endpoint.get("/admin").await;
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("/v1/status"), "{unknown}");
}

#[tokio::test]
async fn a_token_is_wanted_on_every_path_where_there_is_one() {
    let token = "0123456789abcdef0123";
    let endpoint = Endpoint::start(Some(token)).await;
    for path in ["/livez", "/readyz", "/metrics", "/v1/status", "/none"] {
        assert!(endpoint.get(path).await.starts_with("HTTP/1.1 401 "), "{path}");
    }
    let request = |token: &str| format!("GET /livez HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    assert!(endpoint.ask(&request(token)).await.starts_with("HTTP/1.1 200 "));
    assert!(endpoint.ask(&request("0123456789abcdef0124")).await.starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn payload_data_is_for_programs_of_this_machine_that_ask_in_json() {
    let endpoint = Endpoint::start(None).await;
    let ask = async |path: &str, host: &str, media_type: &str, body: &str| {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{media_type}\r\n");
        endpoint.ask(&(head + body)).await
    };
    let json = "content-type: application/json\r\n";
    for path in ["/v1/dead-letters/list", "/v1/dead-letters/redrive", "/v1/replay", "/v1/jobs/cancel"] {
        for host in ["evil.example.test:8412", "x"] {
            assert!(ask(path, host, json, "{}").await.starts_with("HTTP/1.1 403 "), "{path} {host}");
        }
        for media_type in ["", "content-type: text/plain\r\n"] {
            assert!(ask(path, "127.0.0.1:8412", media_type, "{}").await.starts_with("HTTP/1.1 415 "), "{path}");
        }
        let answer = ask(path, "localhost:8412", json, "{\"nonsense\": 1}").await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("not-understood"), "{answer}");
    }
    let listed = ask("/v1/dead-letters/list", "127.0.0.1:8412", json, "{}").await;
    assert!(listed.starts_with("HTTP/1.1 200 ") && body(&listed) == "[]\n", "{listed}");
    let unknown = ask("/v1/dead-letters/list", "[::1]:8412", json, "{\"pipeline\": \"a/b\"}").await;
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.contains("no pipeline a/b runs here"), "{unknown}");
    let nobody = ask("/v1/jobs/cancel", "127.0.0.1:8412", json, "{\"id\": \"3f21a9c0\"}").await;
    assert!(nobody.starts_with("HTTP/1.1 404 "), "{nobody}");
}

#[tokio::test]
async fn probes_and_figures_alone_are_served_to_everybody() {
    let mut endpoint = Endpoint::start(Some("0123456789abcdef0123")).await;
    let local = "127.0.0.1:0".parse().unwrap();
    endpoint.address = serve_figures(local, endpoint.overview.clone(), &endpoint.owner).await.unwrap();
    endpoint.overview.enter(Phase::Running);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert!(endpoint.get(path).await.starts_with("HTTP/1.1 200 "), "{path}");
    }
    for path in ["/v1/status", "/v1/dead-letters/list", "/v1/replay", "/"] {
        assert!(endpoint.get(path).await.starts_with("HTTP/1.1 404 "), "{path}");
    }
    let posted = endpoint.ask("POST /v1/jobs/cancel HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(posted.starts_with("HTTP/1.1 404 "), "{posted}");
}

#[tokio::test]
async fn the_endpoint_ends_with_its_owner() {
    let endpoint = Endpoint::start(None).await;
    assert!(endpoint.owner.stop(Instant::now() + Duration::from_secs(5)).await);
    assert!(TcpStream::connect(endpoint.address).await.is_err());
}
