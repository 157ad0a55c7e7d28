//! Reading: no lock, no write, replies of bounded size.

use super::connect::{Link, Patience, Traffic};
use super::errors::Fault;
use super::options::{RedisOptions, Topology};
use super::wire::{self, Batch};
use crate::cancel::Cancel;
use crate::metadb::{MetaDb, MetaDbError, SCHEMA};
use crate::oci::time::Time;
use crate::records::{RepoState, decode_last_updated};
use redis::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// ImageMeta records asked for at once. They are a few kilobytes each.
pub(super) const IMAGES_AT_ONCE: usize = 256;
/// Entries of RepoLastUpdated, or digests alone, asked for at once. They are a few bytes each.
const SCAN_COUNT: &[u8] = b"1000";
/// [`IMAGES_AT_ONCE`] for scans.
const IMAGES_SCANNED: &[u8] = b"256";
/// Option of HSCAN.
const NO_VALUES: &[u8] = b"NOVALUES";

/// An open metaDB.
pub struct RedisMetaDb {
    pub(super) options: Arc<RedisOptions>,
    pub(super) link: Mutex<Link>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) location: String,
}

/// What is there when a metaDB is opened.
pub(super) struct Found {
    pub(super) version: Option<String>,
    pub(super) any: bool,
}

impl RedisMetaDb {
    /// Open for reading.
    ///
    /// # Errors
    /// [`MetaDbError::Absent`] if the prefix has no keys; why the server cannot be reached or asked.
    pub fn open(options: &RedisOptions, cancel: &Cancel) -> Result<Self, MetaDbError> {
        let (db, found) = Self::connect(options, cancel)?;
        if found.any { Ok(db) } else { Err(MetaDbError::Absent { location: db.location }) }
    }

    /// The means to connect; nothing is sent yet.
    pub(super) fn unconnected(options: &RedisOptions, cancel: &Cancel) -> Self {
        let options = Arc::new(options.clone());
        let traffic = Arc::new(Traffic::default());
        let link = Link::new(Arc::clone(&options), Patience::Attempts, cancel.clone(), Arc::clone(&traffic));
        Self { location: options.location(), options, link: Mutex::new(link), traffic }
    }

    pub(super) fn connect(options: &RedisOptions, cancel: &Cancel) -> Result<(Self, Found), MetaDbError> {
        let db = Self::unconnected(options, cancel);
        let keys = &db.options.keys;
        let mut batch = Batch::default();
        let names: Vec<&[u8]> = keys.all().iter().map(|key| key.as_bytes()).collect();
        // On a cluster, this also tells whether all keys are together and here.
        batch.push("EXISTS", &names);
        batch.push("GET", &[keys.version.as_bytes()]);
        let mut replies = db.run("open", &batch)?.into_iter();
        let mut next = || replies.next().unwrap_or_default();
        let found = (|| {
            let any = wire::int(&next())? > 0;
            let version = wire::bytes(next())?.map(|found| String::from_utf8_lossy(&found).into_owned());
            Ok(Found { version, any })
        })();
        let found = found.map_err(|fault: Fault| db.error("open", fault, None))?;
        Ok((db, found))
    }

    /// One round trip, repeated while that helps.
    pub(super) fn run(&self, action: &'static str, batch: &Batch) -> Result<Vec<Value>, MetaDbError> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.run(batch).map_err(|(fault, tried)| self.error(action, fault, tried))
    }

    pub(super) fn error(&self, action: &'static str, fault: Fault, tried: Option<std::time::Duration>) -> MetaDbError {
        let in_cluster = matches!(self.options.topology, Topology::Cluster(_));
        let fault = match fault {
            Fault::Slots(_) if self.options.keys.slot().is_none() => Fault::Slots(super::untagged(&self.options.keys)),
            Fault::Passing(code, _) if (code == "MOVED" || code == "ASK") && !in_cluster => Fault::Slots(
                "the server is one node of a Redis Cluster, and the keys are on another: name the cluster in the \
                 config, by an addr list or by addr= in the URL"
                    .into(),
            ),
            other => other,
        };
        fault.into_error(action, &self.location, tried)
    }

    fn one(&self, name: &'static str, args: &[&[u8]]) -> Result<Value, MetaDbError> {
        let mut batch = Batch::default();
        batch.push(name, args);
        Ok(self.run("read", &batch)?.pop().unwrap_or_default())
    }

    fn read<T>(&self, reply: Result<T, Fault>) -> Result<T, MetaDbError> {
        reply.map_err(|fault| self.error("read", fault, None))
    }

