//! Writing: opening, the stamp, removal of images. Repos are written in [`super::repos`].
//!
//! There is no lock that would keep two walks apart. Instead, whoever begins to write puts a mark of their own beside the
//! stamp, and only whose mark is still there may stamp: of two walks that overlap, the one that began last.

use super::connect::Link;
use super::errors::{Fault, Request};
use super::items::{DB_VERSION, KEY, STAMP, VERSION, key};
use super::options::DynamoDbOptions;
use super::reader::DynamoDbMetaDb;
use super::throttle::AT_ONCE;
use crate::cancel::Cancel;
use crate::metadb::{MetaDb, MetaDbError, MetaDbWriter, Outcome, RepoWork, SCHEMA, WriteToken};
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

/// Attribute of the stamp's item, unknown to zot: who writes.
const MARK: &str = "MetactlWalk";
/// Cannot hold for any item.
const NEVER: &str = "attribute_exists(#k) AND attribute_not_exists(#k)";

/// A metaDB opened for writing.
pub struct DynamoDbWriter {
    pub(super) db: DynamoDbMetaDb,
    mark: String,
    /// Whether our mark is beside the stamp.
    marked: bool,
}

impl DynamoDbWriter {
    /// Open. Until all checks have passed nothing is written, except that missing tables are created if that is wanted.
    ///
    /// # Errors
    /// [`MetaDbError::TablesMissing`], [`MetaDbError::Version`], [`MetaDbError::Denied`] with every right that is
    /// missing.
    pub fn open(_token: WriteToken, options: &DynamoDbOptions, cancel: &Cancel) -> Result<Self, MetaDbError> {
        let link = Link::new(&options.service, options.location(), cancel)?;
        if options.create_tables {
            link.create_tables(&options.tables)?;
        }
        let found = link.look_at(&options.tables)?;
        let mut db = DynamoDbMetaDb::with(link, &options.tables, found)?;
        let version = db.version_item(DB_VERSION)?;
        if let Some(found) = version.as_ref().filter(|version| *version != SCHEMA) {
            return Err(MetaDbError::Version { location: db.link.location.clone(), found: found.clone() });
        }
        rehearse(&db)?;
        if version.is_none() {
            initialise(&db)?;
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| db.link.error("open", Fault::Other(format!("no random numbers: {error}"))))?;
        let mark = format!("{:016x} since {}", u64::from_le_bytes(random), jiff::Timestamp::now());
        db.link.set_patience(options.service.patience);
        Ok(Self { db, mark, marked: false })
    }

    /// Before the first write: take over from whoever was writing. A stamp that appeared meanwhile is not written under.
    pub(super) fn begin(&mut self) -> Result<(), MetaDbError> {
        if self.marked { Ok(()) } else { self.swap_stamp(None, None) }
    }

    /// Replace the stamp and leave our mark, or, with a new stamp, none.
    fn swap_stamp(&mut self, expected: Option<&str>, new: Option<&str>) -> Result<(), MetaDbError> {
        let link = &self.db.link;
        let table = self.db.tables.version.as_str();
        let mut asked = link.client.update_item().table_name(table).key(KEY, key(STAMP));
        asked = asked.expression_attribute_names("#v", VERSION).expression_attribute_names("#m", MARK);
        let unstamped = "(attribute_not_exists(#v) OR #v = :old)";
        let same = if expected.is_some() { "#v = :old" } else { unstamped };
        asked = asked.expression_attribute_values(":old", key(expected.unwrap_or_default()));
        asked =
            asked.condition_expression(if self.marked { format!("{same} AND #m = :mark") } else { same.to_owned() });
        if self.marked || new.is_none() {
            asked = asked.expression_attribute_values(":mark", key(&self.mark));
        }
        asked = match new {
            Some(new) => {
                asked.update_expression("SET #v = :new REMOVE #m").expression_attribute_values(":new", key(new))
            }
            None => asked.update_expression("SET #m = :mark REMOVE #v"),
        };
        let asked = asked.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = Request { action: "UpdateItem", table, units: 1.0, write: true };
        match link.run(link.call(request, || asked.clone().send())) {
            Ok(_) => {}
            // Perhaps it was carried out, and only the answer was lost.
            Err(Fault::Condition) if self.stamp_is(new)? => {}
            Err(Fault::Condition) => {
                return Err(MetaDbError::StampChanged { location: self.db.link.location.clone() });
            }
            Err(fault) => return Err(link.error("stamp", fault)),
        }
        self.marked = new.is_none();
        Ok(())
    }

