//! Servers whose answers come a byte now and then, each long before anybody would call the connection dead: what ends the
//! attempt is the time of the whole of it. The engine runs over every type that speaks HTTP.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spillway_delivery::backend::Backend;
use spillway_delivery::clock::Clock;
use spillway_delivery::deliver::{DeliverySpec, Engine, EngineSettings};
use spillway_delivery::event::{BatchBuilder, Origin, OriginBuilder};
use spillway_delivery::filesystem::RealFs;
use spillway_delivery::intake::{Intake, Pipeline};
use spillway_delivery::settings::{
    BackendRefSettings, DeliverySettings, LogSettings, PipelineSettings, RouteSettings, Strategy, WhenBehind,
};
use tokio::time::Instant;

use crate::batches::{event, lines};
use crate::bulk;
use crate::over_http::{TYPES, backend, settings, taken};
use crate::server::{Received, Reply, Server};

/// How many requests of a delivery get an answer that drips.
const SLOW: usize = 2;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(30);

/// An engine with one delivery to `backend`.
async fn start(data_dir: &Path, backend: Arc<dyn Backend>) -> (Engine, Arc<Pipeline>) {
    let of_machine = EngineSettings {
        data_dir: data_dir.into(),
        filesystem: Arc::new(RealFs),
        clock: Clock::system(),
        free_bytes_min: 0,
    };
    let reference = BackendRefSettings { uid: "b".into(), name: "b".into(), ..BackendRefSettings::default() };
    let route =
        RouteSettings { name: "all".into(), condition: None, strategy: Strategy::All, backends: vec![reference] };
    let pipeline = PipelineSettings {
        uid: "fab12.jobs".into(),
        namespace: "fab12".into(),
        name: "jobs".into(),
        log: LogSettings::default(),
        transforms: Vec::new(),
        routes: vec![route],
        origin: OriginBuilder::default(),
        suspend: false,
    };
    let delivery = DeliverySpec {
        route: "all".into(),
        backend_uid: "b".into(),
        backend_name: "b".into(),
        backend_type: "any".into(),
        backend,
        settings: DeliverySettings { timeout: ATTEMPT, ..DeliverySettings::default() },
        when_behind: WhenBehind::Block,
    };
    let engine = Engine::open(of_machine).unwrap();
    let pipeline = engine.add(pipeline, vec![delivery], &|_| None).await.unwrap();
    (engine, pipeline)
}

/// Returns the events of a request.
fn events_of(request: &Received) -> Vec<String> {
    if request.line.starts_with("POST /_bulk?") {
        return bulk::documents_of(request).into_iter().map(|(_, _, document)| document).collect();
    }
    request.lines()
}

/// Sends three events to a server whose first answers are `slow`. Returns the faults there were, by kind, and how long it
/// took, once everything was taken once.
async fn deliver_past(what: &str, slow: &Reply) -> (Vec<(String, u64)>, Duration) {
    let root = tempfile::tempdir().unwrap();
    let (asked, kept) = (AtomicUsize::new(0), Arc::<Mutex<Vec<Received>>>::default());
    let (slow, keeping) = (slow.clone(), kept.clone());
    let server = Server::start(move |_, request| {
        // A question after the server's health is no delivery.
        if request.line.starts_with("GET ") {
            return Reply::status(200);
        }
        if asked.fetch_add(1, Ordering::SeqCst) < SLOW {
            return slow.clone();
        }
        keeping.lock().unwrap().push(request.clone());
        taken(request)
    })
    .await;
    let mut settings = settings(what, root.path(), &format!("http://{}", server.address));
    if what == "S3" {
        settings["compression"] = "None".into();
    }
    let (engine, pipeline) = start(&root.path().join("data"), backend(what, root.path(), settings)).await;
    let mut events = BatchBuilder::default();
    (0..3).for_each(|number| events.push(event(number).as_bytes()));
    let begun = Instant::now();
    Intake.submit(std::slice::from_ref(&pipeline), events.build(Arc::<Origin>::default(), 1)).await.unwrap();
    assert!(engine.drain(Instant::now() + 10 * ATTEMPT).await, "{what}: an attempt does not end");
    let took = begun.elapsed();
    let report = tokio::task::spawn_blocking(move || pipeline.report()).await.unwrap();
    let delivery = &report.deliveries[0];
    assert_eq!((delivery.delivered_events, delivery.held_events), (3, 0), "{what}: {delivery:#?}");
    assert_eq!((delivery.rejected_events, delivery.dropped_events.len()), (0, 0), "{what}: {delivery:#?}");
    let mut got: Vec<String> = kept.lock().unwrap().iter().flat_map(events_of).collect();
    got.sort_unstable();
    assert_eq!(got, lines(0..3), "{what}: each event is taken once");
    (delivery.faults.iter().map(|(kind, times)| (kind.clone(), *times)).collect(), took)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_drips_ends_with_the_time_of_the_attempt_and_nothing_is_lost() {
    let slow = Reply::Drip(b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-more: yes\r\n".to_vec());
    for what in TYPES {
        let (faults, took) = deliver_past(what, &slow).await;
        // A type that asks for each event by itself has both slow answers in one attempt.
        let attempts = faults.iter().map(|(_, times)| *times as u32).sum::<u32>();
        assert!((1..=SLOW as u32).contains(&attempts), "{what}: {faults:?}");
        assert_eq!(faults, [("timeout".to_owned(), u64::from(attempts))], "{what}");
        assert!(took >= ATTEMPT * attempts && took < ATTEMPT * attempts + Duration::from_secs(2), "{what}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_drips_ends_within_the_time_of_the_attempt_and_nothing_is_lost() {
    let slow = Reply::Drip(b"HTTP/1.1 500 x\r\ncontent-length: 1000000\r\n\r\n".to_vec(), b"out of order ".to_vec());
    for what in TYPES {
        let (faults, took) = deliver_past(what, &slow).await;
        // A type that asks for each event by itself had the last one taken, and so only some are left.
        let kinds = ["broken", "timeout", "throttled"];
        assert!(faults.iter().all(|(kind, _)| kinds.contains(&kind.as_str())), "{what}: {faults:?}");
        assert!(took < ATTEMPT * SLOW as u32 + Duration::from_secs(2), "{what}: {took:?}");
    }
}
