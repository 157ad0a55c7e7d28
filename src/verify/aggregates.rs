//! RepoBlobs and what is summed up from it: size, platforms, vendors, last update (spec §3.5, §3.6).
//!
//! These records depend on the order in which things came. zot's own walk and its run-time pushes may leave any of
//! several values, all of them its own; so a value is only a finding if *no* order explains it.
//!
//! * Blob records: a fold over nothing (every child comes as late as the index lists it) and one over the current records
//!   (every child is there already) give what zot may have left. Deleting a tag prunes the blob records that no tag
//!   reaches; children of an index that is pushed later stay without.
//! * Sums are taken when a tag is pushed or something is deleted, over the blob records of that moment. Later pushes
//!   without a tag add records, and nothing removes any. So the sums are over the records as they are now, perhaps
//!   without those of images that the index lists after its last tag. (One order is left out: a manifest without a tag
//!   whose record was pruned while storage still has it, pushed once more after everything else. Clients ask before they
//!   push, and pruned manifests are on their way out.)

use super::compare::text;
use super::findings::{Finding, Id};
use crate::oci::time::Time;
use crate::records::blobs::{Blob, Blobs};
use crate::records::fold::{Clock, Entry, RepoEntries, Rules, folded};
use crate::records::image::{Content, ImageEntry};
use crate::records::meta::Meta;
use crate::records::sums::Sums;
use crate::records::{RepoState, proto};
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
    pub blobs: &'a Blobs<'a>,
    /// Images and signatures in the index's order.
    pub entries: &'a RepoEntries,
    /// Release rules.
    pub rules: Rules,
    /// Whether some documents could not be used, so that sums cannot be judged.
    pub unsure: bool,
}

/// RepoMeta and RepoBlobs as a walk would leave them.
struct Rebuilt<'a> {
    meta: Meta<'a>,
    blobs: Blobs<'a>,
}

