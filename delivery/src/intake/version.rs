//! What a pipeline is told at one time. An edit replaces it whole.

use std::sync::Arc;

use super::mask::RouteCounters;
use super::origins::Origins;
use crate::settings::PipelineSettings;
use crate::transform::Chain;

/// What a pipeline is told at one time.
#[derive(Debug)]
pub(crate) struct Version {
    settings: Arc<PipelineSettings>,
    /// One per route; a route keeps its own over edits.
    pub(super) routes: Vec<Arc<RouteCounters>>,
    pub(super) origins: Arc<Origins>,
    /// Its transforms, `None` where it has none. A transform goes on counting over edits.
    pub(super) chain: Option<Arc<Chain>>,
    /// Its manifest is gone: nothing is taken, what is held drains.
    pub(super) removed: bool,
}

impl Version {
    /// Returns the first version of a pipeline.
    pub(super) fn first(settings: PipelineSettings) -> Self {
        let routes = settings.routes.iter().map(|_| Arc::default()).collect();
        let origins = Arc::new(Origins::new(&settings.origin));
        let chain = (!settings.transforms.is_empty()).then(|| Arc::new(Chain::new(&settings.transforms)));
        Self { settings: Arc::new(settings), routes, origins, chain, removed: false }
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
        let chain = match &self.chain {
            Some(chain) if *chain.transforms() == *settings.transforms => Some(chain.clone()),
            chain => (!settings.transforms.is_empty()).then(|| {
                let none = Chain::new(&[]);
                Arc::new(chain.as_deref().unwrap_or(&none).next(&settings.transforms))
            }),
        };
        Self { settings: Arc::new(settings), routes, origins, chain, removed }
    }

    /// Returns what it is told.
    pub(crate) fn settings(&self) -> &Arc<PipelineSettings> {
        &self.settings
    }
}
