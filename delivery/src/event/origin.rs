//! Who made an event, as far as the agent knows; nothing in an event can change it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A field of [`Origin`] that conditions and templates may name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of `Origin` of that name")]
pub enum OriginField {
    Namespace,
    Pod,
    PodUid,
    Container,
    Node,
    App,
    AppVersion,
    SiteId,
    InstanceId,
    Source,
    OwnerKind,
    OwnerName,
    Label(Box<str>),
    Annotation(Box<str>),
}

impl OriginField {
    /// The plain fields as users write them (API.md, "Words of conditions"); labels and annotations take a key.
    pub const NAMES: [(&'static str, OriginField); 12] = [
        ("namespace", OriginField::Namespace),
        ("pod", OriginField::Pod),
        ("podUID", OriginField::PodUid),
        ("container", OriginField::Container),
        ("node", OriginField::Node),
        ("app", OriginField::App),
        ("appVersion", OriginField::AppVersion),
        ("siteID", OriginField::SiteId),
        ("instanceID", OriginField::InstanceId),
        ("source", OriginField::Source),
        ("owner.kind", OriginField::OwnerKind),
        ("owner.name", OriginField::OwnerName),
    ];

    /// Returns the plain field that users call `name`.
    pub fn by_name(name: &str) -> Option<OriginField> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, field)| field.clone())
    }
}

/// The fields of an origin; absent ones are `None`. This is also the stored form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "named as in API.md, `origin.<field>`")]
pub struct OriginBuilder {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(rename = "podUID", skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    #[serde(rename = "siteID", skip_serializing_if = "Option::is_none")]
    pub site_id: Option<String>,
    #[serde(rename = "instanceID", skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_name: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Who made an event. Immutable and shared; its JSON is rendered once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    fields: OriginBuilder,
    json: Bytes,
}

impl Origin {
    /// Returns the field's value, `None` when the agent does not know it.
    pub fn get(&self, field: &OriginField) -> Option<&str> {
        let fields = &self.fields;
        match field {
            OriginField::Namespace => fields.namespace.as_deref(),
            OriginField::Pod => fields.pod.as_deref(),
            OriginField::PodUid => fields.pod_uid.as_deref(),
            OriginField::Container => fields.container.as_deref(),
            OriginField::Node => fields.node.as_deref(),
            OriginField::App => fields.app.as_deref(),
            OriginField::AppVersion => fields.app_version.as_deref(),
            OriginField::SiteId => fields.site_id.as_deref(),
            OriginField::InstanceId => fields.instance_id.as_deref(),
            OriginField::Source => fields.source.as_deref(),
            OriginField::OwnerKind => fields.owner_kind.as_deref(),
            OriginField::OwnerName => fields.owner_name.as_deref(),
            OriginField::Label(key) => fields.labels.get(&**key).map(String::as_str),
            OriginField::Annotation(key) => fields.annotations.get(&**key).map(String::as_str),
        }
    }

    /// Returns the fields.
    pub fn fields(&self) -> &OriginBuilder {
        &self.fields
    }

    /// Returns the origin as one JSON object on one line: the `origin` of the `_spillway` member and the stored form.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// Reads the stored form.
    pub fn from_json(json: &[u8]) -> Option<Arc<Self>> {
        serde_json::from_slice::<OriginBuilder>(json).ok().map(OriginBuilder::build)
    }
}

impl Default for Origin {
    fn default() -> Self {
        Self { fields: OriginBuilder::default(), json: Bytes::from_static(b"{}") }
    }
}

impl OriginBuilder {
    /// Returns the origin, its JSON rendered.
    pub fn build(self) -> Arc<Origin> {
        let json = serde_json::to_vec(&self).unwrap_or_else(|_| b"{}".to_vec());
        Arc::new(Origin { fields: self, json: json.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_survives_its_stored_form() {
        let origin = OriginBuilder {
            pod_uid: Some("u\n1".into()),
            labels: BTreeMap::from([("app".into(), "etcher".into())]),
            ..OriginBuilder::default()
        }
        .build();
        assert_eq!(Origin::from_json(origin.json()).unwrap(), origin);
        assert_eq!(&origin.json()[..], br#"{"podUID":"u\n1","labels":{"app":"etcher"}}"#);
        assert_eq!(origin.get(&OriginField::Label("app".into())), Some("etcher"));
    }
}
