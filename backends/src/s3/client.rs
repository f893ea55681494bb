//! The backend: batches to objects, objects into the bucket, outcomes back to events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, OutBatch, Outcome, Traits};
use spillway_delivery::clock::Clock;
use spillway_delivery::settings::Metadata;
use spillway_delivery::supervisor::Supervisor;
use tokio::time::Instant;

use super::encode::{self, Keys, Object, Sorted};
use super::key;
use super::settings::S3Settings;
use super::store::Store;
use super::upload::{Manner, Uploader};
use crate::settings::Compression;
use crate::{BuildContext, BuildError};

/// Objects of one batch under way at once.
const OBJECTS_AT_ONCE: usize = 8;

/// Objects above this size are compressed off the reactor's threads: below, the hop costs more.
const COMPRESS_INLINE_BYTES_MAX: usize = 64 << 10;

/// How long uploads that were given up may take at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Puts batches into one bucket.
#[derive(Debug)]
pub struct S3 {
    keys: Keys,
    manner: Manner,
    /// What an object is called and how it is packed.
    encoding: u64,
    compression: Compression,
    metadata: Metadata,
    store: Store,
    clock: Clock,
    aborts: Supervisor,
    /// Set while some objects of batches fail beside others that do not: said once.
    partly: AtomicBool,
}

impl S3 {
    /// Returns the backend; connects at the first batch.
    pub fn try_new(settings: &S3Settings, context: BuildContext) -> Result<Self, BuildError> {
        if settings.credentials.is_none() && context.destinations.is_limited() {
            return Err(BuildError::MachineKeys);
        }
        let template = key::parse(&settings.key).map_err(|problem| BuildError::Settings(vec![problem]))?;
        let encoding = context.encoding(&("S3", &settings.key, settings.compression));
        Ok(Self {
            encoding,
            keys: Keys::new(&template, context.name, settings.compression),
            manner: Manner::new(settings),
            compression: settings.compression,
            metadata: context.metadata,
            store: Store::new(settings, context.secrets, context.destinations),
            clock: context.clock,
            aborts: Supervisor::new("s3"),
            partly: AtomicBool::new(false),
        })
    }

    async fn send_once(&self, batch: &OutBatch) -> Result<Items, Fault> {
        let Sorted { objects, rejected } = self.keys.sort(batch)?;
        let client = self.store.client()?;
        let (manner, clock, aborts) = (&self.manner, &self.clock, &self.aborts);
        let uploader = &Uploader { client, manner, plan: batch.key(), clock, aborts };
        let put = |object: Object| async move {
            let put = match self.body(batch, &object).await {
                Ok(body) => uploader.put(&object, body).await,
                Err(fault) => Err(fault),
            };
            (object, put)
        };
        let put: Vec<_> = stream::iter(objects).map(put).buffered(OBJECTS_AT_ONCE).collect().await;
        self.items(batch.len(), put, rejected)
    }

    async fn body(&self, batch: &OutBatch, object: &Object) -> Result<Bytes, Fault> {
        let (metadata, compression) = (self.metadata, self.compression);
        let body = if object.payload_bytes <= COMPRESS_INLINE_BYTES_MAX {
            encode::body(batch, object, metadata, compression)
        } else {
            let (batch, object) = (batch.clone(), object.clone());
            tokio::task::spawn_blocking(move || encode::body(&batch, &object, metadata, compression))
                .await
                .map_err(|_| Fault::new(FaultKind::Local, "compression was abandoned"))?
        };
        let failed = |error| Fault::new(FaultKind::Local, format_args!("compression failed: {error}"));
        body.map(Bytes::from).map_err(failed)
    }

    /// Puts together what became of the events. Where every object failed, that is the attempt's fault.
    fn items(
        &self,
        events: usize,
        put: Vec<(Object, Result<Outcome, Fault>)>,
        rejected: Vec<(usize, String)>,
    ) -> Result<Items, Fault> {
        let failed = put.iter().filter(|(_, put)| put.is_err()).count();
        if failed > 0 && failed == put.len() {
            return put.into_iter().find_map(|(_, put)| put.err()).map_or(Ok(Items::All(Outcome::Retry)), Err);
        }
        let was_partly = self.partly.swap(failed > 0, Ordering::Relaxed);
        if let (false, Some((object, Err(fault)))) = (was_partly, put.iter().find(|(_, put)| put.is_err())) {
            let fault = self.store.redact(&fault.message);
            tracing::warn!(key = %object.key, fault, objects = put.len(), failed, "some objects of a batch are not taken");
        }
        if let ([(_, Ok(outcome))], true) = (&*put, rejected.is_empty()) {
            return Ok(Items::All(outcome.clone()));
        }
        let mut outcomes = vec![Outcome::Retry; events];
        for (number, reason) in rejected {
            outcomes[number] = Outcome::Rejected(reason.into());
        }
        for (object, put) in put {
            if let Ok(outcome) = put {
                object.ranges.into_iter().for_each(|range| outcomes[range].fill(outcome.clone()));
            }
        }
        Ok(Items::Each(outcomes))
    }
}

impl Backend for S3 {
    /// # Cancel safety
    /// A request on its way may still be carried out: the same events find their own object there. Uploads in parts are
    /// aborted.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(self.send_once(batch))
    }

    fn traits(&self) -> Traits {
        Traits { keyed: true, encoding: self.encoding, ..Traits::default() }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.aborts.stop(Instant::now() + CLOSE_TIMEOUT).await;
            self.store.close();
        })
    }
}
