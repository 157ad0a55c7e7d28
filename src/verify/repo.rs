//! One repo: how deep to look, and what to make of what is seen.
//!
//! The shallower depths look at records alone. Where these raise a suspicion, the repo's documents are read and judged
//! as `--deep` would, because only they tell a lost record from a lost blob and an image from a signature; so a finding
//! means the same at every depth. A repo with findings is looked at again if it may just have been changed: a running
//! zot writes storage first and its metaDB a moment later.

use super::aggregates::Aggregates;
use super::findings::{Finding, Id, LAST_UPDATED};
use super::images::{BATCH, Images, Sums, lost};
use super::records::{Records, unknown};
use super::source::{self, Ahead, Index, Listed};
use super::{Depth, Verify, VerifyError, compare, push_times, quick};
use crate::checksum::Checksum;
use crate::error::chain;
use crate::metadb::MetaDbError;
use crate::oci::time::Time;
use crate::parallel::parallel;
use crate::records::blobs::Blobs;
use crate::records::fold::{Entry, RepoEntries};
use crate::records::wire::{Malformed, Record};
use crate::records::{RepoState, proto};
use crate::state::RepoMemory;
use crate::storage::{ImageStore as _, IndexStat, StorageError};
use crate::walk::memory::{Memory, Share};
use crate::walk::read::jobs_for;
use jiff::{SignedDuration, Timestamp};
use prost::Message as _;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Memory that a repo takes, by the length of its index, which tells of how many images it is: descriptors, both records, and what they
/// are decoded to.
const INDEX_FACTOR: usize = 28;
/// Times this far in the future are no mere difference between two clocks.
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// What changed this recently may still be on its way from storage to the metaDB.
const RECENT: SignedDuration = SignedDuration::from_secs(10);
/// Coarsest resolution of a store's times.
const RESOLUTION: SignedDuration = SignedDuration::from_secs(2);
/// How often a repo that keeps changing is looked at again.
const LOOKS: u32 = 4;
/// Pause before another look.
const PAUSE: Duration = Duration::from_millis(250);

/// What came out of one repo.
#[derive(Debug, Default)]
pub struct Seen {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Digests that the repo lists or its tags name: image records of others are orphans.
    pub digests: Vec<String>,
    /// Whether `digests` is all of them.
    pub readable: bool,
    /// Manifests and indexes read.
    pub manifests: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What to remember, if nothing is wrong.
    pub memory: Option<RepoMemory>,
}

/// One look at a repo.
struct Look<'a> {
    verify: &'a Verify<'a>,
    repo: &'a str,
    /// Has room for what is held.
    share: &'a Share<'a>,
    state: &'a RepoState,
    stat: &'a IndexStat,
    text: &'a [u8],
    /// How many users starred it; `None` if that was not counted.
    stars: Option<i32>,
}

/// Check one repo that storage lists, as soon as `memory` has room for it. `stars`: how many users starred each repo.
///
/// # Errors
/// If the metaDB cannot be asked any more, or when asked to stop.
pub fn check(
    verify: &Verify<'_>,
    repo: &str,
    stars: Option<&HashMap<String, i32>>,
    memory: &Memory,
) -> Result<Seen, VerifyError> {
    let mut looks = 0;
    loop {
        looks += 1;
        let share = memory.begin();
        let started = Timestamp::now();
        let index = verify.stores.open_index(repo);
        let text = index.as_ref().map_or(0, |(_, text)| text.len());
        share.grow(text.saturating_mul(INDEX_FACTOR)).map_err(|_| VerifyError::Cancelled)?;
        let before = (index, records(verify, repo)?);
        let mut seen = look(verify, repo, &share, &before, stars)?;
        // What was written just before may be written again without another time or size.
        let settled = before.0.as_ref().is_ok_and(|(stat, _)| started.duration_since(stat.mtime) >= RESOLUTION);
        seen.memory = seen.memory.filter(|_| settled && seen.findings.is_empty());
        if seen.findings.is_empty() || looks == LOOKS {
            return Ok(seen);
        }
        let recent = |stat: &IndexStat| Timestamp::now().duration_since(stat.mtime).abs() < RECENT;
        let again = match (&before.0, verify.stores.stat_index(repo)) {
            (Ok((then, _)), Ok(now)) => *then != now || looks == 1 && recent(&now),
            // What cannot be read was not just changed.
            (Err(error), now) => matches!(error, StorageError::NotFound { .. }) && now.is_ok(),
            (Ok(_), Err(_)) => true,
        } || records(verify, repo)? != before.1;
        if !again {
            return Ok(seen);
        }
        if verify.cancel.is_cancelled() {
            return Err(VerifyError::Cancelled);
        }
        std::thread::sleep(PAUSE);
    }
}

