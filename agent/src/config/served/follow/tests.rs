use std::sync::Mutex;

use spillway_crds::served::{ASK_BYTES_MAX, AuthorityCertificate, BackendCondition, SIDECAR_ASK_BYTES_MAX};

use super::*;
use crate::cli::{FromEnvironment, RunFlags};
use crate::settings::{ConfigFile, ConfigSource, Machine, Settings};

#[derive(Debug, Default)]
struct Quiet {
    report: Mutex<ServedReport>,
    backends: Mutex<Vec<BackendReport>>,
    holding: Mutex<Vec<String>>,
}

impl Host for Quiet {
    fn backends(&self) -> Vec<BackendReport> {
        self.backends.lock().unwrap().clone()
    }

    fn holding(&self) -> Vec<String> {
        self.holding.lock().unwrap().clone()
    }

    fn note(&self, change: &mut dyn FnMut(&mut ServedReport)) {
        change(&mut self.report.lock().unwrap());
    }
}

fn follower(dir: &tempfile::TempDir) -> (Follower, Arc<Quiet>) {
    follower_with(dir, &RunFlags { operator: Some("http://127.0.0.1:1".into()), ..RunFlags::default() })
}

fn follower_with(dir: &tempfile::TempDir, flags: &RunFlags) -> (Follower, Arc<Quiet>) {
    let settings = Settings::settle(flags, &FromEnvironment::default(), &ConfigFile::default(), &Machine::read());
    let settings = settings.unwrap();
    let ConfigSource::Operator(operator) = settings.configuration else { panic!("no operator") };
    let host = Arc::<Quiet>::default();
    let parts = Parts {
        client: Client::new(operator),
        store: Store::new(dir.path(), None),
        secrets: ServedSecrets::default(),
        pods: tokio::sync::watch::channel(None).0,
        token_keys: tokio::sync::watch::channel(None).0,
        trusted: tokio::sync::watch::channel(String::new()).0,
        host: host.clone(),
        clock: Clock::manual(0),
        agent: "a".into(),
    };
    (Follower::new(parts), host)
}

fn answer(epoch: u64, generation: u64, hash: &str) -> Answer {
    let version = Version { epoch, generation, hash: hash.into() };
    let configuration = Configuration { version, ..Configuration::default() };
    Answer { configuration: Some(configuration), ..Answer::default() }
}

fn with_secret(answer: Answer, value: &str) -> Answer {
    let secret = ServedSecret { name: "api".into(), value: value.into(), ..ServedSecret::default() };
    let configuration = answer.configuration.map(|one| Configuration { secrets: vec![secret], ..one });
    Answer { configuration, ..answer }
}

/// Takes an answer and carries it out; returns whether there was something to carry out.
async fn taken(follower: &mut Follower, answer: Answer) -> Result<bool, AskError> {
    let read = follower.take(answer).await?;
    if let Some(read) = &read {
        follower.applied(&read.compiled, &[]);
    }
    Ok(read.is_some())
}

fn runs(follower: &Follower) -> Option<(u64, u64)> {
    follower.question().running.map(|version| (version.epoch, version.generation))
}

#[tokio::test]
async fn a_newer_configuration_is_taken_and_an_older_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (mut follower, host) = follower(&dir);
    assert!(!taken(&mut follower, Answer::default()).await.unwrap());
    assert!(host.report.lock().unwrap().is_settled, "the operator said that there is none");
    assert!(taken(&mut follower, answer(7, 3, "a")).await.unwrap());
    for (epoch, generation) in [(7, 2), (6, 9)] {
        assert!(matches!(taken(&mut follower, answer(epoch, generation, "b")).await, Err(AskError::Older { .. })));
    }
    assert!(!taken(&mut follower, answer(7, 3, "b")).await.unwrap(), "the one that runs");
    assert_eq!(runs(&follower), Some((7, 3)));
    assert!(taken(&mut follower, answer(8, 1, "b")).await.unwrap());
    assert_eq!(runs(&follower), Some((8, 1)));
}

#[tokio::test]
async fn the_same_content_under_a_newer_version_changes_the_version_alone_also_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = follower(&dir);
    assert!(taken(&mut first, answer(7, 3, "a")).await.unwrap());
    assert!(!taken(&mut first, answer(8, 1, "a")).await.unwrap());
    assert_eq!(runs(&first), Some((8, 1)));
    let (mut second, _) = follower(&dir);
    let read = second.start().await.unwrap();
    assert_eq!(runs(&second), None, "not before it is carried out");
    second.applied(&read.compiled, &[]);
    assert_eq!(runs(&second), Some((8, 1)));
}

