//! Two and more of everything at once on one metaDB: walks, verifications, clearings, and a zot that starts, with random
//! pauses between and inside their steps. Whoever looks, at whatever instant: a stamp is there only over records that say
//! what storage says, every repo is as it was or as it should be, and what only the metaDB knows survives.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../bolt_support/mod.rs"]
mod bolt_support;
#[path = "../support/mod.rs"]
mod support;
mod zot;

use bolt_support::Rng;
use metactl::cancel::Cancel;
use metactl::metadb::bolt::{Batch, OpenOptions, Tx, Writer};
use metactl::metadb::{MetaDb, MetaDbError, MetaDbWriter, Outcome, RepoWork};
use metactl::progress::Silent;
use metactl::records::fold::Rules;
use metactl::storage::local::LocalStore;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::verify::{Depth, StampFacts, Verify, VerifyError};
use metactl::walk::plan::{Scope, plan};
use metactl::walk::{StampOutcome, Walk, WalkError};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::command::{push, push_at};
use support::driver::{Driver, Raw, check_bolt};
use support::records::visible;
use support::walk::{open_writer, walk_at};

const OLD_STAMP: &str = "v2.1.19+old|0123";
const ZOTS_STAMP: &str = "v2.1.20+zot|4567";
const PATIENCE: Duration = Duration::from_secs(30);

/// Random pauses of up to two milliseconds, mostly none.
struct Pauses(Mutex<Rng>);

impl Pauses {
    fn new(seed: u64) -> Self {
        Self(Mutex::new(Rng::new(seed)))
    }

    fn pause(&self) {
        let mut random = self.0.lock().unwrap();
        let length = if random.chance(4) { random.below(2000) } else { 0 };
        drop(random);
        std::thread::sleep(Duration::from_micros(length as u64));
    }
}

/// A store that hesitates. The walk looks at indexes inside the metaDB's own protection, so this reaches there too.
struct SlowStore(LocalStore, Arc<Pauses>);

impl ImageStore for SlowStore {
    fn location(&self) -> String {
        self.0.location()
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.1.pause();
        self.0.list_repos(cancel)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        self.1.pause();
        self.0.stat_index(repo)
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        self.1.pause();
        self.0.read_index(repo)
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        self.1.pause();
        self.0.read_blobs(repo, digests)
    }
}

/// A writer that hesitates before each of its steps, and commits each repo alone.
struct SlowWriter(Box<dyn MetaDbWriter>, Arc<Pauses>);

impl MetaDbWriter for SlowWriter {
    fn images_ahead(&self) -> Option<usize> {
        self.0.images_ahead()
    }

    fn reader(&self) -> &dyn MetaDb {
        self.0.reader()
    }

    fn set_stamp(&mut self, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<(), MetaDbError> {
        self.1.pause();
        self.0.set_stamp(expected, new)
    }

    fn write(&mut self, work: &[&dyn RepoWork]) -> Result<Vec<Outcome>, MetaDbError> {
        let mut outcomes = Vec::new();
        for work in work {
            self.1.pause();
            outcomes.extend(self.0.write(&[*work])?);
        }
        Ok(outcomes)
    }

    fn delete_images(&mut self, digests: &[String]) -> Result<(), MetaDbError> {
        self.1.pause();
        self.0.delete_images(digests)
    }
}

/// One who does something to the metaDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    Walk,
    ForcedWalk,
    Verify,
    Clear,
    /// Takes the lock, skips its walk if the stamp is its own, else walks and stamps; then serves a while.
    Zot,
}

const EVERYBODY: [Actor; 5] = [Actor::Walk, Actor::ForcedWalk, Actor::Verify, Actor::Clear, Actor::Zot];

/// A stamped metaDB whose storage changed while nobody looked.
struct Scene<'d> {
    driver: Driver<'d>,
    dir: tempfile::TempDir,
    before: Raw,
    /// What an undisturbed walk makes of it.
    after: Raw,
}

