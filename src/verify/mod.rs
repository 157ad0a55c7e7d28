//! Verify: every disagreement between storage and metaDB. Reads both, writes neither.
//!
//! ```text
//! listings ─► gone, unroutable, unlistable
//!          └► per repo: unchanged since it was verified? ─► index and records ─► (documents) ─► findings
//! users ─► stars      image records ─► orphans      stamp + findings ─► premature?
//! ```
//!
//! Invariants: nothing stops at a first error (what cannot be read is a finding); counts are exact; what zot's own walks
//! and pushes leave is never a finding; nothing is written but the state file, and that only says what was verified.

pub mod aggregates;
pub mod compare;
pub mod findings;
mod images;
pub mod push_times;
pub mod quick;
mod reached;
mod recall;
pub mod records;
mod repo;
pub mod source;
mod stamp;
mod users;

pub use findings::{Finding, Id, Severity};
pub use stamp::StampFacts;

use crate::cancel::Cancel;
use crate::checksum::{Checksum, checksum};
use crate::crew::Crew;
use crate::metadb::{MetaDb, MetaDbError, SCHEMA};
use crate::progress::{Phase, Progress};
use crate::records::fold::Rules;
use crate::state::{RepoMemory, State, StateError};
use crate::storage::routing::Stores;
use crate::storage::{ImageStore as _, StorageError};
use crate::walk::memory::Memory;
use globset::GlobSet;
use reached::Reached;
use recall::Recall;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Bytes of all repos that are looked at at once, except that one may be larger than that alone: two of twenty thousand tags.
const MEMORY: usize = 320 << 20;
/// Memories that are written together.
const REMEMBER_BATCH: usize = 512;

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Depth {
    /// Listings, times, tags and digests.
    Quick = 0,
    /// Every record, against the index and against each other.
    Records = 1,
    /// Every record, against what storage's documents make of it; digests checked.
    Deep = 2,
}

impl Depth {
    /// Stable word for machines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Records => "default",
            Self::Deep => "deep",
        }
    }

    /// From its number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Quick, Self::Records, Self::Deep].into_iter().find(|depth| *depth as u8 == number)
    }
}

/// Why nothing could be learned.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Storage cannot be listed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The metaDB cannot be read.
    #[error(transparent)]
    MetaDb(#[from] MetaDbError),
    /// Only some repos were asked for, and neither storage nor the metaDB has one of them: nothing is consistent then.
    #[error("no repo matches")]
    NoRepo,
    /// Asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// A verification, ready to run.
pub struct Verify<'a> {
    /// Where the images are.
    pub stores: &'a Stores,
    /// What is known of them.
    pub db: &'a dyn MetaDb,
    /// Only repos that match; `None` for all.
    pub repos: Option<&'a GlobSet>,
    /// How deep to look.
    pub depth: Depth,
    /// Differences between releases and drivers.
    pub rules: Rules,
    /// Threads.
    pub jobs: usize,
    /// What there is to say about the stamp.
    pub stamp: StampFacts<'a>,
    /// What earlier runs remember.
    pub state: Option<&'a State>,
    /// Whether what they remember is not believed (but still written).
    pub full: bool,
    /// Of the unchanged repos, the share in percent that is read all the same: those verified longest ago.
    pub sample: Option<f64>,
    /// To be told.
    pub progress: &'a dyn Progress,
    /// To be asked.
    pub cancel: &'a Cancel,
}

/// What a verification found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Everything, sorted by repo and id; what is about no repo comes first.
    pub findings: Vec<Finding>,
    /// Repos in scope that storage lists.
    pub listed: usize,
    /// Of these, repos that were looked at.
    pub checked: usize,
    /// Repos left alone because nothing changed since they were verified.
    pub unchanged: usize,
    /// Manifests and indexes read.
    pub manifests: u64,
    /// Bytes read from storage.
    pub bytes: u64,
    /// What went wrong with the state file.
    pub state_problem: Option<String>,
    /// Wall-clock time.
    pub elapsed: Duration,
}

