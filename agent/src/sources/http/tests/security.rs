//! Listeners beyond loopback, TLS, tokens.

use rustls::pki_types::ServerName;

use super::*;
use crate::sources::pushed::security::SecurityError;
use crate::sources::testing::{Files, TOKEN};

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

#[tokio::test]
async fn beyond_loopback_tls_and_a_token_are_needed() {
    let (files, none) = (Files::new(), TlsFiles::default());
    let token = files.path("token");
    for loopback in ["127.0.0.1:0", "127.8.9.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        assert!(ListenerSecurity::check(at(loopback), &none, None).is_ok(), "{loopback}");
    }
    for open in ["0.0.0.0:8411", "[::]:8411", "10.0.0.1:8411", "[::ffff:10.0.0.1]:8411"] {
        for (tls, token, words) in [
            (&none, None, "all are missing"),
            (&files.tls(), None, "the token is missing"),
            (&none, Some(&*token), "TLS is missing"),
        ] {
            let error = ListenerSecurity::check(at(open), tls, token).unwrap_err().to_string();
            assert!(error.contains(open) && error.contains(words), "{error}");
        }
        assert!(ListenerSecurity::check(at(open), &files.tls(), Some(&token)).is_ok(), "{open}");
    }
}

#[tokio::test]
async fn half_a_protection_is_refused_everywhere() {
    let files = Files::new();
    let (cert, key) = (files.path("cert"), files.path("key"));
    for (certificate, key, words) in
        [(Some(cert.clone()), None, "--tls-key is missing"), (None, Some(key.clone()), "--tls-cert is missing")]
    {
        let error =
            ListenerSecurity::check(at("127.0.0.1:0"), &TlsFiles { certificate, key }, None).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    for (certificate, key) in [(key.clone(), key.clone()), (cert.clone(), cert.clone()), (files.path("none"), key)] {
        let tls = TlsFiles { certificate: Some(certificate), key: Some(key) };
        assert!(ListenerSecurity::check(at("127.0.0.1:0"), &tls, None).is_err(), "{tls:?}");
    }
    let other = Files::new();
    let mixed = TlsFiles { certificate: Some(cert), key: Some(other.path("key")) };
    assert!(matches!(ListenerSecurity::check(at("127.0.0.1:0"), &mixed, None), Err(SecurityError::Tls { .. })));
    assert!(matches!(
        ListenerSecurity::check(at("127.0.0.1:0"), &files.tls(), Some(&files.path("none"))),
        Err(SecurityError::Token(_))
    ));
    std::fs::write(files.path("cert"), vec![b'x'; 300 << 10]).unwrap();
    assert!(matches!(
        ListenerSecurity::check(at("127.0.0.1:0"), &files.tls(), None),
        Err(SecurityError::TooLarge { .. })
    ));
}

#[tokio::test]
async fn a_sender_shows_its_token_over_tls() {
    let files = Files::new();
    let settings = HttpSettings {
        address: "127.0.0.1:0".parse().unwrap(),
        paths: Paths::All,
        tls: files.tls(),
        token_file: Some(files.path("token")),
    };
    let server = Server::with_settings(Recorder::new(&[("default", "jobs")]), settings).await;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = server.connect().await;
    let mut stream = files.connector(&[b"http/1.1"]).connect(name.clone(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let bearer = format!("authorization: bearer {TOKEN}\r\nidempotency-key: k\r\n");
    say(&mut stream, &request("/v1/events", &bearer, b"{}")).await.unwrap();
    assert_eq!(Answer::read(&mut stream).await.unwrap().status, 202);
    assert_eq!(&server.recorder.take()[0].1.key.as_ref().unwrap().sender[..], b"token");
    assert!(files.connector(&[b"h2"]).connect(name, server.connect().await).await.is_err());
    let mut plain = server.connect().await;
    plain.write_all(&request("/v1/events", &bearer, b"{}")).await.unwrap();
    let mut heard = Vec::new();
    // A connection that is reset is as good as one that is closed.
    drop(plain.read_to_end(&mut heard).await);
    assert!(!heard.starts_with(b"HTTP/"), "nothing is answered in the clear");
    assert!(server.recorder.take().is_empty());
    assert_eq!(server.limit("handshake"), 2);
}

#[tokio::test]
async fn without_the_token_nothing_is_told_but_that() {
    let files = Files::new();
    let settings = HttpSettings {
        address: "127.0.0.1:0".parse().unwrap(),
        paths: Paths::All,
        tls: TlsFiles::default(),
        token_file: Some(files.path("token")),
    };
    let server = Server::with_settings(Recorder::new(&[("default", "jobs")]), settings).await;
    let almost = format!("authorization: Bearer {}0\r\n", &TOKEN[..TOKEN.len() - 1]);
    let doubled = format!("authorization: Bearer {TOKEN}{TOKEN}\r\n");
    let basic = format!("authorization: Basic {TOKEN}\r\n");
    for headers in ["", "authorization: Bearer \r\n", "authorization: Bearer\r\n", &almost, &doubled, &basic] {
        for path in ["/v1/events", "/no/such/path"] {
            let answer = server.send(&request(path, headers, b"{}")).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{headers}");
            assert_eq!(answer.header("www-authenticate"), Some("bearer"));
            assert!(!answer.body.contains(TOKEN));
        }
    }
    assert!(server.recorder.take().is_empty());
    assert_eq!(server.post(&format!("authorization: Bearer {TOKEN}\r\n"), b"{}").await.status, 202);
}
