//! The fold: one repo's prior records and its images and signatures in `index.json` order → new records (spec §2.5,
//! §2.9, §3.4–§3.7).
//!
//! zot stores one reference at a time and recomputes a repo's aggregates at every tag. The order is observable (an index
//! listed before its children has no size yet, for example), so the fold follows the same steps; only work that later
//! steps overwrite is left out: aggregates are computed once, at the last tag. That makes a repo linear in its tags.

use super::blobs::Blobs;
use super::image::{Content, ImageEntry};
use super::meta::{Meta, Verdicts, no_signatures};
use super::proto;
use super::signature::{self, Kind, SignatureEntry};
use super::sums::Sums;
use super::wire::{self, Carry, Malformed, Record};
use super::{RepoChange, RepoState, encode_time};
use crate::oci::time::Time;
use crate::parallel::both;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where releases and drivers of zot differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// v2.1.18 ignores storage's modification time and takes "now" as the push time of new statistics.
    pub push_time_is_now: bool,
    /// v2.1.18 takes the digest out of cosign tags without checking it.
    pub lax_cosign_tags: bool,
    /// On Redis, `.sbom` tags file cosign signatures like `.sig` tags.
    pub sbom_tags_file_signatures: bool,
}

/// One usable descriptor of a repo's `index.json`, decoded.
#[derive(Debug, Clone)]
pub enum Entry {
    /// An image or artifact.
    Image(Box<ImageEntry>),
    /// A signature.
    Signature(SignatureEntry),
}

impl Entry {
    /// The image, if it is one.
    #[must_use]
    pub fn image(&self) -> Option<&ImageEntry> {
        match self {
            Self::Image(image) => Some(image),
            Self::Signature(_) => None,
        }
    }

    /// Take its encoded `ImageMeta`, if it is an image: digest and record.
    pub fn take_meta(&mut self) -> Option<(String, Vec<u8>)> {
        match self {
            Self::Image(image) => Some((image.digest.clone(), std::mem::take(&mut image.meta))),
            Self::Signature(_) => None,
        }
    }

    /// Memory that it takes, about, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        /// Names and numbers that every entry has.
        const FIXED: usize = 768;
        /// A digest in a list.
        const DIGEST: usize = 128;
        /// One in the text of a [`BlobList`](super::blob_list::BlobList), with its size.
        const BLOB: usize = 96;
        FIXED
            + match self {
                Self::Image(image) => {
                    let blobs = match &image.content {
                        Content::Manifest { blobs, .. } => blobs.len() * BLOB,
                        Content::Index { children } => children.len() * DIGEST,
                    };
                    let annotations = image.referrer.iter().flat_map(|referrer| &referrer.annotations);
                    let annotations = annotations.map(|(key, value)| DIGEST + key.len() + value.len());
                    image.meta.len() + blobs + annotations.sum::<usize>()
                }
                Self::Signature(signature) => {
                    signature.layers.iter().map(|layer| DIGEST + layer.content.len() + layer.key.len()).sum()
                }
            }
    }
}

/// What a repo's storage says, ready to be folded.
#[derive(Debug, Clone, Default)]
pub struct RepoEntries {
    /// Every tag listed, usable or not: records of these tags are kept until overwritten.
    pub tags: BTreeSet<String>,
    /// Usable descriptors in `index.json` order.
    pub entries: Vec<Entry>,
    /// Whether some manifest blob is missing.
    pub partial: bool,
}

/// Instants that the fold writes.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Captured before `index.json` was read: becomes RepoLastUpdated.
    pub index_read: Time,
    /// Time stamp of new tags, and of pushes whose time storage does not know.
    pub now: Time,
}

/// Why prior records cannot be built upon. Such a repo fails; its records stay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// A prior record is not what zot writes.
    #[error("{record} record of the repo cannot be decoded")]
    Undecodable {
        /// RepoMeta or RepoBlobs.
        record: &'static str,
    },
    /// A newer zot wrote fields that a rewrite would lose.
    #[error("{record} record has unknown fields ({path}) that this version would lose")]
    UnknownFields {
        /// RepoMeta or RepoBlobs.
        record: &'static str,
        /// Field numbers, outermost first.
        path: String,
    },
}