impl Report {
    /// How often each id was found; ids that were not are not there.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Id, usize> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding.id).or_default() += 1;
        }
        counts
    }

    /// The gravest severity found.
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(Finding::severity).max()
    }

    /// How many findings are of this severity.
    #[must_use]
    pub fn of(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity() == severity).count()
    }
}

impl Verify<'_> {
    /// Look.
    ///
    /// # Errors
    /// If nothing can be learned: storage or metaDB cannot be listed, or the metaDB does not answer any more.
    pub fn run(&self) -> Result<Report, VerifyError> {
        let started = Instant::now();
        let mut report = Report::default();
        self.look(&mut report)?;
        if self.cancel.is_cancelled() {
            return Err(VerifyError::Cancelled);
        }
        report.findings.sort();
        report.elapsed = started.elapsed();
        Ok(report)
    }

    fn look(&self, report: &mut Report) -> Result<(), VerifyError> {
        let version = self.db.version()?;
        if version.as_deref() != Some(SCHEMA) {
            let found = version.unwrap_or_else(|| "none".into());
            report.findings.push(Finding::new(Id::VersionUnknown).expected(SCHEMA).found(found));
            return Ok(());
        }
        report.findings.extend(self.stamp.findings());
        // Each reads every directory of the store.
        let (listing, unlistable) = std::thread::scope(|threads| {
            let unlistable = threads.spawn(|| self.stores.list_unlistable(self.cancel));
            let listing = self.stores.list(self.cancel);
            (listing, unlistable.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let listing = match listing {
            Ok(listing) => listing,
            Err(StorageError::UnsupportedLayout { root, detail }) => {
                report.findings.push(Finding::new(Id::LayoutUnknown).reference(&root).found(detail));
                return Ok(());
            }
            Err(StorageError::Cancelled) => return Err(VerifyError::Cancelled),
            Err(error) => return Err(error.into()),
        };
        // Asked before any record is read, so that a later change has another one.
        let generation = self.db.generation()?.map(|generation| checksum(generation.as_bytes()));
        let known = self.db.repo_names()?;
        let elsewhere = self.elsewhere(&listing, &known, &unlistable?);
        if self.repos.is_some() && elsewhere.is_empty() && !listing.repos.iter().any(|name| self.concerns(name)) {
            return Err(VerifyError::NoRepo);
        }
        report.findings.extend(elsewhere);

        let stars = match self.depth {
            Depth::Quick => None,
            Depth::Records | Depth::Deep => {
                let (stars, findings) = users::stars(self.db)?;
                report.findings.extend(findings);
                Some(stars)
            }
        };
        let unroutable: HashSet<&str> = listing.misrouted.iter().map(|found| found.repo.as_str()).collect();
        let mut names: Vec<&str> =
            listing.repos.iter().map(String::as_str).filter(|name| self.concerns(name)).collect();
        names.sort_unstable();
        report.listed = names.len();
        names.retain(|name| !unroutable.contains(name));
        let reached = self.check(&names, stars.as_ref(), generation, report)?;
        if let Some(reached) = reached.filter(|_| unroutable.is_empty()) {
            self.orphans(&reached, &known, &names, generation, report)?;
        }
        self.forget(&names, report);
        self.vouch(generation, report);

        if let Some(finding) = self.stamp.premature(&report.findings) {
            report.findings.push(finding);
        }
        let forced = self.stamp_is_current();
        report
            .findings
            .iter_mut()
            .filter(|finding| finding.repair.is_none())
            .for_each(|finding| finding.settle_repair(forced));
        Ok(())
    }

    /// Whether `metactl walk` would find nothing to do.
    pub(crate) fn stamp_is_current(&self) -> bool {
        self.stamp.is_current()
    }

    fn concerns(&self, repo: &str) -> bool {
        self.repos.is_none_or(|globs| globs.is_match(repo))
    }

    /// Repos that are not where zot's walk looks.
    fn elsewhere(
        &self,
        listing: &crate::storage::routing::Listing,
        known: &[String],
        unlistable: &[String],
    ) -> Vec<Finding> {
        let listed: HashSet<&str> = listing.repos.iter().map(String::as_str).collect();
        let hidden: BTreeSet<&str> = unlistable.iter().map(String::as_str).collect();
        let mut findings = Vec::new();
        for name in hidden.iter().filter(|name| self.concerns(name) && !listed.contains(**name)) {
            let finding = Finding::new(Id::RepoUnlistable).repo(name);
            findings.push(finding.found("a part of its name ends in blobs, .sync or .uploads, or on S3 begins like another that does; push it anew"));
        }
        for name in known.iter().filter(|name| self.concerns(name)) {
            if !listed.contains(name.as_str()) && !hidden.contains(name.as_str()) {
                findings.push(Finding::new(Id::RepoGone).repo(name).expected("in storage").found("not in storage"));
            }
        }
        for found in listing.misrouted.iter().filter(|found| self.concerns(&found.repo)) {
            let finding = Finding::new(Id::RepoUnroutable).repo(&found.repo);
            findings
                .push(finding.expected(format!("in {}", found.routed_to)).found(format!("in {}", found.listed_from)));
        }
        findings
    }

    /// Check the repos that need it. Returns the digests they name, if those are all that any repo names.
    fn check(
        &self,
        names: &[&str],
        stars: Option<&HashMap<String, i32>>,
        generation: Option<Checksum>,
        report: &mut Report,
    ) -> Result<Option<Reached>, VerifyError> {
        self.progress.begin(Phase::Verify, names.len() as u64);
        // Only who looks at all image records and at all repos can tell which are nobody's.
        let reached = Mutex::new((self.depth > Depth::Quick && self.repos.is_none()).then(Reached::default));
        let recall = Recall { verify: self, stars, generation, reached: &reached };
        let due = recall.due(names)?;
        report.unchanged = names.len() - due.len();
        report.checked = due.len();
        let shared = Shared {
            verify: self,
            reached: &reached,
            report: Mutex::new(report),
            memories: Mutex::default(),
            failed: Mutex::new(None),
        };
        let memory = Memory::new(MEMORY, self.cancel);
        let crew = Crew::new(self.stores, self.jobs, &due);
        std::thread::scope(|threads| {
            for number in 0..crew.count() {
                let (crew, shared, memory) = (&crew, &shared, &memory);
                threads.spawn(move || {
                    for (_, name) in crew.tasks(number) {
                        if self.cancel.is_cancelled() || lock(&shared.failed).is_some() {
                            return;
                        }
                        self.progress.reading(name);
                        shared.done(name, repo::check(self, name, stars, memory));
                    }
                });
            }
        });
        self.progress.end();
        shared.remember();
        if let Some(error) = lock(&shared.failed).take() {
            return Err(error);
        }
        if self.cancel.is_cancelled() {
            return Err(VerifyError::Cancelled);
        }
        Ok(lock(&reached).take())
    }

    /// Image records that nothing reaches.
    fn orphans(
        &self,
        reached: &Reached,
        known: &[String],
        listed: &[&str],
        generation: Option<Checksum>,
        report: &mut Report,
    ) -> Result<(), VerifyError> {
        let remembered = self.state.filter(|_| !self.full).zip(generation);
        let orphan = |digest: &str| Finding::new(Id::OrphanImage).digest(digest).found("no repo names it");
        // With the same metaDB and the same storage they are the same.
        if report.checked == 0
            && let Some(orphans) = remembered.and_then(|(state, generation)| state.orphans(generation))
        {
            report.findings.extend(orphans.iter().map(|digest| orphan(digest)));
            return Ok(());
        }
        // Repos that storage no longer lists still have their images until they are removed themselves.
        let listed: HashSet<&str> = listed.iter().copied().collect();
        let mut kept = Reached::default();
        for name in known.iter().filter(|name| !listed.contains(name.as_str())) {
            let Ok(state) = self.db.repo(name) else { return Ok(()) };
            let Ok(meta) = prost::Message::decode(state.meta.as_deref().unwrap_or_default()) else { return Ok(()) };
            let meta: crate::records::proto::RepoMeta = meta;
            kept.extend(meta.statistics.keys().chain(meta.tags.values().map(|tag| &tag.digest)));
        }
        let mut orphans = BTreeSet::new();
        if !reached.covers_all(&kept) {
            self.db.image_digests(&mut |digest| {
                if !reached.contains(digest) && !kept.contains(digest) {
                    orphans.insert(digest.to_owned());
                }
            })?;
        }
        report.findings.extend(orphans.iter().map(|digest| orphan(digest)));
        if let Some((state, generation)) = self.state.zip(generation) {
            let orphans: Vec<&str> = orphans.iter().map(String::as_str).collect();
            note(report, state.remember_orphans(generation, &orphans));
        }
        Ok(())
    }

    /// Remember that all that is remembered holds in this generation: every repo was compared with it, or looked at. A
    /// quick look does not compare image records, and what could not be written may be about an earlier generation.
    fn vouch(&self, generation: Option<Checksum>, report: &mut Report) {
        let whole = self.repos.is_none() && self.depth > Depth::Quick && report.state_problem.is_none();
        if let Some((state, generation)) = self.state.zip(generation)
            && whole
            && state.generation() != Some(generation)
        {
            note(report, state.remember_generation(generation));
        }
    }

    /// Forget repos that are no longer there.
    fn forget(&self, names: &[&str], report: &mut Report) {
        let Some(state) = self.state.filter(|_| self.repos.is_none()) else { return };
        let listed: HashSet<&str> = names.iter().copied().collect();
        let outcome = state.repo_names().and_then(|known| {
            let gone: Vec<(String, Option<RepoMemory>)> =
                known.into_iter().filter(|name| !listed.contains(name.as_str())).map(|name| (name, None)).collect();
            if gone.is_empty() { Ok(()) } else { state.update(&gone) }
        });
        note(report, outcome);
    }
}

fn note(report: &mut Report, outcome: Result<(), StateError>) {
    if let Err(error) = outcome {
        report.state_problem.get_or_insert_with(|| crate::error::chain(&error));
    }
}

/// What the threads share.
struct Shared<'a, 'v> {
    verify: &'a Verify<'v>,
    reached: &'a Mutex<Option<Reached>>,
    report: Mutex<&'a mut Report>,
    memories: Mutex<Vec<(String, Option<RepoMemory>)>>,
    failed: Mutex<Option<VerifyError>>,
}

impl Shared<'_, '_> {
    fn done(&self, name: &str, outcome: Result<repo::Seen, VerifyError>) {
        let seen = match outcome {
            Ok(seen) => seen,
            Err(error) => {
                lock(&self.failed).get_or_insert(error);
                return;
            }
        };
        self.verify.progress.repo_done();
        {
            let mut reached = lock(self.reached);
            match (&mut *reached, seen.readable) {
                (Some(reached), true) => reached.extend(&seen.digests),
                (reached, _) => *reached = None,
            }
        }
        {
            let mut report = lock(&self.report);
            report.findings.extend(seen.findings);
            report.manifests += seen.manifests;
            report.bytes += seen.bytes;
        }
        if let Some(state) = self.verify.state {
            let memory = seen.memory.map(|memory| memory.over(state.repo(name)));
            let full = {
                let mut memories = lock(&self.memories);
                memories.push((name.to_owned(), memory));
                memories.len() >= REMEMBER_BATCH
            };
            if full {
                self.remember();
            }
        }
    }

    fn remember(&self) {
        let Some(state) = self.verify.state else { return };
        let memories = std::mem::take(&mut *lock(&self.memories));
        if !memories.is_empty() {
            note(&mut lock(&self.report), state.update(&memories));
        }
    }
}

/// A poisoned lock means that another thread panicked, and that panic is passed on anyway.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
