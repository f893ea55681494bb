//! The values of secrets that the operator serves, by namespace, name and key.
//!
//! # Guarantees
//! - A backend asks at each use and gets the value as it is now: a rotated one is used without making the backend anew.
//! - A backend reaches the Secrets of one namespace, that of its plan.
//! - A value that no manifest asks for any more is forgotten here; a backend that still drains with it keeps what it had.
//! - No error, no debug output and no log line holds a value.
//!
//! # Limits
//! Those of an answer: [`ANSWER_BYTES_MAX`](spillway_crds::served::ANSWER_BYTES_MAX) over all values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use spillway_backends::{SecretError, SecretKeyRef, SecretSource};
use spillway_crds::served::ServedSecret;
use spillway_crds::{BackendPlan, Compiled};
use spillway_delivery::secret::Secret;

/// Namespace, name and key.
type Key = (Arc<str>, String, String);

/// The values that the operator serves.
#[derive(Clone, Default)]
pub struct ServedSecrets {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    values: BTreeMap<Key, Value>,
    /// Every key that a backend of the manifests asks for.
    wanted: BTreeSet<Key>,
}

/// What is known of one key.
#[derive(Clone)]
enum Value {
    /// Its value.
    Known(Secret),
    /// It was served to a process before this one, which did not keep it.
    NotKept,
    /// It is no text.
    NoText,
}

impl fmt::Debug for ServedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServedSecrets({} not shown)", self.state().values.len())
    }
}

impl ServedSecrets {
    /// Adds what a configuration brings, before it is applied; what is there and not in it stays for now.
    pub fn add(&self, secrets: &[ServedSecret]) {
        let mut state = self.state();
        for secret in secrets {
            state.values.insert(key(&secret.namespace, &secret.name, &secret.key), value(&secret.value));
        }
    }

    /// Takes note of the values of a configuration that an earlier process kept: those that are empty were not kept.
    pub fn add_kept(&self, secrets: &[ServedSecret], is_whole: bool) {
        self.add(secrets);
        if !is_whole {
            let mut state = self.state();
            for secret in secrets {
                state.values.insert(key(&secret.namespace, &secret.name, &secret.key), Value::NotKept);
            }
        }
    }

    /// Forgets what is not in the configuration that was applied, and notes what its backends ask for.
    pub fn prune(&self, secrets: &[ServedSecret], compiled: &Compiled) {
        let served: BTreeSet<Key> = secrets.iter().map(|one| key(&one.namespace, &one.name, &one.key)).collect();
        let mut state = self.state();
        state.wanted = compiled.backends.iter().flat_map(keys).collect();
        state.values.retain(|key, _| served.contains(key));
    }

    /// Returns the first secret of a backend that an earlier process did not keep, as `namespace/name/key`.
    pub fn not_kept(&self, plan: &BackendPlan) -> Option<String> {
        let state = self.state();
        let missing = keys(plan).find(|key| matches!(state.values.get(key), Some(Value::NotKept)));
        missing.map(|(namespace, name, key)| format!("{namespace}/{name}/{key}"))
    }

    /// Returns the source of one backend's secrets.
    pub fn of(&self, plan: &BackendPlan) -> Arc<dyn SecretSource> {
        let source =
            OfBackend { secrets: self.clone(), namespace: plan.secret_namespace.clone(), had: Mutex::default() };
        // Also what it never asks for before the manifests forget it may be what it drains with.
        for reference in plan.settings.secrets() {
            source.get(&reference).ok();
        }
        Arc::new(source)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The secrets of one backend.
struct OfBackend {
    secrets: ServedSecrets,
    namespace: Option<Arc<str>>,
    /// What it got last.
    had: Mutex<HashMap<SecretKeyRef, Secret>>,
}

impl fmt::Debug for OfBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OfBackend({:?}, {:?})", self.secrets, self.namespace)
    }
}

