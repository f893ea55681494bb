//! Settings of the `ManagedAPI` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::settings::check_url;
use crate::settings::{Compression, Problem, SecretKeyRef, Settings};
use crate::tls::TlsSettings;

/// Sends events to a managed ingest service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManagedApiSettings {
    /// Base URL of the service: http or https, without user, password, query and fragment.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^/?#@\s\\]+(/[^?#\s]*)?$"))]
    pub url: String,
    /// Where the token is that is sent as `Authorization: Bearer …`; read at each use.
    pub token_secret_ref: SecretKeyRef,
    /// Path below the base URL for one event.
    #[serde(default = "event_path")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/[^?#\s\\]*$"))]
    pub event_path: String,
    /// Path below the base URL for several events.
    #[serde(default = "batch_path")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/[^?#\s\\]*$"))]
    pub batch_path: String,
    /// Path below the base URL that is asked (`GET`) after a failure, before events are sent again.
    #[serde(default = "health_path")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^/[^?#\s\\]*$"))]
    pub health_path: String,
    /// How the body is compressed; `Gzip` and `Zstd` also send `Content-Encoding`.
    #[serde(default)]
    pub compression: Compression,
    /// Trust in the server. Certificates are always verified, TLS 1.2 is the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// Most events of one batch.
#[cfg(feature = "client")]
pub(super) const BATCH_EVENTS_MAX: usize = 1000;

fn event_path() -> String {
    "/v1/ingest/events".into()
}

fn batch_path() -> String {
    "/v1/ingest/events:batch".into()
}

fn health_path() -> String {
    "/health".into()
}

#[cfg(feature = "client")]
impl ManagedApiSettings {
    /// Returns the URL of a path of the settings.
    pub(super) fn below(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }
}

impl Settings for ManagedApiSettings {
    fn type_name(&self) -> &'static str {
        "ManagedAPI"
    }

    fn member_name(&self) -> &'static str {
        "managedAPI"
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_url(&self.url, &mut problems);
        if problems.is_empty() && self.url.contains('?') {
            problems.push(Problem::new("url", "holds a query", "a base URL that paths can be added to"));
        }
        self.token_secret_ref.check("tokenSecretRef", &mut problems);
        for (name, path) in
            [("eventPath", &self.event_path), ("batchPath", &self.batch_path), ("healthPath", &self.health_path)]
        {
            let odd = |c: char| c.is_control() || c.is_whitespace() || "?#\\".contains(c);
            if !path.starts_with('/') || path.contains(odd) {
                let message = format!("{path:?} is not a path");
                problems.push(Problem::new(name, message, "a path that begins with '/', without query and fragment"));
            }
        }
        if let Some(tls) = &self.tls {
            tls.check(self.url.starts_with("https://"), &mut problems);
        }
        problems
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        Ok(std::sync::Arc::new(super::ManagedApi::try_new(self, &context)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &serde_json::Value) -> ManagedApiSettings {
        let mut all =
            serde_json::json!({"url": "https://ingest.example.test/eu/", "tokenSecretRef": {"name": "a", "key": "t"}});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_url_and_a_token_are_enough() {
        let settings = settings(&serde_json::json!({}));
        assert_eq!(settings.validate(), []);
        assert_eq!(settings.below(&settings.batch_path), "https://ingest.example.test/eu/v1/ingest/events:batch");
        assert_eq!(crate::settings::secrets_in(&settings).len(), 1);
    }

    #[test]
    fn what_would_go_elsewhere_is_refused() {
        for (field, value) in [
            ("url", "https://a.test/?key=x"),
            ("url", "https://user@a.test/"),
            ("eventPath", "v1"),
            ("batchPath", "/v1?x"),
            ("healthPath", "/a b"),
        ] {
            let paths: Vec<_> = settings(&serde_json::json!({ field: value })).validate();
            assert_eq!(paths.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), [field], "{value}");
        }
    }
}
