//! Which repos need no second look: those whose index and records are what they were when they were verified.
//!
//! The metaDB's generation answers for all records at once. Where it moved on (a running zot), checksums of the records
//! do: of all of them, in one pass, if many repos are asked about.

use super::reached::Reached;
use super::{Depth, Verify, VerifyError, lock};
use crate::checksum::{Checksum, checksum, of_all};
use crate::metadb::{Checksums, Kind, MetaDbError, ShortKey};
use crate::parallel::parallel;
use crate::state::{RepoMemory, State, images_checksum, records_checksum, short};
use crate::storage::ImageStore as _;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;

/// So many repos make one pass over all records cheaper than asking for those of each.
const MANY: usize = 16;
/// Kinds of records that are a repo's own, in the order of their common checksum.
const OWN: [Kind; 3] = [Kind::RepoMeta, Kind::RepoBlobs, Kind::RepoLastUpdated];

/// What earlier runs remember, against what there is now.
pub struct Recall<'a> {
    /// The run.
    pub verify: &'a Verify<'a>,
    /// How many users starred each repo.
    pub stars: Option<&'a HashMap<String, i32>>,
    /// The metaDB's generation before anything of it was read.
    pub generation: Option<Checksum>,
    /// Digests of unchanged repos go here.
    pub reached: &'a Mutex<Option<Reached>>,
}

/// What is known of a repo without asking for its records.
enum First {
    /// Nothing, or its index changed.
    Changed,
    /// Nothing changed since then.
    Unchanged(i64),
    /// Its index did not change; its records may have.
    Ask,
}

/// Checksums of all records of one kind, by key.
struct Sums(Checksums);

impl Sums {
    fn get(&self, key: u128) -> Option<Checksum> {
        let at = self.0.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.0.get(at).map(|(_, sum)| *sum)
    }
}

/// Checksums of all records.
struct All {
    /// As [`OWN`].
    own: Vec<Sums>,
    /// Not at the shallowest depth, which does not ask for them.
    images: Option<Sums>,
}

impl Recall<'_> {
    /// The repos that changed since they were verified, and the sample of the others.
    ///
    /// # Errors
    /// If the metaDB does not answer, or when asked to stop.
    pub fn due<'n>(&self, names: &[&'n str]) -> Result<Vec<&'n str>, VerifyError> {
        let verify = self.verify;
        let Some(state) = verify.state.filter(|_| !verify.full) else { return Ok(names.to_vec()) };
        let (mut due, mut ask, mut unchanged) = (Vec::new(), Vec::new(), Vec::new());
        let order = RandomState::new();
        let same = self.generation.is_some() && state.generation() == self.generation;
        for (name, first) in
            names.iter().zip(parallel(names, verify.stores.readers(verify.jobs), |name| self.first(state, name, same)))
        {
            match first {
                First::Changed => due.push(*name),
                First::Unchanged(at) => unchanged.push((at, order.hash_one(name), *name)),
                First::Ask => ask.push(*name),
            }
        }
        let all = if ask.len() > MANY { self.all()? } else { None };
        for (name, answer) in ask.iter().zip(parallel(&ask, verify.jobs, |name| self.ask(state, name, all.as_ref()))) {
            match answer? {
                None => due.push(*name),
                Some(at) => unchanged.push((at, order.hash_one(name), *name)),
            }
        }
        if let (Some(images), Some(reached)) = (all.and_then(|all| all.images), &mut *lock(self.reached)) {
            reached.recorded = Some(images.0.into_iter().map(|(key, _)| key).collect());
        }
        // Those verified longest ago, in random order: a share of P % covers everything in 100 / P runs.
        unchanged.sort_unstable();
        let size = sample_size(unchanged.len(), verify.sample);
        let (sample, rest) = unchanged.split_at_checked(size).unwrap_or((&unchanged, &[]));
        due.extend(sample.iter().map(|(_, _, name)| *name));
        rest.iter().for_each(|_| verify.progress.repo_done());
        Ok(due)
    }

    /// `same`: all that is remembered of records holds.
    fn first(&self, state: &State, name: &str, same: bool) -> First {
        let Some(memory) = state.repo(name) else { return First::Changed };
        let stat = self.verify.stores.stat_index(name).ok();
        if memory.depth < self.verify.depth || stat.as_ref() != Some(&memory.index) {
            return First::Changed;
        }
        if !same {
            return First::Ask;
        }
        self.reach(&memory);
        First::Unchanged(memory.verified_at)
    }

    fn reach(&self, memory: &RepoMemory) {
        if let Some(reached) = &mut *lock(self.reached) {
            reached.extend_packed(&memory.digests);
        }
    }

    /// Checksums of all records, if the driver gives them in one pass.
    fn all(&self) -> Result<Option<All>, VerifyError> {
        let mut own = Vec::new();
        for kind in OWN {
            let Some(sums) = self.sums(kind, short_name)? else { return Ok(None) };
            own.push(sums);
        }
        let images = if self.verify.depth > Depth::Quick { self.sums(Kind::ImageMeta, short)? } else { None };
        Ok(Some(All { own, images }))
    }

    fn sums(&self, kind: Kind, short: ShortKey) -> Result<Option<Sums>, VerifyError> {
        match self.verify.db.checksums(kind, short, self.verify.jobs) {
            Ok(sums) => Ok(sums.map(|mut sums| {
                sums.sort_unstable();
                Sums(sums)
            })),
            // One bad page, or a writer that is always faster: then each repo for itself.
            Err(MetaDbError::Damaged { .. } | MetaDbError::Busy { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Compare a repo's records with what is remembered of them, and tell when it was verified. `None`: they changed, or
    /// cannot be read, which is for the check to report.
    fn ask(&self, state: &State, name: &str, all: Option<&All>) -> Result<Option<i64>, VerifyError> {
        let Verify { db, depth, cancel, .. } = *self.verify;
        if cancel.is_cancelled() {
            return Err(VerifyError::Cancelled);
        }
        let Some(memory) = state.repo(name) else { return Ok(None) };
        let records = match all {
            Some(all) => of_all(all.own.iter().map(|sums| sums.get(short_name(name)))),
            None => match db.repo(name) {
                Ok(records) => records_checksum(&records),
                Err(MetaDbError::Damaged { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        if records != memory.records {
            return Ok(None);
        }
        if depth > Depth::Quick {
            let stars = self.stars.map(|stars| stars.get(name).copied().unwrap_or_default());
            let images = match all.and_then(|all| all.images.as_ref()) {
                Some(images) => images_checksum(stars, memory.digests.shorts().map(|digest| images.get(digest))),
                None => {
                    let texts = memory.digests.texts();
                    match db.images(&texts.iter().map(String::as_str).collect::<Vec<_>>()) {
                        Ok(images) => images_checksum(stars, images.iter().map(|image| image.as_deref().map(checksum))),
                        Err(MetaDbError::Damaged { .. }) => return Ok(None),
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            if images != memory.images {
                return Ok(None);
            }
        }
        self.reach(&memory);
        Ok(Some(memory.verified_at))
    }
}

/// 16 bytes that stand for a repo's name.
fn short_name(name: &str) -> u128 {
    checksum(name.as_bytes())
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "repo counts are far below 2^52"
)]
fn sample_size(unchanged: usize, percent: Option<f64>) -> usize {
    (unchanged as f64 * percent.unwrap_or_default() / 100.0).ceil() as usize
}
