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
    /// Returns whether no field is there.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns these fields, and those of `added` that are absent here; labels and annotations key by key.
    #[must_use]
    pub fn filled_from(&self, added: &Self) -> Self {
        let either = |known: &Option<String>, added: &Option<String>| known.as_ref().or(added.as_ref()).cloned();
        let union = |known: &BTreeMap<String, String>, added: &BTreeMap<String, String>| {
            let mut all = added.clone();
            all.extend(known.iter().map(|(key, value)| (key.clone(), value.clone())));
            all
        };
        Self {
            namespace: either(&self.namespace, &added.namespace),
            pod: either(&self.pod, &added.pod),
            pod_uid: either(&self.pod_uid, &added.pod_uid),
            container: either(&self.container, &added.container),
            node: either(&self.node, &added.node),
            app: either(&self.app, &added.app),
            app_version: either(&self.app_version, &added.app_version),
            site_id: either(&self.site_id, &added.site_id),
            instance_id: either(&self.instance_id, &added.instance_id),
            source: either(&self.source, &added.source),
            owner_kind: either(&self.owner_kind, &added.owner_kind),
            owner_name: either(&self.owner_name, &added.owner_name),
            labels: union(&self.labels, &added.labels),
            annotations: union(&self.annotations, &added.annotations),
        }
    }

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

    /// An origin of which every field is there and says `value`.
    fn full(value: &str) -> OriginBuilder {
        let some = || Some(value.to_owned());
        let map = || BTreeMap::from([("both".to_owned(), value.to_owned()), (value.to_owned(), value.to_owned())]);
        OriginBuilder {
            namespace: some(),
            pod: some(),
            pod_uid: some(),
            container: some(),
            node: some(),
            app: some(),
            app_version: some(),
            site_id: some(),
            instance_id: some(),
            source: some(),
            owner_kind: some(),
            owner_name: some(),
            labels: map(),
            annotations: map(),
        }
    }

    #[test]
    fn what_is_known_is_never_overridden() {
        let merged = full("known").filled_from(&full("added"));
        for (name, field) in OriginField::NAMES {
            assert_eq!(merged.clone().build().get(&field), Some("known"), "{name}");
        }
        let both = [("added", "added"), ("both", "known"), ("known", "known")];
        let both = BTreeMap::from(both.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!((merged.labels, merged.annotations), (both.clone(), both));
    }

    #[test]
    fn what_is_absent_is_filled() {
        assert_eq!(OriginBuilder::default().filled_from(&full("added")), full("added"));
        assert_eq!(full("known").filled_from(&OriginBuilder::default()), full("known"));
        let known = OriginBuilder { source: Some("http".into()), ..OriginBuilder::default() };
        let added =
            OriginBuilder { source: Some("forged".into()), site_id: Some("s".into()), ..OriginBuilder::default() };
        assert_eq!(&known.filled_from(&added).build().json()[..], br#"{"siteID":"s","source":"http"}"#);
    }

    #[test]
    fn only_an_origin_without_fields_is_empty() {
        assert!(OriginBuilder::default().is_empty());
        let labels = BTreeMap::from([("app".into(), "etcher".into())]);
        assert!(!OriginBuilder { labels, ..OriginBuilder::default() }.is_empty());
    }
}
