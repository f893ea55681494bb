//! Listeners beyond loopback, TLS, tokens.

use rustls::pki_types::ServerName;

use super::super::limits::CONTROL_BYTES_MAX;
use super::super::{BindError, bind_tcp};
use super::*;
use crate::sources::pushed::security::SecurityError;
use crate::sources::testing::{Files, TOKEN};

fn hello(token: &str) -> String {
    format!("{{\"spillway\":{{\"token\":\"{token}\",\"answers\":\"lines\"}}}}")
}

#[tokio::test]
async fn beyond_loopback_tls_and_a_token_are_needed() {
    let files = Files::new();
    let (tls, token) = (files.tls(), files.path("token"));
    let world = World::new();
    let bind = |tls: &TlsFiles, token_file: Option<&std::path::PathBuf>| {
        let address = "0.0.0.0:0".parse().unwrap();
        bind_tcp(TcpSettings { address, tls: tls.clone(), token_file: token_file.cloned() }, world.context())
    };
    for (tls, token) in [(&TlsFiles::default(), None), (&tls, None), (&TlsFiles::default(), Some(&token))] {
        let error = bind(tls, token).await.unwrap_err();
        assert!(matches!(error, BindError::Security(SecurityError::Unprotected { .. })), "{error:?}");
    }
    bind(&tls, Some(&token)).await.unwrap();
}

#[tokio::test]
async fn who_shows_the_token_over_tls_is_let_in_and_nobody_else() {
    let (files, world) = (Files::new(), World::new());
    let (connector, address) = (files.connector(&[]), world.tcp(files.tls(), Some(files.path("token"))).await);
    let connect = async || {
        let stream = TcpStream::connect(address).await.unwrap();
        Client::new(connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap())
    };
    let mut good = connect().await;
    good.say(&hello(TOKEN)).await;
    assert_eq!(good.answer().await, json!({"line": 1, "accepted": 0}));
    good.say("{\"a\":1}").await;
    assert_eq!(good.answer().await["accepted"], 1);
    for first in [&*hello("fedcba9876543210fedcba9876543210"), "{\"spillway\":{}}", "{\"a\":2}"] {
        let mut bad = connect().await;
        bad.say(&format!("{first}\n{{\"a\":3}}")).await;
        let answer = bad.answer().await;
        assert_eq!(answer["code"], "unauthorized", "{first}");
        assert!(!answer.to_string().contains(TOKEN));
    }
    assert_eq!(world.recorder.payloads(), ["{\"a\":1}\n"]);
    assert_eq!(world.refused("unauthorized"), 3);
    // No TLS at all.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"{\"a\":4}\n").await.unwrap();
    world.until(|world| world.limit("handshake") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_shows_no_token_costs_little_and_not_for_long() {
    let (files, world) = (Files::new(), World::new());
    let security = crate::sources::pushed::security::ListenerSecurity::check(
        "127.0.0.1:0".parse().unwrap(),
        &TlsFiles::default(),
        Some(&files.path("token")),
    );
    let parts = (Clock::manual(RECEIVED), world.stats.clone());
    let senders = Senders::Anybody(Some(security.unwrap()));
    let shared = Arc::new(Shared::new(Way::Tcp, Box::new(world.recorder.clone()), parts, senders));
    let world = World { shared, ..world };
    let mut silent = world.connect(1 << 16);
    let begun = tokio::time::Instant::now();
    let mut text = String::new();
    silent.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("\"code\":\"hello_time\""), "{text}");
    assert_eq!(begun.elapsed().as_secs(), 10);
    let long = world.send(&vec![b'x'; CONTROL_BYTES_MAX + 1]).await;
    assert_eq!(long[0]["code"], "control_bytes");
    let said = world.send(format!("{}\n{{}}\n", hello(TOKEN)).as_bytes()).await;
    assert_eq!(said[1]["accepted"], 1);
}