/// A repo's records; what the file no longer holds intact is text.
fn records(verify: &Verify<'_>, repo: &str) -> Result<Result<RepoState, String>, VerifyError> {
    match verify.db.repo(repo) {
        Ok(state) => Ok(Ok(state)),
        Err(error @ MetaDbError::Damaged { .. }) => Ok(Err(chain(&error))),
        Err(error) => Err(error.into()),
    }
}

type Before = (Result<(IndexStat, Vec<u8>), StorageError>, Result<RepoState, String>);

fn look(
    verify: &Verify<'_>,
    repo: &str,
    share: &Share<'_>,
    (index, state): &Before,
    stars: Option<&HashMap<String, i32>>,
) -> Result<Seen, VerifyError> {
    let mut seen = Seen::default();
    let unreadable = |found: String| Finding::new(Id::IndexUnreadable).repo(repo).reference("index.json").found(found);
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            seen.findings.push(Finding::new(Id::RecordUndecodable).repo(repo).reference("RepoMeta").found(error));
            &RepoState::default()
        }
    };
    let (stat, text) = match index {
        Ok(index) => index,
        Err(StorageError::Cancelled) => return Err(VerifyError::Cancelled),
        Err(error) => {
            seen.findings.push(unreadable(chain(error)));
            return Ok(seen);
        }
    };
    seen.bytes = text.len() as u64;
    let damaged = !seen.findings.is_empty();
    let stars = stars.map(|stars| stars.get(repo).copied().unwrap_or_default());
    let look = Look { verify, repo, share, state, stat, text, stars };
    match source::listed(text) {
        Err(error) => seen.findings.push(unreadable(error.to_string())),
        Ok(listed) => {
            seen.readable = true;
            look.judge(&listed, damaged, &mut seen)?;
        }
    }
    look.times(&mut seen.findings);
    for finding in &mut seen.findings {
        finding.repo = Some(repo.to_owned());
    }
    look.settle(&mut seen.findings);
    Ok(seen)
}

