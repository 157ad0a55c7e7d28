//! Writing repos, several per round trip, each under zot's lock (spec §4.3, lock protocol).
//!
//! ```text
//! HMGET images ─► HSET images, SET locks NX, HGET records ─► build ─► script per repo: lock still ours? write, unlock
//! ```
//!
//! Image records come first: they follow from their blobs alone, so they are right whatever becomes of the repo, and the
//! locks are held for milliseconds only. Every arrow is a round trip: beside busy readers each costs two changes of threads.
//! After a broken connection a group begins anew, except for repos whose script was acknowledged.

use super::connect::Retry;
use super::errors::Fault;
use super::reader::IMAGES_AT_ONCE;
use super::scripts::{Commit, LOCK_SECONDS};
use super::walk_lock::token;
use super::wire::{self, Batch};
use super::writer::RedisWriter;
use crate::metadb::{MetaDbError, Outcome, Refusal, RepoWork, image_needs_write};
use crate::parallel::parallel;
use crate::records::{RepoChange, RepoState};
use redis::Value;
use std::collections::HashMap;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Repos locked together.
const REPOS: usize = 64;
/// Commands per round trip that ask for images.
const READS_AT_ONCE: usize = 8;
/// Image bytes that close a group.
pub(super) const GROUP_BYTES: usize = 4 << 20;
/// Encoded commands per round trip.
const BATCH_BYTES: usize = 4 << 20;
/// Repos built at once: records of many images take their time, and what is locked holds up zot.
const BUILT_AT_ONCE: usize = 4;
/// Bytes of prior records that are worth a thread of their own. What has none is built already, as a rule.
const BYTES_PER_THREAD: usize = 256 << 10;
/// Image records set by one command: it holds up everybody else's.
const SET_AT_ONCE: usize = 64;

/// zot's locks: attempts, pauses between them, and life less the allowance for clock drift.
const ATTEMPTS: u32 = 32;
const PAUSE_MILLIS: std::ops::Range<u64> = 50..250;
const LOCK_LIFE: Duration = Duration::from_millis(8000 - 80);
/// Locks older than this are extended.
const EXTEND_AFTER: Duration = Duration::from_secs(2);
/// How often a repo may lose its lock before its change is there.
const LOSSES: u32 = 3;

/// One repo on its way.
struct Job<'w> {
    work: &'w dyn RepoWork,
    lock: String,
    outcome: Option<Outcome>,
    /// Why its images cannot be written.
    images: Option<Refusal>,
    attempts: u32,
    losses: u32,
    not_before: Instant,
    /// Token of an attempt whose fate is unknown.
    stale: Option<Vec<u8>>,
}

/// A repo under its lock.
struct Held<'g, 'w> {
    job: &'g mut Job<'w>,
    token: Vec<u8>,
    prior: RepoState,
}

impl RedisWriter {
    pub(super) fn write_groups(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        let mut outcomes = Vec::with_capacity(work.len());
        let mut rest = work;
        while !rest.is_empty() {
            let mut bytes = 0;
            let full = rest.iter().position(|work| {
                bytes += work.images().iter().map(|(_, record)| record.len()).sum::<usize>();
                bytes > GROUP_BYTES
            });
            let size = full.map_or(rest.len(), |at| at + 1).min(REPOS);
            let (group, later) = rest.split_at(size);
            outcomes.append(&mut self.group(group)?);
            rest = later;
        }
        Ok(outcomes)
    }

    fn group(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        let now = Instant::now();
        let mut jobs: Vec<Job<'_>> = work
            .iter()
            .map(|work| Job {
                work: *work,
                lock: self.db.options.keys.repo_lock(work.repo()),
                outcome: None,
                images: None,
                attempts: 0,
                losses: 0,
                not_before: now,
                stale: None,
            })
            .collect();
        let mut retry = Retry::new();
        while let Err(fault) = self.attempt(&mut jobs) {
            let again = self.link().again(&mut retry, fault);
            if let Err((fault, tried)) = again {
                self.abandon(&jobs);
                return Err(self.failure("write", fault, tried));
            }
        }
        Ok(jobs.into_iter().map(|job| job.outcome.unwrap_or(Outcome::Refused(Refusal::Moved))).collect())
    }

