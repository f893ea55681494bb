//! One real destination per type of the list.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use spillway_backends::stdout::Stdout;
use spillway_backends::{BackendSettings, build};
use spillway_delivery::backend::Backend;
use spillway_delivery::settings::Metadata;

use crate::batches::{context, secret};
use crate::bucket::{Bucket, Stored};
use crate::bulk;
use crate::over_http;
use crate::server::{Received, Reply, Server};

/// A destination that takes everything, and lets one look at what it took.
pub(crate) struct Destination {
    pub(crate) what: &'static str,
    pub(crate) directory: tempfile::TempDir,
    settings: BackendSettings,
    server: Option<Server>,
    bucket: Option<Bucket>,
    pipe: Option<Pipe>,
}

/// Stands for the standard output of the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pipe(Arc<Mutex<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Short writes, as pipes do.
        let count = bytes.len().min(1000);
        self.0.lock().unwrap().extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a fresh destination for every entry of the list, in each of its forms.
pub(crate) async fn all() -> Vec<Destination> {
    let mut all = Vec::new();
    for what in [
        "Blackhole",
        "Elasticsearch",
        "Elasticsearch gzip",
        "Filesystem",
        "Filesystem gzip",
        "Filesystem zstd",
        "HTTP",
        "HTTP gzip",
        "HTTP zstd",
        "HTTP JSONArray",
        "HTTP JSONObject",
        "ManagedAPI",
        "S3 gzip",
        "S3 plain",
        "S3 zstd",
        "Stdout",
        "Webhook",
    ] {
        all.push(destination(what).await);
    }
    let covered: BTreeSet<_> = all.iter().map(|destination| destination.settings.type_name()).collect();
    assert_eq!(covered, BackendSettings::type_names().collect(), "every type of the list has a destination");
    all
}

pub(crate) async fn destination(what: &'static str) -> Destination {
    let (mut server, mut bucket, mut pipe) = (None, None, None);
    let directory = tempfile::tempdir().unwrap();
    let settings = match what {
        "Blackhole" => BackendSettings::Blackhole(parse(serde_json::json!({}))),
        "Filesystem" => BackendSettings::Filesystem(parse(serde_json::json!({"rotate": {"maxBytes": 4096}}))),
        "Filesystem gzip" | "Filesystem zstd" => {
            let compression = compression(what);
            let settings = serde_json::json!({"rotate": {"maxBytes": 4096}, "compression": compression});
            BackendSettings::Filesystem(parse(settings))
        }
        "Elasticsearch" | "Elasticsearch gzip" => {
            let server = server.insert(bulk::start(|_| 201).await);
            let compression = if what == "Elasticsearch" { "None" } else { "Gzip" };
            let url = format!("http://{}", server.address);
            let settings = serde_json::json!({"urls": [url], "index": "jobs-{date}", "compression": compression});
            BackendSettings::Elasticsearch(parse(settings))
        }
        "HTTP" | "HTTP gzip" | "HTTP zstd" | "HTTP JSONArray" | "HTTP JSONObject" => {
            let server = server.insert(Server::start(|_, _| Reply::status(202)).await);
            let compression = compression(what);
            let format = what.strip_prefix("HTTP ").filter(|form| form.starts_with("JSON")).unwrap_or("NDJSON");
            let settings = serde_json::json!({"url": server.url(), "compression": compression, "format": format});
            BackendSettings::Http(parse(settings))
        }
        "ManagedAPI" => {
            let server = server.insert(Server::start(|_, _| Reply::status(202)).await);
            secret(directory.path(), "api", "token", "t");
            let token = serde_json::json!({"name": "api", "key": "token"});
            let url = format!("http://{}", server.address);
            BackendSettings::ManagedApi(parse(serde_json::json!({"url": url, "tokenSecretRef": token})))
        }
        "Webhook" => {
            let server = server.insert(Server::start(|_, _| Reply::status(202)).await);
            BackendSettings::Webhook(parse(serde_json::json!({"url": server.url()})))
        }
        "S3 gzip" | "S3 plain" | "S3 zstd" => {
            let bucket = bucket.insert(Bucket::start().await);
            let more = serde_json::json!({"compression": compression(what), "key": "{namespace}/{date}/{id}.ndjson"});
            BackendSettings::S3(parse(bucket_settings(directory.path(), &bucket.server, &more)))
        }
        _ => {
            pipe = Some(Pipe::default());
            BackendSettings::Stdout(parse(serde_json::json!({})))
        }
    };
    Destination { what, directory, settings, server, bucket, pipe }
}

