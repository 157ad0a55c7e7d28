//! metaDBs raw: every bucket and table with its bytes, read and written without the driver under test.

use metactl::cancel::Cancel;
use metactl::checksum::checksum;
use metactl::metadb::Place;
use metactl::metadb::bolt::{self, BoltError, CheckReport, Database, Tx};
use redb::{TableDefinition, TableHandle as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

/// Names of zot's buckets; in BoltDB `RepoLastUpdated` lies inside `RepoBlobsMeta`.
pub const BUCKETS: [&str; 7] =
    ["Version", "ImageMeta", "RepoMeta", "RepoBlobsMeta", "RepoLastUpdated", "UserData", "UserAPIKeys"];

/// One bucket: keys and values.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A whole metaDB: buckets by name, nested ones beside their parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw(pub BTreeMap<String, Records>);

impl Raw {
    /// A bucket; empty if it is not there.
    pub fn bucket(&self, name: &str) -> Records {
        self.0.get(name).cloned().unwrap_or_default()
    }

    /// One value.
    pub fn get(&self, bucket: &str, key: &str) -> Option<&[u8]> {
        self.0.get(bucket)?.get(key.as_bytes()).map(Vec::as_slice)
    }

    /// Set one value.
    pub fn put(&mut self, bucket: &str, key: &str, value: &[u8]) {
        self.0.entry(bucket.into()).or_default().insert(key.into(), value.to_vec());
    }

    /// An empty metaDB as zot makes one.
    pub fn new_metadb() -> Self {
        let mut raw = Self(BUCKETS.iter().map(|name| ((*name).to_owned(), Records::new())).collect());
        raw.put("Version", "DBVersion", b"V1");
        raw
    }
}

/// Which kind of metaDB.
#[derive(Clone, Copy)]
pub enum Driver<'a> {
    Bolt,
    Redb,
    /// Every store has a prefix of its own.
    Redis(&'a super::setups::Setup),
    /// Every store has tables of its own.
    DynamoDb(&'a super::dynamodb::Server),
}

/// Of the same kind.
impl PartialEq for Driver<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl std::fmt::Debug for Driver<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bolt => "Bolt",
            Self::Redb => "Redb",
            Self::Redis(_) => "Redis",
            Self::DynamoDb(_) => "DynamoDb",
        })
    }
}

impl Driver<'_> {
    /// Those that need nothing else.
    pub const BOTH: [Self; 2] = [Self::Bolt, Self::Redb];

    /// The metaDB's usual place below a store's root.
    pub fn place(self, root: &Path) -> Place {
        match self {
            Self::Bolt => Place::Bolt(root.join("meta.db")),
            Self::Redb => Place::Redb(root.join("meta.redb")),
            Self::Redis(setup) => setup.place(&prefix(setup.tag, root)),
            Self::DynamoDb(server) => server.place(&prefix("", root)),
        }
    }

    /// What the names of keys or tables of the metaDB at `root` begin with.
    pub fn prefix(self, root: &Path) -> String {
        prefix(if let Self::Redis(setup) = self { setup.tag } else { "" }, root)
    }

    /// Make a config's storage section name it.
    pub fn configure(self, root: &Path, storage: &mut Value) {
        match self {
            Self::Bolt => {}
            Self::Redb => storage["cacheDriver"] = json!({"name": "redb"}),
            Self::Redis(setup) => {
                storage["remoteCache"] = json!(true);
                let prefix = prefix(setup.tag, root);
                storage["cacheDriver"] = json!({"name": "redis", "url": setup.admin, "keyprefix": prefix});
            }
            Self::DynamoDb(server) => {
                storage["remoteCache"] = json!(true);
                storage["cacheDriver"] = server.parameters(&prefix("", root));
            }
        }
    }

    /// Options and environment of a command that the config alone does not lead there: zot refuses DynamoDB beside local
    /// storage.
    pub fn direct(self, root: &Path, command: &mut std::process::Command) {
        if let Self::DynamoDb(server) = self {
            command.args(["--metadb", &server.url(&prefix("", root))]);
            command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "aws-Secret");
        }
    }

    /// Everything in the metaDB at `root`; nothing if there is none.
    pub fn dump(self, root: &Path) -> Raw {
        if let Self::Redis(setup) = self {
            return super::redis::dump(&mut super::redis::client(&setup.admin), &prefix(setup.tag, root));
        }
        if let Self::DynamoDb(server) = self {
            return server.dump(&prefix("", root));
        }
        match self.place(root) {
            Place::Bolt(path) if path.exists() => dump_bolt(&Database::open(&path).unwrap()),
            Place::Redb(path) if path.exists() => dump_redb(&redb::ReadOnlyDatabase::open(path).unwrap()),
            _ => Raw::default(),
        }
    }

    /// Make the metaDB at `root` hold `content` and nothing else.
    pub fn restore(self, root: &Path, content: &Raw) {
        let place = self.place(root);
        if let Place::Bolt(path) | Place::Redb(path) = &place {
            let _ = std::fs::remove_file(path);
        }
        match place {
            Place::Bolt(path) => restore_bolt(&path, content),
            Place::Redb(path) => restore_redb(&redb::Database::create(path).unwrap(), content),
            Place::DynamoDb(_) => {
                let Self::DynamoDb(server) = self else { return };
                server.restore(&prefix("", root), content);
            }
            Place::Redis(_) => {
                let Self::Redis(setup) = self else { return };
                let mut client = super::redis::client(&setup.admin);
                super::redis::restore(&mut client, &prefix(setup.tag, root), content);
            }
        }
    }
}

