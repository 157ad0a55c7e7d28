//! RepoBlobs and what is summed up from it: size, platforms, vendors, last update (spec §3.5, §3.6).
//!
//! These records depend on the order in which things came. zot's own walk and its run-time pushes may leave any of
//! several values, all of them its own; so a value is only a finding if *no* order explains it. Folds give the ends: over
//! nothing (every child comes as late as the index lists it) and over the current records (every child is there already).
//! What equals either, or lies between them, is zot's. Deleting a tag at run time prunes the blob records that no tag
//! reaches; children of an index that is pushed later stay without, and out of the sums.

use super::compare::text;
use super::findings::{Finding, Id};
use crate::oci::time::Time;
use crate::records::fold::{Clock, Entry, RepoEntries, Rules, fold};
use crate::records::image::{Content, ImageEntry};
use crate::records::{RepoChange, RepoState, proto};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// A repo's records and what they should reflect.
pub struct Aggregates<'a> {
    /// Name of the repo.
    pub repo: &'a str,
    /// Its records.
    pub state: &'a RepoState,
    /// RepoMeta, decoded.
    pub meta: &'a proto::RepoMeta,
    /// RepoBlobs, decoded.
    pub blobs: &'a proto::RepoBlobs,
    /// Images and signatures in the index's order.
    pub entries: &'a RepoEntries,
    /// Release rules.
    pub rules: Rules,
    /// Whether some documents could not be used, so that sums cannot be judged.
    pub unsure: bool,
}

/// RepoMeta and RepoBlobs as a walk would leave them.
struct Rebuilt {
    meta: proto::RepoMeta,
    blobs: proto::RepoBlobs,
}

