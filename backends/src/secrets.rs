//! Where secrets come from.
//!
//! A backend asks at each use and keeps nothing, so that a rotated secret is used at once. [`SecretDir`] looks at the
//! file's identity and time of change before it reads again. No error names a value.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;

use spillway_delivery::secret::Secret;

use crate::settings::SecretKeyRef;

/// Most bytes of one secret: the most a Kubernetes Secret can hold.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// Most secrets remembered; at the bound all are forgotten and read anew.
const CACHE_ENTRIES_MAX: usize = 256;

/// Looks secrets up by name and key.
pub trait SecretSource: Send + Sync + fmt::Debug + 'static {
    /// Returns the secret as it is now. May read a small local file.
    fn get(&self, reference: &SecretKeyRef) -> Result<Secret, SecretError>;
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Name or key are not such that they can be looked up.
    #[error("secret reference is not well-formed")]
    Reference,
    /// It is not there.
    #[error("secret {name}/{key} is not there", name = .0.name, key = .0.key)]
    Missing(SecretKeyRef),
    /// It is there, and cannot be read.
    #[error("secret {name}/{key} cannot be read", name = .reference.name, key = .reference.key)]
    Read {
        /// Which.
        reference: SecretKeyRef,
        /// Why.
        source: io::Error,
    },
    /// The operator does not serve it, or not so that it can be used.
    #[error("secret {namespace}/{name}/{key} {why}", name = .reference.name, key = .reference.key)]
    Served {
        /// The namespace of the Secret.
        namespace: String,
        /// Which.
        reference: SecretKeyRef,
        /// What is wrong with it, as the rest of a sentence.
        why: &'static str,
    },
}

/// One environment variable that may be read as a secret: `NAME/KEY=VARIABLE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEnv {
    /// What a manifest refers to.
    pub reference: SecretKeyRef,
    /// The variable that holds it.
    pub variable: String,
}

impl FromStr for SecretEnv {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('=').and_then(|(name, variable)| Some((name.split_once('/')?, variable)));
        let Some(((name, key), variable)) = parts else {
            return Err("is not of the form NAME/KEY=VARIABLE");
        };
        let reference = SecretKeyRef { name: name.into(), key: key.into() };
        if !reference.is_well_formed() {
            return Err("does not begin with the name and key of a secret");
        }
        if variable.is_empty() || !variable.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("does not end in the name of an environment variable");
        }
        Ok(Self { reference, variable: variable.into() })
    }
}

/// Secrets as files `<dir>/<name>/<key>`, and as the environment variables that are allowed by name.
///
/// Links are followed, because mounted Secrets are links; the components that manifests choose cannot climb.
#[derive(Debug, Default)]
pub struct SecretDir {
    dir: Option<PathBuf>,
    env_allowed: BTreeMap<(String, String), String>,
    cache: Mutex<HashMap<SecretKeyRef, Cached>>,
}

#[derive(Debug)]
struct Cached {
    version: Version,
    secret: Secret,
}

/// What changes when a file is replaced or written: device, inode, length, change time.
type Version = (u64, u64, u64, (i64, i64), (i64, i64));

impl SecretDir {
    /// Returns a source that reads below `dir`, if any, and then the variables of `env_allowed`.
    pub fn new(dir: Option<PathBuf>, env_allowed: impl IntoIterator<Item = SecretEnv>) -> Self {
        let env_allowed =
            env_allowed.into_iter().map(|env| ((env.reference.name, env.reference.key), env.variable)).collect();
        Self { dir, env_allowed, cache: Mutex::default() }
    }

