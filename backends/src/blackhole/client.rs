//! The client of `Blackhole`.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, Items, OutBatch, Outcome};

/// Takes everything and keeps nothing.
#[derive(Debug, Default)]
pub struct Blackhole {
    events: AtomicU64,
}

impl Blackhole {
    /// Returns how many events it took.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

impl Backend for Blackhole {
    /// # Cancel safety
    /// Has no await.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async {
            self.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
            Ok(Items::All(Outcome::Delivered))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use spillway_delivery::backend::OutBatchBuilder;

    #[tokio::test]
    async fn what_is_dropped_is_counted() {
        let name = "n".into();
        let mut builder = OutBatchBuilder::new(&name, &name, &name);
        builder.begin_chunk(Bytes::from_static(b"{}\n{}\n"), std::sync::Arc::default(), 1, 0);
        builder.push(1, 0, 2);
        builder.push(2, 3, 5);
        let blackhole = Blackhole::default();
        assert_eq!(blackhole.send(&builder.build("k")).await, Ok(Items::All(Outcome::Delivered)));
        assert_eq!(blackhole.events(), 2);
    }
}
