//! What a walk asks a metaDB to write: one [`RepoWork`] per repo.

use super::memory::Share;
use super::read::{ReadError, RepoRead};
use crate::metadb::{Refusal, RepoWork};
use crate::oci::time::Time;
use crate::records::fold::{Clock, Entry, Rules, fold};
use crate::records::{RepoChange, RepoState, encode_time};
use crate::storage::ImageStore as _;
use crate::storage::routing::Stores;
use std::collections::BTreeSet;

/// One repo as read, successfully or not.
pub(super) struct Item<'a> {
    pub(super) repo: &'a str,
    pub(super) read: Result<RepoRead, ReadError>,
    pub(super) clock: Clock,
    pub(super) rules: Rules,
    pub(super) stores: &'a Stores,
    /// Of the memory in flight.
    pub(super) share: Share<'a>,
}

impl Item<'_> {
    pub(super) fn manifests(&self) -> u64 {
        self.read.as_ref().map_or(0, |read| read.manifests)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.read.as_ref().map_or(0, |read| read.bytes)
    }
}

impl RepoWork for Item<'_> {
    fn repo(&self) -> &str {
        self.repo
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        let Ok(read) = &self.read else { return Vec::new() };
        // The same digest can be listed under several tags.
        let mut seen = BTreeSet::new();
        let entries = read.entries.entries.iter();
        entries
            .filter_map(|entry| match entry {
                Entry::Image(image) => Some(image),
                Entry::Signature(_) => None,
            })
            .filter(|image| seen.insert(image.digest.as_str()))
            .map(|image| (image.digest.as_str(), image.meta.as_slice()))
            .collect()
    }

    fn build(&self, prior: &RepoState) -> Result<RepoChange, Refusal> {
        let Ok(read) = &self.read else { return Due(self.repo).build(prior) };
        if self.stores.stat_index(self.repo).ok().as_ref() != Some(&read.index) {
            return Err(Refusal::Moved);
        }
        fold(self.repo, prior, &read.entries, self.clock, self.rules)
            .map_err(|error| Refusal::Unusable(error.to_string()))
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
    pub(super) stores: &'a Stores,
    pub(super) listed_at: Time,
}

impl RepoWork for Gone<'_> {
    fn repo(&self) -> &str {
        self.repo
    }

    fn images(&self) -> Vec<(&str, &[u8])> {
        Vec::new()
    }

    fn build(&self, _prior: &RepoState) -> Result<RepoChange, Refusal> {
        // A directory can have an index and yet be no repo, so only an index newer than the listing says "it is back".
        match self.stores.stat_index(self.repo) {
            Ok(index) if Time::from(index.mtime) >= self.listed_at => Err(Refusal::Moved),
            _ => Ok(RepoChange::Delete),
        }
    }
}