impl Look<'_> {
    fn judge(&self, listed: &[Listed], damaged: bool, seen: &mut Seen) -> Result<(), VerifyError> {
        let depth = self.verify.depth;
        let meta = match self.state.meta.as_deref().map(proto::RepoMeta::decode).transpose() {
            Ok(meta) => meta.map(without_placeholders),
            Err(_) => {
                let finding = Finding::new(Id::RecordUndecodable).reference("RepoMeta");
                seen.findings.push(finding.found("RepoMeta cannot be decoded"));
                // Nobody knows which images its tags still name.
                seen.readable = false;
                return self.storage_alone(listed, seen).map(drop);
            }
        };
        if damaged {
            seen.readable = false;
            return self.storage_alone(listed, seen).map(drop);
        }
        seen.digests = listed.iter().map(|found| found.digest.clone()).collect();
        seen.digests.extend(meta.iter().flat_map(|meta| meta.tags.values()).map(|tag| tag.digest.clone()));
        seen.digests.retain(|digest| !digest.is_empty());
        seen.digests.sort_unstable();
        seen.digests.dedup();
        let Some(meta) = meta else {
            // Nothing to record, no record: an empty repo.
            let images = match depth {
                Depth::Quick | Depth::Records => listed.iter().any(Listed::usable),
                Depth::Deep => self.storage_alone(listed, seen)?,
            };
            if images {
                seen.findings.push(Finding::new(Id::RepoMissing).expected("recorded").found("no RepoMeta record"));
            }
            seen.memory = Some(self.remember(depth, &seen.digests, &[]));
            return Ok(());
        };
        let judged = Judged { look: self, listed, meta: &meta };
        match depth {
            Depth::Quick if quick::agrees(&meta, listed) => {
                seen.memory = Some(self.remember(depth, &seen.digests, &[]));
                Ok(())
            }
            Depth::Quick | Depth::Deep => judged.with_storage(seen),
            Depth::Records => {
                if !quick::agrees(&meta, listed) || !judged.by_records(seen)? {
                    judged.with_storage(seen)?;
                }
                Ok(())
            }
        }
    }

    fn read<T: Send>(&self, listed: &[Listed], ahead: &Ahead<'_, T>) -> Result<(source::Storage, T), VerifyError> {
        let index = Index { stat: self.stat, text: self.text, listed };
        source::read(self.verify, self.repo, &index, ahead, self.share).map_err(|_| VerifyError::Cancelled)
    }

    /// Judge storage by itself. Returns whether there is anything to record.
    fn storage_alone(&self, listed: &[Listed], seen: &mut Seen) -> Result<bool, VerifyError> {
        if self.verify.depth != Depth::Deep {
            return Ok(listed.iter().any(Listed::usable));
        }
        // There are no records to compare with.
        let see = |_: &mut (), _: &[&str], entries: &mut [Entry], _: &BTreeSet<String>| forget_records(entries);
        let (storage, ()) = self.read(listed, &Ahead { begin: &|| (), see: &see })?;
        seen.manifests = storage.read.manifests;
        seen.bytes = storage.read.bytes;
        seen.findings.extend(storage.problems);
        Ok(!storage.read.entries.entries.is_empty())
    }

    /// Things in the future.
    fn times(&self, findings: &mut Vec<Finding>) {
        let limit = Timestamp::now().checked_add(SKEW).unwrap_or(Timestamp::MAX);
        if self.stat.mtime > limit {
            let finding = Finding::new(Id::ClockSkew).reference("index.json");
            findings.push(finding.expected("a time that has come").found(self.stat.mtime.to_string()));
        }
        let recorded = self.state.last_updated();
        if recorded > Time::from(limit) {
            let found = super::aggregates::seconds(Some(recorded.into()));
            let finding = Finding::new(Id::ClockSkew).reference(LAST_UPDATED);
            findings.push(finding.expected("a time that has come").found(found));
        }
    }

    /// Say whether zot's next walk would look at a repo that has drift, and what to do.
    fn settle(&self, findings: &mut Vec<Finding>) {
        let recorded = self.state.last_updated();
        let hidden = !recorded.is_zero() && Time::from(self.stat.mtime) < recorded;
        let drift = findings.iter().any(Finding::is_drift);
        let missing = findings.iter().any(|finding| finding.id == Id::RepoMissing);
        let times = |id| {
            let recorded = (!recorded.is_zero()).then(|| super::aggregates::seconds(Some(recorded.into())));
            let recorded = recorded.unwrap_or_else(|| "never".into());
            Finding::new(id).repo(self.repo).found(format!("index of {}, records of {recorded}", self.stat.mtime))
        };
        if drift && hidden {
            findings.push(times(Id::RepoHidden));
        } else if drift && !missing {
            findings.push(times(Id::RepoDue));
        }
        for finding in findings {
            finding.settle_repair(hidden || self.verify.stamp_is_current());
        }
    }

    /// What to remember of a repo that is as it should be. `images`: checksums of the records of `digests`, where they were
    /// looked at.
    fn remember(&self, depth: Depth, digests: &[String], images: &[Option<Checksum>]) -> RepoMemory {
        let images = (0..digests.len()).map(|at| images.get(at).copied().flatten());
        RepoMemory::new(depth, self.stat, self.state, digests, self.stars, images)
    }
}

