//! The answer to a pod that is created: with its sidecar, where it asks for one.
//!
//! Expected flow: an API server posts an `AdmissionReview`; [`review`] answers it by [`inject`](spillway_crds::inject).
//! [`endpoint`](crate::validate::endpoint) carries the two, [`Sidecars`] holds what sidecars are made of.
//!
//! # Guarantees
//! - A pod is never refused: it is given a sidecar, or stays as it is and its author is warned.
//! - Settings that are of no use end no process: they change nothing, and where there were none no pod is given a sidecar.
//! - A pure function of the request, of what sidecars are made of and of what is known: nothing is asked and nothing written, so
//!   that a dry run gets the same answer.
//!
//! # It must not know
//! The API server, agents, what a pipeline holds.
//!
//! # Limits
//! Those of [`review`](crate::review). What sidecars are made of has [`FILE_BYTES_MAX`] a file, and is
//! looked at every [`LOOK_EVERY`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use spillway_crds::inject::{Injection, Injector, Reason, Settings, SettingsError, without_settings};
use spillway_crds::words;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::repair::Made;
use crate::review::{Answered, Request, ReviewError, read};
use crate::validate::Known;

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Most bytes that are read of a file.
pub const FILE_BYTES_MAX: u64 = 128 * 1024;

/// What is said while none can be made.
const NO_SIDECARS: &str = "no pod is given a sidecar";

/// What is done with a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Answers a review of a pod and says what became of that. Without an `injector` no pod is given a sidecar. What a namespace has
/// is looked up in `known`; `None` is not known yet.
pub fn review(
    body: &[u8],
    injector: Option<&Injector>,
    known: Option<&Known>,
) -> Result<(Answered<Answer>, Reason), ReviewError> {
    let request = read(body)?;
    let Injection { patch, warnings, reason } = match created(&request) {
        Some(pod) => {
            let offer = known.map(|known| known.offer(request.namespace.as_deref().unwrap_or_default()));
            match injector {
                Some(injector) => injector.inject(pod.get(), offer.as_ref()),
                None => without_settings(pod.get(), offer.as_ref()),
            }
        }
        None => Injection { patch: Vec::new(), warnings: Vec::new(), reason: Reason::NotAsked },
    };
    // Text alone is written, and that cannot fail.
    let patch = (!patch.is_empty()).then(|| STANDARD.encode(serde_json::to_vec(&patch).unwrap_or_default()));
    let patch_type = patch.is_some().then_some("JSONPatch");
    Ok((Answered::new(Answer { uid: request.uid, allowed: true, patch_type, patch, warnings }), reason))
}

/// Returns the pod of a request that creates one.
fn created<'a>(request: &Request<&'a RawValue>) -> Option<&'a RawValue> {
    let is_pod = request.resource.group.is_empty() && request.resource.resource == "pods";
    request.object.filter(|_| is_pod && request.is_whole() && request.operation == "CREATE")
}

/// Why nothing is known of what sidecars are made of.
#[derive(Debug, thiserror::Error)]
pub enum SidecarsError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it holds is of no use.
    #[error("no sidecar can be made")]
    Use(#[source] SettingsError),
}

/// What sidecars are made of: two files, read again when they change.
#[derive(Debug)]
pub struct Sidecars {
    settings: PathBuf,
    authorities: PathBuf,
    /// `None` as long as the files were of no use.
    shown: RwLock<Option<Shown>>,
}

#[derive(Debug)]
struct Shown {
    texts: [String; 2],
    injector: Arc<Injector>,
}

impl Shown {
    fn read(settings: &Path, authorities: &Path) -> Result<Self, SidecarsError> {
        let texts = [text_of(settings)?, text_of(authorities)?];
        let made = Settings::read(&texts[0]).and_then(|settings| Injector::try_new(settings, &texts[1]));
        Ok(Self { injector: Arc::new(made.map_err(SidecarsError::Use)?), texts })
    }
}

impl Sidecars {
    /// Reads the settings (JSON) and the certificate authorities (PEM) of two files. Where they are of no use that is said, and no
    /// pod is given a sidecar until they are.
    pub fn open(settings: &Path, authorities: &Path) -> Self {
        let shown = Shown::read(settings, authorities);
        let shown = shown.inspect_err(|error| tracing::error!(error = words::of_error(error), "{NO_SIDECARS}")).ok();
        Self { settings: settings.to_owned(), authorities: authorities.to_owned(), shown: RwLock::new(shown) }
    }

    /// Returns what gives sidecars now; `None` where none can be made.
    pub fn injector(&self) -> Option<Arc<Injector>> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        shown.as_ref().map(|shown| Arc::clone(&shown.injector))
    }

    /// Reads the files again; returns whether they are others. What cannot be used changes nothing.
    pub fn look(&self) -> Result<bool, SidecarsError> {
        let found = Shown::read(&self.settings, &self.authorities)?;
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = shown.as_ref().is_none_or(|shown| shown.texts != found.texts);
        *shown = Some(found);
        Ok(is_other)
    }

    /// Says what goes on where the files are of no use.
    fn as_before(&self) -> &'static str {
        if self.injector().is_some() { "sidecars are made as before" } else { NO_SIDECARS }
    }

    /// Looks again and again, until told to stop.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut told = String::new();
        while stop.run_until_cancelled(sleep_until(Instant::now() + LOOK_EVERY)).await.is_some() {
            match self.look() {
                Ok(is_other) => {
                    told.clear();
                    if is_other {
                        tracing::info!("sidecars are made otherwise from now on");
                    }
                }
                Err(error) => {
                    let text = words::of_error(&error);
                    if text != told {
                        tracing::warn!(error = text, "{}", self.as_before());
                        told = text;
                    }
                }
            }
        }
    }
}

/// Reads what sidecars are made of from a file again and again, until told to stop; what cannot be used changes nothing.
pub async fn follow(path: PathBuf, out: watch::Sender<Option<Arc<Made>>>, stop: CancellationToken) {
    let mut told = String::new();
    loop {
        match text_of(&path).and_then(|text| Settings::read(&text).map_err(SidecarsError::Use)) {
            Ok(settings) => {
                told.clear();
                out.send_if_modified(|known| is_made_otherwise(known, settings));
            }
            Err(error) => {
                let text = words::of_error(&error);
                if text != told {
                    tracing::warn!(error = text, "what sidecars are made of is as it was");
                    told = text;
                }
            }
        }
        if stop.run_until_cancelled(sleep_until(Instant::now() + LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Puts what sidecars are made of now; returns whether that is something else.
fn is_made_otherwise(known: &mut Option<Arc<Made>>, settings: Settings) -> bool {
    let made = Made { revision: settings.revision().into(), settings };
    if known.as_deref() == Some(&made) {
        return false;
    }
    tracing::info!(revision = &*made.revision, "sidecars are made so from now on");
    *known = Some(Arc::new(made));
    true
}

fn text_of(path: &Path) -> Result<String, SidecarsError> {
    let failed = |source| SidecarsError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(failed)?.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests;