/// A repo's records as a walk leaves them.
pub struct Folded<'a> {
    /// RepoMeta.
    pub meta: Option<Meta<'a>>,
    /// RepoBlobs; `None`: nothing was added to it.
    pub blobs: Option<Blobs<'a>>,
    last_updated: Option<Vec<u8>>,
    /// Whether each is worth a thread.
    large: bool,
}

impl Folded<'_> {
    /// As bytes.
    fn encode(self) -> Result<RepoChange, FoldError> {
        let Self { meta, blobs, last_updated, large } = self;
        let encode_meta = || meta.map(Meta::encode).transpose();
        let encode_blobs = || blobs.map(|blobs| blobs.encode(large)).transpose();
        let (meta, blobs) = both(large, encode_meta, encode_blobs);
        Ok(RepoChange::Write { meta: meta?, blobs: blobs?, last_updated })
    }
}

/// Fold one repo. Pure: repeated calls with other prior states are fine.
///
/// # Errors
/// [`FoldError`] if the prior records cannot be built upon.
pub fn fold(
    repo: &str,
    prior: &RepoState,
    storage: &RepoEntries,
    clock: Clock,
    rules: Rules,
) -> Result<RepoChange, FoldError> {
    folded(repo, prior, storage, clock, rules)?.encode()
}

/// As [`fold`], for those who want to look at the records.
///
/// # Errors
/// As [`fold`].
pub fn folded<'a>(
    repo: &'a str,
    prior: &'a RepoState,
    storage: &'a RepoEntries,
    clock: Clock,
    rules: Rules,
) -> Result<Folded<'a>, FoldError> {
    let fold_meta = || -> Result<Option<Meta<'a>>, FoldError> {
        let (meta, verdicts) = match present(&prior.meta) {
            None => (None, BTreeMap::new()),
            Some(record) => {
                let (meta, verdicts) = Meta::reset(repo, record, &storage.tags)?;
                (Some(meta), verdicts)
            }
        };
        let mut fold = Fold { repo, meta, verdicts, referrers: HashMap::new(), clock, rules };
        for entry in &storage.entries {
            match entry {
                Entry::Signature(signature) => fold.add_signature(signature),
                Entry::Image(image) => fold.set_reference(image),
            }
        }
        Ok(fold.meta)
    };
    // Aggregates are those of the last tag; what comes after it only adds to RepoBlobs.
    let last_tag = storage.entries.iter().rposition(|entry| entry.image().is_some_and(|image| image.is_tag));
    let (tagged, rest) = storage.entries.split_at(last_tag.map_or(0, |at| at + 1));
    let images = |entries: &'a [Entry]| entries.iter().filter_map(Entry::image);
    let fold_blobs = || -> Result<_, FoldError> {
        // zot reads this record only when it stores a reference, so only then can it fail the repo.
        if images(&storage.entries).next().is_none() {
            return Ok(None);
        }
        let mut blobs = Blobs::prior(repo, present(&prior.blobs), storage.entries.len())?;
        let mut newest = Newest::default();
        for image in images(tagged) {
            blobs.add(image);
            if image.is_tag {
                newest.add(&blobs, image);
            }
        }
        Ok(Some((blobs, newest)))
    };
    let large = is_large(storage);
    let (meta, blobs) = both(large, fold_meta, fold_blobs);
    let mut meta = meta?;
    let blobs = blobs?.map(|(mut blobs, newest)| {
        if let (Some(meta), Some(_)) = (&mut meta, last_tag) {
            let sums = Sums::reached(meta.tags.values(), &blobs, |_| true);
            (meta.size, meta.vendors, meta.platforms) = sums.into_lists();
            meta.last_updated_image = newest.into_record();
        }
        images(rest).for_each(|image| blobs.add(image));
        blobs
    });

    let last_updated = match (&blobs, storage.partial) {
        (_, true) => Some(encode_time(Time::ZERO)),
        (Some(_), false) => Some(encode_time(clock.index_read)),
        (None, false) => None,
    };
    Ok(Folded { meta, blobs, last_updated, large })
}

