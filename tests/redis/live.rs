//! Walking beside a running zot: nothing of what a client does that follows zot's lock protocol is ever lost.

use crate::support::driver::Raw;
use crate::support::redis::{Server, dump};
use crate::support::store::{blob_path, sha256, write_at};
use crate::support::walk::{walk_at, walk_scoped};
use globset::{Glob, GlobSet};
use metactl::metadb::Place;
use metactl::records::proto::{DescriptorStatistics, ImageMeta, RepoBlobs, RepoMeta, TagDescriptor, Timestamp};
use metactl::walk::Problem;
use metactl::walk::plan::Scope;
use prost::Message as _;
use redis::{Connection, RedisResult};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const REPOS: usize = 6;
const TAGS: usize = 4;
const WALKS: usize = 20;
/// Kinds of operations of a [`Registry`].
const KINDS: usize = 7;

/// A registry's storage: manifests are written whole, and the index is replaced in one step, as zot does.
struct Storage {
    root: PathBuf,
    clock: AtomicU64,
}

impl Storage {
    fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), clock: AtomicU64::new(0) }
    }

    fn blob(&self, repo: &str, content: &[u8]) -> String {
        let digest = sha256(content);
        let path = blob_path(&self.root, repo, &digest);
        write_at(&path, content, 1_700_000_000_000_000_000);
        digest
    }

    /// Nothing is left of a repo.
    fn remove(&self, repo: &str) {
        let _ = std::fs::remove_dir_all(self.root.join(repo));
    }

    /// Write an image and return its descriptor's digest and size.
    fn image(&self, repo: &str) -> (String, usize) {
        let number = self.clock.fetch_add(1, Ordering::Relaxed);
        // A repo that is gone comes back as zot makes one.
        write_at(&self.root.join(repo).join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, 1);
        let config = json!({"architecture": "amd64", "os": "linux", "author": format!("{repo} {number}"),
            "config": {}, "rootfs": {"type": "layers", "diff_ids": []}})
        .to_string();
        let digest = self.blob(repo, config.as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len()}})
        .to_string();
        (self.blob(repo, manifest.as_bytes()), manifest.len())
    }

    fn index(&self, repo: &str) -> Vec<Value> {
        let text = std::fs::read(self.root.join(repo).join("index.json")).unwrap_or_default();
        let index: Value = serde_json::from_slice(&text).unwrap_or_default();
        index["manifests"].as_array().cloned().unwrap_or_default()
    }

    /// Change the index: a tag points to an image, or is gone.
    fn set(&self, repo: &str, tag: &str, image: Option<&(String, usize)>) {
        let mut manifests = self.index(repo);
        manifests.retain(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] != tag);
        if let Some((digest, size)) = image {
            manifests.push(json!({"mediaType": MANIFEST, "digest": digest, "size": size,
                "annotations": {"org.opencontainers.image.ref.name": tag}}));
        }
        let text = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        let path = self.root.join(repo).join("index.json");
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }
}

/// What was done through the registry, and must be there in the end.
#[derive(Default)]
struct Ledger {
    tags: BTreeMap<(String, String), Option<String>>,
    downloads: BTreeMap<(String, String), i32>,
    stars: BTreeMap<String, i32>,
    users: BTreeMap<String, String>,
    /// How often which operation.
    operations: BTreeMap<&'static str, usize>,
    lost_locks: usize,
}

/// A registry that works on storage and metaDB in zot's order and under zot's locks.
struct Registry<'a> {
    storage: &'a Storage,
    client: Connection,
    ledger: &'a Mutex<Ledger>,
    random: u64,
    honest: bool,
    /// Images of its own repos, for pushing them again.
    pushed: Vec<(String, (String, usize))>,
}