fn compression(what: &str) -> &'static str {
    match what.rsplit(' ').next() {
        Some("gzip") => "Gzip",
        Some("zstd") => "Zstd",
        _ => "None",
    }
}

impl Destination {
    /// Returns a backend as a fresh process would make it.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        match &self.pipe {
            Some(pipe) => Arc::new(Stdout::over(Box::new(pipe.clone()), Metadata::None)),
            None => build(&self.settings, context(self.directory.path())).unwrap(),
        }
    }

    /// Returns whether anything can be read back.
    pub(crate) fn keeps(&self) -> bool {
        self.settings.type_name() != "Blackhole"
    }

    /// Returns the lines as they are there, in order; repeats that the destination can recognise are left out.
    pub(crate) fn lines(&self) -> Vec<String> {
        if let Some(server) = self.server.as_ref().filter(|_| self.settings.type_name() == "Elasticsearch") {
            return bulk::documents(server).into_iter().map(|(_, _, document)| document).collect();
        }
        if let Some(server) = &self.server {
            let mut keys = BTreeSet::new();
            // A question after the server's health is no delivery.
            let seen = server.seen().into_iter().filter(|request| !request.line.starts_with("GET"));
            return seen
                .filter(|request| keys.insert(request.header("idempotency-key").unwrap().to_owned()))
                .flat_map(|request| request.lines())
                .collect();
        }
        if let Some(bucket) = &self.bucket {
            return bucket.objects().iter().flat_map(Stored::lines).collect();
        }
        if let Some(pipe) = &self.pipe {
            return String::from_utf8(pipe.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect();
        }
        files(&self.directory.path().join("out")).iter().flat_map(|path| read(path)).collect()
    }

    /// Returns what was sent, byte for byte, attempt for attempt, with its key where there is one.
    pub(crate) fn attempts(&self) -> Vec<(Option<String>, Vec<u8>)> {
        if let Some(bucket) = &self.bucket {
            let puts = bucket.server.seen().into_iter().filter(|request| request.line.starts_with("PUT "));
            let key = |put: &Received| put.header("x-amz-meta-spillway-plan").map(str::to_owned);
            return puts.map(|put| (key(&put), put.body)).collect();
        }
        let seen = self.server.iter().flat_map(Server::seen);
        let seen = seen.filter(|request| request.header("idempotency-key").is_some());
        seen.map(|request| (request.header("idempotency-key").map(str::to_owned), request.body)).collect()
    }
}

/// Returns settings for the bucket on `server`, with keys below `directory`, and `more` of them.
pub(crate) fn bucket_settings(directory: &Path, server: &Server, more: &serde_json::Value) -> serde_json::Value {
    let mut settings = over_http::settings("S3", directory, &format!("http://{}", server.address));
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

pub(crate) fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Returns the data files below `root`, in the order of their directories and numbers.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else if !path.file_name().unwrap().to_str().unwrap().starts_with('.') {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Returns the lines of a data file, unpacked; panics when it is not whole.
pub(crate) fn read(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let mut text = String::new();
    if path.extension().is_some_and(|extension| extension == "gz") {
        if !bytes.is_empty() {
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        }
    } else if path.extension().is_some_and(|extension| extension == "zst") {
        if !bytes.is_empty() {
            text = String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap();
        }
    } else {
        text = String::from_utf8(bytes).unwrap();
    }
    assert!(text.is_empty() || text.ends_with('\n'), "half a line in {}", path.display());
    text.lines().map(str::to_owned).collect()
}
