//! Labels and annotations, held small: there are as many of them as there are pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Values by key, in the order of the keys; each text may be shared with others that have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Box<[(Arc<str>, Arc<str>)]>);

/// What has values by key, as objects of Kubernetes have labels and annotations.
pub trait Labelled {
    /// Returns the value of a key.
    fn value(&self, key: &str) -> Option<&str>;
}

impl Labelled for Labels {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl Labelled for BTreeMap<String, String> {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.0[place].1)
    }

    /// Returns every key with its value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Puts a value under a key.
    pub fn insert(&mut self, key: &str, value: &str) {
        let known = self.0.iter().cloned();
        *self = known.chain([(key.into(), value.into())]).collect();
    }

    /// Returns the same, each text as `held` gives it.
    #[must_use]
    pub fn held_by(&self, held: impl Fn(&str) -> Arc<str>) -> Self {
        Self(self.iter().map(|(key, value)| (held(key), held(value))).collect())
    }

    /// Returns them as a map of its own.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// Of two values of a key the last one counts.
impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let sorted: BTreeMap<Arc<str>, Arc<str>> =
            pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self(sorted.into_iter().collect())
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>, const N: usize> From<[(K, V); N]> for Labels {
    fn from(pairs: [(K, V); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<String, String>::deserialize(deserializer).map(|map| map.into_iter().collect())
    }
}

/// The schema of a map of texts.
impl JsonSchema for Labels {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        <BTreeMap<String, String>>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        <BTreeMap<String, String>>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_found_by_key_and_read_and_written_as_a_map() {
        let json = r#"{"app":"etcher","tier":"prod"}"#;
        let labels: Labels = serde_json::from_str(json).unwrap();
        assert_eq!(labels, Labels::from([("tier", "test"), ("app", "etcher"), ("tier", "prod")]));
        assert_eq!(["app", "b", "tier"].map(|key| labels.get(key)), [Some("etcher"), None, Some("prod")]);
        assert_eq!(serde_json::to_string(&labels).unwrap(), json);
        assert_eq!(serde_json::to_string(&labels.to_map()).unwrap(), json);
        assert!(Labels::default().is_empty() && Labels::default().get("app").is_none());
    }

    #[test]
    fn one_that_is_put_replaces_the_one_of_its_key_and_keeps_the_order() {
        let mut labels = Labels::from([("a", "1"), ("c", "3")]);
        labels.insert("b", "2");
        labels.insert("a", "4");
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "4"), ("b", "2"), ("c", "3")]);
    }
}
