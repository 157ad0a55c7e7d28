//! One repo's records against what storage holds of it: tags, statistics, images, signatures, referrers.
//!
//! Not findings, because zot leaves them so itself: tags of the index whose manifest zot does not record (they keep what
//! they had), statistics of digests that are gone, the count of a referrer (every push raises it), signatures that another
//! one displaces when both are recorded in the order of the index, and what zot forgets when it deletes an image or its
//! last tag: statistics, signatures and referrers go at once, their manifests leave storage later, if ever. Likewise a
//! signature whose own tag was deleted (`images.rs`).

use super::compare::text;
use super::findings::{Finding, Id};
use super::source::Listed;
use crate::oci::time::Time;
use crate::records::fold::{Clock, Entry, RepoEntries, Rules, fold};
use crate::records::image::ImageEntry;
use crate::records::signature::SignatureEntry;
use crate::records::wire::{Record, unknown_fields};
use crate::records::{RepoChange, RepoState, proto};
use prost::Message as _;
use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A repo's records and what they should reflect.
pub struct Records<'a> {
    /// Name of the repo.
    pub repo: &'a str,
    /// Its records.
    pub state: &'a RepoState,
    /// RepoMeta, decoded.
    pub meta: &'a proto::RepoMeta,
    /// What the index lists.
    pub listed: &'a [Listed],
    /// Images and signatures in the index's order. Without storage: images alone, as their records have them.
    pub entries: &'a RepoEntries,
    /// Whether `entries` come from storage.
    pub from_storage: bool,
    /// Digests of documents that could not be used.
    pub bad: &'a BTreeSet<String>,
    /// Release rules.
    pub rules: Rules,
}

