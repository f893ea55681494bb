//! The engine at run time: pipelines with their logs, and the loop that reads a log and resolves every item.

mod engine;

pub use engine::{DeliverySpec, Engine, EngineError, EngineSettings};
