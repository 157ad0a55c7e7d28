//! A walk that is cut short at any write or sync: the file opens again and is sound, every repo is as it was or as it shall
//! be, and the stamp is there only if all of it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use metactl::cancel::Cancel;
use metactl::metadb::bolt::metadb::BoltWriter;
use metactl::metadb::bolt::{Database, OpenOptions, Writer};
use metactl::metadb::redb::RedbWriter;
use metactl::metadb::{MetaDbError, MetaDbWriter, WriteToken};
use metactl::oci::time::Time;
use metactl::records::encode_time;
use metactl::walk::{WalkError, WalkReport};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, SystemTime};
use support::disk::{Disk, Fault};
use support::driver::{Raw, check_bolt, dump_bolt, dump_redb};
use support::equality::strict;
use support::records::decode;
use support::store::Repo;
use support::walk::{STAMP, open_writer, walk_at, walk_with};

/// The embedded drivers: a server is not a disk that could fail under us.
type Driver = support::driver::Driver<'static>;

const OLD_STAMP: &[u8] = b"v2.1.19+old|0123";
const T0: i64 = 1_704_164_645_123_456_789;

fn open(driver: Driver, disk: &Disk) -> Result<Box<dyn MetaDbWriter>, MetaDbError> {
    let (token, path) = (WriteToken::for_writing_command(), Path::new("disk"));
    Ok(match driver {
        Driver::Bolt => {
            let options = OpenOptions { create: true, ..OpenOptions::default() };
            let writer = Writer::with_layer(path, Box::new(disk.clone()), &options)?;
            Box::new(BoltWriter::with_writer(token, writer)?)
        }
        Driver::Redb => Box::new(RedbWriter::with_backend(token, path, disk.clone())?),
        Driver::Redis(_) | Driver::DynamoDb(_) => unreachable!("only embedded drivers are crashed"),
    })
}

fn walk(driver: Driver, root: &Path, disk: &Disk) -> Result<WalkReport, WalkError> {
    walk_with(root, &mut *open(driver, disk)?, false)
}

/// The content, after checking that the file is sound. Done on a copy, because opening may repair.
fn dump(driver: Driver, content: &[u8]) -> Raw {
    let disk = Disk::new(content.to_vec(), Fault::None);
    match driver {
        Driver::Bolt => {
            let db = Database::with_layer(Path::new("disk"), Box::new(disk)).unwrap();
            let report = check_bolt(&db);
            assert!(report.is_clean(), "{:?}", report.problems);
            dump_bolt(&db)
        }
        Driver::Redb => {
            let mut db = redb::Builder::new().create_with_backend(disk).unwrap();
            db.check_integrity().unwrap();
            dump_redb(&db)
        }
        Driver::Redis(_) | Driver::DynamoDb(_) => unreachable!("only embedded drivers are crashed"),
    }
}

/// A small image, tagged; `text` makes it another one.
fn push(root: &Path, name: &str, text: &str, mtime_ns: i64) {
    let mut repo = Repo::new(root, name, mtime_ns);
    let config = json!({"architecture": text, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).to_string();
    let config_digest = repo.blob(config.as_bytes());
    let layer = repo.blob(text.as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len(),
        },
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": text.len()}],
    })
    .to_string();
    let digest = repo.blob(manifest.as_bytes());
    let annotations = json!({"org.opencontainers.image.ref.name": "latest"});
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    repo.index(&[
        json!({"mediaType": media_type, "digest": digest, "size": manifest.len(), "annotations": annotations}),
    ]);
}

/// Without the instants of one run or another.
fn timeless(raw: &Raw, before: &Raw) -> Value {
    strict(&decode(raw), &decode(before))
}

struct Scene {
    driver: Driver,
    root: tempfile::TempDir,
    /// The metaDB file before the walk.
    before: Vec<u8>,
    old: Raw,
    new: Raw,
    /// Writes and syncs of an undisturbed walk.
    operations: usize,
}

