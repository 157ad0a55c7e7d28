//! Cooperative cancellation: a flag that signal handlers set and long loops ask.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often whoever waits looks whether to stop.
pub(crate) const NAP: Duration = Duration::from_millis(50);

/// Asked at every safe point of a long operation. Cheap to clone; clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Cancel {
    /// A token that also trips once `deadline` (the command's `--timeout`) has passed.
    #[must_use]
    pub fn with_deadline(deadline: Option<Instant>) -> Self {
        Self { flag: Arc::default(), deadline }
    }

    /// The shared flag, for a signal handler to set.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Trip the token.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether the operation should stop at its next safe point.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.timed_out()
    }

    /// Whether the deadline, rather than a signal, is the reason to stop.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.deadline.is_some_and(|at| Instant::now() >= at)
    }

    /// What a request gives. Once the token has tripped, it is dropped after `grace` wherever it is: in a pause, before an
    /// answer, or while somebody issues a token for it. On a tokio runtime.
    pub(crate) async fn unless<F: Future>(&self, grace: Duration, request: F) -> Option<F::Output> {
        let mut request = pin!(request);
        while !self.is_cancelled() {
            if let Ok(output) = tokio::time::timeout(NAP, request.as_mut()).await {
                return Some(output);
            }
        }
        tokio::time::timeout(grace, request).await.ok()
    }
}
