//! Where requests run: one tokio runtime behind the blocking interface, and one bound on the requests under way in all
//! object stores together. Asked to stop, whoever waits stops waiting.

use super::super::StorageError;
use crate::cancel::Cancel;
use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

/// Shared by all object stores of a registry.
pub struct Io {
    runtime: Runtime,
    concurrency: usize,
    permits: Arc<Semaphore>,
    cancel: Cancel,
}

impl Io {
    /// With so many requests at a time, all of which `cancel` ends.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new(concurrency: usize, cancel: &Cancel) -> Result<Self, StorageError> {
        // Other clients in this process bring their own provider; only the first that is installed counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let threads = crate::parallel::processors().min(4);
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("storage").enable_all().build();
        let failed = |source| StorageError::Io { action: "start", what: "threads for object storage".into(), source };
        let concurrency = concurrency.max(1);
        let permits = Arc::new(Semaphore::new(concurrency));
        Ok(Self { runtime: runtime.map_err(failed)?, concurrency, permits, cancel: cancel.clone() })
    }

    /// Requests under way at most.
    pub(super) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// One permit is one request.
    pub(super) fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.permits)
    }

    /// What ends all requests.
    pub(super) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Wait for one future. Not to be called from the runtime's own threads.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Run a future from now on; the result is waited for when it is called for.
    pub(super) fn begin<F>(&self, future: F) -> impl FnOnce() -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.runtime.spawn(future);
        // Nobody aborts tasks, so one without a result panicked, and that is passed on.
        move || self.wait(task).unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Run all futures, so many at once that requests never wait for work; results in their order.
    ///
    /// Not all at once: what waits long for its turn would go out with a signature that is no longer valid.
    pub(super) fn all<F>(&self, futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let mut futures = futures.into_iter();
        let mut begun: VecDeque<_> =
            futures.by_ref().take(2 * self.concurrency).map(|future| self.begin(future)).collect();
        let mut results = Vec::new();
        while let Some(result) = begun.pop_front() {
            results.push(result());
            begun.extend(futures.next().map(|future| self.begin(future)));
        }
        results
    }
}

/// As [`Cancel::unless`], as an error of storage.
pub(super) async fn unless_cancelled<F: Future>(
    cancel: &Cancel,
    grace: Duration,
    request: F,
) -> Result<F::Output, StorageError> {
    cancel.unless(grace, request).await.ok_or(StorageError::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::time::Instant;

    #[test]
    fn waiting_ends_when_asked_to_stop() {
        let cancel = Cancel::with_deadline(Some(Instant::now() + Duration::from_millis(300)));
        let io = Io::new(1, &cancel).unwrap();
        let begun = Instant::now();
        let waits = |grace| io.wait(unless_cancelled(io.cancel(), grace, pending::<()>()));
        assert!(matches!(io.wait(unless_cancelled(io.cancel(), Duration::ZERO, ready(5))), Ok(5)));
        assert!(!cancel.is_cancelled());
        assert!(matches!(waits(Duration::ZERO), Err(StorageError::Cancelled)));
        assert!(cancel.is_cancelled() && begun.elapsed() < Duration::from_secs(5));
        // What begins only now has the same while.
        let late = io.wait(async {
            let answer = tokio::time::sleep(Duration::from_millis(20));
            unless_cancelled(io.cancel(), Duration::from_secs(60), answer).await
        });
        assert!(late.is_ok());
        assert!(matches!(waits(Duration::from_millis(20)), Err(StorageError::Cancelled)));
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
