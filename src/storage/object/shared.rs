//! Content that several repos or tags share is fetched once while it is remembered.
//!
//! By key, not by digest: two repos have the same content under two keys, and zot looks whether each is there.

use super::super::{Blob, StorageError};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// Bytes remembered at most.
const LIMIT: usize = 32 << 20;
/// What every object costs besides its content.
const OVERHEAD: usize = 256;

/// Objects fetched lately, oldest forgotten first.
#[derive(Default)]
pub(super) struct Shared {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    cells: HashMap<String, Arc<OnceCell<Blob>>>,
    /// Keys fetched, with what they cost, in order.
    order: VecDeque<(String, usize)>,
    bytes: usize,
}

impl Shared {
    /// The object at `key`; whoever asks for it while it is being fetched waits for the same answer. Failures are not
    /// remembered.
    pub(super) async fn get(
        &self,
        key: &str,
        fetch: impl Future<Output = Result<Blob, StorageError>>,
    ) -> Result<Blob, StorageError> {
        let cell = Arc::clone(self.held().cells.entry(key.to_owned()).or_default());
        let mut fetched = false;
        let result = cell
            .get_or_try_init(|| async {
                fetched = true;
                fetch.await
            })
            .await
            .cloned();
        if fetched {
            self.held().settle(key, result.as_ref().ok());
        }
        result
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Remember what was fetched, and forget what is too much.
    fn settle(&mut self, key: &str, blob: Option<&Blob>) {
        let Some(blob) = blob else {
            self.cells.remove(key);
            return;
        };
        let cost = blob.content.len() + key.len() + OVERHEAD;
        self.order.push_back((key.to_owned(), cost));
        self.bytes += cost;
        while self.bytes > LIMIT {
            let Some((oldest, cost)) = self.order.pop_front() else { break };
            self.cells.remove(&oldest);
            self.bytes -= cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn blob(size: usize) -> Blob {
        Blob { content: vec![0; size], mtime: None }
    }

    #[tokio::test]
    async fn what_is_asked_for_twice_is_fetched_once() {
        let (shared, fetches) = (Shared::default(), AtomicUsize::new(0));
        let fetch = || async {
            fetches.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(blob(5))
        };
        let (first, second) = tokio::join!(shared.get("k", fetch()), shared.get("k", fetch()));
        assert_eq!((first.unwrap(), second.unwrap()), (blob(5), blob(5)));
        assert_eq!(shared.get("k", fetch()).await.unwrap(), blob(5));
        assert_eq!(fetches.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn failures_are_not_remembered() {
        let shared = Shared::default();
        let missing = async { Err(StorageError::NotFound { what: "k".into() }) };
        assert!(shared.get("k", missing).await.is_err());
        assert!(shared.held().cells.is_empty());
        assert!(shared.get("k", async { Ok(blob(1)) }).await.is_ok());
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let shared = Shared::default();
        for index in 0..100 {
            shared.get(&index.to_string(), async { Ok(blob(1 << 20)) }).await.unwrap();
        }
        let held = shared.held();
        assert!(held.bytes <= LIMIT && held.cells.len() == held.order.len() && held.cells.len() > 20);
        assert!(held.cells.contains_key("99") && !held.cells.contains_key("0"));
    }
}