    /// Visit all fields of a hash with their values, page by page, some of them maybe more than once.
    fn scan(&self, key: &str, options: &[&[u8]], mut visit: impl FnMut(String, Vec<u8>)) -> Result<(), MetaDbError> {
        let mut cursor = b"0".to_vec();
        loop {
            let page = self.one("HSCAN", &[&[key.as_bytes(), &cursor], options].concat())?;
            let mut page = self.read(wire::list(page))?.into_iter();
            cursor = self.read(wire::bytes(page.next().unwrap_or_default()))?.unwrap_or_default();
            let mut entries = self.read(wire::list(page.next().unwrap_or_default()))?.into_iter();
            while let Some(field) = entries.next() {
                let value = if options.contains(&NO_VALUES) { None } else { entries.next() };
                let value = self.read(wire::bytes(value.unwrap_or_default()))?;
                visit(self.read(wire::text(field))?, value.unwrap_or_default());
            }
            if cursor == b"0" || cursor.is_empty() {
                return Ok(());
            }
        }
    }

    /// All fields of a hash with their values.
    fn pairs(&self, key: &str) -> Result<BTreeMap<String, Vec<u8>>, MetaDbError> {
        let mut pairs = BTreeMap::new();
        self.scan(key, &[b"COUNT", SCAN_COUNT], |field, value| drop(pairs.insert(field, value)))?;
        Ok(pairs)
    }

    /// What one walk costs, for the log.
    pub(super) fn log_traffic(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let traffic = &self.traffic;
        tracing::debug!(
            "redis: {} round trips, {} commands, {} bytes sent, in {} ms",
            traffic.round_trips.load(Relaxed),
            traffic.commands.load(Relaxed),
            traffic.bytes.load(Relaxed),
            traffic.micros.load(Relaxed) / 1000
        );
    }
}

impl MetaDb for RedisMetaDb {
    /// As zot takes it: a metaDB without one is given [`SCHEMA`] when zot starts.
    fn version(&self) -> Result<Option<String>, MetaDbError> {
        let found = self.read(wire::bytes(self.one("GET", &[self.options.keys.version.as_bytes()])?))?;
        Ok(Some(found.map_or_else(|| SCHEMA.to_owned(), |found| String::from_utf8_lossy(&found).into_owned())))
    }

    fn stamp(&self) -> Result<Option<Vec<u8>>, MetaDbError> {
        let found = self.read(wire::bytes(self.one("GET", &[self.options.keys.stamp.as_bytes()])?))?;
        Ok(found.filter(|found| !found.is_empty()))
    }

    fn repo_names(&self) -> Result<Vec<String>, MetaDbError> {
        // One reply, but of names alone: a scan transfers the records too, on servers before 7.4.
        let names = self.read(wire::list(self.one("HKEYS", &[self.options.keys.repos.as_bytes()])?))?;
        let mut names = names.into_iter().map(|name| self.read(wire::text(name))).collect::<Result<Vec<_>, _>>()?;
        names.sort_unstable();
        Ok(names)
    }

    fn last_updated(&self) -> Result<BTreeMap<String, Time>, MetaDbError> {
        let pairs = self.pairs(&self.options.keys.last_updated)?;
        Ok(pairs.into_iter().map(|(repo, at)| (repo, decode_last_updated(&at))).collect())
    }

    fn repo(&self, name: &str) -> Result<RepoState, MetaDbError> {
        let mut batch = Batch::default();
        let keys = &self.options.keys;
        for key in [&keys.repos, &keys.blobs, &keys.last_updated] {
            batch.push("HGET", &[key.as_bytes(), name.as_bytes()]);
        }
        let mut replies = self.run("read", &batch)?.into_iter();
        let mut next = || self.read(wire::bytes(replies.next().unwrap_or_default()));
        Ok(RepoState { meta: next()?, blobs: next()?, last_updated: next()? })
    }

    fn images(&self, digests: &[&str]) -> Result<Vec<Option<Vec<u8>>>, MetaDbError> {
        let mut out = Vec::with_capacity(digests.len());
        for chunk in digests.chunks(IMAGES_AT_ONCE) {
            let mut args = vec![self.options.keys.images.as_bytes()];
            args.extend(chunk.iter().map(|digest| digest.as_bytes()));
            for found in self.read(wire::list(self.one("HMGET", &args)?))? {
                out.push(self.read(wire::bytes(found))?);
            }
        }
        Ok(out)
    }

    fn image_digests(&self, visit: &mut dyn FnMut(&str)) -> Result<(), MetaDbError> {
        let key = &self.options.keys.images;
        // There can be millions, too many for one reply. Servers before 7.4 cannot leave the records away.
        match self.scan(key, &[b"COUNT", SCAN_COUNT, NO_VALUES], |digest, _| visit(&digest)) {
            Err(MetaDbError::Io { .. }) => self.scan(key, &[b"COUNT", IMAGES_SCANNED], |digest, _| visit(&digest)),
            done => done,
        }
    }

    fn users(&self, visit: &mut dyn FnMut(&str, &[u8])) -> Result<(), MetaDbError> {
        self.pairs(&self.options.keys.users)?.iter().for_each(|(user, data)| visit(user, data));
        Ok(())
    }
}