    /// Let go of what may be locked: zot need not wait until it expires.
    fn abandon(&mut self, jobs: &[Job<'_>]) {
        let mut batch = Batch::default();
        for job in jobs {
            if let Some(token) = &job.stale {
                batch.release(&job.lock, token);
            }
        }
        if let Err(fault) = self.link().once(&batch) {
            tracing::debug!("redis: locks of repos stay until they expire: {fault:?}");
        }
    }

    /// Everything that is left of a group, on one connection.
    fn attempt(&mut self, jobs: &mut [Job<'_>]) -> Result<(), Fault> {
        self.images(jobs)?;
        loop {
            let now = Instant::now();
            let left = jobs.iter().filter(|job| job.outcome.is_none());
            let Some(next) = left.map(|job| job.not_before).min() else { return Ok(()) };
            if next > now {
                if self.cancel.is_cancelled() {
                    return Err(Fault::Cancelled);
                }
                std::thread::sleep(next - now);
            }
            self.locked_round(jobs)?;
        }
    }

    /// Write the image records that are new or differ. The last of those that come with their repos are only packed: they go
    /// with the locks.
    fn images(&mut self, jobs: &mut [Job<'_>]) -> Result<(), Fault> {
        let mut batch = std::mem::take(&mut self.room);
        let key = self.db.options.keys.images.as_bytes();
        let mut link = self.link();
        let mut wanted: Vec<(usize, &str, &[u8])> = Vec::new();
        for (index, job) in jobs.iter_mut().enumerate().filter(|(_, job)| job.outcome.is_none()) {
            job.images = None;
            wanted.extend(job.work.images().into_iter().map(|(digest, record)| (index, digest, record)));
        }
        let mut known = Vec::with_capacity(wanted.len());
        let mut pending: HashMap<&str, &[u8]> = HashMap::new();
        for chunks in wanted.chunks(IMAGES_AT_ONCE * READS_AT_ONCE) {
            batch.clear();
            for chunk in chunks.chunks(IMAGES_AT_ONCE) {
                let mut args = vec![key];
                args.extend(chunk.iter().map(|(_, digest, _)| digest.as_bytes()));
                batch.push("HMGET", &args);
            }
            for reply in link.once_ok(&batch)? {
                let found = wire::list(reply)?;
                for ((index, digest, new), found) in wanted.iter().skip(known.len()).zip(found) {
                    let found = wire::bytes(found)?;
                    let needed = image_needs_write(digest, pending.get(digest).copied().or(found.as_deref()), new);
                    if needed == Ok(true) {
                        pending.insert(digest, new);
                    }
                    known.push(*needed.as_ref().unwrap_or(&false));
                    if let (Err(refusal), Some(job)) = (needed, jobs.get_mut(*index)) {
                        job.images = Some(refusal);
                    }
                }
            }
        }
        let ahead = jobs.iter().any(|job| job.work.is_images_only());
        let refused = |index: usize| jobs.get(index).is_some_and(|job| job.images.is_some());
        let writes: Vec<(&str, &[u8])> = wanted
            .iter()
            .zip(known)
            .filter(|((index, ..), needed)| *needed && !refused(*index))
            .map(|((_, digest, record), _)| (*digest, *record))
            .collect();
        batch.clear();
        for chunk in writes.chunks(SET_AT_ONCE) {
            let mut args = vec![key];
            args.extend(chunk.iter().flat_map(|(digest, record)| [digest.as_bytes(), *record]));
            batch.push("HSET", &args);
            if batch.size() >= BATCH_BYTES {
                link.once_ok(&batch)?;
                batch.clear();
            }
        }
        if !ahead {
            drop(link);
            // What is left goes with the locks.
            self.room = batch;
            return Ok(());
        }
        // Others follow at once, and begin anew after a fail-over; these may long be forgotten by then.
        batch.count(&self.db.options.keys.walk, self.lock.token(), self.count);
        let answer = link.once_ok(&batch)?.pop().unwrap_or_default();
        drop(link);
        batch.clear();
        self.room = batch;
        self.acknowledged(Self::verdict(wire::int(&answer)?)?);
        for job in jobs.iter_mut().filter(|job| job.work.is_images_only() && job.outcome.is_none()) {
            job.outcome = Some(job.images.take().map_or(Outcome::Done, Outcome::Refused));
        }
        Ok(())
    }

    fn acknowledged(&mut self, count: i64) {
        self.count = self.count.max(u64::try_from(count).unwrap_or(0));
    }

    /// Lock what can be locked now, build it, write it.
    fn locked_round(&mut self, jobs: &mut [Job<'_>]) -> Result<(), Fault> {
        let mut sent = Instant::now();
        let mut held = self.lock(jobs)?;
        held.iter().for_each(|one| one.job.work.prepare());
        let built = std::thread::scope(|threads| {
            let (done, waiting) = channel::<()>();
            let held = &held;
            let building = threads.spawn(move || {
                let _done = done;
                let prior = held.iter().flat_map(|one| [&one.prior.meta, &one.prior.blobs]);
                let bytes: usize = prior.flatten().map(Vec::len).sum();
                let jobs = (bytes / BYTES_PER_THREAD).clamp(1, BUILT_AT_ONCE);
                parallel(held, jobs, |one| one.job.work.build(&one.prior))
            });
            // However long it takes: the locks are kept.
            while waiting.recv_timeout(EXTEND_AFTER) == Err(RecvTimeoutError::Timeout) {
                sent = self.extend(held)?;
            }
            Ok::<_, Fault>(building.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        let changes = held.iter_mut().zip(built).map(|(one, built)| match one.job.images.take() {
            Some(refusal) => built.and(Err(refusal)),
            None => built,
        });
        let changes = changes.collect();
        if sent.elapsed() > EXTEND_AFTER {
            self.extend(&held)?;
        }
        self.commit(&mut held, changes)
    }

    /// Send what is in the room, try every lock that is due, and read what it protects, in the same breath.
    fn lock<'g, 'w>(&mut self, jobs: &'g mut [Job<'w>]) -> Result<Vec<Held<'g, 'w>>, Fault> {
        let keys = &self.db.options.keys;
        let now = Instant::now();
        let mut due: Vec<(&mut Job<'_>, Vec<u8>, bool)> = Vec::new();
        let mut batch = std::mem::take(&mut self.room);
        let images = batch.len();
        for job in jobs.iter_mut().filter(|job| job.outcome.is_none() && job.not_before <= now) {
            let token = token()?;
            // An attempt that is not known to have failed may have succeeded.
            let stale = job.stale.replace(token.clone());
            if let Some(stale) = &stale {
                batch.release(&job.lock, stale);
            }
            batch.push("SET", &[job.lock.as_bytes(), &token, b"EX", LOCK_SECONDS, b"NX"]);
            for hash in [&keys.repos, &keys.blobs, &keys.last_updated] {
                batch.push("HGET", &[hash.as_bytes(), job.work.repo().as_bytes()]);
            }
            due.push((job, token, stale.is_some()));
        }
        let mut replies = self.link().once_ok(&batch)?.into_iter().skip(images);
        batch.clear();
        self.room = batch;
        let in_time = now.elapsed() < LOCK_LIFE;
        let mut held = Vec::with_capacity(due.len());
        for (job, token, released) in due {
            let mut next = || replies.next().unwrap_or_default();
            if released {
                next();
            }
            let set = next();
            let prior = RepoState {
                meta: wire::bytes(next())?,
                blobs: wire::bytes(next())?,
                last_updated: wire::bytes(next())?,
            };
            match set {
                Value::Nil => job.stale = None,
                _ if in_time => {
                    held.push(Held { job, token, prior });
                    continue;
                }
                // Ours, but perhaps expired: the next attempt lets go of it first.
                _ => {}
            }
            job.attempts += 1;
            job.not_before = Instant::now() + pause()?;
            if job.attempts >= ATTEMPTS {
                let reason = format!("its lock {} is held by somebody else all the time", job.lock);
                job.outcome = Some(Outcome::Refused(Refusal::Unusable(reason)));
            }
        }
        Ok(held)
    }

    /// Give all locks their full time again. One that is lost already is noticed when it is written under.
    fn extend(&mut self, held: &[Held<'_, '_>]) -> Result<Instant, Fault> {
        let at = Instant::now();
        let mut batch = Batch::default();
        held.iter().for_each(|one| batch.extend(&one.job.lock, &one.token));
        self.link().once_ok(&batch)?;
        Ok(at)
    }

    fn commit(&mut self, held: &mut [Held<'_, '_>], changes: Vec<Result<RepoChange, Refusal>>) -> Result<(), Fault> {
        let mut waiting: Vec<(&mut Held<'_, '_>, Outcome, bool)> = Vec::new();
        let mut batch = std::mem::take(&mut self.room);
        for (one, change) in held.iter_mut().zip(changes) {
            let (outcome, writes) = match change {
                Err(refusal) => (Outcome::Refused(refusal), false),
                Ok(RepoChange::Keep) => (Outcome::Done, false),
                Ok(change) => {
                    self.push_commit(&mut batch, one, &change);
                    (Outcome::Done, true)
                }
            };
            if !writes {
                batch.release(&one.job.lock, &one.token);
            }
            waiting.push((one, outcome, writes));
            if batch.size() >= BATCH_BYTES {
                self.send(&batch, std::mem::take(&mut waiting))?;
                batch.clear();
            }
        }
        self.send(&batch, waiting)?;
        batch.clear();
        self.room = batch;
        Ok(())
    }

    fn push_commit(&self, batch: &mut Batch, one: &Held<'_, '_>, change: &RepoChange) {
        let keys = &self.db.options.keys;
        let records = match change {
            RepoChange::Write { meta, blobs, last_updated } => {
                Some([last_updated.as_deref(), blobs.as_deref(), meta.as_deref()])
            }
            RepoChange::Keep | RepoChange::Delete => None,
        };
        batch.commit(&Commit {
            walk: &keys.walk,
            walk_token: self.lock.token(),
            count: self.count,
            lock: &one.job.lock,
            lock_token: &one.token,
            repo: one.job.work.repo(),
            records,
            hashes: [&keys.last_updated, &keys.blobs, &keys.repos],
        });
    }

    fn send(&mut self, batch: &Batch, waiting: Vec<(&mut Held<'_, '_>, Outcome, bool)>) -> Result<(), Fault> {
        let replies = self.link().once(batch)?;
        let mut failed = None;
        for ((one, outcome, writes), (index, reply)) in waiting.into_iter().zip(replies.into_iter().enumerate()) {
            let answer = reply.map_err(|error| Fault::reply(&error, batch.name(index))).and_then(|reply| {
                let answer = wire::int(&reply)?;
                if writes { Self::verdict(answer) } else { Ok(answer) }
            });
            let job = &mut one.job;
            match answer {
                Ok(-2) if writes => {
                    job.stale = None;
                    job.losses += 1;
                    if job.losses >= LOSSES {
                        let reason = format!("its lock {} expired before it could be written", job.lock);
                        job.outcome = Some(Outcome::Refused(Refusal::Unusable(reason)));
                    }
                }
                Ok(count) => {
                    if writes {
                        self.acknowledged(count);
                    }
                    job.stale = None;
                    if outcome == Outcome::Done {
                        job.work.written();
                    }
                    job.outcome = Some(outcome);
                }
                // What does not pass comes first.
                Err(fault) if failed.as_ref().is_none_or(Fault::passes) => failed = Some(fault),
                Err(_) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// zot's pause between two attempts.
fn pause() -> Result<Duration, Fault> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| Fault::Other(format!("no random numbers: {error}")))?;
    let range = PAUSE_MILLIS.end - PAUSE_MILLIS.start;
    Ok(Duration::from_millis(PAUSE_MILLIS.start + u64::from_le_bytes(bytes) % range))
}
