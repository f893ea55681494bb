//! A reference whose backend is gone, or must not be used any more: nothing can be sent, what is held waits for the reference to
//! come back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::DeliverySpec;
use crate::backend::{Backend, Fault, FaultKind, Items, OutBatch};
use crate::log::DeliveryKey;
use crate::settings::{DeliverySettings, WhenBehind};

/// What kind of backend one is called that is gone.
pub(super) const TYPE: &str = "Gone";

/// How long one that only waits rests between two attempts.
const RETRY_MAX: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Gone;

impl Backend for Gone {
    fn send<'a>(&'a self, _: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async { Err(Fault::new(FaultKind::Local, "the backend is not in the configuration any more")) })
    }
}

impl DeliverySpec {
    /// Returns a delivery of a route to what is named so (for good, and for people) and must not be used: it only waits.
    pub fn without_backend(route: &Arc<str>, (uid, name): (&Arc<str>, &Arc<str>)) -> Self {
        let key = DeliveryKey { route: route.clone(), backend_uid: uid.clone() };
        Self { backend_name: name.clone(), ..spec(&key, RETRY_MAX) }
    }

    /// Returns the delivery without its backend, and so without what that knows of credentials.
    pub(super) fn bereft(self) -> Self {
        Self { backend_type: TYPE.into(), backend: Arc::new(Gone), ..self }
    }
}

/// Returns a delivery that only waits.
pub(super) fn spec(key: &DeliveryKey, drain: Duration) -> DeliverySpec {
    DeliverySpec {
        route: key.route.clone(),
        backend_uid: key.backend_uid.clone(),
        backend_name: key.backend_uid.clone(),
        backend_type: TYPE.into(),
        backend: Arc::new(Gone),
        settings: DeliverySettings {
            retry_initial: Duration::from_secs(1),
            retry_max: drain,
            ..DeliverySettings::default()
        },
        when_behind: WhenBehind::Block,
    }
}
