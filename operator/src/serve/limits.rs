//! The bounds of the endpoint that agents ask, in one place. Those of bodies are the protocol's:
//! [`ASK_BYTES_MAX`](spillway_crds::served::ASK_BYTES_MAX),
//! [`SIDECAR_ASK_BYTES_MAX`](spillway_crds::served::SIDECAR_ASK_BYTES_MAX), [`ANSWER_BYTES_MAX`](spillway_crds::served::ANSWER_BYTES_MAX),
//! [`WAIT_SECONDS_MAX`](spillway_crds::served::WAIT_SECONDS_MAX).

use std::time::Duration;

/// Most connections at a time: twice the 5,000 nodes of the largest cluster that Kubernetes promises to carry.
pub const CONNECTIONS_MAX: usize = 10_240;

/// Most of them of sidecars, which come with as many pods as there are: the other half is for the agents of nodes, one of which
/// serves a whole node.
pub const SIDECAR_CONNECTIONS_MAX: usize = CONNECTIONS_MAX / 2;

/// Most connections of one sidecar: the one over which it asks, and one more while that ends. A further one ends the oldest.
pub const SIDECAR_CONNECTIONS_EACH: usize = 2;

/// Most of them from one address: a node full of pods with sidecars, where their addresses are hidden behind its own.
pub const ADDRESS_CONNECTIONS_MAX: usize = 512;

/// Most bytes of asks in memory while they are read: those of hundreds of agents at once, which are of some kilobytes.
pub const BODIES_BYTES_MAX: usize = 16 << 20;

/// The same for asks of sidecars, beside it: 256 as large as they can be.
pub const SIDECAR_BODIES_BYTES_MAX: usize = 8 << 20;

/// Most bytes of asks in memory from one address, of agents and of sidecars.
pub const ADDRESS_BODIES_BYTES_MAX: usize = 4 << 20;

/// Most asks that wait at a time.
pub const POLLS_MAX: usize = 10_240;

/// Most of them of sidecars, as with connections.
pub const SIDECAR_POLLS_MAX: usize = POLLS_MAX / 2;

/// Most requests at a time of one HTTP/2 connection. An agent needs one, and a second one to end the first.
pub const STREAMS_MAX: u32 = 8;

/// Most bytes of the headers of a request, the token among them.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;

/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the headers of a request may take, and an idle HTTP/1.1 connection rest.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may rest over which something was asked before; pings do not count. An agent that has nothing to say asks
/// again at once. An answer that is not taken within twice that is cut off.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long the body of a request may take.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an HTTP/2 connection is asked whether it is still there.
pub const PING_EVERY: Duration = Duration::from_secs(20);

/// How long it may take to answer that.
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long connections may take to end when the process stops.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Most bytes, before compression, of an answer that is encoded by the thread that drives its connection: about a millisecond's
/// work. It is written in the same turn, so that of a thousand answers at once not more are in memory than there are threads, but
/// for those whose sockets are full.
pub const ENCODED_IN_PLACE_BYTES_MAX: usize = 128 * 1024;

/// Most larger answers that are encoded at a time, each in a thread of its own; each holds up to
/// [`ANSWER_BYTES_MAX`](spillway_crds::served::ANSWER_BYTES_MAX), so 128 MiB in the worst case.
pub const ENCODERS_MAX: usize = 4;

/// How often a line about refusals of one reason is logged.
pub const TOLD_EVERY: Duration = Duration::from_secs(1);
