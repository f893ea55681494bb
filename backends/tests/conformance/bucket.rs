//! A hand-made S3 for tests: as much of the protocol as the backend speaks, over the scripted HTTP server. It keeps what is
//! put, holds the condition at its word, and checks no signature. The real ones are in the scenarios over real servers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::server::{Received, Reply, Server};

/// An object that stands in the bucket.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) body: Vec<u8>,
    /// `x-amz-meta-…`, without that.
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Stored {
    /// Its lines, unpacked as its name says; panics when it is not whole.
    pub(crate) fn lines(&self) -> Vec<String> {
        let bytes = match self.key.rsplit_once('.').map(|(_, extension)| extension) {
            Some("gz") => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*self.body), &mut bytes).unwrap();
                bytes
            }
            Some("zst") => zstd::decode_all(&*self.body).unwrap(),
            _ => self.body.clone(),
        };
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they came to be.
    objects: Vec<Stored>,
    uploads: BTreeMap<String, Upload>,
    uploads_begun: usize,
    uploads_aborted: usize,
}

#[derive(Debug, Default)]
struct Upload {
    key: String,
    headers: Vec<(String, String)>,
    parts: BTreeMap<u32, Vec<u8>>,
}

/// What to do with a request in place of the bucket's own answer.
pub(crate) type Script = dyn Fn(&Call<'_>) -> Option<Reply> + Send + Sync;

/// A request as the bucket understands it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// The operation as S3 names it.
    pub(crate) what: &'static str,
    /// The key, empty for calls about the bucket.
    pub(crate) key: &'a str,
    /// The request.
    pub(crate) request: &'a Received,
}

/// One bucket `lake` on a server of its own.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) server: Server,
    state: Arc<Mutex<State>>,
    lost: Arc<Mutex<Vec<(&'static str, String)>>>,
}

impl Bucket {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| None).await
    }

    pub(crate) async fn start_with(script: impl Fn(&Call<'_>) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let lost: Arc<Mutex<Vec<_>>> = Arc::default();
        let (script, kept, losing): (Box<Script>, _, _) = (Box::new(script), state.clone(), lost.clone());
        let server = Server::start(move |_, request| {
            let Some((what, key, query)) = understand(request) else {
                return refusal(501, "NotImplemented");
            };
            let call = Call { what, key: &key, request };
            let reply = script(&call).unwrap_or_else(|| answer(&kept, &call, &query));
            let losing = &mut *losing.lock().unwrap();
            match losing.iter().position(|(lost, part): &(&str, String)| *lost == what && key.contains(part)) {
                Some(at) => {
                    losing.remove(at);
                    Reply::Reset
                }
                None => reply,
            }
        })
        .await;
        Self { server, state, lost }
    }

    /// Loses the answer of the next such call for a key that holds `part`: it is carried out, and the connection reset.
    pub(crate) fn lose(&self, what: &'static str, part: &str) {
        self.lost.lock().unwrap().push((what, part.to_owned()));
    }

    pub(crate) fn objects(&self) -> Vec<Stored> {
        self.state.lock().unwrap().objects.clone()
    }

    /// Takes every object away.
    pub(crate) fn clear(&self) {
        self.state.lock().unwrap().objects.clear();
    }

    /// Puts an object there as somebody else would.
    pub(crate) fn plant(&self, key: &str, metadata: &[(&str, &str)]) {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let stored = Stored { key: key.into(), body: b"{}\n".to_vec(), metadata };
        self.state.lock().unwrap().objects.push(stored);
    }

    /// Begins an upload in parts and leaves it, as a process that was killed does.
    pub(crate) fn leave_upload(&self, key: &str) {
        let state = &mut *self.state.lock().unwrap();
        state.uploads_begun += 1;
        let id = format!("left-{}", state.uploads_begun);
        state.uploads.insert(id, Upload { key: key.into(), ..Upload::default() });
    }

    /// Uploads begun, aborted and open.
    pub(crate) fn uploads(&self) -> (usize, usize, usize) {
        let state = self.state.lock().unwrap();
        (state.uploads_begun, state.uploads_aborted, state.uploads.len())
    }
}

/// An error as the bucket answers it; its message holds what no fault must repeat.
pub(crate) fn refusal(status: u16, code: &str) -> Reply {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>canary-8c1f in words</Message></Error>");
    Reply::with(status, "content-type: application/xml\r\n", &body)
}

