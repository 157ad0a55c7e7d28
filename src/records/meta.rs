//! RepoMeta while it is folded: keys stay in the record and in the entries that they come from, and of what nearly every
//! image has the same, nothing is kept.

use super::fold::{FoldError, decoded, placeholder};
use super::parts::{map_length, parts, put_map};
use super::proto;
use super::wire::{Carry, Malformed, Record};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// Signer and date of the layers of an image's signatures, by (kind, signature manifest, layer).
pub(super) type Verdicts = BTreeMap<(String, String, String), (String, Option<proto::Timestamp>)>;

/// A RepoMeta record.
#[derive(Debug, Default)]
pub struct Meta<'a> {
    pub(super) name: String,
    /// By tag.
    pub tags: BTreeMap<&'a str, proto::TagDescriptor>,
    pub(super) statistics: BTreeMap<&'a str, proto::DescriptorStatistics>,
    /// By signed image; `None` stands for one that has no signatures, which zot records with a placeholder.
    pub(super) signatures: BTreeMap<&'a str, Option<proto::ManifestSignatures>>,
    /// By subject.
    pub(super) referrers: BTreeMap<&'a str, proto::ReferrersInfo>,
    stars: i32,
    /// Bytes of all blobs.
    pub size: i64,
    /// Vendors of all images.
    pub vendors: Vec<String>,
    /// Platforms of all images.
    pub platforms: Vec<proto::Platform>,
    /// The image that was built last.
    pub last_updated_image: Option<proto::RepoLastUpdatedImage>,
    carry: Carry,
}

impl<'a> Meta<'a> {
    /// The record of a repo that has none.
    pub(super) fn new(repo: &str) -> Self {
        Self { name: repo.to_owned(), ..Self::default() }
    }

    /// `ResetRepoReferences`: forget everything that storage will tell again; keep what only the metaDB knows. Besides, by
    /// signed image, what zot found out about its signatures.
    pub(super) fn reset(
        repo: &str,
        record: &'a [u8],
        keep: &BTreeSet<String>,
    ) -> Result<(Self, BTreeMap<&'a str, Verdicts>), FoldError> {
        let ((mut meta, verdicts), carry) = decoded(Record::RepoMeta, record, |record| {
            let (mut meta, mut known) = (Self::new(repo), BTreeMap::new());
            parts::<proto::RepoMeta>(record, |part| {
                match part.number {
                    2 => {
                        let tag = part.key()?;
                        if tag.is_empty() || keep.contains(tag) {
                            meta.tags.extend(part.record.tags.into_values().map(|found| (tag, found)));
                        }
                    }
                    3 => {
                        let digest = part.key()?;
                        meta.statistics.extend(part.record.statistics.into_values().map(|found| (digest, found)));
                    }
                    4 => {
                        let signed = part.key()?;
                        known.extend(part.record.signatures.into_values().map(|found| (signed, verdicts(found))));
                    }
                    9 => meta.stars = part.record.stars,
                    _ => {}
                }
                Ok(())
            })?;
            known.retain(|_, verdicts| !verdicts.is_empty());
            Ok((meta, known))
        })?;
        meta.carry = carry;
        meta.tags.entry("").or_default();
        placeholder(&mut meta.statistics);
        meta.signatures.insert("", None);
        meta.referrers.insert("", proto::ReferrersInfo::default());
        Ok((meta, verdicts))
    }

    /// The bytes of the record.
    pub(super) fn encode(self) -> Result<Vec<u8>, FoldError> {
        let mut out = proto::RepoMeta { name: self.name, ..Default::default() }.encode_to_vec();
        let none = no_signatures();
        let (tags, statistics, referrers) = (entries(&self.tags), entries(&self.statistics), entries(&self.referrers));
        let signatures = self.signatures.iter().map(|(key, value)| (*key, value.as_ref().unwrap_or(&none)));
        // What is left has higher numbers than the maps.
        let rest = proto::RepoMeta {
            stars: self.stars,
            size: self.size,
            vendors: self.vendors,
            platforms: self.platforms,
            last_updated_image: self.last_updated_image,
            ..Default::default()
        };
        let maps = map_length(2, tags.clone())
            + map_length(3, statistics.clone())
            + map_length(4, signatures.clone())
            + map_length(5, referrers.clone());
        out.reserve_exact(maps + rest.encoded_len());
        put_map(&mut out, 2, tags);
        put_map(&mut out, 3, statistics);
        put_map(&mut out, 4, signatures);
        put_map(&mut out, 5, referrers);
        rest.encode_raw(&mut out);
        self.carry.attach(out).map_err(|Malformed| FoldError::Undecodable { record: "RepoMeta" })
    }
}

fn entries<'m, V>(map: &'m BTreeMap<&str, V>) -> impl Iterator<Item = (&'m str, &'m V)> + Clone {
    map.iter().map(|(key, value)| (*key, value))
}

/// `ManifestSignatures` with nothing but zot's placeholder.
pub(super) fn no_signatures() -> proto::ManifestSignatures {
    proto::ManifestSignatures { map: BTreeMap::from([(String::new(), proto::SignaturesInfo::default())]) }
}

fn verdicts(signatures: proto::ManifestSignatures) -> Verdicts {
    let mut out = Verdicts::new();
    for (kind, infos) in signatures.map {
        for info in infos.list {
            for layer in info.layers_info.into_iter().filter(|layer| !layer.signer.is_empty() || layer.date.is_some()) {
                let key = (kind.clone(), info.signature_manifest_digest.clone(), layer.layer_digest);
                out.insert(key, (layer.signer, layer.date));
            }
        }
    }
    out
}
