//! One repo: `index.json` and blobs → entries for the fold (spec §2.4, §2.6–§2.8). Reads storage only.

use super::memory::{Memory, Share};
use crate::cancel::Cancel;
use crate::oci::{self, json, time::Time};
use crate::progress::Progress;
use crate::records::fold::{Entry, RepoEntries, Rules};
use crate::records::image::{ImageEntry, Source};
use crate::records::signature::{self, Kind, SignatureEntry};
use crate::storage::{Blob, ImageStore, IndexStat, MAX_DOCUMENT, StorageError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Blobs that are read together: enough for an object store to keep its requests in flight, few enough to bound what is
/// in memory.
const BATCH: usize = 256;
/// As [`BATCH`], by the sizes that their descriptors tell.
const BATCH_BYTES: usize = 4 << 20;
/// Memory that `index.json` takes when it is decoded, by the length of its text.
const INDEX_FACTOR: usize = 4;
/// Memory of a [`Listed`] and of its tag in the list of all, about.
const PER_LISTED: usize = 384;
/// zot rewrites `index.json` in place when it deletes a manifest; a torn read is tried again this often.
const TORN_RETRIES: u32 = 4;
/// First wait before reading a torn index again; doubles each time.
const TORN_WAIT: Duration = Duration::from_millis(10);

/// What a repo's storage holds.
#[derive(Debug)]
pub struct RepoRead {
    /// The version of `index.json` that was read.
    pub index: IndexStat,
    /// For the fold.
    pub entries: RepoEntries,
    /// Manifests whose blob is missing: the repo is partial.
    pub missing: Vec<String>,
    /// Manifests and indexes read.
    pub manifests: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Why a repo cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// `index.json` or a blob cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// `index.json` is not an OCI index.
    #[error("index.json cannot be decoded: {0}")]
    Index(#[source] json::JsonError),
    /// A blob that every reader of the image needs.
    #[error("{what} {digest} of manifest {manifest}: {source}")]
    Part {
        /// `config` or `signature layer`.
        what: &'static str,
        /// Its digest.
        digest: String,
        /// The manifest that needs it.
        manifest: String,
        /// Why it cannot be had.
        source: StorageError,
    },
    /// A manifest, index or config that zot's decoder refuses.
    #[error("{what} {digest} cannot be decoded: {source}")]
    Document {
        /// `manifest`, `index` or `config`.
        what: &'static str,
        /// Its digest.
        digest: String,
        /// Where and why.
        source: json::JsonError,
    },
    /// A manifest blob that is there but cannot be read.
    #[error("manifest {digest}: {source}")]
    Manifest {
        /// Its digest.
        digest: String,
        /// Why.
        source: StorageError,
    },
    /// A notation signature has exactly one layer.
    #[error("notation signature {digest} has {layers} layers instead of one")]
    Notation {
        /// Digest of the signature manifest.
        digest: String,
        /// How many it has.
        layers: usize,
    },
}

impl ReadError {
    /// The digest that the error is about, if there is one.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Part { digest, .. }
            | Self::Document { digest, .. }
            | Self::Manifest { digest, .. }
            | Self::Notation { digest, .. } => Some(digest),
            Self::Storage(StorageError::InvalidDigest { digest }) => Some(digest),
            Self::Storage(_) | Self::Index(_) => None,
        }
    }
}

/// Read one repo. Its batches are read on up to `jobs` threads, so that one huge repo does not keep a walk waiting.
///
/// # Errors
/// What makes zot count the repo as failed; nothing of it is recorded then.
pub fn read_repo(
    store: &dyn ImageStore,
    repo: &str,
    rules: Rules,
    jobs: usize,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RepoRead, ReadError> {
    let memory = Memory::new(usize::MAX, cancel);
    let share = memory.begin();
    read_repo_within(&Reading { share: &share, store, repo, rules, jobs: &|_| jobs, ahead: None, progress, cancel })
}

/// Who takes image records out of a repo's entries, batch by batch, so that they are not in memory all at once. Not asked
/// where a digest is listed under several media types: of its records the last counts, which no batch knows.
#[derive(Clone, Copy)]
pub struct TakesAhead<'a> {
    /// Of repos with this many batches, or more.
    pub from: usize,
    /// Called with the digests of a batch, and with what was made of them.
    pub take: &'a (dyn Fn(&[&str], &mut [Entry]) + Sync),
}