impl Scene {
    /// A stamped metaDB of three repos, of which one changes, one stays and one goes; two are new.
    fn changing(driver: Driver) -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["changed", "gone/away", "same"] {
            push(root.path(), name, &format!("first {name}"), T0);
        }
        let disk = Disk::new(Vec::new(), Fault::None);
        assert!(walk(driver, root.path(), &disk).unwrap().complete());
        open(driver, &disk).unwrap().set_stamp(Some(STAMP.as_bytes()), Some(OLD_STAMP)).unwrap();
        std::fs::remove_dir_all(root.path().join("gone")).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        push(root.path(), "changed", "second", i64::try_from(now.as_nanos()).unwrap());
        push(root.path(), "new", "third", T0);
        push(root.path(), "new/nested", "fourth", T0);
        // The index of the changed repo is a few milliseconds from the future; the walks begin after that.
        std::thread::sleep(Duration::from_millis(20));
        Self::ready(driver, root, disk.content())
    }

    /// No metaDB yet.
    fn fresh(driver: Driver) -> Self {
        let root = tempfile::tempdir().unwrap();
        push(root.path(), "one", "1", T0);
        push(root.path(), "two", "2", T0);
        Self::ready(driver, root, Vec::new())
    }

    fn ready(driver: Driver, root: tempfile::TempDir, before: Vec<u8>) -> Self {
        let disk = Disk::new(before.clone(), Fault::None);
        let report = walk(driver, root.path(), &disk).unwrap();
        assert!(report.complete() && report.parsed > 1, "{report:?}");
        let old = if before.is_empty() { Raw::default() } else { dump(driver, &before) };
        let new = dump(driver, &disk.content());
        Self { driver, root, before, old, new, operations: disk.operations() }
    }

    fn run(&self, fault: Fault) -> (Disk, Result<WalkReport, WalkError>) {
        let disk = Disk::new(self.before.clone(), fault);
        let result = walk(self.driver, self.root.path(), &disk);
        (disk, result)
    }

    /// Every repo whole, old or new; the stamp only with all of them. Returns whether all is new.
    fn judge(&self, state: &Raw) -> bool {
        let (old, new, got) =
            (timeless(&self.old, &self.old), timeless(&self.new, &self.old), timeless(state, &self.old));
        let mut all_new = true;
        for repo in ["changed", "gone/away", "same", "new", "new/nested", "one", "two"] {
            let records = |db: &Value| [db["RepoMeta"].get(repo).cloned(), db["RepoBlobsMeta"].get(repo).cloned()];
            let (is_old, is_new) = (records(&got) == records(&old), records(&got) == records(&new));
            assert!(is_old || is_new, "{repo} is half written: {:?}", records(&got));
            let seen = |raw: &Raw| raw.get("RepoLastUpdated", repo).map(<[u8]>::to_vec);
            let unseen = is_old && seen(state) == seen(&self.old);
            let settled = is_new && seen(state).is_some() == seen(&self.new).is_some();
            assert!(unseen || settled, "{repo}: records and the time of their making disagree");
            if is_new && let Some(tag) = got["RepoMeta"][repo]["Tags"]["latest"]["Digest"].as_str() {
                assert_eq!(got["ImageMeta"][tag], new["ImageMeta"][tag], "{repo}");
            }
            all_new &= is_new;
        }
        match state.get("Version", "FastRestartStamp") {
            Some(stamp) if stamp == STAMP.as_bytes() => assert!(all_new, "stamped too early"),
            Some(stamp) => {
                assert_eq!(stamp, OLD_STAMP);
                assert_eq!(state, &self.old, "something changed while the old stamp stood");
            }
            None => {}
        }
        all_new
    }

    /// From whatever a crash left, the next walk gets to where the undisturbed one got.
    fn recovers(&self, content: Vec<u8>) {
        let disk = Disk::new(content, Fault::None);
        let report = walk(self.driver, self.root.path(), &disk).unwrap();
        assert!(report.complete(), "{report:?}");
        let state = dump(self.driver, &disk.content());
        assert!(self.judge(&state));
        assert_eq!(state.get("Version", "FastRestartStamp"), Some(STAMP.as_bytes()));
    }

    fn survives_a_crash_at_every_step(&self) {
        assert!(self.operations > 10, "{}", self.operations);
        for at in 0..self.operations {
            let (disk, _) = self.run(Fault::DeadFrom(at));
            for content in disk.after_a_crash() {
                // Before the file has come to be there is nothing to look at, but a walk must be able to begin.
                if !self.before.is_empty() {
                    self.judge(&dump(self.driver, &content));
                }
                self.recovers(content);
            }
        }
    }

    fn survives_one_failure_at_every_step(&self) {
        self.survives_failures(Fault::Only);
    }

    /// The file system vanishes at any step, and is back for the next walk.
    fn survives_the_end_of_the_file_system(&self) {
        self.survives_failures(Fault::GoneFrom);
    }

    fn survives_failures(&self, fault: fn(usize) -> Fault) {
        for at in 0..self.operations {
            let (disk, result) = self.run(fault(at));
            let content = disk.content();
            if self.before.is_empty() && result.is_err() {
                self.recovers(content);
                continue;
            }
            let state = dump(self.driver, &content);
            // Only the very last sync can fail after the stamp; it is there then, over records that are.
            let all_new = self.judge(&state);
            if let Ok(report) = result
                && report.complete()
            {
                assert!(all_new, "step {at}: a walk that says it is complete is not");
                assert_eq!(state.get("Version", "FastRestartStamp"), Some(STAMP.as_bytes()), "step {at}");
            }
            self.recovers(content);
        }
    }
}

