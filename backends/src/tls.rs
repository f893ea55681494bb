//! Trust in a server, as every backend that speaks TLS is told it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{Problem, SecretKeyRef};

/// Trust in the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSettings {
    /// Where the CA certificates are (PEM); they replace those of the machine.
    pub ca_secret_ref: SecretKeyRef,
}

impl TlsSettings {
    /// Adds what is wrong to `problems`; `https` says whether the backend's URL is one.
    pub(crate) fn check(&self, https: bool, problems: &mut Vec<Problem>) {
        self.ca_secret_ref.check("tls.caSecretRef", problems);
        if !https {
            problems.push(Problem::new("tls", "is set, but the URL is not https", "an https URL, or no tls"));
        }
    }
}
