//! Image stores in S3, Google Cloud Storage and Azure Blob Storage (spec §1.3–§1.8, §1.10).
//!
//! ```text
//! blocking interface ─► tasks on one runtime ─► client library (signs, parses) ─► whole answers, retried ─► network
//! ```
//!
//! Where metactl is safely better than zot: directories are listed, never the blobs in them; one request reads a blob
//! together with its time; "not found" is only the service's word for it, every other refusal is an error. Asked to stop, no request
//! outlasts a moment, however silent the service is.

mod azure;
mod credentials;
mod gcs;
mod http;
mod io;
mod keys;
mod listing;
mod odd_keys;
mod params;
mod s3;
mod shared;
mod web_identity;

pub use io::Io;
pub use params::ParamError;

use super::cache::{BlobCache, resolve};
use super::rules::{MAX_DOCUMENT, is_empty_digest, parse_digest, valid_repo_name};
use super::{Blob, ImageStore, IndexStat, Later, StorageError};
use crate::cancel::Cancel;
use crate::config::DriverParams;
use http::{Connector, Refusal, ServiceClock, Trace};
use io::unless_cancelled;
use jiff::{SignedDuration, Timestamp};
use keys::Keys;
use listing::Want;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Attribute, ClientOptions, GetOptions, GetResult, ObjectMeta, RetryConfig};
use params::Params;
use shared::Shared;
use std::io::Error as IoError;
use std::sync::Arc;
use std::time::Duration;

/// Requests under way at a time, unless the user says otherwise.
pub const IO_CONCURRENCY: usize = 64;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a look at an object may still take once the command shall stop: what a walk has read is only recorded after
/// another look at its index.
const GRACE: Duration = Duration::from_millis(500);
/// Content type of objects that zot's GCS driver writes while an upload is under way, and hides.
const UPLOAD_SESSION: &str = "application/x-docker-upload-session";

/// Where a store is and how to reach it. `Debug` shows no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectOptions {
    service: Service,
    keys: Keys,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Service {
    S3(s3::S3),
    Gcs(gcs::Gcs),
    Azure(azure::Azure),
}

/// Which of zot's drivers a store belongs to: they list differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Driver {
    S3,
    Gcs,
    Azure,
}

impl ObjectOptions {
    /// From `storageDriver` of a config, with zot's defaults filled in.
    ///
    /// # Errors
    /// Why zot, or only metactl, cannot use the store. Holds no secrets.
    pub fn from_params(params: &DriverParams) -> Result<Self, ParamError> {
        let read = Params(params);
        let (service, keys) = match params.name() {
            Some("s3") => s3::S3::from_params(read).map(|(s3, keys)| (Service::S3(s3), keys))?,
            Some("gcs") => gcs::Gcs::from_params(read).map(|(gcs, keys)| (Service::Gcs(gcs), keys))?,
            Some("azure") => azure::Azure::from_params(read).map(|(azure, keys)| (Service::Azure(azure), keys))?,
            _ => return Err(params::refused("name", "is none of s3, gcs, azure")),
        };
        Ok(Self { service, keys })
    }

    /// Where the store is, for people.
    #[must_use]
    pub fn location(&self) -> String {
        let root = self.keys.root();
        match &self.service {
            Service::S3(s3) => s3.location(&root),
            Service::Gcs(gcs) => gcs.location(&root),
            Service::Azure(azure) => azure.location(&root),
        }
    }

    fn driver(&self) -> Driver {
        match self.service {
            Service::S3(_) => Driver::S3,
            Service::Gcs(_) => Driver::Gcs,
            Service::Azure(_) => Driver::Azure,
        }
    }
}

/// A store in a bucket or container.
pub struct ObjectStore {
    io: Arc<Io>,
    bucket: Arc<Bucket>,
    cache: Option<Arc<dyn BlobCache>>,
}

/// What tasks share.
struct Bucket {
    driver: Driver,
    keys: Keys,
    location: String,
    objects: Arc<dyn object_store::ObjectStore>,
    lists: Arc<dyn PaginatedListStore>,
    clock: Arc<ServiceClock>,
    shared: Shared,
    cancel: Cancel,
}