#[tokio::test]
async fn one_whose_secrets_were_not_kept_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, _) = follower(&dir);
    assert!(taken(&mut first, with_secret(answer(7, 3, "a"), "eA==")).await.unwrap());
    let (mut second, _) = follower(&dir);
    let read = second.start().await.unwrap();
    second.applied(&read.compiled, &[]);
    assert_eq!(runs(&second), None);
    assert!(taken(&mut second, with_secret(answer(7, 3, "a"), "eA==")).await.unwrap());
    assert_eq!(runs(&second), Some((7, 3)));
    // It has none that counts, so one of an earlier epoch does: the Lease may have gone back meanwhile.
    let (mut third, _) = follower(&dir);
    let read = third.start().await.unwrap();
    third.applied(&read.compiled, &[]);
    assert!(taken(&mut third, with_secret(answer(2, 1, "z"), "eA==")).await.unwrap());
    assert_eq!(runs(&third), Some((2, 1)));
}

#[test]
fn an_answer_that_a_retry_overtakes_is_not_acknowledged() {
    // The one thread that compiles is taken, so that the answer is under way until it is free again.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (mut follower, _) = follower(&dir);
        let old = follower.take(answer(7, 3, "a")).await.unwrap().unwrap();
        follower.applied(&old.compiled, &[]);
        let Some(configuration) = answer(7, 4, "b").configuration else { panic!("an answer with one") };
        let (free, until) = std::sync::mpsc::sync_channel::<()>(1);
        let thread = tokio::task::spawn_blocking(move || until.recv());
        {
            let mut under_way = std::pin::pin!(follower.compile(configuration));
            assert!(futures_util::poll!(&mut under_way).is_pending());
        }
        // What ran before is tried again.
        follower.applied(&old.compiled, &[]);
        assert_eq!(runs(&follower), Some((7, 3)));
        drop(free);
        drop(thread.await);
        assert!(taken(&mut follower, answer(7, 4, "b")).await.unwrap(), "it is asked for again, and taken then");
        assert_eq!(runs(&follower), Some((7, 4)));
    });
}

#[tokio::test]
async fn what_was_not_carried_out_is_said_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut follower, _) = follower(&dir);
    let read = follower.take(answer(7, 3, "a")).await.unwrap().unwrap();
    let reason = "\u{e9}".repeat(REASON_BYTES_MAX);
    let excluded = Excluded { object: "MonitoringPipeline a/b".into(), errors: vec![reason], kept: true };
    follower.applied(&read.compiled, &[excluded]);
    let told = follower.question().refused;
    assert_eq!((told[0].object.as_str(), told[0].reason.len(), told[0].kept), ("MonitoringPipeline a/b", 1024, true));
    tokio::time::pause();
    follower.pace.not_before = Instant::now() + Duration::from_hours(1);
    let begun = Instant::now();
    follower.next(true).await;
    assert!(begun.elapsed() >= RETRY);
    follower.applied(&read.compiled, &[]);
    assert_eq!((runs(&follower), follower.question().refused.len()), (Some((7, 3)), 0));
}

