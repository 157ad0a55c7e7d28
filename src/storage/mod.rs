//! Image stores: where zot keeps repositories as OCI layouts (spec: "Storage").
//!
//! [`ImageStore`] speaks in the domain's terms so that local disks and object stores fit alike: whole listings, one
//! index at a time, blobs in batches (an object store keeps many requests in flight behind [`ImageStore::read_blobs`]).
//! "Not found" is only ENOENT/404; every other failure is an error and never reads as "missing" or "empty".

pub mod cache;
pub mod local;
pub mod object;
pub mod routing;
mod rules;

pub use rules::valid_repo_name;
pub use rules::{MAX_DOCUMENT, is_empty_digest, parse_digest, skipped_directory, valid_component, valid_digest};

use crate::cancel::Cancel;
use jiff::Timestamp;

/// Identity of one version of an `index.json`: if it is unchanged, so is the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexStat {
    /// Length in bytes.
    pub size: u64,
    /// Last modification as the storage reports it (local: nanoseconds; object stores: often whole seconds).
    pub mtime: Timestamp,
    /// Further identity where the storage has one: ETag or generation of an object, inode of a file.
    pub tag: Option<String>,
}

/// Content of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// All bytes.
    pub content: Vec<u8>,
    /// Last modification of the file or object that holds the bytes (the push-time hint). `None` if it has none.
    pub mtime: Option<Timestamp>,
}

/// An answer that may still be on its way; called to wait for it.
pub type Later<'a, T> = Box<dyn FnOnce() -> T + Send + 'a>;

/// What went wrong with storage. Variants tell "is not there" from "could not look".
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The named thing does not exist (ENOENT or 404 only).
    #[error("{what} not found")]
    NotFound {
        /// Path or key, as a person would look for it.
        what: String,
    },
    /// The digest is not `sha256|sha384|sha512:<lower-case hex of the right length>`.
    #[error("invalid digest {digest:?}")]
    InvalidDigest {
        /// Text found in the document.
        digest: String,
    },
    /// The store has a layout that this version does not know (for example `_blobstore`).
    #[error("unsupported store layout at {root}: {detail}")]
    UnsupportedLayout {
        /// Root of the store.
        root: String,
        /// What was found.
        detail: String,
    },
    /// Any other failure: permission, I/O, network.
    #[error("cannot {action} {what}")]
    Io {
        /// Verb: `list`, `stat`, `read`.
        action: &'static str,
        /// Path or key.
        what: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Where a placeholder's content lies is unknown, because the blob cache cannot be asked.
    #[error(transparent)]
    Cache(cache::CacheError),
    /// The operation was asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// One image store: a root directory, or a key prefix of a bucket.
pub trait ImageStore: Send + Sync {
    /// Where the store is, for people (no secrets).
    fn location(&self) -> String;

    /// How many repositories to read at once, given `jobs` threads that decode: a store that is far away needs more on
    /// their way than there are processors to decode them.
    fn readers(&self, jobs: usize) -> usize {
        jobs
    }

    /// How many of `threads` that read and decode gain something, as far as is known by now: one a processor as long as
    /// nobody waits for storage.
    fn useful(&self, threads: usize) -> usize {
        threads
    }

    /// How many blobs of a repo are best asked for together: all of them, where requests are on their way meanwhile.
    fn together(&self, repo: &str) -> usize {
        let _ = repo;
        usize::MAX
    }

    /// Names of all repositories in zot's walk order (spec §1.4, §1.5).
    ///
    /// # Errors
    /// Any failure to list; a partial listing is never returned as a success. A missing local root is an empty list.
    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError>;

    /// Repositories that could have been pushed but that zot's walk never lists, because their path has a directory
    /// whose name ends with `blobs`, `.sync` or `.uploads` (spec §1.5, step 1). zot drops them from the metaDB at every
    /// restart. Stores that cannot tell return none.
    ///
    /// # Errors
    /// As [`ImageStore::list_repos`].
    fn list_unlistable(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        let _ = cancel;
        Ok(Vec::new())
    }

    /// Size and time of a repo's `index.json`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] if there is none, any other failure as it is.
    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError>;

    /// Begin [`ImageStore::stat_index`], whose answer is that of a moment after this call: many begun one after the other
    /// take no longer than one, where stores are far away.
    fn begin_stat_index<'a>(&'a self, repo: &'a str) -> Later<'a, Result<IndexStat, StorageError>> {
        Box::new(move || self.stat_index(repo))
    }

    /// The whole `index.json`.
    ///
    /// # Errors
    /// As [`ImageStore::stat_index`]; [`StorageError::Io`] beyond [`MAX_DOCUMENT`] bytes.
    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError>;

    /// [`ImageStore::stat_index`] and [`ImageStore::read_index`] in one, at the cost of one request where that counts.
    ///
    /// # Errors
    /// As both.
    fn open_index(&self, repo: &str) -> Result<(IndexStat, Vec<u8>), StorageError> {
        // In this order the content can be newer than the stat, never older.
        let stat = self.stat_index(repo)?;
        Ok((stat, self.read_index(repo)?))
    }

    /// Read blobs by digest, one result per digest in the same order (spec §1.8).
    ///
    /// Zero-length dedupe placeholders are resolved; [`StorageError::NotFound`] if that fails. A blob of more than
    /// [`MAX_DOCUMENT`] bytes is an error: this is for documents, never for layers. All results are in memory at once.
    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>>;

    /// An instant by this machine's clock as the store's times have it: whatever changed in the store later has a
    /// modification time that is not older.
    ///
    /// A store that keeps whole seconds gives a whole second, and one with a clock of its own goes by that, as far as it
    /// is known from answers that came since.
    fn in_store_time(&self, instant: Timestamp) -> Timestamp {
        instant
    }
}
