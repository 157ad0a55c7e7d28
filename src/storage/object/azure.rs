//! Parameters of the Azure Blob Storage driver: `mapstructure` without weak typing (spec §1.10).

use super::http::Connector;
use super::keys::Keys;
use super::params::{ParamError, Params, address, refused};
use crate::config::scalar;
use crate::config::tree::{Map, Tree};
use crate::secret::Secret;
use base64::Engine as _;
use object_store::azure::{AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::{ClientOptions, CredentialProvider, RetryConfig};
use std::sync::Arc;

type Provider = Arc<dyn CredentialProvider<Credential = AzureCredential>>;

/// A container and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Azure {
    account: String,
    container: String,
    service_url: String,
    credentials: Credentials,
    skip_verify: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Credentials {
    SharedKey(Secret),
    ClientSecret { tenant: String, client: String, secret: Secret },
    Default,
}

impl Azure {
    pub(super) fn from_params(params: Params<'_>) -> Result<(Self, Keys), ParamError> {
        let whole = Fields { map: |key| params.get(key), prefix: "" };
        let account = whole.required("accountname")?;
        let container = whole.required("container")?;
        let account_key = whole.text("accountkey")?;
        whole.text("connectionstring")?;
        let skip_verify = match params.get("skipverify") {
            None => false,
            Some(Tree::Bool(value)) => *value,
            Some(other) => return Err(refused("skipverify", format!("must be a boolean, not {}", other.kind()))),
        };
        if let Some(other) = params.get("max_retries")
            && !matches!(other, Tree::Int(_) | Tree::Uint(_) | Tree::Float(_))
        {
            return Err(refused("max_retries", format!("must be a number, not {}", other.kind())));
        }
        let delay = whole.text("retry_delay")?;
        if !delay.is_empty() && scalar::duration(&delay).is_none() {
            return Err(refused("retry_delay", "must be a duration such as 100ms"));
        }
        let realm = params.get("realm").map_or_else(|| Ok("core.windows.net".into()), |_| whole.text("realm"))?;
        let service_url = match whole.text("serviceurl")? {
            url if url.is_empty() => address(&format!("https://{account}.blob.{realm}"))
                .ok_or_else(|| refused("accountname", "and realm make no host's name"))?,
            url => address(&url).ok_or_else(|| refused("serviceurl", "must be an HTTP address without a query"))?,
        };
        let credentials = credentials(params, &account_key)?;
        let keys = Keys::single(&whole.text("rootdirectory")?)?;
        Ok((Self { account, container, service_url, credentials, skip_verify }, keys))
    }

    pub(super) fn location(&self, root: &str) -> String {
        format!("azure://{}/{}/{root}", self.account, self.container)
    }

    pub(super) fn secrets(&self) -> Vec<Secret> {
        match &self.credentials {
            Credentials::SharedKey(secret) | Credentials::ClientSecret { secret, .. } => vec![secret.clone()],
            Credentials::Default => Vec::new(),
        }
    }

    pub(super) fn options(&self) -> Result<ClientOptions, String> {
        super::client_options(&self.service_url, self.skip_verify, "")
    }

    pub(super) fn open(
        &self,
        connector: Connector,
        options: ClientOptions,
        retry: RetryConfig,
    ) -> object_store::Result<MicrosoftAzure> {
        let builder = self.builder(&connector, options, &retry);
        if let Credentials::SharedKey(key) = &self.credentials {
            return builder.with_access_key(key.expose()).build();
        }
        builder.with_credentials(self.tokens(&connector, &retry)?).build()
    }

    fn builder(&self, connector: &Connector, options: ClientOptions, retry: &RetryConfig) -> MicrosoftAzureBuilder {
        MicrosoftAzureBuilder::new()
            .with_http_connector(connector.clone())
            .with_client_options(options)
            .with_retry(retry.clone())
            .with_account(&self.account)
            .with_container_name(&self.container)
            .with_endpoint(self.service_url.clone())
    }

    /// Where tokens come from. `skipverify` is about the storage service, never about those that issue tokens.
    fn tokens(&self, connector: &Connector, retry: &RetryConfig) -> object_store::Result<Provider> {
        let builder = || -> object_store::Result<MicrosoftAzureBuilder> {
            let options =
                super::client_options("https://", false, "").map_err(|detail| super::generic("Azure", detail))?;
            let builder = self.builder(connector, options, retry);
            Ok(match variable("AZURE_AUTHORITY_HOST") {
                Some(host) => builder.with_authority_host(host.trim_end_matches('/')),
                None => builder,
            })
        };
        let provider = |builder: MicrosoftAzureBuilder| Ok(Arc::clone(builder.build()?.credentials()));
        if let Credentials::ClientSecret { tenant, client, secret } = &self.credentials {
            return provider(builder()?.with_client_secret_authorization(client, secret.expose(), tenant));
        }
        let (tenant, client) = (variable("AZURE_TENANT_ID"), variable("AZURE_CLIENT_ID"));
        if let (Some(tenant), Some(client)) = (&tenant, &client) {
            if let Some(secret) = variable("AZURE_CLIENT_SECRET") {
                return provider(builder()?.with_client_secret_authorization(client, secret, tenant));
            }
            if variable("AZURE_CLIENT_CERTIFICATE_PATH").is_some() {
                let detail = "AZURE_CLIENT_CERTIFICATE_PATH: this metactl cannot use certificates of applications";
                return Err(super::generic("Azure", detail.into()));
            }
            if let Some(file) = variable("AZURE_FEDERATED_TOKEN_FILE") {
                let builder = builder()?.with_client_id(client).with_tenant_id(tenant);
                return provider(builder.with_federated_token_file(file));
            }
        }
        let managed = match &client {
            Some(client) => builder()?.with_client_id(client),
            None => builder()?,
        };
        let managed = match variable("IDENTITY_ENDPOINT") {
            Some(endpoint) => managed.with_msi_endpoint(endpoint),
            None => managed,
        };
        let cli = builder()?.with_credential_type("azure_cli");
        Ok(Arc::new(FirstOf {
            managed: provider(managed.with_credential_type("managed_identity"))?,
            cli: provider(cli)?,
        }))
    }
}

/// Managed identity where there is one, else whoever is logged in to the command-line tool.
#[derive(Debug)]
struct FirstOf {
    managed: Provider,
    cli: Provider,
}

#[async_trait::async_trait]
impl CredentialProvider for FirstOf {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        let managed = match self.managed.get_credential().await {
            Err(error) => error,
            found => return found,
        };
        self.cli.get_credential().await.map_err(|cli| {
            let (managed, cli) = (super::reason(&managed), super::reason(&cli));
            super::generic(
                "Azure",
                format!(
                    "no Azure credentials: there are none in the environment; managed identity: {managed}; \
                     Azure CLI: {cli}"
                ),
            )
        })
    }
}