/// How a repo is read.
pub(crate) struct Reading<'a> {
    /// Has room for what is held.
    pub(crate) share: &'a Share<'a>,
    pub(crate) store: &'a dyn ImageStore,
    pub(crate) repo: &'a str,
    pub(crate) rules: Rules,
    /// Threads, by the number of batches.
    pub(crate) jobs: &'a dyn Fn(usize) -> usize,
    pub(crate) ahead: Option<TakesAhead<'a>>,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) cancel: &'a Cancel,
}

/// Threads for a repo of so many batches of blobs, which has `own` of the `most` that there can be.
pub(crate) fn jobs_for(batches: usize, own: usize, most: usize) -> usize {
    /// What one thread reads faster than several can share it.
    const FEW: usize = 4;
    /// For a repo that has more, at least.
    const HUGE: usize = 4;
    if batches <= FEW { own } else { own.max(HUGE.min(most)) }
}

/// As [`read_repo`], with room for what is held, and with somebody who wants to see entries before all are there.
///
/// # Errors
/// As [`read_repo`].
pub(crate) fn read_repo_within(reading: &Reading<'_>) -> Result<RepoRead, ReadError> {
    let Reading { share, store, repo, rules, jobs, ahead, progress, cancel } = *reading;
    let IndexRead { stat: index, document, length, held } = read_index(share, store, repo, cancel)?;
    // The descriptors go one by one as they are turned into less.
    let listed: Vec<Listed> = document
        .manifests
        .into_vec()
        .into_iter()
        .map(Listed::from)
        .filter(|listed| !signature::is_referrers_tag(&listed.tag))
        .collect();
    share.keep(held, listed.len() * PER_LISTED);
    let tags: BTreeSet<String> =
        listed.iter().map(|listed| &listed.tag).filter(|tag| !tag.is_empty()).cloned().collect();

    let mut out = RepoRead {
        index,
        entries: RepoEntries { tags, ..Default::default() },
        missing: Vec::new(),
        manifests: 0,
        bytes: length,
    };
    let batches = runs(&listed, |listed| announced(listed.size));
    let ahead = ahead.filter(|ahead| batches.len() >= ahead.from && is_plain(&listed));
    let read = super::parallel(&batches, jobs(batches.len()), |batch| {
        if cancel.is_cancelled() {
            return Err(ReadError::from(StorageError::Cancelled));
        }
        let mut reader = Reader { share, store, repo, rules, out: BatchRead::default() };
        reader.read(batch)?;
        let mut read = reader.out;
        if let Some(ahead) = ahead {
            let digests: Vec<&str> = batch.iter().map(|listed| listed.digest.as_str()).collect();
            (ahead.take)(&digests, &mut read.entries);
        }
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        progress.part_read(read.manifests, read.bytes, batch.len() as f64 / listed.len() as f64);
        Ok(read)
    });
    for batch in read {
        let batch = batch?;
        out.entries.entries.extend(batch.entries);
        out.missing.extend(batch.missing);
        out.manifests += batch.manifests;
        out.bytes += batch.bytes;
    }
    out.entries.partial = !out.missing.is_empty();
    Ok(out)
}

/// What matters of a descriptor in `index.json`.
struct Listed {
    tag: String,
    digest: String,
    media_type: String,
    size: i64,
}

impl From<oci::Descriptor> for Listed {
    fn from(mut from: oci::Descriptor) -> Self {
        let tag = from.annotations.remove(oci::REF_NAME).unwrap_or_default();
        Self { tag, digest: from.digest, media_type: from.media_type, size: from.size }
    }
}