impl Rebuilt<'_> {
    fn sums(&self) -> Sums {
        Sums::stated(self.meta.size, &self.meta.platforms, &self.meta.vendors)
    }
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
        let differs = |(digest, blob): &(&str, Blob<'_>)| {
            !digest.is_empty() && self.blobs.get(digest).is_none_or(|found| found != *blob)
        };
        let differing: BTreeSet<&str> = again.blobs.iter().filter(differs).map(|(digest, _)| digest).collect();
        let sums_agree = self.stated() == again.sums() && self.meta.last_updated_image == again.meta.last_updated_image;
        if differing.is_empty() && sums_agree {
            return findings;
        }
        let nothing = RepoState::default();
        let Some(fresh) = self.rebuild(&nothing) else { return findings };
        let required = self.required();
        for digest in differing {
            findings.extend(self.blob(digest, &again, &fresh, required.contains(digest)));
        }
        if !self.unsure {
            findings.extend(self.sums(&again, &required));
            findings.extend(self.last_updated(&again, &fresh));
        }
        findings
    }

    fn rebuild<'r>(&'r self, prior: &'r RepoState) -> Option<Rebuilt<'r>> {
        let clock = Clock { index_read: Time::ZERO, now: Time::ZERO };
        let rebuilt = folded(self.repo, prior, self.entries, clock, self.rules).ok()?;
        Some(Rebuilt { meta: rebuilt.meta?, blobs: rebuilt.blobs? })
    }

    /// The sums that RepoMeta states.
    fn stated(&self) -> Sums {
        Sums::stated(self.meta.size, &self.meta.platforms, &self.meta.vendors)
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
        let recorded = |image: &&ImageEntry| {
            image.is_tag && self.meta.tags.get(&image.reference).is_some_and(|tag| tag.digest == image.digest)
        };
        self.images().filter(recorded).flat_map(brings).collect()
    }

    fn blob(&self, digest: &str, again: &Rebuilt<'_>, fresh: &Rebuilt<'_>, required: bool) -> Option<Finding> {
        let expected = again.blobs.get(digest)?.info();
        let finding = Finding::new(Id::AggregateDiffers).reference("blob").digest(digest);
        let Some(found) = self.blobs.get(digest) else {
            return required.then(|| finding.expected(describe(&expected)).found("not recorded"));
        };
        let explained =
            fresh.blobs.get(digest).is_some_and(|blob| blob == found) || self.explained(digest, &found.info(), fresh);
        (!explained).then(|| finding.expected(describe(&expected)).found(describe(&found.info())))
    }

    /// Whether some order of pushes leaves this.
    fn explained(&self, digest: &str, found: &proto::BlobInfo, fresh: &Rebuilt<'_>) -> bool {
        self.images().any(|image| {
            let mut parts = image.content.blobs();
            let part = |size: i64| *found == proto::BlobInfo { size, ..Default::default() };
            parts.any(|(name, size)| name == digest && part(size))
                || image.digest == digest && self.own(image, found, fresh)
        })
    }

    /// Whether `found` is what storing `image` itself leaves, at some moment.
    fn own(&self, image: &ImageEntry, found: &proto::BlobInfo, fresh: &Rebuilt<'_>) -> bool {
        let time = found.last_updated.map(Time::from);
        // That of some child, or of none.
        let possible = |child: &String| {
            let of = |blobs: &Blobs<'_>| blobs.last_updated(child).map(Time::from);
            of(self.blobs) == time || of(&fresh.blobs) == time
        };
        let newest = |children: &[String]| time.filter(|_| children.iter().any(possible)).unwrap_or(Time::ZERO);
        *found == image.blob_info(newest)
    }

    /// Sums are taken when a tag is pushed or anything is deleted. What is pushed without a tag after that is recorded and
    /// not in them; nothing else is one without the other.
    fn sums(&self, again: &Rebuilt<'_>, required: &BTreeSet<&str>) -> Vec<Finding> {
        let (found, again_found) = (self.stated(), again.sums());
        if self.ambiguous() || found == again_found {
            return Vec::new();
        }
        let late = self.late();
        let recorded = |digest: &str| required.contains(digest) || self.blobs.get(digest).is_some();
        let reached = |counted: &dyn Fn(&str) -> bool| Sums::reached(again.meta.tags.values(), &again.blobs, counted);
        let high = reached(&recorded);
        let low = reached(&|digest| recorded(digest) && !late.contains(digest));
        let mut findings = Vec::new();
        let mut report = |part: &str, expected: String, found: String| {
            findings.push(Finding::new(Id::AggregateDiffers).reference(part).expected(expected).found(found));
        };
        if !between(low.size, found.size, high.size) {
            report("size", high.size.to_string(), found.size.to_string());
        }
        let [low_platforms, found_platforms, high_platforms] = [&low, &found, &high].map(Sums::platforms);
        if !within(&low_platforms, &found_platforms, &high_platforms) {
            report("platforms", text(&high_platforms), text(&found_platforms));
        }
        if !within(&low.vendors, &found.vendors, &high.vendors) {
            report("vendors", text(&high.vendors), text(&found.vendors));
        }
        findings
    }

    /// Blobs that only images listed after the last tag bring: a push appends what the index did not list yet.
    fn late(&self) -> BTreeSet<&str> {
        let images: Vec<&ImageEntry> = self.images().collect();
        let tags = images.iter().rposition(|image| image.is_tag).map_or(0, |last| last + 1);
        let (early, late) = images.split_at_checked(tags).unwrap_or_default();
        let early: BTreeSet<&str> = early.iter().copied().flat_map(brings).collect();
        late.iter().copied().flat_map(brings).filter(|digest| !early.contains(digest)).collect()
    }

    /// Whether a digest is a blob of several sizes, or both an image and a blob: the last one recorded wins, and sums
    /// follow it. Nor do sums of negative sizes tell anything.
    fn ambiguous(&self) -> bool {
        let mut sizes: BTreeMap<&str, i64> = BTreeMap::new();
        let own: BTreeSet<&str> = self.images().map(|image| image.digest.as_str()).collect();
        self.images()
            .flat_map(|image| image.content.blobs())
            .any(|(digest, size)| size < 0 || own.contains(digest) || *sizes.entry(digest).or_insert(size) != size)
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
    fn last_updated(&self, again: &Rebuilt<'_>, fresh: &Rebuilt<'_>) -> Option<Finding> {
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
            let recorded = self.blobs.last_updated(&image.digest);
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

/// Digests of the blobs that storing an image records.
fn brings(image: &ImageEntry) -> impl Iterator<Item = &str> {
    std::iter::once(image.digest.as_str()).chain(image.content.blobs().map(|(digest, _)| digest))
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
