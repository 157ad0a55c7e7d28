//! metactl's own embedded metaDB, in redb: zot's records under zot's keys.
//!
//! zot never opens it. It serves registries and pipelines without zot and shadow copies to compare with. Reading opens
//! the file shared, so that several readers can look at once; writing opens it exclusively.

mod gathered;
mod sums;

use super::create::create_whole;
use super::{
    Checksums, Kind, MetaDb, MetaDbError, MetaDbWriter, Outcome, RepoWork, SCHEMA, ShortKey, Wanted, WriteToken,
    image_needs_write, wanted_images,
};
use crate::cancel::Cancel;
use crate::oci::time::Time;
use crate::panics::Contained;
use crate::records::{RepoChange, RepoState, decode_last_updated};
use gathered::Gathered;
use redb::backends::FileBackend;
use redb::{ReadOnlyTable, ReadableTable as _, TableDefinition};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use sums::{BLOBS, IMAGES, Kept, LAST_UPDATED, OpenKept, REPOS, Records};

const VERSION: Records = TableDefinition::new("Version");
const USERS: Records = TableDefinition::new("UserData");
const API_KEYS: Records = TableDefinition::new("UserAPIKeys");

/// Key of the schema version.
const DB_VERSION: &str = "DBVersion";
/// Key of the stamp.
const STAMP: &str = "FastRestartStamp";
/// Memory for pages, read and unwritten ones alike, whatever the file's size. The default of 1 GiB would let it grow with the
/// registry. More than half of it unwritten, and redb writes pages in the middle of a transaction that it then reads again.
const CACHE: usize = 48 << 20;
/// Records of one transaction, whose pages take half as much again: what half the [`CACHE`] holds.
const BATCH: usize = 16 << 20;
/// As [`CACHE`] for those who only read: branches, and what lies around a record.
const READ_CACHE: usize = 16 << 20;
/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// An open metaDB file: `D` is shared with other readers, or for this process alone.
pub struct RedbMetaDb<D> {
    path: PathBuf,
    db: Contained<D>,
}

/// A metaDB opened for writing.
pub struct RedbWriter(RedbMetaDb<redb::Database>);

impl RedbMetaDb<redb::ReadOnlyDatabase> {
    /// Open an existing file for reading.
    ///
    /// # Errors
    /// [`MetaDbError::Absent`], [`MetaDbError::Locked`] while a writer has it, [`MetaDbError::Unclean`] after a writer
    /// was killed, [`MetaDbError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, MetaDbError> {
        present(path)?;
        let db = guarded(path, || builder(READ_CACHE).open_read_only(path).map_err(|error| opening(path, error)))?;
        Ok(Self { path: path.to_owned(), db: Contained::new(db) })
    }
}

impl<D: redb::ReadableDatabase> RedbMetaDb<D> {
    /// Run one read transaction.
    fn look<T>(&self, get: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, MetaDbError> {
        let run = || get(&self.db.begin_read()?);
        guarded(&self.path, || run().map_err(|error| failure("read", &self.path, error)))
    }

    /// Read from one table; a table that does not exist is empty.
    fn read<T: Default>(
        &self,
        table: Records,
        get: impl FnOnce(ReadOnlyTable<&'static str, &'static [u8]>) -> Result<T, redb::Error>,
    ) -> Result<T, MetaDbError> {
        self.look(|transaction| match transaction.open_table(table) {
            Ok(table) => get(table),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(T::default()),
            Err(error) => Err(error.into()),
        })
    }

    fn value(&self, table: Records, key: &str) -> Result<Option<Vec<u8>>, MetaDbError> {
        self.read(table, |table| Ok(table.get(key)?.map(|found| found.value().to_vec())))
    }
}

impl RedbMetaDb<redb::Database> {
    fn is_blank(&self) -> Result<bool, MetaDbError> {
        self.look(|transaction| Ok(transaction.list_tables()?.next().is_none()))
    }

    /// Make the tables of checksums that are not there or not whole, which takes reading all records once.
    fn complete(&self) -> Result<(), MetaDbError> {
        let incomplete = self.look(|transaction| {
            let kept = sums::ALL.into_iter().map(|kept| Ok((kept, kept.is_complete(transaction)?)));
            kept.collect::<Result<Vec<(Kept, bool)>, redb::Error>>()
        })?;
        let incomplete: Vec<Kept> =
            incomplete.into_iter().filter(|(_, complete)| !complete).map(|(kept, _)| kept).collect();
        if incomplete.is_empty() {
            return Ok(());
        }
        self.update(|transaction| incomplete.iter().try_for_each(|kept| kept.complete(transaction)))
    }