impl Registry<'_> {
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    /// Run `change` on one repo's records under its lock: redsync's protocol, as zot follows it.
    fn with_lock(&mut self, repo: &str, change: impl Fn(&mut RepoMeta, &mut RepoBlobs)) {
        let key = format!("zot:Locks:Repo:{repo}");
        let token = format!("token-{}", self.random(u64::MAX));
        let mut attempts = 0;
        while self.honest {
            let taken: Option<String> =
                redis::cmd("SET").arg(&key).arg(&token).arg("EX").arg(8).arg("NX").query(&mut self.client).unwrap();
            if taken.is_some() {
                break;
            }
            attempts += 1;
            assert!(attempts < 32, "zot would have failed to push: {repo} stays locked");
            let pause = 50 + self.random(200);
            std::thread::sleep(Duration::from_millis(pause));
        }
        let get = |client: &mut Connection, bucket: &str| -> Vec<u8> {
            let found: Option<Vec<u8>> =
                redis::cmd("HGET").arg(format!("zot:{bucket}")).arg(repo).query(client).unwrap();
            found.unwrap_or_default()
        };
        let mut meta = RepoMeta::decode(get(&mut self.client, "RepoMeta").as_slice()).unwrap();
        let mut blobs = RepoBlobs::decode(get(&mut self.client, "RepoBlobsMeta").as_slice()).unwrap();
        change(&mut meta, &mut blobs);
        // Long enough for a walk to come between if it could.
        let think = self.random(4);
        std::thread::sleep(Duration::from_millis(think));
        meta.name = repo.to_owned();
        let now = jiff::Timestamp::now();
        let now = Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() };
        let mut transaction = redis::pipe();
        transaction.atomic();
        for (bucket, record) in [
            ("RepoLastUpdated", now.encode_to_vec()),
            ("RepoBlobsMeta", blobs.encode_to_vec()),
            ("RepoMeta", meta.encode_to_vec()),
        ] {
            transaction.cmd("HSET").arg(format!("zot:{bucket}")).arg(repo).arg(record);
        }
        transaction.exec(&mut self.client).unwrap();
        if self.honest {
            let script = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
            let released: RedisResult<i64> =
                redis::cmd("EVAL").arg(script).arg(1).arg(&key).arg(&token).query(&mut self.client);
            self.ledger.lock().unwrap().lost_locks += usize::from(released.unwrap() != 1);
        }
    }

    /// Push a new image.
    fn push(&mut self, repo: &str, tag: &str) {
        let image = self.storage.image(repo);
        self.pushed.push((repo.to_owned(), image.clone()));
        self.tag(repo, tag, &image);
    }

    /// Push an image once more, perhaps one that nothing reaches at the moment.
    fn push_again(&mut self, repo: &str, tag: &str) {
        let known: Vec<_> = self.pushed.iter().filter(|(of, _)| of == repo).map(|(_, image)| image.clone()).collect();
        match known.len() {
            0 => self.push(repo, tag),
            count => {
                let image = known[self.random(count as u64) as usize].clone();
                self.tag(repo, tag, &image);
            }
        }
    }

    fn tag(&mut self, repo: &str, tag: &str, image: &(String, usize)) {
        self.storage.set(repo, tag, Some(image));
        let digest = image.0.clone();
        // Any record will do: what counts is that there is one.
        let record = ImageMeta { media_type: MANIFEST.into(), ..ImageMeta::default() }.encode_to_vec();
        redis::cmd("HSET").arg("zot:ImageMeta").arg(&digest).arg(record).exec(&mut self.client).unwrap();
        self.with_lock(repo, |meta, _| {
            let tagged =
                TagDescriptor { digest: digest.clone(), media_type: MANIFEST.into(), ..TagDescriptor::default() };
            meta.tags.insert(tag.to_owned(), tagged);
            meta.statistics.entry(digest.clone()).or_insert_with(DescriptorStatistics::default);
        });
        self.ledger.lock().unwrap().tags.insert((repo.into(), tag.into()), Some(digest));
    }

    fn delete(&mut self, repo: &str, tag: &str) {
        self.storage.set(repo, tag, None);
        self.with_lock(repo, |meta, _| drop(meta.tags.remove(tag)));
        self.ledger.lock().unwrap().tags.insert((repo.into(), tag.into()), None);
    }

    fn pull(&mut self, repo: &str, digest: &str) {
        self.with_lock(repo, |meta, _| {
            meta.statistics.entry(digest.to_owned()).or_default().download_count += 1;
        });
        *self.ledger.lock().unwrap().downloads.entry((repo.into(), digest.into())).or_default() += 1;
    }

    fn star(&mut self, repo: &str, by: i32) {
        self.with_lock(repo, |meta, _| meta.stars += by);
        *self.ledger.lock().unwrap().stars.entry(repo.into()).or_default() += by;
        let (user, data) = (format!("user-{repo}"), json!({"StarredRepos": [repo], "Groups": null}).to_string());
        let () = redis::cmd("HSET").arg("zot:UserData").arg(&user).arg(&data).query(&mut self.client).unwrap();
        self.ledger.lock().unwrap().users.insert(user, data);
    }

    /// Delete all tags, and then the empty repo's storage, as garbage collection does: its records stay.
    fn retire(&mut self, repo: &str) {
        let tags: Vec<String> = {
            let ledger = self.ledger.lock().unwrap();
            let of = |((of, tag), digest): (&(String, String), &Option<String>)| {
                (of == repo && digest.is_some()).then(|| tag.clone())
            };
            ledger.tags.iter().filter_map(of).collect()
        };
        tags.iter().for_each(|tag| self.delete(repo, tag));
        self.storage.remove(repo);
        self.pushed.retain(|(of, _)| of != repo);
    }

    fn live(&mut self, base: &[(String, String)], stop: &AtomicBool, who: usize) {
        while !stop.load(Ordering::Relaxed) {
            // Every client has repos of its own to push to: storage has no lock between processes.
            let own = format!("repo-{}", self.random((REPOS / 2) as u64) as usize * 2 + who);
            let any = base[self.random(base.len() as u64) as usize].clone();
            let tag = format!("live-{}", self.random(12));
            let passing = format!("passing-{who}");
            let done = match self.random(10) {
                0 | 1 => {
                    self.push(&own, &tag);
                    "push"
                }
                2 => {
                    self.push_again(&own, &tag);
                    "push again"
                }
                3 => {
                    self.delete(&own, &tag);
                    "delete"
                }
                4 => {
                    self.push(&passing, &tag);
                    "push to a repo that comes and goes"
                }
                5 => {
                    self.retire(&passing);
                    "remove a repo"
                }
                6 | 7 => {
                    self.pull(&any.0, &any.1);
                    "pull"
                }
                _ => {
                    let by = if self.random(3) == 0 { -1 } else { 1 };
                    self.star(&any.0, by);
                    "star"
                }
            };
            *self.ledger.lock().unwrap().operations.entry(done).or_default() += 1;
            let pause = self.random(15);
            std::thread::sleep(Duration::from_millis(pause));
        }
    }
}