impl Aggregates<'_> {
    /// Everything that no order explains.
    #[must_use]
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.entries.entries.iter().any(|entry| matches!(entry, Entry::Image(_))) {
            return findings;
        }
        // Unknown fields that a rebuild would lose are reported elsewhere; nothing can be rebuilt over them.
        let Some(again) = self.rebuild(self.state) else { return findings };
        let differing: Vec<&str> = again
            .blobs
            .blobs
            .iter()
            .filter(|(digest, info)| !digest.is_empty() && self.blobs.blobs.get(*digest) != Some(info))
            .map(|(digest, _)| digest.as_str())
            .collect();
        let sums_agree =
            sums(self.meta) == sums(&again.meta) && self.meta.last_updated_image == again.meta.last_updated_image;
        if differing.is_empty() && sums_agree {
            return findings;
        }
        let Some(fresh) = self.rebuild(&RepoState::default()) else { return findings };
        let required = self.required();
        for digest in differing {
            findings.extend(self.blob(digest, &again, &fresh, required.contains(digest)));
        }
        if !self.unsure {
            findings.extend(self.sums(&again, &fresh));
            findings.extend(self.last_updated(&again, &fresh));
        }
        findings
    }

    fn rebuild(&self, prior: &RepoState) -> Option<Rebuilt> {
        let clock = Clock { index_read: Time::ZERO, now: Time::ZERO };
        let RepoChange::Write { meta, blobs, .. } = fold(self.repo, prior, self.entries, clock, self.rules).ok()?
        else {
            return None;
        };
        Some(Rebuilt {
            meta: proto::RepoMeta::decode(meta?.as_slice()).ok()?,
            blobs: proto::RepoBlobs::decode(blobs?.as_slice()).ok()?,
        })
    }

    fn images(&self) -> impl Iterator<Item = &ImageEntry> {
        self.entries.entries.iter().filter_map(|entry| match entry {
            Entry::Image(image) => Some(image.as_ref()),
            Entry::Signature(_) => None,
        })
    }

    /// Blobs whose records are there in any order: those of images whose tag is recorded. Children of an index may have
    /// been pruned; what lacks a tag record lacks it all, which is said once.
    fn required(&self) -> BTreeSet<&str> {
        let mut required = BTreeSet::new();
        let recorded = |image: &&ImageEntry| {
            image.is_tag && self.meta.tags.get(&image.reference).is_some_and(|tag| tag.digest == image.digest)
        };
        for image in self.images().filter(recorded) {
            required.insert(image.digest.as_str());
            if let Content::Manifest { blobs, .. } = &image.content {
                required.extend(blobs.iter().map(|(digest, _)| digest.as_str()));
            }
        }
        required
    }

    fn blob(&self, digest: &str, again: &Rebuilt, fresh: &Rebuilt, required: bool) -> Option<Finding> {
        let expected = again.blobs.blobs.get(digest)?;
        let finding = Finding::new(Id::AggregateDiffers).reference("blob").digest(digest);
        let Some(found) = self.blobs.blobs.get(digest) else {
            return required.then(|| finding.expected(describe(expected)).found("not recorded"));
        };
        let explained = fresh.blobs.blobs.get(digest) == Some(found) || self.explained(digest, found, fresh);
        (!explained).then(|| finding.expected(describe(expected)).found(describe(found)))
    }

    /// Whether some order of pushes leaves this.
    fn explained(&self, digest: &str, found: &proto::BlobInfo, fresh: &Rebuilt) -> bool {
        self.images().any(|image| {
            let part = match &image.content {
                Content::Manifest { blobs, .. } => blobs.iter().any(|(part, size)| {
                    part == digest && *found == proto::BlobInfo { size: *size, ..Default::default() }
                }),
                Content::Index { .. } => false,
            };
            part || image.digest == digest && self.own(image, found, fresh)
        })
    }

    /// Whether `found` is what storing `image` itself leaves, at some moment.
    fn own(&self, image: &ImageEntry, found: &proto::BlobInfo, fresh: &Rebuilt) -> bool {
        match &image.content {
            Content::Manifest { blobs, vendor, platform, last_updated } => {
                *found
                    == proto::BlobInfo {
                        size: image.size,
                        vendors: vendor.iter().cloned().collect(),
                        sub_blobs: blobs.iter().map(|(digest, _)| digest.clone()).collect(),
                        platforms: platform.iter().cloned().collect(),
                        last_updated: Some((*last_updated).into()),
                    }
            }
            Content::Index { children } => {
                let time = found.last_updated.map(Time::from);
                // That of some child, or of none.
                let of = |blobs: &proto::RepoBlobs, child: &String| {
                    blobs.blobs.get(child).and_then(|blob| blob.last_updated).map(Time::from)
                };
                let possible = time.is_some_and(Time::is_zero)
                    || children.iter().any(|child| of(self.blobs, child) == time || of(&fresh.blobs, child) == time);
                found.size == image.size
                    && found.sub_blobs == *children
                    && found.vendors.is_empty()
                    && found.platforms.is_empty()
                    && possible
            }
        }
    }

    fn sums(&self, again: &Rebuilt, fresh: &Rebuilt) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.ambiguous() {
            return findings;
        }
        let (fresh, found, high) = (sums(&fresh.meta), sums(self.meta), sums(&again.meta));
        let recorded = self.recorded_sums();
        let low = Sums {
            size: fresh.size.min(recorded.size),
            platforms: fresh.platforms.intersection(&recorded.platforms).copied().collect(),
            vendors: fresh.vendors.intersection(&recorded.vendors).copied().collect(),
        };
        let mut report = |part: &str, expected: String, found: String| {
            findings.push(Finding::new(Id::AggregateDiffers).reference(part).expected(expected).found(found));
        };
        if !between(low.size, found.size, high.size) {
            report("size", high.size.to_string(), found.size.to_string());
        }
        if !within(&low.platforms, &found.platforms, &high.platforms) {
            report("platforms", text(&high.platforms), text(&found.platforms));
        }
        if !within(&low.vendors, &found.vendors, &high.vendors) {
            report("vendors", text(&high.vendors), text(&found.vendors));
        }
        findings
    }

    /// The sums that the blob records, as they are, amount to.
    fn recorded_sums(&self) -> Sums<'_> {
        let (mut size, mut platforms, mut vendors) = (0_i64, BTreeSet::new(), BTreeSet::new());
        let mut seen = BTreeSet::new();
        let mut queue: Vec<&str> =
            self.meta.tags.values().map(|tag| tag.digest.as_str()).filter(|digest| !digest.is_empty()).collect();
        while let Some(digest) = queue.pop() {
            let Some(blob) = self.blobs.blobs.get(digest).filter(|_| seen.insert(digest)) else { continue };
            size = size.wrapping_add(blob.size);
            platforms.extend(blob.platforms.iter().map(|found| (found.os.as_str(), found.architecture.as_str())));
            vendors.extend(blob.vendors.iter().map(String::as_str));
            queue.extend(blob.sub_blobs.iter().map(String::as_str));
        }
        Sums { size, platforms, vendors }
    }

    /// Whether a digest is a blob of several sizes, or both an image and a blob: the last one recorded wins, and sums
    /// follow it.
    fn ambiguous(&self) -> bool {
        let mut sizes: BTreeMap<&str, i64> = BTreeMap::new();
        let own: BTreeSet<&str> = self.images().map(|image| image.digest.as_str()).collect();
        self.images().any(|image| match &image.content {
            Content::Manifest { blobs, .. } => blobs
                .iter()
                .any(|(digest, size)| own.contains(digest.as_str()) || *sizes.entry(digest).or_insert(*size) != *size),
            Content::Index { .. } => false,
        })
    }

    /// The newest tagged image that is no index: no order leaves an older one.
    fn earliest(&self) -> Time {
        let times = self.images().filter(|image| image.is_tag).filter_map(|image| match &image.content {
            Content::Manifest { last_updated, .. } => Some(*last_updated),
            Content::Index { .. } => None,
        });
        times.fold(Time::ZERO, Time::max)
    }

    /// At run time the newest image is only ever replaced by a newer one, even when its tag moves on.
    fn last_updated(&self, again: &Rebuilt, fresh: &Rebuilt) -> Option<Finding> {
        let found = self.meta.last_updated_image.as_ref();
        if found == again.meta.last_updated_image.as_ref() || found == fresh.meta.last_updated_image.as_ref() {
            return None;
        }
        let time = |image: Option<&proto::RepoLastUpdatedImage>| {
            Time::from(image.and_then(|image| image.last_updated).unwrap_or_default())
        };
        let plausible = found.is_some_and(|image| {
            let known = self.meta.tags.values().any(|tag| tag.digest == image.digest)
                || self.meta.statistics.contains_key(&image.digest);
            let late_enough = time(Some(image)) >= self.earliest();
            let recorded = self.blobs.blobs.get(&image.digest).and_then(|blob| blob.last_updated);
            let of_index = self
                .images()
                .any(|known| known.digest == image.digest && matches!(known.content, Content::Index { .. }));
            known && late_enough && (recorded == image.last_updated || of_index)
        });
        let finding = Finding::new(Id::AggregateDiffers).reference("last updated");
        let image = |image: Option<&proto::RepoLastUpdatedImage>| {
            image.map_or("none".into(), |image| {
                format!("{}@{} {}", image.tag, image.digest, seconds(image.last_updated))
            })
        };
        (!plausible).then(|| finding.expected(image(again.meta.last_updated_image.as_ref())).found(image(found)))
    }
}