/// Whether RepoMeta and RepoBlobs are worth a thread each.
fn is_large(storage: &RepoEntries) -> bool {
    const MANY: usize = 4096;
    storage.entries.len() >= MANY
}

/// The newest image that has a tag; a tie keeps the one seen first.
#[derive(Default)]
struct Newest<'a>(Option<(Option<proto::Timestamp>, &'a ImageEntry)>);

impl<'a> Newest<'a> {
    fn add(&mut self, blobs: &Blobs<'_>, image: &'a ImageEntry) {
        let last_updated = blobs.last_updated(&image.digest);
        // An absent time reads as 1970, as in zot's accessors.
        let instant = |at: Option<proto::Timestamp>| Time::from(at.unwrap_or_default());
        if self.0.is_none_or(|(known, _)| instant(known) < instant(last_updated)) {
            self.0 = Some((last_updated, image));
        }
    }

    fn into_record(self) -> Option<proto::RepoLastUpdatedImage> {
        self.0.map(|(last_updated, image)| proto::RepoLastUpdatedImage {
            last_updated,
            media_type: image.media_type.to_owned(),
            digest: image.digest.clone(),
            tag: image.reference.clone(),
        })
    }
}

/// A record without any content is none, as zot sees it.
fn present(record: &Option<Vec<u8>>) -> Option<&[u8]> {
    record.as_deref().filter(|bytes| !bytes.is_empty())
}

/// Decode a prior record, and take what of it must be carried over.
pub(super) fn decoded<'a, T>(
    record: Record,
    bytes: &'a [u8],
    decode: impl FnOnce(&'a [u8]) -> Result<T, Malformed>,
) -> Result<(T, Carry), FoldError> {
    let name = match record {
        Record::RepoMeta => "RepoMeta",
        Record::RepoBlobs => "RepoBlobs",
        Record::ImageMeta => "ImageMeta",
    };
    let undecodable = |Malformed| FoldError::Undecodable { record: name };
    let out = decode(bytes).map_err(undecodable)?;
    if let Some(path) = wire::lost_if_rewritten(record, bytes).map_err(undecodable)? {
        return Err(FoldError::UnknownFields { record: name, path });
    }
    Ok((out, Carry::from_record(record, bytes).map_err(undecodable)?))
}

pub(super) fn placeholder<V: Default>(map: &mut BTreeMap<&str, V>) {
    if map.is_empty() {
        map.insert("", V::default());
    }
}

struct Fold<'a> {
    repo: &'a str,
    meta: Option<Meta<'a>>,
    /// By signed image.
    verdicts: BTreeMap<&'a str, Verdicts>,
    /// Where a subject's list has a referrer: all lists begin empty.
    referrers: HashMap<(&'a str, &'a str), usize>,
    clock: Clock,
    rules: Rules,
}

impl<'a> Fold<'a> {
    /// `AddManifestSignature`.
    fn add_signature(&mut self, entry: &'a SignatureEntry) {
        let info = self.signature_info(entry);
        let Some(meta) = &mut self.meta else {
            // The first usable descriptor of a new repo: fewer placeholders than a record started by an image.
            let list = proto::SignaturesInfo { list: vec![info] };
            let signatures = proto::ManifestSignatures { map: BTreeMap::from([(entry.kind.key().to_owned(), list)]) };
            let mut meta = Meta::new(self.repo);
            placeholder(&mut meta.tags);
            placeholder(&mut meta.statistics);
            placeholder(&mut meta.referrers);
            meta.signatures.insert(&entry.signed, Some(signatures));
            self.meta = Some(meta);
            return;
        };
        let signatures = meta.signatures.entry(&entry.signed).or_default().get_or_insert_with(no_signatures);
        let list = &mut signatures.map.entry(entry.kind.key().to_owned()).or_default().list;
        if list.iter().any(|known| known.signature_manifest_digest == entry.digest) {
            return;
        }
        if entry.kind == Kind::Notation {
            list.push(info);
            return;
        }
        // Slot 0 of a cosign list belongs to the tag-style signature, of which there is one.
        let by_tag = signature::is_cosign_tag(&entry.reference, self.rules.sbom_tags_file_signatures);
        match (by_tag, list.first_mut()) {
            (true, Some(slot)) => *slot = info,
            (true, None) => list.push(info),
            (false, Some(_)) => list.push(info),
            (false, None) => list.extend([proto::SignatureInfo::default(), info]),
        }
    }

