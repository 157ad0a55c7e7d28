//! The second run costs what changed.

use super::run::{Options, verify_stores};
use super::support::driver::{Driver, drop_sums};
use super::support::dynamodb::Server;
use super::support::setups;
use super::world::World;
use metactl::cancel::Cancel;
use metactl::checksum::checksum;
use metactl::metadb::Kind;
use metactl::state::State;
use metactl::storage::local::LocalStore;
use metactl::storage::routing::Stores;
use metactl::storage::{Blob, ImageStore, IndexStat, StorageError};
use metactl::verify::{Depth, Report};
use redb::ReadableDatabase as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A store that counts what is read of each repo, and gives some indexes an ETag as object stores do.
struct Counting {
    store: LocalStore,
    reads: Arc<Mutex<BTreeMap<String, usize>>>,
    etags: BTreeMap<String, String>,
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
        let stat = self.store.stat_index(repo)?;
        Ok(match self.etags.get(repo) {
            Some(etag) => IndexStat { tag: Some(etag.clone()), ..stat },
            None => stat,
        })
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
    etags: BTreeMap<String, String>,
}

impl<'d> Runs<'d> {
    fn new(driver: Driver<'d>) -> Self {
        let world = World::new(driver);
        let file = world.dir.path().join("deep/er/state.redb");
        let state = Some(State::open(&file, "registry").unwrap());
        Self { world, state, file, etags: BTreeMap::new() }
    }