#[derive(PartialEq)]
struct Sums<'a> {
    size: i64,
    platforms: BTreeSet<(&'a str, &'a str)>,
    vendors: BTreeSet<&'a str>,
}

fn sums(meta: &proto::RepoMeta) -> Sums<'_> {
    Sums {
        size: meta.size,
        platforms: meta
            .platforms
            .iter()
            .map(|platform| (platform.os.as_str(), platform.architecture.as_str()))
            .collect(),
        vendors: meta.vendors.iter().map(String::as_str).collect(),
    }
}

fn between(low: i64, found: i64, high: i64) -> bool {
    low.min(high) <= found && found <= low.max(high)
}

fn within<T: Ord>(low: &BTreeSet<T>, found: &BTreeSet<T>, high: &BTreeSet<T>) -> bool {
    low.is_subset(found) && found.is_subset(high)
}

fn describe(blob: &proto::BlobInfo) -> String {
    let platforms: Vec<_> = blob.platforms.iter().map(|found| format!("{}/{}", found.os, found.architecture)).collect();
    let mut out = format!("size {}, {} blobs", blob.size, blob.sub_blobs.len());
    for (name, list) in [("platforms", &platforms), ("vendors", &blob.vendors)] {
        if !list.is_empty() {
            out.push_str(&format!(", {name} {}", list.join(" ")));
        }
    }
    if blob.last_updated.is_some() {
        out.push_str(&format!(", last updated {}", seconds(blob.last_updated)));
    }
    out
}

/// A time for people.
pub fn seconds(at: Option<proto::Timestamp>) -> String {
    let Some(at) = at else { return "never".into() };
    match jiff::Timestamp::new(at.seconds, at.nanos) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{}.{:09} s", at.seconds, at.nanos),
    }
}
