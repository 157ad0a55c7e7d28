//! The state file: what metactl remembers between runs (a redb file of its own).
//!
//! * Per registry and repo: what was last found to be as it should be, so that a second verify costs what changed.
//! * The stamps that were written, each with its storage config (redacted), so that `stamp show` can name the keys that
//!   changed although a fingerprint is only a hash.
//!
//! Losing the file loses time, never truth: whatever is wrong with it, the run goes on without, and says so. A damaged file
//! is moved aside, so that the next run starts anew. What another program wrote, or another version of metactl, or what
//! another run has open is not touched: not a byte of it changes.

mod digests;
mod history;
mod memory;

pub use digests::{Digests, short};
pub use history::{Change, StampRecord, changes};
pub use memory::{RepoMemory, images_checksum, records_checksum};

use crate::checksum::Checksum;
use crate::panics::{self, Contained};
use redb::{Durability, ReadableTable as _, TableDefinition};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// What a state file of any version says of itself under [`FORMAT_KEY`], before the version.
const FORMAT_OF_ALL: &[u8] = b"metactl state ";
/// What one of this version says.
const FORMAT: &[u8] = b"metactl state 1";
const FORMAT_KEY: &str = "format";
const ABOUT: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("about");
/// Key: registry, a zero byte, repo.
const REPOS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("repos");
/// Key: fingerprint.
const STAMPS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("stamps");
/// Key: registry. Value: generation of the metaDB, then the digests of its orphans, one a line.
const ORPHANS: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("orphans");
/// Key: registry. Value: the metaDB's generation in which all that is remembered of its records was last found to hold.
const GENERATIONS: TableDefinition<'static, &'static [u8], u128> = TableDefinition::new("generations");
/// Memory for pages of the file: it must not grow with the registry.
const CACHE: usize = 4 << 20;
/// Stamps that are remembered.
const STAMPS_KEPT: usize = 100;

/// Why there is no state to work with.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It was damaged; the next run starts with a new one.
    #[error("state file {path} is damaged ({detail}); it is now {moved_to}")]
    Damaged {
        /// Where it was.
        path: String,
        /// What is wrong.
        detail: String,
        /// Where it is now.
        moved_to: String,
    },
    /// It is not a state file.
    #[error("{path} is not a state file; it is left alone")]
    Foreign {
        /// The file.
        path: String,
    },
    /// It is one that another version of metactl wrote.
    #[error("state file {path} is of another version of metactl; it is left alone")]
    OtherVersion {
        /// The file.
        path: String,
    },
    /// Another metactl has it open.
    #[error("state file {path} is in use")]
    Locked {
        /// The file.
        path: String,
    },
    /// It cannot be opened, read or written.
    #[error("state file {path} cannot be used")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: Box<redb::Error>,
    },
}

/// An open state file.
pub struct State {
    db: Contained<redb::Database>,
    path: PathBuf,
    registry: Vec<u8>,
    /// Damage was met, and told.
    damaged: AtomicBool,
}

