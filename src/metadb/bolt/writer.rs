//! The write side: the lock, and one bolt transaction for each batch.
//!
//! Order of a commit: pages of the new tree into free pages or behind the high-water mark, the freelist, sync, the
//! meta page in the slot that does not hold the newest one, sync. Until that meta page is written the committed
//! tree stands untouched, so a crash at any instant leaves the old tree or the new one.

use std::fs::{File, OpenOptions as FileOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::apply::Apply;
use super::batch::Batch;
use super::builder::Output;
use super::file::{FileLayer, Identity, open_error, require_regular, write_full};
use super::freelist::Freelist;
use super::page::{FREELIST, HEADER, LEAF, Meta, NO_FREELIST, push_header};
use super::pager::{Metas, Pager};
use super::tree::Tx;
use super::{BoltError, lock};
use crate::cancel::Cancel;
use crate::metadb::create::create_whole;

/// Page size of files created here: that of the systems zot runs on, whatever this one has.
const NEW_PAGE_SIZE: u32 = 4096;

/// How to open a file for writing.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// How long to wait for the lock.
    pub lock_timeout: Duration,
    /// Make the file (mode 0600) if it does not exist.
    pub create: bool,
    /// Asked while the file is opened: while waiting for the lock and while finding its free pages. A commit that was
    /// begun is finished.
    pub cancel: Cancel,
}

impl Default for OpenOptions {
    /// Ten seconds, as zot waits; no creation.
    fn default() -> Self {
        Self { lock_timeout: Duration::from_secs(10), create: false, cancel: Cancel::default() }
    }
}

/// A BoltDB file open for writing. Holds the exclusive lock as long as it lives.
pub struct Writer {
    path: PathBuf,
    layer: Box<dyn FileLayer>,
    /// `None` for layers that are no file of the file system.
    identity: Option<Identity>,
    meta: Meta,
    /// Slot of `meta`.
    slot: u64,
    free: Freelist,
    /// Pages the stored freelist occupies.
    freelist_pages: u64,
    file_len: u64,
    poisoned: bool,
}

impl Writer {
    /// Open `path`, wait for its lock, and read its freelist.
    ///
    /// # Errors
    /// [`BoltError::NotFound`], [`BoltError::Locked`], [`BoltError::Replaced`], [`BoltError::NotBolt`],
    /// [`BoltError::Damaged`], [`BoltError::Cancelled`], or [`BoltError::Io`].
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, BoltError> {
        Self::open_wrapped(path, options, |file| Box::new(file))
    }

    /// Like [`Writer::open`], with the locked file passed through `wrap`. For fault injection.
    ///
    /// # Errors
    /// As [`Writer::open`].
    pub fn open_wrapped(
        path: &Path,
        options: &OpenOptions,
        wrap: impl FnOnce(File) -> Box<dyn FileLayer>,
    ) -> Result<Self, BoltError> {
        let file = open_file(path, options.create)?;
        lock::acquire(&file, path, options.lock_timeout, &options.cancel)?;
        // While we waited, the path may have been given to another file; writes to this one would be lost.
        let identity = Identity::of_file(&file, path)?;
        if !identity.is_still_at(path)? {
            return Err(BoltError::Replaced { path: path.to_owned() });
        }
        let mut writer = Self::start(path, wrap(file), options)?;
        writer.identity = Some(identity);
        Ok(writer)
    }

    /// Write to `layer`, which is called `path` in messages, without any lock. For fault injection.
    ///
    /// # Errors
    /// As [`Writer::open`], without those of the lock.
    pub fn with_layer(path: &Path, layer: Box<dyn FileLayer>, options: &OpenOptions) -> Result<Self, BoltError> {
        Self::start(path, layer, options)
    }

