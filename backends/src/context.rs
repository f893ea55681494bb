//! What a backend is built with, and the door to building one.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use spillway_delivery::backend::{Backend, DeliveryName};
use spillway_delivery::clock::Clock;
use spillway_delivery::event::Arenas;
use spillway_delivery::settings::Metadata;

use crate::destinations::Destinations;
use crate::redact::{Redacting, Secrets};
use crate::{BackendSettings, Problem};

/// What the host gives to a backend.
#[derive(Debug, Clone)]
pub struct BuildContext {
    /// Who the backend works for.
    pub name: DeliveryName,
    /// What the delivered event carries besides itself.
    pub metadata: Metadata,
    /// Where secrets are read, at each use; of one backend alone.
    pub secrets: Secrets,
    /// The directory that `Filesystem` backends stay below.
    pub filesystem_root: PathBuf,
    /// Whether a `Filesystem` backend may name an absolute directory: in a standalone run only.
    pub allow_absolute: bool,
    /// What it may connect to. Where that is limited the backend is a tenant's, and nothing of the machine's own identity is
    /// used for it.
    pub destinations: Destinations,
    /// Wall time.
    pub clock: Clock,
    /// Memory of bodies and of their pieces, of all backends of the process.
    pub bodies: Arenas,
}

/// Most bytes of bodies that wait to be used again: one of a full batch, 10,000 events in 4 MiB, with what each carries.
pub const BODIES_KEPT_BYTES_MAX: usize = 10 << 20;

impl BuildContext {
    /// Returns the number that stands for how batches are encoded: by `settings`, those that decide over bytes and names, and
    /// by what else decides over them. Never 0.
    pub(crate) fn encoding(&self, settings: &impl Serialize) -> u64 {
        let full = matches!(self.metadata, Metadata::Full);
        let text = serde_json::to_vec(&(settings, full)).unwrap_or_default();
        xxhash_rust::xxh3::xxh3_64(&text).max(1)
    }
}

/// Why a backend could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The settings are wrong.
    #[error("settings are not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Settings(Vec<Problem>),
    /// An absolute directory where only the root is allowed.
    #[error("directory {0:?} is absolute, which only a standalone run takes")]
    AbsoluteDirectory(String),
    /// The machine's own keys, where only keys of a Secret are allowed.
    #[error(
        "found no `credentials`, and the keys of the machine are for ClusterBackends; name the keys in `credentials`"
    )]
    MachineKeys,
}

/// Makes the backend that `settings` describe, for one delivery; it says nothing of its secrets. Opens nothing yet.
pub fn build(settings: &BackendSettings, context: BuildContext) -> Result<Arc<dyn Backend>, BuildError> {
    let problems = settings.validate();
    if !problems.is_empty() {
        return Err(BuildError::Settings(problems));
    }
    let secrets = context.secrets.clone();
    Ok(Arc::new(Redacting::new(settings.inner().build(context)?, secrets)))
}