    fn signature_info(&self, entry: &SignatureEntry) -> proto::SignatureInfo {
        let known = self.verdicts.get(entry.signed.as_str());
        let layers = entry.layers.iter().map(|layer| {
            let key = (entry.kind.key().to_owned(), entry.digest.clone(), layer.digest.clone());
            // A known verdict on an unchanged layer is kept; only zot, with its trust store, can give a new one.
            let (signer, date) = known.and_then(|known| known.get(&key)).cloned().unwrap_or_default();
            proto::LayersInfo {
                layer_digest: layer.digest.clone(),
                layer_content: layer.content.clone(),
                signature_key: layer.key.clone(),
                signer,
                date: Some(date.unwrap_or_else(|| Time::ZERO.into())),
            }
        });
        proto::SignatureInfo { signature_manifest_digest: entry.digest.clone(), layers_info: layers.collect() }
    }

    /// `SetRepoReference`, as far as RepoMeta goes and without the aggregates.
    fn set_reference(&mut self, image: &'a ImageEntry) {
        let meta = self.meta.get_or_insert_with(|| Meta::new(self.repo));
        placeholder(&mut meta.tags);
        placeholder(&mut meta.statistics);
        if meta.signatures.is_empty() {
            // Not even the placeholder that every image's own entry has.
            meta.signatures.insert("", Some(proto::ManifestSignatures::default()));
        }
        placeholder(&mut meta.referrers);

        if let Some(referrer) = &image.referrer {
            let subject = referrer.subject.as_str();
            let list = &mut meta.referrers.entry(subject).or_default().list;
            let at = *self.referrers.entry((subject, &image.digest)).or_insert(list.len());
            match list.get_mut(at) {
                Some(known) => known.count += 1,
                None => list.push(proto::ReferrerInfo {
                    digest: image.digest.clone(),
                    count: 1,
                    media_type: image.media_type.to_owned(),
                    artifact_type: referrer.artifact_type.clone(),
                    size: image.size,
                    annotations: referrer.annotations.clone(),
                }),
            }
        }
        if image.is_tag {
            let tagged_timestamp = match meta.tags.get(image.reference.as_str()) {
                Some(known) => known.tagged_timestamp,
                None => Some(self.clock.now.into()),
            };
            let tag = proto::TagDescriptor {
                media_type: image.media_type.to_owned(),
                digest: image.digest.clone(),
                tagged_timestamp,
            };
            meta.tags.insert(&image.reference, tag);
        }
        self.note_statistics(image);
    }

    fn note_statistics(&mut self, image: &'a ImageEntry) {
        let Some(meta) = &mut self.meta else { return };
        let hint = image.pushed.filter(|at| !at.is_zero() && !self.rules.push_time_is_now);
        let pushed = Some(hint.unwrap_or(self.clock.now).into());
        match meta.statistics.get_mut(image.digest.as_str()) {
            // Only Go's zero time is repaired; an absent or 1970 push time stays, as in zot.
            Some(known) if known.push_timestamp.is_some_and(|at| Time::from(at).is_zero()) => {
                known.push_timestamp = pushed;
            }
            Some(_) => {}
            None => {
                let statistics = proto::DescriptorStatistics {
                    last_pull_timestamp: Some(proto::Timestamp::default()),
                    push_timestamp: pushed,
                    ..Default::default()
                };
                meta.statistics.insert(&image.digest, statistics);
            }
        }
        meta.signatures.entry(&image.digest).or_default();
        meta.referrers.entry(&image.digest).or_default();
    }
}
