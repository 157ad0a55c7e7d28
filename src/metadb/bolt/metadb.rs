//! zot's metaDB in a BoltDB file: buckets, keys and rules (spec §4.2).
//!
//! Reading takes lock-free snapshots, one per question, so it works beside a running zot. Writing holds zot's own file
//! lock from opening to closing; every [`MetaDbWriter::write`] is one BoltDB transaction.

use super::{Batch, BoltError, Bucket, Database, OpenOptions, Tx, Value, Writer};
use crate::cancel::Cancel;
use crate::checksum::checksum;
use crate::metadb::{
    Checksums, Kind, MetaDb, MetaDbError, MetaDbWriter, Outcome, RepoWork, SCHEMA, ShortKey, Wanted, WriteToken,
    check_version, image_needs_write, prior, wanted_images,
};
use crate::oci::time::Time;
use crate::parallel::parallel;
use crate::records::{RepoChange, RepoState, decode_last_updated};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

type Name = &'static [u8];
type BucketPath = &'static [Name];

const VERSION: BucketPath = &[b"Version"];
const IMAGES: BucketPath = &[b"ImageMeta"];
const REPOS: BucketPath = &[b"RepoMeta"];
const BLOBS: BucketPath = &[b"RepoBlobsMeta"];
const LAST_UPDATED: BucketPath = &[b"RepoBlobsMeta", b"RepoLastUpdated"];
const USERS: BucketPath = &[b"UserData"];
const API_KEYS: BucketPath = &[b"UserAPIKeys"];
const ALL: [BucketPath; 7] = [VERSION, IMAGES, REPOS, BLOBS, LAST_UPDATED, USERS, API_KEYS];

const DB_VERSION: &[u8] = b"DBVersion";
const STAMP: &[u8] = b"FastRestartStamp";

/// A metaDB file; `S` is how consistent states of it are had.
pub struct BoltMetaDb<S>(S);

/// Lock-free snapshots of a file that others may write.
pub struct Snapshots {
    db: Database,
    cancel: Cancel,
}

/// The committed state of a file that nobody else can write.
struct Locked {
    writer: Writer,
}

/// A metaDB file opened for writing, under zot's lock.
pub struct BoltWriter(BoltMetaDb<Locked>);

impl BoltMetaDb<Snapshots> {
    /// Open an existing file.
    ///
    /// # Errors
    /// [`MetaDbError::Absent`], [`MetaDbError::Damaged`], [`MetaDbError::Io`].
    pub fn open(path: &Path, cancel: &Cancel) -> Result<Self, MetaDbError> {
        // zot takes an empty file for a new one.
        if path.metadata().is_ok_and(|found| found.is_file() && found.len() == 0) {
            return Err(MetaDbError::Absent { location: path.display().to_string() });
        }
        Ok(Self(Snapshots { db: Database::open(path)?, cancel: cancel.clone() }))
    }
}

impl BoltWriter {
    /// Open, waiting for the lock, or create. Whatever buckets zot expects and does not find are made.
    ///
    /// # Errors
    /// [`MetaDbError::Locked`] after `lock_timeout`, [`MetaDbError::Version`] for a schema that is not known.
    pub fn open(token: WriteToken, path: &Path, lock_timeout: Duration, cancel: &Cancel) -> Result<Self, MetaDbError> {
        let options = OpenOptions { lock_timeout, create: true, cancel: cancel.clone() };
        Self::with_writer(token, Writer::open(path, &options)?)
    }

    /// Like [`BoltWriter::open`], over a file that is open already. For fault injection.
    ///
    /// # Errors
    /// As [`BoltWriter::open`], without those of the lock.
    pub fn with_writer(_token: WriteToken, writer: Writer) -> Result<Self, MetaDbError> {
        let location = writer.path().display().to_string();
        let mut opened = Self(BoltMetaDb(Locked { writer }));
        opened.initialise()?;
        check_version(&opened.0, &location)?;
        Ok(opened)
    }

    /// A file without any bucket is new; one that has some must already say which schema it follows.
    fn initialise(&mut self) -> Result<(), MetaDbError> {
        let mut batch = Batch::new();
        let tx = self.0.0.writer.tx();
        let mut absent = 0;
        for path in ALL {
            if tx.bucket(path)?.is_none() {
                batch.create_bucket(path)?;
                absent += 1;
            }
        }
        if absent == ALL.len() {
            batch.put(VERSION, DB_VERSION, SCHEMA.as_bytes())?;
        } else {
            check_version(&self.0, &self.0.0.writer.path().display().to_string())?;
        }
        if absent > 0 {
            self.0.0.writer.commit(&batch)?;
        }
        Ok(())
    }
}