    fn start(path: &Path, layer: Box<dyn FileLayer>, options: &OpenOptions) -> Result<Self, BoltError> {
        let len = layer.len().map_err(|error| BoltError::io("stat", path, error))?;
        if options.create && is_uninitialised(&*layer, path, len)? {
            initialise(&*layer, path)?;
        }
        let file_len = layer.len().map_err(|error| BoltError::io("stat", path, error))?;
        let (slot, meta) = Metas::read(&*layer, path, None)?.newest(path)?;
        let pager = Pager::new(&*layer, path, &meta);
        // Growing the file to where its meta page says it ends could take all of the disk.
        let in_file = file_len / pager.page_size;
        if in_file < pager.high_water {
            return Err(
                pager.damaged(in_file, format!("the file ends here, {} pages too early", pager.high_water - in_file))
            );
        }
        let (free, freelist_pages) = match pager.freelist(meta.freelist)? {
            Some((ids, pages)) => (Freelist::from_sorted(ids), pages),
            None => (unreachable_pages(pager, &meta, &options.cancel)?, 0),
        };
        Ok(Self {
            path: path.to_owned(),
            layer,
            identity: None,
            meta,
            slot,
            free,
            freelist_pages,
            file_len,
            poisoned: false,
        })
    }

    /// The file this writer was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest committed state.
    #[must_use]
    pub fn tx(&self) -> Tx<'_> {
        Tx {
            pager: Pager::new(&*self.layer, &self.path, &self.meta),
            meta: self.meta.clone(),
            cancel: Cancel::default(),
        }
    }

    /// Commit `batch` as one transaction: when this returns, all of it is durable. An empty batch writes nothing.
    ///
    /// After an error nothing of the batch is visible and the writer can be used on, so a full disk can be cleared
    /// and the batch tried again. The exception are failures so late that the file may hold the old state or the
    /// new one: then further commits answer [`BoltError::Poisoned`], and opening the file again tells which.
    ///
    /// # Errors
    /// [`BoltError::Invalid`] if the batch does not fit the file's buckets; [`BoltError::Replaced`] if the path now
    /// names another file; [`BoltError::Damaged`], [`BoltError::Io`], [`BoltError::Unsettled`], [`BoltError::Poisoned`].
    pub fn commit(&mut self, batch: &Batch<'_>) -> Result<(), BoltError> {
        if self.poisoned {
            return Err(BoltError::Poisoned { path: self.path.clone() });
        }
        if batch.is_empty() {
            return Ok(());
        }
        if let Some(identity) = self.identity
            && !identity.is_still_at(&self.path)?
        {
            return Err(BoltError::Replaced { path: self.path.clone() });
        }
        let mut out = Output::new(&*self.layer, &self.path, &self.meta, &mut self.free, self.file_len);
        let tx = Tx {
            pager: Pager::new(&*self.layer, &self.path, &self.meta),
            meta: self.meta.clone(),
            cancel: Cancel::default(),
        };
        let prepared = prepare(&tx, &mut out, batch, self.slot, self.freelist_pages);
        self.file_len = out.file_len;
        let (meta, freelist_pages) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.poisoned = !out.abandon();
                return Err(error);
            }
        };
        // From here on a failure leaves it open what is on the disk: after a failed sync the system may have
        // dropped the pages it could not write, and a second sync would not say so.
        self.poisoned = true;
        let slot = meta.txid % 2;
        let at = slot * u64::from(meta.page_size);
        self.layer.sync(out.grew).map_err(|error| BoltError::io("sync", &self.path, error))?;
        write_full(&*self.layer, &meta.encode(slot), at)
            .and_then(|()| self.layer.sync(false))
            .map_err(|source| BoltError::Unsettled { path: self.path.clone(), source })?;
        self.poisoned = !out.committed();
        (self.meta, self.slot, self.freelist_pages) = (meta, slot, freelist_pages);
        Ok(())
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).field("txid", &self.meta.txid).finish_non_exhaustive()
    }
}

/// Write the new tree and freelist, and return the meta page that would make them visible.
fn prepare(
    tx: &Tx<'_>,
    out: &mut Output<'_>,
    batch: &Batch<'_>,
    slot: u64,
    freelist_pages: u64,
) -> Result<(Meta, u64), BoltError> {
    let root = Apply { tx, out }.root(&batch.root)?;
    let (freelist, pages) = if tx.meta.freelist == NO_FREELIST {
        // Whoever made the file chose not to store it (NoFreelistSync); bbolt rebuilds it like us.
        (NO_FREELIST, 0)
    } else {
        out.release(tx.meta.freelist, freelist_pages)?;
        write_freelist(out)?
    };
    out.flush()?;
    let mut meta = Meta { root, freelist, high_water: out.high_water, txid: tx.meta.txid + 1, ..tx.meta.clone() };
    // bbolt's hot copies (Tx.WriteTo) have the newest meta page in slot 0 whatever its id. It must not be the one
    // that is written over.
    if meta.txid % 2 == slot {
        meta.txid += 1;
    }
    Ok((meta, pages))
}

