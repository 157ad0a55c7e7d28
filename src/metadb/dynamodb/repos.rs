//! Writing repos (spec §5.3).
//!
//! ```text
//! images: BatchGetItem ─► UpdateItem each that is new or differs
//! per repo: read both items ─► build ─► (mark as due) ─► RepoMeta ─► RepoBlobs + RepoLastUpdated
//!              ▲                                            └── if the bytes read are there no longer ──┐
//!              └────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Image records come first: they follow from their blobs alone, so they are right whatever becomes of the repo. Between
//! the two steps of a repo its RepoLastUpdated is no promise: either the repo is due by its times anyway, or it is marked
//! as due first.

use super::errors::{Fault, Request};
use super::items::{
    BATCH, IMAGE_META, KEY, LAST_UPDATED, REPO_BLOBS, REPO_META, RepoItems, Wanted, binary, bytes, key,
};
use super::reader::DynamoDbMetaDb;
use super::size::{self, Large};
use super::throttle::AT_ONCE;
use super::writer::DynamoDbWriter;
use crate::metadb::{MetaDbError, Outcome, Refusal, RepoWork, image_needs_write};
use crate::oci::time::Time;
use crate::records::{RepoChange, RepoState, encode_time};
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Repos that are read, built and written at once: each is a thread, because building may look at storage.
const REPOS: usize = 32;
/// Batches of images that are compared and written at once.
const BATCHES: usize = 8;
/// How often a repo is built again because somebody else changed its records.
const CONFLICTS: u32 = 100;

/// Refusals of images, by digest.
type Refused = BTreeMap<String, Refusal>;

impl DynamoDbWriter {
    pub(super) fn write_repos(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        if work.is_empty() {
            return Ok(Vec::new());
        }
        self.begin()?;
        let (db, link) = (&self.db, &self.db.link);
        let refused = link.run(db.write_images(work)).map_err(|fault| link.error("write", fault))?;
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<Fault>> = Mutex::new(None);
        let failed = || failed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcomes: Vec<(usize, Outcome)> = std::thread::scope(|threads| {
            let one = || {
                let mut done = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(work) = work.get(index).filter(|_| failed().is_none()) else { return done };
                    match db.write_repo(*work, &refused) {
                        Ok(outcome) => {
                            if outcome == Outcome::Done {
                                work.written();
                            }
                            done.push((index, outcome));
                        }
                        Err(fault) => drop(failed().get_or_insert(fault)),
                    }
                }
            };
            let threads: Vec<_> = (0..REPOS.min(work.len())).map(|_| threads.spawn(one)).collect();
            // A thread only ends without a result by a panic, which is passed on.
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        if let Some(fault) = failed().take() {
            return Err(link.error("write", fault));
        }
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
    }
}

impl DynamoDbMetaDb {
    /// Write the image records that are new or differ.
    async fn write_images(&self, work: &[&dyn RepoWork]) -> Result<Refused, Fault> {
        let wanted: BTreeMap<&str, (&[u8], &str)> = work
            .iter()
            .flat_map(|work| work.images().into_iter().map(|(digest, record)| (digest, (record, work.repo()))))
            .collect();
        let wanted: Vec<(&str, (&[u8], &str))> = wanted.into_iter().collect();
        let refused = stream::iter(wanted.chunks(BATCH)).map(|chunk| self.write_image_batch(chunk));
        let refused: Vec<Refused> = refused.buffer_unordered(BATCHES).try_collect().await?;
        Ok(refused.into_iter().flatten().collect())
    }

    async fn write_image_batch(&self, batch: &[(&str, (&[u8], &str))]) -> Result<Refused, Fault> {
        let table = self.tables.images.as_str();
        let wanted = Wanted::new(table, batch.iter().map(|(digest, _)| *digest).collect());
        let mut found = self.link.batch_get(&[wanted]).await?.pop().unwrap_or_default();
        let mut refused = Refused::new();
        let mut writes = Vec::new();
        for (digest, (record, repo)) in batch {
            let item = found.remove(*digest).unwrap_or_default();
            // An attribute of another kind is overwritten, like a record that cannot be decoded.
            let prior = bytes(&item, IMAGE_META).unwrap_or_default();
            let size = size::after(&item, digest, &[(IMAGE_META, record.len())]);
            match image_needs_write(digest, prior.as_deref(), record) {
                Ok(false) => {}
                Ok(true) => match size::check(repo, Large::ImageMeta(digest), size) {
                    Ok(()) => writes.push((*digest, *record, size)),
                    Err(reason) => drop(refused.insert((*digest).to_owned(), Refusal::Unusable(reason))),
                },
                Err(refusal) => drop(refused.insert((*digest).to_owned(), refusal)),
            }
        }
        let written = stream::iter(writes).map(|(digest, record, size)| async move {
            match self.update(table, digest, &[(IMAGE_META, record)], &[], size).await {
                Err(Fault::TooLarge) => {
                    let reason = size::refused(Large::ImageMeta(digest), size);
                    Ok(Some((digest.to_owned(), Refusal::Unusable(reason))))
                }
                other => other.map(|()| None),
            }
        });
        let late: Vec<Option<(String, Refusal)>> = written.buffer_unordered(AT_ONCE).try_collect().await?;
        refused.extend(late.into_iter().flatten());
        Ok(refused)
    }