fn what(method: &str, query: &Query) -> Option<&'static str> {
    let has = |name: &str| query.contains_key(name);
    Some(match method {
        "GET" if has("uploads") => "ListMultipartUploads",
        "HEAD" => "HeadObject",
        "PUT" if has("partNumber") => "UploadPart",
        "PUT" => "PutObject",
        "POST" if has("uploads") => "CreateMultipartUpload",
        "POST" if has("uploadId") => "CompleteMultipartUpload",
        "DELETE" if has("uploadId") => "AbortMultipartUpload",
        _ => return None,
    })
}

type Query = BTreeMap<String, String>;

fn understand(request: &Received) -> Option<(&'static str, String, Query)> {
    let mut line = request.line.split(' ');
    let (method, target) = (line.next()?, line.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query: Query = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let key = path.strip_prefix("/lake")?.trim_start_matches('/').replace("%3D", "=");
    Some((what(method, &query)?, key, query))
}

fn answer(state: &Mutex<State>, call: &Call<'_>, query: &Query) -> Reply {
    let Call { what, key, request } = *call;
    let state = &mut *state.lock().unwrap();
    match what {
        "HeadObject" => head(state, key),
        "PutObject" => put(state, key, &request.headers, request.body.clone(), request),
        "ListMultipartUploads" => list_uploads(state),
        "CreateMultipartUpload" => {
            state.uploads_begun += 1;
            let id = format!("upload-{}", state.uploads_begun);
            let upload = Upload { key: key.to_owned(), headers: request.headers.clone(), ..Upload::default() };
            state.uploads.insert(id.clone(), upload);
            xml(&format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
        }
        "UploadPart" => match state.uploads.get_mut(&query["uploadId"]) {
            Some(upload) => {
                let number = query["partNumber"].parse().unwrap();
                upload.parts.insert(number, request.body.clone());
                Reply::with(200, &format!("etag: \"{number}\"\r\n"), "")
            }
            None => refusal(404, "NoSuchUpload"),
        },
        "CompleteMultipartUpload" => complete(state, &query["uploadId"], request),
        _ => match state.uploads.remove(&query["uploadId"]) {
            Some(_) => {
                state.uploads_aborted += 1;
                Reply::status(204)
            }
            None => refusal(404, "NoSuchUpload"),
        },
    }
}

fn xml(body: &str) -> Reply {
    Reply::with(200, "content-type: application/xml\r\n", &format!("<?xml version=\"1.0\"?>{body}"))
}

fn head(state: &State, key: &str) -> Reply {
    match state.objects.iter().find(|object| object.key == key) {
        Some(object) => {
            let pairs = object.metadata.iter().map(|(name, value)| format!("x-amz-meta-{name}: {value}\r\n"));
            Reply::with(200, &pairs.collect::<String>(), "")
        }
        None => Reply::status(404),
    }
}

fn put(state: &mut State, key: &str, headers: &[(String, String)], body: Vec<u8>, request: &Received) -> Reply {
    if request.header("if-none-match") == Some("*") && state.objects.iter().any(|object| object.key == key) {
        return refusal(412, "PreconditionFailed");
    }
    let metadata = headers.iter().filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        Some((name.strip_prefix("x-amz-meta-")?.to_owned(), value.clone()))
    });
    let metadata = metadata.collect();
    state.objects.retain(|object| object.key != key);
    state.objects.push(Stored { key: key.into(), body, metadata });
    Reply::with(200, "etag: \"e\"\r\n", "")
}

fn complete(state: &mut State, id: &str, request: &Received) -> Reply {
    let Some(upload) = state.uploads.get(id) else {
        return refusal(404, "NoSuchUpload");
    };
    let (key, headers) = (upload.key.clone(), upload.headers.clone());
    let body = upload.parts.values().flatten().copied().collect();
    match put(state, &key, &headers, body, request) {
        Reply::Bytes(bytes) if bytes.starts_with(b"HTTP/1.1 200") => {
            state.uploads.remove(id);
            xml("<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>")
        }
        refused => refused,
    }
}

fn list_uploads(state: &State) -> Reply {
    let uploads = state
        .uploads
        .iter()
        .map(|(id, upload)| format!("<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>", upload.key));
    let uploads: String = uploads.collect();
    xml(&format!("<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>"))
}
