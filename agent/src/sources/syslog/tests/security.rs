//! Listeners beyond loopback, TLS, certificates of senders.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use super::*;

/// An authority, and a folder with its certificate and one of the agent.
struct Certificates {
    folder: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let made = Self { folder: tempfile::tempdir().unwrap(), authority };
        let (certificate, key) = made.issue(&["localhost"], "agent");
        for (name, text) in [("ca", made.authority.pem()), ("cert", certificate), ("key", key)] {
            std::fs::write(made.path(name), text).unwrap();
        }
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, hosts: &[&str], common_name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    fn security(&self) -> MutualTls {
        let tls = TlsFiles { certificate: Some(self.path("cert")), key: Some(self.path("key")) };
        MutualTls { tls, client_ca: Some(self.path("ca")) }
    }

    /// Returns a client that trusts this authority, with a certificate or none.
    fn client(&self, shown: Option<(String, String)>) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots);
        let config = match shown {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

/// Sends over TLS and closes in order; returns whether the other side closed without complaint.
async fn send(address: SocketAddr, connector: &TlsConnector, text: &[u8]) -> std::io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    stream.write_all(text).await?;
    stream.shutdown().await?;
    assert_eq!(stream.read(&mut [0; 9]).await?, 0);
    Ok(())
}

#[tokio::test]
async fn plain_syslog_is_taken_at_loopback_alone() {
    let world = World::new();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let address: SocketAddr = address.parse().unwrap();
        for refused in [bind_tcp(address, world.context()).await, bind_udp(address, world.context()).await] {
            let error = refused.unwrap_err();
            assert!(matches!(error, BindError::Plain { .. }), "{error:?}");
            assert!(error.to_string().contains("use --syslog-tls"), "{error}");
        }
    }
    bind_udp("127.0.0.1:0".parse().unwrap(), world.context()).await.unwrap();
    assert!(world.stop().await);
}

#[tokio::test]
async fn syslog_over_tls_needs_what_both_sides_show_wherever_it_listens() {
    let (world, certificates) = (World::new(), Certificates::new());
    let whole = certificates.security();
    let bind = |address: &str, security: MutualTls| {
        let address = address.parse().unwrap();
        let context = world.context();
        async move { bind_tls(address, &security, context).await }
    };
    for address in ["127.0.0.1:0", "0.0.0.0:0"] {
        for (security, missing) in [
            (MutualTls { tls: TlsFiles { certificate: None, ..whole.tls.clone() }, ..whole.clone() }, "--tls-cert"),
            (MutualTls { tls: TlsFiles { key: None, ..whole.tls.clone() }, ..whole.clone() }, "--tls-key"),
            (MutualTls { client_ca: None, ..whole.clone() }, "--tls-client-ca"),
        ] {
            let error = bind(address, security).await.unwrap_err().to_string();
            assert!(error.ends_with(&format!("{missing} is missing")), "{error}");
        }
        bind(address, whole.clone()).await.unwrap();
    }
    for (text, part) in [("", "has no authorities"), ("-----BEGIN CERTIFICATE-----\nx", "PEM certificates")] {
        std::fs::write(certificates.path("ca"), text).unwrap();
        let error = bind("127.0.0.1:0", whole.clone()).await.unwrap_err();
        let BindError::Security(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(world.stop().await);
}

#[tokio::test]
async fn who_shows_a_certificate_is_let_in_by_its_name_and_nobody_else() {
    let (world, certificates) = (World::new(), Certificates::new());
    let security = certificates.security();
    let at = ("127.0.0.1:0".parse().unwrap(), &security);
    let address = start_tls(at, Box::new(world.recorder.clone()), world.context()).await.unwrap();
    let text = b"9 <13>hello<13>line\n";
    let host = certificates.client(Some(certificates.issue(&["etch-07.fab12", "other"], "common")));
    send(address, &host, text).await.unwrap();
    let tool = certificates.client(Some(certificates.issue(&[], "tool \"7\"")));
    send(address, &tool, b"<13>tool").await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 3).await;
    let found: Vec<_> = world
        .events()
        .iter()
        .map(|event| {
            (event["message"].as_str().unwrap().to_owned(), event["peer"]["name"].as_str().unwrap().to_owned())
        })
        .collect();
    let wanted = [("hello", "etch-07.fab12"), ("line", "etch-07.fab12"), ("tool", "tool \"7\"")];
    assert_eq!(found, wanted.map(|(message, name)| (message.to_owned(), name.to_owned())));
    let stranger = Certificates::new();
    for shown in [None, Some(stranger.issue(&["etch-07.fab12"], "common"))] {
        let before = world.limit("handshake");
        send(address, &certificates.client(shown), text).await.unwrap_err();
        world.until(|world| world.limit("handshake") == before + 1).await;
    }
    // No TLS at all.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(text).await.unwrap();
    world.until(|world| world.limit("handshake") == 3).await;
    assert_eq!(world.figure(Figure::AcceptedEvents), 3);
    assert!(world.stop().await);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_shake_hands_does_not_keep_its_place_for_long() {
    let (world, certificates) = (World::new(), Certificates::new());
    let security = certificates.security();
    let at = ("127.0.0.1:0".parse().unwrap(), &security);
    let address = start_tls(at, Box::new(world.recorder.clone()), world.context()).await.unwrap();
    let begun = Instant::now();
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 9]).await.unwrap(), 0);
    assert!(begun.elapsed() >= super::super::limits::HANDSHAKE_TIMEOUT);
    assert_eq!(world.limit("handshake"), 1);
}

