//! The read side: consistent snapshots of a file that another process may be writing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use super::BoltError;
use super::file::{FileLayer, Identity, open_error, require_regular};
use super::page::Meta;
use super::pager::{Metas, Pager};
use super::tree::Tx;
use crate::cancel::Cancel;

/// Attempts at a snapshot before the answer is [`BoltError::Busy`].
const ATTEMPTS: u32 = 14;
/// Pause after the first failed attempt; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A BoltDB file open for reading. Takes no lock and writes nothing, so it works beside a running zot.
pub struct Database {
    path: PathBuf,
    source: RwLock<Arc<Source>>,
}

/// An open file and what it was when it was opened.
struct Source {
    layer: Box<dyn FileLayer>,
    /// `None` for layers that are no file of the file system.
    identity: Option<Identity>,
    page_size: u32,
}

impl Source {
    fn open(path: &Path) -> Result<Self, BoltError> {
        require_regular(path)?;
        let file = File::open(path).map_err(|error| open_error(path, error))?;
        let identity = Some(Identity::of_file(&file, path)?);
        Self::new(Box::new(file), identity, path)
    }

    fn new(layer: Box<dyn FileLayer>, identity: Option<Identity>, path: &Path) -> Result<Self, BoltError> {
        let page_size = Metas::read(&*layer, path, None)?.page_size;
        Ok(Self { layer, identity, page_size })
    }

    fn metas(&self, path: &Path) -> Result<Metas, BoltError> {
        Metas::read(&*self.layer, path, Some(self.page_size))
    }

    fn is_still_at(&self, path: &Path) -> Result<bool, BoltError> {
        self.identity.map_or(Ok(true), |identity| identity.is_still_at(path))
    }

    fn tx<'a>(&'a self, path: &'a Path, meta: &Meta, cancel: &Cancel) -> Tx<'a> {
        Tx { pager: Pager::new(&*self.layer, path, meta), meta: meta.clone(), cancel: cancel.clone() }
    }
}

impl Database {
    /// Open `path` for reading.
    ///
    /// # Errors
    /// [`BoltError::NotFound`], [`BoltError::NotBolt`], or [`BoltError::Io`].
    pub fn open(path: &Path) -> Result<Self, BoltError> {
        let source = Source::open(path)?;
        Ok(Self { path: path.to_owned(), source: RwLock::new(Arc::new(source)) })
    }

    /// Read from `layer`, which is called `path` in messages. For fault injection.
    ///
    /// # Errors
    /// [`BoltError::NotBolt`] or [`BoltError::Io`].
    pub fn with_layer(path: &Path, layer: Box<dyn FileLayer>) -> Result<Self, BoltError> {
        let source = Source::new(layer, None, path)?;
        Ok(Self { path: path.to_owned(), source: RwLock::new(Arc::new(source)) })
    }

    /// The file this database was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Run `f` on a consistent state of the file, even while another process writes it.
    ///
    /// Why this needs no lock: transaction N+1 writes only pages that tree N does not use, and pages it frees are
    /// written again by N+2 at the earliest. So as long as both meta pages are what they were when N was chosen,
    /// nothing of tree N has been written over. If a meta page changed during `f` (or the path names another
    /// file), whatever `f` returned, errors included, is dropped and `f` runs again on the newest state, after a
    /// pause. This holds for local file systems on one machine, not for NFS or FUSE.
    ///
    /// So `f` may be fed nonsense in a run that is then dropped: buckets that are missing, values that do not
    /// decode. It must answer with an error or a result, must not panic, act on what it reads, or keep anything
    /// from one run to the next.
    ///
    /// # Errors
    /// What `f` returned; [`BoltError::Busy`] if a writer was faster every time, so keep `f` short (one bucket, not
    /// all of them);
    /// [`BoltError::Replaced`], [`BoltError::NotFound`], [`BoltError::Damaged`], [`BoltError::Io`], [`BoltError::Cancelled`].
    pub fn snapshot<T, E: From<BoltError>>(
        &self,
        cancel: &Cancel,
        mut f: impl FnMut(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut pause = FIRST_PAUSE;
        let mut stale = BoltError::Busy { path: self.path.clone(), attempts: ATTEMPTS };
        for attempt in 0..ATTEMPTS {
            if cancel.is_cancelled() {
                return Err(BoltError::Cancelled.into());
            }
            if attempt > 0 {
                thread::sleep(pause);
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
            let source = self.source();
            let before = source.metas(&self.path)?;
            // A torn meta page may only be in the middle of being written, so this error is checked like f's.
            let result = before
                .newest(&self.path)
                .map_err(E::from)
                .and_then(|(_, meta)| f(&source.tx(&self.path, &meta, cancel)));
            let unchanged = source.metas(&self.path)? == before;
            if !source.is_still_at(&self.path)? {
                self.reopen()?;
                stale = BoltError::Replaced { path: self.path.clone() };
            } else if unchanged {
                return result;
            } else {
                stale = BoltError::Busy { path: self.path.clone(), attempts: ATTEMPTS };
            }
        }
        Err(stale.into())
    }

    fn source(&self) -> Arc<Source> {
        Arc::clone(&self.source.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follow the path to the file it names now.
    fn reopen(&self) -> Result<(), BoltError> {
        let source = Arc::new(Source::open(&self.path)?);
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = source;
        Ok(())
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.path).finish_non_exhaustive()
    }
}
