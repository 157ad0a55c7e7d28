//! What a walk has to do: storage's listing against the metaDB's (spec §2.3), and the guard against mass deletion.

use super::{Problem, WalkError};
use crate::cancel::Cancel;
use crate::metadb::MetaDb;
use crate::oci::time::Time;
use crate::progress::{Phase, Progress};
use crate::storage::routing::Stores;
use crate::storage::{ImageStore as _, IndexStat, StorageError};
use globset::GlobSet;
use std::collections::{BTreeMap, BTreeSet};

/// Repos by what a walk does to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be read, in the order of the listing: without records, newer than their records, or forced.
    pub due: Vec<Todo>,
    /// In storage, older than their records, with the index seen.
    pub unchanged: Vec<(String, IndexStat)>,
    /// In the metaDB, no longer in storage.
    pub gone: Vec<String>,
    /// Repos whose index cannot be looked at.
    pub unreadable: Vec<Problem>,
    /// Repos with records, before the walk.
    pub known: usize,
    /// Repos that storage lists.
    pub listed: usize,
    /// When storage was listed.
    pub at: Option<Time>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        let Self { due, unchanged, gone, unreadable, .. } = self;
        due.is_empty() && unchanged.is_empty() && gone.is_empty() && unreadable.is_empty()
    }

    /// Repos in storage, without records.
    #[must_use]
    pub fn new_repos(&self) -> Vec<&str> {
        self.due.iter().filter(|todo| todo.new).map(|todo| todo.repo.as_str()).collect()
    }

    /// Repos in storage, newer than their records (or forced).
    #[must_use]
    pub fn changed_repos(&self) -> Vec<&str> {
        self.due.iter().filter(|todo| !todo.new).map(|todo| todo.repo.as_str()).collect()
    }
}

/// A repo to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Todo {
    /// Its name.
    pub repo: String,
    /// Whether it has no records yet.
    pub new: bool,
}

/// Which repos a walk is about.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only names that match; `None` for all.
    pub repos: Option<GlobSet>,
    /// Whether even unchanged repos are read.
    pub force: bool,
}

impl Scope {
    /// Whether the walk is about this repo.
    #[must_use]
    pub fn contains(&self, repo: &str) -> bool {
        self.repos.as_ref().is_none_or(|globs| globs.is_match(repo))
    }
}

/// How many repos a walk may delete from the metaDB without being told to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxDelete {
    /// 10 repos or 10 %, whichever is larger; never all.
    Default,
    /// This many.
    Count(usize),
    /// This share of all known repos, in percent.
    Percent(f64),
}

impl MaxDelete {
    /// Whether deleting `gone` of `known` repos needs no further consent.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "repo counts are far below 2^52")]
    pub fn allows(self, gone: usize, known: usize) -> bool {
        match self {
            Self::Default => gone == 0 || gone < known && (gone <= 10 || gone.saturating_mul(10) <= known),
            Self::Count(limit) => gone <= limit,
            Self::Percent(percent) => gone as f64 <= known as f64 * percent / 100.0,
        }
    }
}

/// Compare storage and metaDB. Changes nothing.
///
/// # Errors
/// If storage or the metaDB cannot be listed completely, or no repo is in scope that was asked for.
pub fn plan(
    stores: &Stores,
    db: Option<&dyn MetaDb>,
    scope: &Scope,
    jobs: usize,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Plan, WalkError> {
    let started = jiff::Timestamp::now();
    let listing = stores.list(cancel)?;
    let at = Time::from(stores.in_store_time(started));
    let (known, last_updated) = match db {
        Some(db) => (db.repo_names()?, db.last_updated()?),
        None => (Vec::new(), BTreeMap::new()),
    };
    let mut plan = Plan { known: known.len(), listed: listing.repos.len(), at: Some(at), ..Plan::default() };
    let known: BTreeSet<&str> = known.iter().map(String::as_str).collect();
    let listed: BTreeSet<&str> = listing.repos.iter().map(String::as_str).collect();
    plan.gone = known.difference(&listed).filter(|repo| scope.contains(repo)).map(|&repo| repo.to_owned()).collect();

    let misrouted: BTreeMap<&str, _> = listing.misrouted.iter().map(|found| (found.repo.as_str(), found)).collect();
    let names: Vec<&str> = listing.repos.iter().map(String::as_str).filter(|repo| scope.contains(repo)).collect();
    progress.begin(Phase::Plan, names.len() as u64);
    let mut stats = super::parallel(&names, stores.readers(jobs), |repo| {
        if cancel.is_cancelled() {
            return Err(StorageError::Cancelled);
        }
        let stat = stores.stat_index(repo);
        progress.repo_done();
        stat
    });
    progress.end();
    if cancel.is_cancelled() {
        return Err(WalkError::Cancelled);
    }
    // Where none of several repos can be looked at, something is wrong with all of storage (credentials, say), and no repo
    // shall be marked for it.
    if stats.len() > 1 && stats.iter().all(|stat| matches!(stat, Err(StorageError::Io { .. }))) {
        stats.swap_remove(0)?;
    }
    for (repo, stat) in names.into_iter().zip(stats) {
        let index = match stat {
            Ok(index) => index,
            Err(error) => {
                let reason = match misrouted.get(repo) {
                    Some(found) => format!(
                        "it lies in {}, but its name leads to {}; zot counts it as failed at every start: move it",
                        found.listed_from, found.routed_to
                    ),
                    None => super::chain(&error),
                };
                plan.unreadable.push(Problem { repo: repo.to_owned(), digest: None, reason });
                continue;
            }
        };
        let seen = last_updated.get(repo).copied().unwrap_or(Time::ZERO);
        // zot's rule, to the nanosecond, and even for times from the future: strictly older than its records means
        // unchanged. What that hides, verify finds and --force mends.
        if !scope.force && !seen.is_zero() && Time::from(index.mtime) < seen {
            plan.unchanged.push((repo.to_owned(), index));
        } else {
            plan.due.push(Todo { repo: repo.to_owned(), new: !known.contains(repo) });
        }
    }
    if scope.repos.is_some() && plan.is_empty() { Err(WalkError::NoRepo) } else { Ok(plan) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_guard_never_lets_everything_go() {
        for (gone, known, allowed) in [
            (0, 0, true),
            (0, 5, true),
            (1, 1, false),
            (9, 9, false),
            (9, 10, true),
            (10, 11, true),
            (11, 12, false),
            (11, 110, true),
            (12, 110, false),
            (100, 1000, true),
            (101, 1000, false),
        ] {
            assert_eq!(MaxDelete::Default.allows(gone, known), allowed, "{gone} of {known}");
        }
        assert!(MaxDelete::Percent(100.0).allows(7, 7));
        assert!(!MaxDelete::Percent(50.0).allows(4, 7));
        assert!(MaxDelete::Count(0).allows(0, 7));
        assert!(!MaxDelete::Count(3).allows(4, 7));
    }
}