/// Whether every digest is listed under one media type only.
fn is_plain(listed: &[Listed]) -> bool {
    let mut media_types = HashMap::new();
    listed.iter().all(|listed| *media_types.entry(&listed.digest).or_insert(&listed.media_type) == &listed.media_type)
}

/// Whether zot decodes blobs of this media type.
fn is_decoded(media_type: &str) -> bool {
    matches!(media_type, oci::MANIFEST | oci::DOCKER_MANIFEST | oci::INDEX | oci::DOCKER_LIST)
}

/// The memory that a document of this size will take. A descriptor may lie; what is too large is not read at all.
fn announced(size: impl TryInto<u64>) -> usize {
    size.try_into().ok().filter(|size| *size <= MAX_DOCUMENT).and_then(|size| usize::try_from(size).ok()).unwrap_or(0)
}

/// `items` in runs that are read together.
fn runs<T>(items: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut runs = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let mut bytes = 0;
        let full = rest.iter().position(|item| {
            bytes += size(item);
            bytes > BATCH_BYTES
        });
        // At least one, however large.
        let (run, later) = rest.split_at(full.unwrap_or(rest.len()).clamp(1, BATCH).min(rest.len()));
        runs.push(run);
        rest = later;
    }
    runs
}

/// `index.json` as it was read.
struct IndexRead {
    /// Its version.
    stat: IndexStat,
    document: oci::Index,
    /// Bytes of its text.
    length: u64,
    /// Bytes that the share has for it.
    held: usize,
}

/// `index.json` with the stat that belongs to it. A torn file (in-place rewrite) is read again for a moment.
fn read_index(share: &Share<'_>, store: &dyn ImageStore, repo: &str, cancel: &Cancel) -> Result<IndexRead, ReadError> {
    let mut wait = TORN_WAIT;
    let mut tries = 0;
    loop {
        let (stat, text) = store.open_index(repo)?;
        let held = announced(stat.size).saturating_mul(INDEX_FACTOR);
        share.grow(held)?;
        match json::document::<oci::Index>(&text) {
            Ok(document) => return Ok(IndexRead { stat, document, length: text.len() as u64, held }),
            Err(error) => {
                share.settle(held, 0);
                // Only a file that was just written, or that is being written, can be torn.
                let fresh = jiff::Timestamp::now().duration_since(stat.mtime) < jiff::SignedDuration::from_secs(10);
                if tries == TORN_RETRIES || !fresh || cancel.is_cancelled() {
                    return Err(ReadError::Index(error));
                }
            }
        }
        tries += 1;
        std::thread::sleep(wait);
        wait *= 2;
    }
}

/// What a batch of descriptors holds.
#[derive(Default)]
struct BatchRead {
    entries: Vec<Entry>,
    missing: Vec<String>,
    manifests: u64,
    bytes: u64,
}

struct Reader<'a> {
    share: &'a Share<'a>,
    store: &'a dyn ImageStore,
    repo: &'a str,
    rules: Rules,
    out: BatchRead,
}

/// A manifest that waits for its config or signature layers.
struct Pending<'a> {
    reference: &'a str,
    digest: &'a str,
    size: usize,
    pushed: Option<Time>,
    manifest: oci::Manifest,
}

enum Decoded<'a> {
    Manifest(Box<Pending<'a>>),
    Index(Box<ImageEntry>),
}

impl Decoded<'_> {
    /// The manifest, if zot reads its config.
    fn with_config(&self) -> Option<&Pending<'_>> {
        match self {
            Self::Manifest(pending) => {
                let media_type = pending.manifest.config.media_type.as_str();
                matches!(media_type, oci::CONFIG | oci::DOCKER_CONFIG).then_some(pending)
            }
            Self::Index(_) => None,
        }
    }

    /// Bytes of the config that must be read for it.
    fn announced(&self) -> usize {
        self.with_config().map_or(0, |pending| announced(pending.manifest.config.size))
    }
}