/// Texts of a section.
struct Fields<'p, F: Fn(&str) -> Option<&'p Tree>> {
    map: F,
    prefix: &'static str,
}

impl<'p, F: Fn(&str) -> Option<&'p Tree>> Fields<'p, F> {
    /// A text; empty if absent.
    fn text(&self, key: &str) -> Result<String, ParamError> {
        match (self.map)(key) {
            None | Some(Tree::Null) => Ok(String::new()),
            Some(Tree::Text(text)) => Ok(text.clone()),
            Some(other) => Err(self.refused(key, &format!("must be a text, not {}", other.kind()))),
        }
    }

    fn required(&self, key: &str) -> Result<String, ParamError> {
        match self.text(key)? {
            text if text.is_empty() => Err(self.refused(key, "is missing")),
            text => Ok(text),
        }
    }

    fn refused(&self, key: &str, reason: &str) -> ParamError {
        refused(&format!("{}{key}", self.prefix), reason)
    }
}

fn credentials(params: Params<'_>, account_key: &str) -> Result<Credentials, ParamError> {
    let empty = Map::new();
    let map = match params.get("credentials") {
        None => &empty,
        Some(Tree::Map(map)) => map,
        Some(other) => return Err(refused("credentials", format!("must be a map, not {}", other.kind()))),
    };
    let fields = Fields { map: |key| map.get(key), prefix: "credentials." };
    let (tenant, client, secret) = (fields.text("tenantid")?, fields.text("clientid")?, fields.text("secret")?);
    match fields.text("type")?.as_str() {
        "shared_key" => match base64::engine::general_purpose::STANDARD.decode(account_key) {
            Ok(key) if !key.is_empty() => Ok(Credentials::SharedKey(Secret::new(account_key))),
            _ => Err(refused("accountkey", "must be the account's key in base64")),
        },
        "client_secret" => {
            let plain =
                |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
            if tenant.is_empty() || !plain(&tenant) {
                return Err(fields.refused("tenantid", "must be a tenant's name or id"));
            }
            if client.is_empty() {
                return Err(fields.refused("clientid", "is missing"));
            }
            if secret.is_empty() {
                return Err(fields.refused("secret", "is missing"));
            }
            Ok(Credentials::ClientSecret { tenant, client, secret: Secret::new(secret) })
        }
        "default_credentials" => Ok(Credentials::Default),
        _ => Err(fields.refused("type", "must be shared_key, client_secret or default_credentials")),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DriverParams;

    fn text(text: &str) -> Tree {
        Tree::Text(text.into())
    }

    fn read(params: &[(&str, Tree)]) -> Result<(Azure, Keys), ParamError> {
        let kind = |kind: &str| Tree::Map(Map::from([("type".to_owned(), text(kind))]));
        let mut map = Map::new();
        for (name, value) in [
            ("accountname", text("acct")),
            ("accountkey", text("a2V5")),
            ("container", text("c")),
            ("rootdirectory", text("/zot")),
            ("credentials", kind("shared_key")),
        ] {
            map.insert(name.into(), value);
        }
        map.extend(params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Azure::from_params(Params(&DriverParams::new(map)))
    }

    fn login(fields: &[(&str, &str)]) -> (&'static str, Tree) {
        ("credentials", Tree::Map(fields.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect()))
    }

    #[test]
    fn service_urls() {
        for (params, want) in [
            (&[][..], "https://acct.blob.core.windows.net"),
            (&[("realm", text("core.chinacloudapi.cn"))], "https://acct.blob.core.chinacloudapi.cn"),
            (&[("serviceurl", text("http://127.0.0.1:10000/acct/"))], "http://127.0.0.1:10000/acct"),
            (&[("serviceurl", text("")), ("realm", Tree::Null)], "https://acct.blob.core.windows.net"),
        ] {
            assert_eq!(read(params).unwrap().0.service_url, want);
        }
    }

    #[test]
    fn what_keeps_zot_from_starting() {
        for (name, value) in [
            ("accountname", text("")),
            ("accountname", Tree::Int(5)),
            ("container", Tree::Null),
            ("accountkey", text("not base64!")),
            ("accountkey", text("")),
            ("accountkey", Tree::Float(1.0)),
            ("connectionstring", Tree::Bool(true)),
            ("skipverify", text("true")),
            ("max_retries", text("5")),
            ("retry_delay", text("100")),
            ("retry_delay", Tree::Int(100)),
            ("realm", Tree::Int(1)),
            ("serviceurl", text("acct.blob.core.windows.net")),
            ("serviceurl", text("https://acct.blob.core.windows.net/?sig=x")),
            ("accountname", text("a b")),
            ("rootdirectory", Tree::Int(1)),
            ("credentials", text("shared_key")),
            ("credentials", Tree::Null),
            login(&[]),
            login(&[("type", "password")]),
            login(&[("type", "client_secret"), ("clientid", "c"), ("secret", "s")]),
            login(&[("type", "client_secret"), ("clientid", "c"), ("secret", "s"), ("tenantid", "a/b")]),
            login(&[("type", "client_secret"), ("clientid", "c"), ("tenantid", "t")]),
            login(&[("type", "client_secret"), ("secret", "s"), ("tenantid", "t")]),
        ] {
            assert!(matches!(read(&[(name, value)]), Err(ParamError::Refused(_))), "{name}");
        }
    }

    #[test]
    fn what_does_not() {
        for (name, value) in [
            ("max_retries", Tree::Float(7.0)),
            ("retry_delay", text("1.5s")),
            ("skipverify", Tree::Bool(true)),
            ("skipverify", Tree::Null),
            ("nonsense", Tree::Int(1)),
            login(&[("type", "default_credentials")]),
            login(&[("type", "client_secret"), ("clientid", "c"), ("secret", "s"), ("tenantid", "t-1.x")]),
        ] {
            assert!(read(&[(name, value)]).is_ok(), "{name}");
        }
        let (azure, keys) = read(&[]).unwrap();
        assert!(!format!("{azure:?}").contains("a2V5"));
        assert_eq!((keys.root().as_str(), azure.location("zot").as_str()), ("zot", "azure://acct/c/zot"));
    }
}