    fn update<T>(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, MetaDbError> {
        update(&self.path, &self.db, change)
    }
}

/// Run one durable write transaction.
fn update<T>(
    path: &Path,
    db: &redb::Database,
    change: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
) -> Result<T, MetaDbError> {
    let failed = |error| failure("write", path, error);
    guarded(path, || {
        let transaction = db.begin_write().map_err(|error| failed(error.into()))?;
        let out = change(&transaction).map_err(failed)?;
        transaction.commit().map_err(|error| unsettled(path, error.into()))?;
        Ok(out)
    })
}

impl RedbWriter {
    /// Open, or create with owner-only permissions.
    ///
    /// # Errors
    /// [`MetaDbError::Locked`] after `lock_timeout`, [`MetaDbError::Version`] for a schema that is not known.
    pub fn open(token: WriteToken, path: &Path, lock_timeout: Duration, cancel: &Cancel) -> Result<Self, MetaDbError> {
        if matches!(present(path), Err(MetaDbError::Absent { .. })) {
            create(path)?;
        }
        present(path)?;
        let deadline = Instant::now() + lock_timeout;
        let db = loop {
            let file = || std::fs::File::options().read(true).write(true).open(path).map_err(redb::DatabaseError::from);
            match guarded(path, || Ok(file().and_then(FileBackend::new).and_then(database)))? {
                Ok(db) => break db,
                Err(redb::DatabaseError::DatabaseAlreadyOpen) if cancel.is_cancelled() => {
                    return Err(MetaDbError::Cancelled);
                }
                Err(redb::DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(error) => return Err(opening(path, error)),
            }
        };
        Self::with_database(token, path, db)
    }

    /// Write to `backend`, which is called `path` in messages. For fault injection.
    ///
    /// # Errors
    /// As [`RedbWriter::open`].
    pub fn with_backend(
        token: WriteToken,
        path: &Path,
        backend: impl redb::StorageBackend,
    ) -> Result<Self, MetaDbError> {
        Self::with_database(token, path, database(backend).map_err(|error| opening(path, error))?)
    }

    /// A database without any table becomes a metaDB.
    fn with_database(_token: WriteToken, path: &Path, db: redb::Database) -> Result<Self, MetaDbError> {
        let db = RedbMetaDb { path: path.to_owned(), db: Contained::new(db) };
        if db.is_blank()? {
            initialise(path, &db.db)?;
        }
        super::check_version(&db, &path.display().to_string())?;
        db.complete()?;
        Ok(Self(db))
    }
}

/// For writing.
fn database(backend: impl redb::StorageBackend) -> Result<redb::Database, redb::DatabaseError> {
    builder(CACHE).create_with_backend(Gathered::new(backend))
}

fn builder(cache: usize) -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache);
    builder
}

fn initialise(path: &Path, db: &redb::Database) -> Result<(), MetaDbError> {
    update(path, db, |transaction| {
        for kept in sums::ALL {
            kept.open(transaction)?;
        }
        transaction.open_table(USERS)?;
        transaction.open_table(API_KEYS)?;
        transaction.open_table(VERSION)?.insert(DB_VERSION, SCHEMA.as_bytes())?;
        Ok(())
    })
}

impl<D: redb::ReadableDatabase + Send + Sync> MetaDb for RedbMetaDb<D> {
    fn version(&self) -> Result<Option<String>, MetaDbError> {
        Ok(self.value(VERSION, DB_VERSION)?.map(|found| String::from_utf8_lossy(&found).into_owned()))
    }

    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError> {
        Ok(self.value(VERSION, STAMP)?.filter(|found| !found.is_empty()))
    }

    fn repo_names(&self) -> Result<Vec<String>, MetaDbError> {
        self.read(REPOS.records, |table| {
            table.iter()?.map(|entry| Ok(entry?.0.value().to_owned())).collect::<Result<Vec<_>, redb::Error>>()
        })
    }

    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError> {
        self.read(LAST_UPDATED.records, |table| {
            table
                .iter()?
                .map(|entry| {
                    let (name, at) = entry?;
                    Ok((name.value().to_owned(), decode_last_updated(at.value())))
                })
                .collect::<Result<_, redb::Error>>()
        })
    }

