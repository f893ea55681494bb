//! One object into the bucket.
//!
//! What stands at a key is ours when its metadata holds our identity, and only then is "already there" a success. An
//! upload in parts looks first, because it is dear and not every store takes a condition at its end; and what a process
//! that was killed left half-way is taken away before it begins.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use spillway_delivery::backend::{Fault, FaultKind, Outcome};
use spillway_delivery::clock::Clock;
use spillway_delivery::supervisor::Supervisor;

use super::encode::Object;
use super::fault;
use super::settings::{S3EncryptionAlgorithm, S3Settings};
use crate::settings::Compression;

/// The metadata that says whose an object is.
const ID: &str = "spillway-id";
/// The metadata that says how many events are in it.
const EVENTS: &str = "spillway-events";
/// The metadata that says in which plan of the engine it was put, for people.
const PLAN: &str = "spillway-plan";
/// Only where nothing is.
const NOTHING: &str = "*";
/// Bytes of a part; S3 takes no less than 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one object under way at once.
const PARTS_AT_ONCE: usize = 4;
/// How long an upload that is given up may take to be aborted.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How objects are put, the same for all of a backend.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) bucket: String,
    owner: Option<String>,
    class: Option<StorageClass>,
    encryption: Option<ServerSideEncryption>,
    kms_key_id: Option<String>,
    content_type: &'static str,
    multipart_above: usize,
}

impl Manner {
    pub(super) fn new(settings: &S3Settings) -> Self {
        let encryption = settings.server_side_encryption.as_ref();
        Self {
            bucket: settings.bucket.clone(),
            owner: settings.expected_bucket_owner.clone(),
            class: settings.storage_class.as_deref().map(StorageClass::from),
            encryption: encryption.map(|encryption| match encryption.algorithm {
                S3EncryptionAlgorithm::Aes256 => ServerSideEncryption::Aes256,
                S3EncryptionAlgorithm::AwsKms => ServerSideEncryption::AwsKms,
            }),
            kms_key_id: encryption.and_then(|encryption| encryption.kms_key_id.clone()),
            content_type: match settings.compression {
                Compression::Gzip => "application/gzip",
                Compression::Zstd => "application/zstd",
                Compression::None => "application/x-ndjson",
            },
            multipart_above: usize::try_from(settings.multipart_above_bytes).unwrap_or(usize::MAX),
        }
    }
}

/// What stands at a key.
enum Standing {
    Nothing,
    Ours,
    Foreign,
}

/// Puts objects with one client.
#[derive(Debug)]
pub(super) struct Uploader<'a> {
    pub(super) client: Client,
    pub(super) manner: &'a Manner,
    pub(super) plan: &'a str,
    pub(super) clock: &'a Clock,
    /// Owns what is still to be aborted.
    pub(super) aborts: &'a Supervisor,
}

