//! The agent and real servers: what is sent is read back from the server itself.
//!
//! Each test starts the servers it needs from the cache (`cargo xtask servers` fills it) and ends them.

mod alerts;
