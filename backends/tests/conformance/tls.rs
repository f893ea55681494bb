//! Whom the backends that speak HTTP trust.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::{FaultKind, Items, Outcome};
use tokio_rustls::TlsAcceptor;

use crate::batches::{batch, context};
use crate::destinations::{bucket_settings, parse};
use crate::server::{Reply, Server};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Ca {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn acceptor(ca: &Ca, name: &str, expired: bool) -> TlsAcceptor {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    if expired {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn trust(directory: &Path, ca: &Ca) {
    std::fs::create_dir_all(directory.join("secrets/ca")).unwrap();
    std::fs::write(directory.join("secrets/ca/ca.crt"), ca.pem()).unwrap();
}

fn settings(server: &Server, own_ca: bool) -> BackendSettings {
    let mut settings = serde_json::json!({"url": format!("https://{}/in?key=hidden", server.address)});
    if own_ca {
        settings["tls"] = serde_json::json!({"caSecretRef": {"name": "ca", "key": "ca.crt"}});
    }
    BackendSettings::Http(parse(settings))
}

#[tokio::test]
async fn only_a_certificate_of_the_given_ca_for_this_name_and_time_is_trusted() {
    let (ours, foreign) = (ca(), ca());
    let directory = tempfile::tempdir().unwrap();
    trust(directory.path(), &ours);
    for (what, signer, name, expired) in [
        ("good", &ours, "127.0.0.1", false),
        ("foreign", &foreign, "127.0.0.1", false),
        ("expired", &ours, "127.0.0.1", true),
        ("another name", &ours, "example.test", false),
    ] {
        let server = Server::start_with(Some(acceptor(signer, name, expired)), |_, _| Reply::status(200)).await;
        let sent = build(&settings(&server, true), context(directory.path())).unwrap().send(&batch(0..2)).await;
        if what == "good" {
            assert_eq!(sent, Ok(Items::All(Outcome::Delivered)));
            continue;
        }
        let fault = sent.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unreachable, "{what}: {fault}");
        assert!(fault.message.contains("certificate") && !fault.message.contains("hidden"), "{what}: {fault}");
        assert_eq!(server.seen().len(), 0, "{what}: nothing is sent to a stranger");
    }
}

#[tokio::test]
async fn a_bucket_behind_a_certificate_of_a_stranger_gets_nothing() {
    let (ours, foreign) = (ca(), ca());
    let directory = tempfile::tempdir().unwrap();
    trust(directory.path(), &ours);
    for (what, signer, name, expired) in [
        ("good", &ours, "127.0.0.1", false),
        ("foreign", &foreign, "127.0.0.1", false),
        ("expired", &ours, "127.0.0.1", true),
        ("another name", &ours, "example.test", false),
    ] {
        let server = Server::start_with(Some(acceptor(signer, name, expired)), |_, _| Reply::status(200)).await;
        let settings = serde_json::json!({
            "endpoint": format!("https://{}", server.address),
            "tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}},
        });
        let settings = bucket_settings(directory.path(), &server, &settings);
        let backend = build(&BackendSettings::S3(parse(settings)), context(directory.path())).unwrap();
        let sent = backend.send(&batch(0..2)).await;
        if what == "good" {
            assert_eq!(sent, Ok(Items::All(Outcome::Delivered)));
            continue;
        }
        let fault = sent.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Unreachable, "{what}: {fault}");
        assert!(fault.message.contains("certificate"), "{what}: {fault}");
        assert_eq!(server.seen().len(), 0, "{what}: nothing is sent to a stranger");
    }
}

#[tokio::test]
async fn a_private_ca_is_not_trusted_by_default_and_a_rotated_one_at_once() {
    let (first, second) = (ca(), ca());
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(Some(acceptor(&second, "127.0.0.1", false)), |_, _| Reply::status(200)).await;
    let stranger = build(&settings(&server, false), context(directory.path())).unwrap();
    assert!(stranger.send(&batch(0..1)).await.is_err());
    let backend = build(&settings(&server, true), context(directory.path())).unwrap();
    assert_eq!(backend.send(&batch(0..1)).await.unwrap_err().kind, FaultKind::Local, "the secret is not there");
    trust(directory.path(), &first);
    assert_eq!(backend.send(&batch(0..1)).await.unwrap_err().kind, FaultKind::Unreachable);
    trust(directory.path(), &second);
    assert_eq!(backend.send(&batch(0..1)).await, Ok(Items::All(Outcome::Delivered)));
}

#[tokio::test]
async fn plain_text_where_tls_is_due_is_a_fault() {
    let ours = ca();
    let directory = tempfile::tempdir().unwrap();
    trust(directory.path(), &ours);
    let server = Server::start(|_, _| Reply::status(200)).await;
    let backend = build(&settings(&server, true), context(directory.path())).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    drop(listener);
    // The server waits for the end of a head that never comes in a TLS hello; the engine's timeout ends that.
    let sent = tokio::time::timeout(std::time::Duration::from_millis(300), backend.send(&batch(0..1))).await;
    assert!(!matches!(sent, Ok(Ok(_))));
    assert_eq!(server.seen().len(), 0);
}
