//! zot's bookkeeping of one repo, as slow and as literal as it is there: every reference is one read-modify-write of the
//! records, every tag recomputes the aggregates of the whole repo. What the library's fold must be equal to.
//!
//! It departs from zot where metactl does on purpose: verdicts on unchanged signature layers are kept, and the record
//! of when the repo was read is left to the caller.

use metactl::oci::time::Time;
use metactl::records::RepoState;
use metactl::records::fold::{Clock, Entry, RepoEntries, Rules};
use metactl::records::image::{Content, ImageEntry};
use metactl::records::proto::{
    BlobInfo, DescriptorStatistics, LayersInfo, ManifestSignatures, Platform, ReferrerInfo, ReferrersInfo, RepoBlobs,
    RepoLastUpdatedImage, RepoMeta, SignatureInfo, SignaturesInfo, TagDescriptor, Timestamp,
};
use metactl::records::signature::{Kind, SignatureEntry};
use prost::Message as _;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

const ZERO_TIME: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

/// zot's two records of a repo, encoded, as its database holds them between two operations.
pub struct Model<'a> {
    repo: &'a str,
    clock: Clock,
    rules: Rules,
    pub meta: Option<Vec<u8>>,
    pub blobs: Option<Vec<u8>>,
    verdicts: HashMap<[String; 4], (String, Option<Timestamp>)>,
}

/// RepoMeta and RepoBlobs, encoded.
pub type Records = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The records after a walk of `storage` over `prior`; `None` if they cannot be decoded.
pub fn walk(repo: &str, prior: &RepoState, storage: &RepoEntries, clock: Clock, rules: Rules) -> Option<Records> {
    let mut model =
        Model { repo, clock, rules, meta: prior.meta.clone(), blobs: prior.blobs.clone(), verdicts: HashMap::new() };
    model.reset(&storage.tags)?;
    for entry in &storage.entries {
        match entry {
            Entry::Image(image) => model.set_repo_reference(image)?,
            Entry::Signature(signature) => model.add_manifest_signature(signature)?,
        }
    }
    Some((model.meta, model.blobs))
}

impl<'a> Model<'a> {
    /// A repo without records.
    pub fn new(repo: &'a str, clock: Clock, rules: Rules) -> Self {
        Self { repo, clock, rules, meta: None, blobs: None, verdicts: HashMap::new() }
    }

    fn load(&self) -> Option<Option<RepoMeta>> {
        self.meta.as_deref().map(RepoMeta::decode).transpose().ok()
    }

    fn reset(&mut self, keep: &BTreeSet<String>) -> Option<()> {
        let Some(mut meta) = self.load()? else { return Some(()) };
        for (signed, kinds) in &meta.signatures {
            for (kind, infos) in &kinds.map {
                for info in &infos.list {
                    for layer in &info.layers_info {
                        let key =
                            [signed, kind, &info.signature_manifest_digest, &layer.layer_digest].map(Clone::clone);
                        self.verdicts.insert(key, (layer.signer.clone(), layer.date));
                    }
                }
            }
        }
        meta.tags.retain(|tag, _| tag.is_empty() || keep.contains(tag));
        meta.tags.entry(String::new()).or_default();
        if meta.statistics.is_empty() {
            meta.statistics.insert(String::new(), DescriptorStatistics::default());
        }
        meta.signatures = [(String::new(), empty_signatures())].into();
        meta.referrers = [(String::new(), ReferrersInfo::default())].into();
        (meta.is_starred, meta.is_bookmarked, meta.rank, meta.downloads, meta.size) = (false, false, 0, 0, 0);
        meta.vendors.clear();
        meta.platforms.clear();
        meta.last_updated_image = None;
        self.meta = Some(meta.encode_to_vec());
        Some(())
    }

