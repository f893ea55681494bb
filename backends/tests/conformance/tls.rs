//! Whom the backends that speak HTTP trust.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use spillway_delivery::backend::{Backend, FaultKind};
use tokio_rustls::TlsAcceptor;

use crate::batches::{batch, secret};
use crate::over_http;
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
    accepting(&certificate, &key)
}

fn self_signed(name: &str) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    accepting(&made.cert, &made.signing_key)
}

fn accepting(certificate: &Certificate, key: &KeyPair) -> TlsAcceptor {
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
    secret(directory, "ca", "ca.crt", &ca.pem());
}

/// Returns a backend of a type for the server behind TLS, which trusts the CA of [`trust`] or what the machine trusts.
fn backend(what: &str, root: &Path, server: &Server, own_ca: bool) -> Arc<dyn Backend> {
    let mut settings = over_http::settings(what, root, &format!("https://{}", server.address));
    if own_ca {
        settings["tls"] = serde_json::json!({"caSecretRef": {"name": "ca", "key": "ca.crt"}});
    }
    over_http::backend(what, root, settings)
}

#[tokio::test]
async fn only_a_certificate_of_the_given_ca_for_this_name_and_time_is_trusted() {
    let (ours, foreign) = (ca(), ca());
    let directory = tempfile::tempdir().unwrap();
    trust(directory.path(), &ours);
    let unknown = "certificate is signed by no authority that is trusted here";
    for (case, acceptor, word) in [
        ("good", acceptor(&ours, "127.0.0.1", false), ""),
        ("of another CA", acceptor(&foreign, "127.0.0.1", false), unknown),
        ("expired", acceptor(&ours, "127.0.0.1", true), "certificate expired"),
        ("for another name", acceptor(&ours, "example.test", false), "certificate not valid for name \"127.0.0.1\""),
        ("signed by itself", self_signed("127.0.0.1"), unknown),
    ] {
        let server = Server::start_with(Some(acceptor), |_, request| over_http::taken(request)).await;
        for what in over_http::TYPES {
            let sent = backend(what, directory.path(), &server, true).send(&batch(0..2)).await;
            if case == "good" {
                assert!(sent.is_ok_and(|items| over_http::is_delivered(&items)), "{what}");
                continue;
            }
            let fault = sent.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Unreachable, "{what}, {case}: {fault}");
            let told = &fault.message;
            assert!(told.contains(word) && !told.contains("hidden"), "{what}, {case}: {fault}");
            assert_eq!(server.seen().len(), 0, "{what}, {case}: nothing is sent to a stranger");
        }
    }
}

#[tokio::test]
async fn a_private_ca_is_not_trusted_by_default_and_a_rotated_one_at_once() {
    let (first, second) = (ca(), ca());
    let acceptor = acceptor(&second, "127.0.0.1", false);
    let server = Server::start_with(Some(acceptor), |_, request| over_http::taken(request)).await;
    for what in over_http::TYPES {
        let directory = tempfile::tempdir().unwrap();
        let kind_at = async |backend: &Arc<dyn Backend>| backend.send(&batch(0..1)).await.unwrap_err().kind;
        let stranger = backend(what, directory.path(), &server, false);
        assert_eq!(kind_at(&stranger).await, FaultKind::Unreachable, "{what}");
        let backend = backend(what, directory.path(), &server, true);
        assert_eq!(kind_at(&backend).await, FaultKind::Local, "{what}: the secret is not there");
        trust(directory.path(), &first);
        assert_eq!(kind_at(&backend).await, FaultKind::Unreachable, "{what}");
        trust(directory.path(), &second);
        assert!(over_http::is_delivered(&backend.send(&batch(0..1)).await.unwrap()), "{what}");
    }
}

#[tokio::test]
async fn plain_text_where_tls_is_due_is_a_fault() {
    let ours = ca();
    let directory = tempfile::tempdir().unwrap();
    trust(directory.path(), &ours);
    let server = Server::start(|_, _| Reply::status(200)).await;
    let backend = backend("HTTP", directory.path(), &server, true);
    // The server waits for the end of a head that never comes in a TLS hello; the engine's timeout ends that.
    let sent = tokio::time::timeout(std::time::Duration::from_millis(300), backend.send(&batch(0..1))).await;
    assert!(!matches!(sent, Ok(Ok(_))));
    assert_eq!(server.seen().len(), 0);
}
