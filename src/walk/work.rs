//! What a walk asks a metaDB to write: one [`RepoWork`] per repo.

use super::Walk;
use super::memory::Share;
use super::read::{ReadError, RepoRead};
use crate::metadb::{Refusal, RepoWork};
use crate::oci::time::Time;
use crate::records::fold::{Clock, FoldError, Rules, fold};
use crate::records::{RepoChange, RepoState, encode_time};
use crate::storage::routing::Stores;
use crate::storage::{ImageStore as _, IndexStat, Later, StorageError, valid_repo_name};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Another look at a repo's index before its records change.
pub(super) struct Look<'a> {
    repo: &'a str,
    stores: &'a Stores,
    begun: Mutex<Option<Later<'a, Result<IndexStat, StorageError>>>>,
}

impl<'a> Look<'a> {
    pub(super) fn new(repo: &'a str, stores: &'a Stores) -> Self {
        Self { repo, stores, begun: Mutex::default() }
    }

    fn begin(&self) {
        *self.begun() = Some(self.stores.begin_stat_index(self.repo));
    }

    fn answer(&self) -> Result<IndexStat, StorageError> {
        let begun = self.begun().take();
        begun.map_or_else(|| self.stores.stat_index(self.repo), |answer| answer())
    }

    fn begun(&self) -> MutexGuard<'_, Option<Later<'a, Result<IndexStat, StorageError>>>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One repo as read, successfully or not.
pub(super) struct Item<'a> {
    pub(super) repo: &'a str,
    /// Place in the round.
    pub(super) at: usize,
    pub(super) read: Result<RepoRead, ReadError>,
    /// Of the memory in flight.
    pub(super) share: Share<'a>,
    /// Why its images could not be written ahead.
    pub(super) refused: Option<String>,
    look: Look<'a>,
    rules: Rules,
    clock: Clock,
    /// Positions of the images in `read` that are still to be written. The same digest can be listed several times, even
    /// under media types that make different records of it: the last one stays.
    images: Vec<usize>,
    /// What becomes of a repo without records: nearly all the work of a first walk, done before it is the writer's turn.
    /// The writer takes it; if it must build once more, then anew.
    first: Mutex<Option<RepoChange>>,
}

impl<'a> Item<'a> {
    /// `new`: the repo had no records when the walk was planned.
    pub(super) fn new(
        walk: &Walk<'a>,
        repo: &'a str,
        read: Result<RepoRead, ReadError>,
        clock: Clock,
        share: Share<'a>,
        at: usize,
        new: bool,
    ) -> Self {
        let entries = read.iter().flat_map(|read| read.entries.entries.iter().enumerate());
        let images =
            entries.filter_map(|(at, entry)| Some((entry.image().filter(|image| !image.meta.is_empty())?, at)));
        let last: HashMap<&str, usize> = images.map(|(image, at)| (image.digest.as_str(), at)).collect();
        let mut images: Vec<usize> = last.into_values().collect();
        images.sort_unstable();
        let look = Look::new(repo, walk.stores);
        let mut item = Self {
            repo,
            at,
            read,
            share,
            refused: None,
            look,
            rules: walk.rules,
            clock,
            images,
            first: Mutex::default(),
        };
        if new && let Ok(read) = &item.read {
            let first = item.fold(read, &RepoState::default()).ok();
            if let Some(RepoChange::Write { meta, blobs, .. }) = &first {
                item.share.settle(0, [meta, blobs].into_iter().flatten().map(Vec::len).sum());
            }
            item.first = Mutex::new(first);
        }
        item
    }

    /// Ready for its commit.
    pub(super) fn hand_over(mut self) -> Self {
        self.share.hand_over();
        self
    }

    fn fold(&self, read: &RepoRead, prior: &RepoState) -> Result<RepoChange, FoldError> {
        fold(self.repo, prior, &read.entries, self.clock, self.rules)
    }
}

