//! The agent and real servers: what is sent is read back from the server itself.
//!
//! Each test starts the servers it needs from the cache (`cargo xtask servers` fills it) and ends them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a scenario that cannot go on says so, and tells its figures"
)]

mod alerts;
mod charts;
mod command_line;
mod crds;
mod door;
mod drift;
mod events;
mod injection;
mod operator;
mod otlp;
mod releases;
mod repair;
mod s3;
mod s3_machine_keys;
mod search;
mod search_certificates;
mod search_failover;
mod search_streams;
mod search_throttled;
mod sidecar;
mod syslog;
mod webhook;