impl Uploader<'_> {
    /// Puts `body` as `object`, where nothing is.
    pub(super) async fn put(&self, object: &Object, body: Bytes) -> Result<Outcome, Fault> {
        if body.len() > self.manner.multipart_above {
            return self.put_in_parts(object, body).await;
        }
        let Manner { bucket, owner, class, encryption, kms_key_id, content_type, .. } = self.manner;
        let request = self.client.put_object().bucket(bucket).key(&object.key).if_none_match(NOTHING);
        let request = request.content_type(*content_type).set_metadata(Some(self.metadata(object)));
        let request = request.set_expected_bucket_owner(owner.clone()).set_storage_class(class.clone());
        let request = request.set_server_side_encryption(encryption.clone()).set_ssekms_key_id(kms_key_id.clone());
        match request.body(ByteStream::from(body)).send().await {
            Ok(_) => Ok(Outcome::Delivered),
            Err(error) if fault::status(&error) == 412 => self.settle_taken(object).await,
            Err(error) => Err(fault::of(&error, "PutObject", self.clock.now())),
        }
    }

    fn metadata(&self, object: &Object) -> std::collections::HashMap<String, String> {
        let events: usize = object.ranges.iter().map(ExactSizeIterator::len).sum();
        [(ID, object.id.clone()), (EVENTS, events.to_string()), (PLAN, self.plan.to_owned())]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// The store says that something stands at the key.
    async fn settle_taken(&self, object: &Object) -> Result<Outcome, Fault> {
        match self.look(object).await? {
            Standing::Ours => Ok(Outcome::Duplicate),
            Standing::Foreign => Err(foreign(object)),
            Standing::Nothing => {
                Err(Fault::new(FaultKind::Throttled, "PutObject: an object was there and is gone, to be put again"))
            }
        }
    }

    async fn look(&self, object: &Object) -> Result<Standing, Fault> {
        let request = self.client.head_object().bucket(&self.manner.bucket).key(&object.key);
        match request.set_expected_bucket_owner(self.manner.owner.clone()).send().await {
            Ok(head) => {
                let id = head.metadata().and_then(|metadata| metadata.get(ID));
                Ok(if id == Some(&object.id) { Standing::Ours } else { Standing::Foreign })
            }
            Err(error) if fault::status(&error) == 404 => Ok(Standing::Nothing),
            Err(error) => Err(fault::of(&error, "HeadObject", self.clock.now())),
        }
    }

    async fn put_in_parts(&self, object: &Object, body: Bytes) -> Result<Outcome, Fault> {
        match self.look(object).await {
            Ok(Standing::Ours) => return Ok(Outcome::Duplicate),
            Ok(Standing::Foreign) => return Err(foreign(object)),
            Ok(Standing::Nothing) => {}
            // Without the right to list, a store hides what is not there behind a refusal.
            Err(fault) if fault.kind == FaultKind::Unauthorized => {}
            Err(fault) => return Err(fault),
        }
        self.abort_left_behind(object).await;
        let upload = self.begin(object).await?;
        let parts = self.put_parts(&upload, body).await?;
        let request = self.client.complete_multipart_upload().bucket(&self.manner.bucket).key(&object.key);
        let request = request.upload_id(&*upload.id).if_none_match(NOTHING);
        let request = request.set_expected_bucket_owner(self.manner.owner.clone());
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        match request.multipart_upload(whole).send().await {
            Ok(_) => {
                upload.done();
                Ok(Outcome::Delivered)
            }
            Err(error) if fault::status(&error) == 412 => self.settle_taken(object).await,
            Err(error) => Err(fault::of(&error, "CompleteMultipartUpload", self.clock.now())),
        }
    }

    async fn begin(&self, object: &Object) -> Result<Upload, Fault> {
        let Manner { bucket, owner, class, encryption, kms_key_id, content_type, .. } = self.manner;
        let request = self.client.create_multipart_upload().bucket(bucket).key(&object.key);
        let request = request.content_type(*content_type).set_metadata(Some(self.metadata(object)));
        let request = request.set_expected_bucket_owner(owner.clone()).set_storage_class(class.clone());
        let request = request.set_server_side_encryption(encryption.clone()).set_ssekms_key_id(kms_key_id.clone());
        let created = request.send().await;
        let created = created.map_err(|error| fault::of(&error, "CreateMultipartUpload", self.clock.now()))?;
        let id = created.upload_id().unwrap_or_default();
        if id.is_empty() {
            return Err(Fault::new(FaultKind::Broken, "CreateMultipartUpload: the answer names no upload"));
        }
        Ok(Upload {
            client: self.client.clone(),
            bucket: bucket.as_str().into(),
            key: object.key.as_str().into(),
            id: id.into(),
            owner: owner.clone(),
            aborts: Some(self.aborts.clone()),
        })
    }

    async fn put_parts(&self, upload: &Upload, body: Bytes) -> Result<Vec<CompletedPart>, Fault> {
        let parts = (0..body.len()).step_by(PART_BYTES).zip(1..).map(|(start, number)| {
            let bytes = body.slice(start..body.len().min(start + PART_BYTES));
            let request = self.client.upload_part().bucket(&*upload.bucket).key(&*upload.key).upload_id(&*upload.id);
            let request = request.set_expected_bucket_owner(upload.owner.clone()).part_number(number);
            async move {
                let sent = request.body(ByteStream::from(bytes)).send().await;
                let sent = sent.map_err(|error| fault::of(&error, "UploadPart", self.clock.now()))?;
                let tag = sent
                    .e_tag()
                    .ok_or_else(|| Fault::new(FaultKind::Broken, "UploadPart: the answer names no part"))?;
                Ok(CompletedPart::builder().part_number(number).e_tag(tag).build())
            }
        });
        stream::iter(parts).buffered(PARTS_AT_ONCE).try_collect().await
    }

    /// Aborts what a process that was killed left of this object. A store that does not say has its own rules for that.
    async fn abort_left_behind(&self, object: &Object) {
        let request = self.client.list_multipart_uploads().bucket(&self.manner.bucket).prefix(&object.key);
        let Ok(left) = request.set_expected_bucket_owner(self.manner.owner.clone()).send().await else {
            return;
        };
        let ours = left.uploads().iter().filter(|upload| upload.key() == Some(object.key.as_str()));
        for id in ours.filter_map(|upload| upload.upload_id()) {
            let request = self.client.abort_multipart_upload().bucket(&self.manner.bucket).key(&object.key);
            let request = request.set_expected_bucket_owner(self.manner.owner.clone()).upload_id(id);
            if let Err(error) = request.send().await {
                let fault = fault::of(&error, "AbortMultipartUpload", self.clock.now());
                tracing::debug!(kind = fault.kind.as_str(), "an upload left behind stays");
            }
        }
    }
}

fn foreign(object: &Object) -> Fault {
    Fault::new(FaultKind::Broken, format_args!("an object that is not ours stands at {}", object.key))
}

/// An upload in parts that was begun. Dropped before it is done, it is aborted.
#[derive(Debug)]
struct Upload {
    client: Client,
    bucket: Arc<str>,
    key: Arc<str>,
    id: Arc<str>,
    owner: Option<String>,
    /// Who owns the abort; `None` once done.
    aborts: Option<Supervisor>,
}

impl Upload {
    fn done(mut self) {
        self.aborts = None;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(aborts) = self.aborts.take() else {
            return;
        };
        // Outside a runtime there is nothing that could still send.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let request = self.client.abort_multipart_upload().bucket(&*self.bucket).key(&*self.key);
        let request = request.upload_id(&*self.id).set_expected_bucket_owner(self.owner.clone());
        aborts.spawn("abort an upload", async move {
            // One that stays is aborted by the next attempt, or by the bucket's lifecycle rule.
            if !matches!(tokio::time::timeout(ABORT_TIMEOUT, request.send()).await, Ok(Ok(_))) {
                tracing::debug!("an upload that was given up stays until the next attempt");
            }
        });
    }
}
