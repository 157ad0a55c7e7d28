//! Writing: opening, the stamp, removal of images. Repos are written in [`super::group`].

use super::connect::{Link, Patience, Retry};
use super::errors::Fault;
use super::group::GROUP_BYTES;
use super::options::RedisOptions;
use super::reader::RedisMetaDb;
use super::walk_lock::{self, WalkLock};
use super::wire::{self, Batch};
use crate::cancel::Cancel;
use crate::metadb::{MetaDb, MetaDbError, MetaDbWriter, Outcome, RepoWork, SCHEMA, WriteToken};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a held walk lock is tried again.
const POLL: Duration = Duration::from_millis(250);
/// Digests removed with one command.
const DELETE_AT_ONCE: usize = 500;

/// A metaDB opened for writing, under the walk lock.
pub struct RedisWriter {
    pub(super) db: RedisMetaDb,
    pub(super) lock: WalkLock,
    /// Writes acknowledged under the lock.
    pub(super) count: u64,
    /// Commands that go with the next ones; the same memory serves again and again.
    pub(super) room: Batch,
    pub(super) cancel: Cancel,
}

impl RedisWriter {
    /// Open, waiting for another metactl at most `lock_timeout`. Until all checks have passed nothing is written.
    ///
    /// # Errors
    /// [`MetaDbError::Locked`], [`MetaDbError::Version`], [`MetaDbError::Denied`] with every command that is missing,
    /// [`MetaDbError::ReadOnly`], [`MetaDbError::Full`], [`MetaDbError::Cluster`].
    pub fn open(
        _token: WriteToken,
        options: &RedisOptions,
        lock_timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Self, MetaDbError> {
        let (db, found) = RedisMetaDb::connect(options, cancel)?;
        if let Some(version) = found.version.filter(|version| version != SCHEMA) {
            return Err(MetaDbError::Version { location: db.location, found: version });
        }
        let keys = &db.options.keys;
        let mut kinds = Batch::default();
        for hash in [&keys.repos, &keys.blobs, &keys.last_updated, &keys.images] {
            kinds.push("HGET", &[hash.as_bytes(), b"-"]);
        }
        kinds.push("GET", &[keys.stamp.as_bytes()]);
        db.run("open", &kinds)?;
        rehearse(&db)?;
        let lock = take_walk_lock(&db, lock_timeout, cancel)?;
        let writer = Self { db, lock, count: 0, room: Batch::default(), cancel: cancel.clone() };
        writer.initialise(lock_timeout)?;
        writer.link().set_patience(Patience::Time(options.patience));
        Ok(writer)
    }

    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        self.db.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The schema version, if there is none, unless zot holds its lock to write it.
    fn initialise(&self, lock_timeout: Duration) -> Result<(), MetaDbError> {
        let keys = &self.db.options.keys;
        let mut batch = Batch::default();
        batch.initialise(&keys.version_lock, &keys.version, SCHEMA);
        let deadline = Instant::now() + lock_timeout;
        loop {
            let reply = self.db.run("write", &batch)?.pop().unwrap_or_default();
            if wire::int(&reply).map_err(|fault| self.db.error("write", fault, None))? == 1 {
                break;
            }
            wait(deadline, &self.cancel, || MetaDbError::Locked {
                location: self.db.location.clone(),
                holder: Some(format!("whoever holds {}", keys.version_lock)),
            })?;
        }
        crate::metadb::check_version(&self.db, &self.db.location)
    }

    /// The failure of a write. That a script may not do something does not tell what: the rehearsal does.
    pub(super) fn failure(&self, action: &'static str, fault: Fault, tried: Option<Duration>) -> MetaDbError {
        if matches!(&fault, Fault::Denied { command, .. } if command == "eval")
            && let Err(error @ MetaDbError::Denied { .. }) = rehearse(&self.db)
        {
            return error;
        }
        self.db.error(action, fault, tried)
    }

    /// What a script said about the walk.
    pub(super) fn verdict(answer: i64) -> Result<i64, Fault> {
        match answer {
            -1 => Err(Fault::Lost("the walk lock is gone: it expired, another metactl took it, or the data is lost")),
            -3 => Err(Fault::Lost("the server no longer has writes that it acknowledged, as after a fail-over")),
            other => Ok(other),
        }
    }
}

impl Drop for RedisWriter {
    fn drop(&mut self) {
        let mut link = self.db.link.lock().unwrap_or_else(PoisonError::into_inner);
        self.lock.leave(&mut link);
        drop(link);
        self.db.log_traffic();
    }
}

/// Let the server check every write that a walk makes, without making it: commands are queued and thrown away.
fn rehearse(db: &RedisMetaDb) -> Result<(), MetaDbError> {
    let keys = &db.options.keys;
    let lock = keys.repo_lock("metactl");
    let mut multi = Batch::default();
    multi.push("MULTI", &[]);
    let mut batch = Batch::default();
    for hash in [&keys.repos, &keys.blobs, &keys.last_updated, &keys.images] {
        batch.push("HSET", &[hash.as_bytes(), b"-", b"-"]);
        batch.push("HDEL", &[hash.as_bytes(), b"-"]);
    }
    for text in [&keys.stamp, &keys.version, &lock] {
        batch.push("SET", &[text.as_bytes(), b"-"]);
        batch.push("GET", &[text.as_bytes()]);
        batch.push("DEL", &[text.as_bytes()]);
    }
    batch.push("EXISTS", &[keys.version_lock.as_bytes()]);
    batch.push("EVAL", &[b"return 1", b"1", keys.walk.as_bytes()]);
    batch.push("HGET", &[keys.walk.as_bytes(), b"-"]);
    batch.push("HSET", &[keys.walk.as_bytes(), b"-", b"-"]);
    batch.push("HINCRBY", &[keys.walk.as_bytes(), b"-", b"1"]);
    batch.push("PEXPIRE", &[keys.walk.as_bytes(), b"1"]);
    batch.push("TIME", &[]);
    batch.push("DISCARD", &[]);

    let mut link = db.link.lock().unwrap_or_else(PoisonError::into_inner);
    let mut retry = Retry::new();
    let fault = loop {
        // MULTI alone first: without it the others would be carried out.
        let fault = match link.once_guarded(&multi, &batch) {
            Ok(replies) => denials(&replies, &batch),
            Err(fault) => Some(fault),
        };
        let Some(fault) = fault else { return Ok(()) };
        match link.again(&mut retry, fault) {
            Ok(()) => {}
            Err(fault) => break fault,
        }
    };
    drop(link);
    Err(db.error("write", fault.0, fault.1))
}

/// Everything that is not allowed, as one; else the first other failure.
fn denials(replies: &[wire::Reply], batch: &Batch) -> Option<Fault> {
    let faults = replies.iter().enumerate().filter_map(|(index, reply)| {
        let error = reply.as_ref().err()?;
        Some(Fault::reply(error, batch.name(index)))
    });
    let mut commands: Vec<String> = Vec::new();
    let mut why = String::new();
    let mut other = None;
    for fault in faults {
        match fault {
            Fault::Denied { command, detail } => {
                if !commands.contains(&command) {
                    commands.push(command);
                }
                why = detail;
            }
            fault => other = other.or(Some(fault)),
        }
    }
    if commands.is_empty() { other } else { Some(Fault::Denied { command: commands.join(", "), detail: why }) }
}

fn take_walk_lock(db: &RedisMetaDb, lock_timeout: Duration, cancel: &Cancel) -> Result<WalkLock, MetaDbError> {
    let deadline = Instant::now() + lock_timeout;
    let token = walk_lock::token().map_err(|fault| db.error("write", fault, None))?;
    let mut retry = Retry::new();
    loop {
        let mut link = db.link.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = match WalkLock::take(&mut link, &db.options.keys.walk, &token) {
            Ok(Ok(lock)) => return Ok(lock),
            Ok(Err(holder)) => holder,
            Err(fault) => {
                link.again(&mut retry, fault).map_err(|(fault, tried)| db.error("write", fault, tried))?;
                continue;
            }
        };
        drop(link);
        wait(deadline, cancel, || MetaDbError::Locked { location: db.location.clone(), holder: Some(holder.0) })?;
    }
}

/// Pause, unless it is too late.
fn wait(deadline: Instant, cancel: &Cancel, late: impl FnOnce() -> MetaDbError) -> Result<(), MetaDbError> {
    if cancel.is_cancelled() {
        return Err(MetaDbError::Cancelled);
    }
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(late());
    }
    std::thread::sleep(left.min(POLL));
    Ok(())
}

