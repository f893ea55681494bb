//! The SDK's client: made at the first batch, and anew when the keys change.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use spillway_delivery::backend::{Fault, FaultKind};
use spillway_delivery::secret::Secret;

use super::settings::{S3Credentials, S3Settings};
use super::transport::Transport;
use crate::destinations::Destinations;
use crate::http_client::HttpClient;
use crate::redact::Secrets;
use crate::settings::SecretKeyRef;

/// Keys that a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keys {
    id: Secret,
    secret: Secret,
    token: Option<Secret>,
}

/// Makes clients of one store.
pub(super) struct Store {
    region: Region,
    endpoint: Option<String>,
    force_path_style: bool,
    credentials: Option<S3Credentials>,
    secrets: Secrets,
    http: Arc<HttpClient>,
    /// The client, and the keys it signs with: made anew when they change.
    current: Mutex<Option<(Option<Keys>, Client)>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("region", &self.region).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn new(settings: &S3Settings, secrets: Secrets, destinations: Destinations) -> Self {
        let (tls, https) = (settings.tls.as_ref(), settings.speaks_https());
        Self {
            region: Region::new(settings.region.clone()),
            endpoint: settings.endpoint.clone(),
            force_path_style: settings.force_path_style,
            credentials: settings.credentials.clone(),
            http: Arc::new(HttpClient::new(secrets.clone(), destinations, tls, https)),
            secrets,
            current: Mutex::default(),
        }
    }

    /// Returns a client for the keys as they are now.
    pub(super) fn client(&self) -> Result<Client, Fault> {
        let keys = self.credentials.as_ref().map(|credentials| self.read(credentials)).transpose()?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((used, client)) = &*current
            && *used == keys
        {
            return Ok(client.clone());
        }
        let client = Client::from_conf(self.config(keys.as_ref()));
        *current = Some((keys, client.clone()));
        Ok(client)
    }

    /// Returns `text` without the secrets that the store may have put into it, for what is logged.
    pub(super) fn redact(&self, text: &str) -> String {
        self.http.redact(text)
    }

    /// Lets go of the client and its connections.
    pub(super) fn close(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.http.close();
    }

    fn read(&self, credentials: &S3Credentials) -> Result<Keys, Fault> {
        // What goes into a header is looked at here: the SDK would panic.
        let sent = |reference: &SecretKeyRef| {
            let secret = self.http.secret(reference)?;
            self.http.secret_value(secret.reveal().to_owned(), reference)?;
            Ok::<_, Fault>(secret)
        };
        Ok(Keys {
            id: sent(&credentials.access_key_id_secret_ref)?,
            secret: self.http.secret(&credentials.secret_access_key_secret_ref)?,
            token: credentials.session_token_secret_ref.as_ref().map(sent).transpose()?,
        })
    }

    fn config(&self, keys: Option<&Keys>) -> Config {
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(Transport::new(self.http.clone()))
            .region(self.region.clone())
            .force_path_style(self.force_path_style)
            // The engine's business: back-off, timeouts, a server that hangs.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // The signature covers the bytes; many stores that are not AWS refuse checksums they do not know.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        config.set_endpoint_url(self.endpoint.clone());
        match keys {
            Some(Keys { id, secret, token }) => {
                let token = token.as_ref().map(|token| token.reveal().to_owned());
                let keys = Credentials::new(id.reveal(), secret.reveal(), token, None, "manifest");
                config.credentials_provider(keys).build()
            }
            None => config.credentials_provider(self.of_the_machine()).build(),
        }
    }

    /// Returns where the keys of the machine are asked for, in this order.
    fn of_the_machine(&self) -> OfTheMachine {
        // The store's own CA has no say there, and what gives keys to a machine is on loopback or link-local. No tenant's
        // backend gets here.
        let client = HttpClient::new(self.secrets.clone(), Destinations::Any, None, true);
        let client = Transport::new(Arc::new(client));
        let machine = ProviderConfig::without_region().with_region(Some(self.region.clone())).with_http_client(client);
        let web_identity = WebIdentityTokenCredentialsProvider::builder().configure(&machine).build();
        let container = EcsCredentialsProvider::builder().configure(&machine).build();
        let instance = ImdsCredentialsProvider::builder().configure(&machine).build();
        let chain = CredentialsProviderChain::first_try("web identity", web_identity)
            .or_else("container", container)
            .or_else("instance", instance);
        OfTheMachine { chain, secrets: self.secrets.clone() }
    }
}

/// Keys of the machine, looked at before the SDK puts them into headers, where it would panic.
#[derive(Debug)]
struct OfTheMachine {
    chain: CredentialsProviderChain,
    secrets: Secrets,
}

impl ProvideCredentials for OfTheMachine {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let keys = self.chain.provide_credentials().await?;
            self.secrets.note("the id of the machine's key", keys.access_key_id());
            self.secrets.note("the machine's key", keys.secret_access_key());
            self.secrets.note("the machine's token", keys.session_token().unwrap_or_default());
            let fine = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
            if fine(keys.access_key_id()) && keys.session_token().is_none_or(fine) {
                Ok(keys)
            } else {
                let text = "the machine gives keys that a header cannot carry";
                Err(CredentialsError::unhandled(Fault::new(FaultKind::Unauthorized, text)))
            }
        })
    }
}
