//! Reading: GetItem, BatchGetItem, Scan and DescribeTable, always consistent.

use super::connect::Link;
use super::errors::Fault;
use super::items::{
    BATCH, DB_VERSION, IMAGE_META, Item, Items, KEY, LAST_UPDATED, REPO_BLOBS, REPO_META, STAMP, USER_DATA, VERSION,
    Wanted, bytes, text,
};
use super::options::DynamoDbOptions;
use super::scan::Scan;
use super::tables::{Found, Tables};
use super::throttle::AT_ONCE;
use super::users;
use crate::cancel::Cancel;
use crate::checksum::checksum;
use crate::metadb::{Checksums, Kind, MetaDb, MetaDbError, SCHEMA, ShortKey};
use crate::oci::time::Time;
use crate::records::{RepoState, decode_last_updated};
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use std::collections::{BTreeMap, BTreeSet};

/// An open metaDB.
pub struct DynamoDbMetaDb {
    pub(super) link: Link,
    pub(super) tables: Tables,
    /// Bytes of the tables when they were opened, as far as the service knows.
    sizes: Vec<(String, u64)>,
}

impl DynamoDbMetaDb {
    /// Open for reading. Creates no tables.
    ///
    /// # Errors
    /// [`MetaDbError::Absent`] if there are no tables, [`MetaDbError::TablesMissing`] if some are there; why the service
    /// cannot be asked.
    pub fn open(options: &DynamoDbOptions, cancel: &Cancel) -> Result<Self, MetaDbError> {
        let link = Link::new(&options.service, options.location(), cancel)?;
        let found = link.look_at(&options.tables)?;
        if found.sizes.is_empty() {
            return Err(MetaDbError::Absent { location: link.location });
        }
        Self::with(link, &options.tables, found)
    }

    /// With the tables that were found, if they are all there.
    pub(super) fn with(link: Link, tables: &Tables, found: Found) -> Result<Self, MetaDbError> {
        if !found.missing.is_empty() {
            return Err(MetaDbError::TablesMissing { location: link.location, tables: found.missing.join(", ") });
        }
        Ok(Self { link, tables: tables.clone(), sizes: found.sizes })
    }

    /// An attribute of the version table's items.
    pub(super) fn version_item(&self, name: &'static str) -> Result<Option<String>, MetaDbError> {
        let link = &self.link;
        let item = link.run(link.get(&self.tables.version, name));
        match item.map_err(|fault| link.error("read", fault))?.remove(VERSION) {
            None | Some(AttributeValue::Null(_)) => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text)),
            Some(_) => Err(self.damaged(format!("the item {name} holds no text, as zot's does"))),
        }
    }

    pub(super) fn damaged(&self, detail: String) -> MetaDbError {
        MetaDbError::Damaged { location: self.link.location.clone(), detail }
    }

    /// Hand the key and these attributes of every item of a table to `visit`.
    fn scan(
        &self,
        table: &str,
        attributes: &[&str],
        visit: &mut dyn FnMut(&str, &Item) -> Result<(), MetaDbError>,
    ) -> Result<(), MetaDbError> {
        let bytes = self.sizes.iter().find(|(name, _)| name == table).map_or(0, |(_, bytes)| *bytes);
        let attributes = [&[KEY], attributes].concat();
        self.link.scan(Scan { table, attributes: &attributes, bytes }, &mut |item| match text(&item, KEY) {
            Some(name) => visit(name, &item),
            None => Err(self.damaged(format!("an item of table {table} has no key"))),
        })
    }

    /// ImageMeta items by digest, [`BATCH`] a request, each digest once.
    async fn image_items(&self, digests: BTreeSet<&str>) -> Result<Items, Fault> {
        let table = self.tables.images.as_str();
        let digests: Vec<&str> = digests.into_iter().collect();
        let batches = stream::iter(digests.chunks(BATCH).map(<[&str]>::to_vec));
        let asked = batches.map(|batch| async move { self.link.batch_get(&[Wanted::new(table, batch)]).await });
        let found: Vec<Vec<Items>> = asked.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().flatten().collect())
    }

    /// What the work so far has cost, for the log.
    pub(super) fn log_traffic(&self) {
        tracing::debug!("dynamodb: {}", self.link.pressure);
    }
}

