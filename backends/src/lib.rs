//! Every destination of Spillway, one folder each, and the one list of them.
//!
//! A backend is a folder `<name>/` (`settings.rs`, `encode.rs` pure, `client.rs` I/O, `page.md`, `full.yaml`) plus four
//! lines in this file, each marked `LIST`. From the list follow the schema, the compiler's checks, `build`, the reference
//! and its manifests, and what the conformance suite wants a destination for.
//!
//! | what several backends share | |
//! | --- | --- |
//! | [`template`] | text with places that events fill |
//! | `auth`, `tls` | proving who one is; trust in a server |
//! | `destinations` | where a tenant's backend may connect to |
//! | `http_client`, `answer` | the HTTP client and what answers say |
//! | `compress` | bodies |
//! | `secrets`, `redact` | where secrets come from, and that they show nowhere |
//!
//! Without the feature `client` this crate is settings and their checks alone: no client library, no engine. The
//! operator and the command line are built so.

#[cfg(feature = "client")]
mod answer;
mod auth;
#[cfg(feature = "client")]
mod compress;
#[cfg(feature = "client")]
mod context;
#[cfg(feature = "client")]
pub mod destinations;
#[cfg(feature = "client")]
mod http_client;
#[cfg(feature = "client")]
mod redact;
#[cfg(feature = "client")]
mod secrets;
mod settings;
pub mod template;
mod tls;

// LIST 1 of 4: the folder.
pub mod blackhole;
pub mod elasticsearch;
pub mod filesystem;
pub mod http;
pub mod managed_api;
pub mod s3;
pub mod stdout;
pub mod webhook;

pub use auth::BasicAuth;
#[cfg(feature = "client")]
pub use context::{BODIES_KEPT_BYTES_MAX, BuildContext, BuildError, build};
#[cfg(feature = "client")]
pub use destinations::Destinations;
#[cfg(feature = "client")]
pub use redact::Secrets;
#[cfg(feature = "client")]
pub use secrets::{SecretDir, SecretEnv, SecretError, SecretSource};
pub use settings::{Compression, Problem, SecretKeyRef, Settings, is_secret_member};
pub use tls::TlsSettings;

// LIST 2 of 4: the settings' type.
pub use blackhole::BlackholeSettings;
pub use elasticsearch::ElasticsearchSettings;
pub use filesystem::FilesystemSettings;
pub use http::HttpSettings;
pub use managed_api::ManagedApiSettings;
pub use s3::S3Settings;
pub use stdout::StdoutSettings;
pub use webhook::WebhookSettings;

/// Every type, in the order of the alphabet: `module: Variant(Settings) as "type" in "member", needed or optional`, below
/// what it is in a few words. LIST 3 and 4 of 4: two lines.
///
/// Calls the macro that it is given with the rows, so that whatever follows from the list is written once, where it is
/// used.
#[macro_export]
macro_rules! backend_list {
    ($then:ident) => {
        $then! {
            /// takes everything, keeps nothing
            blackhole: Blackhole(BlackholeSettings) as "Blackhole" in "blackhole", optional;
            /// documents in Elasticsearch or `OpenSearch`
            elasticsearch: Elasticsearch(ElasticsearchSettings) as "Elasticsearch" in "elasticsearch", needed;
            /// NDJSON files below a directory
            filesystem: Filesystem(FilesystemSettings) as "Filesystem" in "filesystem", optional;
            /// requests to an endpoint, a batch or an event each
            http: Http(HttpSettings) as "HTTP" in "http", needed;
            /// a managed ingest service, told by its URL and a token
            managed_api: ManagedApi(ManagedApiSettings) as "ManagedAPI" in "managedAPI", needed;
            /// NDJSON objects in a bucket
            s3: S3(S3Settings) as "S3" in "s3", needed;
            /// the agent's standard output
            stdout: Stdout(StdoutSettings) as "Stdout" in "stdout", optional;
            /// one request per event in a form of its own, signed
            webhook: Webhook(WebhookSettings) as "Webhook" in "webhook", needed;
        }
    };
}

macro_rules! declare {
    ($(#[doc = $what:literal] $module:ident: $variant:ident($settings:ident) as $type:literal in $member:literal, $need:ident;)*) => {
        /// The settings of one backend, of whatever type.
        #[derive(Debug, Clone, PartialEq)]
        pub enum BackendSettings {
            $(#[doc = $what] $variant($settings),)*
        }

        impl BackendSettings {
            /// The rows of the list, in the order of the alphabet.
            pub const LIST: &'static [BackendRow] = &[$(BackendRow {
                type_name: $type,
                member_name: $member,
                member_needed: needed!($need),
                module: stringify!($module),
                what: $what,
            },)*];

            /// Returns the settings behind their common face.
            pub fn inner(&self) -> &dyn Settings {
                match self {
                    $(Self::$variant(settings) => settings,)*
                }
            }

            /// Returns the secret keys the backend will ask for.
            pub fn secrets(&self) -> Vec<SecretKeyRef> {
                match self {
                    $(Self::$variant(settings) => settings::secrets_in(settings),)*
                }
            }
        }
    };
}

macro_rules! needed {
    (needed) => {
        true
    };
    (optional) => {
        false
    };
}

backend_list!(declare);

/// One row of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendRow {
    /// The name users write as `type` (`Filesystem`).
    pub type_name: &'static str,
    /// The name of the member that holds the settings (`filesystem`).
    pub member_name: &'static str,
    /// Whether the member must be there, because not all of it has a default.
    pub member_needed: bool,
    /// The folder below `backends/src`.
    pub module: &'static str,
    /// What it is, in a few words.
    pub what: &'static str,
}

impl BackendSettings {
    /// Returns the names users write as `type`, in the order of the alphabet.
    pub fn type_names() -> impl Iterator<Item = &'static str> {
        Self::LIST.iter().map(|row| row.type_name)
    }

    /// Returns the name users write as `type` (`Filesystem`).
    pub fn type_name(&self) -> &'static str {
        self.inner().type_name()
    }

    /// Returns the name of the member that holds the settings (`filesystem`).
    pub fn member_name(&self) -> &'static str {
        self.inner().member_name()
    }

    /// Returns what is wrong beyond what the schema can say; empty when nothing is.
    pub fn validate(&self) -> Vec<Problem> {
        self.inner().validate()
    }
}
