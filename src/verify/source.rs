//! A repo's storage for verify: what cannot be read becomes a finding, and reading goes on.
//!
//! `read_repo_within` stops where zot stops. `Source` stands between it and the store: it checks the digest of every blob,
//! notes what is missing or unreadable, and hands on "not found" for such manifests and an empty document for such
//! configs and layers, so that everything else of the repo is still judged. What depends on a stand-in is listed in
//! [`Storage::bad`] and is not compared.

use super::findings::{Finding, Id};
use super::{Verify, lock};
use crate::cancel::Cancel;
use crate::error::chain;
use crate::oci::{self, json};
use crate::records::fold::{Entry, Rules};
use crate::records::signature::{self, Kind};
use crate::storage::{Blob, ImageStore, IndexStat, StorageError, parse_digest};
use crate::walk::memory::Share;
use crate::walk::read::{Reading, RepoRead, TakesAhead, read_repo_within};
use sha2::Digest as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// One descriptor of `index.json` that zot does not skip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Tag; empty if there is none.
    pub tag: String,
    /// Digest, unchecked.
    pub digest: String,
    /// Media type.
    pub media_type: String,
}

impl Listed {
    /// Whether zot records what it refers to.
    #[must_use]
    pub fn usable(&self) -> bool {
        is_manifest(&self.media_type) || is_index(&self.media_type)
    }

    /// The text under which zot records it.
    #[must_use]
    pub fn reference(&self) -> &str {
        if self.tag.is_empty() { &self.digest } else { &self.tag }
    }

    /// Whether its records include a tag.
    #[must_use]
    pub fn is_tag(&self) -> bool {
        !self.tag.is_empty() && !crate::storage::valid_digest(&self.tag)
    }
}

/// Whether zot decodes the blob as a manifest.
#[must_use]
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, oci::MANIFEST | oci::DOCKER_MANIFEST)
}

/// Whether zot decodes the blob as an index.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, oci::INDEX | oci::DOCKER_LIST)
}

/// The descriptors of an index that zot does not skip, in order.
///
/// # Errors
/// If zot could not decode the index.
pub fn listed(text: &[u8]) -> Result<Vec<Listed>, json::JsonError> {
    let index: oci::Index = json::document(text)?;
    let one = |mut descriptor: oci::Descriptor| Listed {
        tag: descriptor.annotations.remove(oci::REF_NAME).unwrap_or_default(),
        digest: descriptor.digest,
        media_type: descriptor.media_type,
    };
    Ok(index
        .manifests
        .into_vec()
        .into_iter()
        .map(one)
        .filter(|found| !signature::is_referrers_tag(&found.tag))
        .collect())
}

/// What storage holds of a repo, as far as it can be read.
pub struct Storage {
    /// Entries for the fold.
    pub read: RepoRead,
    /// What is wrong with storage itself.
    pub problems: Vec<Finding>,
    /// Digests of blobs that could not be used: what is made of them is not judged.
    pub bad: BTreeSet<String>,
}

/// A repo's index as it was read.
pub struct Index<'a> {
    /// Its version.
    pub stat: &'a IndexStat,
    /// Its bytes.
    pub text: &'a [u8],
    /// Its descriptors.
    pub listed: &'a [Listed],
}

/// Who sees the entries of a repo as they are read. Begins anew with every attempt to read it.
pub struct Ahead<'a, T> {
    /// The beginning.
    pub begin: &'a dyn Fn() -> T,
    /// Called for every batch, in the order of the index, with the digests that it lists, what was made of them, and the
    /// digests of what could not be used so far.
    pub see: &'a See<'a, T>,
}

type See<'a, T> = dyn Fn(&mut T, &[&str], &mut [Entry], &BTreeSet<String>) + Sync + 'a;

/// Read all documents of a repo.
///
/// # Errors
/// Only if asked to stop.
pub(super) fn read<T: Send>(
    verify: &Verify<'_>,
    repo: &str,
    index: &Index<'_>,
    ahead: &Ahead<'_, T>,
    share: &Share<'_>,
) -> Result<(Storage, T), StorageError> {
    let Verify { stores, rules, progress, cancel, .. } = *verify;
    let mut manifests: BTreeMap<&str, Vec<&Listed>> = BTreeMap::new();
    for found in index.listed {
        manifests.entry(&found.digest).or_default().push(found);
    }
    // Documents are decoded twice only where decoding them once has failed.
    for careful in [false, true] {
        let source = Source { store: stores, index, manifests: &manifests, rules, careful, seen: Mutex::default() };
        let gathered = Mutex::new((ahead.begin)());
        let take = |digests: &[&str], entries: &mut [Entry]| {
            let before = weight(entries);
            (ahead.see)(&mut lock(&gathered), digests, entries, &lock(&source.seen).bad);
            share.let_go(before - weight(entries));
        };
        // On this thread alone: findings come in the order of the index.
        let takes = TakesAhead { from: 1, take: &take };
        let reading =
            Reading { share, store: &source, repo, rules, jobs: &|_| 1, ahead: Some(takes), progress, cancel };
        let outcome = read_repo_within(&reading);
        let seen = source.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let gathered = gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(read) => return Ok((Storage { read, problems: seen.problems, bad: seen.bad }, gathered)),
            // Whatever could not be read then says nothing about storage.
            Err(_) if cancel.is_cancelled() => return Err(StorageError::Cancelled),
            Err(_) if !careful => {}
            Err(error) => {
                let mut problems = seen.problems;
                problems.push(
                    Finding::new(Id::DocumentInvalid).digest(error.digest().unwrap_or_default()).found(chain(&error)),
                );
                let read = RepoRead {
                    index: index.stat.clone(),
                    entries: Default::default(),
                    missing: Vec::new(),
                    manifests: 0,
                    bytes: 0,
                };
                let bad = manifests.keys().map(|digest| (*digest).to_owned()).collect();
                return Ok((Storage { read, problems, bad }, (ahead.begin)()));
            }
        }
    }
    Err(StorageError::Cancelled)
}

