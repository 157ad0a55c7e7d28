//! The metaDB: zot's record store, behind one pair of traits for every driver (spec: "Backends").
//!
//! [`MetaDb`] reads and never writes: no table is created, no lock taken. [`MetaDbWriter`] can only be opened with a
//! [`WriteToken`] and takes whole repos: for each it reads the prior records, asks the caller for the change and commits
//! that change as one unit. How a driver protects the read-compute-write (an exclusive file lock, zot's own lock, a
//! conditional write) stays behind [`MetaDbWriter::write`]; the caller's closure may be asked again with newer records.

mod blob_cache;
pub mod bolt;
mod create;
pub mod dynamodb;
pub mod redb;
pub mod redis;

pub use blob_cache::Recorded;

use crate::cancel::Cancel;
use crate::checksum::Checksum;
use crate::oci::time::Time;
use crate::progress::Pressure;
use crate::records::wire::{Record, lost_if_rewritten};
use crate::records::{RepoChange, RepoState};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// [`MetaDbWriter::images_ahead`] where a commit costs much: a repo that fills many of them.
pub const MANY_BATCHES: usize = 17;

/// The only schema version there is.
pub const SCHEMA: &str = "V1";

/// Where a metaDB is.
#[derive(Debug, Clone)]
pub enum Place {
    /// zot's BoltDB file.
    Bolt(PathBuf),
    /// metactl's own embedded metaDB; zot never opens it.
    Redb(PathBuf),
    /// zot's keys in Redis.
    Redis(Box<redis::RedisOptions>),
    /// zot's tables in DynamoDB.
    DynamoDb(Box<dynamodb::DynamoDbOptions>),
}

impl Place {
    /// From `bolt:PATH`, `redb:PATH`, a Redis URL (`redis://`, `rediss://`, `unix://`) as zot reads it, with
    /// `keyprefix` as one more option, or `dynamodb:ENDPOINT?region=REGION&prefix=PREFIX`.
    ///
    /// # Errors
    /// What is wrong with the text; never quotes it, because other forms of it hold passwords.
    pub fn parse(url: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected bolt:PATH, redb:PATH, redis://HOST or dynamodb:ENDPOINT?region=REGION&prefix=PREFIX";
        let (driver, place) = url.split_once(':').ok_or(EXPECTED)?;
        if matches!(driver, "redis" | "rediss" | "unix") {
            return Ok(Self::Redis(Box::new(redis::RedisOptions::from_url(url)?)));
        }
        if driver == "dynamodb" {
            return Ok(Self::DynamoDb(Box::new(dynamodb::DynamoDbOptions::from_url(place)?)));
        }
        match (driver, place) {
            (_, "") => Err("the path is empty".into()),
            ("bolt", path) => Ok(Self::Bolt(path.into())),
            ("redb", path) => Ok(Self::Redb(path.into())),
            _ => Err(format!("unknown driver: {EXPECTED}")),
        }
    }

    /// Name of the driver.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        match self {
            Self::Bolt(_) => "bolt",
            Self::Redb(_) => "redb",
            Self::Redis(_) => "redis",
            Self::DynamoDb(_) => "dynamodb",
        }
    }

    /// Whether zot opens metaDBs of this kind.
    #[must_use]
    pub fn is_zots(&self) -> bool {
        matches!(self, Self::Bolt(_) | Self::Redis(_) | Self::DynamoDb(_))
    }

    /// File, or address without secrets.
    #[must_use]
    pub fn location(&self) -> String {
        match self {
            Self::Bolt(path) | Self::Redb(path) => path.display().to_string(),
            Self::Redis(options) => options.location(),
            Self::DynamoDb(options) => options.location(),
        }
    }

    /// How the service takes it, where there is one that may throttle.
    #[must_use]
    pub fn pressure(&self) -> Option<Arc<Pressure>> {
        match self {
            Self::DynamoDb(options) => Some(options.pressure()),
            Self::Bolt(_) | Self::Redb(_) | Self::Redis(_) => None,
        }
    }

    /// Open for reading.
    ///
    /// # Errors
    /// [`MetaDbError::Absent`] if there is none yet.
    pub fn open(&self, cancel: &Cancel) -> Result<Box<dyn MetaDb>, MetaDbError> {
        match self {
            Self::Bolt(path) => Ok(Box::new(bolt::metadb::BoltMetaDb::open(path, cancel)?)),
            Self::Redb(path) => Ok(Box::new(redb::RedbMetaDb::open(path)?)),
            Self::Redis(options) => Ok(Box::new(redis::RedisMetaDb::open(options, cancel)?)),
            Self::DynamoDb(options) => Ok(Box::new(dynamodb::DynamoDbMetaDb::open(options, cancel)?)),
        }
    }

    /// Open for writing, waiting for other holders at most `lock_timeout`. Creates the file if it is absent; tables only
    /// where the place says so.
    ///
    /// # Errors
    /// [`MetaDbError::Locked`] if another process holds it; whatever the driver meets.
    pub fn open_writer(
        &self,
        token: WriteToken,
        lock_timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Box<dyn MetaDbWriter>, MetaDbError> {
        match self {
            Self::Bolt(path) => Ok(Box::new(bolt::metadb::BoltWriter::open(token, path, lock_timeout, cancel)?)),
            Self::Redb(path) => Ok(Box::new(redb::RedbWriter::open(token, path, lock_timeout, cancel)?)),
            Self::Redis(options) => Ok(Box::new(redis::RedisWriter::open(token, options, lock_timeout, cancel)?)),
            Self::DynamoDb(options) => Ok(Box::new(dynamodb::DynamoDbWriter::open(token, options, cancel)?)),
        }
    }
}

