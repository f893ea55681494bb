//! Settings of the `HTTP` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::BasicAuth;
use crate::settings::{Compression, Problem, SecretKeyRef, Settings};
use crate::tls::TlsSettings;

/// Headers the client or the protocol owns; users cannot set them.
const RESERVED_HEADERS: [&str; 15] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Sends events to an HTTP endpoint, one batch or one event per request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSettings {
    /// Where to send: an http or https URL without user, password and fragment.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^/?#@\s\\]+([/?][^#\s]*)?$"))]
    pub url: String,
    /// Method of the request.
    #[serde(default)]
    pub method: HttpMethod,
    /// Form of the body: `NDJSON` and `JSONArray` hold one batch, `JSONObject` is one event per request.
    #[serde(default)]
    pub format: HttpFormat,
    /// How the body is compressed; `Gzip` and `Zstd` also send `Content-Encoding`.
    #[serde(default)]
    pub compression: Compression,
    /// Headers added to every request. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<HttpHeader>,
    /// Sends the batch's key (with `JSONObject` the event's id) as `Idempotency-Key`, the same for every attempt, so that
    /// a server can recognise a repeat.
    #[serde(default = "on")]
    pub idempotency_key: bool,
    /// How the agent proves who it is; exactly one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// Trust in the server. Certificates are always verified, TLS 1.2 is the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// Method of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
}

/// Form of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum HttpFormat {
    /// One JSON object per line, `application/x-ndjson`.
    #[default]
    #[serde(rename = "NDJSON")]
    Ndjson,
    /// One JSON array of the events of a batch, `application/json`.
    #[serde(rename = "JSONArray")]
    JsonArray,
    /// One event per request, `application/json`, its id as `Idempotency-Key`; at most `maxInFlight` requests at once.
    #[serde(rename = "JSONObject")]
    JsonObject,
}

/// One header of every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHeader {
    /// Name of the header. Headers of the connection, of the body and of authentication cannot be set here.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,
    /// Value, as it is sent; printable ASCII. Secrets belong in `auth`.
    #[schemars(length(max = 1024), regex(pattern = r"^[\t\x20-\x7E]*$"))]
    pub value: String,
}

/// How the agent proves who it is; exactly one of the members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct HttpAuth {
    /// `Authorization: Bearer <token>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer: Option<HttpBearerAuth>,
    /// `Authorization: Basic …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A header of its own, such as `X-API-Key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HttpHeaderAuth>,
}

/// A bearer token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpBearerAuth {
    /// Where the token is.
    pub token_secret_ref: SecretKeyRef,
}

/// A header whose value is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHeaderAuth {
    /// Name of the header.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,
    /// Where the value is.
    pub value_secret_ref: SecretKeyRef,
}

fn on() -> bool {
    true
}

impl Settings for HttpSettings {
    fn type_name(&self) -> &'static str {
        "HTTP"
    }

    fn member_name(&self) -> &'static str {
        "http"
    }

    fn validate(&self) -> Vec<Problem> {
        check_request(&self.url, &self.headers, self.auth.as_ref(), self.tls.as_ref())
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        Ok(std::sync::Arc::new(super::Http::try_new(self, &context)?))
    }
}

impl HttpAuth {
    /// Adds what is wrong to `problems`; `headers` are those of the settings.
    pub(crate) fn check(&self, headers: &[HttpHeader], problems: &mut Vec<Problem>) {
        let ways = [self.bearer.is_some(), self.basic.is_some(), self.header.is_some()];
        let count = ways.iter().filter(|way| **way).count();
        if count != 1 {
            problems.push(Problem::new("auth", format!("has {count} members"), "exactly one of bearer, basic, header"));
        }
        if let Some(bearer) = &self.bearer {
            bearer.token_secret_ref.check("auth.bearer.tokenSecretRef", problems);
        }
        if let Some(basic) = &self.basic {
            basic.check("auth.basic", problems);
        }
        if let Some(header) = &self.header {
            header.value_secret_ref.check("auth.header.valueSecretRef", problems);
            check_header_name(&header.name, "auth.header.name", problems);
            check_not_in(headers, &header.name, "auth.header.name", problems);
        }
    }
}

/// Returns what is wrong with what every request is made of.
pub(crate) fn check_request(
    url: &str,
    headers: &[HttpHeader],
    auth: Option<&HttpAuth>,
    tls: Option<&TlsSettings>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    check_url(url, &mut problems);
    check_headers(headers, &mut problems);
    if let Some(auth) = auth {
        auth.check(headers, &mut problems);
    }
    if let Some(tls) = tls {
        tls.check(url.starts_with("https://"), &mut problems);
    }
    problems
}

/// Adds what is wrong with the URL `url` to `problems`.
pub(crate) fn check_url(url: &str, problems: &mut Vec<Problem>) {
    const ALLOWED: &str = "http://host[:port]/path or https://host[:port]/path, without user, password and fragment";
    let mut wrong = |message: &str| problems.push(Problem::new("url", message, ALLOWED));
    // The text is not repeated: a query may hold a key.
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return wrong("does not begin with http:// or https://");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if url.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        wrong("holds a space, a backslash or a control character");
    } else if authority.contains('@') {
        wrong("holds a user or password: use auth");
    } else if authority.is_empty() || authority.starts_with(':') {
        wrong("names no host");
    } else if url.contains('#') {
        wrong("holds a fragment");
    }
}