impl RepoWork for Item<'_> {
    fn repo(&self) -> &str {
        self.repo
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        let Ok(read) = &self.read else { return Vec::new() };
        let image = |at: &usize| read.entries.entries.get(*at)?.image();
        self.images.iter().filter_map(image).map(|image| (image.digest.as_str(), image.meta.as_slice())).collect()
    }

    fn prepare(&self) {
        if self.read.is_ok() {
            self.look.begin();
        }
    }

    fn build(&self, prior: &RepoState) -> Result<RepoChange, Refusal> {
        let Ok(read) = &self.read else { return Due(self.repo).build(prior) };
        if let Some(reason) = &self.refused {
            return Err(Refusal::Unusable(reason.clone()));
        }
        if self.look.answer().ok().as_ref() != Some(&read.index) {
            return Err(Refusal::Moved);
        }
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(first) if *prior == RepoState::default() => Ok(first),
            _ => self
                .fold(read, prior)
                .map(|change| change.since(prior))
                .map_err(|error| Refusal::Unusable(error.to_string())),
        }
    }
}

/// Image records of a huge repo, written while the rest of it is still being read. They follow from their blobs alone, so
/// they are right whatever becomes of the repo.
pub(super) struct Ahead<'a> {
    pub(super) repo: &'a str,
    pub(super) images: Vec<(String, Vec<u8>)>,
    pub(super) share: Share<'a>,
}

impl RepoWork for Ahead<'_> {
    fn repo(&self) -> &str {
        self.repo
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        self.images.iter().map(|(digest, meta)| (digest.as_str(), meta.as_slice())).collect()
    }

    fn is_images_only(&self) -> bool {
        true
    }

    fn build(&self, _prior: &RepoState) -> Result<RepoChange, Refusal> {
        Ok(RepoChange::Keep)
    }
}

/// What readers hand to the writer.
pub(super) enum Ready<'a> {
    Images(Ahead<'a>),
    Repo(Box<Item<'a>>),
}

impl Ready<'_> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Images(ahead) => ahead.share.bytes(),
            Self::Repo(item) => item.share.bytes(),
        }
    }
}

/// A repo that the next walk must read again: RepoLastUpdated becomes zero, unless it is.
pub(super) struct Due<'a>(pub(super) &'a str);

impl RepoWork for Due<'_> {
    fn repo(&self) -> &str {
        self.0
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        Vec::new()
    }

    fn build(&self, prior: &RepoState) -> Result<RepoChange, Refusal> {
        if prior.last_updated().is_zero() {
            return Ok(RepoChange::Keep);
        }
        Ok(RepoChange::Write { meta: None, blobs: None, last_updated: Some(encode_time(Time::ZERO)) })
    }
}

/// A repo that storage no longer has; looked at again before its records go.
pub(super) struct Gone<'a> {
    pub(super) repo: &'a str,
    pub(super) look: Look<'a>,
    pub(super) listed_at: Time,
    /// What its index was when storage was listed, if that is known: no sign of its coming back.
    pub(super) known: Option<IndexStat>,
}

impl RepoWork for Gone<'_> {
    fn repo(&self) -> &str {
        self.repo
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        Vec::new()
    }

    fn prepare(&self) {
        self.look.begin();
    }

    fn build(&self, _prior: &RepoState) -> Result<RepoChange, Refusal> {
        // A directory can have an index and yet be no repo, so only an index newer than the listing says "it is back".
        match self.look.answer() {
            Ok(index) if Time::from(index.mtime) >= self.listed_at && Some(&index) != self.known.as_ref() => {
                Err(Refusal::Moved)
            }
            Ok(_) | Err(StorageError::NotFound { .. }) => Ok(RepoChange::Delete),
            // No storage can list what is no name of a repo.
            Err(_) if !valid_repo_name(self.repo) => Ok(RepoChange::Delete),
            // What cannot be looked at may be there again.
            Err(_) => Err(Refusal::Moved),
        }
    }
}