/// The prefix of the keys of a store: its temporary directory's name, which is unique.
pub fn prefix(tag: &str, root: &Path) -> String {
    let directory = root.parent().unwrap().file_name().unwrap().to_str().unwrap();
    format!("{tag}{}", directory.trim_start_matches('.'))
}

/// Everything in a BoltDB file.
pub fn dump_bolt(db: &Database) -> Raw {
    db.snapshot(&Cancel::default(), |tx| -> Result<Raw, BoltError> { bolt_content(tx) }).unwrap()
}

fn bolt_content(tx: &Tx<'_>) -> Result<Raw, BoltError> {
    let mut raw = Raw::default();
    let mut paths: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        // Gone only while a writer changes the file: then all of this is thrown away and read again.
        let Some(bucket) = tx.bucket(&names)? else { continue };
        let mut records = Records::new();
        bucket.for_each(|key, value| -> Result<_, BoltError> {
            match value {
                bolt::Value::Bytes(value) => drop(records.insert(key.to_vec(), value.to_vec())),
                bolt::Value::Bucket => paths.push(path.iter().cloned().chain([key.to_vec()]).collect()),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if let Some(name) = path.last() {
            raw.0.insert(String::from_utf8(name.clone()).unwrap(), records);
        }
    }
    Ok(raw)
}

/// What a check of the whole file says.
pub fn check_bolt(db: &Database) -> CheckReport {
    db.snapshot(&Cancel::default(), |tx| -> Result<CheckReport, BoltError> { tx.check() }).unwrap()
}

fn restore_bolt(path: &Path, content: &Raw) {
    use metactl::metadb::bolt::{Batch, OpenOptions, Writer};
    let mut batch = Batch::new();
    for (name, records) in &content.0 {
        let inside: [&[u8]; 2] = [b"RepoBlobsMeta", name.as_bytes()];
        let bucket = if name == "RepoLastUpdated" { &inside[..] } else { &inside[1..] };
        batch.create_bucket(bucket).unwrap();
        for (key, value) in records {
            batch.put(bucket, key, value.clone()).unwrap();
        }
    }
    let options = OpenOptions { create: true, ..OpenOptions::default() };
    Writer::open(path, &options).unwrap().commit(&batch).unwrap();
}

/// What the names of tables of checksums end in, which are not zot's.
const SUMS: &str = "Sums";
/// The tables that have one.
const SUMMED: [&str; 4] = ["ImageMeta", "RepoMeta", "RepoBlobsMeta", "RepoLastUpdated"];

/// Everything in a redb database. Where it has checksums of records they must be right.
pub fn dump_redb(db: &impl redb::ReadableDatabase) -> Raw {
    let transaction = db.begin_read().unwrap();
    let (mut raw, mut sums) = (Raw::default(), BTreeMap::new());
    for table in transaction.list_tables().unwrap() {
        let name = table.name().to_owned();
        match name.strip_suffix(SUMS) {
            Some(of) => {
                let table = transaction.open_table(TableDefinition::<&str, u128>::new(&name)).unwrap();
                sums.insert(of.to_owned(), collected(&table, |sum| sum));
            }
            None => {
                let table = transaction.open_table(TableDefinition::<&str, &[u8]>::new(&name)).unwrap();
                raw.0.insert(name, collected(&table, <[u8]>::to_vec));
            }
        }
    }
    for (name, sums) in sums {
        let records = &raw.0[&name];
        let right: BTreeMap<_, _> = records.iter().map(|(key, record)| (key.clone(), checksum(record))).collect();
        assert!(sums == right, "checksums of {name}");
    }
    raw
}

fn collected<V: redb::Value + 'static, T>(
    table: &impl redb::ReadableTable<&'static str, V>,
    own: impl Fn(V::SelfType<'_>) -> T,
) -> BTreeMap<Vec<u8>, T> {
    let entries = table.iter().unwrap().map(|entry| entry.unwrap());
    entries.map(|(key, value)| (key.value().as_bytes().to_vec(), own(value.value()))).collect()
}

/// Put `content` into an empty redb database, as metactl would.
pub fn restore_redb(db: &redb::Database, content: &Raw) {
    let transaction = db.begin_write().unwrap();
    for (name, records) in &content.0 {
        let mut table = transaction.open_table(TableDefinition::<&str, &[u8]>::new(name)).unwrap();
        let sums = format!("{name}{SUMS}");
        let mut sums = SUMMED
            .contains(&name.as_str())
            .then(|| transaction.open_table(TableDefinition::<&str, u128>::new(&sums)).unwrap());
        for (key, value) in records {
            let key = std::str::from_utf8(key).unwrap();
            table.insert(key, value.as_slice()).unwrap();
            if let Some(sums) = &mut sums {
                sums.insert(key, checksum(value)).unwrap();
            }
        }
    }
    transaction.commit().unwrap();
}

/// Make a redb file one of those that metactl wrote before it kept checksums; with `keep`, of that table some are there.
pub fn drop_sums(path: &Path, keep: Option<&str>) {
    let transaction = redb::Database::open(path).unwrap().begin_write().unwrap();
    for name in SUMMED {
        let name_of_sums = format!("{name}{SUMS}");
        let sums = TableDefinition::<&str, u128>::new(&name_of_sums);
        if keep == Some(name) {
            transaction.open_table(sums).unwrap().pop_first().unwrap();
        } else {
            assert!(transaction.delete_table(sums).unwrap());
        }
    }
    transaction.commit().unwrap();
}
