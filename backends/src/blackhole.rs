//! `Blackhole`: takes everything, keeps nothing, counts. For measuring the agent itself.

#[cfg(feature = "client")]
mod client;
mod settings;

pub use settings::BlackholeSettings;

#[cfg(feature = "client")]
pub use client::Blackhole;
