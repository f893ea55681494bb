//! What answers and errors of the store mean.
//!
//! | what | kind |
//! | --- | --- |
//! | no connection, TLS not agreed | `Unreachable` |
//! | `SlowDown`, `OperationAborted`, `ConditionalRequestConflict`, 429, 503 | `Throttled`, with `Retry-After` |
//! | keys, signature, token or rights refused; clocks apart; 401, 403 | `Unauthorized` |
//! | `RequestTimeout`, 408 | `Timeout` |
//! | `EntityTooLarge` | `TooLarge` |
//! | no such bucket, another region, unknown settings, 5xx and all else | `Broken` |
//!
//! The words of a server are never repeated: they may echo what was sent to it. Its code is, when it is a plain word.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use spillway_delivery::backend::{Fault, FaultKind};
use spillway_delivery::clock::UnixNanos;

use crate::answer::parse_retry_after;

/// Most bytes of a server's code that are repeated.
const CODE_BYTES_MAX: usize = 64;

/// What of an answer decides.
#[derive(Debug, Clone, Copy, Default)]
struct Answer<'a> {
    status: u16,
    code: &'a str,
    retry_after: Option<&'a str>,
    /// Where the bucket is, when it is elsewhere.
    region: Option<&'a str>,
}

/// Returns the fault of a call that failed; `what` says which (`PutObject`).
pub(super) fn of<E>(error: &SdkError<E>, what: &str, now: UnixNanos) -> Fault
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(response) = error.raw_response() {
        let header = |name: &str| response.headers().get(name);
        let answer = Answer {
            status: response.status().as_u16(),
            code: error.as_service_error().and_then(ProvideErrorMetadata::code).unwrap_or_default(),
            retry_after: header("retry-after"),
            region: header("x-amz-bucket-region"),
        };
        return verdict(answer, what, now);
    }
    let below = find::<Fault>(error).cloned();
    match error {
        // What our transport said.
        SdkError::DispatchFailure(failure) if !failure.is_other() => {
            below.unwrap_or_else(|| Fault::new(FaultKind::Unreachable, format_args!("{what}: no answer")))
        }
        SdkError::DispatchFailure(_) if find::<CredentialsError>(error).is_some() => {
            let why = below.map_or_else(|| "none of them gives any".to_owned(), |fault| fault.message.into());
            let text = "no keys: neither web identity, container nor instance";
            Fault::new(FaultKind::Unauthorized, format_args!("{text}; {why}"))
        }
        SdkError::TimeoutError(_) => Fault::new(FaultKind::Timeout, format_args!("{what}: no answer in time")),
        _ => Fault::new(FaultKind::Local, format_args!("{what}: the request cannot be made")),
    }
}

/// Returns the status of the answer, 0 when there was none.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> u16 {
    error.raw_response().map_or(0, |response| response.status().as_u16())
}

/// Looks for a cause of a type.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

fn verdict(answer: Answer<'_>, what: &str, now: UnixNanos) -> Fault {
    let Answer { status, code, region, .. } = answer;
    let (kind, meaning) = by_code(code).or_else(|| by_status(status)).unwrap_or((FaultKind::Broken, "refused"));
    let mut text = format!("{what}: {meaning}");
    if let Some(region) = region.filter(|_| matches!(status, 301 | 307 | 400)).filter(|region| is_word(region)) {
        text = format!("{what}: the bucket is in region {region}");
    }
    let shown = if is_word(code) { code } else { "" };
    let comma = if shown.is_empty() { "" } else { ", " };
    let fault = Fault::new(kind, format_args!("{text} ({shown}{comma}http {status})"));
    let is_refused = matches!(status, 300..=499) || kind == FaultKind::Throttled;
    let mut fault = fault.maybe_there(!is_refused);
    if kind == FaultKind::Throttled {
        fault.retry_after = answer.retry_after.and_then(|text| parse_retry_after(text, now));
    }
    fault
}

