//! zot's blob cache in DynamoDB (storage spec §1.9): where blobs have their content. A table of its own, with another key.

use super::connect::Link;
use super::items::{BATCH, Item, Items, Wanted, text};
use super::options::{Service, location};
use super::throttle::AT_ONCE;
use crate::cancel::Cancel;
use crate::config::DriverParams;
use crate::metadb::MetaDbError;
use crate::metadb::blob_cache::{GivenUp, Recorded};
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Partition key of the table.
const KEY: &str = "Digest";
/// The path with the content.
const ORIGINAL: &str = "OriginalBlobPath";
/// All paths.
const DUPLICATES: &str = "DuplicateBlobPath";

/// Where a blob cache is. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct DynamoDbBlobCacheOptions {
    service: Service,
    table: String,
}

impl DynamoDbBlobCacheOptions {
    /// From the `cacheDriver` parameters of a store. Unlike the metaDB's, region and endpoint may be missing: then they
    /// are AWS's own.
    ///
    /// # Errors
    /// Why zot would not start with them. Holds no secrets.
    pub fn from_params(params: &DriverParams) -> Result<Self, String> {
        let optional = |key: &str| params.text(key).filter(|text| !text.is_empty()).map(str::to_owned);
        let table = optional("cachetablename").ok_or("cacheDriver.cachetablename must be a text that is not empty")?;
        let service =
            Service::new(optional("endpoint"), optional("region")).map_err(|reason| format!("cacheDriver.{reason}"))?;
        Ok(Self { service, table })
    }

    /// With these credentials instead of those of AWS's default chain.
    #[must_use]
    pub fn with_credentials(mut self, key_id: &str, secret: crate::secret::Secret) -> Self {
        self.service.credentials = Some((key_id.to_owned(), secret));
        self
    }
}

/// Reader of the blob cache. It never writes.
pub struct DynamoDbBlobCache {
    options: DynamoDbBlobCacheOptions,
    location: String,
    /// Connected by the first question.
    link: Mutex<Option<Arc<Link>>>,
    given_up: GivenUp,
}

impl DynamoDbBlobCache {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(options: &DynamoDbBlobCacheOptions) -> Self {
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "AWS".into());
        let location = location(&part(&options.service.endpoint), &part(&options.service.region), &options.table);
        Self { options: options.clone(), location, link: Mutex::new(None), given_up: GivenUp::default() }
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// What is recorded for each digest, in the same order.
    ///
    /// # Errors
    /// Why the service cannot be reached or asked.
    pub fn recorded(&self, digests: &[&str]) -> Result<Vec<Recorded>, MetaDbError> {
        self.given_up.check(&self.location)?;
        let found = self.ask(digests);
        self.given_up.note(&found);
        let found = found?;
        Ok(digests.iter().map(|digest| found.get(*digest).map(recorded).unwrap_or_default()).collect())
    }

    fn ask(&self, digests: &[&str]) -> Result<Items, MetaDbError> {
        let link = self.link()?;
        let table = self.options.table.as_str();
        let unique: Vec<&str> = digests.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let asked = stream::iter(unique.chunks(BATCH)).map(|batch| {
            let wanted = [Wanted { table, key: KEY, values: batch.to_vec() }];
            let link = &link;
            async move { link.batch_get(&wanted).await }
        });
        let found: Result<Vec<Vec<Items>>, _> = link.run(asked.buffer_unordered(AT_ONCE).try_collect());
        Ok(found.map_err(|fault| link.error("read", fault))?.into_iter().flatten().flatten().collect())
    }

    fn link(&self) -> Result<Arc<Link>, MetaDbError> {
        let mut link = lock(&self.link);
        if let Some(link) = &*link {
            return Ok(Arc::clone(link));
        }
        let new = Arc::new(Link::new(&self.options.service, self.location.clone(), &Cancel::default())?);
        Ok(Arc::clone(link.insert(new)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn recorded(item: &Item) -> Recorded {
    let duplicates = match item.get(DUPLICATES) {
        Some(AttributeValue::Ss(paths)) => paths.clone(),
        _ => Vec::new(),
    };
    (text(item, ORIGINAL).map(str::to_owned), duplicates)
}