#[test]
fn bolt_survives_a_crash_at_every_step() {
    Scene::changing(Driver::Bolt).survives_a_crash_at_every_step();
}

#[test]
fn a_new_bolt_file_survives_a_crash_at_every_step() {
    Scene::fresh(Driver::Bolt).survives_a_crash_at_every_step();
}

#[test]
fn bolt_survives_one_failure_at_every_step() {
    Scene::changing(Driver::Bolt).survives_one_failure_at_every_step();
    Scene::fresh(Driver::Bolt).survives_one_failure_at_every_step();
}

#[test]
fn bolt_survives_the_end_of_the_file_system() {
    Scene::changing(Driver::Bolt).survives_the_end_of_the_file_system();
    Scene::fresh(Driver::Bolt).survives_the_end_of_the_file_system();
}

#[test]
fn redb_survives_the_end_of_the_file_system() {
    Scene::changing(Driver::Redb).survives_the_end_of_the_file_system();
}

#[test]
fn redb_survives_a_crash_at_every_step() {
    Scene::changing(Driver::Redb).survives_a_crash_at_every_step();
}

#[test]
fn redb_survives_one_failure_at_every_step() {
    Scene::changing(Driver::Redb).survives_one_failure_at_every_step();
}

/// redb refuses a file whose making was cut short, so metactl makes it under another name.
#[test]
fn a_new_redb_file_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let place = Driver::Redb.place(dir.path());
    let open = || place.open_writer(WriteToken::for_writing_command(), Duration::from_secs(1), &Cancel::default());
    drop(open().unwrap());
    assert_eq!(Driver::Redb.dump(dir.path()), Raw::new_metadb());
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["meta.redb"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place.location()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // An empty file is none.
    std::fs::write(place.location(), b"").unwrap();
    assert!(matches!(place.open(&Cancel::default()), Err(MetaDbError::Absent { .. })));
    drop(open().unwrap());
    assert_eq!(Driver::Redb.dump(dir.path()), Raw::new_metadb());

    // A database without tables becomes a metaDB; whatever else is there is left alone.
    std::fs::remove_file(place.location()).unwrap();
    drop(redb::Database::create(place.location()).unwrap());
    drop(open().unwrap());
    assert_eq!(Driver::Redb.dump(dir.path()), Raw::new_metadb());
    for other in [b"x".repeat(5000), vec![0; 5000]] {
        std::fs::write(place.location(), &other).unwrap();
        assert!(matches!(open(), Err(MetaDbError::Damaged { .. })));
        assert_eq!(std::fs::read(place.location()).unwrap(), other);
    }
}

