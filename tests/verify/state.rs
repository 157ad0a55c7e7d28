//! The second run costs what changed; a state file that cannot be used costs a warning.

use super::run::{Options, verify_stores};
use super::support::driver::Driver;
use super::support::dynamodb::Server;
use super::support::setups;
use super::world::World;
use metactl::cancel::Cancel;
use metactl::state::{State, StateError};
use metactl::storage::local::LocalStore;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::verify::{Depth, Report};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A store that counts what is read of each repo.
struct Counting {
    store: LocalStore,
    reads: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Counting {
    fn count(&self, repo: &str) {
        *self.reads.lock().unwrap().entry(repo.to_owned()).or_default() += 1;
    }
}

impl ImageStore for Counting {
    fn location(&self) -> String {
        self.store.location()
    }

    fn list_repos(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.store.list_repos(cancel)
    }

    fn list_unlistable(&self, cancel: &Cancel) -> Result<Vec<String>, StorageError> {
        self.store.list_unlistable(cancel)
    }

    fn stat_index(&self, repo: &str) -> Result<IndexStat, StorageError> {
        self.store.stat_index(repo)
    }

    fn read_index(&self, repo: &str) -> Result<Vec<u8>, StorageError> {
        self.count(repo);
        self.store.read_index(repo)
    }

    fn read_blobs(&self, repo: &str, digests: &[&str]) -> Vec<Result<Blob, StorageError>> {
        self.count(repo);
        self.store.read_blobs(repo, digests)
    }
}

struct Runs<'d> {
    world: World<'d>,
    state: Option<State>,
    file: PathBuf,
}

impl<'d> Runs<'d> {
    fn new(driver: Driver<'d>) -> Self {
        let world = World::new(driver);
        let file = world.dir.path().join("deep/er/state.redb");
        let state = Some(State::open(&file, "registry").unwrap());
        Self { world, state, file }
    }

