//! zot's blob cache, which shares server and prefix with the metaDB (storage spec §1.9): where blobs have their content.

use super::errors::Fault;
use super::options::RedisOptions;
use super::reader::RedisMetaDb;
use super::wire::{self, Batch};
use crate::cancel::Cancel;
use crate::metadb::MetaDbError;
use crate::metadb::blob_cache::{GivenUp, Recorded};
use std::sync::{Mutex, PoisonError};

/// Digests asked for at once.
const DIGESTS_AT_ONCE: usize = 256;

/// Reader of the blob cache. It never writes and takes no lock.
pub struct RedisBlobCache {
    server: RedisMetaDb,
    /// Who waits for the server waits for the answer to whether it is there, too.
    given_up: Mutex<GivenUp>,
}

impl RedisBlobCache {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(options: &RedisOptions) -> Self {
        Self { server: RedisMetaDb::unconnected(options, &Cancel::default()), given_up: Mutex::default() }
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.server.location
    }

    /// What is recorded for each digest, in the same order.
    ///
    /// # Errors
    /// Why the server cannot be reached or asked.
    pub fn recorded(&self, digests: &[&str]) -> Result<Vec<Recorded>, MetaDbError> {
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.check(self.location())?;
        let mut out = Vec::with_capacity(digests.len());
        for chunk in digests.chunks(DIGESTS_AT_ONCE) {
            let found = self.ask(chunk);
            given_up.note(&found);
            out.extend(found?);
        }
        Ok(out)
    }

    fn ask(&self, digests: &[&str]) -> Result<Vec<Recorded>, MetaDbError> {
        let prefix = self.server.options.keys.prefix();
        let originals = format!("{prefix}:blobs:original");
        let mut batch = Batch::default();
        for digest in digests {
            batch.push("HGET", &[originals.as_bytes(), digest.as_bytes()]);
            batch.push("SMEMBERS", &[format!("{prefix}:blobs:duplicates:{digest}").as_bytes()]);
        }
        let mut replies = self.server.run("read", &batch)?.into_iter();
        let mut next = || replies.next().unwrap_or_default();
        let mut one = || -> Result<Recorded, Fault> {
            let original = wire::bytes(next())?.and_then(|path| String::from_utf8(path).ok());
            let paths = wire::list(next())?;
            Ok((original, paths.into_iter().map(wire::text).collect::<Result<_, _>>()?))
        };
        digests.iter().map(|_| one().map_err(|fault| self.server.error("read", fault, None))).collect()
    }
}
