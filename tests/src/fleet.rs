//! A cluster of many nodes without nodes: a real API server that holds as many objects as a large cluster, the real operator,
//! and agents that speak the real protocol and run nothing.
//!
//! | module | holds |
//! | --- | --- |
//! | [`api`] | requests to the API server, and how many it had |
//! | [`objects`] | nodes, pods, namespaces, pipelines |
//! | [`agents`] | the stubs, each with a token of its own pod and a connection of its own |
//!
//! Stubs are what cannot be had: a thousand real agents. They ask, take what is newer and acknowledge it with the next
//! question, as an agent does; they do not compile it.

pub mod agents;
pub mod api;
pub mod objects;