impl Drop for DynamoDbMetaDb {
    fn drop(&mut self) {
        self.log_traffic();
    }
}

impl MetaDb for DynamoDbMetaDb {
    /// As zot takes it: a metaDB without one is given [`SCHEMA`] when zot starts.
    fn version(&self) -> Result<Option<String>, MetaDbError> {
        Ok(Some(self.version_item(DB_VERSION)?.unwrap_or_else(|| SCHEMA.to_owned())))
    }

    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError> {
        Ok(self.version_item(STAMP)?.filter(|stamp| !stamp.is_empty()).map(String::into_bytes))
    }

    fn repo_names(&self) -> Result<Vec<String>, MetaDbError> {
        let mut names = Vec::new();
        self.scan(&self.tables.repos, &[], &mut |name, _| {
            names.push(name.to_owned());
            Ok(())
        })?;
        names.sort_unstable();
        Ok(names)
    }

    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError> {
        let mut times = BTreeMap::new();
        self.scan(&self.tables.blobs, &[LAST_UPDATED], &mut |name, item| {
            // As zot: what is no time stamp counts as never.
            match bytes(item, LAST_UPDATED) {
                Ok(None) => {}
                Ok(Some(at)) => drop(times.insert(name.to_owned(), decode_last_updated(&at))),
                Err(_) => drop(times.insert(name.to_owned(), Time::ZERO)),
            }
            Ok(())
        })?;
        Ok(times)
    }

    fn repo(&self, name: &str) -> Result<RepoState, MetaDbError> {
        let items =
            self.link.run(self.link.repo_items(&self.tables, name)).map_err(|fault| self.link.error("read", fault))?;
        items.state().map_err(|error| self.damaged(format!("repo {name}: {error}")))
    }

    fn images(&self, digests: &[&str]) -> Result<Vec<Option<Vec<u8>>>, MetaDbError> {
        let items = self.link.run(self.image_items(digests.iter().copied().collect()));
        let items = items.map_err(|fault| self.link.error("read", fault))?;
        let record = |digest: &&str| match items.get(*digest) {
            Some(item) => {
                bytes(item, IMAGE_META).map_err(|error| self.damaged(format!("image record {digest}: {error}")))
            }
            None => Ok(None),
        };
        digests.iter().map(record).collect()
    }

    fn image_digests(&self, visit: &mut dyn FnMut(&str)) -> Result<(), MetaDbError> {
        self.scan(&self.tables.images, &[], &mut |digest, _| {
            visit(digest);
            Ok(())
        })
    }

    fn checksums(&self, kind: Kind, short: ShortKey, _jobs: usize) -> Result<Option<Checksums>, MetaDbError> {
        let (table, attribute) = match kind {
            Kind::ImageMeta => (&self.tables.images, IMAGE_META),
            Kind::RepoMeta => (&self.tables.repos, REPO_META),
            Kind::RepoBlobs => (&self.tables.blobs, REPO_BLOBS),
            Kind::RepoLastUpdated => (&self.tables.blobs, LAST_UPDATED),
        };
        let mut sums = Checksums::new();
        self.scan(table, &[attribute], &mut |name, item| {
            let record = bytes(item, attribute).map_err(|error| self.damaged(format!("{name}: {error}")))?;
            sums.extend(record.map(|record| (short(name), checksum(&record))));
            Ok(())
        })?;
        Ok(Some(sums))
    }

    fn users(&self, visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), MetaDbError> {
        self.scan(&self.tables.users, &[USER_DATA], &mut |user, item| {
            visit(user, &users::json(item));
            Ok(())
        })
    }
}