impl ObjectStore {
    /// Make a client. Nothing is asked of the service yet, nor of the blob cache that knows where placeholders lead.
    ///
    /// # Errors
    /// If files that the parameters or the environment name cannot be used.
    pub fn open(options: &ObjectOptions, io: Arc<Io>, cache: Option<Arc<dyn BlobCache>>) -> Result<Self, StorageError> {
        let location = options.location();
        let failed = |detail: String| StorageError::Io {
            action: "open",
            what: location.clone(),
            source: IoError::other(detail),
        };
        let (secrets, client) = match &options.service {
            Service::S3(s3) => (s3.secrets(), s3.options()),
            Service::Gcs(gcs) => (Vec::new(), gcs.options()),
            Service::Azure(azure) => (azure.secrets(), azure.options()),
        };
        let client = client.map_err(failed)?;
        let clock = Arc::<ServiceClock>::default();
        let connector = Connector::new(&io, Arc::clone(&clock), &secrets, MAX_DOCUMENT);
        // Beneath the library, retries also cover bodies that break off.
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let opened = match &options.service {
            Service::S3(s3) => s3.open(connector, client, retry).map(both),
            Service::Gcs(gcs) => gcs.open(connector, client, retry).map(both),
            Service::Azure(azure) => azure.open(connector, client, retry).map(both),
        };
        let (objects, lists) = opened.map_err(|error| failed(reason(&error)))?;
        let (driver, keys, shared) = (options.driver(), options.keys.clone(), Shared::default());
        let cancel = io.cancel().clone();
        let bucket = Arc::new(Bucket { driver, keys, location, objects, lists, clock, shared, cancel });
        Ok(Self { io, bucket, cache })
    }

    fn walk(&self, want: Want, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        listing::walk(self.bucket.driver, want, cancel, &|names| {
            let list = |name: String| {
                let (bucket, cancel) = (Arc::clone(&self.bucket), cancel.clone());
                async move { bucket.list(&name, &cancel).await }
            };
            self.io.all(names.into_iter().map(list)).into_iter().collect()
        })
    }

    /// Names from a metaDB end up here too: nothing that could leave the store becomes a key.
    fn index_key(&self, repo: &str) -> Result<String, StorageError> {
        if valid_repo_name(repo) {
            return Ok(self.bucket.keys.file(&format!("{repo}/index.json")));
        }
        let source = IoError::new(std::io::ErrorKind::InvalidInput, "not a valid repository name");
        Err(StorageError::Io { action: "open", what: format!("repo {repo:?}"), source })
    }
}

fn both<S: object_store::ObjectStore + PaginatedListStore>(
    store: S,
) -> (Arc<dyn object_store::ObjectStore>, Arc<dyn PaginatedListStore>) {
    let store = Arc::new(store);
    (Arc::clone(&store) as _, store)
}

impl ImageStore for ObjectStore {
    fn location(&self) -> String {
        self.bucket.location.clone()
    }

    fn readers(&self, jobs: usize) -> usize {
        // A small repo has one request under way most of the time.
        jobs.max(self.io.concurrency())
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.walk(Want::Listed, cancel)
    }

    fn list_unlistable(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.walk(Want::Skipped, cancel)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        self.begin_stat_index(repo)()
    }

    fn begin_stat_index<'a>(&'a self, repo: &'a str) -> Later<'a, Result<IndexStat, StorageError>> {
        let key = match self.index_key(repo) {
            Ok(key) => key,
            Err(error) => return Box::new(|| Err(error)),
        };
        let bucket = Arc::clone(&self.bucket);
        Box::new(self.io.begin(async move { Ok(bucket.index_stat(&bucket.stat(&key).await?)) }))
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        self.open_index(repo).map(|(_, text)| text)
    }

