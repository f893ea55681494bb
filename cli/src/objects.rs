//! Objects of ours as far as they are read: lenient, so that what a newer version added stands in nobody's way.

use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;
use spillway_crds::kinds::Kind;
use spillway_crds::kinds::status::{BackendStatus, ConditionStatus, PipelineStatus, StatusCondition};

/// One object.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a kind of the cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `spec`, as it stands.
    pub spec: Value,
    status: Value,
}

impl Object {
    /// Returns an object as an API server gives it.
    pub fn new(kind: Kind, mut object: DynamicObject) -> Self {
        let mut part = |name: &str| object.data.get_mut(name).map(Value::take).unwrap_or_default();
        let (spec, status) = (part("spec"), part("status"));
        let metadata = object.metadata;
        Self {
            kind,
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            spec,
            status,
        }
    }

    /// Returns the object as errors name it: `Backend fab12/search`, `ClusterBackend lake`.
    pub fn label(&self) -> String {
        let Self { kind, namespace, name, .. } = self;
        match namespace.as_str() {
            "" => format!("{} {name}", kind.name()),
            namespace => format!("{} {namespace}/{name}", kind.name()),
        }
    }

    /// Returns how kubectl is told of it: `backend search -n fab12`.
    pub fn words(&self) -> String {
        let kind = self.kind.name().to_lowercase();
        match self.namespace.as_str() {
            "" => format!("{kind} {}", self.name),
            namespace => format!("{kind} {} -n {namespace}", self.name),
        }
    }

    /// Returns the status of a pipeline; empty where it is not understood.
    pub fn pipeline(&self) -> PipelineStatus {
        PipelineStatus::deserialize(&self.status).unwrap_or_default()
    }

    /// Returns the status of a destination; empty where it is not understood.
    pub fn backend(&self) -> BackendStatus {
        BackendStatus::deserialize(&self.status).unwrap_or_default()
    }

    /// Returns whether a status with that `observedGeneration` speaks of the object as it is now.
    pub fn is_seen(&self, observed: Option<i64>) -> bool {
        observed.is_some_and(|observed| observed >= self.generation)
    }

    /// Returns the object as a document for the compiler.
    pub fn document(&self) -> Value {
        let mut metadata = serde_json::json!({"name": self.name, "generation": self.generation});
        if !self.namespace.is_empty() {
            metadata["namespace"] = self.namespace.as_str().into();
        }
        let version = format!("{}/v1alpha1", spillway_crds::kinds::GROUP);
        serde_json::json!({"apiVersion": version, "kind": self.kind.name(), "metadata": metadata, "spec": self.spec})
    }
}

/// Returns a condition by its name.
pub fn condition<'a>(conditions: &'a [StatusCondition], name: &str) -> Option<&'a StatusCondition> {
    conditions.iter().find(|condition| condition.r#type == name)
}

/// Returns how the status of a condition is written.
pub fn status_word(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

/// Makes an object of recorded JSON, for tests.
#[cfg(test)]
pub(crate) fn recorded(kind: Kind, object: Value) -> Object {
    Object::new(kind, serde_json::from_value(object).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_odd_is_empty_and_the_rest_is_there() {
        let object = recorded(
            Kind::MonitoringPipeline,
            json!({"metadata": {"name": "jobs", "namespace": "fab12", "generation": 2},
                "spec": {"newer": true}, "status": {"conditions": 7}}),
        );
        assert_eq!(object.label(), "MonitoringPipeline fab12/jobs");
        assert_eq!(object.words(), "monitoringpipeline jobs -n fab12");
        assert_eq!(object.pipeline(), PipelineStatus::default());
        assert!(!object.is_seen(Some(1)) && !object.is_seen(None) && object.is_seen(Some(2)));
        assert_eq!(object.document()["spec"], json!({"newer": true}));
        assert_eq!(Kind::ClusterMonitoringPipeline.plural(), "clustermonitoringpipelines");
    }
}