/// Proof that the command at hand may write. Only commands whose purpose is to write make one.
#[derive(Debug, Clone, Copy)]
pub struct WriteToken(());

impl WriteToken {
    /// For the commands that write: `walk`, `stamp write`, `stamp clear`.
    #[must_use]
    pub fn for_writing_command() -> Self {
        Self(())
    }
}

/// Why a metaDB could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetaDbError {
    /// There is no metaDB yet.
    #[error("no metaDB at {location}")]
    Absent {
        /// Place.
        location: String,
    },
    /// Another process holds it.
    #[error("metaDB {location} is locked{}", holder.as_deref().map(|by| format!(" by {by}")).unwrap_or_default())]
    Locked {
        /// Place.
        location: String,
        /// Who, if it can be found out.
        holder: Option<String>,
    },
    /// A running writer kept changing it while it was read.
    #[error("metaDB {location} is busy: it kept changing while being read")]
    Busy {
        /// Place.
        location: String,
    },
    /// Not a metaDB of this kind, or damaged.
    #[error("metaDB {location} cannot be read: {detail}")]
    Damaged {
        /// Place.
        location: String,
        /// What is wrong.
        detail: String,
    },
    /// A writer did not come to its end. The next one repairs it; readers change nothing, so they cannot.
    #[error("metaDB {location} was not closed cleanly and must be repaired before it can be read")]
    Unclean {
        /// Place.
        location: String,
    },
    /// Its schema is not [`SCHEMA`].
    #[error("metaDB {location} has schema version {found:?}, this metactl knows only \"V1\"")]
    Version {
        /// Place.
        location: String,
        /// Version found.
        found: String,
    },
    /// The stamp is no longer the one that was shown.
    #[error("the stamp in {location} changed meanwhile")]
    StampChanged {
        /// Place.
        location: String,
    },
    /// No server answers, or none that can serve.
    #[error("metaDB {location} cannot be reached: {detail}")]
    Unreachable {
        /// Place.
        location: String,
        /// What happened.
        detail: String,
    },
    /// Some or all of its tables are not there.
    #[error("metaDB {location} lacks tables: {tables}")]
    TablesMissing {
        /// Place.
        location: String,
        /// Their names.
        tables: String,
    },
    /// No credentials can be found, or they are not taken.
    #[error("metaDB {location} cannot be asked without AWS credentials that it takes: {detail}")]
    Credentials {
        /// Place.
        location: String,
        /// What was found instead.
        detail: String,
    },
    /// Wrong credentials.
    #[error("metaDB {location} refuses the login: {detail}")]
    Login {
        /// Place.
        location: String,
        /// Why.
        detail: String,
    },
    /// The user may not do what is needed.
    #[error("metaDB {location} denies {command}: {detail}")]
    Denied {
        /// Place.
        location: String,
        /// Commands that are missing.
        command: String,
        /// Whether it is the command or what it is applied to.
        detail: String,
    },
    /// The server is a replica.
    #[error("metaDB {location} is read-only: the server is a replica")]
    ReadOnly {
        /// Place.
        location: String,
    },
    /// The server has no room left.
    #[error("metaDB {location} is full: the server's memory limit is reached")]
    Full {
        /// Place.
        location: String,
    },
    /// A cluster and the configuration do not fit each other.
    #[error("metaDB {location}: {detail}")]
    Cluster {
        /// Place.
        location: String,
        /// How.
        detail: String,
    },
    /// What was written, or the right to write, is gone.
    #[error("metaDB {location} lost what this command relies on: {detail}")]
    Lost {
        /// Place.
        location: String,
        /// What.
        detail: String,
    },
    /// A write failed so late that it may have taken place or not.
    #[error("metaDB {location}: a write failed at its last step, so it may have taken place or not")]
    Unsettled {
        /// Place.
        location: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Any other failure.
    #[error("cannot {action} metaDB {location}")]
    Io {
        /// `open`, `read`, `write`.
        action: &'static str,
        /// Place.
        location: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operation was asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Kinds of records that storage accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By digest.
    ImageMeta,
    /// By repo.
    RepoMeta,
    /// By repo.
    RepoBlobs,
    /// By repo.
    RepoLastUpdated,
}

/// Makes a key short, so that many take little memory.
pub type ShortKey = fn(&str) -> u128;

/// Short keys and the checksums of their records, in no order.
pub type Checksums = Vec<(u128, Checksum)>;

/// Reading side of a metaDB.
pub trait MetaDb: Send + Sync {
    /// Schema version; `None` if it was never written.
    ///
    /// # Errors
    /// If it cannot be read.
    fn version(&self) -> Result<Option<String>, MetaDbError>;

    /// Stored stamp, exactly as stored; empty counts as absent.
    ///
    /// # Errors
    /// If it cannot be read.
    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError>;

    /// Names of all repos that have a RepoMeta record.
    ///
    /// # Errors
    /// If they cannot be listed completely.
    fn repo_names(&self) -> Result<Vec<String>, MetaDbError>;

    /// RepoLastUpdated of every repo that has one.
    ///
    /// # Errors
    /// If they cannot be listed completely.
    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError>;

    /// One repo's records.
    ///
    /// # Errors
    /// If they cannot be read.
    fn repo(&self, name: &str) -> Result<RepoState, MetaDbError>;

    /// ImageMeta records by digest, in the order asked.
    ///
    /// # Errors
    /// If they cannot be read.
    fn images(&self, digests: &[&str]) -> Result<Vec<Option<Vec<u8>>>, MetaDbError>;

    /// Digests of all ImageMeta records, some of them maybe more than once.
    ///
    /// # Errors
    /// If they cannot be listed completely.
    fn image_digests(&self, visit: &mut dyn FnMut(&str)) -> Result<(), MetaDbError>;

    /// What changes with every commit, if the driver knows such a thing: as long as it is the same, so are all records.
    ///
    /// # Errors
    /// If it cannot be read.
    fn generation(&self) -> Result<Option<String>, MetaDbError> {
        Ok(None)
    }

    /// Checksums of all records of a kind in one pass, for drivers where that costs far less than asking for each, on up
    /// to `jobs` threads. `None`: not offered.
    ///
    /// # Errors
    /// If they cannot be read completely.
    fn checksums(&self, kind: Kind, short: ShortKey, jobs: usize) -> Result<Option<Checksums>, MetaDbError> {
        let _ = (kind, short, jobs);
        Ok(None)
    }

    /// Every user's UserData record: user id and JSON text (spec §4.5). Drivers that keep users in another form give the
    /// same members in JSON.
    ///
    /// # Errors
    /// If they cannot be read completely.
    fn users(&self, visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), MetaDbError>;
}

/// Which version of a file this is: its identity, size and times. `None` if it cannot be looked at.
fn file_version(path: &std::path::Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
    Some(format!("{} {} {} {times:?}", found.dev(), found.ino(), found.len()))
}

/// One repo's share of a write.
pub trait RepoWork: Sync {
    /// Name of the repo.
    fn repo(&self) -> &str;

    /// ImageMeta records to write with it: digest and bytes.
    fn images(&self) -> Vec<(&str, &[u8])>;

    /// Whether there is nothing but images: the repo's records stay as they are, and are not read for it.
    fn is_images_only(&self) -> bool {
        false
    }

    /// Begin what takes time in [`RepoWork::build`]. Drivers call it for all repos that they are about to build, under
    /// the same protection, before they build the first.
    fn prepare(&self) {}

    /// The change, given the records as they are now. Called under the driver's protection, perhaps more than once.
    ///
    /// # Errors
    /// Why the repo's records must stay as they are.
    fn build(&self, prior: &RepoState) -> Result<RepoChange, Refusal>;

    /// The records are now as wanted. Drivers that write repos one after the other tell it at once: the next may fail.
    fn written(&self) {}
}

/// The records that `work` builds upon, read by `read`. Those of a wide repo are as large as all its images' together: they are
/// not read for every batch of these.
fn prior<E>(work: &dyn RepoWork, read: impl FnOnce() -> Result<RepoState, E>) -> Result<RepoState, E> {
    if work.is_images_only() { Ok(RepoState::default()) } else { read() }
}

/// Why a repo's records were left as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Storage changed since it was read.
    Moved,
    /// The prior records cannot be built upon, for this reason.
    Unusable(String),
}

