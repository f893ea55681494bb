//! A route that wants few of the events: its deliveries keep in memory what they send, not what they read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::condition::Condition;
use spillway_delivery::intake::Intake;
use spillway_delivery::settings::{DeliverySettings, LogSettings, Strategy};
use tokio::sync::watch;

use crate::common::{
    Store, balanced, batch_of, drain, engine, kept_in_store, pipeline_of, quick, quick_breaker, reference, route,
    spec_of, until,
};

/// A destination that looks at where the events of a run stand in memory.
#[derive(Debug)]
struct Looking {
    store: Arc<Store<String>>,
    traits: Traits,
    is_well: watch::Sender<bool>,
    /// Attempts that fail once it is well.
    failures: AtomicUsize,
    /// Runs whose events are far apart.
    scattered: AtomicUsize,
}

impl Looking {
    fn look(&self, batch: &OutBatch) {
        for run in batch.runs() {
            let starts = run.events().map(|event| event.bytes.as_ptr() as usize);
            let bytes: usize = run.events().map(|event| event.bytes.len()).sum();
            let (first, last) = starts.fold((usize::MAX, 0), |(first, last), at| (first.min(at), last.max(at)));
            self.scattered.fetch_add(usize::from(last - first > 2 * bytes), Ordering::Relaxed);
        }
    }
}

impl Backend for Looking {
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            self.look(batch);
            let fails = !*self.is_well.borrow()
                || self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if fails {
                return Err(Fault::new(FaultKind::Unreachable, "it is not there"));
            }
            self.store.add(batch.events().map(|event| String::from_utf8(event.bytes.to_vec()).unwrap()));
            Ok(Items::All(Outcome::Delivered))
        })
    }

    kept_in_store!();
}

fn event(number: u32) -> String {
    format!("{{\"n\":{number},\"pad\":\"{}\"}}", "x".repeat(80))
}

#[tokio::test]
async fn few_events_of_a_backlog_do_not_keep_the_rest_of_it_in_memory() {
    const FRAMES: u32 = 60;
    const EVENTS: u32 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::<Store<String>>::default();
    let looking = Arc::new(Looking {
        store: store.clone(),
        traits: Traits::default(),
        is_well: watch::channel(false).0,
        failures: AtomicUsize::new(3),
        scattered: AtomicUsize::new(0),
    });
    let mut rare = route("rare", Strategy::All, vec![reference("rare")]);
    rare.condition = Some(Condition::compile("event.n % 500 == 1").unwrap());
    let settings = pipeline_of(LogSettings::default(), vec![rare]);
    let delivery = DeliverySettings { breaker: quick_breaker(), ..quick() };
    let engine = engine(dir.path());
    let spec = spec_of("rare", "rare", looking.clone(), delivery);
    let pipeline = engine.add(settings, vec![spec], &|_| None).await.unwrap();
    for frame in 0..FRAMES {
        let batch = batch_of((frame * EVENTS..(frame + 1) * EVENTS).map(event));
        Intake.submit(std::slice::from_ref(&pipeline), batch).await.unwrap();
    }
    until(&pipeline, |report| report.deliveries[0].attempts > 0).await;
    looking.is_well.send_replace(true);
    let wanted: Vec<String> = (0..FRAMES * EVENTS).filter(|number| number % 500 == 1).map(event).collect();
    let mut got = store.until(|got| got.len() >= wanted.len()).await;
    got.sort_by_key(|line| wanted.iter().position(|known| known == line));
    assert_eq!(got, wanted);
    assert_eq!(looking.scattered.load(Ordering::Relaxed), 0);
    assert!(drain(&engine).await);
    balanced(&pipeline).await;
}
