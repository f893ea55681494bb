//! The agent as a process, in the situations it was built for.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a scenario that cannot go on says so, and tells its seed"
)]

mod cluster;
mod disk;
mod failover;
mod failover_edits;
mod fixtures;
mod input;
mod kills;
mod letters;
mod live;
mod memory;
mod over_http;
mod over_lines;
mod over_syslog;
mod pod_logs;
mod process;
mod receivers;
mod replay;
