//! A zot that starts beside others, on a metaDB that it shares with them: its requests in its order, on Redis under its
//! locks, on DynamoDB without any, by means that have nothing in common with the walk.

use super::{Pauses, ZOTS_STAMP};
use crate::support::driver::{Driver, Raw};
use crate::support::redis::client;
use metactl::records::decode_last_updated;
use metactl::records::proto::RepoMeta;
use prost::Message as _;
use std::path::Path;
use std::time::Duration;

const STAMP: &str = "FastRestartStamp";
/// Buckets of a repo's records, in the order in which zot writes them.
const RECORDS: [&str; 3] = ["RepoLastUpdated", "RepoBlobsMeta", "RepoMeta"];

/// Records one by one.
trait Hands {
    fn get(&mut self, bucket: &str, key: &str) -> Option<Vec<u8>>;
    /// Some records of one repo together.
    fn put(&mut self, repo: &str, records: &[(&str, Vec<u8>)]);
    fn delete(&mut self, repo: &str);
    fn repos(&mut self) -> Vec<String>;
    fn stamp(&mut self) -> Option<Vec<u8>>;
    fn set_stamp(&mut self, stamp: &str);
    fn add_user(&mut self, user: &str);
    fn lock(&mut self, _what: &str) {}
    fn unlock(&mut self, _what: &str) {}
}

struct Redis {
    client: redis::Connection,
    prefix: String,
    token: String,
}

impl Redis {
    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }
}

impl Hands for Redis {
    fn get(&mut self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        redis::cmd("HGET").arg(self.key(bucket)).arg(key).query(&mut self.client).unwrap()
    }

    fn put(&mut self, repo: &str, records: &[(&str, Vec<u8>)]) {
        let mut transaction = redis::pipe();
        transaction.atomic();
        for (bucket, record) in records {
            transaction.cmd("HSET").arg(self.key(bucket)).arg(repo).arg(record);
        }
        transaction.exec(&mut self.client).unwrap();
    }

    fn delete(&mut self, repo: &str) {
        let mut transaction = redis::pipe();
        transaction.atomic();
        for bucket in RECORDS.iter().rev() {
            transaction.cmd("HDEL").arg(self.key(bucket)).arg(repo);
        }
        transaction.exec(&mut self.client).unwrap();
    }

    fn repos(&mut self) -> Vec<String> {
        redis::cmd("HKEYS").arg(self.key("RepoMeta")).query(&mut self.client).unwrap()
    }

    fn stamp(&mut self) -> Option<Vec<u8>> {
        redis::cmd("GET").arg(self.key(STAMP)).query(&mut self.client).unwrap()
    }

    fn set_stamp(&mut self, stamp: &str) {
        redis::cmd("SET").arg(self.key(STAMP)).arg(stamp).exec(&mut self.client).unwrap();
    }

    fn add_user(&mut self, user: &str) {
        redis::cmd("HSET").arg(self.key("UserData")).arg(user).arg("{}").exec(&mut self.client).unwrap();
    }

    fn lock(&mut self, what: &str) {
        let mut take = redis::cmd("SET");
        take.arg(self.key(&format!("Locks:{what}"))).arg(&self.token).arg("EX").arg(8).arg("NX");
        for _ in 0..32 {
            if take.query::<Option<String>>(&mut self.client).unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("zot would have given up: {what} stays locked");
    }

    fn unlock(&mut self, what: &str) {
        let release = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
        let mut command = redis::cmd("EVAL");
        command.arg(release).arg(1).arg(self.key(&format!("Locks:{what}"))).arg(&self.token);
        assert_eq!(command.query::<i64>(&mut self.client).unwrap(), 1, "zot lost its lock of {what}");
    }
}

struct DynamoDb<'a> {
    server: &'a crate::support::dynamodb::Server,
    prefix: String,
}