    fn open_index(&self, repo: &str) -> Result<(IndexStat, Vec<u8>), StorageError> {
        let key = self.index_key(repo)?;
        self.io.wait(async {
            let found = self.bucket.get("read", &key, false, &Trace::default()).await?;
            let stat = self.bucket.index_stat(&found.meta);
            Ok((stat, self.bucket.content(&key, found).await?))
        })
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        let found = self.io.all(digests.iter().map(|digest| {
            let (bucket, repo, digest) = (Arc::clone(&self.bucket), repo.to_owned(), (*digest).to_owned());
            async move { bucket.blob(&repo, &digest).await }
        }));
        let place = |digest: &str| self.bucket.named(&self.bucket.blob_key(repo, digest));
        resolve(self.cache.as_deref(), digests, found, place, |candidates| {
            self.io.all(candidates.into_iter().map(|paths| {
                let bucket = Arc::clone(&self.bucket);
                async move { bucket.first(&paths).await }
            }))
        })
    }

    fn in_store_time(&self, instant: Timestamp) -> Timestamp {
        self.bucket.clock.at(instant)
    }
}

impl Bucket {
    fn blob_key(&self, repo: &str, digest: &str) -> String {
        self.keys.file(&format!("{repo}/blobs/{}", digest.replacen(':', "/", 1)))
    }

    /// A blob of a repo; `None` for a placeholder.
    async fn blob(&self, repo: &str, digest: &str) -> Result<Option<Blob>, StorageError> {
        if parse_digest(digest).is_none() {
            return Err(StorageError::InvalidDigest { digest: digest.to_owned() });
        }
        let key = self.blob_key(repo, digest);
        let blob = self.shared.get(&key, self.object(&key)).await?;
        Ok(Some(blob).filter(|blob| !blob.content.is_empty() || is_empty_digest(digest)))
    }

    /// The first of several objects that has content.
    async fn first(&self, candidates: &[String]) -> Result<Option<Blob>, StorageError> {
        for key in candidates.iter().map(|path| self.keys.recorded(path)) {
            match self.shared.get(&key, self.object(&key)).await {
                Ok(blob) if blob.content.is_empty() => {}
                Err(StorageError::NotFound { .. }) => {}
                found => return found.map(Some),
            }
        }
        Ok(None)
    }

    /// The object at `key` with its time.
    async fn object(&self, key: &str) -> Result<Blob, StorageError> {
        let found = self.get("read", key, false, &Trace::default()).await?;
        let mtime = Some(timestamp(&found.meta));
        Ok(Blob { content: self.content(key, found).await?, mtime })
    }

    /// What is known of an object.
    async fn stat(&self, key: &str) -> Result<ObjectMeta, StorageError> {
        let trace = Trace::default();
        let error = match self.get("stat", key, true, &trace).await {
            Ok(found) => return Ok(found.meta),
            Err(error) => error,
        };
        let denied = trace.refusal().is_some_and(|refusal| matches!(refusal.status, 403 | 405 | 501));
        if self.driver != Driver::S3 || !denied {
            return Err(error);
        }
        // As zot does: some gateways let nobody ask so. That the object is not listed is no "not found", though: where only
        // a part of the bucket may be listed, S3 says "denied" of what is not there, and of what is.
        let mut options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        let trace = Trace::default();
        options.extensions.insert(trace.clone());
        let listed = self.lists.list_paginated(Some(key), options);
        let listed = unless_cancelled(&self.cancel, GRACE, listed)
            .await?
            .map_err(|error| self.error("list", key, &error, &trace))?;
        listed.result.objects.into_iter().find(|object| object.location.as_ref() == key).ok_or(error)
    }

    /// Ask for an object, or only for what is known of it; `trace` has why not.
    async fn get(&self, action: &'static str, key: &str, head: bool, trace: &Trace) -> Result<GetResult, StorageError> {
        let grace = if head { GRACE } else { Duration::ZERO };
        let mut options = GetOptions { head, ..GetOptions::default() };
        options.extensions.insert(trace.clone());
        let path = Path::parse(key).map_err(|error| self.failed(action, key, IoError::other(error)))?;
        let found = match unless_cancelled(&self.cancel, grace, self.objects.get_opts(&path, options)).await? {
            Ok(found) => found,
            Err(error) => return Err(self.error(action, key, &error, trace)),
        };
        if self.driver == Driver::Gcs
            && found.attributes.get(&Attribute::ContentType).is_some_and(|kind| kind.as_ref() == UPLOAD_SESSION)
        {
            return Err(StorageError::NotFound { what: self.named(key) });
        }
        Ok(found)
    }

