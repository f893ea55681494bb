//! The conformance suite: what every backend owes the engine, written once against the seam and run over the list.
//!
//! | module | holds |
//! | --- | --- |
//! | `batches` | batches, contexts and a seeded source of chance |
//! | `bucket` | a hand-made S3 |
//! | `destinations` | one real destination per type of the list, and how to read back what arrived |
//! | `suite` | the checks that every backend passes |
//! | `model` | the files against a model: crashes, cancels, torn tails, exactly once |
//! | `forbidden` | where a tenant's backend may not connect to |
//! | `hostile_files` | names and places that must not be written |
//! | `server` | an HTTP server that does as it is told, TLS included |
//! | `hostile_http` | what servers do wrong |
//! | `managed_api`, `webhook` | what these two add to `HTTP` |
//! | `hostile_s3` | what stores do wrong, and how objects stay single |
//! | `over_http` | every type that speaks HTTP, and what all of them owe |
//! | `drip` | the engine over all of them, and servers whose answers drip |
//! | `tls` | whom those trust |
//! | `hostile_echo`, `log` | servers that repeat secrets; what was logged |
//! | `encoding` | which settings change how a planned batch is written |
//! | `bulk` | a server made by hand that takes bulk requests |
//! | `hostile_elasticsearch` | what such servers do wrong |
//! | `hostile_elasticsearch_streams` | such servers without the data streams that events shall go to |

#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "the whole crate is tests: what cannot be had ends the test"
)]

mod batches;
mod bucket;
mod bulk;
mod destinations;
mod drip;
mod encoding;
mod forbidden;
mod hostile_echo;
mod hostile_elasticsearch;
mod hostile_elasticsearch_streams;
mod hostile_files;
mod hostile_http;
mod hostile_s3;
mod log;
mod managed_api;
mod model;
mod over_http;
mod server;
mod suite;
mod tls;
mod webhook;
