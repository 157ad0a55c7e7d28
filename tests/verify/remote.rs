//! A registry whose store is in a bucket: plants spoil its original on disk, and the bucket follows.

use super::planted::code;
use super::support::bucket::{Bucket, Recorded, files};
use super::support::store::sha256;
use super::world::World;
use metactl::oci::time::Time;
use metactl::records::{decode_last_updated, encode_time};
use metactl::verify::{Depth, Finding, Id, Report};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

/// What the metaDB's files are called, which lie where a local store would.
pub const METADBS: [&str; 2] = ["meta.db", "meta.redb"];

/// Files by name: hash and time of each.
type Files = BTreeMap<String, (String, SystemTime)>;

pub struct Remote<'d> {
    pub bucket: Bucket<'d>,
    /// Where requests go: to the bucket's server, or to a proxy before it.
    port: u16,
    /// What was put there.
    put: RefCell<Files>,
}

/// What there is of a store on disk.
fn original(root: &Path) -> Files {
    let own = files(root).into_iter().filter(|(name, _)| !METADBS.contains(&name.as_str()));
    let one = |file: &Path| (sha256(&std::fs::read(file).unwrap()), file.metadata().unwrap().modified().unwrap());
    own.map(|(name, file)| (name, one(&file))).collect()
}

impl<'d> Remote<'d> {
    pub fn new(bucket: Bucket<'d>, port: u16) -> Self {
        Self { bucket, port, put: RefCell::default() }
    }

    pub fn driver(&self) -> Value {
        self.bucket.storage_driver(self.port)
    }

    /// What the binary needs to reach bucket and metaDB.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let aws = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "aws-Secret")];
        let aws = aws.into_iter().chain([("AWS_EC2_METADATA_DISABLED", "true")]);
        self.bucket.environment(self.port).into_iter().chain(aws.map(|(name, value)| (name, value.to_owned())))
    }

    /// Put all of it there, and wait until what is walked is no longer of the second of its change.
    pub fn load(&self, root: &Path) {
        self.bucket.load(root);
        self.bucket.date_like_objects(root, &Recorded::new());
        self.put.replace(original(root));
    }

    /// Bring the bucket up to date. What changes there is of this moment, so the records of a repo whose index is now older
    /// than them, for zot never to look at it, must be of a moment later still.
    pub fn update(&self, world: &World<'_>) {
        let now = original(&world.root());
        let then = self.put.replace(now.clone());
        then.keys().filter(|name| !now.contains_key(*name)).for_each(|name| self.bucket.delete(name));
        let changed: Vec<&String> = now.keys().filter(|name| then.get(*name) != now.get(*name)).collect();
        let read = |name: &str| std::fs::read(world.root().join(name)).unwrap();
        self.bucket.upload(changed.iter().map(|name| (self.bucket.key(name), read(name))).collect());
        let objects = self.bucket.own_objects();
        let mut raw = world.raw();
        for (repo, name) in changed.iter().filter_map(|name| Some((name.strip_suffix("/index.json")?, *name))) {
            let Some(recorded) = raw.get("RepoLastUpdated", repo).map(decode_last_updated) else { continue };
            let planted = now[name].1.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            if planted.as_secs() < u64::try_from(recorded.seconds).unwrap() {
                let seconds = i64::try_from(objects[&self.bucket.key(name)].1).unwrap() + 2;
                raw.put("RepoLastUpdated", repo, &encode_time(Time { seconds, nanos: 0 }));
            }
        }
        if raw != world.raw() {
            world.driver.restore(&world.root(), &raw);
        }
    }
}

/// Verify by the binary, whose exit code must fit what it finds.
pub fn verify(world: &World<'_>, depth: Depth) -> Report {
    let flags: &[&str] = match depth {
        Depth::Quick => &["--quick"],
        Depth::Records => &[],
        Depth::Deep => &["--deep"],
    };
    let output = world.metactl(&[&["verify", "--format", "json"], flags].concat());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let finding = |told: &Value| {
        let id = Id::ALL.iter().find(|id| told["id"] == id.text()).unwrap();
        let text = |member: &str| told[member].as_str().map(str::to_owned);
        let mut finding = Finding::new(*id);
        (finding.repo, finding.reference, finding.digest) = (text("repo"), text("reference"), text("digest"));
        (finding.expected, finding.found, finding.repair) = (text("expected"), text("found"), text("repair"));
        finding
    };
    let findings = told["findings"].as_array().unwrap_or_else(|| panic!("{output:?}")).iter().map(finding).collect();
    let report = Report { findings, ..Report::default() };
    assert_eq!(output.status.code(), Some(code(&report)), "{output:?}");
    let counts = report.counts().into_iter().map(|(id, number)| (id.text().to_owned(), json!(number)));
    assert_eq!(told["counts"], Value::Object(counts.collect()), "{told}");
    report
}