fn weight(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::weight).sum()
}

#[derive(Default)]
struct Seen {
    problems: Vec<Finding>,
    noted: BTreeSet<(Id, String)>,
    bad: BTreeSet<String>,
    /// Digests that a decoded manifest names as its config.
    configs: BTreeSet<String>,
}

impl Seen {
    fn note(&mut self, id: Id, digest: &str, reference: &str, found: String) {
        if self.noted.insert((id, digest.to_owned())) {
            self.problems.push(Finding::new(id).digest(digest).reference(reference).found(found));
        }
    }
}

struct Source<'a> {
    store: &'a dyn ImageStore,
    index: &'a Index<'a>,
    manifests: &'a BTreeMap<&'a str, Vec<&'a Listed>>,
    rules: Rules,
    careful: bool,
    seen: Mutex<Seen>,
}

impl Source<'_> {
    fn judge(&self, seen: &mut Seen, digest: &str, outcome: Result<Blob, StorageError>) -> Result<Blob, StorageError> {
        let uses = self.manifests.get(digest).map(Vec::as_slice).unwrap_or_default();
        let reference = uses.first().map(|found| found.tag.as_str()).unwrap_or_default();
        let blob = match outcome {
            Ok(blob) => blob,
            Err(StorageError::Cancelled) => return Err(StorageError::Cancelled),
            Err(error) => {
                let id = match error {
                    StorageError::NotFound { .. } => Id::BlobMissing,
                    StorageError::InvalidDigest { .. } => Id::DocumentInvalid,
                    _ => Id::BlobUnreadable,
                };
                seen.note(id, digest, reference, chain(&error));
                return self.stand_in(seen, digest);
            }
        };
        if let Some(actual) = other_digest(digest, &blob.content) {
            if seen.noted.insert((Id::BlobDigest, digest.to_owned())) {
                let finding = Finding::new(Id::BlobDigest).digest(digest).reference(reference);
                seen.problems.push(finding.expected(digest).found(actual));
            }
            // zot would record what it reads, but nobody wants that recorded.
            seen.bad.insert(digest.to_owned());
        }
        if self.careful
            && let Err(found) = self.decode(seen, digest, uses, &blob.content)
        {
            seen.note(Id::DocumentInvalid, digest, reference, found);
            return self.stand_in(seen, digest);
        }
        Ok(blob)
    }

    /// What the reader gets in place of a blob that cannot be used.
    fn stand_in(&self, seen: &mut Seen, digest: &str) -> Result<Blob, StorageError> {
        seen.bad.insert(digest.to_owned());
        // A config can be listed like a manifest, too; an image needs something in its place.
        if self.manifests.contains_key(digest) && !seen.configs.contains(digest) {
            return Err(StorageError::NotFound { what: digest.to_owned() });
        }
        Ok(Blob { content: b"{}".to_vec(), mtime: None })
    }

    fn decode(&self, seen: &mut Seen, digest: &str, uses: &[&Listed], content: &[u8]) -> Result<(), String> {
        let refused = |what: &'static str| move |error: json::JsonError| format!("{what} cannot be decoded: {error}");
        for found in uses {
            if is_index(&found.media_type) {
                json::document::<oci::Index>(content).map_err(refused("index"))?;
            } else if is_manifest(&found.media_type) {
                let manifest: oci::Manifest = json::document(content).map_err(refused("manifest"))?;
                let kind = signature::signed_by(found.reference(), &manifest, self.rules).map(|(kind, _)| kind);
                let layers = manifest.layers.len();
                if kind == Some(Kind::Notation) && manifest.media_type != oci::INDEX && layers != 1 {
                    return Err(format!("notation signature has {layers} layers instead of one"));
                }
                if matches!(manifest.config.media_type.as_str(), oci::CONFIG | oci::DOCKER_CONFIG) {
                    seen.configs.insert(manifest.config.digest);
                }
            }
        }
        if uses.is_empty() && seen.configs.contains(digest) {
            json::document::<oci::Image>(content).map_err(refused("config"))?;
        }
        Ok(())
    }
}

impl ImageStore for Source<'_> {
    fn location(&self) -> String {
        self.store.location()
    }

    fn together(&self, repo: &str) -> usize {
        self.store.together(repo)
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.store.list_repos(cancel)
    }

    fn stat_index(&self, _repo: &str) -> Result<IndexStat, StorageError> {
        Ok(self.index.stat.clone())
    }

    fn read_index(&self, _repo: &str) -> Result<Vec<u8>, StorageError> {
        Ok(self.index.text.to_vec())
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        let outcomes = self.store.read_blobs(repo, digests);
        let mut seen = lock(&self.seen);
        digests.iter().zip(outcomes).map(|(digest, outcome)| self.judge(&mut seen, digest, outcome)).collect()
    }
}

/// The digest that `content` really has, unless it is `digest`.
fn other_digest(digest: &str, content: &[u8]) -> Option<String> {
    let (algorithm, hex) = parse_digest(digest)?;
    let actual = match algorithm {
        "sha256" => crate::hex::hex(&sha2::Sha256::digest(content)),
        "sha384" => crate::hex::hex(&sha2::Sha384::digest(content)),
        _ => crate::hex::hex(&sha2::Sha512::digest(content)),
    };
    (actual != hex).then(|| format!("{algorithm}:{actual}"))
}