    /// Read, build and write one repo, again while somebody else changes it.
    fn write_repo(&self, work: &dyn RepoWork, refused: &Refused) -> Result<Outcome, Fault> {
        let (link, repo) = (&self.link, work.repo());
        let mut begun: Option<(RepoState, RepoChange)> = None;
        for conflicts in 0..CONFLICTS {
            if link.cancel.is_cancelled() {
                return Err(Fault::Cancelled);
            }
            let items = link.run(link.repo_items(&self.tables, repo))?;
            let now = match items.state() {
                Ok(state) => state,
                Err(error) => return Ok(Outcome::Refused(Refusal::Unusable(error.to_string()))),
            };
            // Our own write, whose answer was lost, or a part of it, is no reason to build anew: on its own result the
            // fold may come to another.
            let change = match begun.take() {
                Some((prior, change)) if is_on_the_way(&now, &prior, &change) => change,
                _ => match built(work, &now).and_then(|change| images_allow(work, refused).map(|()| change)) {
                    Ok(change) => change,
                    Err(refusal) => return Ok(Outcome::Refused(refusal)),
                },
            };
            if let Err(reason) = check_sizes(repo, &items, &change) {
                return Ok(Outcome::Refused(Refusal::Unusable(reason)));
            }
            match link.run(self.commit(repo, &items, &now, &change)) {
                Ok(()) => return Ok(Outcome::Done),
                Err(Fault::Condition) => {}
                Err(fault) => return Err(fault),
            }
            begun = Some((now, change));
            link.run(link.gate.pause(conflicts.min(4)))?;
        }
        let reason = format!("somebody else changed its records {CONFLICTS} times while they were built");
        Ok(Outcome::Refused(Refusal::Unusable(reason)))
    }

    /// Carry out a change of the records `now`.
    async fn commit(&self, repo: &str, items: &RepoItems, now: &RepoState, change: &RepoChange) -> Result<(), Fault> {
        let tables = &self.tables;
        let (meta, blobs, last_updated) = match change {
            RepoChange::Keep => return Ok(()),
            RepoChange::Delete => {
                // What lists a repo goes last, so that a walk that ends in between is followed by one that finds it.
                let rest = [(REPO_BLOBS, now.blobs.as_deref()), (LAST_UPDATED, now.last_updated.as_deref())];
                self.delete(&tables.blobs, repo, &rest).await?;
                return self.delete(&tables.repos, repo, &[(REPO_META, now.meta.as_deref())]).await;
            }
            RepoChange::Write { meta, blobs, last_updated } => (meta, blobs, last_updated),
        };
        let differs = |new: &'_ Option<Vec<u8>>, old: &Option<Vec<u8>>| new.is_some() && new != old;
        let (new_meta, new_blobs) = (differs(meta, &now.meta), differs(blobs, &now.blobs));
        let mut now = now.clone();
        let becomes_due = last_updated.as_ref().is_some_and(|at| *at == encode_time(Time::ZERO));
        if new_meta && (new_blobs || becomes_due) && !now.last_updated().is_zero() {
            let due = encode_time(Time::ZERO);
            self.write_blobs(repo, items, &now, None, Some(&due)).await?;
            now.last_updated = Some(due);
        }
        if let Some(meta) = meta.as_deref().filter(|_| new_meta) {
            let size = size::after(&items.repo, repo, &[(REPO_META, meta.len())]);
            self.update(&tables.repos, repo, &[(REPO_META, meta)], &[(REPO_META, now.meta.as_deref())], size).await?;
        }
        let blobs = blobs.as_deref().filter(|_| new_blobs);
        let last_updated = last_updated.as_deref().filter(|at| now.last_updated.as_deref() != Some(*at));
        if blobs.is_none() && last_updated.is_none() {
            return Ok(());
        }
        self.write_blobs(repo, items, &now, blobs, last_updated).await
    }

