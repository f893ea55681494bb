//! The last good configuration on disk, so that an agent starts without its operator.
//!
//! ```text
//! <data-dir>/configuration.json   {"format": 1, "hash": …, "content": {"configuration": …, "sealed": …}}
//! <data-dir>/pods.json            the same around the pods of the node, which change more often
//! <data-dir>/authorities.json     the same around the authorities that the operator told of
//! ```
//!
//! # Guarantees
//! - A file is whole: written under a draft name, synced, renamed, and the directory synced; mode 0600.
//! - Values of secrets are there sealed under the state key, or not at all.
//! - What cannot be read is told, set aside as `<name>.damaged` and never in the way of a start.
//!
//! # Must not know
//! What a configuration means.
//!
//! # Limits
//! A file that is larger than an answer can be, twice, is damaged.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use spillway_crds::served::{ANSWER_BYTES_MAX, Authorities, Configuration, Pods, ServedSecret};
use xxhash_rust::xxh3::xxh3_128;

use super::seal::StateKey;

/// The form of the files.
const FORMAT: u32 = 1;

/// Most bytes of a file.
const FILE_BYTES_MAX: u64 = 2 * ANSWER_BYTES_MAX as u64;

const CONFIGURATION: &str = "configuration.json";
const PODS: &str = "pods.json";
const AUTHORITIES: &str = "authorities.json";

/// What is kept on disk.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    key: Option<Arc<StateKey>>,
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// The configuration that was taken last.
    pub configuration: Option<Configuration>,
    /// Whether every value of its secrets is there.
    pub is_whole: bool,
    /// The pods of the node.
    pub pods: Option<Pods>,
    /// The authorities that the operator told of.
    pub authorities: Option<Authorities>,
}

/// Around every file.
#[derive(Serialize, Deserialize)]
struct Frame<'a> {
    format: u32,
    /// Of the content's bytes.
    hash: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// What a file of a configuration holds.
#[derive(Serialize, Deserialize)]
struct Content {
    /// Without the values of its secrets.
    configuration: Configuration,
    /// The values, in their order.
    sealed: Option<String>,
}

impl Store {
    /// Returns what is kept in `dir`, sealed under `key`.
    pub fn new(dir: &Path, key: Option<StateKey>) -> Self {
        Self { dir: dir.to_owned(), key: key.map(Arc::new) }
    }

    /// Returns whether values of secrets are kept.
    pub fn keeps_secrets(&self) -> bool {
        self.key.is_some()
    }

    /// Reads what was kept. Blocks.
    pub fn read(&self) -> Kept {
        let authorities = self.read_file(AUTHORITIES);
        let mut kept = Kept { pods: self.read_file(PODS), authorities, ..Kept::default() };
        if let Some(Content { mut configuration, sealed }) = self.read_file(CONFIGURATION) {
            let values = sealed.and_then(|sealed| self.open(&configuration, &sealed));
            kept.is_whole = configuration.secrets.is_empty() || values.is_some();
            for (secret, value) in configuration.secrets.iter_mut().zip(values.unwrap_or_default()) {
                secret.value = value.into();
            }
            kept.configuration = Some(configuration);
        }
        kept
    }

    /// Keeps a configuration. Blocks.
    pub fn keep(&self, configuration: &Configuration) -> io::Result<()> {
        let values: Vec<&str> = configuration.secrets.iter().map(|secret| &*secret.value).collect();
        let sealed = self.key.as_ref().filter(|_| !values.is_empty()).map(|key| {
            let values = serde_json::to_vec(&values)?;
            key.seal(&words(configuration), values).ok_or_else(|| io::Error::other("no random numbers to seal with"))
        });
        let bare = |secret: &ServedSecret| ServedSecret { value: "".into(), ..secret.clone() };
        let configuration = Configuration {
            secrets: configuration.secrets.iter().map(bare).collect(),
            version: configuration.version.clone(),
            manifests: configuration.manifests.clone(),
            namespaces: configuration.namespaces.clone(),
            tickets: configuration.tickets.clone(),
            token_keys: configuration.token_keys.clone(),
            revoked: configuration.revoked.clone(),
        };
        self.write_file(CONFIGURATION, &Content { configuration, sealed: sealed.transpose()? })
    }

    /// Keeps the pods. Blocks.
    pub fn keep_pods(&self, pods: &Pods) -> io::Result<()> {
        self.write_file(PODS, pods)
    }

    /// Keeps the authorities. Blocks.
    pub fn keep_authorities(&self, authorities: &Authorities) -> io::Result<()> {
        self.write_file(AUTHORITIES, authorities)
    }

    fn open(&self, configuration: &Configuration, sealed: &str) -> Option<Vec<String>> {
        let opened = self.key.as_ref().and_then(|key| key.open(&words(configuration), sealed));
        let values = opened.and_then(|plain| serde_json::from_slice::<Vec<String>>(&plain).ok());
        let values = values.filter(|values| values.len() == configuration.secrets.len());
        if values.is_none() {
            tracing::warn!(
                path = %self.dir.join(CONFIGURATION).display(),
                "values of secrets in the stored configuration do not open with this state key; the operator is waited for"
            );
        }
        values
    }