fn report(n: usize, state: BackendCondition) -> BackendReport {
    BackendReport {
        object: format!("MonitoringPipeline a/p{n}"),
        route: "all".into(),
        backend: "a.b".into(),
        state,
        fault: String::new(),
        error: "x".repeat(5000),
        since_unix_seconds: n as u64,
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_state_ends_the_wait_and_another_error_does_not() {
    let host = Quiet::default();
    let told = vec![report(1, BackendCondition::Retrying)];
    *host.backends.lock().unwrap() = vec![BackendReport { error: "other".into(), ..told[0].clone() }];
    let wait = tokio::time::timeout(Duration::from_secs(60), changed(&host, &told));
    assert!(wait.await.is_err());
    *host.backends.lock().unwrap() = vec![report(1, BackendCondition::Unreachable)];
    tokio::time::timeout(BETWEEN_MIN * 2, changed(&host, &told)).await.unwrap();
}

#[tokio::test]
async fn what_is_held_is_shown_with_its_ticket_until_it_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let (mut follower, host) = follower(&dir);
    let with = |answer: Answer, objects: &[&str]| {
        let tickets = objects.iter().map(|object| ((*object).to_owned(), format!("ticket of {object}"))).collect();
        Answer { configuration: answer.configuration.map(|one| Configuration { tickets, ..one }), ..answer }
    };
    let shown = |follower: &Follower| {
        let held = follower.question().holding;
        held.into_iter().map(|held| (held.object, held.ticket)).collect::<Vec<_>>()
    };
    taken(&mut follower, with(answer(1, 1, "a"), &["P a/x", "P a/y"])).await.unwrap();
    assert!(shown(&follower).is_empty());
    *host.holding.lock().unwrap() = vec!["P a/x".into(), "P b/never-served".into()];
    let expected = vec![("P a/x".to_owned(), "ticket of P a/x".to_owned())];
    assert_eq!(shown(&follower), expected);
    // Over a configuration without it, and over a restart.
    taken(&mut follower, answer(1, 2, "b")).await.unwrap();
    assert_eq!(shown(&follower), expected);
    let (mut anew, host) = super::tests::follower(&dir);
    *host.holding.lock().unwrap() = vec!["P a/x".into(), "P a/y".into()];
    anew.start().await.unwrap();
    assert_eq!(shown(&anew), expected, "what was not held when it went is forgotten");
}

#[tokio::test]
async fn authorities_are_taken_over_tls_that_is_trusted_by_a_file_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let pem = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem();
    let told = |hash: &str, pem: &str| {
        let certificates = vec![AuthorityCertificate { pem: pem.into(), until_unix_seconds: 9 }];
        Answer { authorities: Some(Authorities { hash: hash.into(), certificates }), ..Answer::default() }
    };
    let says = |follower: &Follower| follower.question().authorities;
    let (mut without, _) = follower(&dir);
    taken(&mut without, told("h", &pem)).await.unwrap();
    assert_eq!((says(&without), dir.path().join("authorities.json").exists()), (None, false));
    std::fs::write(dir.path().join("ca.crt"), &pem).unwrap();
    let ca = dir.path().join("ca.crt").display().to_string();
    let over_tls = || {
        let operator = Some("https://127.0.0.1:1".into());
        follower_with(&dir, &RunFlags { operator, operator_ca: Some(ca.clone()), ..RunFlags::default() }).0
    };
    let mut with = over_tls();
    assert_eq!(says(&with).as_deref(), Some(""));
    taken(&mut with, told("h", &pem)).await.unwrap();
    assert_eq!(says(&with).as_deref(), Some("h"));
    // What is no certificate changes nothing.
    let error = taken(&mut with, told("i", "hello")).await.unwrap_err();
    assert!(matches!(error, AskError::Garbled(_)), "{error}");
    assert_eq!(says(&with).as_deref(), Some("h"));
    let mut anew = over_tls();
    anew.start().await;
    assert_eq!(says(&anew).as_deref(), Some("h"));
}

#[test]
fn a_question_fits_and_keeps_what_holds_events() {
    let ask = Ask {
        backends: (0..20_000).map(|n| report(n, BackendCondition::Retrying)).collect(),
        holding: (0..1000).map(|n| Held { object: format!("MonitoringPipeline a/p{n}"), ..Held::default() }).collect(),
        ..Ask::default()
    };
    let fitted = fitting(ask.clone(), ASK_BYTES_MAX);
    assert!(serde_json::to_vec(&fitted).unwrap().len() <= ASK_BYTES_MAX);
    assert!(fitted.backends.len() > 1000 && fitted.holding.len() == 1000, "{}", fitted.backends.len());
    let ask = Ask { holding: ask.holding[..100].to_vec(), ..ask };
    let fitted = fitting(ask, SIDECAR_ASK_BYTES_MAX);
    assert!(serde_json::to_vec(&fitted).unwrap().len() <= SIDECAR_ASK_BYTES_MAX);
    assert!(!fitted.backends.is_empty() && fitted.holding.len() == 100, "{}", fitted.backends.len());
}

#[test]
fn a_sidecar_asks_within_its_own_bound() {
    let dir = tempfile::tempdir().unwrap();
    let bound = |node_agent: Option<&str>| {
        let flags = RunFlags {
            operator: Some("http://127.0.0.1:1".into()),
            node_agent: node_agent.map(Into::into),
            node_agent_token: node_agent.map(|_| "token".into()),
            ..RunFlags::default()
        };
        follower_with(&dir, &flags).0.parts.client.ask_bytes_max()
    };
    assert_eq!((bound(None), bound(Some("http://127.0.0.1:2"))), (ASK_BYTES_MAX, SIDECAR_ASK_BYTES_MAX));
}