    /// Verify, and tell which repos were read.
    fn run(&self, depth: Depth, adapt: impl FnOnce(&mut Options<'_>)) -> (Report, Vec<String>) {
        let reads = Arc::new(Mutex::new(BTreeMap::new()));
        let store = Counting {
            store: LocalStore::new(self.world.root()),
            reads: Arc::clone(&reads),
            etags: self.etags.clone(),
        };
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
    add_repos(&runs.world, 30);
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

/// What metactl wrote before it kept checksums of its records reads alike, and the next writer adds them.
#[test]
fn redb_files_without_checksums_read_alike_and_get_them() {
    let runs = Runs::new(Driver::Redb);
    let (root, digests) = (runs.world.root(), &runs.world.digests);
    let place = runs.world.driver.place(&root);
    let read = || {
        let db = place.open(&Cancel::default()).unwrap();
        let mut found = Vec::new();
        db.image_digests(&mut |digest| found.push(digest.to_owned())).unwrap();
        let kinds = [Kind::ImageMeta, Kind::RepoMeta, Kind::RepoBlobs, Kind::RepoLastUpdated];
        let sums = kinds.map(|kind| db.checksums(kind, |key| checksum(key.as_bytes()), 1).unwrap().unwrap());
        (found, sums)
    };
    let known = read();
    assert!(known.0.contains(&digests.v1) && known.1.iter().all(|sums| !sums.is_empty()));
    runs.run(Depth::Deep, |_| {});
    for keep in [None, Some("ImageMeta")] {
        drop_sums(Path::new(&place.location()), keep);
        assert_eq!(read(), known);
        assert_eq!(runs.run(Depth::Deep, |_| {}).1, Vec::<String>::new());
        // Checksums for all that is there, whoever writes next: this one writes no record.
        assert!(runs.world.metactl(&["stamp", "clear"]).status.success());
        let db = redb::ReadOnlyDatabase::open(place.location()).unwrap();
        assert_eq!(db.begin_read().unwrap().list_tables().unwrap().count(), 7 + 4);
        drop(db);
        assert_eq!(read(), known);
        // And of what a walk changes, adds and removes; a dump compares them with the records.
        std::fs::remove_dir_all(root.join("team")).unwrap_or_default();
        assert!(runs.world.metactl(&["walk", "--force", "--prune"]).status.success());
        runs.world.raw();
        runs.world.driver.restore(&root, &runs.world.healthy);
    }
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

/// Objects may have whole seconds: what is written twice within one is told apart by its ETag alone.
#[test]
fn an_index_of_the_same_time_and_size_but_another_etag_is_read_again() {
    let mut runs = Runs::new(Driver::Bolt);
    for depth in super::run::DEPTHS {
        runs.etags = ALL.iter().map(|repo| ((*repo).to_owned(), format!("\"1\" {}", depth.word()))).collect();
        assert_eq!(runs.run(depth, |_| {}).1, ALL);
        assert_eq!(runs.run(depth, |_| {}).1, Vec::<String>::new());
        runs.etags.insert("alpine".into(), "\"2\"".into());
        assert_eq!(runs.run(depth, |_| {}).1, ["alpine"]);
        assert_eq!(runs.run(depth, |_| {}).1, Vec::<String>::new());
        // None is another one, too.
        runs.etags.remove("alpine");
        assert_eq!(runs.run(depth, |_| {}).1, ["alpine"]);
    }
}

/// `count` repos of one image each, below `many`, walked.
fn add_repos(world: &World<'_>, count: usize) {
    for at in 0..count {
        let name = format!("many/r{at}");
        let mut repo = super::support::store::Repo::new(&world.root(), &name, 1_704_067_200_000_000_000);
        let (digest, _) = super::world::image(&mut repo, &name, "amd64", 4);
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        repo.index(&[super::world::descriptor(media_type, &digest, Some("a"))]);
    }
    assert!(world.metactl(&["walk", "--force"]).status.success());
}

/// As if a day had passed since all that was verified.
fn a_day_later(state: &State) {
    let memories = state.repo_names().unwrap().into_iter().map(|name| {
        let mut memory = state.repo(&name).unwrap();
        memory.verified_at -= 86_400;
        (name, Some(memory))
    });
    state.update(&memories.collect::<Vec<_>>()).unwrap();
}

/// With 10 %, ten runs read every repo once, four at a time, whatever luck decides about their order.
#[test]
fn samples_cost_their_share_and_cover_everything() {
    let runs = Runs::new(Driver::Redb);
    let state = runs.state.as_ref().unwrap();
    add_repos(&runs.world, 37);
    assert_eq!(runs.run(Depth::Deep, |_| {}).1.len(), 40);
    let mut covered: Vec<String> = Vec::new();
    for round in 0..20 {
        a_day_later(state);
        let (report, read) = runs.run(Depth::Deep, |options| options.sample = Some(10.0));
        assert_eq!((report.checked, report.unchanged, read.len()), (4, 36, 4), "{read:?}");
        covered.extend(read);
        if (round + 1) % 10 == 0 {
            covered.sort_unstable();
            covered.dedup();
            assert_eq!(covered.len(), 40, "{covered:?}");
            covered.clear();
        }
    }
    // What changed is read besides, and not again as part of the sample.
    a_day_later(state);
    runs.world.reindex(false, |_| {});
    let (report, read) = runs.run(Depth::Deep, |options| options.sample = Some(10.0));
    assert_eq!((report.checked, read.len()), (1 + 4, 5));
    assert!(read.contains(&"alpine".to_owned()));
    // Any part of a repo is one; nothing is none.
    for (percent, checked) in [(0.1, 1), (0.0, 0), (100.0, 40)] {
        let (report, _) = runs.run(Depth::Deep, |options| options.sample = Some(percent));
        assert_eq!((report.checked, report.unchanged), (checked, 40 - checked), "{percent}");
    }
}

/// A sample is what finds bytes that rotted without a trace in times and sizes.
#[test]
fn a_sample_finds_what_rotted_silently() {
    let runs = Runs::new(Driver::Bolt);
    runs.run(Depth::Deep, |_| {});
    super::plants::corrupt(&runs.world, &runs.world.digests.config, |text| text.replace("us", "me"));
    assert!(runs.run(Depth::Deep, |_| {}).0.findings.is_empty());
    let found = (0..3).flat_map(|_| {
        a_day_later(runs.state.as_ref().unwrap());
        runs.run(Depth::Deep, |options| options.sample = Some(34.0)).0.findings
    });
    assert!(found.into_iter().any(|found| found.id == metactl::verify::Id::BlobDigest));
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
