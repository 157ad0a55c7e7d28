//! One repo: `index.json` and blobs → entries for the fold (spec §2.4, §2.6–§2.8). Reads storage only.

use crate::cancel::Cancel;
use crate::oci::{self, json, time::Time};
use crate::records::fold::{Entry, RepoEntries, Rules};
use crate::records::image::{ImageEntry, Source};
use crate::records::signature::{self, Kind, SignatureEntry};
use crate::storage::{Blob, ImageStore, IndexStat, StorageError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Descriptors whose blobs are read together: enough for an object store to keep its requests in flight, few enough to
/// bound what is in memory.
const BATCH: usize = 256;
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
    cancel: &Cancel,
) -> Result<RepoRead, ReadError> {
    let (index, document, length) = read_index(store, repo, cancel)?;
    let descriptors = document.manifests.into_vec();
    let tag_of = |descriptor: &oci::Descriptor| descriptor.annotations.get(oci::REF_NAME).cloned().unwrap_or_default();
    let listed: Vec<(String, oci::Descriptor)> = descriptors
        .into_iter()
        .map(|descriptor| (tag_of(&descriptor), descriptor))
        .filter(|(tag, _)| !signature::is_referrers_tag(tag))
        .collect();
    let tags: BTreeSet<String> = listed.iter().map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).cloned().collect();

    let mut out = RepoRead {
        index,
        entries: RepoEntries { tags, ..Default::default() },
        missing: Vec::new(),
        manifests: 0,
        bytes: length,
    };
    let batches: Vec<&[(String, oci::Descriptor)]> = listed.chunks(BATCH).collect();
    let read = super::parallel(&batches, jobs, |batch| {
        if cancel.is_cancelled() {
            return Err(StorageError::Cancelled.into());
        }
        let mut reader = Reader { store, repo, rules, out: BatchRead::default() };
        reader.read(batch).map(|()| reader.out)
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

/// `index.json` with the stat that belongs to it. A torn file (in-place rewrite) is read again for a moment.
fn read_index(store: &dyn ImageStore, repo: &str, cancel: &Cancel) -> Result<(IndexStat, oci::Index, u64), ReadError> {
    let mut wait = TORN_WAIT;
    let mut tries = 0;
    loop {
        let (before, text) = store.open_index(repo)?;
        match json::document::<oci::Index>(&text) {
            Ok(document) => return Ok((before, document, text.len() as u64)),
            Err(error) => {
                // Only a file that was just written, or that is being written, can be torn.
                let fresh = jiff::Timestamp::now().duration_since(before.mtime) < jiff::SignedDuration::from_secs(10);
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

impl<'a> Reader<'a> {
    fn read(&mut self, batch: &'a [(String, oci::Descriptor)]) -> Result<(), ReadError> {
        let digests: Vec<&str> = batch.iter().map(|(_, descriptor)| descriptor.digest.as_str()).collect();
        let blobs = self.store.read_blobs(self.repo, &digests);
        // zot stops at the first failure; whatever fails here fails the repo, so the rest need not be decoded.
        let mut decoded = Vec::with_capacity(batch.len());
        for ((tag, descriptor), blob) in batch.iter().zip(blobs) {
            let digest = descriptor.digest.as_str();
            match blob {
                Ok(blob) => decoded.extend(self.decode(tag, descriptor, blob)?),
                Err(StorageError::NotFound { .. }) => self.out.missing.push(digest.to_owned()),
                Err(error @ (StorageError::InvalidDigest { .. } | StorageError::Cancelled)) => return Err(error.into()),
                Err(source) => return Err(ReadError::Manifest { digest: digest.to_owned(), source }),
            }
        }
        let configs = self.read_configs(&decoded)?;
        for item in decoded {
            let entry = match item {
                Decoded::Index(image) => Entry::Image(image),
                Decoded::Manifest(pending) => self.finish(*pending, &configs)?,
            };
            self.out.entries.push(entry);
        }
        Ok(())
    }

    /// Decode by the descriptor's media type, never by the blob's own; other types are ignored.
    fn decode(
        &mut self,
        tag: &'a str,
        descriptor: &'a oci::Descriptor,
        blob: Blob,
    ) -> Result<Option<Decoded<'a>>, ReadError> {
        let digest = descriptor.digest.as_str();
        let reference = if tag.is_empty() { digest } else { tag };
        let size = blob.content.len();
        let pushed = blob.mtime.map(Time::from);
        self.out.bytes += size as u64;
        let undecodable = |what| move |source| ReadError::Document { what, digest: digest.to_owned(), source };
        let decoded = match descriptor.media_type.as_str() {
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

    /// Configs of the batch by digest, each read and decoded once.
    fn read_configs(&mut self, batch: &[Decoded<'_>]) -> Result<BTreeMap<String, oci::Image>, ReadError> {
        let mut wanted: BTreeMap<&str, &str> = BTreeMap::new();
        for item in batch {
            if let Decoded::Manifest(pending) = item {
                let config = &pending.manifest.config;
                if matches!(config.media_type.as_str(), oci::CONFIG | oci::DOCKER_CONFIG) {
                    wanted.entry(&config.digest).or_insert(pending.digest);
                }
            }
        }
        let digests: Vec<&str> = wanted.keys().copied().collect();
        let blobs = self.store.read_blobs(self.repo, &digests);
        let mut configs = BTreeMap::new();
        for ((digest, manifest), blob) in wanted.into_iter().zip(blobs) {
            let blob = blob.map_err(|source| part("config", digest, manifest, source))?;
            self.out.bytes += blob.content.len() as u64;
            let config = json::document(&blob.content).map_err(|source| ReadError::Document {
                what: "config",
                digest: digest.to_owned(),
                source,
            })?;
            configs.insert(digest.to_owned(), config);
        }
        Ok(configs)
    }

    fn finish(&mut self, pending: Pending<'_>, configs: &BTreeMap<String, oci::Image>) -> Result<Entry, ReadError> {
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
        let config = match manifest.config.media_type.as_str() {
            oci::CONFIG | oci::DOCKER_CONFIG => configs.get(&manifest.config.digest).cloned().unwrap_or_default(),
            _ => oci::Image::default(),
        };
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
    ReadError::Part { what, digest: digest.to_owned(), manifest: manifest.to_owned(), source }
}
