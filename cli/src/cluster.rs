//! The API server: the one module that talks to it, and it only reads.
//!
//! # Limits
//! [`PAGE_OBJECTS`] objects a page; every request has the time of `--request-timeout`.

use std::collections::BTreeMap;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{LimitRange as StoredLimitRange, Namespace, Node, Pod};
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use spillway_crds::inject::LimitRange;
use spillway_crds::kinds::GROUP;
use spillway_crds::served::LEASE;
use spillway_crds::words;

use crate::cli::ClusterFlags;
use crate::exit::Failure;
use crate::objects::Object;
use spillway_crds::kinds::Kind;

/// Objects per page of a listing.
const PAGE_OBJECTS: u32 = 500;

/// The labels of the pods of agents.
const AGENTS: &str = "app.kubernetes.io/part-of=spillway,app.kubernetes.io/component=agent";

/// What was looked for.
#[derive(Debug, Clone)]
pub enum Found<T> {
    /// It is there.
    There(T),
    /// It is not.
    Absent,
    /// It could not be looked at, and why.
    Unknown(String),
}

/// A way to a cluster.
pub struct Cluster {
    client: Client,
    /// The namespace that is asked about.
    pub namespace: String,
}

/// Returns the result of asking a cluster.
pub fn ask<T>(flags: &ClusterFlags, asking: impl AsyncFnOnce(Cluster) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
    runtime.block_on(async { asking(Cluster::connect(flags).await?).await })
}

impl Cluster {
    async fn connect(flags: &ClusterFlags) -> Result<Self, Failure> {
        let config = config(flags).await.map_err(Failure::new)?;
        let namespace = flags.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client =
            Client::try_from(config).context("no client can be made of the kubeconfig").map_err(Failure::new)?;
        Ok(Self { client, namespace })
    }

    /// Lists objects of ours: of one namespace, or all. A server without the kind is a failure in words.
    pub async fn objects(&self, kind: Kind, namespace: Option<&str>) -> Found<Vec<Object>> {
        let resource = ApiResource {
            group: GROUP.to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: format!("{GROUP}/v1alpha1"),
            kind: kind.name().to_owned(),
            plural: kind.plural().to_owned(),
        };
        let api: Api<DynamicObject> = match namespace.filter(|_| !kind.is_of_the_cluster()) {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        match listed(&api, ListParams::default()).await {
            Ok(objects) => Found::There(objects.into_iter().map(|object| Object::new(kind, object)).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => Found::Absent,
            Err(error) => Found::Unknown(in_words(&error)),
        }
    }

    /// Returns the labels of a namespace.
    pub async fn labels(&self, namespace: &str) -> Found<BTreeMap<String, String>> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        found(api.get_opt(namespace).await.map(|found| found.map(|one| one.metadata.labels.unwrap_or_default())))
    }

    /// Returns what the `LimitRange`s of a namespace allow containers.
    pub async fn limits(&self, namespace: &str) -> Found<LimitRange> {
        let api: Api<StoredLimitRange> = Api::namespaced(self.client.clone(), namespace);
        let allowed = |one: StoredLimitRange| LimitRange::of(&serde_json::to_value(one.spec).unwrap_or_default());
        let listed = listed(&api, ListParams::default()).await;
        found(listed.map(|all| Some(all.into_iter().map(allowed).fold(LimitRange::default(), LimitRange::and))))
    }

    /// Returns the labels of every namespace.
    pub async fn all_labels(&self) -> Found<BTreeMap<String, BTreeMap<String, String>>> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let labels = |one: Namespace| Some((one.metadata.name?, one.metadata.labels.unwrap_or_default()));
        let listed = listed(&api, ListParams::default()).await;
        found(listed.map(|all| Some(all.into_iter().filter_map(labels).collect())))
    }

    /// Returns a pod.
    pub async fn pod(&self, name: &str) -> Found<Pod> {
        found(Api::<Pod>::namespaced(self.client.clone(), &self.namespace).get_opt(name).await)
    }

    /// Returns a node.
    pub async fn node(&self, name: &str) -> Found<Node> {
        found(Api::<Node>::all(self.client.clone()).get_opt(name).await)
    }

    /// Returns the Lease of the controller.
    pub async fn lease(&self, namespace: &str) -> Found<Lease> {
        found(Api::<Lease>::namespaced(self.client.clone(), namespace).get_opt(LEASE).await)
    }

    /// Returns the pods of agents on a node.
    pub async fn agents(&self, namespace: &str, node: &str) -> Found<Vec<Pod>> {
        let params = ListParams::default().labels(AGENTS).fields(&format!("spec.nodeName={node}"));
        found(listed(&Api::<Pod>::namespaced(self.client.clone(), namespace), params).await.map(Some))
    }
}

impl<T> Found<T> {
    /// Returns what is there.
    pub fn there(self) -> Option<T> {
        match self {
            Self::There(there) => Some(there),
            Self::Absent | Self::Unknown(_) => None,
        }
    }
}

async fn config(flags: &ClusterFlags) -> anyhow::Result<Config> {
    let ClusterFlags { kubeconfig, context, cluster, user, .. } = flags;
    let options = KubeConfigOptions { context: context.clone(), cluster: cluster.clone(), user: user.clone() };
    let is_told = kubeconfig.is_some() || [context, cluster, user].into_iter().any(Option::is_some);
    let mut config = if is_told {
        let file = match kubeconfig {
            Some(path) => {
                Kubeconfig::read_from(path).with_context(|| format!("{} is no kubeconfig", path.display()))?
            }
            None => Kubeconfig::read().context("there is no kubeconfig")?,
        };
        Config::from_custom_kubeconfig(file, &options).await.context("the kubeconfig does not say which cluster")?
    } else {
        Config::infer().await.context("no way to a cluster is known: give --kubeconfig")?
    };
    config.read_timeout = Some(flags.request_timeout).filter(|timeout| !timeout.is_zero());
    if let Some(user) = &flags.act_as {
        config.auth_info.impersonate = Some(user.clone());
    }
    Ok(config)
}

async fn listed<K>(api: &Api<K>, params: ListParams) -> kube::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let (mut params, mut all) = (params.limit(PAGE_OBJECTS), Vec::new());
    loop {
        let page = api.list(&params).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

fn found<T>(result: kube::Result<Option<T>>) -> Found<T> {
    match result {
        Ok(Some(there)) => Found::There(there),
        Ok(None) => Found::Absent,
        Err(error) => Found::Unknown(in_words(&error)),
    }
}

/// Returns an error of the API server in one line, without what it repeats.
fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => words::of_error(error),
    }
}
