//! The body of a request, read whole within a bound and a time.

use std::time::Duration;

use axum::extract::Request;
use futures_util::StreamExt;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use tokio::time::timeout;

use super::problem::Problem;

/// Longest piece of an error about a body that is told.
pub(crate) const ERROR_CHARS_MAX: usize = 200;

/// Returns the body of a request, of at most `bytes_max`.
pub(crate) async fn read(request: Request, bytes_max: usize, time: Duration) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let detail = format!("a body has at most {bytes_max} bytes here");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail).closing()
    };
    let headers = request.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "encoding", "a body is not compressed here");
        return Err(problem.with(ACCEPT_ENCODING, "identity"));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    let mut chunks = request.into_body().into_data_stream();
    let whole = async {
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let ended_early = |_| Problem::new(StatusCode::BAD_REQUEST, "body", "the body ended early").closing();
            let chunk = chunk.map_err(ended_early)?;
            if body.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    timeout(time, whole).await.unwrap_or_else(|_| {
        let detail = format!("the body did not come within {} seconds", time.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body", detail).closing())
    })
}