    pub fn add_manifest_signature(&mut self, entry: &SignatureEntry) -> Option<()> {
        let kind = match entry.kind {
            Kind::Cosign => "cosign",
            Kind::Notation => "notation",
        };
        let layers = entry.layers.iter().map(|layer| {
            let key = [entry.signed.clone(), kind.to_owned(), entry.digest.clone(), layer.digest.clone()];
            let (signer, date) = self.verdicts.get(&key).cloned().unwrap_or_default();
            LayersInfo {
                layer_digest: layer.digest.clone(),
                layer_content: layer.content.clone(),
                signature_key: layer.key.clone(),
                signer,
                date: Some(date.unwrap_or(ZERO_TIME)),
            }
        });
        let new = SignatureInfo { signature_manifest_digest: entry.digest.clone(), layers_info: layers.collect() };
        let Some(mut meta) = self.load()? else {
            let list = SignaturesInfo { list: vec![new] };
            let kinds = ManifestSignatures { map: [(kind.to_owned(), list)].into() };
            let meta = RepoMeta {
                name: self.repo.to_owned(),
                tags: [(String::new(), TagDescriptor::default())].into(),
                statistics: [(String::new(), DescriptorStatistics::default())].into(),
                referrers: [(String::new(), ReferrersInfo::default())].into(),
                signatures: [(entry.signed.clone(), kinds)].into(),
                ..RepoMeta::default()
            };
            self.meta = Some(meta.encode_to_vec());
            return Some(());
        };
        let mut kinds = meta.signatures.get(&entry.signed).cloned().unwrap_or_else(empty_signatures);
        let mut list = kinds.map.get(kind).cloned().unwrap_or_default().list;
        if !list.iter().any(|known| known.signature_manifest_digest == entry.digest) {
            if entry.kind == Kind::Notation {
                list.push(new);
            } else if self.is_cosign_tag(&entry.reference) {
                if list.is_empty() {
                    list.push(new);
                } else {
                    list[0] = new;
                }
            } else {
                if list.is_empty() {
                    list.push(SignatureInfo::default());
                }
                list.push(new);
            }
        }
        kinds.map.insert(kind.to_owned(), SignaturesInfo { list });
        meta.signatures.insert(entry.signed.clone(), kinds);
        self.meta = Some(meta.encode_to_vec());
        Some(())
    }

    /// The regular expressions `sha256-.+\.sig` and, on Redis, `sha256-.+\.(sig|sbom)`, tried at every position.
    fn is_cosign_tag(&self, reference: &str) -> bool {
        let suffixes: &[&str] = if self.rules.sbom_tags_file_signatures { &[".sig", ".sbom"] } else { &[".sig"] };
        reference.match_indices("sha256-").any(|(start, found)| {
            let rest = &reference[start + found.len()..];
            suffixes.iter().any(|suffix| rest.match_indices(suffix).any(|(at, _)| at > 0 && !rest[..at].contains('\n')))
        })
    }

    pub fn set_repo_reference(&mut self, image: &ImageEntry) -> Option<()> {
        let mut meta = self.load()?.unwrap_or_else(|| RepoMeta { name: self.repo.to_owned(), ..RepoMeta::default() });
        if meta.tags.is_empty() {
            meta.tags.insert(String::new(), TagDescriptor::default());
        }
        if meta.statistics.is_empty() {
            meta.statistics.insert(String::new(), DescriptorStatistics::default());
        }
        if meta.signatures.is_empty() {
            meta.signatures.insert(String::new(), ManifestSignatures::default());
        }
        if meta.referrers.is_empty() {
            meta.referrers.insert(String::new(), ReferrersInfo::default());
        }

        if let Some(referrer) = &image.referrer {
            let subject = &referrer.subject;
            let mut list = meta.referrers.get(subject).cloned().unwrap_or_default().list;
            let mut found = false;
            for known in &mut list {
                if known.digest == image.digest {
                    known.count += 1;
                    found = true;
                    break;
                }
            }
            if !found {
                list.push(ReferrerInfo {
                    digest: image.digest.clone(),
                    count: 1,
                    media_type: image.media_type.to_owned(),
                    artifact_type: referrer.artifact_type.clone(),
                    size: image.size,
                    annotations: referrer.annotations.clone(),
                });
            }
            meta.referrers.insert(subject.clone(), ReferrersInfo { list });
        }

        if image.is_tag {
            let known = meta.tags.get(&image.reference);
            let tagged_timestamp = match known {
                Some(known) => known.tagged_timestamp,
                None => Some(Timestamp { seconds: self.clock.now.seconds, nanos: self.clock.now.nanos }),
            };
            let tag = TagDescriptor {
                media_type: image.media_type.to_owned(),
                digest: image.digest.clone(),
                tagged_timestamp,
            };
            meta.tags.insert(image.reference.clone(), tag);
        }

        let hint = image.pushed.filter(|at| *at != Time::ZERO && !self.rules.push_time_is_now);
        let pushed = hint.unwrap_or(self.clock.now);
        let pushed = Timestamp { seconds: pushed.seconds, nanos: pushed.nanos };
        let mut statistics = meta.statistics.get(&image.digest).cloned().unwrap_or_else(|| DescriptorStatistics {
            download_count: 0,
            last_pull_timestamp: Some(Timestamp::default()),
            push_timestamp: Some(pushed),
            pushed_by: String::new(),
        });
        if statistics.push_timestamp == Some(ZERO_TIME) {
            statistics.push_timestamp = Some(pushed);
        }
        meta.statistics.insert(image.digest.clone(), statistics);

        if !meta.signatures.contains_key(&image.digest) {
            meta.signatures.insert(image.digest.clone(), empty_signatures());
        }
        if !meta.referrers.contains_key(&image.digest) {
            meta.referrers.insert(image.digest.clone(), ReferrersInfo::default());
        }

        let mut blobs = match &self.blobs {
            Some(bytes) => RepoBlobs::decode(bytes.as_slice()).ok()?,
            None => RepoBlobs { name: self.repo.to_owned(), ..RepoBlobs::default() },
        };
        if blobs.blobs.is_empty() {
            blobs.blobs.insert(String::new(), BlobInfo::default());
        }
        add_image(&mut blobs, image);
        if image.is_tag {
            aggregate(&mut meta, &blobs, image);
        }
        self.meta = Some(meta.encode_to_vec());
        self.blobs = Some(blobs.encode_to_vec());
        Some(())
    }
}

