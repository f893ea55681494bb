//! What a hand-made API server says. Tests have one where the real one cannot be made to do what they need: to stop in the
//! middle, or to be asked for thirty years in a second.
//!
//! It must not know: what any of them holds.

use kube::client::Body;
use serde_json::{Value, json};

/// Returns an answer with that object.
pub(super) fn answer(code: u16, body: &Value) -> http::Response<Body> {
    http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}

/// Returns a refusal.
pub(super) fn refused(code: u16, reason: &str) -> http::Response<Body> {
    answer(code, &json!({"kind": "Status", "status": "Failure", "message": reason, "reason": reason, "code": code}))
}
