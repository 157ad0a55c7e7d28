//! What a walk did, for people and for programs.

use std::time::Duration;

/// A repo that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Repository name.
    pub repo: String,
    /// The digest at fault, if it is one.
    pub digest: Option<String>,
    /// What is wrong.
    pub reason: String,
}

/// What became of the stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StampOutcome {
    /// Written: this walk vouches for the metaDB.
    Written(String),
    /// It was there already, and nothing had to be written.
    Current(String),
    /// A walk over some repos only: the stamp that was there is there again.
    Restored(String),
    /// There is none now, for this reason.
    Absent(String),
    /// Left as it was, for this reason.
    Untouched(String),
}

impl StampOutcome {
    /// Whether the metaDB is stamped now, by this walk's leave.
    #[must_use]
    pub fn is_there(&self) -> bool {
        matches!(self, Self::Written(_) | Self::Current(_) | Self::Restored(_))
    }
}

/// What a walk did.
#[derive(Debug, Clone)]
pub struct WalkReport {
    /// Repos that storage lists.
    pub listed: usize,
    /// Repos read and recorded, of these new ones.
    pub parsed: usize,
    /// Repos recorded for the first time.
    pub new: usize,
    /// Repos left alone because storage is older than their records.
    pub unchanged: usize,
    /// Repos removed from the metaDB.
    pub deleted: Vec<String>,
    /// Repos recorded without some manifests.
    pub partial: Vec<Problem>,
    /// Repos not recorded.
    pub failed: Vec<Problem>,
    /// Repos that kept changing while they were read.
    pub moving: Vec<String>,
    /// Image records removed by `--prune`.
    pub pruned: usize,
    /// Manifests and indexes read.
    pub manifests: u64,
    /// Bytes read from storage.
    pub bytes: u64,
    /// The stamp.
    pub stamp: StampOutcome,
    /// Why the walk broke off, if it did.
    pub broken_off: Option<String>,
    /// Wall-clock time.
    pub elapsed: Duration,
}

impl WalkReport {
    /// Whether every repo in scope is now recorded completely.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.partial.is_empty() && self.failed.is_empty() && self.moving.is_empty() && self.broken_off.is_none()
    }
}
