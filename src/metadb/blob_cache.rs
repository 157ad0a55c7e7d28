//! What the readers of zot's blob caches on servers have in common (storage spec §1.9).

use super::MetaDbError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is recorded for a digest: the original path, and all paths in any order.
pub type Recorded = (Option<String>, Vec<String>);

/// How long a server that could not be reached is not tried again: thousands of repos may ask.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// Memory of the last failure to reach a server.
#[derive(Default)]
pub(super) struct GivenUp(Mutex<Option<(Instant, String)>>);

impl GivenUp {
    /// The last failure again, if that was lately.
    pub(super) fn check(&self, location: &str) -> Result<(), MetaDbError> {
        match &*self.last() {
            Some((at, detail)) if at.elapsed() < GIVEN_UP => {
                Err(MetaDbError::Unreachable { location: location.to_owned(), detail: detail.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Remember how it went.
    pub(super) fn note<T>(&self, found: &Result<T, MetaDbError>) {
        *self.last() = match found {
            Err(MetaDbError::Unreachable { detail, .. }) => Some((Instant::now(), detail.clone())),
            _ => None,
        };
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
