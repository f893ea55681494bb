//! What a pipeline is told at one time. An edit replaces it whole.

use std::sync::Arc;

use super::mask::RouteCounters;
use super::origins::Origins;
use crate::settings::PipelineSettings;

/// What a pipeline is told at one time.
#[derive(Debug)]
pub(crate) struct Version {
    settings: Arc<PipelineSettings>,
    /// One per route; a route keeps its own over edits.
    pub(super) routes: Vec<Arc<RouteCounters>>,
    pub(super) origins: Arc<Origins>,
    /// Its manifest is gone: nothing is taken, what is held drains.
    pub(super) removed: bool,
}

impl Version {
    /// Returns the first version of a pipeline.
    pub(super) fn first(settings: PipelineSettings) -> Self {
        let routes = settings.routes.iter().map(|_| Arc::default()).collect();
        let origins = Arc::new(Origins::new(&settings.origin));
        Self { settings: Arc::new(settings), routes, origins, removed: false }
    }

    /// Returns the version behind this one.
    pub(crate) fn next(&self, settings: PipelineSettings, removed: bool) -> Self {
        let before = |name: &Arc<str>| {
            let at = self.settings.routes.iter().position(|route| route.name == *name)?;
            self.routes.get(at).cloned()
        };
        let routes = settings.routes.iter().map(|route| before(&route.name).unwrap_or_default()).collect();
        let same = settings.origin == self.settings.origin;
        let origins = if same { self.origins.clone() } else { Arc::new(Origins::new(&settings.origin)) };
        Self { settings: Arc::new(settings), routes, origins, removed }
    }

    /// Returns what it is told.
    pub(crate) fn settings(&self) -> &Arc<PipelineSettings> {
        &self.settings
    }
}
