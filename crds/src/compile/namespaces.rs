//! Namespaces and their labels: what selectors of the cluster kinds speak of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::kinds::selector::{LabelSelector, Operator};

/// The label that an API server gives every namespace: its name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The namespaces whose labels are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    labels: BTreeMap<Arc<str>, BTreeMap<String, String>>,
}

/// Which namespaces something is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// These.
    Only(BTreeSet<Arc<str>>),
    /// All but these, known or not.
    AllBut(BTreeSet<Arc<str>>),
}

impl Namespaces {
    /// Adds a namespace with its labels; one that is there is replaced.
    pub fn insert(&mut self, name: &str, mut labels: BTreeMap<String, String>) {
        labels.insert(NAME_LABEL.to_owned(), name.to_owned());
        self.labels.insert(name.into(), labels);
    }

    /// Forgets a namespace.
    pub fn remove(&mut self, name: &str) {
        self.labels.remove(name);
    }

    /// Returns the labels of a namespace, where it is known.
    pub fn labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.labels.get(name)
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns the namespaces that the selector takes. Where it asks for names alone, those that are not known count too.
    pub(super) fn selected(&self, selector: &LabelSelector) -> Reach {
        by_name(selector).unwrap_or_else(|| {
            let known = self.labels.iter().filter(|(_, labels)| selector.matches(*labels));
            Reach::Only(known.map(|(name, _)| Arc::clone(name)).collect())
        })
    }

    /// Returns whether the selector takes the namespace; `None` when it asks for labels that are not known.
    pub fn takes(&self, selector: &LabelSelector, namespace: &str) -> Option<bool> {
        match by_name(selector) {
            Some(reach) => Some(reach.takes(namespace)),
            None => self.labels.get(namespace).map(|labels| selector.matches(labels)),
        }
    }
}

impl Reach {
    /// Returns a reach of one namespace.
    pub fn of(namespace: &str) -> Self {
        Self::Only(BTreeSet::from([namespace.into()]))
    }

    /// Returns a reach of every namespace.
    pub fn everywhere() -> Self {
        Self::AllBut(BTreeSet::new())
    }

    /// Returns whether the namespace is among them.
    pub fn takes(&self, namespace: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(namespace),
            Self::AllBut(names) => !names.contains(namespace),
        }
    }

    /// Returns those of it that are among `names`.
    fn among(self, names: BTreeSet<Arc<str>>) -> Self {
        Self::Only(names.into_iter().filter(|name| self.takes(name)).collect())
    }

    /// Returns it without `names`.
    fn without(self, names: &BTreeSet<Arc<str>>) -> Self {
        match self {
            Self::Only(kept) => Self::Only(kept.difference(names).cloned().collect()),
            Self::AllBut(left_out) => Self::AllBut(left_out.union(names).cloned().collect()),
        }
    }
}

/// Returns what a selector takes that asks for names alone; `None` when it asks for more.
fn by_name(selector: &LabelSelector) -> Option<Reach> {
    let mut reach = Reach::everywhere();
    for (key, name) in selector.match_labels.iter() {
        if key != NAME_LABEL {
            return None;
        }
        reach = reach.among(BTreeSet::from([name.into()]));
    }
    for expression in &selector.match_expressions {
        if expression.key != NAME_LABEL {
            return None;
        }
        let names = expression.values.iter().map(|name| name.as_str().into()).collect();
        reach = match expression.operator {
            Operator::In => reach.among(names),
            Operator::NotIn => reach.without(&names),
            Operator::Exists => reach,
            Operator::DoesNotExist => Reach::Only(BTreeSet::new()),
        };
    }
    Some(reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).unwrap()
    }

    fn known() -> Namespaces {
        let mut known = Namespaces::default();
        for (name, tier) in [("fab12", "prod"), ("fab13", "test")] {
            known.insert(name, BTreeMap::from([("tier".to_owned(), tier.to_owned())]));
        }
        known
    }

    fn only(names: &[&str]) -> Reach {
        Reach::Only(names.iter().map(|name| (*name).into()).collect())
    }

    #[test]
    fn labels_select_known_namespaces_and_names_select_any() {
        let all_but = Reach::AllBut(BTreeSet::from(["kube-system".into()]));
        for (json, expected) in [
            ("{}", Reach::everywhere()),
            (r#"{"matchLabels":{"tier":"prod"}}"#, only(&["fab12"])),
            (r#"{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["prod"]}]}"#, only(&["fab13"])),
            (r#"{"matchLabels":{"kubernetes.io/metadata.name":"later"}}"#, only(&["later"])),
            (
                r#"{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["kube-system"]}]}"#,
                all_but,
            ),
            (
                r#"{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"In","values":["a","b"]},
                    {"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["b"]},
                    {"key":"kubernetes.io/metadata.name","operator":"Exists"}]}"#,
                only(&["a"]),
            ),
            (
                r#"{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["a"]},
                    {"key":"kubernetes.io/metadata.name","operator":"NotIn","values":["b"]}]}"#,
                Reach::AllBut(BTreeSet::from(["a".into(), "b".into()])),
            ),
            (r#"{"matchExpressions":[{"key":"kubernetes.io/metadata.name","operator":"DoesNotExist"}]}"#, only(&[])),
            (r#"{"matchLabels":{"kubernetes.io/metadata.name":"fab13","tier":"prod"}}"#, only(&[])),
        ] {
            assert_eq!(known().selected(&selector(json)), expected, "{json}");
        }
    }

    #[test]
    fn labels_that_are_not_known_are_not_guessed() {
        let absent = selector(r#"{"matchExpressions":[{"key":"tier","operator":"DoesNotExist"}]}"#);
        assert_eq!(known().takes(&absent, "unknown"), None);
        assert!(!known().selected(&absent).takes("unknown"));
        let by_name = selector(r#"{"matchLabels":{"kubernetes.io/metadata.name":"unknown"}}"#);
        assert_eq!((known().takes(&by_name, "unknown"), known().takes(&by_name, "fab12")), (Some(true), Some(false)));
        assert_eq!(known().takes(&selector("{}"), "unknown"), Some(true));
    }

    #[test]
    fn the_name_of_a_namespace_is_what_it_is_called() {
        let mut known = Namespaces::default();
        known.insert("a", BTreeMap::from([(NAME_LABEL.to_owned(), "b".to_owned()), ("x".to_owned(), "y".to_owned())]));
        let forged = selector(r#"{"matchLabels":{"kubernetes.io/metadata.name":"b","x":"y"}}"#);
        assert_eq!(known.takes(&forged, "a"), Some(false));
    }
}
