//! Settings of the `Elasticsearch` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::BasicAuth;
use crate::settings::{Problem, SecretKeyRef, Settings};
use crate::template::{Grammar, Template};
use crate::tls::TlsSettings;

/// Most nodes.
const URLS_MAX: usize = 16;

/// What the name of an index may hold. Elasticsearch takes more; what is left out only makes trouble elsewhere.
pub(super) static GRAMMAR: Grammar = Grammar {
    text_bytes_max: 255,
    value_bytes_max: 200,
    takes_id: false,
    takes_event: true,
    lowers: true,
    literal: is_plain,
    literal_allowed: "lower-case letters, digits and . _ -, not beginning with '.', '_' or '-'",
    value: is_plain,
    noun: "part of the name of an index",
};

fn is_plain(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)
}

/// Creates documents in Elasticsearch or OpenSearch, each event once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ElasticsearchSettings {
    /// The nodes: http or https URLs without user, password and query, all of one kind. They are asked in turn; one that
    /// cannot be reached is passed over.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 8, max = 512), regex(pattern = r"^https?://[^/?#@\s\\]+(/[^?#\s]*)?$")),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub urls: Vec<String>,
    /// Template of the index or data stream: literals, `{date}` and `{hour}` of receipt in UTC, `{namespace}`,
    /// `{pipeline}`, `{route}`, and `{origin.…}` and `{event.…}` behind a prefix of the others. Values are turned to lower
    /// case; an event whose values cannot be part of the name of an index goes to the dead letters.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9{][^\s]*$"))]
    pub index: String,
    /// Says that `index` is a data stream: the index template makes it one, and nothing is sent that would make a plain index.
    #[serde(default)]
    pub data_stream: bool,
    /// Makes an index template for what `index` begins with, unless there is one of that name; without the permission to,
    /// one warning is logged and the server's own mapping used.
    #[serde(default = "on")]
    pub create_template: bool,
    /// How the body of a request is compressed.
    #[serde(default)]
    pub compression: ElasticsearchCompression,
    /// How the agent proves who it is; exactly one way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<ElasticsearchAuth>,
    /// Trust in the server. Certificates are always verified, TLS 1.2 is the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// How the body of a request is compressed: the servers take nothing but gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ElasticsearchCompression {
    /// As it is.
    #[default]
    None,
    /// As gzip.
    Gzip,
}

/// How the agent proves who it is; exactly one of the members.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ElasticsearchAuth {
    /// `Authorization: Basic …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// Where the API key is: as the server encodes it, or `<id>:<key>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
}

fn on() -> bool {
    true
}

impl ElasticsearchSettings {
    /// Returns the parsed template of the index, or what is wrong with it.
    pub(super) fn template(&self) -> Result<Template, Problem> {
        const ALLOWED: &str = "a beginning of lower-case letters and digits, {namespace}, {pipeline} or {route}";
        let template = Template::parse(&self.index, &GRAMMAR)
            .map_err(|error| Problem::new("index", error.to_string(), error.allowed(&GRAMMAR)))?;
        if self.index.starts_with(['.', '_', '-']) {
            return Err(Problem::new("index", "begins with what only the server's own indices may", ALLOWED));
        }
        if self.create_template && !template.pieces().first().is_some_and(crate::template::Piece::is_fixed) {
            let message = "begins with what changes, so that an index template for it would be one for every index";
            return Err(Problem::new("index", message, format!("{ALLOWED}, or createTemplate: false")));
        }
        Ok(template)
    }

    fn is_https(&self) -> bool {
        self.urls.first().is_some_and(|url| url.starts_with("https://"))
    }

    fn check_urls(&self, problems: &mut Vec<Problem>) {
        if !(1..=URLS_MAX).contains(&self.urls.len()) {
            problems.push(Problem::new("urls", format!("has {} entries", self.urls.len()), "1 to 16"));
        }
        for (index, url) in self.urls.iter().enumerate() {
            let mut wrong = |message: &str| {
                const ALLOWED: &str = "http://host[:port][/path] or https://host[:port][/path], without user, password, \
                                       query and fragment; all http or all https";
                problems.push(Problem::new(format!("urls[{index}]"), message, ALLOWED));
            };
            // The text is not repeated: it may hold what it must not.
            let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
                wrong("does not begin with http:// or https://");
                continue;
            };
            let authority = rest.split('/').next().unwrap_or_default();
            if url.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
                wrong("holds a space, a backslash or a control character");
            } else if rest.contains(['?', '#']) {
                wrong("holds a query or a fragment");
            } else if authority.contains('@') {
                wrong("holds a user or password: use auth");
            } else if authority.is_empty() || authority.starts_with(':') {
                wrong("names no host");
            } else if url.starts_with("https://") != self.is_https() {
                wrong("is of another kind than the first");
            }
        }
    }

    fn check_auth(&self, problems: &mut Vec<Problem>) {
        let Some(auth) = &self.auth else {
            return;
        };
        let count = usize::from(auth.basic.is_some()) + usize::from(auth.api_key_secret_ref.is_some());
        if count != 1 {
            problems.push(Problem::new(
                "auth",
                format!("has {count} members"),
                "exactly one of basic, apiKeySecretRef",
            ));
        }
        if let Some(basic) = &auth.basic {
            basic.check("auth.basic", problems);
        }
        if let Some(key) = &auth.api_key_secret_ref {
            key.check("auth.apiKeySecretRef", problems);
        }
    }
}