/// Something that can show a consistent state of the file.
trait Reads: Send + Sync {
    fn path(&self) -> &Path;
    fn with<T>(&self, read: impl FnMut(&Tx<'_>) -> Result<T, BoltError>) -> Result<T, MetaDbError>;
}

impl Reads for Snapshots {
    fn path(&self) -> &Path {
        self.db.path()
    }

    fn with<T>(&self, read: impl FnMut(&Tx<'_>) -> Result<T, BoltError>) -> Result<T, MetaDbError> {
        Ok(self.db.snapshot(&self.cancel, read)?)
    }
}

impl Reads for Locked {
    fn path(&self) -> &Path {
        self.writer.path()
    }

    fn with<T>(&self, mut read: impl FnMut(&Tx<'_>) -> Result<T, BoltError>) -> Result<T, MetaDbError> {
        Ok(read(&self.writer.tx())?)
    }
}

fn get(tx: &Tx<'_>, path: BucketPath, key: &[u8]) -> Result<Option<Vec<u8>>, BoltError> {
    tx.bucket(path)?.map_or(Ok(None), |bucket| bucket.get(key))
}

fn state(tx: &Tx<'_>, repo: &str) -> Result<RepoState, BoltError> {
    let key = repo.as_bytes();
    Ok(RepoState { meta: get(tx, REPOS, key)?, blobs: get(tx, BLOBS, key)?, last_updated: get(tx, LAST_UPDATED, key)? })
}

/// Checksums of the values from `start` to before `end`.
fn part(
    bucket: &Option<Bucket<'_>>,
    start: &[u8],
    end: Option<&[u8]>,
    short: ShortKey,
) -> Result<Checksums, BoltError> {
    let mut found = Checksums::new();
    let Some(bucket) = bucket else { return Ok(found) };
    bucket.for_each_from(start, |key, value| -> Result<_, BoltError> {
        if end.is_some_and(|end| key >= end) {
            return Ok(ControlFlow::Break(()));
        }
        if let Value::Bytes(value) = value {
            found.push((short(&text(key)), checksum(value)));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl<S: Reads> MetaDb for BoltMetaDb<S> {
    fn version(&self) -> Result<Option<String>, MetaDbError> {
        Ok(self.0.with(|tx| get(tx, VERSION, DB_VERSION))?.map(|found| text(&found)))
    }

    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError> {
        Ok(self.0.with(|tx| get(tx, VERSION, STAMP))?.filter(|found| !found.is_empty()))
    }

    fn repo_names(&self) -> Result<Vec<String>, MetaDbError> {
        self.0.with(|tx| {
            let mut names = Vec::new();
            if let Some(bucket) = tx.bucket(REPOS)? {
                bucket.for_each_key(|key, _| -> Result<_, BoltError> {
                    names.push(text(key));
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            Ok(names)
        })
    }

    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError> {
        self.0.with(|tx| {
            let mut times = BTreeMap::new();
            if let Some(bucket) = tx.bucket(LAST_UPDATED)? {
                bucket.for_each(|key, value| -> Result<_, BoltError> {
                    if let Value::Bytes(value) = value {
                        times.insert(text(key), decode_last_updated(value));
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            Ok(times)
        })
    }

    fn repo(&self, name: &str) -> Result<RepoState, MetaDbError> {
        self.0.with(|tx| state(tx, name))
    }

    fn images(&self, digests: &[&str]) -> Result<Vec<Option<Vec<u8>>>, MetaDbError> {
        self.0.with(|tx| {
            let Some(bucket) = tx.bucket(IMAGES)? else { return Ok(vec![None; digests.len()]) };
            let mut lookup = bucket.lookup();
            digests.iter().map(|digest| lookup.get(digest.as_bytes())).collect()
        })
    }

    fn image_digests(&self, visit: &mut dyn FnMut(&str)) -> Result<(), MetaDbError> {
        let digests = self.0.with(|tx| {
            let mut digests = Vec::new();
            if let Some(bucket) = tx.bucket(IMAGES)? {
                bucket.for_each_key(|key, _| -> Result<_, BoltError> {
                    digests.push(text(key));
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            Ok(digests)
        })?;
        digests.iter().for_each(|digest| visit(digest));
        Ok(())
    }

    fn generation(&self) -> Result<Option<String>, MetaDbError> {
        let txid = self.0.with(|tx| Ok(tx.txid()))?;
        Ok(crate::metadb::file_version(self.0.path()).map(|file| format!("{txid} {file}")))
    }

    fn checksums(&self, kind: Kind, short: ShortKey, jobs: usize) -> Result<Option<Checksums>, MetaDbError> {
        let path = match kind {
            Kind::ImageMeta => IMAGES,
            Kind::RepoMeta => REPOS,
            Kind::RepoBlobs => BLOBS,
            Kind::RepoLastUpdated => LAST_UPDATED,
        };
        // Every part is a snapshot of its own, so that a writer spoils little.
        let cuts = self.0.with(|tx| tx.bucket(path)?.map_or(Ok(Vec::new()), |bucket| bucket.cuts()))?;
        let starts = std::iter::once([].as_slice()).chain(cuts.iter().map(Vec::as_slice));
        let ends = cuts.iter().map(|cut| Some(cut.as_slice())).chain([None]);
        let ranges: Vec<(&[u8], Option<&[u8]>)> = starts.zip(ends).collect();
        let parts = parallel(&ranges, jobs, |(start, end)| {
            self.0.with(|tx| tx.ahead(|tx| part(&tx.bucket(path)?, start, *end, short)))
        });
        Ok(Some(parts.into_iter().collect::<Result<Vec<_>, _>>()?.concat()))
    }

    fn users(&self, visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), MetaDbError> {
        // Collected first: a snapshot that a writer disturbs is taken again from the beginning.
        let users = self.0.with(|tx| {
            let mut users = Vec::new();
            if let Some(bucket) = tx.bucket(USERS)? {
                bucket.for_each(|key, value| -> Result<_, BoltError> {
                    if let Value::Bytes(value) = value {
                        users.push((text(key), value.to_vec()));
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
            }
            Ok(users)
        })?;
        users.iter().for_each(|(user, data)| visit(user, data));
        Ok(())
    }
}

impl MetaDbWriter for BoltWriter {
    fn images_ahead(&self) -> Option<usize> {
        Some(crate::metadb::MANY_BATCHES)
    }

    fn reader(&self) -> &dyn MetaDb {
        &self.0
    }

    fn set_stamp(&mut self, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), MetaDbError> {
        if self.0.stamp()?.as_deref() != expected {
            return Err(MetaDbError::StampChanged { location: self.0.0.writer.path().display().to_string() });
        }
        let mut batch = Batch::new();
        match new {
            Some(new) => batch.put(VERSION, STAMP, new)?,
            None => batch.delete(VERSION, STAMP)?,
        }
        Ok(self.0.0.writer.commit(&batch)?)
    }

    fn write(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        let mut batch = Batch::new();
        let outcomes = {
            let tx = self.0.0.writer.tx();
            work.iter().for_each(|work| work.prepare());
            let images = tx.bucket(IMAGES)?;
            let mut known = images.as_ref().map(Bucket::lookup);
            let wanted = wanted_images(work, |digest, new| -> Result<_, BoltError> {
                let recorded = known.as_mut().map_or(Ok(None), |known| known.get(digest.as_bytes()))?;
                Ok(image_needs_write(digest, recorded.as_deref(), new))
            })?;
            let each = work.iter().zip(wanted);
            each.map(|(work, wanted)| apply(&tx, *work, wanted, &mut batch)).collect::<Result<_, _>>()?
        };
        if !batch.is_empty() {
            self.0.0.writer.commit(&batch)?;
        }
        Ok(outcomes)
    }

    fn delete_images(&mut self, digests: &[String]) -> Result<(), MetaDbError> {
        if digests.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for digest in digests {
            batch.delete(IMAGES, digest.as_bytes())?;
        }
        Ok(self.0.0.writer.commit(&batch)?)
    }
}

fn apply<'w>(
    tx: &Tx<'_>,
    work: &'w dyn RepoWork,
    wanted: Wanted<'w>,
    batch: &mut Batch<'w>,
) -> Result<Outcome, BoltError> {
    let repo = work.repo().as_bytes();
    let change = match work.build(&prior(work, || state(tx, work.repo()))?) {
        Ok(change) => change,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    let images = match wanted {
        Ok(images) => images,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    for (digest, new) in images {
        batch.put(IMAGES, digest.as_bytes(), new)?;
    }
    match change {
        RepoChange::Keep => {}
        RepoChange::Delete => {
            for path in [REPOS, BLOBS, LAST_UPDATED] {
                batch.delete(path, repo)?;
            }
        }
        RepoChange::Write { meta, blobs, last_updated } => {
            for (path, record) in [(REPOS, meta), (BLOBS, blobs), (LAST_UPDATED, last_updated)] {
                if let Some(record) = record {
                    batch.put(path, repo, record)?;
                }
            }
        }
    }
    Ok(Outcome::Done)
}

impl From<BoltError> for MetaDbError {
    fn from(error: BoltError) -> Self {
        let place = |path: &Path| path.display().to_string();
        match error {
            BoltError::NotFound { path } => Self::Absent { location: place(&path) },
            BoltError::NotBolt { path, detail } => {
                Self::Damaged { location: place(&path), detail: format!("not a BoltDB file: {detail}") }
            }
            BoltError::Damaged { path, page, detail } => {
                Self::Damaged { location: place(&path), detail: format!("page {page} is damaged: {detail}") }
            }
            BoltError::Busy { path, .. } => Self::Busy { location: place(&path) },
            BoltError::Locked { path, holder, .. } => {
                Self::Locked { location: place(&path), holder: holder.map(|holder| holder.to_string()) }
            }
            BoltError::Io { action, path, source } => {
                Self::Io { action, location: place(&path), source: source.into() }
            }
            BoltError::Unsettled { path, source } => Self::Unsettled { location: place(&path), source: source.into() },
            BoltError::Cancelled => Self::Cancelled,
            BoltError::Replaced { ref path } | BoltError::Poisoned { ref path } => {
                Self::Io { action: "use", location: place(path), source: error.into() }
            }
            other => Self::Io { action: "write", location: "(batch)".into(), source: other.into() },
        }
    }
}