fn empty_signatures() -> ManifestSignatures {
    ManifestSignatures { map: [(String::new(), SignaturesInfo::default())].into() }
}

fn add_image(blobs: &mut RepoBlobs, image: &ImageEntry) {
    let mut own = BlobInfo { size: image.size, ..BlobInfo::default() };
    match &image.content {
        Content::Manifest { blobs: parts, vendor, platform, last_updated } => {
            for (digest, size) in parts.iter() {
                blobs.blobs.insert(digest.to_owned(), BlobInfo { size, ..BlobInfo::default() });
                own.sub_blobs.push(digest.to_owned());
            }
            own.vendors.extend(vendor.clone());
            own.platforms.extend(platform.clone());
            own.last_updated = Some(Timestamp { seconds: last_updated.seconds, nanos: last_updated.nanos });
        }
        Content::Index { children } => {
            let mut newest = ZERO_TIME;
            for child in children {
                own.sub_blobs.push(child.clone());
                if let Some(BlobInfo { last_updated: Some(at), .. }) = blobs.blobs.get(child)
                    && (at.seconds, at.nanos) > (newest.seconds, newest.nanos)
                {
                    newest = *at;
                }
            }
            own.last_updated = Some(newest);
        }
    }
    blobs.blobs.insert(image.digest.clone(), own);
}

/// From scratch, over everything that any tag reaches.
fn aggregate(meta: &mut RepoMeta, blobs: &RepoBlobs, image: &ImageEntry) {
    let mut queue: VecDeque<String> =
        meta.tags.values().map(|tag| tag.digest.clone()).filter(|digest| !digest.is_empty()).collect();
    let (mut visited, mut size) = (HashSet::new(), 0_i64);
    let (mut platforms, mut vendors): (Vec<Platform>, Vec<String>) = (Vec::new(), Vec::new());
    while let Some(digest) = queue.pop_front() {
        let Some(blob) = blobs.blobs.get(&digest) else { continue };
        if !visited.insert(digest) {
            continue;
        }
        size = size.wrapping_add(blob.size);
        for platform in &blob.platforms {
            if !platforms.iter().any(|known| known.os == platform.os && known.architecture == platform.architecture) {
                platforms.push(platform.clone());
            }
        }
        for vendor in &blob.vendors {
            if !vendors.contains(vendor) {
                vendors.push(vendor.clone());
            }
        }
        queue.extend(blob.sub_blobs.iter().cloned());
    }
    meta.size = size;
    meta.platforms = platforms;
    meta.vendors = vendors;
    let candidate = RepoLastUpdatedImage {
        last_updated: blobs.blobs[&image.digest].last_updated,
        media_type: image.media_type.to_owned(),
        digest: image.digest.clone(),
        tag: image.reference.clone(),
    };
    // An absent time reads as 1970.
    let instant = |image: &RepoLastUpdatedImage| image.last_updated.map_or((0, 0), |at| (at.seconds, at.nanos));
    if meta.last_updated_image.as_ref().is_none_or(|known| instant(known) < instant(&candidate)) {
        meta.last_updated_image = Some(candidate);
    }
}
