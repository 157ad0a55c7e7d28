//! Which repos need no second look: those whose index and records are what they were when they were verified.
//!
//! The metaDB's generation answers for all records at once. Where it moved on (a running zot), records are hashed: image
//! records in one pass over all of them if many repos are asked about.

use super::reached::{self, Reached};
use super::{Depth, REMEMBER_BATCH, Report, Verify, VerifyError, lock, note};
use crate::metadb::MetaDbError;
use crate::state::{RepoMemory, ShortHash, State, images_hash, records_hash, short_hash};
use crate::storage::ImageStore as _;
use crate::walk::parallel;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;

/// So many repos make one pass over all image records cheaper than asking for those of each.
const MANY: usize = 16;

/// What earlier runs remember, against what there is now.
pub struct Recall<'a> {
    /// The run.
    pub verify: &'a Verify<'a>,
    /// How many users starred each repo.
    pub stars: Option<&'a HashMap<String, i32>>,
    /// The metaDB's generation before anything of it was read.
    pub generation: Option<ShortHash>,
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

/// Hashes of all image records, by the key of their digest.
type Images = HashMap<u128, ShortHash>;

impl Recall<'_> {
    /// The repos that changed since they were verified, and the sample of the others.
    ///
    /// # Errors
    /// If the metaDB does not answer, or when asked to stop.
    pub fn due<'n>(&self, names: &[&'n str], report: &mut Report) -> Result<Vec<&'n str>, VerifyError> {
        let verify = self.verify;
        let Some(state) = verify.state.filter(|_| !verify.full) else { return Ok(names.to_vec()) };
        let (mut due, mut ask, mut unchanged) = (Vec::new(), Vec::new(), Vec::new());
        let order = RandomState::new();
        for (name, first) in names.iter().zip(parallel(names, verify.jobs, |name| self.first(state, name))) {
            match first {
                First::Changed => due.push(*name),
                First::Unchanged(at) => unchanged.push((at, order.hash_one(name), *name)),
                First::Ask => ask.push(*name),
            }
        }
        let images = if ask.len() > MANY && verify.depth > Depth::Quick { self.images()? } else { None };
        if let (Some(images), Some(reached)) = (&images, &mut *lock(self.reached)) {
            reached.recorded = Some(images.keys().copied().collect());
        }
        for batch in ask.chunks(REMEMBER_BATCH) {
            let answers = parallel(batch, verify.jobs, |name| self.ask(state, name, images.as_ref()));
            let mut memories = Vec::new();
            for (name, answer) in batch.iter().zip(answers) {
                match answer? {
                    None => due.push(*name),
                    Some(memory) => {
                        unchanged.push((memory.verified_at, order.hash_one(name), *name));
                        memories.push(((*name).to_owned(), Some(memory)));
                    }
                }
            }
            if self.generation.is_some() && !memories.is_empty() {
                note(report, state.update(&memories, false));
            }
        }
        // Those verified longest ago, in random order: a share of P % covers everything in 100 / P runs.
        unchanged.sort_unstable();
        let size = sample_size(unchanged.len(), verify.sample);
        let (sample, rest) = unchanged.split_at_checked(size).unwrap_or((&unchanged, &[]));
        due.extend(sample.iter().map(|(_, _, name)| *name));
        rest.iter().for_each(|_| verify.progress.repo_done(0, 0));
        Ok(due)
    }

    fn first(&self, state: &State, name: &str) -> First {
        let Some(memory) = state.repo(name) else { return First::Changed };
        let stat = self.verify.stores.stat_index(name).ok();
        if memory.depth < self.verify.depth || stat.as_ref() != Some(&memory.index) {
            return First::Changed;
        }
        if self.generation.is_none() || memory.generation != self.generation {
            return First::Ask;
        }
        self.reach(&memory);
        First::Unchanged(memory.verified_at)
    }

    fn reach(&self, memory: &RepoMemory) {
        if let Some(reached) = &mut *lock(self.reached) {
            reached.extend(&memory.digests);
        }
    }

    /// Hashes of all image records in one pass, if the driver can.
    fn images(&self) -> Result<Option<Images>, VerifyError> {
        let mut images = Images::new();
        let pass = self.verify.db.each_image(&mut |digest, record| {
            images.insert(reached::key(digest), short_hash(record));
        });
        match pass {
            Ok(offered) => Ok(offered.then_some(images)),
            // One bad page, or a writer that is always faster: then each repo for itself.
            Err(MetaDbError::Damaged { .. } | MetaDbError::Busy { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Compare a repo's records with what is remembered of them. `None`: they changed, or cannot be read, which is for the
    /// check to report.
    fn ask(&self, state: &State, name: &str, images: Option<&Images>) -> Result<Option<RepoMemory>, VerifyError> {
        if self.verify.cancel.is_cancelled() {
            return Err(VerifyError::Cancelled);
        }
        let Some(mut memory) = state.repo(name) else { return Ok(None) };
        match self.verify.db.repo(name) {
            Ok(records) if records_hash(&records) == memory.records_hash => {}
            Ok(_) | Err(MetaDbError::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if self.verify.depth > Depth::Quick {
            let stars = self.stars.map(|stars| stars.get(name).copied().unwrap_or_default());
            let hash = match images {
                Some(images) => {
                    let of = |digest: &String| images.get(&reached::key(digest)).copied();
                    images_hash(stars, memory.digests.iter().map(of))
                }
                None => {
                    let digests: Vec<&str> = memory.digests.iter().map(String::as_str).collect();
                    match self.verify.db.images(&digests) {
                        Ok(images) => images_hash(stars, images.iter().map(|image| image.as_deref().map(short_hash))),
                        Err(MetaDbError::Damaged { .. }) => return Ok(None),
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            if hash != memory.images_hash {
                return Ok(None);
            }
            // A quick look says nothing of image records, so it does not vouch for them under the new generation either.
            memory.generation = self.generation;
        }
        self.reach(&memory);
        Ok(Some(memory))
    }
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
