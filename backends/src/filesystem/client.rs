//! The backend over the files: one blocking step at a time, off the reactor's threads.
//!
//! The state is behind one lock that the blocking step itself holds, on its thread, to its end. So a step whose caller
//! went away is over before the next begins, and since nobody acknowledged its batch, the next one takes it back.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use spillway_delivery::backend::{Backend, Fault, FaultKind, Items, Mark, OutBatch, Traits};
use spillway_delivery::settings::Metadata;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::encode::Places;
use super::outputs::{Limits, Outputs};
use super::path::{GRAMMAR, PathTemplate};
use super::recover::{self, Config};
use super::settings::FilesystemSettings;
use crate::settings::Problem;
use crate::{BuildContext, BuildError};

/// Writes files below a directory.
#[derive(Debug)]
pub struct Files {
    config: Arc<Config>,
    metadata: Metadata,
    /// `None` until it is opened, and after it is closed.
    state: Arc<Mutex<Option<Outputs>>>,
}

type State = OwnedMutexGuard<Option<Outputs>>;

impl Files {
    /// Returns the backend; no file is touched before it is opened.
    pub fn try_new(settings: &FilesystemSettings, context: BuildContext) -> Result<Self, BuildError> {
        let template = PathTemplate::parse(&settings.file).map_err(|error| {
            BuildError::Settings(vec![Problem::new("file", error.to_string(), error.allowed(&GRAMMAR))])
        })?;
        if settings.is_absolute() && !context.allow_absolute {
            return Err(BuildError::AbsoluteDirectory(settings.directory.clone().unwrap_or_default()));
        }
        let compression = settings.compression;
        let config = Config {
            places: Places::new(template, &context.name, compression).rotated(settings.rotate.every_seconds),
            root: context.filesystem_root,
            directory: settings.directory.clone(),
            allow_absolute: context.allow_absolute,
            name: context.name,
            limits: Limits { rotate_bytes: settings.rotate.max_bytes, keep: settings.rotate.keep, compression },
        };
        Ok(Self { config: Arc::new(config), metadata: context.metadata, state: Arc::default() })
    }

    /// Runs one step where it may block. The state comes back with the result.
    async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Config, &mut Option<Outputs>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<(State, T), Fault> {
        let config = self.config.clone();
        let mut state = self.state.clone().lock_owned().await;
        let ran = tokio::task::spawn_blocking(move || step(&config, &mut state).map(|value| (state, value)));
        ran.await.unwrap_or_else(|_| Err(Fault::new(FaultKind::Local, "the process is ending")))
    }
}

impl Backend for Files {
    /// # Cancel safety
    /// What a cancelled call wrote is taken back before anything else is written or committed.
    fn send<'a>(&'a self, batch: &'a OutBatch) -> BoxFuture<'a, Result<Items, Fault>> {
        Box::pin(async move {
            let (batch, metadata) = (batch.clone(), self.metadata);
            let write = move |config: &Config, state: &mut Option<Outputs>| {
                opened(state)?.write(&batch, &config.places, metadata)
            };
            let (mut state, items) = self.step(write).await?;
            opened(&mut state)?.acknowledge();
            Ok(items)
        })
    }

    fn traits(&self) -> Traits {
        Traits { ordered: true, commits: true, local: true, ..Traits::default() }
    }

    fn open(&self, mark: Option<Mark>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let reopen = move |config: &Config, state: &mut Option<Outputs>| {
                // The locks of the former state go first.
                *state = None;
                *state = Some(recover::open(config, mark.as_deref())?);
                Ok(())
            };
            self.step(reopen).await.map(drop)
        })
    }

    fn commit(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(async move {
            let commit = |config: &Config, state: &mut Option<Outputs>| {
                store(&opened(state)?.commit(config.directory.as_deref(), &config.places)?)
            };
            Ok(Some(self.step(commit).await?.1))
        })
    }

    fn checkpoint(&self) -> BoxFuture<'_, Result<Option<Mark>, Fault>> {
        Box::pin(async move {
            let checkpoint = |config: &Config, state: &mut Option<Outputs>| {
                store(&opened(state)?.checkpoint(config.directory.as_deref(), &config.places)?)
            };
            Ok(Some(self.step(checkpoint).await?.1))
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let close = |_: &Config, state: &mut Option<Outputs>| {
                if let Some(mut outputs) = state.take() {
                    outputs.undo()?;
                }
                Ok(())
            };
            if let Err(fault) = self.step(close).await {
                tracing::warn!(%fault, "what was not acknowledged is cut off at the next start");
            }
        })
    }
}

fn opened(state: &mut Option<Outputs>) -> Result<&mut Outputs, Fault> {
    state.as_mut().ok_or_else(|| Fault::new(FaultKind::Local, "the files are not open"))
}

fn store(mark: &super::mark::Mark) -> Result<Mark, Fault> {
    let stored = serde_json::to_vec(mark);
    stored.map(Bytes::from).map_err(|_| Fault::new(FaultKind::Local, "the mark cannot be written"))
}