    async fn content(&self, key: &str, found: GetResult) -> Result<Vec<u8>, StorageError> {
        let expected = found.meta.size;
        let content = found.bytes().await.map_err(|error| self.failed("read", key, IoError::other(error)))?;
        if content.len() as u64 != expected {
            let detail = format!("{} bytes came instead of {expected}", content.len());
            return Err(self.failed("read", key, IoError::other(detail)));
        }
        Ok(content.into())
    }

    fn index_stat(&self, meta: &ObjectMeta) -> IndexStat {
        let mtime = match self.driver {
            // Listings of some servers have milliseconds.
            Driver::S3 => Timestamp::from_second(timestamp(meta).as_second()).unwrap_or(Timestamp::UNIX_EPOCH),
            Driver::Azure => timestamp(meta),
            // zot compares milliseconds, which this interface cuts off: the latest that it can be.
            Driver::Gcs => {
                timestamp(meta).saturating_add(SignedDuration::from_nanos(999_999_999)).unwrap_or(Timestamp::MAX)
            }
        };
        // A generation is another for every write, an ETag for every content. Listings of S3 know no versions.
        let version = meta.version.clone().filter(|_| self.driver != Driver::S3);
        IndexStat { size: meta.size, mtime, tag: version.or_else(|| meta.e_tag.clone()) }
    }

    fn named(&self, key: &str) -> String {
        let root = self.keys.root();
        let bucket = self.location.strip_suffix(&root).unwrap_or(&self.location).trim_end_matches('/');
        format!("{bucket}/{key}")
    }

    fn failed(&self, action: &'static str, key: &str, source: IoError) -> StorageError {
        StorageError::Io { action, what: self.named(key), source }
    }

    /// What a failed request means. The library's own text would repeat addresses and bodies.
    fn error(&self, action: &'static str, key: &str, error: &object_store::Error, trace: &Trace) -> StorageError {
        match trace.refusal() {
            Some(Refusal { status: 404, code, .. }) if action != "list" && !is_about_bucket(&code) => {
                StorageError::NotFound { what: self.named(key) }
            }
            Some(refusal) => self.failed(action, key, IoError::other(refusal.text)),
            None => self.failed(action, key, IoError::other(reason(error))),
        }
    }
}

/// An error without the library's words around it.
fn reason(error: &object_store::Error) -> String {
    match error {
        object_store::Error::Generic { source, .. } => crate::error::chain(source.as_ref()),
        other => crate::error::chain(other),
    }
}

/// Whether it is the bucket or container, not the object, that is not there.
fn is_about_bucket(code: &str) -> bool {
    matches!(code, "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" | "AccountNotFound")
}

fn timestamp(meta: &ObjectMeta) -> Timestamp {
    let time = meta.last_modified;
    let nanoseconds = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0);
    Timestamp::new(time.timestamp(), nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Options of every client; `url` tells whether encryption can be done without.
fn client_options(url: &str, skip_verify: bool, user_agent: &str) -> Result<ClientOptions, String> {
    let agent = format!("metactl/{} {user_agent}", env!("CARGO_PKG_VERSION"));
    let agent =
        agent.trim_end().parse().map_err(|_| "storageDriver.useragent cannot be sent in a header".to_owned())?;
    Ok(ClientOptions::new()
        .with_user_agent(agent)
        .with_allow_http(url.starts_with("http://"))
        .with_allow_invalid_certificates(skip_verify)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout_disabled())
}

/// An error in the library's own form, for what goes through it.
fn generic(store: &'static str, detail: String) -> object_store::Error {
    object_store::Error::Generic { store, source: detail.into() }
}