impl<'a> Reader<'a> {
    fn read(&mut self, batch: &'a [Listed]) -> Result<(), ReadError> {
        batch.chunks(self.store.together(self.repo)).try_for_each(|part| self.read_together(part))
    }

    fn read_together(&mut self, batch: &'a [Listed]) -> Result<(), ReadError> {
        let digests: Vec<&str> = batch.iter().map(|listed| listed.digest.as_str()).collect();
        let announced = batch.iter().map(|listed| announced(listed.size)).sum();
        self.share.grow(announced)?;
        let blobs = self.store.read_blobs(self.repo, &digests);
        let held = blobs.iter().flatten().map(|blob| blob.content.len()).sum();
        self.share.settle(announced, held);
        // zot stops at the first failure; whatever fails here fails the repo, so the rest need not be decoded.
        let mut decoded = Vec::with_capacity(batch.len());
        for (listed, blob) in batch.iter().zip(blobs) {
            let digest = listed.digest.as_str();
            match blob {
                Ok(blob) => decoded.extend(self.decode(listed, blob)?),
                Err(StorageError::NotFound { .. }) => self.out.missing.push(digest.to_owned()),
                Err(error @ (StorageError::InvalidDigest { .. } | StorageError::Cancelled)) => return Err(error.into()),
                // zot does nothing with such a blob; not even its size matters.
                Err(StorageError::Io { ref source, .. })
                    if source.kind() == std::io::ErrorKind::FileTooLarge && !is_decoded(&listed.media_type) => {}
                Err(source) => return Err(ReadError::Manifest { digest: digest.to_owned(), source }),
            }
        }
        let lengths: Vec<usize> = runs(&decoded, Decoded::announced).iter().map(|run| run.len()).collect();
        let mut decoded = decoded.into_iter();
        for length in lengths {
            self.finish_run(decoded.by_ref().take(length).collect())?;
        }
        self.share.settle(held, 0);
        Ok(())
    }

