//! The agent as a process, in the situations it was built for.

mod disk;
mod fixtures;
mod input;
mod kills;
mod pod_logs;
mod process;
mod receivers;