impl<'d> Scene<'d> {
    fn new(driver: Driver<'d>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("registry");
        std::fs::create_dir(&root).unwrap();
        for repo in ["changed", "gone", "same"] {
            push(&root, repo, &["v1"], &format!("first {repo}"));
        }
        let place = driver.place(&root);
        assert!(walk_at(&place, &root, false).unwrap().complete());
        let mut writer = open_writer(&place).unwrap();
        let stamp = writer.reader().stamp().unwrap();
        writer.set_stamp(stamp.as_deref(), Some(OLD_STAMP.as_bytes())).unwrap();
        drop(writer);
        std::fs::remove_dir_all(root.join("gone")).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        push_at(&root, "changed", &["v1", "v2"], "second", i64::try_from(now.as_nanos()).unwrap());
        push(&root, "new/one", &["v1"], "third");
        std::thread::sleep(Duration::from_millis(20));
        let before = driver.dump(&root);
        // Forced, so that the records are those of a repo that was read again.
        assert!(walk_at(&place, &root, true).unwrap().complete());
        Self { driver, before, after: driver.dump(&root), dir }
    }

    /// A copy of the store with the metaDB as it was before; the times are the same.
    fn copy(&self) -> Stage<'_> {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp")
            .args(["-a", "--"])
            .args([self.dir.path().join("registry"), dir.path().join("registry")])
            .status();
        assert!(status.unwrap().success());
        let root = dir.path().join("registry");
        for file in ["meta.db", "meta.redb"] {
            let _ = std::fs::remove_file(root.join(file));
        }
        self.driver.restore(&root, &self.before);
        Stage { scene: self, root, _dir: dir }
    }
}