/// What became of one [`RepoWork`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The records are now as wanted.
    Done,
    /// Nothing was changed.
    Refused(Refusal),
}

/// Writing side of a metaDB.
pub trait MetaDbWriter {
    /// Bytes of records that are best written together: where a commit rewrites pages of a file, many.
    fn batch_bytes(&self) -> usize {
        32 << 20
    }

    /// From how many batches of blobs on a repo is so large that its image records are better written before the rest of
    /// it, by a [`RepoWork`] that has nothing else. `None`: never. Only where they cannot be lost, or not unnoticed, before
    /// the rest is written.
    fn images_ahead(&self) -> Option<usize> {
        None
    }

    /// Reads through the writer's own handle, so that they see its writes.
    fn reader(&self) -> &dyn MetaDb;

    /// Replace the stamp if it still is `expected`; `None` means absent. Durable when it returns.
    ///
    /// # Errors
    /// [`MetaDbError::StampChanged`] if it is not `expected`.
    fn set_stamp(&mut self, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), MetaDbError>;

    /// Write repos, each as one unit, and return one outcome per work item. Durable when it returns.
    ///
    /// # Errors
    /// If writing failed; repos are then old or new, each as a whole.
    fn write(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError>;

    /// Remove ImageMeta records.
    ///
    /// # Errors
    /// If writing failed.
    fn delete_images(&mut self, digests: &[String]) -> Result<(), MetaDbError>;
}

/// Refuse a schema that this version does not know. A metaDB without a version is refused too, unless it is new.
///
/// # Errors
/// [`MetaDbError::Version`], or whatever reading the version meets.
pub fn check_version(db: &dyn MetaDb, location: &str) -> Result<(), MetaDbError> {
    match db.version()?.as_deref() {
        Some(SCHEMA) => Ok(()),
        found => {
            Err(MetaDbError::Version { location: location.to_owned(), found: found.unwrap_or_default().to_owned() })
        }
    }
}

/// ImageMeta records to write with one repo: digest and bytes. Or why it cannot be written.
type Wanted<'w> = Result<Vec<(&'w str, &'w [u8])>, Refusal>;

/// Which image records of each repo are to be written. `needs` tells whether one is, over what is recorded
/// ([`image_needs_write`]); it is asked in the order of the digests, in which a tree has them.
///
/// # Errors
/// Those of `needs`.
fn wanted_images<'w, E>(
    work: &[&'w dyn RepoWork],
    mut needs: impl FnMut(&str, &[u8]) -> Result<Result<bool, Refusal>, E>,
) -> Result<Vec<Wanted<'w>>, E> {
    let mut wanted: Vec<Wanted<'w>> = work.iter().map(|_| Ok(Vec::new())).collect();
    let each = work.iter().enumerate().flat_map(|(at, work)| work.images().into_iter().map(move |image| (at, image)));
    let mut images: Vec<_> = each.collect();
    // Those of one digest stay in the order of the repos, of which the last has the last word.
    images.sort_by_key(|(_, (digest, _))| *digest);
    let mut changing = "";
    for (at, (digest, new)) in images {
        let needs = needs(digest, new)?;
        let Some(wanted) = wanted.get_mut(at) else { continue };
        match (needs, &mut *wanted) {
            (Ok(needs), Ok(list)) => {
                // Also what an earlier repo makes another record of, if it is written.
                if needs || changing == digest {
                    list.push((digest, new));
                    changing = digest;
                }
            }
            (Err(refusal), list @ Ok(_)) => *list = Err(refusal),
            (_, Err(_)) => {}
        }
    }
    Ok(wanted)
}

/// Whether an ImageMeta record needs writing over `prior`.
///
/// # Errors
/// If `prior` has fields that the new record would lose.
pub fn image_needs_write(digest: &str, prior: Option<&[u8]>, new: &[u8]) -> Result<bool, Refusal> {
    match prior {
        Some(prior) if prior == new => Ok(false),
        Some(prior) => match lost_if_rewritten(Record::ImageMeta, prior) {
            Ok(Some(path)) => Err(Refusal::Unusable(format!(
                "ImageMeta record of {digest} has unknown fields ({path}) that this version would lose"
            ))),
            // What cannot be decoded is worth replacing: it is derived from the blob alone.
            Ok(None) | Err(_) => Ok(true),
        },
        None => Ok(true),
    }
}