/// A repo whose RepoMeta could be decoded.
struct Judged<'a> {
    look: &'a Look<'a>,
    listed: &'a [Listed],
    meta: &'a proto::RepoMeta,
}

impl Judged<'_> {
    /// Judge by records alone. `false`: something is suspicious.
    fn by_records(&self, seen: &mut Seen) -> Result<bool, VerifyError> {
        let mut images = Images::new(self.look.verify.db, &seen.digests);
        let Some(entries) = self.recorded_entries(&mut images)? else { return Ok(false) };
        let findings = self.compare(entries, false, &BTreeSet::new());
        if !findings.is_empty() || self.suspicious_push_times() {
            return Ok(false);
        }
        seen.memory = Some(self.look.remember(Depth::Records, &seen.digests, &images.checksums()?));
        Ok(true)
    }

    /// The index's images as their records have them; `None` if one is not recorded, or not as expected.
    fn recorded_entries(&self, images: &mut Images<'_>) -> Result<Option<RepoEntries>, VerifyError> {
        let signatures = quick::signature_digests(self.meta);
        let mut entries = RepoEntries {
            tags: self.listed.iter().map(|found| found.tag.clone()).filter(|tag| !tag.is_empty()).collect(),
            ..RepoEntries::default()
        };
        let suspicious = AtomicBool::new(false);
        let batch = |listed: &&[Listed]| -> Result<Option<(Vec<Entry>, Sums)>, MetaDbError> {
            if suspicious.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let (records, sums) = images.read(&listed.iter().map(|found| found.digest.as_str()).collect::<Vec<_>>())?;
            let mut entries = Vec::new();
            for found in listed.iter().filter(|found| found.usable()) {
                let counted = self.meta.statistics.contains_key(&found.digest);
                let cosign = crate::records::signature::is_cosign_tag(&found.tag, false);
                if signatures.contains(found.digest.as_str()) && (!counted || cosign) {
                    continue;
                }
                let record = records.get(found.digest.as_str()).and_then(Option::as_deref);
                let Some(entry) = record.and_then(|record| recorded_entry(found, record)) else {
                    suspicious.store(true, Ordering::Relaxed);
                    return Ok(None);
                };
                entries.push(entry);
            }
            Ok(Some((entries, sums)))
        };
        let batches: Vec<&[Listed]> = self.listed.chunks(BATCH).collect();
        let jobs = jobs_for(batches.len(), 1, self.look.verify.jobs);
        for read in parallel(&batches, jobs, batch) {
            let Some((batch, sums)) = read? else { return Ok(None) };
            entries.entries.extend(batch);
            images.note(sums);
        }
        Ok(Some(entries))
    }

    /// A few blobs of a cluster are enough to see whether it is one.
    fn suspicious_push_times(&self) -> bool {
        const SAMPLE: usize = 10;
        let listed: BTreeSet<&str> = self.listed.iter().map(|found| found.digest.as_str()).collect();
        let mut cluster = push_times::cluster(self.meta);
        cluster.retain(|digest| listed.contains(digest));
        cluster.truncate(SAMPLE);
        let blobs = self.look.verify.stores.read_blobs(self.look.repo, &cluster);
        let written = cluster.iter().zip(blobs).filter_map(|(digest, blob)| Some((*digest, blob.ok()?.mtime?.into())));
        push_times::late(self.meta, &written.collect()).len() * 2 > cluster.len()
    }

    fn with_storage(&self, seen: &mut Seen) -> Result<(), VerifyError> {
        let digests = std::mem::take(&mut seen.digests);
        let begin = || Ok(Images::new(self.look.verify.db, &digests));
        let see = |images: &mut Result<Images<'_>, MetaDbError>, digests: &[&str], entries: &mut [Entry], bad: &_| {
            if let Ok(open) = images
                && let Err(error) = open.judge(digests, entries, bad)
            {
                *images = Err(error);
            }
            forget_records(entries);
        };
        let (storage, images) = self.look.read(self.listed, &Ahead { begin: &begin, see: &see })?;
        let (mut images, entries, bad) = (images?, storage.read.entries, storage.bad);
        seen.manifests = storage.read.manifests;
        seen.bytes = storage.read.bytes;
        seen.findings.extend(storage.problems);
        // Those that were not seen ahead.
        images.judge(&[], &entries.entries, &bad)?;
        seen.findings.append(&mut images.findings);
        let checksums = images.checksums()?;
        let pushed = entries.entries.iter().filter_map(Entry::image);
        let pushed = pushed.filter_map(|image| Some((image.digest.as_str(), image.pushed?)));
        seen.findings.extend(push_times::check(self.meta, &pushed.collect()));
        seen.findings.extend(self.compare(entries, true, &bad));
        seen.memory = Some(self.look.remember(Depth::Deep, &digests, &checksums));
        seen.digests = digests;
        Ok(())
    }

    /// Everything but the image records.
    fn compare(&self, mut entries: RepoEntries, from_storage: bool, bad: &BTreeSet<String>) -> Vec<Finding> {
        let Look { verify, repo, state, stars, .. } = *self.look;
        let (meta, listed, rules) = (self.meta, self.listed, verify.rules);
        let mut findings = Vec::new();
        let records = Records { repo, state, meta, listed, entries: &entries, from_storage, bad, rules };
        findings.extend(records.tags());
        findings.extend(records.signature_records());
        findings.extend(records.referrers());
        findings.extend(state.meta.as_deref().and_then(|bytes| unknown(Record::RepoMeta, "RepoMeta", bytes)));
        findings.extend(state.blobs.as_deref().and_then(|bytes| unknown(Record::RepoBlobs, "RepoBlobs", bytes)));
        if let Some(stars) = stars.filter(|stars| *stars != meta.stars) {
            findings.push(Finding::new(Id::StarsDiffer).expected(stars.to_string()).found(meta.stars.to_string()));
        }
        match state.blobs.as_deref().map_or(Ok(Blobs::default()), Blobs::recorded) {
            Err(Malformed) => {
                let finding = Finding::new(Id::RecordUndecodable).reference("RepoBlobs");
                findings.push(finding.found("RepoBlobs cannot be decoded"));
            }
            Ok(blobs) => {
                // Images that were not read as they should be say nothing about sums.
                entries.entries.retain(|entry| entry.image().is_none_or(|image| !lost(image, bad)));
                let unsure = !bad.is_empty() || entries.partial;
                let (blobs, entries) = (&blobs, &entries);
                findings.extend(Aggregates { repo, state, meta, blobs, entries, rules, unsure }.check());
            }
        }
        findings
    }
}

/// Every image has lists of signatures and referrers, which are mostly empty and say nothing.
fn without_placeholders(mut meta: proto::RepoMeta) -> proto::RepoMeta {
    meta.signatures.retain(|_, found| found.map.values().any(|list| !list.list.is_empty()));
    meta.referrers.retain(|_, found| !found.list.is_empty());
    meta
}

/// What `record` says of the image that is listed; `None` if it is not one of it, or has more than this version knows.
fn recorded_entry(found: &Listed, record: &[u8]) -> Option<Entry> {
    let decoded = proto::ImageMeta::decode(record).ok()?;
    let entry = compare::entry(found.reference(), &found.digest, &decoded)?;
    let as_listed = source::is_index(&found.media_type) == (entry.media_type == crate::oci::INDEX);
    let known = unknown(Record::ImageMeta, "ImageMeta", record).is_none();
    (as_listed && known).then(|| Entry::Image(Box::new(entry)))
}

/// What was compared, or will not be, need not stay in memory.
fn forget_records(entries: &mut [Entry]) {
    entries.iter_mut().for_each(|entry| drop(entry.take_meta()));
}