    fn repo(&self, name: &str) -> Result<RepoState, MetaDbError> {
        Ok(RepoState {
            meta: self.value(REPOS.records, name)?,
            blobs: self.value(BLOBS.records, name)?,
            last_updated: self.value(LAST_UPDATED.records, name)?,
        })
    }

    fn images(&self, digests: &[&str]) -> Result<Vec<Option<Vec<u8>>>, MetaDbError> {
        let mut out: Vec<Option<Vec<u8>>> = self.read(IMAGES.records, |table| {
            digests
                .iter()
                .map(|digest| Ok(table.get(*digest)?.map(|found| found.value().to_vec())))
                .collect::<Result<_, redb::Error>>()
        })?;
        out.resize(digests.len(), None);
        Ok(out)
    }

    fn image_digests(&self, visit: &mut dyn FnMut(&str)) -> Result<(), MetaDbError> {
        self.look(|transaction| IMAGES.each(transaction, |digest, _| visit(digest)))
    }

    fn generation(&self) -> Result<Option<String>, MetaDbError> {
        // While it is open for reading nobody can write it; what was written before has another time.
        Ok(super::file_version(&self.path))
    }

    fn checksums(&self, kind: Kind, short: ShortKey, _jobs: usize) -> Result<Option<Checksums>, MetaDbError> {
        let kept = match kind {
            Kind::ImageMeta => IMAGES,
            Kind::RepoMeta => REPOS,
            Kind::RepoBlobs => BLOBS,
            Kind::RepoLastUpdated => LAST_UPDATED,
        };
        let mut sums = Checksums::new();
        self.look(|transaction| kept.each(transaction, |key, sum| sums.push((short(key), sum))))?;
        Ok(Some(sums))
    }

    fn users(&self, visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), MetaDbError> {
        self.read(USERS, |table| {
            for entry in table.iter()? {
                let (user, data) = entry?;
                visit(user.value(), data.value());
            }
            Ok(())
        })
    }
}

impl MetaDbWriter for RedbWriter {
    fn batch_bytes(&self) -> usize {
        BATCH
    }

    fn images_ahead(&self) -> Option<usize> {
        Some(crate::metadb::MANY_BATCHES)
    }

    fn reader(&self) -> &dyn MetaDb {
        &self.0
    }

    fn set_stamp(&mut self, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), MetaDbError> {
        let unchanged = self.0.update(|transaction| {
            let mut table = transaction.open_table(VERSION)?;
            let found = table.get(STAMP)?.map(|found| found.value().to_vec()).filter(|found| !found.is_empty());
            if found.as_deref() != expected {
                return Ok(false);
            }
            match new {
                Some(new) => drop(table.insert(STAMP, new)?),
                None => drop(table.remove(STAMP)?),
            }
            Ok(true)
        })?;
        if unchanged { Ok(()) } else { Err(MetaDbError::StampChanged { location: self.0.path.display().to_string() }) }
    }

    fn write(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        self.0.update(|transaction| {
            let mut tables = Tables {
                images: IMAGES.open(transaction)?,
                repos: REPOS.open(transaction)?,
                blobs: BLOBS.open(transaction)?,
                last_updated: LAST_UPDATED.open(transaction)?,
            };
            work.iter().for_each(|work| work.prepare());
            let wanted = wanted_images(work, |digest, new| -> Result<_, redb::Error> {
                let recorded = tables.images.get(digest)?;
                Ok(image_needs_write(digest, recorded.as_ref().map(redb::AccessGuard::value), new))
            })?;
            let mut images = Vec::new();
            let each = work.iter().zip(wanted);
            let outcomes = each
                .map(|(work, wanted)| tables.apply(*work, wanted, &mut images))
                .collect::<Result<_, redb::Error>>()?;
            tables.insert_images(images)?;
            Ok(outcomes)
        })
    }

    fn delete_images(&mut self, digests: &[String]) -> Result<(), MetaDbError> {
        self.0.update(|transaction| {
            let mut images = IMAGES.open(transaction)?;
            digests.iter().try_for_each(|digest| images.remove(digest))
        })
    }
}

struct Tables<'t> {
    images: OpenKept<'t>,
    repos: OpenKept<'t>,
    blobs: OpenKept<'t>,
    last_updated: OpenKept<'t>,
}

