//! Settings of the `Stdout` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{Problem, Settings};

/// Writes events as NDJSON to the standard output of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StdoutSettings {}

impl Settings for StdoutSettings {
    fn type_name(&self) -> &'static str {
        "Stdout"
    }

    fn member_name(&self) -> &'static str {
        "stdout"
    }

    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        Ok(std::sync::Arc::new(super::Stdout::new(context.metadata)))
    }
}
