//! How to reach the metaDB: `cacheDriver` parameters as zot reads them (spec §6.5), or `--metadb dynamodb:…`.

use super::tables::Tables;
use crate::config::DriverParams;
use crate::progress::Pressure;
use crate::secret::{self, Secret};
use std::sync::Arc;
use std::time::Duration;

/// How long a writer that has begun waits for a service that fails or does not answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// How the service is reached, whatever table is asked. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub(super) struct Service {
    /// `None`: AWS's own for the region.
    pub endpoint: Option<String>,
    /// `None`: the environment's.
    pub region: Option<String>,
    /// Key id and secret, instead of AWS's default credential chain.
    pub credentials: Option<(String, Secret)>,
    /// Capacity units a second.
    pub rate: Option<u32>,
    pub patience: Duration,
    pub pressure: Arc<Pressure>,
}

impl Service {
    /// # Errors
    /// What is wrong with the endpoint; does not quote it.
    pub fn new(endpoint: Option<String>, region: Option<String>) -> Result<Self, String> {
        if let Some(endpoint) = &endpoint {
            let host =
                endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://")).unwrap_or_default();
            if host.is_empty() || host.starts_with('/') {
                return Err("endpoint must begin with http:// or https:// and name a host".into());
            }
            if host.contains('@') {
                return Err("endpoint must not hold credentials: they come from AWS's default chain".into());
            }
        }
        let (credentials, rate, pressure) = (None, None, Arc::default());
        Ok(Self { endpoint, region, credentials, rate, patience: PATIENCE, pressure })
    }
}

/// Everything about a DynamoDB metaDB. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct DynamoDbOptions {
    pub(super) service: Service,
    pub(super) tables: Tables,
    pub(super) create_tables: bool,
}

impl DynamoDbOptions {
    /// From the `cacheDriver` parameters of a config. The region of the file wins over the environment's.
    ///
    /// # Errors
    /// Why zot would not start with them. Holds no secrets.
    pub fn from_params(params: &DriverParams) -> Result<Self, String> {
        let required = |key: &str| match params.text(key) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(format!("cacheDriver.{key} must be a text that is not empty: zot panics otherwise")),
        };
        Self::new(required("endpoint")?, required("region")?, Tables::named(required)?)
            .map_err(|reason| format!("cacheDriver.{reason}"))
    }

    /// From `ENDPOINT?region=REGION&prefix=PREFIX`, what follows `dynamodb:` in a `--metadb`. A prefix stands for the
    /// table names of zot's example config (`Zot`: `ZotRepoMetadataTable`, …); each of them can also be given under
    /// the name of its `cacheDriver` parameter.
    ///
    /// # Errors
    /// What is wrong with the text; does not quote it.
    pub fn from_url(url: &str) -> Result<Self, String> {
        let (endpoint, query) = url.split_once('?').unwrap_or((url, ""));
        let pairs: Vec<(&str, &str)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .collect();
        let given = |key: &str| pairs.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value);
        if let Some((name, _)) =
            pairs.iter().find(|(name, _)| !matches!(*name, "region" | "prefix") && !Tables::is_key(name))
        {
            return Err(format!("unknown option {:?}", secret::redact_text(name)));
        }
        let region =
            given("region").filter(|region| !region.is_empty()).ok_or("the region is missing: ?region=REGION")?;
        let tables = Tables::named(|key| match (given(key), given("prefix")) {
            (Some(name), _) if !name.is_empty() => Ok(name.to_owned()),
            (None, Some(prefix)) => Ok(Tables::with_prefix(prefix, key)),
            _ => Err(format!("no table is named: &prefix=PREFIX, or &{key}=TABLE and the others")),
        })?;
        Self::new(endpoint.to_owned(), region.to_owned(), tables)
    }

    fn new(endpoint: String, region: String, tables: Tables) -> Result<Self, String> {
        Ok(Self { service: Service::new(Some(endpoint), Some(region))?, tables, create_tables: false })
    }

    /// With these credentials instead of those of AWS's default chain.
    #[must_use]
    pub fn with_credentials(mut self, key_id: &str, secret: Secret) -> Self {
        self.service.credentials = Some((key_id.to_owned(), secret));
        self
    }

    /// Whether a writer creates tables that are missing, as zot does.
    #[must_use]
    pub fn with_create_tables(mut self, create_tables: bool) -> Self {
        self.create_tables = create_tables;
        self
    }

    /// Use at most `rate` capacity units a second, reads and writes together.
    #[must_use]
    pub fn with_rate(mut self, rate: Option<u32>) -> Self {
        self.service.rate = rate;
        self
    }

    /// Wait this long for a service that fails or does not answer, once writing has begun.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.service.patience = patience;
        self
    }

    /// How the service takes it, while requests are made.
    #[must_use]
    pub fn pressure(&self) -> Arc<Pressure> {
        Arc::clone(&self.service.pressure)
    }

    /// Endpoint, region and one table that tells the metaDB from others.
    #[must_use]
    pub fn location(&self) -> String {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        location(&text(&self.service.endpoint), &text(&self.service.region), &self.tables.version)
    }
}