    /// Verify, and tell which repos were read.
    fn run(&self, depth: Depth, adapt: impl FnOnce(&mut Options<'_>)) -> (Report, Vec<String>) {
        let reads = Arc::new(Mutex::new(BTreeMap::new()));
        let store = Counting { store: LocalStore::new(self.world.root()), reads: Arc::clone(&reads) };
        let mut options = Options { expected: &self.world.stamp, state: self.state.as_ref(), ..Options::at(depth) };
        adapt(&mut options);
        let report =
            verify_stores(self.world.driver, &self.world.root(), &Stores::new(Arc::new(store), Vec::new()), options);
        let read = reads.lock().unwrap().keys().cloned().collect();
        (report, read)
    }
}

const ALL: [&str; 3] = ["alpine", "empty", "team/app"];

fn second_run(driver: Driver<'_>) {
    for depth in super::run::DEPTHS {
        let runs = Runs::new(driver);
        let (report, read) = runs.run(depth, |_| {});
        assert!(report.findings.is_empty() && report.unchanged == 0, "{report:?}");
        assert_eq!(read, ALL);
        let (report, read) = runs.run(depth, |_| {});
        assert!(report.findings.is_empty() && report.unchanged == 3, "{report:?}");
        assert_eq!(read, Vec::<String>::new(), "{driver:?} {}", depth.word());

        // Touched storage, then a touched record: only that repo is read.
        runs.world.reindex(false, |_| {});
        assert_eq!(runs.run(depth, |_| {}).1, ["alpine"]);
        assert_eq!(runs.run(depth, |_| {}).1, Vec::<String>::new());
        runs.world.meta("team/app", |meta| meta.statistics.values_mut().for_each(|known| known.download_count += 1));
        assert_eq!(runs.run(depth, |_| {}).1, ["team/app"]);
        assert_eq!(runs.run(depth, |_| {}).1, Vec::<String>::new());

        // A shallower look does not undo a deeper one.
        assert_eq!(runs.run(Depth::Quick, |options| options.full = true).1, ALL);
        assert_eq!(runs.run(depth, |_| {}).1, Vec::<String>::new());

        // Bypassed, or of another depth.
        assert_eq!(runs.run(depth, |options| options.full = true).1, ALL);
        assert_eq!(runs.run(depth, |options| options.state = None).1, ALL);
        let deeper = if depth == Depth::Deep { Depth::Records } else { Depth::Deep };
        let again: &[&str] = if deeper == Depth::Deep { &ALL } else { &[] };
        assert_eq!(runs.run(deeper, |_| {}).1, again);
    }
}

#[test]
fn a_second_run_reads_nothing_and_a_changed_repo_alone() {
    Driver::BOTH.into_iter().for_each(second_run);
}

fn changed_image_record(driver: Driver<'_>) {
    let runs = Runs::new(driver);
    runs.run(Depth::Records, |_| {});
    runs.world.remove("ImageMeta", &runs.world.digests.v1);
    let ids = |report: &Report| report.findings.iter().map(|found| found.id.text()).collect::<Vec<_>>();
    let wanted = ["stamp-premature", "repo-hidden", "image-missing"];
    assert_eq!(ids(&runs.run(Depth::Records, |_| {}).0), wanted);
    // What is wrong is not remembered as right.
    assert_eq!(ids(&runs.run(Depth::Records, |_| {}).0), wanted);
    // Nor is what the stars say.
    let runs = Runs::new(driver);
    runs.run(Depth::Records, |_| {});
    runs.world.edit(|raw| raw.put("UserData", "bob", br#"{"StarredRepos":["alpine"]}"#));
    assert_eq!(ids(&runs.run(Depth::Records, |_| {}).0), ["stars-differ"]);
}

#[test]
fn an_image_record_that_changes_is_noticed() {
    Driver::BOTH.into_iter().for_each(changed_image_record);
}

#[test]
fn orphans_are_found_beside_repos_that_are_not_read() {
    let runs = Runs::new(Driver::Bolt);
    runs.run(Depth::Records, |_| {});
    let bytes = runs.world.raw().get("ImageMeta", &runs.world.digests.v1).unwrap().to_vec();
    runs.world.edit(|raw| raw.put("ImageMeta", &format!("sha256:{}", "0".repeat(64)), &bytes));
    // The second time they are remembered with the metaDB's generation.
    for _ in 0..2 {
        let (report, read) = runs.run(Depth::Records, |_| {});
        assert_eq!(report.findings.iter().map(|found| found.id.text()).collect::<Vec<_>>(), ["orphan-image"]);
        assert_eq!(read, Vec::<String>::new());
    }
    runs.world.remove("ImageMeta", &format!("sha256:{}", "0".repeat(64)));
    assert!(runs.run(Depth::Records, |_| {}).0.findings.is_empty());
}

/// A zot that goes on working gives the metaDB a new generation all the time; the records of what it did not touch are
/// still what they were.
fn many_repos(driver: Driver<'_>) {
    let runs = Runs::new(driver);
    for at in 0..30 {
        let name = format!("many/r{at}");
        let mut repo = super::support::store::Repo::new(&runs.world.root(), &name, 1_704_067_200_000_000_000);
        let (digest, _) = super::world::image(&mut repo, &name, "amd64", 4);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        repo.index(&[super::world::descriptor(media_type, &digest, Some("a"))]);
    }
    assert!(runs.world.metactl(&["walk", "--force"]).status.success());
    assert_eq!(runs.run(Depth::Deep, |_| {}).1.len(), 33);
    runs.world.edit(|raw| raw.put("UserData", "bob", b"{}"));
    let (report, read) = runs.run(Depth::Deep, |_| {});
    assert_eq!((report.unchanged, read.len()), (33, 0), "{driver:?} {report:?}");
    // One record of one repo, and one image record.
    runs.world.meta("many/r7", |meta| meta.size += 1);
    let (report, read) = runs.run(Depth::Deep, |_| {});
    assert_eq!((report.unchanged, read), (32, vec!["many/r7".to_owned()]), "{driver:?} {report:?}");
    runs.world.meta("many/r7", |meta| meta.size -= 1);
    runs.run(Depth::Deep, |_| {});
    let digest = runs.world.digests.v2.clone();
    runs.world.image(&digest, |record| record.manifests[0].size += 1);
    assert_eq!(runs.run(Depth::Deep, |_| {}).1, ["alpine"]);
}

#[test]
fn many_repos_under_a_new_generation_are_not_read_again() {
    Driver::BOTH.into_iter().for_each(many_repos);
}

#[test]
fn all_of_this_holds_with_dynamodb() {
    let server = Server::start();
    for test in [second_run as fn(Driver<'_>), changed_image_record, many_repos] {
        test(Driver::DynamoDb(&server));
    }
}

#[test]
#[ignore = "needs redis-server: run tests/run"]
fn all_of_this_holds_with_redis() {
    let setup = setups::plain();
    for test in [second_run as fn(Driver<'_>), changed_image_record, many_repos] {
        test(Driver::Redis(&setup));
    }
}

#[test]
fn samples_cover_everything_over_time() {
    let runs = Runs::new(Driver::Redb);
    runs.run(Depth::Deep, |_| {});
    let mut covered = std::collections::BTreeSet::new();
    for _ in 0..3 {
        // Memories have a resolution of one second.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let (report, read) = runs.run(Depth::Deep, |options| options.sample = Some(33.0));
        assert_eq!((report.checked, report.unchanged), (1, 2));
        covered.extend(read);
    }
    assert_eq!(covered.len(), 3, "{covered:?}");
    let (report, _) = runs.run(Depth::Deep, |options| options.sample = Some(0.0));
    assert_eq!((report.checked, report.unchanged), (0, 3));
    let (report, _) = runs.run(Depth::Deep, |options| options.sample = Some(100.0));
    assert_eq!((report.checked, report.unchanged), (3, 0));
}

#[test]
fn repos_that_are_gone_and_other_registries_are_kept_apart() {
    let mut runs = Runs::new(Driver::Bolt);
    runs.run(Depth::Deep, |_| {});
    assert_eq!(runs.state.as_ref().unwrap().repo_names().unwrap(), ALL);
    runs.state = None;
    runs.state = Some(State::open(&runs.file, "another registry").unwrap());
    assert_eq!(runs.run(Depth::Deep, |_| {}).1, ALL);
    std::fs::remove_dir_all(runs.world.root().join("team")).unwrap();
    runs.run(Depth::Deep, |_| {});
    assert_eq!(runs.state.as_ref().unwrap().repo_names().unwrap(), ["alpine", "empty"]);
    runs.state = None;
    runs.state = Some(State::open(&runs.file, "registry").unwrap());
    assert_eq!(runs.state.as_ref().unwrap().repo_names().unwrap(), ALL);
}

#[test]
fn unusable_state_files_cost_a_warning() {
    let world = World::new(Driver::Bolt);
    let file = world.dir.path().join("state.redb");
    let file_text = file.to_str().unwrap();
    let verify = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_metactl"));
        command.current_dir(&world.dir).env_clear().args(["--config", "config.json", "--release-tag", "v2.1.20"]);
        command.args(["--commit", "v2.1.20-0-g3b5796d", "--state", file_text, "verify"]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(verify(), "");
    assert!(State::open(&file, "x").unwrap().repo_names().unwrap().is_empty());

    // Locked.
    let held = State::open(&file, "x").unwrap();
    assert!(matches!(State::open(&file, "x"), Err(StateError::Locked { .. })));
    assert!(verify().contains("is in use"));
    drop(held);
    assert_eq!(verify(), "");

    // Damaged, in many ways: set aside, and the next run starts anew.
    let good = std::fs::read(&file).unwrap();
    let aside = world.dir.path().join("state.redb.damaged");
    for (name, bytes) in [
        ("cut", good[..good.len() / 3].to_vec()),
        ("header", {
            let mut bytes = good.clone();
            bytes[9..300].fill(0x55);
            bytes
        }),
    ] {
        std::fs::write(&file, &bytes).unwrap();
        let told = verify();
        assert!(told.contains("is damaged") && aside.exists(), "{name}: {told}");
        std::fs::remove_file(&aside).unwrap();
        assert_eq!(verify(), "", "{name}");
    }

    // Somebody else's: left alone.
    for foreign in [b"important text, not ours".to_vec(), {
        let other = world.dir.path().join("other.redb");
        let db = redb::Database::create(&other).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(redb::TableDefinition::<&str, &[u8]>::new("Version")).unwrap();
        transaction.commit().unwrap();
        drop(db);
        std::fs::read(other).unwrap()
    }] {
        std::fs::write(&file, &foreign).unwrap();
        assert!(verify().contains("left alone"));
        assert!(file.exists() && !aside.exists());
        if !foreign.starts_with(b"redb") {
            assert_eq!(std::fs::read(&file).unwrap(), foreign);
        }
    }

    // A place where nothing can be written.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(verify().contains("warning:"));
}

#[test]
fn stamp_show_names_the_keys_that_changed() {
    let world = World::new(Driver::Bolt);
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_metactl"));
        command.current_dir(&world.dir).env_clear().args(["--config", "config.json", "--release-tag", "v2.1.20"]);
        command.args(["--commit", "v2.1.20-0-g3b5796d", "--state", "state.redb"]).args(args);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["walk", "--force"]).0, Some(0));
    let path = world.dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("\"storage\":{", "\"storage\":{\"gcDelay\":\"3h\",\"maxRepos\":9,", 1))
        .unwrap();
    let (code, shown) = run(&["stamp", "show", "--check"]);
    assert_eq!(code, Some(1));
    assert!(shown.contains("storage.gcDelay") && shown.contains("storage.maxRepos"), "{shown}");
    assert!(!shown.contains("storage.dedupe"), "{shown}");
    let (_, json) = run(&["stamp", "show", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<&str> =
        json["changed_keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
    // The default of the third follows the first.
    assert_eq!(keys, ["storage.gcDelay", "storage.maxRepos", "storage.retention.delay"]);
    assert_eq!(json["changed_keys"][1]["now"], 9);
    // Current again, nothing to name.
    assert_eq!(run(&["stamp", "write"]).0, Some(0));
    let (code, shown) = run(&["stamp", "show", "--check"]);
    assert_eq!(code, Some(0));
    assert!(!shown.contains("changed"), "{shown}");
}
