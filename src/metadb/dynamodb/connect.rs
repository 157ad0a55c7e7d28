//! The client, the runtime it lives on, and the one way in which a request is made: within limits, again while that helps.

use super::errors::{Fault, Request};
use super::options::Service;
use super::throttle::Gate;
use crate::cancel::Cancel;
use crate::identity::server::is_loopback;
use crate::metadb::MetaDbError;
use crate::progress::Pressure;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Builder, Credentials, SharedHttpClient};
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput;
use aws_sdk_dynamodb::operation::create_table::CreateTableOutput;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemOutput;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableOutput;
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::operation::update_item::UpdateItemOutput;
use aws_sdk_dynamodb::types::ConsumedCapacity;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use ureq::http::Uri;

/// Longest time for a connection, and for one attempt at a request: an item of 400 KB over a slow line.
const CONNECT: Duration = Duration::from_secs(5);
const ATTEMPT: Duration = Duration::from_secs(30);
/// How long a failing service is asked again before anything was written.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long one request is asked again while the service throttles it.
pub const THROTTLED_PATIENCE: Duration = Duration::from_secs(300);

/// A metaDB's connection.
pub struct Link {
    runtime: Runtime,
    pub client: Client,
    pub gate: Gate,
    pub cancel: Cancel,
    pub location: String,
    pub pressure: Arc<Pressure>,
    patience: Duration,
}

impl Link {
    /// Nothing is asked yet.
    pub fn new(service: &Service, location: String, cancel: &Cancel) -> Result<Self, MetaDbError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("dynamodb")
            .enable_all()
            .build()
            .map_err(|error| MetaDbError::Io { action: "open", location: location.clone(), source: error.into() })?;
        let config = runtime.block_on(config(service));
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
        let mut settings = Builder::from(&config);
        settings.set_endpoint_url(service.endpoint.clone());
        let settings = settings
            // Requests are repeated here, where cancelling, throttling and progress are known.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        let gate = Gate::new(service.rate, cancel.clone(), Arc::clone(&service.pressure));
        Ok(Self {
            runtime,
            client: Client::from_conf(settings),
            gate,
            cancel: cancel.clone(),
            location,
            pressure: Arc::clone(&service.pressure),
            patience: FIRST_PATIENCE.min(service.patience),
        })
    }

    /// From now on, wait this long for a failing service.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Run requests to their end. May be called by several threads.
    pub fn run<T>(&self, requests: impl Future<Output = T>) -> T {
        self.runtime.block_on(requests)
    }

    /// A fault of an operation on this metaDB.
    pub fn error(&self, action: &'static str, fault: Fault) -> MetaDbError {
        fault.into_error(action, &self.location)
    }

    /// Make one request, again and again while the failure is one that passes.
    pub async fn call<T, E, F>(&self, request: Request<'_>, send: impl Fn() -> F) -> Result<T, Fault>
    where
        T: Charged,
        E: ProvideErrorMetadata + std::error::Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        let mut failing: Option<Instant> = None;
        let mut refusals = 0;
        loop {
            let sent = self.gate.enter(request.units).await?;
            // A write that is on its way may arrive, so its answer is waited for.
            let answer = match request.write {
                true => send().await,
                false => self.cancel.unless(Duration::ZERO, send()).await.ok_or(Fault::Cancelled)?,
            };
            let fault = match answer {
                Ok(answer) => {
                    sent.served(answer.units(), request.write);
                    return Ok(answer);
                }
                Err(error) => Fault::of(&error, request),
            };
            let patience = if fault == Fault::Throttled {
                sent.throttled();
                THROTTLED_PATIENCE
            } else {
                sent.failed();
                self.patience
            };
            if !fault.passes() {
                return Err(fault);
            }
            let tried = failing.get_or_insert_with(Instant::now).elapsed();
            if tried >= patience {
                return Err(fault.given_up(tried));
            }
            tracing::debug!("dynamodb: {} on {}: {fault:?}", request.action, request.table);
            self.gate.pause(refusals).await?;
            refusals += 1;
        }
    }
}

/// Credentials and everything else as AWS's SDKs find it, but for the region, which is the registry config's.
async fn config(service: &Service) -> SdkConfig {
    let host = service.endpoint.as_ref().and_then(|endpoint| endpoint.parse::<Uri>().ok()?.host().map(str::to_owned));
    // Like Go's library without a proxy to this machine itself.
    let proxy = if is_loopback(&host.unwrap_or_default()) { ProxyConfig::disabled() } else { ProxyConfig::from_env() };
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(https(proxy));
    if let Some(region) = &service.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some((key_id, secret)) = &service.credentials {
        loader = loader.credentials_provider(Credentials::new(key_id, secret.expose(), None, None, "given"));
    }
    loader.load().await
}

/// The SDK's default client, with ring and a proxy.
pub fn https(proxy: ProxyConfig) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = aws_smithy_http_client::Connector::builder()
            .proxy_config(proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::Ring));
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    })
}

/// Answers that tell what they cost.
pub trait Charged {
    /// Capacity units; `None` if the service does not tell.
    fn units(&self) -> Option<f64>;
}

macro_rules! charged {
    ($($answer:ty),+) => {$(
        impl Charged for $answer {
            fn units(&self) -> Option<f64> {
                self.consumed_capacity()?.capacity_units()
            }
        }
    )+};
}

charged!(GetItemOutput, UpdateItemOutput, DeleteItemOutput, ScanOutput);

impl Charged for BatchGetItemOutput {
    fn units(&self) -> Option<f64> {
        let tables = self.consumed_capacity();
        (!tables.is_empty()).then(|| tables.iter().filter_map(ConsumedCapacity::capacity_units).sum())
    }
}

impl Charged for DescribeTableOutput {
    fn units(&self) -> Option<f64> {
        Some(0.0)
    }
}

impl Charged for CreateTableOutput {
    fn units(&self) -> Option<f64> {
        Some(0.0)
    }
}
