//! zot's blob caches: where the content of a deduplicated blob lies (spec: "Storage" §1.8, §1.9).
//!
//! A zero-length blob that is not the empty blob is a placeholder; the cache knows every path of its digest, the one with
//! the content first. Caches are only ever read. "Not in the cache" and "no cache" mean that the content is missing; a
//! cache that cannot be asked is an error.

mod bolt;
mod interruptible;

use super::{Blob, StorageError, parse_digest};
use crate::cancel::Cancel;
use crate::metadb::dynamodb::{DynamoDbBlobCache, DynamoDbBlobCacheOptions};
use crate::metadb::redis::{RedisBlobCache, RedisOptions};
use crate::metadb::{MetaDbError, Recorded};
use bolt::BoltBlobCache;
use interruptible::Interruptible;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a blob cache does not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// It cannot be asked.
    #[error("cannot look into the blob cache {location}")]
    Unusable {
        /// File or server, without secrets.
        location: String,
        /// Cause.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The command shall stop.
    #[error("cancelled")]
    Cancelled,
}

impl CacheError {
    fn new(location: impl Into<String>, source: impl Error + Send + Sync + 'static) -> Self {
        Self::Unusable { location: location.into(), source: Arc::new(source) }
    }
}

impl From<CacheError> for StorageError {
    fn from(error: CacheError) -> Self {
        match error {
            CacheError::Cancelled => Self::Cancelled,
            error @ CacheError::Unusable { .. } => Self::Cache(error),
        }
    }
}

/// A blob cache of one store.
pub trait BlobCache: Send + Sync {
    /// For every digest, in the same order, the paths where its content may lie, likeliest first: `original`, then
    /// `duplicates` in byte order, each once. Nothing for a digest that is not in the cache.
    ///
    /// A path is what the storage driver is given (in a local store: what is below `rootDirectory`), without a leading
    /// slash. It always ends with `blobs/<algorithm>/<hex>` of its digest, never goes upwards and has only letters, digits
    /// and `._-` between its slashes: zot records nothing else, and whatever else a cache holds is left out.
    ///
    /// # Errors
    /// If the cache cannot be asked.
    fn candidates(&self, digests: &[&str]) -> Result<Vec<Vec<String>>, CacheError>;
}

/// Where a blob cache is. Plain data, so that the config module stays apart.
#[derive(Debug, Clone)]
pub enum CacheSpec {
    /// A BoltDB file, which need not exist.
    Bolt(PathBuf),
    /// zot's keys in Redis.
    Redis(Box<RedisOptions>),
    /// zot's table in DynamoDB.
    DynamoDb(Box<DynamoDbBlobCacheOptions>),
}

impl CacheSpec {
    /// The cache, which is not touched before the first question. Nobody waits for its answer once `cancel` says so.
    #[must_use]
    pub fn open(&self, cancel: &Cancel) -> Arc<dyn BlobCache> {
        let cache: Arc<dyn BlobCache> = match self {
            Self::Bolt(path) => Arc::new(BoltBlobCache::new(path.clone())),
            Self::Redis(options) => Arc::new(RedisBlobCache::new(options)),
            Self::DynamoDb(options) => Arc::new(DynamoDbBlobCache::new(options)),
        };
        Arc::new(Interruptible::new(cache, cancel))
    }
}

impl BlobCache for RedisBlobCache {
    fn candidates(&self, digests: &[&str]) -> Result<Vec<Vec<String>>, CacheError> {
        answer(digests, self.recorded(digests), self.location())
    }
}

impl BlobCache for DynamoDbBlobCache {
    fn candidates(&self, digests: &[&str]) -> Result<Vec<Vec<String>>, CacheError> {
        answer(digests, self.recorded(digests), self.location())
    }
}

/// The candidates among what a server has recorded.
fn answer(
    digests: &[&str],
    recorded: Result<Vec<Recorded>, MetaDbError>,
    location: &str,
) -> Result<Vec<Vec<String>>, CacheError> {
    let recorded = recorded.map_err(|error| CacheError::new(location, error))?;
    Ok(digests.iter().zip(recorded).map(|(digest, (original, paths))| usable(digest, original, paths)).collect())
}

/// Fill in the content of placeholders.
///
/// `found` holds what the digests' own files hold, `None` for placeholders; `read` takes the candidates of each placeholder
/// and gives what the first of them holds that has content, `None` if none has.
pub(super) fn resolve(
    cache: Option<&dyn BlobCache>,
    digests: &[&str],
    mut found: Vec<Result<Option<Blob>, StorageError>>,
    place: impl Fn(&str) -> String,
    read: impl FnOnce(Vec<Vec<String>>) -> Vec<Result<Option<Blob>, StorageError>>,
) -> Vec<Result<Blob, StorageError>> {
    let (slots, wanted): (Vec<_>, Vec<_>) = found
        .iter_mut()
        .zip(digests)
        .filter_map(|(slot, digest)| matches!(slot, Ok(None)).then_some((slot, *digest)))
        .unzip();
    if let Some(cache) = cache.filter(|_| !wanted.is_empty()) {
        match cache.candidates(&wanted) {
            Ok(candidates) => slots.into_iter().zip(read(candidates)).for_each(|(slot, content)| *slot = content),
            Err(error) => slots.into_iter().for_each(|slot| *slot = Err(error.clone().into())),
        }
    }
    let missing = |digest| StorageError::NotFound { what: format!("{} (a dedupe placeholder)", place(digest)) };
    found.into_iter().zip(digests).map(|(found, digest)| found?.ok_or_else(|| missing(digest))).collect()
}

/// The recorded paths that can be looked at, in the order in which to do so.
fn usable(digest: &str, original: Option<String>, mut duplicates: Vec<String>) -> Vec<String> {
    let Some((algorithm, hex)) = parse_digest(digest) else { return Vec::new() };
    let blob = format!("/blobs/{algorithm}/{hex}");
    duplicates.sort_unstable();
    duplicates.retain(|path| original.as_ref() != Some(path));
    let paths = original.into_iter().chain(duplicates);
    let paths = paths.map(|path| path.strip_prefix('/').map(str::to_owned).unwrap_or(path));
    paths.filter(|path| path.ends_with(&blob) && path.split('/').all(is_name)).collect()
}

/// What zot's storage drivers take for a part of a path, and no way upwards.
fn is_name(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !matches!(part, "" | "." | "..") && part.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blobs_below_the_root_are_looked_at() {
        let hex = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let at = |place: &str| format!("{place}/blobs/sha256/{hex}");
        let other = hex.replace('4', "5");
        let recorded = [
            at("b"),
            at("/zot/a/c"),
            at("../a"),
            at("/a/../../b"),
            at("a//b"),
            at("./a"),
            at("a\n"),
            at("ä"),
            at(""),
            format!("x/blobs/sha256/{other}"),
            format!("/blobs/sha256/{hex}"),
            String::new(),
            "/etc/passwd".into(),
            at("c"),
        ];
        let digest = format!("sha256:{hex}");
        let paths = usable(&digest, Some(at("c")), recorded.into());
        assert_eq!(paths, [at("c"), at("zot/a/c"), at("b")]);
        assert_eq!(usable(&digest, Some(String::new()), vec![at("b")]), [at("b")]);
        assert_eq!(usable("sha256:00", Some(at("c")), Vec::new()), Vec::<String>::new());
    }
}