/// Everything in the ledger that the metaDB does not say.
fn missing(ledger: &Ledger, state: &Raw) -> Vec<String> {
    let meta = |repo: &str| RepoMeta::decode(state.get("RepoMeta", repo).unwrap_or_default()).unwrap();
    let mut out = Vec::new();
    for ((repo, tag), digest) in &ledger.tags {
        let found = meta(repo).tags.get(tag).map(|tagged| tagged.digest.clone());
        if found != *digest {
            out.push(format!("{repo}:{tag} is {found:?}, not {digest:?}"));
        }
        if let Some(digest) = digest
            && state.get("ImageMeta", digest).is_none()
        {
            out.push(format!("{repo}:{tag} lost the image record of {digest}"));
        }
    }
    for ((repo, digest), count) in &ledger.downloads {
        let found = meta(repo).statistics.get(digest).map_or(0, |statistics| statistics.download_count);
        if found != *count {
            out.push(format!("{repo}@{digest} has {found} downloads, not {count}"));
        }
    }
    for (repo, stars) in &ledger.stars {
        if meta(repo).stars != *stars {
            out.push(format!("{repo} has {} stars, not {stars}", meta(repo).stars));
        }
    }
    for (user, data) in &ledger.users {
        if state.get("UserData", user) != Some(data.as_bytes()) {
            out.push(format!("{user} lost their data"));
        }
    }
    out
}

/// A walk of some kind or another.
fn walk_beside(place: &Place, root: &Path, number: usize) {
    let some = GlobSet::builder().add(Glob::new("{repo-[0-2],passing-*}").unwrap()).build().unwrap();
    let (scope, prune) = match number % 4 {
        // Every repo, whatever its times say.
        0 => (Scope { repos: None, force: true }, false),
        1 => (Scope::default(), false),
        2 => (Scope { repos: Some(some), force: number % 8 == 2 }, false),
        _ => (Scope { repos: None, force: number % 8 == 3 }, true),
    };
    let whole = scope.repos.is_none();
    let report = walk_scoped(place, root, &scope, prune).unwrap();
    assert!(report.broken_off.is_none(), "{report:?}");
    // What is removed while it is being read can be read no more.
    let passes = |problems: &[Problem]| problems.iter().all(|problem| problem.repo.starts_with("passing-"));
    assert!(passes(&report.failed) && passes(&report.partial), "{report:?}");
    assert!(!report.stamp.is_there() || report.complete(), "a stamp or the reason: {report:?}");
    assert!(!whole || report.stamp.is_there() == report.complete(), "a stamp or the reason: {report:?}");
}