impl MetaDbWriter for RedisWriter {
    fn reader(&self) -> &dyn MetaDb {
        &self.db
    }

    fn set_stamp(&mut self, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), MetaDbError> {
        let keys = &self.db.options.keys;
        let stamps = [expected.unwrap_or_default(), new.unwrap_or_default()];
        let mut retry = Retry::new();
        let mut link = self.link();
        let answer = loop {
            let mut batch = Batch::default();
            let again = retry.tried().is_some();
            batch.stamp([&keys.walk, &keys.stamp], self.lock.token(), self.count, stamps, again);
            let answer = link
                .once_ok(&batch)
                .and_then(|mut replies| Self::verdict(wire::int(&replies.pop().unwrap_or_default())?));
            match answer {
                Ok(answer) => break answer,
                Err(fault) => {
                    if let Err((fault, tried)) = link.again(&mut retry, fault) {
                        drop(link);
                        return Err(self.failure("stamp", fault, tried));
                    }
                }
            }
        };
        if answer == 1 { Ok(()) } else { Err(MetaDbError::StampChanged { location: self.db.location.clone() }) }
    }

    fn batch_bytes(&self) -> usize {
        GROUP_BYTES
    }

    /// The server is kept busy while a repo is being read. What is lost is noticed: it is counted.
    fn images_ahead(&self) -> Option<usize> {
        Some(2)
    }

    fn write(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        self.write_groups(work)
    }

    fn delete_images(&mut self, digests: &[String]) -> Result<(), MetaDbError> {
        for chunk in digests.chunks(DELETE_AT_ONCE) {
            let mut args = vec![self.db.options.keys.images.as_bytes()];
            args.extend(chunk.iter().map(|digest| digest.as_bytes()));
            let mut batch = Batch::default();
            batch.push("HDEL", &args);
            self.db.run("write", &batch)?;
        }
        Ok(())
    }
}
