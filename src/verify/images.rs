//! A repo's image records, a batch at a time: asked for, judged, and dropped but for their checksums. Those of a repo of fifty
//! thousand tags take half a gigabyte.

use super::compare;
use super::findings::{Finding, Id};
use super::records::unknown;
use crate::checksum::{Checksum, checksum};
use crate::metadb::{MetaDb, MetaDbError};
use crate::records::fold::Entry;
use crate::records::image::ImageEntry;
use crate::records::proto;
use crate::records::signature::COSIGN_KEY;
use crate::records::wire::Record;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

/// How many records are asked for at a time.
pub const BATCH: usize = 256;

/// Records by digest; `None`: there is none.
type Records<'d> = BTreeMap<&'d str, Option<Vec<u8>>>;
/// Places of digests, and the checksums of their records.
pub type Sums = Vec<(usize, Option<Checksum>)>;

/// The image records of one repo.
pub struct Images<'a> {
    db: &'a dyn MetaDb,
    /// Every digest that the repo lists or its tags name, sorted.
    digests: &'a [String],
    /// Of each of them: the checksum of its record, once that was asked for.
    checksums: Vec<Option<Option<Checksum>>>,
    judged: BTreeSet<usize>,
    /// What is wrong with those that were judged.
    pub findings: Vec<Finding>,
}

impl<'a> Images<'a> {
    /// Nothing asked for yet.
    #[must_use]
    pub fn new(db: &'a dyn MetaDb, digests: &'a [String]) -> Self {
        let checksums = vec![None; digests.len()];
        Self { db, digests, checksums, judged: BTreeSet::new(), findings: Vec::new() }
    }

    fn place(&self, digest: &str) -> Option<usize> {
        self.digests.binary_search_by(|known| known.as_str().cmp(digest)).ok()
    }

    /// The records of `digests`, each once, and what [`Images::note`] wants to know of them.
    ///
    /// # Errors
    /// If the metaDB cannot be asked any more.
    pub fn read<'d>(&self, digests: &[&'d str]) -> Result<(Records<'d>, Sums), MetaDbError> {
        let digests: Vec<&str> = digests.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let records = match self.db.images(&digests) {
            Ok(records) => records,
            // One bad page must not hide what the others say.
            Err(MetaDbError::Damaged { .. }) => {
                let one = |digest: &&str| match self.db.images(&[digest]) {
                    Ok(mut records) => records.pop().flatten(),
                    // No protobuf message: it is reported as a record that cannot be decoded.
                    Err(_) => Some(vec![0xff]),
                };
                digests.iter().map(one).collect()
            }
            Err(error) => return Err(error),
        };
        let sum =
            |(digest, record): (&&str, &Option<Vec<u8>>)| Some((self.place(digest)?, record.as_deref().map(checksum)));
        let sums = digests.iter().zip(&records).filter_map(sum).collect();
        Ok((digests.into_iter().zip(records).collect(), sums))
    }

    /// Keep the checksums of records that were read.
    pub fn note(&mut self, sums: Sums) {
        for (place, sum) in sums {
            if let Some(slot) = self.checksums.get_mut(place) {
                *slot = Some(sum);
            }
        }
    }

    /// As [`Images::read`], noted.
    fn fetch<'d>(&mut self, digests: &[&'d str]) -> Result<Records<'d>, MetaDbError> {
        let (records, sums) = self.read(digests)?;
        self.note(sums);
        Ok(records)
    }

    /// Compare the records of images with what storage says, unless that was done before. `digests`: what else is listed
    /// with them, to be asked for in one go. `bad`: documents that could not be used.
    ///
    /// # Errors
    /// As [`Images::read`].
    pub fn judge(&mut self, digests: &[&str], entries: &[Entry], bad: &BTreeSet<String>) -> Result<(), MetaDbError> {
        // Of a digest that is listed several times, under whatever media types, the last one is what is recorded.
        let images = || entries.iter().filter_map(Entry::image);
        let last: BTreeMap<&str, &ImageEntry> = images().map(|image| (image.digest.as_str(), image)).collect();
        let mut firsts = Vec::new();
        for image in images() {
            if self.place(&image.digest).is_some_and(|at| self.judged.insert(at)) {
                firsts.push(image);
            }
        }
        let mut digests = digests;
        while !firsts.is_empty() || !digests.is_empty() {
            let (some, more) = digests.split_at(digests.len().min(BATCH));
            digests = more;
            let here: Vec<&ImageEntry> = firsts.drain(..firsts.len().min(BATCH)).collect();
            let wanted: Vec<&str> =
                some.iter().copied().chain(here.iter().map(|image| image.digest.as_str())).collect();
            let records = self.fetch(&wanted)?;
            for first in here {
                let image = last.get(first.digest.as_str()).copied().unwrap_or(first);
                let tag = if first.is_tag { first.reference.as_str() } else { "" };
                let record = records.get(first.digest.as_str()).and_then(Option::as_deref);
                self.findings.extend(differences(tag, image, record, lost(image, bad)));
            }
        }
        Ok(())
    }

    /// Checksums in the order of the digests; asks for those of records that nobody wanted.
    ///
    /// # Errors
    /// As [`Images::read`].
    pub fn checksums(mut self) -> Result<Vec<Option<Checksum>>, MetaDbError> {
        let unknown = self.digests.iter().zip(&self.checksums).filter(|(_, sum)| sum.is_none());
        let unknown: Vec<&str> = unknown.map(|(digest, _)| digest.as_str()).collect();
        for some in unknown.chunks(BATCH) {
            self.fetch(some)?;
        }
        Ok(self.checksums.into_iter().map(Option::flatten).collect())
    }
}

/// What is wrong with the record of an image. `lost`: its documents could not be used, so that its content is not judged.
fn differences(tag: &str, image: &ImageEntry, record: Option<&[u8]>, lost: bool) -> Vec<Finding> {
    let Some(found) = record else {
        if tag.is_empty() && was_signature(image) {
            return Vec::new();
        }
        return vec![Finding::new(Id::ImageMissing).reference(tag).digest(&image.digest)];
    };
    if *found == image.meta {
        return Vec::new();
    }
    if proto::ImageMeta::decode(found).is_err() {
        return vec![Finding::undecodable_image(&image.digest)];
    }
    let mut findings: Vec<Finding> =
        unknown(Record::ImageMeta, "ImageMeta", found).map(|one| one.digest(&image.digest)).into_iter().collect();
    if !lost && let Ok(Some((part, expected, found))) = compare::difference(&image.meta, found) {
        let finding = Finding::new(Id::ImageDiffers).reference(tag).digest(&image.digest);
        findings.push(finding.expected(format!("{part}: {expected}")).found(format!("{part}: {found}")));
    }
    findings
}

/// A cosign signature is one by its tag alone. When the tag is deleted, zot forgets the signature; its manifest stays in the
/// index, and only the next walk takes it for an image.
fn was_signature(image: &ImageEntry) -> bool {
    let Ok(record) = proto::ImageMeta::decode(image.meta.as_slice()) else { return false };
    let Some(manifest) = record.manifests.first().and_then(|one| one.manifest.as_ref()) else { return false };
    let signs = |layer: &proto::Descriptor| layer.annotations.contains_key(COSIGN_KEY);
    manifest.subject.is_none() && !manifest.layers.is_empty() && manifest.layers.iter().all(signs)
}

/// Whether the image or its config could not be used.
#[must_use]
pub fn lost(image: &ImageEntry, bad: &BTreeSet<String>) -> bool {
    image.content.blobs().next().is_some_and(|(config, _)| bad.contains(config)) || bad.contains(&image.digest)
}