/// The usual place, as the environment has it: `$XDG_STATE_HOME`, for root `/var/lib`, else `~/.local/state`. `None`
/// without a home.
#[must_use]
pub fn default_path(variable: impl Fn(&str) -> Option<OsString>, root: bool) -> Option<PathBuf> {
    // The base directory specification: relative paths are to be ignored.
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME")
        .or_else(|| root.then(|| PathBuf::from("/var/lib")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("metactl/state.redb"))
}

impl State {
    /// Open or create. `registry` tells one registry's repos from another's: anything that identifies metaDB and stores.
    ///
    /// # Errors
    /// Whatever makes the file unusable; none of it is a reason not to go on without.
    pub fn open(path: &Path, registry: &str) -> Result<Self, StateError> {
        use sha2::Digest as _;
        let registry = sha2::Sha256::digest(registry).iter().copied().take(16).collect();
        // An empty file is what a run leaves that ends between creating and filling it.
        let absent = std::fs::metadata(path).map_or(true, |found| found.is_file() && found.len() == 0);
        if absent && let Some(parent) = path.parent() {
            create_directory(parent).map_err(|error| failure(path, error.into()))?;
        }
        if !absent {
            check_unopened(path)?;
        }
        let db = match caught(|| if absent { create(path) } else { builder().open(path) }) {
            Ok(db) => Contained::new(db),
            Err(error) => return Err(unopened(path, error)),
        };
        let state = Self { db, path: path.to_owned(), registry, damaged: AtomicBool::new(false) };
        if absent {
            state.initialise().map_err(|error| failure(path, error))?;
        }
        check_format(path, &*state.db)?;
        Ok(state)
    }

    fn initialise(&self) -> Result<(), redb::Error> {
        let transaction = self.db.begin_write()?;
        transaction.open_table(ABOUT)?.insert(FORMAT_KEY, FORMAT)?;
        transaction.open_table(REPOS)?;
        transaction.open_table(STAMPS)?;
        transaction.open_table(ORPHANS)?;
        transaction.open_table(GENERATIONS)?;
        transaction.commit()?;
        Ok(())
    }

    /// Run one read transaction.
    fn read<T>(&self, get: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        read(&*self.db, get)
    }

    /// What is remembered of a repo. What cannot be read or decoded counts as nothing.
    #[must_use]
    pub fn repo(&self, name: &str) -> Option<RepoMemory> {
        let get = |transaction: &redb::ReadTransaction| {
            let found = transaction.open_table(REPOS)?.get(self.key(name).as_slice())?;
            Ok(found.and_then(|found| RepoMemory::decode(found.value())))
        };
        self.read(get).ok()?
    }

    fn key(&self, name: &str) -> Vec<u8> {
        [self.registry.as_slice(), b"\0", name.as_bytes()].concat()
    }

    /// Run one write transaction. Durable only when the file is closed: a run that breaks off loses what it learned, and
    /// nothing else. Damage is told once: after that there is nothing to write to.
    fn write(&self, change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StateError> {
        if self.damaged.load(Ordering::Relaxed) {
            return Ok(());
        }
        let run = || {
            let mut transaction = self.db.begin_write()?;
            transaction.set_durability(Durability::None)?;
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        unless_damaged(run).map_err(|error| {
            let error = set_aside(&self.path, error);
            self.damaged.store(matches!(error, StateError::Damaged { .. }), Ordering::Relaxed);
            error
        })
    }

    /// Remember, or forget, what is known of repos.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn update(&self, repos: &[(String, Option<RepoMemory>)]) -> Result<(), StateError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(REPOS)?;
            for (name, memory) in repos {
                let key = self.key(name);
                match memory {
                    Some(memory) => drop(table.insert(key.as_slice(), memory.encode().as_slice())?),
                    None => drop(table.remove(key.as_slice())?),
                }
            }
            Ok(())
        })
    }

    /// Names of the repos of this registry that something is remembered of.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn repo_names(&self) -> Result<Vec<String>, StateError> {
        let get = |transaction: &redb::ReadTransaction| {
            let (start, end) =
                ([&self.registry, b"\0".as_slice()].concat(), [&self.registry, b"\x01".as_slice()].concat());
            let table = transaction.open_table(REPOS)?;
            let names = table.range(start.as_slice()..end.as_slice())?.map(|entry| {
                let key = entry?.0;
                Ok(String::from_utf8_lossy(key.value().get(start.len()..).unwrap_or_default()).into_owned())
            });
            names.collect()
        };
        self.read(get).map_err(|error| failure(&self.path, error))
    }

    /// The metaDB's generation (as a checksum) in which all that is remembered of this registry's records holds.
    #[must_use]
    pub fn generation(&self) -> Option<Checksum> {
        let get = |transaction: &redb::ReadTransaction| {
            let found = transaction.open_table(GENERATIONS)?.get(self.registry.as_slice())?;
            Ok(found.map(|found| found.value()))
        };
        self.read(get).ok()?
    }

    /// Remember that all of it holds in this generation.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remember_generation(&self, generation: Checksum) -> Result<(), StateError> {
        self.write(|transaction| {
            transaction.open_table(GENERATIONS)?.insert(self.registry.as_slice(), generation)?;
            Ok(())
        })
    }

    /// The orphans of this registry's metaDB, if they are remembered and the metaDB is still of that generation.
    #[must_use]
    pub fn orphans(&self, generation: Checksum) -> Option<Vec<String>> {
        let get = |transaction: &redb::ReadTransaction| {
            let found = transaction.open_table(ORPHANS)?.get(self.registry.as_slice())?;
            Ok(found.map(|found| found.value().to_vec()))
        };
        let found = self.read(get).ok()??;
        let (known, digests) = found.split_first_chunk::<16>()?;
        let digests = std::str::from_utf8(digests).ok()?;
        (*known == generation.to_le_bytes()).then(|| digests.lines().map(str::to_owned).collect())
    }

    /// Remember them. Digests are keys of the metaDB and may be anything; what holds a line feed is not remembered.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remember_orphans(&self, generation: Checksum, orphans: &[&str]) -> Result<(), StateError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(ORPHANS)?;
            if orphans.iter().any(|digest| digest.contains(['\n', '\r'])) {
                table.remove(self.registry.as_slice())?;
            } else {
                let value = [&generation.to_le_bytes(), orphans.join("\n").as_bytes()].concat();
                table.insert(self.registry.as_slice(), value.as_slice())?;
            }
            Ok(())
        })
    }

    /// Remember under which config a stamp was written.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remember_stamp(&self, record: &StampRecord) -> Result<(), StateError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(STAMPS)?;
            table.insert(record.fingerprint.as_str(), record.encode().as_slice())?;
            let mut known: Vec<(i64, String)> = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                let at = StampRecord::decode(value.value()).map_or(i64::MIN, |record| record.written_at);
                known.push((at, key.value().to_owned()));
            }
            known.sort_unstable();
            for (_, oldest) in known.iter().take(known.len().saturating_sub(STAMPS_KEPT)) {
                table.remove(oldest.as_str())?;
            }
            Ok(())
        })
    }

    /// The stamp with this fingerprint, if it is remembered.
    #[must_use]
    pub fn stamp(&self, fingerprint: &str) -> Option<StampRecord> {
        let get = |transaction: &redb::ReadTransaction| {
            let found = transaction.open_table(STAMPS)?.get(fingerprint)?;
            Ok(found.and_then(|found| StampRecord::decode(found.value())))
        };
        self.read(get).ok()?
    }
}