/// Write the list of all pages that are free once this transaction is committed.
fn write_freelist(out: &mut Output<'_>) -> Result<(u64, u64), BoltError> {
    const COUNT_BEYOND_16_BITS: usize = 0xFFFF;
    // Taking pages for the list itself can only make it shorter.
    let bound = usize::try_from(out.free_count()).unwrap_or(usize::MAX).saturating_mul(8).saturating_add(HEADER + 8);
    let pages = out.pages_for(bound);
    let id = out.allocate(pages)?;
    let ids = out.free_ids();
    let page_size = out.page_size;
    let buffer = out.page_buffer(id)?;
    let end = buffer.len() + pages as usize * page_size;
    push_header(buffer, id, FREELIST, ids.len().min(COUNT_BEYOND_16_BITS) as u16, (pages - 1) as u32);
    if ids.len() >= COUNT_BEYOND_16_BITS {
        buffer.extend_from_slice(&(ids.len() as u64).to_le_bytes());
    }
    for free in ids {
        buffer.extend_from_slice(&free.to_le_bytes());
    }
    buffer.resize(end, 0);
    Ok((id, pages))
}

/// The free pages of a file that stores no freelist: those no bucket uses.
fn unreachable_pages(pager: Pager<'_>, meta: &Meta, cancel: &Cancel) -> Result<Freelist, BoltError> {
    let tx = Tx { pager, meta: meta.clone(), cancel: cancel.clone() };
    let (report, used) = tx.check_tree()?;
    if let Some(problem) = report.problems.first() {
        return Err(pager.damaged(meta.root, format!("free pages cannot be told from used ones: {problem}")));
    }
    Ok(Freelist::from_sorted((2..meta.high_water).filter(|id| !used.contains(*id))))
}

fn open_file(path: &Path, create: bool) -> Result<File, BoltError> {
    match require_regular(path) {
        Err(BoltError::NotFound { .. }) if create => make_file(path)?,
        other => other?,
    }
    FileOptions::new().read(true).write(true).open(path).map_err(|error| open_error(path, error))
}

/// Make an empty database.
fn make_file(path: &Path) -> Result<(), BoltError> {
    let failed = |error| BoltError::io("create", path, error);
    create_whole(path, failed, |made| {
        let file = FileOptions::new().read(true).write(true).open(made).map_err(failed)?;
        initialise(&file, path)
    })
}

/// Whether the file is empty, or its creation was cut short before the meta pages were written.
fn is_uninitialised(layer: &dyn FileLayer, path: &Path, len: u64) -> Result<bool, BoltError> {
    Ok(len == 0 || (len <= 4 * u64::from(NEW_PAGE_SIZE) && Metas::are_blank(layer, path, NEW_PAGE_SIZE)?))
}

/// Write the four pages of an empty file: two meta pages, an empty freelist, an empty root leaf. The meta pages
/// come last, so that a file whose creation was cut short is known by its blank meta pages.
fn initialise(layer: &dyn FileLayer, path: &Path) -> Result<(), BoltError> {
    let page_size = u64::from(NEW_PAGE_SIZE);
    let attempt = || {
        layer.set_len(4 * page_size)?;
        for (id, flags) in [(2, FREELIST), (3, LEAF)] {
            let mut page = Vec::with_capacity(HEADER);
            push_header(&mut page, id, flags, 0, 0);
            write_full(layer, &page, id * page_size)?;
        }
        layer.sync(true)?;
        for txid in [0, 1] {
            let meta =
                Meta { page_size: NEW_PAGE_SIZE, flags: 0, root: 3, sequence: 0, freelist: 2, high_water: 4, txid };
            write_full(layer, &meta.encode(txid), txid * page_size)?;
        }
        layer.sync(true)
    };
    attempt().map_err(|error| BoltError::io("initialise", path, error))
}