impl SecretSource for OfBackend {
    fn get(&self, reference: &SecretKeyRef) -> Result<Secret, SecretError> {
        if !reference.is_well_formed() {
            return Err(SecretError::Reference);
        }
        let namespace = self.namespace.clone().unwrap_or_default();
        let refused = |why| SecretError::Served { namespace: namespace.to_string(), reference: reference.clone(), why };
        let key = key(&namespace, &reference.name, &reference.key);
        let (value, is_wanted) = {
            let state = self.secrets.state();
            (state.values.get(&key).cloned(), state.wanted.contains(&key))
        };
        let mut had = self.had.lock().unwrap_or_else(PoisonError::into_inner);
        match value {
            Some(Value::Known(secret)) => {
                had.insert(reference.clone(), secret.clone());
                Ok(secret)
            }
            Some(Value::NotKept) => Err(refused("was not kept on this machine, and the operator did not answer yet")),
            Some(Value::NoText) => Err(refused("is not text in UTF-8")),
            None if is_wanted => Err(refused("is not in the cluster")),
            None => had.get(reference).cloned().ok_or_else(|| refused("is not in the cluster")),
        }
    }
}

fn key(namespace: &str, name: &str, key: &str) -> Key {
    (namespace.into(), name.to_owned(), key.to_owned())
}

fn keys(plan: &BackendPlan) -> impl Iterator<Item = Key> {
    let namespace = plan.secret_namespace.clone().unwrap_or_default();
    plan.settings.secrets().into_iter().map(move |one| (namespace.clone(), one.name, one.key))
}

fn value(encoded: &str) -> Value {
    let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or(Value::NoText, |text| Value::Known(Secret::new(&text)))
}

#[cfg(test)]
mod tests {
    use spillway_crds::{Document, compile};

    use super::*;

    fn served(namespace: &str, value: &str) -> ServedSecret {
        ServedSecret {
            namespace: namespace.into(),
            name: "api".into(),
            key: "token".into(),
            version: String::new(),
            value: STANDARD.encode(value).into(),
        }
    }

    fn compiled() -> Compiled {
        let text = "apiVersion: spillway.dev/v1alpha1\nkind: Backend\nmetadata: {name: out, namespace: fab12}\nspec: {type: HTTP, \
                    http: {url: \"https://a.test/\", auth: {bearer: {tokenSecretRef: {name: api, key: token}}}}}\n";
        let compiled = compile(&[Document::new("a", text)]);
        assert!(compiled.errors.is_empty(), "{:?}", compiled.errors);
        compiled
    }

    fn told(source: &Arc<dyn SecretSource>) -> String {
        let reference = SecretKeyRef { name: "api".into(), key: "token".into() };
        source.get(&reference).map_or_else(|error| error.to_string(), |secret| secret.reveal().to_owned())
    }

    #[test]
    fn a_rotated_value_is_used_and_one_of_another_namespace_is_not_reached() {
        let (secrets, compiled) = (ServedSecrets::default(), compiled());
        let source = secrets.of(&compiled.backends[0]);
        secrets.add(&[served("fab13", "other")]);
        assert_eq!(told(&source), "secret fab12/api/token is not in the cluster");
        for value in ["one", "two"] {
            secrets.add(&[served("fab12", value)]);
            assert_eq!(told(&source), value);
        }
    }

    #[test]
    fn one_that_is_gone_from_the_cluster_is_not_used_and_one_that_drains_keeps_what_it_had() {
        let (secrets, compiled) = (ServedSecrets::default(), compiled());
        secrets.add(&[served("fab12", "one")]);
        let source = secrets.of(&compiled.backends[0]);
        secrets.prune(&[], &Compiled::default());
        assert_eq!(told(&source), "one", "no manifest asks for it: it drains");
        assert!(secrets.state().values.is_empty());
        secrets.prune(&[], &compiled);
        assert_eq!(told(&source), "secret fab12/api/token is not in the cluster");
    }

    #[test]
    fn what_was_not_kept_is_told_apart_and_nothing_shows_a_value() {
        let (secrets, compiled) = (ServedSecrets::default(), compiled());
        secrets.add_kept(&[served("fab12", "")], false);
        assert_eq!(secrets.not_kept(&compiled.backends[0]).as_deref(), Some("fab12/api/token"));
        let source = secrets.of(&compiled.backends[0]);
        assert!(told(&source).starts_with("secret fab12/api/token was not kept"), "{}", told(&source));
        secrets.add(&[served("fab12", "canary")]);
        assert_eq!(secrets.not_kept(&compiled.backends[0]), None);
        assert!(!format!("{secrets:?} {source:?}").contains("canary"));
        let binary = ServedSecret { value: "/w==".into(), ..served("fab12", "") };
        secrets.add(&[binary]);
        assert_eq!(told(&source), "secret fab12/api/token is not text in UTF-8");
    }
}
