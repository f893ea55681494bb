//! Every destination of Spillway, one folder each, and the one list of them.
//!
//! A backend is a folder `<name>/` (`settings.rs`, `encode.rs` pure, `client.rs` I/O, tests) plus four lines in this
//! file, each marked `LIST`. From the list follow the schema, the compiler's checks, [`build`] and the conformance suite.
//!
//! | what several backends share | |
//! | --- | --- |
//! | [`template`] | text with places that events fill |
//! | `auth`, `tls` | proving who one is; trust in a server |
//! | `http_client`, `answer` | the HTTP client and what answers say |
//! | `compress`, `secrets` | bodies; where secrets come from |
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
mod http_client;
#[cfg(feature = "client")]
mod secrets;
mod settings;
pub mod template;
mod tls;

// LIST 1 of 4: the folder.
pub mod blackhole;
pub mod filesystem;
pub mod http;
pub mod stdout;

pub use auth::BasicAuth;
#[cfg(feature = "client")]
pub use context::{BuildContext, BuildError, build};
#[cfg(feature = "client")]
pub use secrets::{SecretDir, SecretEnv, SecretError, SecretSource};
pub use settings::{Compression, Problem, SecretKeyRef, Settings};
pub use tls::TlsSettings;

// LIST 2 of 4: the settings' type.
pub use blackhole::BlackholeSettings;
pub use filesystem::FilesystemSettings;
pub use http::HttpSettings;
pub use stdout::StdoutSettings;

/// The settings of one backend, of whatever type. LIST 3 of 4: the variant.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful per process; a box would be in every user's way")]
pub enum BackendSettings {
    /// Takes everything and keeps nothing.
    Blackhole(BlackholeSettings),
    /// Files below a directory.
    Filesystem(FilesystemSettings),
    /// An HTTP endpoint.
    Http(HttpSettings),
    /// The standard output of the agent.
    Stdout(StdoutSettings),
}

impl BackendSettings {
    /// The names users write as `type`, in the order of the alphabet.
    pub const TYPE_NAMES: [&'static str; 4] = ["Blackhole", "Filesystem", "HTTP", "Stdout"];

    /// Returns the settings behind their common face. LIST 4 of 4: the arm.
    pub fn inner(&self) -> &dyn Settings {
        match self {
            Self::Blackhole(settings) => settings,
            Self::Filesystem(settings) => settings,
            Self::Http(settings) => settings,
            Self::Stdout(settings) => settings,
        }
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

    /// Returns the secret keys the backend will ask for.
    pub fn secrets(&self) -> Vec<&SecretKeyRef> {
        self.inner().secrets()
    }
}
