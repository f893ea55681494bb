use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Url;
use reqwest::dns::Resolve;

use super::resolve::Resolver;
use super::*;
use crate::http_client::root_cause;

fn limited(allowed: &[&str], denied: &[&str]) -> Limits {
    Limits {
        allowed: allowed.iter().map(|text| text.parse().unwrap()).collect(),
        denied: denied.iter().map(|text| text.parse().unwrap()).collect(),
        ..Limits::default()
    }
}

/// Returns what is said of a URL before it is asked; nothing where it may be.
fn said(limits: &Limits, url: &str) -> String {
    let url = Url::parse(url).unwrap();
    let destinations = Destinations::Limited(Arc::new(limits.clone()));
    let checked = destinations.check(url.host_str().unwrap(), url.port_or_known_default().unwrap());
    checked.err().map(|forbidden| forbidden.to_string()).unwrap_or_default()
}

#[test]
fn every_form_of_what_no_tenant_means_is_refused() {
    for (url, why) in [
        ("http://127.0.0.1:8080", LOOPBACK),
        ("http://127.255.255.254", LOOPBACK),
        ("http://127.1", LOOPBACK),
        ("http://2130706433", LOOPBACK),
        ("http://0x7f000001", LOOPBACK),
        ("http://0x7f.1", LOOPBACK),
        ("http://0177.0.0.1", LOOPBACK),
        ("http://017700000001", LOOPBACK),
        ("http://127.0.0.1.", LOOPBACK),
        ("http://%31%32%37.0.0.1", LOOPBACK),
        ("http://\u{ff11}\u{ff12}\u{ff17}.0.0.1", LOOPBACK),
        ("http://user@127.0.0.1", LOOPBACK),
        ("http://[::1]:9200", LOOPBACK),
        ("http://[0:0:0:0:0:0:0:1]", LOOPBACK),
        ("http://[::ffff:127.0.0.1]", LOOPBACK),
        ("http://[::ffff:7f00:1]", LOOPBACK),
        ("http://[64:ff9b::127.0.0.1]", LOOPBACK),
        ("http://0.0.0.0", "no address"),
        ("http://0", "no address"),
        ("http://[::]", "no address"),
        ("http://[::ffff:0.0.0.0]", "no address"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://2852039166", "link-local"),
        ("http://[::ffff:169.254.169.254]", "link-local"),
        ("http://[64:ff9b::a9fe:a9fe]", "link-local"),
        ("http://[fe80::1]", "link-local"),
        ("http://[febf::1]", "link-local"),
        ("http://100.100.100.200", "a cloud"),
        ("http://168.63.129.16", "a cloud"),
        ("http://192.0.0.192", "a cloud"),
        ("http://[fd00:ec2::254]", "a cloud"),
        ("http://[fd00:ec2::23]", "a cloud"),
        ("http://[fd20:ce::254]", "a cloud"),
        ("http://100.64.0.1", "carriers"),
        ("http://100.127.255.255", "carriers"),
        ("http://224.0.0.1", "multicast"),
        ("http://239.255.255.250", "multicast"),
        ("http://[ff02::1]", "multicast"),
        ("http://240.0.0.1", "reserved"),
        ("http://255.255.255.255", "reserved"),
        ("http://192.0.2.1", "reserved"),
        ("http://198.19.0.1", "reserved"),
        ("http://[::127.0.0.1]", "reserved"),
        ("http://[64:ff9b:1::7f00:1]", "reserved"),
        ("http://[2002:7f00:1::]", "reserved"),
        ("http://[2001::1]", "reserved"),
        ("http://[2001:db8::1]", "reserved"),
        ("http://[fec0::1]", "reserved"),
        ("http://[100::1]", "reserved"),
    ] {
        let said = said(&Limits::default(), url);
        assert!(said.contains(why), "{url}: {said}");
    }
}

const LOOPBACK: &str = "is loopback";

#[test]
fn services_of_the_cluster_and_the_internet_are_not_refused() {
    for url in [
        "http://10.96.0.10:9200",
        "http://172.16.0.1",
        "http://192.168.1.1:8080",
        "http://[fd12:3456::1]:9200",
        "https://8.8.8.8",
        "https://[2606:4700::1111]",
        "http://[64:ff9b::8.8.8.8]",
        "http://[::ffff:10.0.0.1]",
        "http://search.fab12.svc:9200",
        "http://99.255.255.255",
        "http://128.0.0.1",
    ] {
        assert_eq!(said(&Limits::default(), url), "", "{url}");
    }
}

#[test]
fn ports_of_machines_and_clusters_are_refused_by_name_and_by_address() {
    for port in [1, 22, 25, 53, 111, 587, 1023, 2375, 2379, 6443, 10_250, 10_255, 10_259] {
        for host in ["10.0.0.1", "search.fab12.svc"] {
            let said = said(&Limits::default(), &format!("http://{host}:{port}"));
            assert!(said.starts_with(&format!("not sent: port {port} is one of ")), "{said}");
        }
        let by_port = limited(&[&format!(":{port}")], &[]);
        assert_eq!(said(&by_port, &format!("http://search.fab12.svc:{port}")), "");
        let by_address = limited(&["10.0.0.1"], &[]);
        assert_eq!(said(&by_address, &format!("http://10.0.0.1:{port}")), "");
        assert_ne!(said(&by_address, &format!("http://10.0.0.2:{port}")), "");
    }
    for port in [80, 443, 1024, 8443, 9200, 10_260] {
        assert_eq!(said(&Limits::default(), &format!("http://10.0.0.1:{port}")), "", "{port}");
    }
}

#[test]
fn what_the_administrator_allows_goes_before_what_is_refused() {
    let limits = limited(&["127.0.0.0/8", "100.64.0.0/10"], &["10.0.0.0/8", "fd00::/8"]);
    assert_eq!(said(&limits, "http://127.0.0.1:8080"), "");
    assert_eq!(said(&limits, "http://[::ffff:127.0.0.1]:8080"), "");
    assert_eq!(said(&limits, "http://100.64.1.1"), "");
    assert!(said(&limits, "http://[::1]").contains("loopback"));
    for refused in ["http://10.1.2.3", "http://[::ffff:10.1.2.3]", "http://[64:ff9b::10.1.2.3]", "http://[fd00::1]"] {
        assert!(said(&limits, refused).contains("--deny-destinations"), "{refused}");
    }
    let only = limited(&["10.1.0.0/16"], &["0.0.0.0/0", "::/0"]);
    assert_eq!(said(&only, "http://10.1.2.3"), "");
    assert!([said(&only, "http://10.2.0.1"), said(&only, "https://8.8.8.8")].iter().all(|said| !said.is_empty()));
}

#[test]
fn nothing_is_refused_to_who_is_not_limited() {
    assert_eq!(Destinations::Any.check("169.254.169.254", 80), Ok(()));
    assert_eq!(Destinations::Any.check("[::1]", 6443), Ok(()));
}

fn resolver(limits: Limits, port: u16, answers: Vec<Vec<IpAddr>>) -> (Resolver, Arc<AtomicUsize>) {
    let (asked, answers) = (Arc::<AtomicUsize>::default(), Mutex::new(answers.into_iter()));
    let count = asked.clone();
    let lookup = move |_| -> futures_util::future::BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        count.fetch_add(1, Ordering::Relaxed);
        let answer = answers.lock().unwrap().next().unwrap_or_default();
        Box::pin(async move { Ok(answer) })
    };
    (Resolver::new(Arc::new(limits), port, Arc::new(lookup)), asked)
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_name_means_what_of_its_addresses_may_be_connected_to() {
    for (answer, left) in [
        (
            &["10.0.0.1", "127.0.0.1", "::1", "fd12::1", "::ffff:169.254.169.254"][..],
            Some(&["10.0.0.1", "fd12::1"][..]),
        ),
        (&["127.0.0.1", "::1"], None),
        (&["::ffff:127.0.0.1"], None),
        (&["0.0.0.0"], None),
        (&["8.8.8.8"], Some(&["8.8.8.8"])),
    ] {
        let (resolver, _) = resolver(Limits::default(), 443, vec![addresses(answer)]);
        let resolved = resolver.resolve("evil.test".parse().unwrap()).await;
        match left {
            Some(left) => {
                let found: Vec<IpAddr> = resolved.map_err(|error| error.to_string()).unwrap().map(|a| a.ip()).collect();
                assert_eq!(found, addresses(left), "{answer:?}");
            }
            None => assert!(resolved.err().unwrap().is::<Forbidden>(), "{answer:?}"),
        }
    }
}

#[tokio::test]
async fn an_allowed_network_is_open_at_every_port_by_name_as_by_address() {
    let limits = limited(&["10.1.0.0/16"], &["10.2.0.0/16"]);
    let found = ["10.1.0.1", "10.2.0.1", "10.3.0.1", "127.0.0.1"];
    for (port, open) in [(9200, &["10.1.0.1", "10.3.0.1"][..]), (6443, &["10.1.0.1"]), (22, &["10.1.0.1"])] {
        for address in found {
            let is_open = said(&limits, &format!("http://{address}:{port}")).is_empty();
            assert_eq!(is_open, open.contains(&address), "{address}:{port}");
        }
        assert_eq!(said(&limits, &format!("http://search.test:{port}")), "", "a look-up decides");
        let (resolver, _) = resolver(limits.clone(), port, vec![addresses(&found), addresses(&["10.3.0.1"])]);
        let ask = async || resolver.resolve("search.test".parse().unwrap()).await;
        let left: Vec<IpAddr> = ask().await.map_err(|error| error.to_string()).unwrap().map(|a| a.ip()).collect();
        assert_eq!(left, addresses(open), "{port}");
        let elsewhere = ask().await.err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(elsewhere.contains(&format!("port {port} is one of")), port != 9200, "{elsewhere}");
    }
}

#[test]
fn addresses_of_the_node_and_of_the_api_server_are_refused_until_they_are_allowed() {
    let own = vec!["10.244.1.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    let limits = |allowed: &[&str]| Limits { own: own.clone(), ..limited(allowed, &[]) };
    for url in ["http://10.244.1.1:8080", "https://[fd00::1]", "http://[::ffff:10.244.1.1]:8080"] {
        let said = said(&limits(&[]), url);
        assert!(said.contains("is the node's or the API server's"), "{url}: {said}");
    }
    assert_eq!(said(&limits(&[]), "http://10.244.1.2:8080"), "");
    assert_eq!(said(&limits(&["10.244.1.1"]), "http://10.244.1.1:6443"), "");
}

#[tokio::test]
async fn the_name_of_the_api_server_is_refused_where_its_addresses_are_not_allowed() {
    let named = |allowed: &[&str]| Limits { denied_names: vec!["API.cloud.test".into()], ..limited(allowed, &[]) };
    for name in ["api.cloud.test", "api.cloud.test.", "API.cloud.TEST"] {
        let said = said(&named(&[]), &format!("https://{name}"));
        assert!(said.contains("is the API server"), "{name}: {said}");
    }
    assert_eq!(said(&named(&[]), "https://other.cloud.test"), "");
    for (allowed, is_open) in [("10.9.0.0/16", false), ("10.1.0.0/16", true)] {
        let (resolver, _) = resolver(named(&[allowed]), 443, vec![addresses(&["10.1.0.1"])]);
        let resolved = resolver.resolve("api.cloud.test".parse().unwrap()).await;
        assert_eq!(resolved.is_ok(), is_open, "{allowed}");
    }
}

/// A client whose names mean what the test says: the first connection of a name may not be what the second one is.
#[tokio::test]
async fn an_answer_that_changes_between_check_and_connection_gains_nothing() {
    let good = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = good.local_addr().unwrap().port();
    let inner = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let answers = vec![addresses(&["127.0.0.1"]), addresses(&["127.0.0.2"]), addresses(&["127.0.0.1", "127.0.0.2"])];
    let (resolver, asked) = resolver(limited(&["127.0.0.1"], &[]), port, answers);
    let client = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(resolver)).build().unwrap();
    let url = format!("http://rebinding.test:{port}/");
    let serve = async {
        for _ in 0..2 {
            let (mut stream, _) = good.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await.unwrap();
            assert!(read > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        }
    };
    let ask = async {
        assert!(client.get(&url).send().await.unwrap().status().is_success());
        assert_eq!(
            asked.load(Ordering::Relaxed),
            1,
            "one look-up per connection: what was checked is what was dialled"
        );
        let error = client.get(&url).send().await.unwrap_err();
        assert!(root_cause(&error).is::<Forbidden>(), "{error:?}");
        assert!(client.get(&url).send().await.unwrap().status().is_success());
    };
    tokio::join!(serve, ask);
    let reached = std::future::poll_fn(|context| std::task::Poll::Ready(inner.poll_accept(context).is_ready())).await;
    assert!(!reached, "nothing ever connected to the address that is refused");
}