impl Tables<'_> {
    /// Make the changes of one repo, but for its images: those to write come to `images`.
    fn apply<'w>(
        &mut self,
        work: &dyn RepoWork,
        wanted: Wanted<'w>,
        images: &mut Vec<(&'w str, &'w [u8])>,
    ) -> Result<Outcome, redb::Error> {
        let repo = work.repo();
        let get = |table: &OpenKept<'_>| -> Result<Option<Vec<u8>>, redb::Error> {
            Ok(table.get(repo)?.map(|found| found.value().to_vec()))
        };
        let prior = super::prior(work, || {
            Ok::<_, redb::Error>(RepoState {
                meta: get(&self.repos)?,
                blobs: get(&self.blobs)?,
                last_updated: get(&self.last_updated)?,
            })
        })?;
        let built = work.build(&prior);
        // They may be large, and so may their successors, of which redb makes a copy.
        drop(prior);
        let change = match built {
            Ok(change) => change,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        match wanted {
            Ok(wanted) => images.extend(wanted),
            Err(reason) => return Ok(Outcome::Refused(reason)),
        }
        match change {
            RepoChange::Keep => {}
            RepoChange::Delete => {
                self.repos.remove(repo)?;
                self.blobs.remove(repo)?;
                self.last_updated.remove(repo)?;
            }
            RepoChange::Write { meta, blobs, last_updated } => {
                let parts = [(&mut self.repos, meta), (&mut self.blobs, blobs), (&mut self.last_updated, last_updated)];
                for (table, record) in parts {
                    if let Some(record) = record {
                        table.insert(repo, record.as_slice())?;
                    }
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// In the order of their digests, so that redb comes to every page once, while it is in memory. Of two records of one
    /// digest the later counts.
    fn insert_images(&mut self, mut images: Vec<(&str, &[u8])>) -> Result<(), redb::Error> {
        images.sort_by_key(|(digest, _)| *digest);
        let last = images.chunk_by(|(one, _), (next, _)| one == next).filter_map(<[_]>::last);
        last.into_iter().try_for_each(|(digest, new)| self.images.insert(digest, new))
    }
}

/// [`MetaDbError::Absent`] unless there is something.
fn present(path: &Path) -> Result<(), MetaDbError> {
    let location = || path.display().to_string();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            Err(MetaDbError::Damaged { location: location(), detail: "it is a directory".into() })
        }
        Ok(found) if found.is_file() && found.len() == 0 => Err(MetaDbError::Absent { location: location() }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(MetaDbError::Absent { location: location() }),
        Err(error) => Err(MetaDbError::Io { action: "open", location: location(), source: error.into() }),
    }
}

/// Make an empty metaDB.
fn create(path: &Path) -> Result<(), MetaDbError> {
    let failed = |source| failure("create", path, redb::Error::Io(source));
    create_whole(path, failed, |made| {
        let db = builder(CACHE).create(made).map_err(|error| opening(path, error))?;
        initialise(path, &db)?;
        db.close().map_err(|error| opening(path, error))
    })
}

fn opening(path: &Path, error: redb::DatabaseError) -> MetaDbError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => {
            MetaDbError::Locked { location: path.display().to_string(), holder: None }
        }
        error => failure("open", path, error.into()),
    }
}

/// Run `work` on the file; redb may panic over one that was damaged behind its back.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, MetaDbError>) -> Result<T, MetaDbError> {
    crate::panics::caught(work).unwrap_or_else(|said| {
        let detail = format!("redb gave up on it: {said}");
        Err(MetaDbError::Damaged { location: path.display().to_string(), detail })
    })
}

/// A commit that failed: the file may hold what was before it, or after it.
fn unsettled(path: &Path, error: redb::Error) -> MetaDbError {
    let source = match error {
        redb::Error::Io(source) => source.into(),
        error => error.into(),
    };
    MetaDbError::Unsettled { location: path.display().to_string(), source }
}

fn failure(action: &'static str, path: &Path, error: redb::Error) -> MetaDbError {
    let location = path.display().to_string();
    match error {
        redb::Error::Corrupted(detail) => MetaDbError::Damaged { location, detail },
        redb::Error::Io(source) if source.kind() == std::io::ErrorKind::InvalidData => {
            MetaDbError::Damaged { location, detail: format!("not a redb file ({source})") }
        }
        redb::Error::Io(source) => MetaDbError::Io { action, location, source: source.into() },
        // Only reading is not allowed to repair.
        redb::Error::RepairAborted => MetaDbError::Unclean { location },
        error => MetaDbError::Io { action, location, source: error.into() },
    }
}
