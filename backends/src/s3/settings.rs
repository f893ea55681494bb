//! Settings of the `S3` backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key;
use crate::settings::{Compression, Problem, SecretKeyRef, Settings};
use crate::tls::TlsSettings;

/// Least bytes of `multipartAboveBytes`: the smallest part that S3 takes.
const MULTIPART_ABOVE_MIN: u64 = 5 << 20;
/// Most bytes of `multipartAboveBytes`: what S3 takes in one request is 5 GiB; a batch never gets near.
const MULTIPART_ABOVE_MAX: u64 = 1 << 30;

/// Puts events as NDJSON objects into a bucket, each event once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Settings {
    /// The bucket; it must be there.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// Region of the bucket, such as `eu-central-1`; many other stores have only the default.
    #[serde(default = "default_region")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: String,
    /// Where the store is, when it is not AWS: an http or https URL of a host, with a port or without.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^https?://[^/?#@\s\\]+/?$"))]
    pub endpoint: Option<String>,
    /// Names the bucket in the path of the URL instead of its host name; most stores that are not AWS want it.
    #[serde(default)]
    pub force_path_style: bool,
    /// Template of an object's key: literals, `{id}` (which must be there), `{date}` and `{hour}` of receipt in UTC,
    /// `{namespace}`, `{pipeline}`, `{route}`, and, behind a prefix of the others, `{origin.…}` and `{event.…}`. `.gz` or
    /// `.zst` is added where it is not there.
    #[serde(default = "default_key")]
    #[schemars(length(min = 4, max = 512))]
    pub key: String,
    /// How objects are compressed; `Zstd` is smaller and less work than `Gzip`.
    #[serde(default = "default_compression")]
    pub compression: Compression,
    /// The keys to sign with. Absent: what the machine gives (web identity, container, instance).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<S3Credentials>,
    /// Storage class of objects, such as `STANDARD_IA`; the bucket's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[A-Z][A-Z0-9_]*$"))]
    pub storage_class: Option<String>,
    /// How the server encrypts objects; the bucket's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_side_encryption: Option<S3Encryption>,
    /// Account that must own the bucket: twelve digits. The store refuses when another one does. Default: absent, any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 12, max = 12), regex(pattern = r"^[0-9]{12}$"))]
    pub expected_bucket_owner: Option<String>,
    /// Objects of more bytes than this, compressed, are uploaded in parts; 5242880 (5 MiB) to 1073741824 (1 GiB).
    #[serde(default = "default_multipart_above_bytes")]
    #[schemars(range(min = 5_242_880, max = 1_073_741_824_u64))]
    pub multipart_above_bytes: u64,
    /// Trust in the server. Certificates are always verified, TLS 1.2 is the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
}

/// Keys to sign requests with, read at each batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Credentials {
    /// Where the id of the access key is.
    #[serde(rename = "accessKeyIDSecretRef")]
    pub access_key_id_secret_ref: SecretKeyRef,
    /// Where the secret of the access key is.
    pub secret_access_key_secret_ref: SecretKeyRef,
    /// Where the session token is, for keys that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_token_secret_ref: Option<SecretKeyRef>,
}

/// How the server encrypts objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct S3Encryption {
    /// With which kind of key.
    pub algorithm: S3EncryptionAlgorithm,
    /// Id or ARN of the KMS key; the account's own key for S3 when absent.
    #[serde(rename = "kmsKeyID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^[A-Za-z0-9:/_.-]+$"))]
    pub kms_key_id: Option<String>,
}

/// With which kind of key objects are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum S3EncryptionAlgorithm {
    /// A key of the store.
    #[serde(rename = "AES256")]
    Aes256,
    /// A key of AWS KMS.
    #[serde(rename = "aws:kms")]
    AwsKms,
}

fn default_region() -> String {
    "us-east-1".into()
}

fn default_compression() -> Compression {
    Compression::Gzip
}

fn default_key() -> String {
    "{namespace}/{pipeline}/{route}/{date}/{hour}/{id}.ndjson".into()
}

fn default_multipart_above_bytes() -> u64 {
    16 << 20
}