/// The one way to write a place in DynamoDB.
#[must_use]
pub fn location(endpoint: &str, region: &str, version_table: &str) -> String {
    let part = secret::redact_text;
    format!("{} ({}), table {}", part(endpoint), part(region), part(version_table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree::{Map, Tree};

    fn params(changes: &[(&str, Option<Tree>)]) -> DriverParams {
        let mut map = Map::new();
        for key in [
            "region",
            "repometatablename",
            "repoblobsinfotablename",
            "imagemetatablename",
            "userdatatablename",
            "apikeytablename",
            "versiontablename",
        ] {
            map.insert(key.into(), Tree::Text(format!("the-{key}")));
        }
        map.insert("endpoint".into(), Tree::Text("https://dynamodb.eu-west-1.amazonaws.com".into()));
        for (key, value) in changes {
            match value {
                Some(value) => drop(map.insert((*key).into(), value.clone())),
                None => drop(map.remove(*key)),
            }
        }
        DriverParams::new(map)
    }

    #[test]
    fn all_eight_parameters_are_taken_as_they_are() {
        let options = DynamoDbOptions::from_params(&params(&[])).unwrap();
        assert_eq!(options.service.endpoint.as_deref(), Some("https://dynamodb.eu-west-1.amazonaws.com"));
        assert_eq!(options.service.region.as_deref(), Some("the-region"));
        let tables = &options.tables;
        for (name, key) in [
            (&tables.repos, "repometatablename"),
            (&tables.blobs, "repoblobsinfotablename"),
            (&tables.images, "imagemetatablename"),
            (&tables.users, "userdatatablename"),
            (&tables.api_keys, "apikeytablename"),
            (&tables.version, "versiontablename"),
        ] {
            assert_eq!(*name, format!("the-{key}"));
        }
        assert_eq!(
            options.location(),
            "https://dynamodb.eu-west-1.amazonaws.com (the-region), table the-versiontablename"
        );
    }

    #[test]
    fn a_parameter_without_which_zot_panics_is_named() {
        let keys = [
            "endpoint",
            "region",
            "repometatablename",
            "repoblobsinfotablename",
            "imagemetatablename",
            "userdatatablename",
            "apikeytablename",
            "versiontablename",
        ];
        for key in keys {
            for value in [None, Some(Tree::Text(String::new())), Some(Tree::Int(5))] {
                let reason = DynamoDbOptions::from_params(&params(&[(key, value.clone())])).unwrap_err();
                assert!(reason.starts_with(&format!("cacheDriver.{key} ")), "{key} {value:?}: {reason}");
            }
        }
        for endpoint in ["localhost:8000", "http://", "https:///x", "ftp://x", "http://user:Secret@host"] {
            let reason =
                DynamoDbOptions::from_params(&params(&[("endpoint", Some(Tree::Text(endpoint.into())))])).unwrap_err();
            assert!(reason.starts_with("cacheDriver.endpoint ") && !reason.contains("Secret"), "{reason}");
        }
    }

    #[test]
    fn urls_name_endpoint_region_and_tables() {
        let options = DynamoDbOptions::from_url("http://localhost:8000?region=us-east-1&prefix=Zot").unwrap();
        let service = &options.service;
        assert_eq!(service.endpoint.as_deref(), Some("http://localhost:8000"));
        assert_eq!(service.region.as_deref(), Some("us-east-1"));
        // The names of zot's example config.
        assert_eq!(options.tables.repos, "ZotRepoMetadataTable");
        assert_eq!(options.tables.blobs, "ZotRepoBlobsInfoTable");
        assert_eq!(options.tables.images, "ZotImageMetaTable");
        assert_eq!(options.tables.users, "ZotUserDataTable");
        assert_eq!(options.tables.api_keys, "ZotApiKeyTable");
        assert_eq!(options.tables.version, "ZotVersion");
        let mixed = DynamoDbOptions::from_url("http://h?region=r&prefix=&versiontablename=v").unwrap();
        assert_eq!((mixed.tables.version.as_str(), mixed.tables.repos.as_str()), ("v", "RepoMetadataTable"));
        for wrong in [
            "",
            "?region=r&prefix=p",
            "http://h",
            "http://h?prefix=p",
            "http://h?region=r",
            "http://h?region=r&prefix=p&x=1",
            "http://h?region=r&versiontablename=v",
            "http://h?region=r&prefix=p&versiontablename=",
        ] {
            assert!(DynamoDbOptions::from_url(wrong).is_err(), "{wrong}");
        }
    }
}
