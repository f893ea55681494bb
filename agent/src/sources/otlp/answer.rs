//! What a client reads of a request: what was refused of it, or why nothing was kept.

use std::time::Duration;

use spillway_delivery::event::EVENT_BYTES_MAX;

use super::wire::{put_bytes, put_number};
use super::write::{DEPTH_MAX, Refusal, Signal};

/// Names the message in which a client reads when to send again.
const RETRY_INFO: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";

/// Returns the answer to what was kept, in protobuf; records that were refused are counted in it.
pub(crate) fn success(refused: &[u64; 3]) -> Vec<u8> {
    let (mut partial, mut body) = (Vec::new(), Vec::new());
    if let Some((total, message)) = told(refused) {
        put_number(&mut partial, 1, total);
        put_bytes(&mut partial, 2, message.as_bytes());
        put_bytes(&mut body, 1, &partial);
    }
    body
}

/// The same in OTLP's JSON.
pub(crate) fn success_json(signal: Signal, refused: &[u64; 3]) -> Vec<u8> {
    let Some((total, message)) = told(refused) else { return b"{}".to_vec() };
    let count = match signal {
        Signal::Logs => "rejectedLogRecords",
        Signal::Metrics => "rejectedDataPoints",
        Signal::Traces => "rejectedSpans",
    };
    let partial = serde_json::json!({count: total.to_string(), "errorMessage": message});
    serde_json::json!({"partialSuccess": partial}).to_string().into_bytes()
}

/// Returns `google.rpc.Status` in protobuf, with when to send again where that is known.
pub(crate) fn status(code: u64, message: &str, retry_after: Option<Duration>) -> Vec<u8> {
    let mut body = Vec::new();
    put_number(&mut body, 1, code);
    put_bytes(&mut body, 2, message.as_bytes());
    if let Some(wait) = retry_after {
        let mut any = Vec::new();
        put_bytes(&mut any, 1, RETRY_INFO);
        put_bytes(&mut any, 2, &retry_info(wait));
        put_bytes(&mut body, 3, &any);
    }
    body
}

/// Returns `google.rpc.RetryInfo` in protobuf.
pub(crate) fn retry_info(wait: Duration) -> Vec<u8> {
    let (mut delay, mut info) = (Vec::new(), Vec::new());
    put_number(&mut delay, 1, wait.as_secs());
    if wait.subsec_nanos() > 0 {
        put_number(&mut delay, 2, u64::from(wait.subsec_nanos()));
    }
    put_bytes(&mut info, 1, &delay);
    info
}

/// Returns how many records were refused, and why; `None` where none was.
fn told(refused: &[u64; 3]) -> Option<(u64, String)> {
    let total: u64 = refused.iter().sum();
    let [too_large, too_deep, time] =
        [Refusal::TooLarge, Refusal::TooDeep, Refusal::Time].map(|refusal| refused[refusal as usize]);
    let message = format!(
        "{too_large} larger than {EVENT_BYTES_MAX} bytes as an event, {too_deep} with values nested deeper than {DEPTH_MAX}, {time} \
         with a time after the year 2262"
    );
    (total > 0).then_some((total, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::otlp::wire::{Fields, Value};

    #[test]
    fn a_status_tells_when_to_send_again() {
        let field = |bytes: &[u8], number| match Fields::of(bytes).flatten().find(|(known, _)| *known == number) {
            Some((_, Value::Bytes(inner))) => inner.to_vec(),
            other => panic!("{other:?}"),
        };
        let body = status(14, "full", Some(Duration::from_millis(2_500)));
        let any = field(&body, 3);
        assert_eq!(field(&any, 1), RETRY_INFO);
        let delay = field(&field(&any, 2), 1);
        let parts: Vec<_> = Fields::of(&delay).flatten().collect();
        assert_eq!(parts, [(1, Value::Varint(2)), (2, Value::Varint(500_000_000))]);
        assert_eq!(status(3, "x", None), b"\x08\x03\x12\x01x");
    }

    #[test]
    fn nothing_refused_is_an_empty_answer() {
        assert_eq!((success(&[0; 3]), success_json(Signal::Logs, &[0; 3])), (Vec::new(), b"{}".to_vec()));
    }
}