impl Records<'_> {
    fn images(&self) -> impl Iterator<Item = &ImageEntry> {
        self.entries.entries.iter().filter_map(|entry| match entry {
            Entry::Image(image) => Some(image.as_ref()),
            Entry::Signature(_) => None,
        })
    }

    fn signatures(&self) -> impl Iterator<Item = &SignatureEntry> {
        self.entries.entries.iter().filter_map(|entry| match entry {
            Entry::Signature(signature) => Some(signature),
            Entry::Image(_) => None,
        })
    }

    fn listed_digests(&self) -> BTreeSet<&str> {
        self.listed.iter().map(|found| found.digest.as_str()).collect()
    }

    /// Listed digests that zot knows as images: not those whose last tag was deleted, of which only the image record stays.
    fn known(&self) -> BTreeSet<&str> {
        let known = |found: &&Listed| found.is_tag() || self.meta.statistics.contains_key(&found.digest);
        self.listed.iter().filter(known).map(|found| found.digest.as_str()).collect()
    }

    /// Tags and statistics.
    #[must_use]
    pub fn tags(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let unclear: BTreeSet<&str> = self
            .listed
            .iter()
            .filter(|found| self.bad.contains(&found.digest))
            .map(|found| found.tag.as_str())
            .collect();
        // The last descriptor of a tag counts.
        let wanted: BTreeMap<&str, &ImageEntry> =
            self.images().filter(|image| image.is_tag).map(|image| (image.reference.as_str(), image)).collect();
        for (tag, image) in wanted.iter().filter(|(tag, _)| !unclear.contains(**tag)) {
            let finding = |id| Finding::new(id).reference(tag).digest(&image.digest).expected(&image.digest);
            match self.meta.tags.get(*tag) {
                None => findings.push(finding(Id::TagMissing)),
                Some(known) if known.digest != image.digest => {
                    findings.push(finding(Id::TagDigest).found(&known.digest));
                }
                Some(known) if known.media_type != image.media_type => {
                    findings.push(finding(Id::TagDigest).expected(image.media_type).found(&known.media_type));
                }
                Some(_) => {}
            }
        }
        let keep: BTreeSet<&str> = self.listed.iter().map(|found| found.tag.as_str()).collect();
        for (tag, known) in &self.meta.tags {
            if !tag.is_empty() && !keep.contains(tag.as_str()) {
                findings.push(Finding::new(Id::TagExtra).reference(tag).digest(&known.digest).found(&known.digest));
            }
        }
        let mut seen = BTreeSet::new();
        for image in self.images().filter(|image| image.is_tag && seen.insert(image.digest.as_str())) {
            if !self.meta.statistics.contains_key(&image.digest) {
                findings.push(Finding::new(Id::StatisticsMissing).reference(&image.reference).digest(&image.digest));
            }
        }
        findings
    }

    /// Recorded signatures against those in storage. Without storage only the digests are compared.
    #[must_use]
    pub fn signature_records(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let listed = self.listed_digests();
        let mut wanted: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
        let mut absent = Vec::new();
        for signature in self.signatures() {
            wanted.insert((&signature.signed, signature.kind.key(), &signature.digest));
            match recorded(self.meta, signature) {
                Some(found) => findings.extend(self.signature_layers(signature, found)),
                None => absent.push(signature),
            }
        }
        if !absent.is_empty() {
            findings.extend(self.absent_signatures(&absent));
        }
        for (signed, signatures) in &self.meta.signatures {
            for (kind, list) in &signatures.map {
                for found in list.list.iter().map(|found| found.signature_manifest_digest.as_str()) {
                    let known = if self.from_storage {
                        wanted.contains(&(signed, kind, found)) || self.bad.contains(found)
                    } else {
                        listed.contains(found)
                    };
                    if !found.is_empty() && !known {
                        let finding = Finding::new(Id::SignatureExtra).reference(kind).digest(found);
                        findings.push(finding.found(format!("recorded as signature of {signed}")));
                    }
                }
            }
        }
        findings
    }

    fn absent_signatures(&self, absent: &[&SignatureEntry]) -> Vec<Finding> {
        // What a walk over nothing and a walk over these records both record is there in any order of events.
        let rebuilt: Vec<proto::RepoMeta> =
            [&RepoState::default(), self.state].into_iter().filter_map(|prior| self.rebuild(prior)).collect();
        let known = self.known();
        let mut findings = Vec::new();
        for signature in absent {
            let displaced = rebuilt.iter().any(|meta| recorded(meta, signature).is_none());
            if !displaced && known.contains(signature.signed.as_str()) {
                let finding = Finding::new(Id::SignatureMissing).reference(signature.kind.key());
                let expected = format!("recorded as signature of {}", signature.signed);
                findings.push(finding.digest(&signature.digest).expected(expected));
            }
        }
        findings
    }

    fn rebuild(&self, prior: &RepoState) -> Option<proto::RepoMeta> {
        let clock = Clock { index_read: Time::ZERO, now: Time::ZERO };
        match fold(self.repo, prior, self.entries, clock, self.rules).ok()? {
            RepoChange::Write { meta, .. } => proto::RepoMeta::decode(meta?.as_slice()).ok(),
            RepoChange::Keep | RepoChange::Delete => None,
        }
    }

    fn signature_layers(&self, signature: &SignatureEntry, found: &proto::SignatureInfo) -> Option<Finding> {
        let unusable = |layer: &crate::records::signature::Layer| self.bad.contains(&layer.digest);
        if self.bad.contains(&signature.digest) || signature.layers.iter().any(unusable) {
            return None;
        }
        let finding = Finding::new(Id::SignatureDiffers).reference(signature.kind.key()).digest(&signature.digest);
        let (wanted, got) = (signature.layers.len(), found.layers_info.len());
        if wanted != got {
            return Some(finding.expected(format!("{wanted} layers")).found(format!("{got} layers")));
        }
        signature.layers.iter().zip(&found.layers_info).find_map(|(wanted, got)| {
            let part = if wanted.digest != got.layer_digest {
                ("digest", wanted.digest.clone(), got.layer_digest.clone())
            } else if wanted.content != got.layer_content {
                let size = |bytes: &[u8]| format!("{} bytes", bytes.len());
                ("content", size(&wanted.content), size(&got.layer_content))
            } else if wanted.key != got.signature_key {
                ("key", text(&wanted.key), text(&got.signature_key))
            } else {
                return None;
            };
            let (what, wanted, got) = part;
            Some(finding.clone().expected(format!("layer {what} {wanted}")).found(format!("layer {what} {got}")))
        })
    }

    /// Lists of referrers.
    #[must_use]
    pub fn referrers(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        // Of most repos everything is recorded, and nobody asks.
        let known = LazyCell::new(|| self.known());
        let mut wanted = BTreeMap::new();
        for image in self.images() {
            if let Some(referrer) = &image.referrer {
                wanted.insert((referrer.subject.as_str(), image.digest.as_str()), (image, referrer));
            }
        }
        let mut recorded = HashMap::new();
        for (subject, list) in &self.meta.referrers {
            for found in &list.list {
                recorded.entry((subject.as_str(), found.digest.as_str())).or_insert(found);
            }
        }
        let about = |subject: &str, digest: &str| {
            Finding::new(Id::ReferrerDiffers).reference(&format!("referrer of {subject}")).digest(digest)
        };
        for ((subject, digest), (image, referrer)) in &wanted {
            let Some(found) = recorded.get(&(*subject, *digest)) else {
                if known.contains(subject) && known.contains(digest) {
                    findings.push(about(subject, digest).expected("recorded").found("not recorded"));
                }
                continue;
            };
            let parts = [
                ("media type", image.media_type.to_owned(), found.media_type.clone()),
                ("artifact type", referrer.artifact_type.clone(), found.artifact_type.clone()),
                ("size", image.size.to_string(), found.size.to_string()),
                ("annotations", text(&referrer.annotations), text(&found.annotations)),
            ];
            if let Some((part, wanted, got)) = parts.into_iter().find(|(_, wanted, got)| wanted != got) {
                findings
                    .push(about(subject, digest).expected(format!("{part} {wanted}")).found(format!("{part} {got}")));
            }
        }
        // Of a referrer whose tag moved on, index and storage lose the manifest, and its subject's list keeps it.
        let listed = LazyCell::new(|| self.listed_digests());
        let moved = |digest: &str| !listed.contains(digest) && self.meta.statistics.contains_key(digest);
        for (subject, list) in &self.meta.referrers {
            for found in &list.list {
                let digest = found.digest.as_str();
                if !wanted.contains_key(&(subject, digest)) && !self.bad.contains(digest) && !moved(digest) {
                    findings.push(about(subject, digest).expected("not recorded").found("recorded"));
                }
            }
        }
        findings
    }
}

fn recorded<'m>(meta: &'m proto::RepoMeta, signature: &SignatureEntry) -> Option<&'m proto::SignatureInfo> {
    let list = &meta.signatures.get(&signature.signed)?.map.get(signature.kind.key())?.list;
    list.iter().find(|found| found.signature_manifest_digest == signature.digest)
}

/// A finding if a record has fields that this version does not know.
#[must_use]
pub fn unknown(record: Record, name: &str, bytes: &[u8]) -> Option<Finding> {
    let fields = unknown_fields(record, bytes).ok().filter(|fields| !fields.is_empty())?;
    Some(Finding::new(Id::RecordUnknownFields).reference(name).found(format!("fields {}", fields.join(", "))))
}