/// Do `work`; what redb panics over is damage.
fn unless_damaged<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, redb::Error> {
    panics::caught(work).unwrap_or_else(|said| Err(redb::Error::Corrupted(said)))
}

fn read<T>(
    db: &impl redb::ReadableDatabase,
    get: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
) -> Result<T, redb::Error> {
    unless_damaged(|| get(&db.begin_read()?))
}

/// As [`unless_damaged`], for opening.
fn caught<T>(work: impl FnOnce() -> Result<T, redb::DatabaseError>) -> Result<T, redb::DatabaseError> {
    panics::caught(work).unwrap_or_else(|said| Err(redb::StorageError::Corrupted(said).into()))
}

/// Whether an existing file is a state file of this version, found out without changing a byte of it: opening it for
/// writing would.
fn check_unopened(path: &Path) -> Result<(), StateError> {
    if !looks_like_redb(path).map_err(|error| failure(path, error.into()))? {
        return Err(StateError::Foreign { path: path.display().to_string() });
    }
    match caught(|| builder().open_read_only(path)) {
        Ok(db) => check_format(path, &db),
        // A run was killed: what the file is can be seen only after the repair.
        Err(redb::DatabaseError::RepairAborted) => Ok(()),
        Err(error) => Err(unopened(path, error)),
    }
}

