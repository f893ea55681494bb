//! Where data comes from. Each source makes batches, submits them to the intake, and learns what became of them.

pub mod container_logs;
pub mod files;
pub mod grpc;
pub mod http;
pub mod ndjson;
mod otlp;
pub mod pushed;
pub mod syslog;
pub mod tail;
#[cfg(test)]
mod testing;
