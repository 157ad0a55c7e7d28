//! The walk: bring the metaDB up to what storage holds, then stamp it (spec: "Walk algorithm").
//!
//! ```text
//! plan ─► clear stamp ─► delete gone ─► readers (threads) ─► bounded memory ─► one writer ─► recheck ─► stamp
//! ```
//!
//! Invariants: the stamp is cleared before the first write and written after the last commit, only if every repo is
//! complete and storage did not change meanwhile; a repo's records are built in memory and committed whole, after those
//! of its images; a failed or partial repo is left due for the next walk.

pub(crate) mod memory;
pub mod plan;
pub mod read;
mod readers;
mod report;
mod settled;
mod work;

pub use report::{Problem, StampOutcome, WalkReport};

use crate::cancel::Cancel;
use crate::error::chain;
use crate::metadb::{MetaDbError, MetaDbWriter, Outcome, Refusal, RepoWork};
use crate::oci::{self, json, time::Time};
use crate::parallel::parallel;
use crate::progress::{Phase, Progress};
use crate::records::fold::Rules;
use crate::records::proto;
use crate::storage::routing::Stores;
use crate::storage::{ImageStore as _, IndexStat, StorageError};
use memory::Memory;
use plan::{Plan, Scope, Todo};
use prost::Message as _;
use read::RepoRead;
use readers::Readers;
use settled::write;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use work::{Ahead, Due, Gone, Item, Look, Ready};

/// Bytes in flight between storage and metaDB, except that one repo may be larger than that alone: room to read on while a
/// batch is committed.
const MEMORY: usize = 96 << 20;
/// Parsed repos wait at most this long for their commit, so that a slow walk loses little when it is killed.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// How often repos that changed while they were read are read again.
const ROUNDS: usize = 3;

/// Why a walk could not begin, or broke off.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// Storage cannot be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The metaDB cannot be read or written.
    #[error(transparent)]
    MetaDb(#[from] MetaDbError),
    /// Only some repos were asked for, and neither storage nor the metaDB has one of them: a mistake rather than a result.
    #[error("no repo matches")]
    NoRepo,
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// A walk, ready to run.
pub struct Walk<'a> {
    /// Where the images are.
    pub stores: &'a Stores,
    /// Which repos.
    pub scope: &'a Scope,
    /// Differences between releases and drivers.
    pub rules: Rules,
    /// Threads that read and decode, at most; how many repos are read at once is for the stores to say.
    pub jobs: usize,
    /// Whether image records that no repo reaches are removed.
    pub prune: bool,
    /// The stamp to write after a complete walk, or why none will be.
    pub stamp: Result<&'a str, &'a str>,
    /// To be told.
    pub progress: &'a dyn Progress,
    /// To be asked.
    pub cancel: &'a Cancel,
}

impl Walk<'_> {
    /// Carry out `plan`. What happened is in the report, even when the walk broke off midway.
    ///
    /// # Errors
    /// Only if nothing was changed.
    pub fn run(&self, writer: &mut dyn MetaDbWriter, plan: Plan) -> Result<WalkReport, WalkError> {
        let started = Instant::now();
        let previous = writer.reader().stamp()?;
        let mut run = Run {
            walk: self,
            report: WalkReport {
                listed: plan.listed,
                parsed: 0,
                new: plan.new_repos().len(),
                unchanged: plan.unchanged.len(),
                deleted: Vec::new(),
                partial: Vec::new(),
                failed: Vec::new(),
                moving: Vec::new(),
                pruned: 0,
                manifests: 0,
                bytes: 0,
                stamp: StampOutcome::Untouched("nothing was written".into()),
                broken_off: None,
                elapsed: Duration::ZERO,
            },
            seen: plan.unchanged.iter().cloned().collect(),
            failed: BTreeMap::new(),
            partial: BTreeMap::new(),
            refused: BTreeMap::new(),
            returned: BTreeSet::new(),
            moved: BTreeSet::new(),
        };
        let nothing_due = plan.due.is_empty() && plan.gone.is_empty() && plan.unreadable.is_empty();
        let writes = !nothing_due || self.prune;
        let mut stored = previous.clone();
        if writes && previous.is_some() {
            writer.set_stamp(previous.as_deref(), None)?;
            stored = None;
        }
        let outcome = run.records(writer, plan);
        let mut report = run.finish();
        if let Err(error) = outcome {
            report.broken_off = Some(chain(&error));
        }
        report.stamp =
            self.settle_stamp(writer, &report, previous.as_deref(), stored.as_deref()).unwrap_or_else(|error| {
                let reason = chain(&error);
                report.broken_off = Some(reason.clone());
                StampOutcome::Absent(reason)
            });
        report.elapsed = started.elapsed();
        Ok(report)
    }

    /// The last step: `stored` is the stamp as it is now, `previous` as it was before the walk.
    ///
    /// # Errors
    /// If a stamp is due and cannot be written. One that somebody else wrote meanwhile is no error: it stays.
    fn settle_stamp(
        &self,
        writer: &mut dyn MetaDbWriter,
        report: &WalkReport,
        previous: Option<&[u8]>,
        stored: Option<&[u8]>,
    ) -> Result<StampOutcome, MetaDbError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let without = |reason: String| match stored {
            Some(_) => StampOutcome::Untouched(reason),
            None => StampOutcome::Absent(reason),
        };
        if !report.complete() {
            return Ok(without("the walk is not complete".into()));
        }
        // A walk over some repos vouches for these only: it can keep a stamp, never give one.
        let (wanted, outcome): (&[u8], fn(String) -> StampOutcome) = match (&self.scope.repos, self.stamp, previous) {
            (Some(_), _, Some(previous)) => (previous, StampOutcome::Restored),
            (Some(_), _, None) => return Ok(without("only some repos were walked".into())),
            (None, Ok(stamp), _) => (stamp.as_bytes(), StampOutcome::Written),
            (None, Err(reason), _) => return Ok(without(reason.into())),
        };
        if stored == Some(wanted) {
            return Ok(StampOutcome::Current(text(wanted)));
        }
        match writer.set_stamp(stored, Some(wanted)) {
            Ok(()) => Ok(outcome(text(wanted))),
            Err(error @ MetaDbError::StampChanged { .. }) => Ok(without(chain(&error))),
            Err(error) => Err(error),
        }
    }
}

