//! Batches, contexts and chance.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use spillway_backends::{BuildContext, Destinations, SecretDir, Secrets};
use spillway_delivery::backend::{DeliveryName, OutBatch, OutBatchBuilder};
use spillway_delivery::clock::Clock;
use spillway_delivery::event::{Arenas, Origin, OriginBuilder};
use spillway_delivery::settings::Metadata;

/// 2026-11-23T10:00:00Z.
pub(crate) const NOW: i64 = 1_795_428_000_000_000_000;

pub(crate) fn name() -> DeliveryName {
    DeliveryName {
        namespace: "fab12".into(),
        pipeline: "jobs".into(),
        route: "errors".into(),
        backend: "archive".into(),
        agent: "00000000000000a1".into(),
    }
}

pub(crate) fn context(root: &Path) -> BuildContext {
    BuildContext {
        name: name(),
        metadata: Metadata::None,
        secrets: Secrets::new(Arc::new(SecretDir::new(Some(root.join("secrets")), []))),
        filesystem_root: root.join("out"),
        allow_absolute: false,
        destinations: Destinations::Any,
        clock: Clock::manual(NOW),
        bodies: Arenas::default(),
    }
}

/// Writes a secret where the backends of [`context`] look for it.
pub(crate) fn secret(root: &Path, name: &str, key: &str, value: &str) {
    let path = root.join("secrets").join(name);
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join(key), value).unwrap();
}

pub(crate) fn pod(pod: &str) -> Arc<Origin> {
    OriginBuilder { pod: Some(pod.into()), ..OriginBuilder::default() }.build()
}

/// The event `number`, as text.
pub(crate) fn event(number: u64) -> String {
    format!("{{\"n\":{number},\"text\":\"{}\"}}", "x".repeat((number % 97) as usize))
}

/// One run per origin: `(origin, numbers of its events)`. A run is received as many seconds behind [`NOW`] as its first
/// number says.
pub(crate) fn batch_of(runs: &[(Arc<Origin>, Vec<u64>)], key: &str) -> OutBatch {
    batch_at(runs, key, |number| number as i64)
}

/// The same where `seconds` says how long behind [`NOW`] a run is received.
pub(crate) fn batch_at(runs: &[(Arc<Origin>, Vec<u64>)], key: &str, seconds: impl Fn(u64) -> i64) -> OutBatch {
    let mut builder = OutBatchBuilder::new(&"fab12".into(), &"jobs".into(), &"errors".into());
    for (origin, numbers) in runs {
        let mut payload = Vec::new();
        let mut spans = Vec::new();
        for number in numbers {
            let start = payload.len() as u32;
            payload.extend_from_slice(event(*number).as_bytes());
            spans.push((*number, start, payload.len() as u32));
            payload.push(b'\n');
        }
        let seconds = numbers.first().map_or(0, |number| seconds(*number));
        builder.begin_chunk(Bytes::from(payload), origin.clone(), 7, NOW + seconds * 1_000_000_000);
        for (number, start, end) in spans {
            builder.push(number, start, end);
        }
    }
    builder.build(key)
}

pub(crate) fn batch(numbers: std::ops::Range<u64>) -> OutBatch {
    let key = format!("key-{}-{}", numbers.start, numbers.end);
    batch_of(&[(Arc::default(), numbers.collect())], &key)
}

pub(crate) fn lines(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(event).collect()
}

/// xorshift64*: the same seed is the same test.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Polls `future` at most `polls` times and drops it.
pub(crate) async fn cut_short<F: Future>(future: F, polls: u64) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut count = 0;
    std::future::poll_fn(|context| {
        if count == polls {
            return std::task::Poll::Ready(None);
        }
        count += 1;
        match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending if count == polls => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}