fn is_word(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    (1..=CODE_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

fn by_code(code: &str) -> Option<(FaultKind, &'static str)> {
    use FaultKind::{Broken, Throttled, Timeout, TooLarge, Unauthorized};
    Some(match code {
        "SlowDown"
        | "ServiceUnavailable"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestThrottled"
        | "Busy" => (Throttled, "the store asks for less"),
        "OperationAborted" | "ConditionalRequestConflict" => (Throttled, "another request for the key is under way"),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "Forbidden" => (Unauthorized, "access denied"),
        "InvalidAccessKeyId" | "InvalidClientTokenId" => (Unauthorized, "the access key is not known"),
        "SignatureDoesNotMatch" => (Unauthorized, "the secret key is not the one of the access key"),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "ExpiredTokenException" => {
            (Unauthorized, "the session token is not valid or no longer")
        }
        "RequestTimeTooSkewed" | "RequestExpired" => (Unauthorized, "the clocks here and there are apart"),
        "NoSuchBucket" => (Broken, "the bucket is not there"),
        "InvalidBucketName" => (Broken, "the bucket's name is not taken"),
        "PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException" => {
            (Broken, "the bucket is in another region")
        }
        "AuthorizationHeaderMalformed" => (Broken, "the region is not the bucket's"),
        "NotImplemented" => (Broken, "the store does not know how"),
        "InvalidStorageClass" => (Broken, "the storage class is not taken"),
        "NoSuchUpload" => (Broken, "the upload in parts is gone"),
        "BadDigest" | "XAmzContentSHA256Mismatch" | "InvalidDigest" => (Broken, "the bytes were changed on the way"),
        "EntityTooLarge" | "MaxMessageLengthExceeded" => (TooLarge, "the object is too large"),
        "RequestTimeout" => (Timeout, "the request took too long"),
        "InternalError" => (Broken, "the store is broken"),
        code if code.starts_with("KMS.") => (Broken, "the KMS key cannot be used"),
        _ => return None,
    })
}

fn by_status(status: u16) -> Option<(FaultKind, &'static str)> {
    Some(match status {
        401 | 403 => (FaultKind::Unauthorized, "access denied"),
        404 => (FaultKind::Broken, "not there"),
        408 => (FaultKind::Timeout, "the request took too long"),
        413 => (FaultKind::TooLarge, "the object is too large"),
        429 | 503 => (FaultKind::Throttled, "the store asks for less"),
        409 => (FaultKind::Throttled, "another request for the key is under way"),
        300..=399 => (FaultKind::Broken, "the bucket is elsewhere, and redirects are not followed"),
        200..=299 => (FaultKind::Broken, "the answer cannot be read"),
        500..=599 => (FaultKind::Broken, "the store is broken"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(status: u16, code: &str) -> Fault {
        verdict(Answer { status, code, retry_after: Some("7"), region: None }, "PutObject", 0)
    }

    #[test]
    fn every_refusal_has_its_kind_and_one_clean_line() {
        for (status, code, kind, line) in [
            (503, "SlowDown", FaultKind::Throttled, "PutObject: the store asks for less (SlowDown, http 503)"),
            (429, "", FaultKind::Throttled, "PutObject: the store asks for less (http 429)"),
            (403, "AccessDenied", FaultKind::Unauthorized, "PutObject: access denied (AccessDenied, http 403)"),
            (403, "", FaultKind::Unauthorized, "PutObject: access denied (http 403)"),
            (
                403,
                "SignatureDoesNotMatch",
                FaultKind::Unauthorized,
                "PutObject: the secret key is not the one of the access key (SignatureDoesNotMatch, http 403)",
            ),
            (404, "NoSuchBucket", FaultKind::Broken, "PutObject: the bucket is not there (NoSuchBucket, http 404)"),
            (409, "ConditionalRequestConflict", FaultKind::Throttled, "another request for the key is under way"),
            (400, "EntityTooLarge", FaultKind::TooLarge, "too large"),
            (400, "RequestTimeout", FaultKind::Timeout, "took too long"),
            (400, "KMS.DisabledException", FaultKind::Broken, "KMS key cannot be used"),
            (400, "Odd", FaultKind::Broken, "PutObject: refused (Odd, http 400)"),
            (500, "InternalError", FaultKind::Broken, "the store is broken"),
            (200, "", FaultKind::Broken, "cannot be read"),
            (301, "PermanentRedirect", FaultKind::Broken, "another region"),
            (501, "NotImplemented", FaultKind::Broken, "does not know how"),
        ] {
            let fault = fault(status, code);
            assert_eq!(fault.kind, kind, "{status} {code}");
            assert!(fault.message.contains(line), "{status} {code}: {fault}");
            assert_eq!(fault.retry_after.is_some(), kind == FaultKind::Throttled, "{status} {code}");
            assert_eq!(fault.may_be_there, matches!(status, 200 | 500 | 501), "{status} {code}");
        }
    }

    #[test]
    fn what_a_server_says_in_words_is_not_repeated() {
        for code in ["canary in words", "canary\r\n", "<canary>", &"canary".repeat(20)] {
            assert_eq!(&*fault(400, code).message, "PutObject: refused (http 400)");
        }
    }

    #[test]
    fn the_region_of_the_bucket_is_told() {
        let answer = Answer { status: 301, code: "PermanentRedirect", region: Some("eu-west-1"), ..Answer::default() };
        let fault = verdict(answer, "PutObject", 0);
        assert_eq!(&*fault.message, "PutObject: the bucket is in region eu-west-1 (PermanentRedirect, http 301)");
    }
}
