//! `cache.db`: bucket `blobs`, in it one bucket per digest, in that `original` and `duplicates`, whose keys are paths.

use super::{BlobCache, CacheError, usable};
use crate::cancel::Cancel;
use crate::metadb::bolt::{BoltError, Bucket, Database};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A file that zot may be writing: it is read without its lock, see [`Database::snapshot`].
pub(super) struct BoltBlobCache {
    path: PathBuf,
    open: OnceLock<Database>,
}

impl BoltBlobCache {
    /// Nothing is opened.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: OnceLock::new() }
    }

    /// The file; `None` if there is none, or one that zot has only just created.
    fn database(&self) -> Result<Option<&Database>, BoltError> {
        if let Some(database) = self.open.get() {
            return Ok(Some(database));
        }
        if self.path.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
            return Ok(None);
        }
        match Database::open(&self.path) {
            Ok(database) => Ok(Some(self.open.get_or_init(|| database))),
            Err(BoltError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn recorded(&self, digests: &[&str]) -> Result<Vec<Vec<String>>, BoltError> {
        let Some(database) = self.database()? else { return Ok(vec![Vec::new(); digests.len()]) };
        let one = |digest: &&str| {
            database.snapshot(&Cancel::default(), |tx| {
                let Some(found) = tx.bucket(&[b"blobs", digest.as_bytes()])? else { return Ok(Vec::new()) };
                // zot 2.1.18 could leave several originals; zot looks at the first.
                let original = keys(found.bucket(b"original")?)?.into_iter().next();
                Ok(usable(digest, original, keys(found.bucket(b"duplicates")?)?))
            })
        };
        digests.iter().map(one).collect()
    }
}

impl BlobCache for BoltBlobCache {
    fn candidates(&self, digests: &[&str]) -> Result<Vec<Vec<String>>, CacheError> {
        self.recorded(digests).map_err(|error| CacheError::new(self.path.display().to_string(), error))
    }
}

/// The keys that are text; no path of a store is anything else.
fn keys(bucket: Option<Bucket<'_>>) -> Result<Vec<String>, BoltError> {
    let mut keys = Vec::new();
    if let Some(bucket) = bucket {
        bucket.for_each_key(|key, _| {
            keys.extend(String::from_utf8(key.to_vec()));
            Ok::<_, BoltError>(ControlFlow::Continue(()))
        })?;
    }
    Ok(keys)
}