#[tokio::test]
async fn who_shows_no_certificate_takes_no_place_of_those_who_do() {
    use super::super::limits::{CONNECTIONS_MAX, SENDER_HANDSHAKES_MAX};
    let (world, certificates) = (World::new(), Certificates::new());
    let security = certificates.security();
    let at = ("127.0.0.1:0".parse().unwrap(), &security);
    let address = start_tls(at, Box::new(world.recorder.clone()), world.context()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..SENDER_HANDSHAKES_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    world.until(|world| world.figure(Figure::OpenConnections) == SENDER_HANDSHAKES_MAX as u64).await;
    // A connection that is reset is as good as one that is closed.
    let mut one_more = TcpStream::connect(address).await.unwrap();
    assert!(one_more.read(&mut [0; 9]).await.is_ok_and(|read| read == 0) || world.limit("sender_handshakes") == 1);
    assert_eq!((world.limit("sender_handshakes"), world.limit("connections")), (1, 0));
    // Another address has its own.
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let connector = certificates.client(Some(certificates.issue(&["etch-07"], "common")));
    let stream = other.connect(address).await.unwrap();
    let mut client = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    client.write_all(b"<13>a\n").await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 1).await;
    const { assert!(SENDER_HANDSHAKES_MAX < CONNECTIONS_MAX) };
    drop(silent);
    assert!(world.stop().await);
}

#[tokio::test]
async fn messages_in_records_of_their_own_that_came_together_are_one_batch() {
    let (world, certificates) = (World::new(), Certificates::new());
    let security = certificates.security();
    let at = ("127.0.0.1:0".parse().unwrap(), &security);
    let address = start_tls(at, Box::new(world.recorder.clone()), world.context()).await.unwrap();
    let connector = certificates.client(Some(certificates.issue(&["etch-07"], "common")));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    client.write_all(b"<13>first\n").await.unwrap();
    world.until(|world| world.figure(Figure::Batches) == 1).await;
    // Each is a record; all of them go to the system at once.
    for _ in 0..100 {
        std::io::Write::write_all(&mut client.get_mut().1.writer(), b"<13>a\n").unwrap();
    }
    client.flush().await.unwrap();
    world.until(|world| world.figure(Figure::AcceptedEvents) == 101).await;
    assert!(world.figure(Figure::Batches) <= 5, "{} batches", world.figure(Figure::Batches));
    assert!(world.stop().await);
}