impl Settings for ElasticsearchSettings {
    fn type_name(&self) -> &'static str {
        "Elasticsearch"
    }

    fn member_name(&self) -> &'static str {
        "elasticsearch"
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_urls(&mut problems);
        problems.extend(self.template().err());
        self.check_auth(&mut problems);
        if let Some(tls) = &self.tls {
            tls.check(self.is_https(), &mut problems);
        }
        problems
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        Ok(std::sync::Arc::new(super::Elasticsearch::try_new(self, context)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(yaml: serde_json::Value) -> Vec<String> {
        let settings: ElasticsearchSettings = serde_json::from_value(yaml).unwrap();
        settings.validate().into_iter().map(|problem| problem.path).collect()
    }

    fn with_index(index: &str) -> Vec<String> {
        paths(serde_json::json!({"urls": ["https://es:9200"], "index": index}))
    }

    #[test]
    fn the_smallest_settings_are_fine() {
        assert_eq!(with_index("jobs"), [""; 0]);
        let settings = serde_json::json!({"urls": ["http://a:9200", "http://b/es"], "index": "jobs-{date}"});
        let settings: ElasticsearchSettings = serde_json::from_value(settings).unwrap();
        assert!(settings.create_template && !settings.data_stream);
        assert_eq!((settings.compression, settings.validate()), (ElasticsearchCompression::None, vec![]));
    }

    #[test]
    fn names_of_indices_that_leave_their_prefix_or_cannot_be_are_refused() {
        for index in [
            "",
            "Jobs",
            "jobs,other",
            "jobs*",
            "<jobs-{now/d}>",
            "jobs-{now}",
            ".jobs",
            "_all",
            "-jobs",
            "+jobs",
            "jobs/_doc",
            "jobs\n",
            "a:b",
            "jobs-{id}",
            "{event.index}",
            "{origin.app}-x",
            "{date}-jobs",
        ] {
            assert_eq!(with_index(index), ["index"], "{index:?}");
        }
        for index in ["jobs-{date}", "{namespace}-{origin.app}", "a.b_c-{event.kind}", "{pipeline}-{hour}"] {
            assert_eq!(with_index(index), [""; 0], "{index:?}");
        }
        let without = serde_json::json!({"urls": ["http://es"], "index": "{date}-jobs", "createTemplate": false});
        assert_eq!(paths(without), [""; 0]);
    }

    #[test]
    fn urls_that_hide_something_or_are_of_two_kinds_are_refused() {
        for url in [
            "es:9200",
            "ftp://es",
            "https://",
            "https://:9200",
            "https://user:pw@es",
            "https://es/?key=x",
            "https://es/#x",
            "https://e s",
            "https://es\\@evil",
            "https://es/\r\nX: y",
        ] {
            let found = paths(serde_json::json!({"urls": ["https://fine:9200", url], "index": "jobs"}));
            assert_eq!(found, ["urls[1]"], "{url:?}");
        }
        assert_eq!(paths(serde_json::json!({"urls": ["https://a", "http://b"], "index": "x"})), ["urls[1]"]);
        assert_eq!(paths(serde_json::json!({"urls": [], "index": "x"})), ["urls"]);
    }

    #[test]
    fn auth_is_one_way_and_a_ca_wants_https() {
        let key = serde_json::json!({"name": "es", "key": "key"});
        let auth =
            |auth: serde_json::Value| paths(serde_json::json!({"urls": ["http://a"], "index": "x", "auth": auth}));
        assert_eq!(auth(serde_json::json!({})), ["auth"]);
        assert_eq!(auth(serde_json::json!({"apiKeySecretRef": key})), [""; 0]);
        assert_eq!(auth(serde_json::json!({"basic": {"username": "a", "passwordSecretRef": key}})), [""; 0]);
        let both = serde_json::json!({"apiKeySecretRef": key, "basic": {"username": "a:b", "passwordSecretRef": key}});
        assert_eq!(auth(both), ["auth", "auth.basic.username"]);
        let tls = serde_json::json!({"urls": ["http://a"], "index": "x", "tls": {"caSecretRef": key}});
        assert_eq!(paths(tls), ["tls"]);
    }
}