/// Where actors meet.
struct Stage<'s> {
    scene: &'s Scene<'s>,
    root: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Stage<'_> {
    fn stores(&self, pauses: &Arc<Pauses>) -> Stores {
        Stores::new(Arc::new(SlowStore(LocalStore::new(&self.root), Arc::clone(pauses))), Vec::new())
    }

    /// What one actor does. What it may meet is another one who holds the metaDB, or was faster.
    fn act(&self, actor: Actor, number: u64, pauses: &Arc<Pauses>) -> String {
        pauses.pause();
        let done = match actor {
            Actor::Walk => self.walk(false, number, pauses),
            Actor::ForcedWalk => self.walk(true, number, pauses),
            Actor::Verify => self.verify(pauses),
            Actor::Clear => self.clear(pauses),
            Actor::Zot => self.zot(number, pauses),
        };
        match done {
            Ok(done) => done,
            Err(error @ (MetaDbError::Locked { .. } | MetaDbError::Busy { .. } | MetaDbError::StampChanged { .. })) => {
                error.to_string()
            }
            Err(error) => panic!("{actor:?}: {error}"),
        }
    }

    fn open_writer(&self, pauses: &Arc<Pauses>) -> Result<SlowWriter, MetaDbError> {
        Ok(SlowWriter(open_writer(&self.scene.driver.place(&self.root))?, Arc::clone(pauses)))
    }

    fn walk(&self, force: bool, number: u64, pauses: &Arc<Pauses>) -> Result<String, MetaDbError> {
        let (stores, cancel, scope) = (self.stores(pauses), Cancel::default(), Scope { repos: None, force });
        let mut writer = self.open_writer(pauses)?;
        let stamp = format!("v2.1.20+walk{number}|89ab");
        let unwrapped = |error| match error {
            WalkError::MetaDb(error) => error,
            other => panic!("{other}"),
        };
        let plan = plan(&stores, Some(writer.reader()), &scope, 2, &Silent, &cancel).map_err(unwrapped)?;
        let walk = Walk {
            stores: &stores,
            scope: &scope,
            rules: Rules::default(),
            jobs: 2,
            prune: number.is_multiple_of(2),
            stamp: Ok(&stamp),
            progress: &Silent,
            cancel: &cancel,
        };
        let report = walk.run(&mut writer, plan).map_err(unwrapped)?;
        // Where no lock keeps walks apart, one whose metaDB was stamped before its first write leaves it alone.
        if let (Driver::DynamoDb(_), Some(why)) = (self.scene.driver, &report.broken_off) {
            assert!(why.contains("changed meanwhile"), "{report:?}");
            assert_eq!((report.parsed, report.deleted.len(), report.stamp.is_there()), (0, 0, false), "{report:?}");
            return Ok("too late".into());
        }
        assert!(report.complete(), "{report:?}");
        if self.scene.driver != Driver::Bolt && self.scene.driver != Driver::Redb {
            return Ok(format!("{:?}", report.stamp));
        }
        // Under the lock nobody can have come between.
        assert!(matches!(&report.stamp, StampOutcome::Written(_)), "{report:?}");
        assert_eq!(writer.reader().stamp()?.as_deref(), Some(stamp.as_bytes()));
        Ok("walked".into())
    }

    /// Beside others it may find what they have not done yet, never damage.
    fn verify(&self, pauses: &Arc<Pauses>) -> Result<String, MetaDbError> {
        let (stores, cancel) = (self.stores(pauses), Cancel::default());
        let db = self.scene.driver.place(&self.root).open(&cancel)?;
        let stored = metactl::stamp::StoredStamp::new(db.stamp()?.unwrap_or_default());
        let facts = metactl::decision::Facts {
            metadb_used: true,
            zots_metadb: true,
            fast_restart: true,
            release_has_stamp: true,
            comparison: None,
            stamped: !stored.is_empty(),
        };
        let verify = Verify {
            stores: &stores,
            db: db.as_ref(),
            repos: None,
            depth: Depth::Deep,
            rules: Rules::default(),
            jobs: 2,
            stamp: StampFacts { facts, stored: &stored.text(), expected: "" },
            state: None,
            full: false,
            sample: None,
            progress: &Silent,
            cancel: &cancel,
        };
        match verify.run() {
            Ok(report) => {
                let unreadable = report.findings.iter().find(|finding| finding.id.to_string().contains("unreadable"));
                assert!(unreadable.is_none(), "{unreadable:?}");
                Ok(format!("{} findings", report.findings.len()))
            }
            Err(VerifyError::MetaDb(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    fn clear(&self, pauses: &Arc<Pauses>) -> Result<String, MetaDbError> {
        let Some(stored) = self.scene.driver.place(&self.root).open(&Cancel::default())?.stamp()? else {
            return Ok("no stamp".into());
        };
        self.open_writer(pauses)?.set_stamp(Some(&stored), None)?;
        Ok("cleared".into())
    }

    /// zot's protocol on its file, by means that have nothing in common with the walk.
    fn zot(&self, number: u64, pauses: &Arc<Pauses>) -> Result<String, MetaDbError> {
        if self.scene.driver != Driver::Bolt {
            return Ok(zot::start(self.scene.driver, &self.root, &self.scene.after, number, pauses).into());
        }
        let options = OpenOptions { lock_timeout: PATIENCE, ..OpenOptions::default() };
        let mut writer = Writer::open(&self.root.join("meta.db"), &options)?;
        let stamp = |tx: &Tx<'_>| tx.bucket(&[b"Version"])?.map_or(Ok(None), |bucket| bucket.get(b"FastRestartStamp"));
        let after = &self.scene.after;
        let skips = stamp(&writer.tx())?.as_deref() == Some(ZOTS_STAMP.as_bytes());
        if !skips {
            let mut batch = Batch::new();
            batch.delete(&[b"Version"], b"FastRestartStamp")?;
            writer.commit(&batch)?;
            for repo in ["changed", "gone", "new/one", "same"] {
                pauses.pause();
                let mut batch = Batch::new();
                for (bucket, path) in [("RepoMeta", &[&b"RepoMeta"[..]][..]), ("RepoBlobsMeta", &[b"RepoBlobsMeta"])] {
                    match after.get(bucket, repo) {
                        Some(record) => batch.put(path, repo.as_bytes(), record)?,
                        None => batch.delete(path, repo.as_bytes())?,
                    }
                }
                let seen: &[&[u8]] = &[b"RepoBlobsMeta", b"RepoLastUpdated"];
                match after.get("RepoLastUpdated", repo) {
                    Some(at) => batch.put(seen, repo.as_bytes(), at)?,
                    None => batch.delete(seen, repo.as_bytes())?,
                }
                for (digest, image) in after.bucket("ImageMeta") {
                    batch.put(&[b"ImageMeta"], &digest, image)?;
                }
                writer.commit(&batch)?;
            }
            pauses.pause();
            let mut batch = Batch::new();
            batch.put(&[b"Version"], b"FastRestartStamp", ZOTS_STAMP.as_bytes())?;
            writer.commit(&batch)?;
        }
        // It serves: somebody logs in.
        pauses.pause();
        let mut batch = Batch::new();
        batch.put(&[b"UserData"], format!("user {number}").as_bytes(), b"{}".as_slice())?;
        writer.commit(&batch)?;
        Ok(if skips { "zot skipped".into() } else { "zot walked".into() })
    }

    /// One look at everything: as whoever opens the metaDB now would see it.
    fn look(&self, what: &str) -> Raw {
        let state = self.scene.driver.dump(&self.root);
        let [before, after, got] = [&self.scene.before, &self.scene.after, &state].map(visible);
        let is = |other: &Value, bucket: &str| got[bucket] == other[bucket];
        let records = ["RepoMeta", "RepoBlobsMeta"];
        match state.get("Version", "FastRestartStamp").map(String::from_utf8_lossy) {
            None => {}
            Some(stamp) if stamp == OLD_STAMP => {
                assert!(records.iter().all(|bucket| is(&before, bucket)), "{what}: a change under the old stamp");
            }
            Some(stamp) => {
                for bucket in records {
                    assert!(is(&after, bucket), "{what}: {stamp} lies: {}\nnot {}", got[bucket], after[bucket]);
                }
            }
        }
        for repo in ["changed", "gone", "new/one", "same"] {
            let of = |db: &Value| records.map(|bucket| db[bucket].get(repo).cloned());
            assert!(of(&got) == of(&before) || of(&got) == of(&after), "{what}: {repo} is half written: {got}");
        }
        state
    }
}

/// So many random meetings of two or three of `actors`; `MEETINGS` in the environment makes it another number.
fn meet(driver: Driver<'_>, actors: &[Actor], meetings: u64) {
    let scene = Scene::new(driver);
    let meetings = std::env::var("MEETINGS").map_or(meetings, |number| number.parse().unwrap());
    for seed in 0..meetings {
        let mut random = Rng::new(seed + 1000);
        let stage = scene.copy();
        let cast: Vec<Actor> = (0..2 + random.below(2)).map(|_| actors[random.below(actors.len())]).collect();
        let what = format!("meeting {seed} of {cast:?}");
        let done: Vec<String> = std::thread::scope(|threads| {
            let stage = &stage;
            let parts: Vec<_> = std::iter::zip(0.., &cast)
                .map(|(number, actor)| {
                    let pauses = Arc::new(Pauses::new(seed * 31 + number));
                    threads.spawn(move || stage.act(*actor, number, &pauses))
                })
                .collect();
            // Meanwhile somebody looks, where that is possible without a lock.
            if driver == Driver::Bolt {
                while parts.iter().any(|part| !part.is_finished()) {
                    stage.look(&what);
                }
            }
            parts.into_iter().map(|part| part.join().unwrap_or_else(|_| panic!("{what}"))).collect()
        });
        let what = format!("{what}: {done:?}");
        let state = stage.look(&what);
        for (number, actor) in cast.iter().enumerate() {
            let user = state.get("UserData", &format!("user {number}"));
            assert!(user.is_some() || *actor != Actor::Zot, "{what}: user {number} is lost");
        }
        sound(driver, &stage.root);
        // Whatever they left, the next walk settles it.
        assert!(walk_at(&driver.place(&stage.root), &stage.root, false).unwrap().complete(), "{what}");
        assert_eq!(visible(&stage.look(&what))["RepoMeta"], visible(&scene.after)["RepoMeta"], "{what}");
    }
}

fn sound(driver: Driver<'_>, root: &Path) {
    if matches!(driver, Driver::Bolt) {
        let report = check_bolt(&metactl::metadb::bolt::Database::open(&root.join("meta.db")).unwrap());
        assert!(report.is_clean(), "{:?}", report.problems);
    }
}

#[test]
fn on_a_boltdb_file() {
    meet(Driver::Bolt, &EVERYBODY, 80);
}

#[test]
fn on_a_redb_file() {
    meet(Driver::Redb, &[Actor::Walk, Actor::ForcedWalk, Actor::Verify, Actor::Clear], 60);
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn on_redis() {
    // One server for all meetings; each has keys of its own.
    let setup = support::setups::plain();
    meet(Driver::Redis(&setup), &EVERYBODY, 60);
}

/// No lock keeps them apart: two walks are at work at once, and zot with them.
#[test]
fn on_dynamodb() {
    let server = support::dynamodb::Server::start();
    meet(Driver::DynamoDb(&server), &EVERYBODY, 40);
}