/// Whether an open file is a state file of this version.
fn check_format(path: &Path, db: &impl redb::ReadableDatabase) -> Result<(), StateError> {
    let format = read(db, |transaction| match transaction.open_table(ABOUT) {
        Ok(table) => Ok(table.get(FORMAT_KEY)?.map(|found| found.value().to_vec())),
        Err(redb::TableError::TableDoesNotExist(_) | redb::TableError::TableTypeMismatch { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    });
    match format {
        Ok(Some(found)) if found == FORMAT => Ok(()),
        Ok(Some(found)) if found.starts_with(FORMAT_OF_ALL) => {
            Err(StateError::OtherVersion { path: path.display().to_string() })
        }
        Ok(_) => Err(StateError::Foreign { path: path.display().to_string() }),
        Err(error) => Err(set_aside(path, error)),
    }
}

/// Why a file cannot be opened.
fn unopened(path: &Path, error: redb::DatabaseError) -> StateError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StateError::Locked { path: path.display().to_string() },
        // A redb of long ago, with which metactl never wrote.
        redb::DatabaseError::UpgradeRequired(_) => StateError::Foreign { path: path.display().to_string() },
        error => set_aside(path, error.into()),
    }
}

/// A directory like others of its kind: for its owner alone.
fn create_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn create(path: &Path) -> Result<redb::Database, redb::DatabaseError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Names of repos are nobody else's business.
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    drop(file.map_err(redb::StorageError::from)?);
    builder().create(path)
}

fn builder() -> redb::Builder {
    let mut builder = redb::Builder::new();
    // redb could check the whole file now. That costs a second verify more than all it has to do; a file that was damaged
    // behind its back is met where it is used.
    builder.set_cache_size(CACHE);
    builder
}

/// Whether the file begins as redb files do: anything else was never ours to move.
fn looks_like_redb(path: &Path) -> std::io::Result<bool> {
    use std::io::Read as _;
    const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
    let mut start = Vec::new();
    // Reading from a pipe would wait for ever.
    if std::fs::metadata(path)?.is_file() {
        std::fs::File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    }
    Ok(start == MAGIC)
}

/// A damaged file makes room for a new one; whatever else is wrong is not the file's fault.
fn set_aside(path: &Path, error: redb::Error) -> StateError {
    use std::io::ErrorKind::{InvalidData, UnexpectedEof};
    let damaged = match &error {
        redb::Error::Corrupted(_) => true,
        redb::Error::Io(source) => matches!(source.kind(), InvalidData | UnexpectedEof),
        _ => false,
    };
    let mut moved_to = path.as_os_str().to_owned();
    moved_to.push(".damaged");
    if !damaged || std::fs::rename(path, &moved_to).is_err() {
        return failure(path, error);
    }
    StateError::Damaged {
        path: path.display().to_string(),
        detail: error.to_string(),
        moved_to: Path::new(&moved_to).display().to_string(),
    }
}

fn failure(path: &Path, source: redb::Error) -> StateError {
    StateError::Io { path: path.display().to_string(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_place_follows_the_environment() {
        let with = |set: &[(&str, &str)], root| {
            let find = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            default_path(find, root).map(|path| path.display().to_string())
        };
        let home = ("HOME", "/home/u");
        assert_eq!(with(&[home], false).as_deref(), Some("/home/u/.local/state/metactl/state.redb"));
        assert_eq!(with(&[home], true).as_deref(), Some("/var/lib/metactl/state.redb"));
        assert_eq!(with(&[home, ("XDG_STATE_HOME", "/s")], true).as_deref(), Some("/s/metactl/state.redb"));
        assert_eq!(with(&[("XDG_STATE_HOME", "s")], false), None);
        assert_eq!(with(&[], false), None);
    }
}
