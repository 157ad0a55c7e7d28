//! Progress as the library tells it; how it looks is the binary's business.

/// Told what a long operation is doing. Called from several threads.
pub trait Progress: Sync {
    /// A phase with this many repos begins.
    fn begin(&self, phase: Phase, repos: u64) {
        let _ = (phase, repos);
    }

    /// A repo is being read.
    fn reading(&self, repo: &str) {
        let _ = repo;
    }

    /// A repo is done: manifests and bytes read for it.
    fn repo_done(&self, manifests: u64, bytes: u64) {
        let _ = (manifests, bytes);
    }

    /// The phase is over.
    fn end(&self) {}
}

/// Parts of a long operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Comparing what storage lists with what the metaDB knows.
    Plan,
    /// Reading and recording repos.
    Walk,
    /// Making sure that storage did not change meanwhile.
    Recheck,
    /// Comparing records with storage.
    Verify,
}

/// For those who do not want to know.
pub struct Silent;

impl Progress for Silent {}
