//! What all sources of pushed events share: who may listen and how, who sends, which pipelines take it, and how lines become
//! events.
//!
//! # What it must not know
//! How events travel: HTTP, lines over TCP and a Unix socket, or syslog.

pub(crate) mod accepts;
pub(crate) mod budget;
pub(crate) mod events;
pub mod own_pod;
pub(crate) mod pace;
pub(crate) mod places;
pub(crate) mod reading;
#[cfg(test)]
pub(crate) mod recorder;
pub mod security;
pub(crate) mod sender;
pub(crate) mod strangers;
pub(crate) mod tally;
pub mod targets;
mod token;

pub use token::TokenError;
