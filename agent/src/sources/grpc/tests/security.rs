//! Over real sockets: who may call, and how many.

use std::path::PathBuf;

use rustls::pki_types::ServerName;
use spillway_crds::served::{PodFacts, Pods};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::super::limits::CONNECTIONS_MAX;
use super::*;
use crate::pods::{NodePods, Told};
use crate::sources::testing::{Files, TOKEN};

/// A source that listens at loopback.
struct Listening {
    address: SocketAddr,
    recorder: Recorder,
    supervisor: Supervisor,
    stats: Arc<GrpcStats>,
}

fn context(supervisor: &Supervisor, stats: &Arc<GrpcStats>) -> GrpcContext {
    GrpcContext {
        intake: Intake,
        targets: PushTargets::default(),
        own_pod: None,
        clock: Clock::manual(RECEIVED),
        supervisor: supervisor.clone(),
        stats: stats.clone(),
    }
}

impl Listening {
    async fn start(tls: TlsFiles, token_file: Option<PathBuf>) -> Self {
        let (supervisor, stats) = (Supervisor::new("grpc"), Arc::<GrpcStats>::default());
        let recorder = Recorder::new(&[("default", "jobs")]);
        let settings = GrpcSettings { address: "127.0.0.1:0".parse().unwrap(), tls, token_file };
        let address = start(settings, Box::new(recorder.clone()), context(&supervisor, &stats)).await.unwrap();
        Self { address, recorder, supervisor, stats }
    }
}

#[tokio::test]
async fn beyond_loopback_tls_and_a_token_are_needed() {
    let (supervisor, stats) = (Supervisor::new("grpc"), Arc::default());
    let settings = GrpcSettings { address: "0.0.0.0:0".parse().unwrap(), tls: TlsFiles::default(), token_file: None };
    let error = bind(settings, context(&supervisor, &stats)).await.unwrap_err();
    assert!(matches!(error, BindError::Security(SecurityError::Unprotected { .. })), "{error:?}");
}

#[tokio::test]
async fn a_sender_shows_its_token_over_tls() {
    let files = Files::new();
    let server = Listening::start(files.tls(), Some(files.path("token"))).await;
    let name = ServerName::try_from("localhost").unwrap();
    let stream =
        files.connector(&[b"h2"]).connect(name, TcpStream::connect(server.address).await.unwrap()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = Client::over(stream, &server.supervisor).await;
    let message = framed(0, &logs(&["a"]));
    let bearer = format!("Bearer {TOKEN}");
    for (headers, code) in [
        (&[USUAL[0]][..], 16),
        (&[USUAL[0], ("authorization", "Bearer 0123456789abcdef0123456789abcdee")], 16),
        (&[USUAL[0], ("authorization", "Bearer")], 16),
    ] {
        let answer = client.call("/unknown", headers, &[&message]).await;
        assert_eq!(answer.failed(), code, "not even which methods there are is told");
    }
    client.call(LOGS, &[USUAL[0], ("authorization", &bearer)], &[&message]).await.ok();
    assert_eq!(server.recorder.payloads().len(), 1);
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    // A connection that is reset is as good as one that is closed.
    drop(plain.read_to_end(&mut heard).await);
    assert_eq!(limit(&server.stats, "handshake"), 1);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_go_on() {
    let server = Listening::start(TlsFiles::default(), None).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        open.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut one_more = TcpStream::connect(server.address).await.unwrap();
    // A connection that is reset is as good as one that is closed.
    assert!(one_more.read(&mut [0]).await.is_ok_and(|read| read == 0) || limit(&server.stats, "connections") == 1);
    assert_eq!(limit(&server.stats, "connections"), 1);
    let mut client = Client::over(open.pop().unwrap(), &server.supervisor).await;
    client.export(LOGS, &logs(&["a"])).await.ok();
    drop((open, client));
    let counted = server.stats.of_http();
    testing::until(|| counted.connections_open() < CONNECTIONS_MAX as u64 / 2, &server.stats).await;
    let mut client = Client::over(TcpStream::connect(server.address).await.unwrap(), &server.supervisor).await;
    client.export(LOGS, &logs(&["a"])).await.ok();
}

#[tokio::test]
async fn a_sidecar_takes_calls_as_its_pods_once_it_was_told_of_it() {
    let (pods, of_pods) = watch::channel(None);
    let (supervisor, stats, targets) = (Supervisor::new("grpc"), Arc::<GrpcStats>::default(), PushTargets::default());
    let own_pod = Some(OwnPod { pods: of_pods, node: Some("node-a".into()) });
    let context = GrpcContext { own_pod, targets: targets.clone(), ..context(&supervisor, &stats) };
    let settings = GrpcSettings { address: "127.0.0.1:0".parse().unwrap(), tls: TlsFiles::default(), token_file: None };
    let recorder = Recorder::new(&[("fab12", "jobs")]);
    let address = start(settings, Box::new(recorder.clone()), context).await.unwrap();
    let mut client = Client::over(TcpStream::connect(address).await.unwrap(), &supervisor).await;
    let answer = client.export(LOGS, &logs(&["a"])).await;
    assert_eq!((answer.failed(), answer.may_come_again()), (14, true));
    assert!(answer.message.starts_with("starting"), "{answer:?}");
    let pod = PodFacts { uid: "u1".into(), namespace: "fab12".into(), name: "etcher".into(), ..PodFacts::default() };
    let told = NodePods::new(Pods { hash: String::new(), pods: vec![Arc::new(pod)] });
    pods.send_replace(Some(Told { pods: Arc::new(told), confirmed: None }));
    targets.set_for_pods(Vec::new());
    client.export(LOGS, &logs(&["a"])).await.ok();
    assert_eq!(recorder.payloads().len(), 1);
}