/// Whether everything was done, several times.
fn all_kinds(operations: &BTreeMap<&'static str, usize>) -> bool {
    operations.len() == KINDS && operations.values().all(|count| *count >= 5)
}

/// Two registries at work during twenty walks; what is missing afterwards, and what was done.
fn contend(honest: bool) -> (Vec<String>, BTreeMap<&'static str, usize>) {
    let server = Server::start(&[]);
    let place = Place::parse(&server.url("")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::new(dir.path());
    let mut base = Vec::new();
    for number in 0..REPOS {
        let repo = format!("repo-{number}");
        for tag in 0..TAGS {
            let image = storage.image(&repo);
            storage.set(&repo, &format!("base-{tag}"), Some(&image));
            base.push((repo.clone(), image.0));
        }
    }
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());
    let (ledger, stop) = (Mutex::new(Ledger::default()), AtomicBool::new(false));
    std::thread::scope(|threads| {
        for who in 0..2 {
            let (storage, base, ledger, stop, client) = (&storage, &base, &ledger, &stop, server.client());
            threads.spawn(move || {
                let random = 7 + who as u64;
                Registry { storage, client, ledger, random, honest, pushed: Vec::new() }.live(base, stop, who);
            });
        }
        for number in 0..10 * WALKS {
            walk_beside(&place, dir.path(), number);
            std::thread::sleep(Duration::from_millis(40));
            // Until everything was done several times, on a slow machine too.
            if number >= WALKS && all_kinds(&ledger.lock().unwrap().operations) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let ledger = ledger.into_inner().unwrap();
    let mut client = server.client();
    let mut out = missing(&ledger, &dump(&mut client, "zot"));
    if honest {
        assert_eq!(ledger.lost_locks, 0, "zot lost a lock while it held it");
    }
    // Another walk, now alone, finds nothing to repair.
    let report = walk_at(&place, dir.path(), true).unwrap();
    assert!(report.complete() && report.stamp.is_there(), "{report:?}");
    out.extend(missing(&ledger, &dump(&mut client, "zot")));
    (out, ledger.operations)
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn nothing_that_zot_does_during_twenty_walks_is_lost() {
    let (missing, operations) = contend(true);
    assert!(missing.is_empty(), "{} of {operations:?} lost:\n{}", missing.len(), missing.join("\n"));
    assert!(all_kinds(&operations), "the test shows little: {operations:?}");
}

/// The test above can see losses: registries that ignore the locks have some.
#[test]
#[ignore = "needs redis-server: run tests/run"]
fn what_ignores_the_locks_does_lose_changes() {
    // Mere luck may save everything once.
    assert!((0..5).any(|_| !contend(false).0.is_empty()), "the contention test cannot fail");
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn a_lock_that_zot_holds_is_waited_for_or_given_up() {
    let server = Server::start(&[]);
    let place = Place::parse(&server.url("")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::new(dir.path());
    for repo in ["free", "held"] {
        write_at(&dir.path().join(repo).join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, 1);
        let image = storage.image(repo);
        storage.set(repo, "latest", Some(&image));
    }
    let mut client = server.client();
    // As long as zot's lock lives, less than what zot waits for it.
    let () = redis::cmd("SET").arg("zot:Locks:Repo:held").arg("zot").arg("PX").arg(1500).query(&mut client).unwrap();
    assert!(walk_at(&place, dir.path(), false).unwrap().complete());

    let () = redis::cmd("SET").arg("zot:Locks:Repo:held").arg("zot").query(&mut client).unwrap();
    let report = walk_at(&place, dir.path(), true).unwrap();
    assert_eq!((report.parsed, report.failed.len()), (1, 1), "{report:?}");
    assert!(report.failed[0].reason.contains("zot:Locks:Repo:held"), "{report:?}");
    assert!(!report.stamp.is_there());
    let lock: String = redis::cmd("GET").arg("zot:Locks:Repo:held").query(&mut client).unwrap();
    assert_eq!(lock, "zot", "somebody else's lock was touched");
}