    fn read_file<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.dir.join(name);
        match read(&path) {
            Ok(found) => found,
            Err(error) => {
                let aside = path.with_extension("json.damaged");
                let kept = std::fs::rename(&path, &aside).is_ok();
                tracing::error!(
                    path = %path.display(), %error, set_aside = kept,
                    "stored configuration is damaged and does not count; the operator is waited for"
                );
                None
            }
        }
    }

    fn write_file(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        let content = serde_json::value::to_raw_value(content)?;
        let hash = hash(&content);
        let text = serde_json::to_vec(&Frame { format: FORMAT, hash, content: &content })?;
        let (path, draft) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&draft, &path)?;
        std::fs::File::open(&self.dir)?.sync_all()
    }
}

/// What the values of a configuration's secrets are bound to: all the rest of it.
fn words(configuration: &Configuration) -> String {
    let named = configuration.secrets.iter().map(|one| (&one.namespace, &one.name, &one.key, &one.version));
    let named = serde_json::to_string(&named.collect::<Vec<_>>()).unwrap_or_default();
    format!("spillway configuration {FORMAT} {} {named}", configuration.version.hash)
}

fn hash(content: &RawValue) -> String {
    format!("{:032x}", xxh3_128(content.get().as_bytes()))
}

/// Reads a file; `None` when it is not there. No error holds anything of it.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let bytes = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(format!("{} bytes are too many", meta.len())),
        Ok(_) => std::fs::read(path).map_err(|error| error.to_string())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let odd = |error: serde_json::Error| super::place_of(&error);
    let frame: Frame<'_> = serde_json::from_slice(&bytes).map_err(odd)?;
    if frame.format != FORMAT {
        return Err(format!("form {} is not {FORMAT}", frame.format));
    }
    if frame.hash != hash(frame.content) {
        return Err("its hash is another one".to_owned());
    }
    serde_json::from_str(frame.content.get()).map(Some).map_err(odd)
}

#[cfg(test)]
mod tests {
    use spillway_crds::served::Revoked;

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(byte: u8) -> StateKey {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, [byte; 32]).unwrap();
        StateKey::read(&path).unwrap()
    }

    fn configuration() -> Configuration {
        let secret = ServedSecret {
            namespace: "a".into(),
            name: "api".into(),
            key: "token".into(),
            version: "7".into(),
            value: "Y2FuYXJ5".into(),
        };
        let version = spillway_crds::served::Version { epoch: 3, generation: 4, hash: "h".into() };
        let manifests = vec![r#"{"kind":"Backend","x":"\u00e9\n"}"#.into()];
        let revoked = vec![Revoked { namespace: "a".into(), backend: "lake".into() }];
        Configuration { version, manifests, secrets: vec![secret], revoked, ..Configuration::default() }
    }

    #[test]
    fn what_is_kept_comes_back_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), Some(key(1)));
        assert!(store.read().configuration.is_none());
        store.keep(&configuration()).unwrap();
        let kept = store.read();
        assert_eq!((kept.configuration.unwrap(), kept.is_whole), (configuration(), true));
        let pods = Pods { hash: "p".into(), ..Pods::default() };
        store.keep_pods(&pods).unwrap();
        assert_eq!(store.read().pods, Some(pods));
        let authorities = Authorities { hash: "a".into(), ..Authorities::default() };
        store.keep_authorities(&authorities).unwrap();
        assert_eq!(store.read().authorities, Some(authorities));
        for file in folder.path().read_dir().unwrap().map(Result::unwrap) {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
            let text = std::fs::read_to_string(file.path()).unwrap();
            assert!(!text.contains("Y2FuYXJ5") && !text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn without_the_key_the_rest_is_there_and_the_values_are_not() {
        let folder = tempfile::tempdir().unwrap();
        Store::new(folder.path(), Some(key(1))).keep(&configuration()).unwrap();
        for other in [None, Some(key(2))] {
            let kept = Store::new(folder.path(), other).read();
            let read = kept.configuration.unwrap();
            assert_eq!((&*read.secrets[0].value, kept.is_whole), ("", false));
            assert_eq!((read.manifests, read.version), (configuration().manifests, configuration().version));
        }
        Store::new(folder.path(), None).keep(&configuration()).unwrap();
        assert!(!Store::new(folder.path(), Some(key(1))).read().is_whole);
        let bare = Configuration { secrets: Vec::new(), ..configuration() };
        Store::new(folder.path(), None).keep(&bare).unwrap();
        assert!(Store::new(folder.path(), None).read().is_whole, "there is nothing to keep");
    }

    #[test]
    fn a_damaged_file_does_not_count_and_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), Some(key(1)));
        let path = folder.path().join(CONFIGURATION);
        store.keep(&configuration()).unwrap();
        let good = std::fs::read(&path).unwrap();
        let swap = |from: &str, to: &str| String::from_utf8(good.clone()).unwrap().replace(from, to).into_bytes();
        let mut flipped = good.clone();
        flipped[good.len() - 9] ^= 1;
        for damaged in [
            good[..good.len() / 2].to_vec(),
            Vec::new(),
            flipped,
            b"[]".to_vec(),
            swap("Backend", "Bakcend"),
            swap("\"format\":1", "\"format\":2"),
        ] {
            std::fs::write(&path, &damaged).unwrap();
            assert!(store.read().configuration.is_none());
            assert_eq!(std::fs::read(folder.path().join("configuration.json.damaged")).unwrap(), damaged);
            assert!(!path.exists());
        }
        store.keep(&configuration()).unwrap();
        assert!(store.read().configuration.is_some());
    }
}
