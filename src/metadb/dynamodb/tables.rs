//! zot's six tables: their names, whether they are there and fit, and how they are made.

use super::connect::Link;
use super::errors::{Fault, Request};
use super::items::KEY;
use crate::metadb::MetaDbError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription, TableStatus,
};
use futures_util::future::{join_all, try_join_all};
use std::time::{Duration, Instant};

/// How long zot waits for a table that it created.
const CREATED_IN: Duration = Duration::from_secs(120);
/// How often a table is looked at that is being created.
const POLL: Duration = Duration::from_millis(200);

/// Names of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    pub repos: String,
    pub blobs: String,
    pub images: String,
    pub users: String,
    pub api_keys: String,
    pub version: String,
}

/// `cacheDriver` parameters that name them, and their names in zot's example config after its prefix `Zot`.
const KEYS: [(&str, &str); 6] = [
    ("repometatablename", "RepoMetadataTable"),
    ("repoblobsinfotablename", "RepoBlobsInfoTable"),
    ("imagemetatablename", "ImageMetaTable"),
    ("userdatatablename", "UserDataTable"),
    ("apikeytablename", "ApiKeyTable"),
    ("versiontablename", "Version"),
];

impl Tables {
    /// Each by the name of its parameter.
    pub fn named(name: impl Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        let [repos, blobs, images, users, api_keys, version] = KEYS.map(|(key, _)| name(key));
        let tables = Self {
            repos: repos?,
            blobs: blobs?,
            images: images?,
            users: users?,
            api_keys: api_keys?,
            version: version?,
        };
        let mut names = tables.all();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err("the same table is named twice".into());
        }
        Ok(tables)
    }

    /// Whether a parameter names a table.
    pub fn is_key(key: &str) -> bool {
        KEYS.iter().any(|(known, _)| *known == key)
    }

    /// The table of a parameter where only a prefix is given.
    pub fn with_prefix(prefix: &str, key: &str) -> String {
        let name = KEYS.iter().find(|(known, _)| *known == key).map_or(key, |(_, name)| name);
        format!("{prefix}{name}")
    }

    /// All that zot opens.
    pub fn all(&self) -> [&str; 6] {
        [&self.version, &self.repos, &self.blobs, &self.images, &self.users, &self.api_keys]
    }

    /// Those that metactl reads: API keys are none of its business.
    pub fn read(&self) -> [&str; 5] {
        [&self.version, &self.repos, &self.blobs, &self.images, &self.users]
    }
}

/// Sizes of tables that are there, and names of those that are not.
pub struct Found {
    pub sizes: Vec<(String, u64)>,
    pub missing: Vec<String>,
}

impl Link {
    /// Look at the tables that metactl reads.
    ///
    /// # Errors
    /// If one is not zot's, or cannot be looked at.
    pub fn look_at(&self, tables: &Tables) -> Result<Found, MetaDbError> {
        let tables = tables.read();
        let described = self.run(join_all(tables.iter().map(|table| self.describe(table))));
        let mut found = Found { sizes: Vec::new(), missing: Vec::new() };
        for (table, description) in tables.iter().zip(described) {
            match description.map_err(|fault| self.error("open", fault))? {
                None => found.missing.push((*table).to_owned()),
                Some(description) => {
                    self.check(table, &description)?;
                    let size = description.table_size_bytes().and_then(|size| u64::try_from(size).ok());
                    found.sizes.push(((*table).to_owned(), size.unwrap_or(0)));
                }
            }
        }
        Ok(found)
    }

    async fn describe(&self, table: &str) -> Result<Option<TableDescription>, Fault> {
        let request = Request { action: "DescribeTable", table, units: 0.0, write: false };
        match self.call(request, || self.client.describe_table().table_name(table).send()).await {
            // One that is being deleted is as good as gone.
            Ok(answer) => Ok(answer.table.filter(|table| table.table_status() != Some(&TableStatus::Deleting))),
            Err(Fault::NoTable(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn check(&self, table: &str, description: &TableDescription) -> Result<(), MetaDbError> {
        let keys: Vec<_> = description.key_schema().iter().map(|key| (key.attribute_name(), key.key_type())).collect();
        let text = description.attribute_definitions().iter().any(|attribute| {
            attribute.attribute_name() == KEY && *attribute.attribute_type() == ScalarAttributeType::S
        });
        if keys == [(KEY, &KeyType::Hash)] && text {
            return Ok(());
        }
        let detail = format!("table {table} is none of zot's metaDB: its key is not the text {KEY}");
        Err(MetaDbError::Damaged { location: self.location.clone(), detail })
    }

    /// Create what is missing of all six, as zot does, and wait until it can be used.
    pub fn create_tables(&self, tables: &Tables) -> Result<(), MetaDbError> {
        let created = self.run(try_join_all(tables.all().map(|table| self.create(table))));
        created.map(drop).map_err(|fault| self.error("create", fault))
    }

    async fn create(&self, table: &str) -> Result<(), Fault> {
        if self.describe(table).await?.is_some() {
            return Ok(());
        }
        tracing::info!("creating table {table}");
        let wrong = |error: aws_sdk_dynamodb::error::BuildError| Fault::Other(error.to_string());
        let attribute =
            AttributeDefinition::builder().attribute_name(KEY).attribute_type(ScalarAttributeType::S).build();
        let schema = KeySchemaElement::builder().attribute_name(KEY).key_type(KeyType::Hash).build();
        let asked = self.client.create_table().table_name(table).billing_mode(BillingMode::PayPerRequest);
        let asked = asked.attribute_definitions(attribute.map_err(wrong)?).key_schema(schema.map_err(wrong)?);
        let request = Request { action: "CreateTable", table, units: 0.0, write: true };
        match self.call(request, || asked.clone().send()).await {
            Ok(_) | Err(Fault::TableInUse) => {}
            Err(fault) => return Err(fault),
        }
        let deadline = Instant::now() + CREATED_IN;
        while self.describe(table).await?.and_then(|table| table.table_status) != Some(TableStatus::Active) {
            if Instant::now() >= deadline {
                return Err(Fault::Other(format!("table {table} is not active {} s after", CREATED_IN.as_secs())));
            }
            self.gate.sleep(POLL).await?;
        }
        Ok(())
    }
}