/// One execution of a walk.
struct Run<'a> {
    walk: &'a Walk<'a>,
    report: WalkReport,
    /// Version of every index that the metaDB now reflects.
    seen: BTreeMap<String, IndexStat>,
    failed: BTreeMap<String, Problem>,
    partial: BTreeMap<String, Problem>,
    /// Why images of a huge repo cannot be written, and so it cannot either.
    refused: BTreeMap<String, String>,
    /// Repos that storage did not list, and yet their index was new.
    returned: BTreeSet<String>,
    /// Repos that changed after they were read: their records are the old ones.
    moved: BTreeSet<String>,
}

impl Run<'_> {
    fn finish(mut self) -> WalkReport {
        self.report.failed = self.failed.into_values().collect();
        self.report.partial = self.partial.into_values().collect();
        self.report
    }

    /// Everything but the stamp.
    fn records(&mut self, writer: &mut dyn MetaDbWriter, plan: Plan) -> Result<(), WalkError> {
        let walk = self.walk;
        self.delete(writer, &plan.gone, plan.at, |_| None)?;
        let unreadable: Vec<Due<'_>> = plan.unreadable.iter().map(|problem| Due(&problem.repo)).collect();
        writer.write(&unreadable.iter().map(|due| due as &dyn RepoWork).collect::<Vec<_>>())?;
        self.failed.extend(plan.unreadable.iter().map(|problem| (problem.repo.clone(), problem.clone())));

        let mut due = plan.due;
        let mut pruned = !walk.prune;
        for _ in 0..ROUNDS {
            self.round(writer, &due)?;
            due = self.recheck(writer)?;
            if due.is_empty() && !std::mem::replace(&mut pruned, true) {
                self.prune(writer)?;
                // A push of what was just removed makes its repo due.
                due = self.recheck(writer)?;
            }
            if due.is_empty() {
                break;
            }
        }
        self.report.moving = due.into_iter().map(|todo| todo.repo).collect();
        Ok(())
    }

    /// Delete what storage no longer has, as listed at `at`; `known` tells what an index was by then.
    fn delete(
        &mut self,
        writer: &mut dyn MetaDbWriter,
        gone: &[String],
        at: Option<Time>,
        known: impl Fn(&str) -> Option<IndexStat>,
    ) -> Result<(), WalkError> {
        let (listed_at, stores) = (at.unwrap_or(Time::ZERO), self.walk.stores);
        let gone_at = |repo| Gone { repo, look: Look::new(repo, stores), listed_at, known: known(repo) };
        let work: Vec<Gone<'_>> = gone.iter().map(|repo| gone_at(repo)).collect();
        let (outcomes, done) = write(writer, &work.iter().map(|gone| gone as &dyn RepoWork).collect::<Vec<_>>());
        for (repo, outcome) in gone.iter().zip(outcomes) {
            match outcome {
                Some(Outcome::Done) => self.report.deleted.push(repo.clone()),
                // It seems to have come back: the recheck knows.
                Some(Outcome::Refused(_)) => drop(self.returned.insert(repo.clone())),
                None => {}
            }
        }
        Ok(done?)
    }

    /// Read and record `due`; readers in parallel, one writer.
    fn round(&mut self, writer: &mut dyn MetaDbWriter, due: &[Todo]) -> Result<(), WalkError> {
        let walk = self.walk;
        walk.progress.begin(Phase::Walk, due.len() as u64);
        let memory = Memory::new(MEMORY, walk.cancel);
        let readers = Readers::new(walk, due, &memory, writer.images_ahead());
        let result = std::thread::scope(|threads| {
            let (sender, receiver) = channel();
            for number in 0..readers.count() {
                let (sender, readers, counted) = (sender.clone(), &readers, memory.reader());
                threads.spawn(move || {
                    let _counted = counted;
                    readers.read(number, &sender);
                });
            }
            // Whatever ends the commits ends the readers.
            let _committing = memory.writer();
            self.commits(writer, &memory, &receiver)
        });
        walk.progress.end();
        result
    }

    /// Commit what the readers send until they are gone.
    fn commits<'i>(
        &mut self,
        writer: &mut dyn MetaDbWriter,
        memory: &Memory,
        ready: &Receiver<Ready<'i>>,
    ) -> Result<(), WalkError> {
        let enough = writer.batch_bytes();
        let mut last_commit = Instant::now();
        loop {
            let more = memory.wait(enough, last_commit + COMMIT_INTERVAL);
            let mut bytes = 0;
            let (mut images, mut repos) = (Vec::new(), Vec::new());
            while bytes < enough
                && let Ok(part) = ready.try_recv()
            {
                bytes += part.bytes();
                match part {
                    Ready::Images(ahead) => images.push(ahead),
                    Ready::Repo(item) => repos.push(*item),
                }
            }
            if images.is_empty() && repos.is_empty() && !more {
                return Ok(());
            }
            self.commit_images(writer, images)?;
            self.commit(writer, repos)?;
            last_commit = Instant::now();
        }
    }

    fn commit_images(&mut self, writer: &mut dyn MetaDbWriter, batch: Vec<Ahead<'_>>) -> Result<(), WalkError> {
        let work: Vec<&dyn RepoWork> = batch.iter().map(|ahead| ahead as &dyn RepoWork).collect();
        let (outcomes, done) = write(writer, &work);
        for (ahead, outcome) in batch.iter().zip(outcomes) {
            if let Some(Outcome::Refused(Refusal::Unusable(reason))) = outcome {
                self.refused.insert(ahead.repo.to_owned(), reason);
            }
        }
        Ok(done?)
    }

    fn commit(&mut self, writer: &mut dyn MetaDbWriter, mut batch: Vec<Item<'_>>) -> Result<(), WalkError> {
        // Where two repos make different records of one digest, the later in the listing has the last word, as in zot.
        batch.sort_by_key(|item| item.at);
        for item in &mut batch {
            item.refused = self.refused.remove(item.repo);
        }
        let work: Vec<&dyn RepoWork> = batch.iter().map(|item| item as &dyn RepoWork).collect();
        let (outcomes, done) = write(writer, &work);
        let mut refused = Vec::new();
        for (item, outcome) in batch.iter().zip(outcomes).filter_map(|(item, outcome)| Some((item, outcome?))) {
            match (&item.read, outcome) {
                (Ok(read), Outcome::Done) => self.recorded(item, read),
                (Err(error), _) => self.fail(item.repo, error.digest(), chain(error)),
                // The recheck looks at it, even if storage lists it no more.
                (Ok(_), Outcome::Refused(Refusal::Moved)) => drop(self.moved.insert(item.repo.to_owned())),
                (Ok(_), Outcome::Refused(Refusal::Unusable(reason))) => {
                    self.fail(item.repo, None, reason);
                    refused.push(Due(item.repo));
                }
            }
        }
        done?;
        Ok(write(writer, &refused.iter().map(|due| due as &dyn RepoWork).collect::<Vec<_>>()).1?)
    }

    fn recorded(&mut self, item: &Item<'_>, read: &RepoRead) {
        tracing::debug!("{}: recorded {} manifests, {} missing", item.repo, read.manifests, read.missing.len());
        let repo = item.repo.to_owned();
        self.report.parsed += usize::from(self.seen.insert(repo.clone(), read.index.clone()).is_none());
        self.report.manifests += read.manifests;
        self.report.bytes += read.bytes;
        self.failed.remove(&repo);
        match read.missing.split_first() {
            None => drop(self.partial.remove(&repo)),
            Some((digest, more)) => {
                let reason = match more.len() {
                    0 => "manifest blob is missing".to_owned(),
                    count => format!("manifest blob is missing, and {count} more"),
                };
                self.partial.insert(repo.clone(), Problem { repo, digest: Some(digest.clone()), reason });
            }
        }
    }

    fn fail(&mut self, repo: &str, digest: Option<&str>, reason: String) {
        tracing::debug!("{repo}: failed: {reason}");
        let problem = Problem { repo: repo.to_owned(), digest: digest.map(str::to_owned), reason };
        self.failed.insert(repo.to_owned(), problem);
    }

    /// Repos whose index is no longer the one that was recorded, and repos that appeared meanwhile. A repo that seemed to
    /// come back, and is not listed even now, goes: its index lies where zot finds no repo.
    fn recheck(&mut self, writer: &mut dyn MetaDbWriter) -> Result<Vec<Todo>, WalkError> {
        let walk = self.walk;
        let stopped = || if walk.cancel.is_cancelled() { Err(WalkError::Cancelled) } else { Ok(()) };
        stopped()?;
        let mut returned = std::mem::take(&mut self.returned);
        let known: BTreeMap<String, IndexStat> =
            returned.iter().filter_map(|repo| Some((repo.clone(), walk.stores.stat_index(repo).ok()?))).collect();
        let at = Time::from(walk.stores.in_store_time(jiff::Timestamp::now()));
        let listing = walk.stores.list(walk.cancel)?;
        returned.retain(|repo| !listing.repos.contains(repo));
        let gone: Vec<String> = returned.into_iter().collect();
        self.delete(writer, &gone, Some(at), |repo| known.get(repo).cloned())?;
        // Together with what was recorded, so that a repo that vanished meanwhile is noticed too.
        let names: BTreeSet<&str> = listing
            .repos
            .iter()
            .filter(|repo| walk.scope.contains(repo))
            .chain(self.seen.keys())
            .chain(&self.moved)
            .map(String::as_str)
            .filter(|repo| !self.failed.contains_key(*repo))
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        walk.progress.begin(Phase::Recheck, names.len() as u64);
        let moved = parallel(&names, walk.stores.useful(walk.stores.readers(walk.jobs)), |repo| {
            if walk.cancel.is_cancelled() {
                return false;
            }
            let now = walk.stores.stat_index(repo).ok();
            walk.progress.repo_done();
            // What was never recorded is due, even if it cannot be looked at.
            let seen = self.seen.get(*repo);
            seen.is_none() || now.as_ref() != seen
        });
        walk.progress.end();
        // Asked to stop means: no stamp, even if all was done by then.
        stopped()?;
        let moved = names.into_iter().zip(moved).filter(|(_, moved)| *moved).map(|(repo, _)| repo.to_owned());
        Ok(moved.chain(self.returned.iter().cloned()).map(|repo| Todo { repo, new: false }).collect())
    }

    /// Remove image records that neither an index nor a kept tag reaches.
    fn prune(&mut self, writer: &mut dyn MetaDbWriter) -> Result<(), WalkError> {
        if self.walk.scope.repos.is_some()
            || !(self.failed.is_empty() && self.partial.is_empty() && self.report.moving.is_empty())
        {
            return Ok(());
        }
        // Records first: whoever pushes beside the walk changes the index first.
        let mut orphans: HashSet<String> = HashSet::new();
        writer.reader().image_digests(&mut |digest| orphans.extend([digest.to_owned()]))?;
        let mut reached = 0;
        let mut reach = |digest: &str| reached += usize::from(orphans.remove(digest));
        let listed = self.walk.stores.list(self.walk.cancel)?.repos;
        for repo in listed.iter().chain(self.seen.keys()).collect::<BTreeSet<_>>() {
            let text = match self.walk.stores.read_index(repo) {
                // What it held matters no more, and the next look at storage finds out.
                Err(StorageError::NotFound { .. }) => continue,
                text => text?,
            };
            if let Ok(index) = json::document::<oci::Index>(&text) {
                index.manifests.into_vec().iter().for_each(|descriptor| reach(&descriptor.digest));
            }
            if let Some(meta) = writer.reader().repo(repo)?.meta
                && let Ok(meta) = proto::RepoMeta::decode(meta.as_slice())
            {
                meta.tags.values().for_each(|tag| reach(&tag.digest));
            }
        }
        let orphans: Vec<String> = orphans.into_iter().collect();
        tracing::debug!("{reached} image records are reached, {} are not", orphans.len());
        writer.delete_images(&orphans)?;
        self.report.pruned = orphans.len();
        Ok(())
    }
}
