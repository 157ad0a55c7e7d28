//! Questions to a blob cache that nobody waits for once the command shall stop, however silent the server or the file system is.

use super::{BlobCache, CacheError};
use crate::cancel::{Cancel, NAP};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

/// A cache whose drivers may block.
pub(super) struct Interruptible {
    cache: Arc<dyn BlobCache>,
    cancel: Cancel,
}

impl Interruptible {
    pub(super) fn new(cache: Arc<dyn BlobCache>, cancel: &Cancel) -> Self {
        Self { cache, cancel: cancel.clone() }
    }
}

impl BlobCache for Interruptible {
    /// A question that is given up lives on in its thread, which ends with the process: it only reads.
    fn candidates(&self, digests: &[&str]) -> Result<Vec<Vec<String>>, CacheError> {
        if self.cancel.is_cancelled() {
            return Err(CacheError::Cancelled);
        }
        let (sender, answer) = mpsc::sync_channel(1);
        let (cache, digests) = (Arc::clone(&self.cache), digests.iter().map(|digest| (*digest).to_owned()).collect());
        let asked = thread::Builder::new().name("blob cache".into()).spawn(move || {
            let digests: Vec<String> = digests;
            let digests: Vec<&str> = digests.iter().map(String::as_str).collect();
            // Nobody may be there any more.
            let _ = sender.send(cache.candidates(&digests));
        });
        let asked = asked.map_err(|error| CacheError::new("(no thread to ask it)", error))?;
        loop {
            match answer.recv_timeout(NAP) {
                Ok(found) => return found,
                Err(RecvTimeoutError::Timeout) if self.cancel.is_cancelled() => return Err(CacheError::Cancelled),
                Err(RecvTimeoutError::Timeout) => {}
                // It panicked, and that is passed on.
                Err(RecvTimeoutError::Disconnected) => match asked.join() {
                    Ok(()) => return Err(CacheError::Cancelled),
                    Err(panic) => std::panic::resume_unwind(panic),
                },
            }
        }
    }
}
