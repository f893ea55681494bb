//! The SDK's requests over the HTTP client of this crate: one TLS set-up, one place that bounds what a server may say.
//!
//! The SDK's own client is left out of the build: it reads an answer of any length into memory, and panics where the
//! machine has no CA certificates.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::{HttpClient as SdkClient, RuntimeComponents};
use aws_sdk_s3::error::ConnectorError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::http::StatusCode;
use reqwest::{Body, Request};
use spillway_delivery::backend::{Fault, FaultKind};
use tokio::time::timeout;

use crate::http_client::{AnswerLimits, HttpClient};

/// The store's answers are a few hundred bytes, and one that lists uploads names at most 1,000 of them. The end of an
/// upload in parts may take minutes behind its status; the engine's timeout is the bound.
const ANSWER_LIMITS: AnswerLimits = AnswerLimits { body_bytes_max: 256 << 10, body_timeout: Duration::from_mins(10) };

/// Hands the SDK's requests to one client.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    client: Arc<HttpClient>,
}

/// The same, with the time that one request may take.
#[derive(Debug)]
struct Connection {
    client: Arc<HttpClient>,
    time_max: Option<Duration>,
}

impl Transport {
    pub(super) fn new(client: Arc<HttpClient>) -> Self {
        Self { client }
    }
}

impl SdkClient for Transport {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // Set where the machine is asked for keys; what the engine sends has the engine's own timeout.
        let time_max = settings.read_timeout().map(|read| read + settings.connect_timeout().unwrap_or_default());
        SharedHttpConnector::new(Connection { client: self.client.clone(), time_max })
    }
}

impl HttpConnector for Connection {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, time_max) = (self.client.clone(), self.time_max);
        HttpConnectorFuture::new(async move {
            let answered = match time_max {
                None => exchange(&client, request).await,
                Some(time_max) => timeout(time_max, exchange(&client, request))
                    .await
                    .unwrap_or_else(|_| Err(Fault::new(FaultKind::Timeout, format_args!("no answer in {time_max:?}")))),
            };
            answered.map_err(|fault| match fault.kind {
                FaultKind::Timeout => ConnectorError::timeout(fault.into()),
                FaultKind::Local => ConnectorError::user(fault.into()),
                _ => ConnectorError::io(fault.into()),
            })
        })
    }
}

async fn exchange(client: &HttpClient, request: HttpRequest) -> Result<HttpResponse, Fault> {
    let local = || Fault::new(FaultKind::Local, "the request cannot be made");
    let broken = || Fault::new(FaultKind::Broken, "the head of the answer cannot be read");
    let request = request.try_into_http1x().map_err(|_| local())?.map(Body::wrap::<SdkBody>);
    let request = Request::try_from(request).map_err(|_| local())?;
    let answer = client.execute(request, ANSWER_LIMITS).await?;
    let status = StatusCode::try_from(answer.status).map_err(|_| broken())?;
    let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
    for (name, value) in &answer.headers {
        // What is not text is nothing that the SDK asks for.
        if let Ok(value) = value.to_str() {
            let (name, value) = (name.as_str().to_owned(), value.to_owned());
            response.headers_mut().try_append(name, value).map_err(|_| broken())?;
        }
    }
    Ok(response)
}