    /// Decode by the descriptor's media type, never by the blob's own; other types are ignored.
    fn decode(&mut self, listed: &'a Listed, blob: Blob) -> Result<Option<Decoded<'a>>, ReadError> {
        let digest = listed.digest.as_str();
        let reference = if listed.tag.is_empty() { digest } else { listed.tag.as_str() };
        let size = blob.content.len();
        let pushed = blob.mtime.map(Time::from);
        self.out.bytes += size as u64;
        let undecodable = |what| move |source| ReadError::Document { what, digest: digest.to_owned(), source };
        let decoded = match listed.media_type.as_str() {
            oci::MANIFEST | oci::DOCKER_MANIFEST => {
                let manifest = json::document(&blob.content).map_err(undecodable("manifest"))?;
                Decoded::Manifest(Box::new(Pending { reference, digest, size, pushed, manifest }))
            }
            oci::INDEX | oci::DOCKER_LIST => {
                let index = json::document(&blob.content).map_err(undecodable("index"))?;
                let source = Source { reference, digest, size, pushed };
                Decoded::Index(Box::new(ImageEntry::from_index(&source, index)))
            }
            _ => return Ok(None),
        };
        self.out.manifests += 1;
        Ok(Some(decoded))
    }

    /// Read what a run of manifests needs, and make its entries.
    fn finish_run(&mut self, run: Vec<Decoded<'_>>) -> Result<(), ReadError> {
        let announced = run.iter().map(Decoded::announced).sum();
        self.share.grow(announced)?;
        let configs = self.read_configs(&run)?;
        let mut weight = 0;
        for (item, config) in run.into_iter().zip(configs) {
            let entry = match item {
                Decoded::Index(image) => Entry::Image(image),
                Decoded::Manifest(pending) => self.finish(*pending, config)?,
            };
            weight += entry.weight();
            self.out.entries.push(entry);
        }
        self.share.keep(announced, weight);
        Ok(())
    }

    /// The config of every manifest of the run that has one, each read and decoded once.
    fn read_configs(&mut self, run: &[Decoded<'_>]) -> Result<Vec<oci::Image>, ReadError> {
        let mut wanted: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, item) in run.iter().enumerate() {
            if let Some(pending) = item.with_config() {
                wanted.entry(&pending.manifest.config.digest).or_default().push(at);
            }
        }
        let digests: Vec<&str> = wanted.keys().copied().collect();
        let blobs = self.store.read_blobs(self.repo, &digests);
        let mut configs = Vec::new();
        configs.resize_with(run.len(), oci::Image::default);
        for ((digest, users), blob) in wanted.into_iter().zip(blobs) {
            let manifest = || users.first().and_then(|at| run.get(*at)?.with_config()).map_or("", |first| first.digest);
            let blob = blob.map_err(|source| part("config", digest, manifest(), source))?;
            self.out.bytes += blob.content.len() as u64;
            let mut config = json::document(&blob.content).map_err(|source| ReadError::Document {
                what: "config",
                digest: digest.to_owned(),
                source,
            })?;
            let mut users = users.iter().peekable();
            while let Some(at) = users.next() {
                let own = if users.peek().is_some() { oci::Image::clone(&config) } else { std::mem::take(&mut config) };
                if let Some(slot) = configs.get_mut(*at) {
                    *slot = own;
                }
            }
        }
        Ok(configs)
    }

    /// `config` is all-default if zot does not read it.
    fn finish(&mut self, pending: Pending<'_>, config: oci::Image) -> Result<Entry, ReadError> {
        if let Some((kind, signed)) = signature::signed_by(pending.reference, &pending.manifest, self.rules) {
            return Ok(Entry::Signature(SignatureEntry {
                reference: pending.reference.to_owned(),
                digest: pending.digest.to_owned(),
                kind,
                signed,
                layers: self.signature_layers(kind, pending.digest, &pending.manifest)?,
            }));
        }
        let Pending { reference, digest, size, pushed, manifest } = pending;
        let source = Source { reference, digest, size, pushed };
        Ok(Entry::Image(Box::new(ImageEntry::from_manifest(&source, manifest, config))))
    }

    fn signature_layers(
        &mut self,
        kind: Kind,
        manifest_digest: &str,
        manifest: &oci::Manifest,
    ) -> Result<Vec<signature::Layer>, ReadError> {
        if kind == Kind::Notation {
            if manifest.media_type == oci::INDEX {
                return Ok(Vec::new());
            }
            if manifest.layers.len() != 1 {
                let layers = manifest.layers.len();
                return Err(ReadError::Notation { digest: manifest_digest.to_owned(), layers });
            }
        }
        let digests: Vec<&str> = manifest.layers.iter().map(|layer| layer.digest.as_str()).collect();
        let blobs = self.store.read_blobs(self.repo, &digests);
        let mut layers = Vec::with_capacity(digests.len());
        for (layer, blob) in manifest.layers.iter().zip(blobs) {
            let blob = blob.map_err(|source| part("signature layer", &layer.digest, manifest_digest, source))?;
            self.out.bytes += blob.content.len() as u64;
            let key = match kind {
                Kind::Cosign => layer.annotations.get(signature::COSIGN_KEY).cloned().unwrap_or_default(),
                Kind::Notation => layer.media_type.clone(),
            };
            layers.push(signature::Layer { digest: layer.digest.clone(), content: blob.content, key });
        }
        Ok(layers)
    }
}

fn part(what: &'static str, digest: &str, manifest: &str, source: StorageError) -> ReadError {
    if matches!(source, StorageError::Cancelled) {
        return source.into();
    }
    ReadError::Part { what, digest: digest.to_owned(), manifest: manifest.to_owned(), source }
}