impl DynamoDb<'_> {
    fn table(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Hands for DynamoDb<'_> {
    fn get(&mut self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.server.record(&self.prefix, bucket, key)
    }

    fn put(&mut self, repo: &str, records: &[(&str, Vec<u8>)]) {
        for (bucket, record) in records {
            self.server.set_record(&self.prefix, bucket, repo, record);
        }
    }

    fn delete(&mut self, repo: &str) {
        self.server.delete(&self.table("RepoMetadataTable"), repo);
        self.server.delete(&self.table("RepoBlobsInfoTable"), repo);
    }

    fn repos(&mut self) -> Vec<String> {
        let items = self.server.items(&self.table("RepoMetadataTable"));
        items.iter().map(|item| item["TableKey"]["S"].as_str().unwrap().to_owned()).collect()
    }

    fn stamp(&mut self) -> Option<Vec<u8>> {
        self.server.record(&self.prefix, "Version", STAMP)
    }

    fn set_stamp(&mut self, stamp: &str) {
        self.server.set_text(&self.table("Version"), STAMP, "Version", stamp);
    }

    fn add_user(&mut self, user: &str) {
        self.server.put(&self.table("UserDataTable"), user, serde_json::json!({"UserData": {"M": {}}}));
    }
}

/// One start: `after` is what zot makes of the store at `root`.
pub(crate) fn start(driver: Driver<'_>, root: &Path, after: &Raw, number: u64, pauses: &Pauses) -> &'static str {
    let prefix = driver.prefix(root);
    match driver {
        Driver::Redis(setup) => {
            let (client, token) = (client(&setup.admin), format!("zot {number}"));
            run(&mut Redis { client, prefix, token }, root, after, number, pauses)
        }
        Driver::DynamoDb(server) => run(&mut DynamoDb { server, prefix }, root, after, number, pauses),
        Driver::Bolt | Driver::Redb => panic!("{driver:?} is not shared"),
    }
}

fn run(hands: &mut dyn Hands, root: &Path, after: &Raw, number: u64, pauses: &Pauses) -> &'static str {
    let skips = hands.stamp().is_some_and(|stamp| stamp == ZOTS_STAMP.as_bytes());
    if !skips {
        walk(hands, root, after, pauses);
        pauses.pause();
        hands.set_stamp(ZOTS_STAMP);
    }
    // It serves: somebody logs in.
    pauses.pause();
    hands.add_user(&format!("user {number}"));
    if skips { "zot skipped" } else { "zot walked" }
}

fn walk(hands: &mut dyn Hands, root: &Path, after: &Raw, pauses: &Pauses) {
    let listed = ["changed", "new/one", "same"];
    for gone in hands.repos().iter().filter(|repo| !listed.contains(&repo.as_str())) {
        let lock = format!("Repo:{gone}");
        hands.lock(&lock);
        pauses.pause();
        hands.delete(gone);
        hands.unlock(&lock);
    }
    for repo in listed {
        pauses.pause();
        let changed = std::fs::metadata(root.join(repo).join("index.json")).unwrap().modified().unwrap();
        let changed = metactl::oci::time::Time::from(jiff::Timestamp::try_from(changed).unwrap());
        let seen = decode_last_updated(&hands.get("RepoLastUpdated", repo).unwrap_or_default());
        if !seen.is_zero() && changed < seen {
            continue;
        }
        let lock = format!("Repo:{repo}");
        // Signatures and referrers go at first.
        hands.lock(&lock);
        if let Some(meta) = hands.get("RepoMeta", repo) {
            pauses.pause();
            let mut meta = RepoMeta::decode(meta.as_slice()).unwrap();
            meta.signatures.clear();
            meta.referrers.clear();
            hands.put(repo, &[("RepoMeta", meta.encode_to_vec())]);
        }
        hands.unlock(&lock);
        pauses.pause();
        // Then every reference, here as many as there are images.
        for (digest, image) in after.bucket("ImageMeta") {
            let digest = String::from_utf8(digest).unwrap();
            hands.lock(&format!("Image:{digest}"));
            hands.put(&digest, &[("ImageMeta", image)]);
            hands.unlock(&format!("Image:{digest}"));
            hands.lock(&lock);
            let records = RECORDS.map(|bucket| (bucket, after.get(bucket, repo).unwrap().to_vec()));
            pauses.pause();
            hands.put(repo, &records);
            hands.unlock(&lock);
        }
    }
}