    async fn write_blobs(
        &self,
        repo: &str,
        items: &RepoItems,
        now: &RepoState,
        blobs: Option<&[u8]>,
        last_updated: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let set: Vec<(&str, &[u8])> = [(REPO_BLOBS, blobs), (LAST_UPDATED, last_updated)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let lengths: Vec<(&str, usize)> = set.iter().map(|(name, value)| (*name, value.len())).collect();
        let size = size::after(&items.blobs, repo, &lengths);
        let unchanged = [(REPO_BLOBS, now.blobs.as_deref()), (LAST_UPDATED, now.last_updated.as_deref())];
        self.update(&self.tables.blobs, repo, &set, &unchanged, size).await
    }

    /// Set attributes of an item that will take `size` bytes, if others are as they were.
    async fn update(
        &self,
        table: &str,
        name: &str,
        set: &[(&str, &[u8])],
        unchanged: &[(&str, Option<&[u8]>)],
        size: usize,
    ) -> Result<(), Fault> {
        let mut asked = self.link.client.update_item().table_name(table).key(KEY, key(name));
        let mut sets = Vec::new();
        for (number, (attribute, value)) in set.iter().enumerate() {
            asked = asked.expression_attribute_names(format!("#s{number}"), *attribute);
            asked = asked.expression_attribute_values(format!(":s{number}"), binary(value));
            sets.push(format!("#s{number} = :s{number}"));
        }
        asked = asked.update_expression(format!("SET {}", sets.join(", ")));
        let (conditions, names, values) = conditions(unchanged);
        for (name, attribute) in names {
            asked = asked.expression_attribute_names(name, attribute);
        }
        for (name, value) in values {
            asked = asked.expression_attribute_values(name, binary(value));
        }
        let asked = asked.set_condition_expression((!conditions.is_empty()).then_some(conditions));
        let asked = asked.return_consumed_capacity(ReturnConsumedCapacity::Total);
        #[expect(clippy::cast_precision_loss, reason = "at most 400")]
        let units = size.div_ceil(1024) as f64;
        let request = Request { action: "UpdateItem", table, units, write: true };
        self.link.call(request, || asked.clone().send()).await.map(drop)
    }

    /// Delete an item if its attributes are as they were.
    async fn delete(&self, table: &str, name: &str, unchanged: &[(&str, Option<&[u8]>)]) -> Result<(), Fault> {
        let mut asked = self.link.client.delete_item().table_name(table).key(KEY, key(name));
        let (conditions, names, values) = conditions(unchanged);
        for (name, attribute) in names {
            asked = asked.expression_attribute_names(name, attribute);
        }
        for (name, value) in values {
            asked = asked.expression_attribute_values(name, binary(value));
        }
        let asked = asked.condition_expression(conditions).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = Request { action: "DeleteItem", table, units: 1.0, write: true };
        self.link.call(request, || asked.clone().send()).await.map(drop)
    }
}

/// A condition expression with its names and values: all these attributes are as they were read.
type Conditions<'a> = (String, Vec<(String, String)>, Vec<(String, &'a [u8])>);

fn conditions<'a>(unchanged: &[(&str, Option<&'a [u8]>)]) -> Conditions<'a> {
    let (mut all, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (attribute, value)) in unchanged.iter().enumerate() {
        names.push((format!("#u{number}"), (*attribute).to_owned()));
        match value {
            Some(value) => {
                values.push((format!(":u{number}"), *value));
                all.push(format!("#u{number} = :u{number}"));
            }
            None => all.push(format!("attribute_not_exists(#u{number})")),
        }
    }
    (all.join(" AND "), names, values)
}

/// Whether nobody but ourselves changed the records since they were `prior`.
fn is_on_the_way(now: &RepoState, prior: &RepoState, change: &RepoChange) -> bool {
    let (meta, blobs, last_updated) = match change {
        RepoChange::Keep => return now == prior,
        RepoChange::Delete => {
            let either = |now: &Option<Vec<u8>>, prior: &Option<Vec<u8>>| now.is_none() || now == prior;
            return either(&now.meta, &prior.meta)
                && either(&now.blobs, &prior.blobs)
                && either(&now.last_updated, &prior.last_updated);
        }
        RepoChange::Write { meta, blobs, last_updated } => (meta, blobs, last_updated),
    };
    let either = |now: &Option<Vec<u8>>, prior: &Option<Vec<u8>>, new: &Option<Vec<u8>>| {
        now == prior || new.is_some() && now == new
    };
    let due = Some(encode_time(Time::ZERO));
    either(&now.meta, &prior.meta, meta)
        && either(&now.blobs, &prior.blobs, blobs)
        && (either(&now.last_updated, &prior.last_updated, last_updated) || now.last_updated == due)
}

/// Each repo is built on a thread of its own, so what takes time is begun with it.
fn built(work: &dyn RepoWork, now: &RepoState) -> Result<RepoChange, Refusal> {
    work.prepare();
    work.build(now)
}

/// A repo whose images could not be written stays as it is.
fn images_allow(work: &dyn RepoWork, refused: &Refused) -> Result<(), Refusal> {
    if refused.is_empty() {
        return Ok(());
    }
    work.images().iter().find_map(|(digest, _)| refused.get(*digest)).map_or(Ok(()), |refusal| Err(refusal.clone()))
}

/// Whether both items of a repo will fit; before either is written.
fn check_sizes(repo: &str, items: &RepoItems, change: &RepoChange) -> Result<(), String> {
    let RepoChange::Write { meta, blobs, last_updated } = change else { return Ok(()) };
    if let Some(meta) = meta {
        size::check(repo, Large::RepoMeta(meta), size::after(&items.repo, repo, &[(REPO_META, meta.len())]))?;
    }
    if let Some(blobs) = blobs {
        let time = last_updated.as_ref().map_or(0, Vec::len);
        let set = [(REPO_BLOBS, blobs.len()), (LAST_UPDATED, time)];
        size::check(repo, Large::RepoBlobs(blobs), size::after(&items.blobs, repo, &set))?;
    }
    Ok(())
}
