//! Which blob cache a store looks its deduplicated blobs up in (storage spec §1.9).

use super::driver::DriverParams;
use super::metadb_choice::redis_location;
use super::storage::Store;
use crate::metadb::dynamodb::location;
use std::fmt;
use std::path::{Path, PathBuf};

/// The blob cache of one store.
#[derive(Debug)]
pub enum BlobCacheChoice {
    /// None: what is deduplicated cannot be found.
    None,
    /// BoltDB file; a relative path is relative to zot's working directory.
    Bolt {
        /// `<rootDirectory>/cache.db`, on the local disk for object stores too.
        path: PathBuf,
    },
    /// Redis, with the `cacheDriver` parameters (spec §6.4).
    Redis(DriverParams),
    /// DynamoDB, with the `cacheDriver` parameters (spec §6.5); the table is `cachetablename`.
    DynamoDb(DriverParams),
}

impl BlobCacheChoice {
    /// By the store's own settings, whatever the other stores have.
    #[must_use]
    pub fn of(store: &Store) -> Self {
        if store.storage_driver.is_none() && !store.dedupe {
            return Self::None;
        }
        if !store.remote_cache {
            return Self::Bolt { path: Path::new(&store.root_directory).join("cache.db") };
        }
        match store.cache_driver.as_ref().map(|driver| (driver.name(), driver)) {
            Some((Some("redis"), driver)) => Self::Redis(driver.duplicate()),
            Some((Some("dynamodb"), driver)) => Self::DynamoDb(driver.duplicate()),
            _ => Self::None,
        }
    }
}

/// Driver and place, without secrets.
impl fmt::Display for BlobCacheChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => write!(f, "none"),
            Self::Bolt { path } => write!(f, "bolt:{}", path.display()),
            Self::Redis(params) => write!(f, "redis:{}", redis_location(params)),
            Self::DynamoDb(params) => {
                let part = |key| params.text(key).unwrap_or("AWS");
                write!(f, "dynamodb:{}", location(part("endpoint"), part("region"), part("cachetablename")))
            }
        }
    }
}
