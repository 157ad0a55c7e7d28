//! Progress as the library tells it; how it looks is the binary's business.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

    /// A part of a repo is read: its manifests and bytes, and what share of the repo it is.
    fn part_read(&self, manifests: u64, bytes: u64, share: f64) {
        let _ = (manifests, bytes, share);
    }

    /// A repo is done.
    fn repo_done(&self) {}

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

/// How a service takes the requests that are made of it. Counted while they are made.
#[derive(Debug, Default)]
pub struct Pressure {
    requests: AtomicU64,
    throttled: AtomicU64,
    failed: AtomicU64,
    /// Thousandths of capacity units.
    read: AtomicU64,
    write: AtomicU64,
    at_once: AtomicU64,
}

impl Pressure {
    /// A request was served for `units`, of writing or of reading; from now on `at_once` are made.
    pub fn served(&self, units: f64, write: bool, at_once: usize) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a charge")]
        let thousandths = (units * 1000.0).round() as u64;
        if write { &self.write } else { &self.read }.fetch_add(thousandths, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.at_once.store(at_once as u64, Relaxed);
    }

    /// A request was refused for want of capacity.
    pub fn throttled(&self, at_once: usize) {
        self.requests.fetch_add(1, Relaxed);
        self.throttled.fetch_add(1, Relaxed);
        self.at_once.store(at_once as u64, Relaxed);
    }

    /// A request failed for another reason.
    pub fn failed(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.failed.fetch_add(1, Relaxed);
    }

    /// How often the service refused so far, and how much is asked of it now; `None` if it never did.
    #[must_use]
    pub fn throttling(&self) -> Option<String> {
        let throttled = self.throttled.load(Relaxed);
        let at_once = self.at_once.load(Relaxed);
        (throttled > 0).then(|| format!("throttled {throttled} times, {at_once} requests at once"))
    }
}

/// What all requests came to.
impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = |thousandths: &AtomicU64| {
            let thousandths = thousandths.load(Relaxed);
            format!("{}.{}", thousandths / 1000, thousandths % 1000 / 100)
        };
        write!(
            f,
            "{} requests, {} read units, {} write units, {} throttled, {} failed",
            self.requests.load(Relaxed),
            units(&self.read),
            units(&self.write),
            self.throttled.load(Relaxed),
            self.failed.load(Relaxed)
        )
    }
}

/// For those who do not want to know.
pub struct Silent;

impl Progress for Silent {}
