//! Items and their attributes: zot's names, kinds and keys (spec §4.4).

use super::connect::{Link, THROTTLED_PATIENCE};
use super::errors::{Fault, Request};
use super::tables::Tables;
use crate::records::RepoState;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Partition key of every table.
pub const KEY: &str = "TableKey";
/// In the table of repos.
pub const REPO_META: &str = "RepoMeta";
/// In the table of blobs.
pub const REPO_BLOBS: &str = "RepoBlobsInfo";
/// In the table of blobs.
pub const LAST_UPDATED: &str = "RepoLastUpdated";
/// In the table of images.
pub const IMAGE_META: &str = "ImageMeta";
/// In the table of users.
pub const USER_DATA: &str = "UserData";
/// In the table of versions, under either key.
pub const VERSION: &str = "Version";
/// Key of the schema version.
pub const DB_VERSION: &str = "DBVersion";
/// Key of the stamp.
pub const STAMP: &str = "FastRestartStamp";

/// Keys that one BatchGetItem takes.
pub const BATCH: usize = 100;

/// An item's attributes.
pub type Item = HashMap<String, AttributeValue>;

/// A key, as requests want it.
pub fn key(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// Bytes, as requests want them.
pub fn binary(bytes: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(bytes))
}

/// An attribute that is text, such as an item's own key.
pub fn text<'i>(item: &'i Item, attribute: &str) -> Option<&'i str> {
    item.get(attribute)?.as_s().ok().map(String::as_str)
}

/// A record's bytes; an attribute of another kind is none of zot's.
pub fn bytes(item: &Item, attribute: &'static str) -> Result<Option<Vec<u8>>, WrongKind> {
    match item.get(attribute) {
        None => Ok(None),
        Some(AttributeValue::B(bytes)) => Ok(Some(bytes.as_ref().to_vec())),
        Some(_) => Err(WrongKind(attribute)),
    }
}

/// An attribute is not of the kind that zot gives it.
#[derive(Debug, thiserror::Error)]
#[error("its {0} attribute is not binary, as zot's are")]
pub struct WrongKind(&'static str);

/// Both items of one repo.
#[derive(Debug, Clone, Default)]
pub struct RepoItems {
    pub repo: Item,
    pub blobs: Item,
}

impl RepoItems {
    /// The records in them.
    pub fn state(&self) -> Result<RepoState, WrongKind> {
        Ok(RepoState {
            meta: bytes(&self.repo, REPO_META)?,
            blobs: bytes(&self.blobs, REPO_BLOBS)?,
            last_updated: bytes(&self.blobs, LAST_UPDATED)?,
        })
    }
}

/// Items to read: of one table, by the values of its partition key.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    pub table: &'a str,
    pub key: &'static str,
    pub values: Vec<&'a str>,
}

impl<'a> Wanted<'a> {
    /// Of one of the metaDB's tables.
    pub fn new(table: &'a str, values: Vec<&'a str>) -> Self {
        Self { table, key: KEY, values }
    }
}

/// Items by the value of their key.
pub type Items = BTreeMap<String, Item>;

impl Link {
    /// Items of every table that is wanted, in the same order: at most [`BATCH`] different keys altogether. Keys that the
    /// service leaves for later are asked for again; what is not there then does not exist.
    pub async fn batch_get(&self, wanted: &[Wanted<'_>]) -> Result<Vec<Items>, Fault> {
        let mut left: HashMap<String, KeysAndAttributes> = HashMap::new();
        for one in wanted.iter().filter(|one| !one.values.is_empty()) {
            let mut asked = KeysAndAttributes::builder().consistent_read(true);
            for value in &one.values {
                asked = asked.keys(HashMap::from([(one.key.to_owned(), key(value))]));
            }
            left.insert(one.table.to_owned(), asked.build().map_err(|error| Fault::Other(error.to_string()))?);
        }
        let tables: Vec<&str> = wanted.iter().map(|one| one.table).collect();
        let tables = tables.join(", ");
        let mut found = vec![Items::new(); wanted.len()];
        let (mut refusals, mut progress) = (0, Instant::now());
        while !left.is_empty() {
            let sent_at = Instant::now();
            let count: usize = left.values().map(|asked| asked.keys().len()).sum();
            #[expect(clippy::cast_precision_loss, reason = "at most 100")]
            let request = Request { action: "BatchGetItem", table: &tables, units: count as f64, write: false };
            let answer = self
                .call(request, || {
                    let asked = self.client.batch_get_item().set_request_items(Some(left.clone()));
                    asked.return_consumed_capacity(ReturnConsumedCapacity::Total).send()
                })
                .await?;
            let mut answered = answer.responses.unwrap_or_default();
            for (one, found) in wanted.iter().zip(&mut found) {
                for item in answered.remove(one.table).unwrap_or_default() {
                    if let Some(value) = text(&item, one.key) {
                        found.insert(value.to_owned(), item);
                    }
                }
            }
            left = answer.unprocessed_keys.unwrap_or_default();
            if left.is_empty() {
                break;
            }
            // So few keys are left over for want of capacity only.
            self.gate.left_over(sent_at);
            if left.values().map(|asked| asked.keys().len()).sum::<usize>() < count {
                (refusals, progress) = (0, Instant::now());
            } else if progress.elapsed() >= THROTTLED_PATIENCE {
                return Err(Fault::Throttled.given_up(progress.elapsed()));
            }
            self.gate.pause(refusals).await?;
            refusals += 1;
        }
        Ok(found)
    }

    /// One item; empty if there is none.
    pub async fn get(&self, table: &str, name: &str) -> Result<Item, Fault> {
        let request = Request { action: "GetItem", table, units: 1.0, write: false };
        let asked = self.client.get_item().table_name(table).key(KEY, key(name)).consistent_read(true);
        let asked = asked.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = self.call(request, || asked.clone().send()).await?;
        Ok(answer.item.unwrap_or_default())
    }

    /// Both items of a repo, as they are now.
    pub async fn repo_items(&self, tables: &Tables, repo: &str) -> Result<RepoItems, Fault> {
        let wanted = [Wanted::new(&tables.repos, vec![repo]), Wanted::new(&tables.blobs, vec![repo])];
        let mut found = self.batch_get(&wanted).await?.into_iter();
        let mut next = || found.next().and_then(|mut items| items.remove(repo)).unwrap_or_default();
        Ok(RepoItems { repo: next(), blobs: next() })
    }
}
