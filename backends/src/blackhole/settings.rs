//! Settings of the `Blackhole` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{Problem, Settings};

/// Takes every event and keeps none; counts what was delivered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlackholeSettings {}

impl Settings for BlackholeSettings {
    fn type_name(&self) -> &'static str {
        "Blackhole"
    }

    fn member_name(&self) -> &'static str {
        "blackhole"
    }

    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        drop(context);
        Ok(std::sync::Arc::new(super::Blackhole::default()))
    }
}