    /// Whether the stamp is `new`, or gone by our own hand.
    fn stamp_is(&self, new: Option<&str>) -> Result<bool, MetaDbError> {
        let link = &self.db.link;
        let item = link.run(link.get(&self.db.tables.version, STAMP)).map_err(|fault| link.error("read", fault))?;
        let is = |name: &str, text: &str| matches!(item.get(name), Some(AttributeValue::S(found)) if found == text);
        Ok(match new {
            Some(new) => is(VERSION, new),
            None => !item.contains_key(VERSION) && is(MARK, &self.mark),
        })
    }
}

/// Let the service check every right that a walk needs, with writes whose condition never holds.
fn rehearse(db: &DynamoDbMetaDb) -> Result<(), MetaDbError> {
    let (link, tables) = (&db.link, &db.tables);
    let written = [&tables.version, &tables.repos, &tables.blobs, &tables.images];
    let emptied = [&tables.repos, &tables.blobs, &tables.images];
    let mut attempts: Vec<BoxFuture<'_, Result<(), Fault>>> = Vec::new();
    for table in written {
        let asked = link.client.update_item().table_name(table).key(KEY, key("metactl"));
        let asked = asked.update_expression("SET #m = :m").expression_attribute_values(":m", key("-"));
        let asked = asked.expression_attribute_names("#m", MARK).expression_attribute_names("#k", KEY);
        let asked = asked.condition_expression(NEVER);
        let request = Request { action: "UpdateItem", table, units: 1.0, write: true };
        attempts.push(Box::pin(async move { link.call(request, || asked.clone().send()).await.map(drop) }));
    }
    for table in emptied {
        let asked = link.client.delete_item().table_name(table).key(KEY, key("metactl"));
        let asked = asked.expression_attribute_names("#k", KEY).condition_expression(NEVER);
        let request = Request { action: "DeleteItem", table, units: 1.0, write: true };
        attempts.push(Box::pin(async move { link.call(request, || asked.clone().send()).await.map(drop) }));
    }
    let (mut denied, mut why, mut other) = (Vec::new(), String::new(), None);
    for outcome in link.run(join_all(attempts)) {
        match outcome {
            Ok(()) | Err(Fault::Condition) => {}
            Err(Fault::Denied { what, detail }) => {
                denied.push(what);
                why = detail;
            }
            Err(fault) => other = other.or(Some(fault)),
        }
    }
    let fault = if denied.is_empty() { other } else { Some(Fault::Denied { what: denied.join(", "), detail: why }) };
    fault.map_or(Ok(()), |fault| Err(link.error("write", fault)))
}

/// The schema version, unless zot is faster.
fn initialise(db: &DynamoDbMetaDb) -> Result<(), MetaDbError> {
    let (link, table) = (&db.link, db.tables.version.as_str());
    let asked = link.client.update_item().table_name(table).key(KEY, key(DB_VERSION));
    let asked = asked.update_expression("SET #v = :v").expression_attribute_values(":v", key(SCHEMA));
    let asked = asked.expression_attribute_names("#v", VERSION).condition_expression("attribute_not_exists(#v)");
    let request = Request { action: "UpdateItem", table, units: 1.0, write: true };
    match link.run(link.call(request, || asked.clone().send())) {
        Ok(_) | Err(Fault::Condition) => Ok(()),
        Err(fault) => Err(link.error("write", fault)),
    }
}

impl MetaDbWriter for DynamoDbWriter {
    /// Every item is written by itself. Fewer wide repos at a time are fewer threads with memory of their own.
    fn batch_bytes(&self) -> usize {
        8 << 20
    }

    fn reader(&self) -> &dyn MetaDb {
        &self.db
    }

    fn set_stamp(&mut self, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), MetaDbError> {
        let changed = || MetaDbError::StampChanged { location: self.db.link.location.clone() };
        // The service holds text only: anything else is not what is there.
        let expected = expected.map(std::str::from_utf8).transpose().map_err(|_| changed())?;
        let new = new
            .map(std::str::from_utf8)
            .transpose()
            .map_err(|error| self.db.link.error("stamp", Fault::Other(format!("the new stamp is no text: {error}"))))?;
        self.swap_stamp(expected.filter(|stamp| !stamp.is_empty()), new.filter(|stamp| !stamp.is_empty()))
    }

    fn write(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        self.write_repos(work)
    }

    fn delete_images(&mut self, digests: &[String]) -> Result<(), MetaDbError> {
        if digests.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let link = &self.db.link;
        let table = self.db.tables.images.as_str();
        let request = Request { action: "DeleteItem", table, units: 1.0, write: true };
        let deleted = stream::iter(digests).map(|digest| {
            let asked = link.client.delete_item().table_name(table).key(KEY, key(digest));
            let asked = asked.return_consumed_capacity(ReturnConsumedCapacity::Total);
            async move { link.call(request, || asked.clone().send()).await.map(drop) }
        });
        let done: Result<(), Fault> = link.run(deleted.buffer_unordered(AT_ONCE).try_collect());
        done.map_err(|fault| link.error("write", fault))
    }
}