impl Settings for S3Settings {
    fn type_name(&self) -> &'static str {
        "S3"
    }

    fn member_name(&self) -> &'static str {
        "s3"
    }

    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_place(&mut problems);
        problems.extend(key::parse(&self.key).err());
        self.check_object(&mut problems);
        if let Some(credentials) = &self.credentials {
            let S3Credentials { access_key_id_secret_ref, secret_access_key_secret_ref, session_token_secret_ref } =
                credentials;
            access_key_id_secret_ref.check("credentials.accessKeyIDSecretRef", &mut problems);
            secret_access_key_secret_ref.check("credentials.secretAccessKeySecretRef", &mut problems);
            if let Some(token) = session_token_secret_ref {
                token.check("credentials.sessionTokenSecretRef", &mut problems);
            }
        }
        if let Some(tls) = &self.tls {
            tls.check(self.speaks_https(), &mut problems);
        }
        problems
    }

    #[cfg(feature = "client")]
    fn build(
        &self,
        context: crate::BuildContext,
    ) -> Result<std::sync::Arc<dyn spillway_delivery::backend::Backend>, crate::BuildError> {
        Ok(std::sync::Arc::new(super::S3::try_new(self, context)?))
    }
}

impl S3Settings {
    /// Returns whether the store is spoken to over TLS: AWS always is.
    pub(super) fn speaks_https(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| endpoint.starts_with("https://"))
    }

    fn check_place(&self, problems: &mut Vec<Problem>) {
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let name = self.bucket.as_bytes();
        let middle = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
        if !(3..=63).contains(&name.len())
            || !name.iter().all(middle)
            || !edge(name.first())
            || !edge(name.last())
            || self.bucket.contains("..")
        {
            problems.push(Problem::new(
                "bucket",
                format!("{:?} is not the name of a bucket", self.bucket),
                "3 to 63 lower-case letters, digits, '.', '-', a letter or digit at both ends",
            ));
        }
        let region_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=64).contains(&self.region.len()) || !self.region.bytes().all(region_byte) {
            let message = format!("{:?} is not a region", self.region);
            problems.push(Problem::new("region", message, "lower-case letters, digits, '-'"));
        }
        if let Some(endpoint) = &self.endpoint
            && !is_endpoint(endpoint)
        {
            // The text is not repeated: it may hold a password.
            let message = "is not the URL of a host";
            let allowed = "http://host[:port] or https://host[:port], without user, password, path and query";
            problems.push(Problem::new("endpoint", message, allowed));
        }
    }

    fn check_object(&self, problems: &mut Vec<Problem>) {
        if let Some(class) = &self.storage_class {
            let fine = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            if !(1..=32).contains(&class.len()) || !class.bytes().all(fine) {
                let message = format!("{class:?} is not a storage class");
                problems.push(Problem::new("storageClass", message, "upper-case letters, digits, '_'"));
            }
        }
        if let Some(encryption) = &self.server_side_encryption
            && let Some(id) = &encryption.kms_key_id
        {
            let path = "serverSideEncryption.kmsKeyID";
            let fine = |b: u8| b.is_ascii_alphanumeric() || b":/_.-".contains(&b);
            if encryption.algorithm != S3EncryptionAlgorithm::AwsKms {
                problems.push(Problem::new(path, "is set, but the algorithm is AES256", "algorithm: aws:kms, or none"));
            } else if !(1..=2048).contains(&id.len()) || !id.bytes().all(fine) {
                let message = "is not the id of a key";
                problems.push(Problem::new(path, message, "an id, an alias or an ARN"));
            }
        }
        if let Some(owner) = &self.expected_bucket_owner
            && (owner.len() != 12 || !owner.bytes().all(|b| b.is_ascii_digit()))
        {
            let message = format!("{owner:?} is not an account");
            problems.push(Problem::new("expectedBucketOwner", message, "twelve digits"));
        }
        if !(MULTIPART_ABOVE_MIN..=MULTIPART_ABOVE_MAX).contains(&self.multipart_above_bytes) {
            let message = format!("is {}", self.multipart_above_bytes);
            problems.push(Problem::new("multipartAboveBytes", message, "5242880 to 1073741824"));
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let host = rest.strip_suffix('/').unwrap_or(rest);
    let hidden = |c: char| c.is_control() || c.is_whitespace() || "/?#@\\".contains(c);
    !host.is_empty() && !host.starts_with(':') && !host.contains(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(value: serde_json::Value) -> S3Settings {
        serde_json::from_value(value).unwrap()
    }

    fn paths(value: serde_json::Value) -> Vec<String> {
        settings(value).validate().into_iter().map(|problem| problem.path).collect()
    }

    /// The smallest settings with `name` set to `value`.
    fn with(name: &str, value: serde_json::Value) -> serde_json::Value {
        let mut settings = serde_json::json!({"bucket": "lake", "region": "eu-central-1"});
        settings[name] = value;
        settings
    }

    #[test]
    fn the_smallest_settings_have_safe_defaults() {
        let settings = settings(serde_json::json!({"bucket": "lake"}));
        assert_eq!(settings.validate(), []);
        assert_eq!(settings.region, "us-east-1");
        assert_eq!(settings.compression, Compression::Gzip);
        assert_eq!(settings.key, "{namespace}/{pipeline}/{route}/{date}/{hour}/{id}.ndjson");
        assert_eq!(settings.multipart_above_bytes, 16_777_216);
        assert!(!settings.force_path_style && crate::settings::secrets_in(&settings).is_empty());
    }

    #[test]
    fn a_bucket_and_its_region_have_names() {
        for bucket in ["", "ab", "Lake", "la_ke", "-lake", "lake.", "la..ke", "a/b", &"a".repeat(64)] {
            assert_eq!(paths(with("bucket", bucket.into())), ["bucket"], "{bucket}");
        }
        for region in ["", "EU", "a b", "eu/x"] {
            assert_eq!(paths(with("region", region.into())), ["region"], "{region}");
        }
    }

    #[test]
    fn endpoints_that_hide_something_are_refused() {
        for (endpoint, fine) in [
            ("http://minio:9000", true),
            ("https://[::1]:9000/", true),
            ("https://s3.example.test", true),
            ("minio:9000", false),
            ("ftp://minio", false),
            ("http://", false),
            ("http://:80", false),
            ("http://user:pw@minio", false),
            ("http://minio/path", false),
            ("http://minio?x", false),
            ("http://minio#x", false),
            ("http://mi nio", false),
            ("http://minio\\x", false),
            ("http://minio\r\nX: y", false),
        ] {
            assert_eq!(paths(with("endpoint", endpoint.into())).is_empty(), fine, "{endpoint:?}");
        }
    }

    #[test]
    fn what_would_break_a_header_is_refused() {
        for (name, value, path) in [
            ("storageClass", serde_json::json!("standard"), "storageClass"),
            ("storageClass", serde_json::json!("A\r\nB"), "storageClass"),
            ("expectedBucketOwner", serde_json::json!("12345678901"), "expectedBucketOwner"),
            ("multipartAboveBytes", serde_json::json!(5_242_879), "multipartAboveBytes"),
            (
                "serverSideEncryption",
                serde_json::json!({"algorithm": "AES256", "kmsKeyID": "k"}),
                "serverSideEncryption.kmsKeyID",
            ),
            (
                "serverSideEncryption",
                serde_json::json!({"algorithm": "aws:kms", "kmsKeyID": "a\nb"}),
                "serverSideEncryption.kmsKeyID",
            ),
        ] {
            assert_eq!(paths(with(name, value)), [path]);
        }
        let kms = serde_json::json!({"algorithm": "aws:kms", "kmsKeyID": "arn:aws:kms:eu-central-1:1:key/a-b"});
        assert_eq!(paths(with("serverSideEncryption", kms)), [""; 0]);
    }

    #[test]
    fn secrets_are_named_and_well_formed() {
        let reference = |key: &str| serde_json::json!({"name": "s3", "key": key});
        let credentials = serde_json::json!({
            "accessKeyIDSecretRef": reference("id"), "secretAccessKeySecretRef": reference("secret"),
            "sessionTokenSecretRef": reference("../x"),
        });
        let mut value = with("credentials", credentials);
        value["tls"] = serde_json::json!({"caSecretRef": reference("ca.crt")});
        value["endpoint"] = "http://minio:9000".into();
        assert_eq!(paths(value.clone()), ["credentials.sessionTokenSecretRef", "tls"]);
        let keys: Vec<_> =
            crate::settings::secrets_in(&settings(value)).into_iter().map(|reference| reference.key).collect();
        assert_eq!(keys, ["id", "secret", "../x", "ca.crt"]);
    }
}
