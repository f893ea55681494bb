//! Selecting pods and namespaces by their labels, as Kubernetes does, with bounds.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::labels::{Labelled, Labels};
use crate::manifest::rules;

/// A label key: an optional DNS prefix and a name.
const KEY_PATTERN: &str = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// A label value; empty is allowed.
pub(crate) const VALUE_PATTERN: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// Selects by labels; every entry must hold, an empty selector takes all.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must be there with exactly these values, at most 64. Default: none. Example: `{app: etcher}`.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = {"type": "string", "maxLength": 63, "pattern": VALUE_PATTERN}
    ))]
    pub match_labels: Labels,

    /// Expressions over labels that must all hold, at most 16. Default: none.
    /// Example: `[{key: tier, operator: In, values: [prod]}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelExpression>,
}

/// One expression over a label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(validation = rules::values_needed(), validation = rules::values_refused())]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelExpression {
    /// The label's key. Example: `tier`.
    #[schemars(length(min = 1, max = 317), regex(pattern = KEY_PATTERN))]
    pub key: String,

    /// How the label's value is compared: `In` or `NotIn` the `values`, or the label `Exists` or `DoesNotExist`.
    pub operator: Operator,

    /// The values of `In` and `NotIn`, at most 64; none for the other operators. Default: none.
    /// Example: `[prod]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63), regex(pattern = VALUE_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is there and its value is one of the values.
    In,
    /// The label is absent or its value is none of the values.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Returns whether it takes all.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Returns whether it takes what has these labels.
    pub fn matches(&self, labels: &impl Labelled) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.value(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.holds(labels.value(&expression.key)))
    }
}

impl LabelExpression {
    fn holds(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.iter().any(|one| one == value)),
            Operator::NotIn => value.is_none_or(|value| self.values.iter().all(|one| one != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> LabelSelector {
        serde_json::from_str(json).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn an_empty_selector_takes_all() {
        assert!(selector("{}").is_empty());
        assert!(selector("{}").matches(&labels(&[])));
        assert!(selector("{}").matches(&labels(&[("app", "x")])));
    }

    #[test]
    fn every_label_and_expression_must_hold() {
        let both = selector(
            r#"{"matchLabels":{"app":"etcher"},"matchExpressions":[{"key":"tier","operator":"In","values":["prod","qa"]}]}"#,
        );
        assert!(both.matches(&labels(&[("app", "etcher"), ("tier", "qa")])));
        assert!(!both.matches(&labels(&[("app", "etcher")])));
        assert!(!both.matches(&labels(&[("app", "other"), ("tier", "qa")])));
    }

    #[test]
    fn an_absent_label_is_not_in_and_does_not_exist() {
        let not_in = selector(r#"{"matchExpressions":[{"key":"a","operator":"NotIn","values":["x"]}]}"#);
        let exists = selector(r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#);
        let absent = selector(r#"{"matchExpressions":[{"key":"a","operator":"DoesNotExist"}]}"#);
        for (pairs, expected) in [
            (vec![], [true, false, true]),
            (vec![("a", "x")], [false, true, false]),
            (vec![("a", "y")], [true, true, false]),
        ] {
            let labels = labels(&pairs);
            assert_eq!(
                [not_in.matches(&labels), exists.matches(&labels), absent.matches(&labels)],
                expected,
                "{pairs:?}"
            );
        }
    }
}