/// A clock that was a year ahead during a walk leaves times from the future; zot believes them and misses a year of changes,
/// so only a forced walk finds them. One that was a year behind only costs time.
#[test]
fn a_clock_that_jumps() {
    for driver in Driver::BOTH {
        for years in [-1_i64, 1] {
            let root = tempfile::tempdir().unwrap();
            for name in ["changed", "same"] {
                push(root.path(), name, "first", T0);
            }
            let place = driver.place(root.path());
            assert!(walk_at(&place, root.path(), false).unwrap().complete());
            let mut raw = driver.dump(root.path());
            let now = jiff::Timestamp::now().as_second();
            for name in ["changed", "same"] {
                let at = Time { seconds: now + years * 365 * 86_400, nanos: 0 };
                raw.put("RepoLastUpdated", name, &encode_time(at));
            }
            std::fs::remove_file(place.location()).unwrap();
            driver.restore(root.path(), &raw);
            push(root.path(), "changed", "second", now * 1_000_000_000);
            let mut writer = open_writer(&place).unwrap();
            writer.set_stamp(Some(STAMP.as_bytes()), Some(OLD_STAMP)).unwrap();
            let records = |raw: &Raw| decode(raw)["RepoMeta"]["changed"]["Tags"].clone();
            for force in [false, true] {
                let report = walk_with(root.path(), &mut *writer, force).unwrap();
                assert!(report.complete(), "{report:?}");
                let parsed = if force { 2 } else { usize::from(years < 0) };
                assert_eq!(report.parsed, parsed, "{driver:?} {years}");
            }
            drop(writer);
            assert_ne!(
                records(&driver.dump(root.path())),
                records(&raw),
                "{driver:?} {years}: the change was not seen"
            );
            // And the times are right again.
            assert_eq!(walk_at(&place, root.path(), false).unwrap().unchanged, 2);
        }
    }
}

/// Records that are there already are not written again: of a forced walk over what nobody touched only the times are new.
#[test]
fn what_is_recorded_is_not_written_again() {
    let root = tempfile::tempdir().unwrap();
    support::work::store(root.path(), 8, 40);
    for driver in Driver::BOTH {
        let first = Disk::new(Vec::new(), Fault::None);
        assert!(walk(driver, root.path(), &first).unwrap().complete());
        // A second walk has other placeholders to begin with, as zot's has; from then on records stay.
        let forced = |disk: &Disk| walk_with(root.path(), &mut *open(driver, disk).unwrap(), true).unwrap();
        assert!(forced(&first).complete());
        let before = dump(driver, &first.content());
        let again = Disk::new(first.content(), Fault::None);
        let report = forced(&again);
        assert!(report.complete() && report.parsed == 8, "{report:?}");
        let after = dump(driver, &again.content());
        for records in ["ImageMeta", "RepoMeta", "RepoBlobsMeta"] {
            assert!(after.bucket(records) == before.bucket(records), "{driver:?}: {records}");
        }
        assert!(after.bucket("RepoLastUpdated").iter().all(|(repo, at)| before.bucket("RepoLastUpdated")[repo] != *at));
        let records: usize = ["RepoMeta", "RepoBlobsMeta"]
            .iter()
            .flat_map(|name| before.bucket(name))
            .map(|(_, record)| record.len())
            .sum();
        assert!(again.written() < records / 2, "{driver:?}: {} bytes written, {records} recorded", again.written());
    }
}