/// Adds what is wrong with the headers of the settings to `problems`.
fn check_headers(headers: &[HttpHeader], problems: &mut Vec<Problem>) {
    let mut seen: Vec<String> = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        let path = format!("headers[{index}].name");
        check_header_name(&header.name, &path, problems);
        let lower = header.name.to_ascii_lowercase();
        if seen.contains(&lower) {
            problems.push(Problem::new(path, format!("{:?} is there twice", header.name), "each header once"));
        }
        seen.push(lower);
        if !header.value.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b)) {
            let path = format!("headers[{index}].value");
            problems.push(Problem::new(path, "holds a character a header cannot carry", "printable ASCII"));
        }
    }
}

/// Adds to `problems` that the header `name` at `path` is also among those of the settings.
pub(crate) fn check_not_in(headers: &[HttpHeader], name: &str, path: &str, problems: &mut Vec<Problem>) {
    if headers.iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
        problems.push(Problem::new(path, format!("{name:?} is also in headers"), "each header once"));
    }
}

/// Adds to `problems` that `name` cannot be the name of a header of ours.
pub(crate) fn check_header_name(name: &str, path: &str, problems: &mut Vec<Problem>) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        problems.push(Problem::new(path, format!("{name:?} is not the name of a header"), "letters, digits, '-', '_'"));
    } else if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        let message = format!("{name:?} belongs to the protocol or to auth");
        problems.push(Problem::new(path, message, format!("any header but {}", RESERVED_HEADERS.join(", "))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(yaml: serde_json::Value) -> HttpSettings {
        serde_json::from_value(yaml).unwrap()
    }

    fn paths(settings: &HttpSettings) -> Vec<String> {
        settings.validate().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn the_smallest_settings_have_safe_defaults() {
        let settings = settings(serde_json::json!({"url": "https://api.example.test/v1"}));
        assert!(settings.idempotency_key);
        assert_eq!(settings.method, HttpMethod::Post);
        assert_eq!(settings.validate(), []);
    }

    #[test]
    fn urls_that_hide_something_are_refused() {
        for url in [
            "ftp://host/",
            "http://",
            "http:///path",
            "http://:80/",
            "http://user:pw@host/",
            "http://host/#part",
            "http://host/a b",
            "http://host/\r\nX: y",
            "http://host\\@evil/",
        ] {
            assert_eq!(paths(&settings(serde_json::json!({ "url": url }))), ["url"], "{url}");
        }
        for url in ["http://127.0.0.1:80", "https://[::1]:8443/in?x=1@2", "http://host?key=a"] {
            assert_eq!(paths(&settings(serde_json::json!({ "url": url }))), [""; 0], "{url}");
        }
    }

    #[test]
    fn headers_that_would_break_a_request_are_refused() {
        for (name, value, wrong) in [
            ("X-Site", "fab12", None),
            ("X-Site", "a\r\nHost: evil", Some("headers[0].value")),
            ("X-Site", "grün", Some("headers[0].value")),
            ("X Site", "a", Some("headers[0].name")),
            ("", "a", Some("headers[0].name")),
            ("X:Y", "a", Some("headers[0].name")),
            ("HOST", "a", Some("headers[0].name")),
            ("Content-Length", "1", Some("headers[0].name")),
            ("Transfer-Encoding", "chunked", Some("headers[0].name")),
            ("Authorization", "Bearer x", Some("headers[0].name")),
        ] {
            let settings =
                settings(serde_json::json!({"url": "http://host/", "headers": [{"name": name, "value": value}]}));
            assert_eq!(paths(&settings), Vec::from_iter(wrong.map(String::from)), "{name}: {value}");
        }
    }

    #[test]
    fn auth_is_one_way_and_well_formed() {
        let reference = serde_json::json!({"name": "api", "key": "token"});
        let auth = |auth: serde_json::Value| settings(serde_json::json!({"url": "http://host/", "auth": auth}));
        assert_eq!(paths(&auth(serde_json::json!({}))), ["auth"]);
        assert_eq!(paths(&auth(serde_json::json!({"bearer": {"tokenSecretRef": reference}}))), [""; 0]);
        let both = serde_json::json!({
            "bearer": {"tokenSecretRef": reference},
            "basic": {"username": "a:b", "passwordSecretRef": {"name": "../x", "key": "k"}},
        });
        assert_eq!(paths(&auth(both)), ["auth", "auth.basic.passwordSecretRef", "auth.basic.username"]);
    }

    #[test]
    fn unknown_fields_are_refused() {
        let wrong = serde_json::json!({"url": "http://host/", "insecureSkipVerify": true});
        assert!(serde_json::from_value::<HttpSettings>(wrong).is_err());
    }
}