    fn read_file(&self, reference: &SecretKeyRef) -> Result<Option<Secret>, io::Error> {
        let Some(dir) = &self.dir else {
            return Ok(None);
        };
        let file = match std::fs::File::open(dir.join(&reference.name).join(&reference.key)) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let meta = file.metadata()?;
        if !meta.is_file() || meta.len() > SECRET_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of at most 1048576 bytes"));
        }
        let changed = (meta.ctime(), meta.ctime_nsec());
        let version = (meta.dev(), meta.ino(), meta.len(), (meta.mtime(), meta.mtime_nsec()), changed);
        if let Ok(cache) = self.cache.lock()
            && let Some(cached) = cache.get(reference).filter(|cached| cached.version == version)
        {
            return Ok(Some(cached.secret.clone()));
        }
        let mut text = String::new();
        file.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
        let secret = Secret::new(&text);
        if let Ok(mut cache) = self.cache.lock() {
            if cache.len() >= CACHE_ENTRIES_MAX {
                cache.clear();
            }
            cache.insert(reference.clone(), Cached { version, secret: secret.clone() });
        }
        Ok(Some(secret))
    }
}

impl SecretSource for SecretDir {
    fn get(&self, reference: &SecretKeyRef) -> Result<Secret, SecretError> {
        if !reference.is_well_formed() {
            return Err(SecretError::Reference);
        }
        match self.read_file(reference) {
            Ok(Some(secret)) => return Ok(secret),
            Ok(None) => {}
            Err(source) => return Err(SecretError::Read { reference: reference.clone(), source }),
        }
        let variable = self.env_allowed.get(&(reference.name.clone(), reference.key.clone()));
        let value = variable.and_then(|variable| std::env::var(variable).ok());
        value.map(|value| Secret::new(&value)).ok_or_else(|| SecretError::Missing(reference.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef { name: name.into(), key: key.into() }
    }

    #[test]
    fn a_rotated_file_is_used_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let source = SecretDir::new(Some(dir.path().into()), []);
        let api = reference("api", "token");
        assert!(matches!(source.get(&api), Err(SecretError::Missing(_))));
        std::fs::create_dir(dir.path().join("api")).unwrap();
        let path = dir.path().join("api/token");
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(source.get(&api).unwrap().reveal(), "one");
        assert_eq!(source.get(&api).unwrap().reveal(), "one");
        let other = dir.path().join("new");
        std::fs::write(&other, "two\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(source.get(&api).unwrap().reveal(), "two");
    }

    #[test]
    fn a_reference_cannot_climb_and_a_directory_is_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "x").unwrap();
        std::fs::create_dir_all(dir.path().join("in/api/token")).unwrap();
        let source = SecretDir::new(Some(dir.path().join("in")), []);
        assert!(matches!(source.get(&reference("..", "outside")), Err(SecretError::Reference)));
        assert!(matches!(source.get(&reference("api", "../../outside")), Err(SecretError::Reference)));
        assert!(matches!(source.get(&reference("api", "token")), Err(SecretError::Read { .. })));
    }

    #[test]
    fn only_the_variables_that_are_allowed_are_read() {
        let allowed: SecretEnv = "home/dir=HOME".parse().unwrap();
        let source = SecretDir::new(None, [allowed]);
        let home = std::env::var("HOME").unwrap();
        assert_eq!(source.get(&reference("home", "dir")).unwrap().reveal(), home);
        assert!(matches!(source.get(&reference("home", "other")), Err(SecretError::Missing(_))));
        for wrong in ["HOME", "a=HOME", "a/b=", "../x/b=HOME", "a/b=A B"] {
            assert!(wrong.parse::<SecretEnv>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn errors_name_the_secret_and_not_its_value() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("api")).unwrap();
        std::fs::write(dir.path().join("api/token"), b"canary\xff").unwrap();
        let source = SecretDir::new(Some(dir.path().into()), []);
        let error = source.get(&reference("api", "token")).unwrap_err();
        assert_eq!(error.to_string(), "secret api/token cannot be read");
        std::fs::write(dir.path().join("api/token"), b"canary").unwrap();
        source.get(&reference("api", "token")).unwrap();
        assert!(!format!("{error:?} {source:?}").contains("canary"));
    }
}
