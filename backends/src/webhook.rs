//! `Webhook`: one request per event in a form of its own, signed; what carries it is `HTTP`'s.
//!
//! # Guarantees
//! - What a `body` template renders is JSON, whatever is in the event: values are escaped where they stand in a string and
//!   are values of JSON where they stand alone.
//! - With `signature` every request carries an HMAC-SHA256 over its time and its body, by the secret as it is then.
//! - The key of a request is the id of its event, the same for every attempt.
//!
//! # Limits
//! [`BODY_BYTES_MAX`](template::BODY_BYTES_MAX) of a rendered body; an event whose body would be larger is rejected. The
//! rest is that of `HTTP` with one request per event.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod render;
mod settings;
#[cfg(feature = "client")]
mod sign;
mod template;

pub use settings::{WebhookSettings, WebhookSignature};

#[cfg(feature = "client")]
pub use client::Webhook;
