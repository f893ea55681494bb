//! Settings of the `Webhook` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::template;
use crate::http::settings::{check_header_name, check_not_in, check_request};
use crate::http::{HttpAuth, HttpHeader, HttpMethod};
use crate::settings::{Problem, SecretKeyRef, Settings};
use crate::tls::TlsSettings;

/// Sends each event as a request of its own, in a form of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where to send: an http or https URL without user, password and fragment.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^/?#@\s\\]+([/?][^#\s]*)?$"))]
    pub url: String,
    /// Method of the request.
    #[serde(default)]
    pub method: HttpMethod,
    /// Template of the body: JSON with `{event.PATH}`, `{event}`, `{id}`, `{received}`, `{date}`, `{hour}`, `{namespace}`,
    /// `{pipeline}`, `{route}`, `{origin.…}`. In a string a value is escaped, elsewhere it stands as JSON; what is not there
    /// is nothing, or `null`. When absent the body is the event itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub body: Option<String>,
    /// Headers added to every request; `Content-Type` is `application/json` unless it is here. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<HttpHeader>,
    /// Sends the event's id as `Idempotency-Key`, the same for every attempt, so that a server can recognise a repeat.
    #[serde(default = "on")]
    pub idempotency_key: bool,
    /// Signs every request, so that the server can tell who sent it and when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<WebhookSignature>,
    /// How the agent proves who it is; exactly one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// Trust in the server. Certificates are always verified, TLS 1.2 is the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// A signature over time and body: `sha256=` and HMAC-SHA256 of `<timestamp>.<body>` in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSignature {
    /// Where the key of the signature is; read at each use.
    pub secret_ref: SecretKeyRef,
    /// Name of the header that carries the signature.
    #[serde(default = "signature_header")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub header: String,
    /// Name of the header that carries the time, in seconds since 1970.
    #[serde(default = "timestamp_header")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub timestamp_header: String,
}

fn on() -> bool {
    true
}

fn signature_header() -> String {
    "X-Spillway-Signature".into()
}

fn timestamp_header() -> String {
    "X-Spillway-Timestamp".into()
}

impl WebhookSettings {
    fn check_signature(&self, problems: &mut Vec<Problem>) {
        let Some(signature) = &self.signature else {
            return;
        };
        signature.secret_ref.check("signature.secretRef", problems);
        for (path, name) in
            [("signature.header", &signature.header), ("signature.timestampHeader", &signature.timestamp_header)]
        {
            check_header_name(name, path, problems);
            check_not_in(&self.headers, name, path, problems);
        }
        if signature.header.eq_ignore_ascii_case(&signature.timestamp_header) {
            let message = format!("{:?} carries the signature", signature.header);
            problems.push(Problem::new("signature.timestampHeader", message, "another header"));
        }
    }
}

impl Settings for WebhookSettings {
    fn type_name(&self) -> &'static str {
        "Webhook"
    }

    fn member_name(&self) -> &'static str {
        "webhook"
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = check_request(&self.url, &self.headers, self.auth.as_ref(), self.tls.as_ref());
        if let Some(Err((message, allowed))) = self.body.as_deref().map(template::parse) {
            problems.push(Problem::new("body", message, allowed));
        }
        self.check_signature(&mut problems);
        problems
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        Ok(std::sync::Arc::new(super::Webhook::try_new(self, &context)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(settings: serde_json::Value) -> Vec<String> {
        let settings: WebhookSettings = serde_json::from_value(settings).unwrap();
        settings.validate().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_url_is_enough() {
        assert_eq!(paths(serde_json::json!({"url": "https://hooks.example.test/x"})), [""; 0]);
    }

    #[test]
    fn what_cannot_be_sent_or_signed_is_refused() {
        let key = serde_json::json!({"name": "hook", "key": "key"});
        for (settings, wrong) in [
            (serde_json::json!({"url": "https://h.test/", "body": "{\"a\": {event.}}"}), "body"),
            (serde_json::json!({"url": "https://h.test/", "body": "not json"}), "body"),
            (
                serde_json::json!({"url": "https://h.test/", "signature": {"secretRef": key, "header": "Authorization"}}),
                "signature.header",
            ),
            (
                serde_json::json!({"url": "https://h.test/", "signature": {"secretRef": key, "timestampHeader": "x-spillway-signature"}}),
                "signature.timestampHeader",
            ),
            (
                serde_json::json!({"url": "https://h.test/", "signature": {"secretRef": {"name": "..", "key": "x"}}}),
                "signature.secretRef",
            ),
            (
                serde_json::json!({"url": "https://h.test/", "headers": [{"name": "x-spillway-timestamp", "value": "1"}], "signature": {"secretRef": key}}),
                "signature.timestampHeader",
            ),
        ] {
            assert_eq!(paths(settings.clone()), [wrong], "{settings}");
        }
    }
}
