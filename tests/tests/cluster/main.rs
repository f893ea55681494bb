//! Agent and operator on the nodes of a real Kubernetes: `cargo xtask cluster test`.
//!
//! The cluster runs already, its nodes have the images, and the release of README.md is installed. What a test makes there
//! is in a namespace of its own, and goes with the test; the destination is this process, which pods reach at the machine's
//! address.

#![expect(clippy::unwrap_used, reason = "a scenario that cannot go on says so")]

mod container_logs;
mod door;
mod full_disk;
mod ground;
mod lost_parts;
mod many_pods;
mod quick_start;
mod release;
mod sidecars;
mod upgrades;
