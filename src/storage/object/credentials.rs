//! Where S3 credentials come from if the config names none: the default chain of AWS SDK for Go v1, which zot uses
//! (spec §1.10).
//!
//! environment → web identity → profile → container → instance metadata. `~/.aws/config` is only read where
//! `AWS_SDK_LOAD_CONFIG` asks for it.

use super::web_identity::WebIdentity;
use crate::metadb::dynamodb::https;
use aws_config::Region;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_http_client::proxy::ProxyConfig;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Mutex;

/// Credentials are asked for anew when they have only this long to live.
const MARGIN: Duration = Duration::from_secs(120);

/// The chain; asked when first needed, and again before what it gave expires.
pub(super) struct DefaultChain {
    region: String,
    web_identity: WebIdentity,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    provider: Option<SharedCredentialsProvider>,
    /// What it gave last, and when that ends.
    held: Option<(Arc<AwsCredential>, Option<SystemTime>)>,
}

impl DefaultChain {
    /// `region`: where roles are assumed.
    pub(super) fn new(region: &str, web_identity: WebIdentity) -> Self {
        Self { region: region.to_owned(), web_identity, state: Mutex::default() }
    }

    /// What comes after the environment, and when that ends.
    async fn find(&self, state: &mut State) -> Result<(AwsCredential, Option<SystemTime>), String> {
        if let Some(file) = variable(&["AWS_WEB_IDENTITY_TOKEN_FILE"]) {
            let (role, session) = (variable(&["AWS_ROLE_ARN"]), variable(&["AWS_ROLE_SESSION_NAME"]));
            let assumed = self.web_identity.assume(&file, role.as_deref(), session.as_deref()).await;
            return assumed.map_err(|error| format!("web identity: {error}"));
        }
        let provider = state.provider.get_or_insert_with(|| chain(&self.region));
        let found = provider.provide_credentials().await.map_err(|error| match &error {
            CredentialsError::CredentialsNotLoaded(_) => {
                "there are none in the environment, the profile, the container or the instance metadata".to_owned()
            }
            error => crate::error::chain(error),
        })?;
        let credential = AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        };
        Ok((credential, found.expiry()))
    }
}

impl fmt::Debug for DefaultChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultChain")
    }
}

#[async_trait::async_trait]
impl CredentialProvider for DefaultChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        if let Some(credential) = from_environment() {
            return Ok(Arc::new(credential));
        }
        // Whoever comes meanwhile waits for the same answer.
        let mut state = self.state.lock().await;
        let lives = |end: &Option<SystemTime>| end.is_none_or(|end| SystemTime::now() + MARGIN < end);
        if let Some((credential, _)) = state.held.as_ref().filter(|(_, end)| lives(end)) {
            return Ok(Arc::clone(credential));
        }
        let (credential, end) =
            self.find(&mut state).await.map_err(|why| super::generic("S3", format!("no AWS credentials: {why}")))?;
        let credential = Arc::new(credential);
        state.held = Some((Arc::clone(&credential), end));
        Ok(credential)
    }
}

/// A variable that is set and not empty; the first that is.
fn variable(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn from_environment() -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: variable(&["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"])?,
        secret_key: variable(&["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"])?,
        token: variable(&["AWS_SESSION_TOKEN"]),
    })
}

/// What comes after environment and web identity.
fn chain(region: &str) -> SharedCredentialsProvider {
    let config = |proxy| {
        let config = ProviderConfig::without_region().with_region(Some(Region::new(region.to_owned())));
        config.with_http_client(https(proxy))
    };
    // What is asked for a role or a login is far away, the others are this machine's.
    let (far, near) = (config(ProxyConfig::from_env()), config(ProxyConfig::disabled()));
    let shared = variable(&["AWS_SDK_LOAD_CONFIG"])
        .is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"));
    let files =
        EnvConfigFiles::builder().include_default_config_file(shared).include_default_credentials_file(true).build();
    let mut profile = ProfileFileCredentialsProvider::builder().configure(&far).profile_files(files);
    let names: &[&str] = if shared { &["AWS_PROFILE", "AWS_DEFAULT_PROFILE"] } else { &["AWS_PROFILE"] };
    if let Some(name) = variable(names) {
        profile = profile.profile_name(name);
    }
    SharedCredentialsProvider::new(
        CredentialsProviderChain::first_try("profile", profile.build())
            .or_else("container", EcsCredentialsProvider::builder().configure(&near).build())
            .or_else("instance metadata", ImdsCredentialsProvider::builder().configure(&near).build()),
    )
}
